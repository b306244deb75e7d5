"""What ONNX says of recurrent nodes, step by step in NumPy, and files of single nodes."""

import numpy as np

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_step(op, x, h, c, w, r, b, p, *, relu=False, after=False):
    """The state after one step of a row; `b` are both biases, `p` the peepholes i, o, f."""
    bw, br = np.split(b, 2)
    width = h.size
    xs, hs = w @ x + bw, r @ h + br
    if op == "RNN":
        a = xs + hs
        return (np.maximum(a, 0) if relu else np.tanh(a)), c
    if op == "GRU":
        z, rest = (sigmoid((xs + hs)[k * width : (k + 1) * width]) for k in range(2))
        last = slice(2 * width, None)
        kept = rest * hs[last] if after else r[last] @ (rest * h) + br[last]
        return (1 - z) * np.tanh(xs[last] + kept) + z * h, c
    i, o, f, g = np.split(xs + hs, 4)
    pi, po, pf = np.split(p, 3)
    c = sigmoid(f + pf * c) * c + sigmoid(i + pi * c) * np.tanh(g)
    return sigmoid(o + po * c) * np.tanh(c), c


def recurrent(op, direction, X, W, R, B=None, lengths=None, h0=None, c0=None, P=None, **how):
    """Y (T, directions, N, H), Y_h and Y_c (directions, N, H) for X (T, N, D)."""
    steps, batch, _ = X.shape
    count, _, width = R.shape
    B = np.zeros((count, 2 * GATES[op] * width)) if B is None else B
    P = np.zeros((count, 3 * width)) if P is None else P
    lengths = [steps] * batch if lengths is None else lengths
    Y = np.zeros((steps, count, batch, width))
    last = np.zeros((2, count, batch, width))
    for k in range(count):
        backwards = direction == "reverse" or k == 1
        for n in range(batch):
            h = np.zeros(width) if h0 is None else h0[k, n].astype(float)
            c = np.zeros(width) if c0 is None else c0[k, n].astype(float)
            order = range(lengths[n])
            for t in reversed(order) if backwards else order:
                h, c = one_step(op, X[t, n], h, c, W[k], R[k], B[k], P[k], **how)
                Y[t, k, n] = h
            last[:, k, n] = h, c
    return Y, *last


def weights(op, rng, depth, width, count=1, dtype=np.float32, peepholes=False):
    """W, R, B and P of a node."""
    rows = GATES[op] * width
    shapes = {"W": (count, rows, depth), "R": (count, rows, width), "B": (count, 2 * rows)}
    if peepholes:
        shapes["P"] = (count, 3 * width)
    return {name: (0.5 * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}


def model(nodes, inputs, outputs, constants, opset=14):
    """A model of nodes; inputs and outputs are names with the arrays that they are like."""
    from onnx import helper, numpy_helper

    def value(name, like):
        kind = helper.np_dtype_to_tensor_dtype(like.dtype)
        return helper.make_tensor_value_info(name, kind, [f"{name}_{k}" for k in range(like.ndim)])

    graph = helper.make_graph(
        nodes,
        "graph",
        [value(name, like) for name, like in inputs.items()],
        [value(name, like) for name, like in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    return made


def recurrent_model(
    op, given, constants, outputs=("Y", "Y_h", "Y_c"), opset=14, dtype=np.float32, **attributes
):
    """A model of one recurrent node; `given` are its inputs that are no constants, by name."""
    from onnx import helper

    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    present = [name if name in {**given, **constants} else "" for name in names]
    while not present[-1]:
        present.pop()
    outputs = list(outputs if op == "LSTM" else outputs[:2])
    node = helper.make_node(op, present, outputs, name="the node", **attributes)
    shapes = {"Y": 4, "Y_h": 3, "Y_c": 3}
    like = {name: np.zeros([1] * shapes[name], dtype) for name in outputs if name}
    return model([node], given, like, constants, opset)
