"""A program: digests of all outputs and gradients of the layers, as JSON, for test_bits.py."""

import hashlib
import json

import numpy as np
from cell_cases import Window, make, run
from rnnfast.kernels.codegen.vectors import TARGET
from rnnfast.kernels.elementwise.noise import bernoulli_forward, normal_forward
from rnnfast.kernels.product.tile import PANEL_BYTES

from rnnfast import TimeAffine, TimeAffineSoftmaxWithLoss, TimeGRU, TimeLSTM, TimeRNN, TimeSoftmaxWithLoss

# ARM's instruction adds the two products of a pair first.
HAS_BFDOT = TARGET.is_arm64 and "+bf16" in TARGET.features.split(",")


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def everything(dtype):
    """Name and digest of each result, at sizes that fill vectors of no width."""
    rng = np.random.default_rng(0)
    made = {}

    def keep(prefix, **arrays):
        made.update({f"{prefix} {name} {np.dtype(dtype)}": digest(array) for name, array in arrays.items()})

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    for N, T, D, H in ((3, 70, 19, 45), (17, 31, 5, 37), (1, 300, 3, 9)):
        for activation in ("tanh", "relu"):
            layer = TimeRNN(
                normal(D, H) / 5, normal(H, H) / 8, normal(H), stateful=True, activation=activation
            )
            hs = layer.forward(normal(N, T, D))
            dxs = layer.backward(normal(N, T, H) / 10, dh_next=normal(N, H))
            dWx, dWh, db = layer.grads
            step = layer.step(normal(N, D))
            keep(f"{activation} {N}", hs=hs, dxs=dxs, dh=layer.dh, dWx=dWx, dWh=dWh, db=db, step=step)
    for N, D, H in ((1, 19, 45), (2, 5, 130)):
        for name, gates, cell in (("lstm", 4, TimeLSTM), ("gru", 3, TimeGRU)):
            layer = cell(normal(D, gates * H) / 5, normal(H, gates * H) / 8, normal(gates * H))
            for t in range(2):
                keep(f"{name} {N} step {t}", h=layer.step(normal(N, D)))
    for kind in ("lstm", "gru-before", "gru-after"):
        layer = make(kind, 19, 45, np.dtype(dtype).type)
        keep(kind, **run(layer, Window(layer, 3, 70, lengths=True, resets=True)))
    if dtype == np.float32 and not HAS_BFDOT:
        for kind in ("tanh", "lstm", "gru-before", "gru-after"):
            layer = make("rnn" if kind == "tanh" else kind, 19, 45, np.float32)
            layer.precision = "bfloat16"
            keep(f"{kind} bfloat16", **run(layer, Window(layer, 3, 70, lengths=True, resets=True)))
            keep(f"{kind} bfloat16 step", h=layer.step(normal(3, 19)))
        for transposed in (False, True):
            W = normal(309, 21).T if transposed else normal(21, 309)
            fused = TimeAffineSoftmaxWithLoss(W, normal(309), precision="bfloat16")
            loss = fused.forward(normal(5, 60, 21), rng.integers(-1, 309, (5, 60)))
            dxs = fused.backward()
            dW, db = fused.grads
            keep(f"fused bfloat16 {transposed}", loss=np.array(loss), dxs=dxs, dW=dW, db=db)
    for H, V in ((13, 45), (21, 309)):
        xs, ts = normal(5, 60, H), rng.integers(-1, V, (5, 60))
        affine, softmax = TimeAffine(normal(H, V), normal(V)), TimeSoftmaxWithLoss()
        scores = affine.forward(xs)
        loss = softmax.forward(scores, ts)
        dscores = softmax.backward()
        dxs = affine.backward(dscores)
        dW, db = affine.grads
        keep(f"affine {V}", scores=scores, loss=np.array(loss), dscores=dscores, dxs=dxs, dW=dW, db=db)
        fused = TimeAffineSoftmaxWithLoss(*affine.params)
        losses = fused.losses(xs, ts)
        loss = fused.forward(xs, ts)
        dxs = fused.backward()
        dW, db = fused.grads
        keep(f"fused {V}", losses=losses, loss=np.array(loss), dxs=dxs, dW=dW, db=db)
    for H in (9, 333):
        draws, chances = np.empty((2, 5, 60, H), dtype)
        normal_forward(3, 1, 2**40, 0, 0.7, draws)
        bernoulli_forward(3, 2, 2**40, 0, 0.3, chances)
        keep(f"noise {H}", normal=draws, bernoulli=chances)
    return made


if __name__ == "__main__":
    print(json.dumps({"panel bytes": PANEL_BYTES, **everything(np.float32), **everything(np.float64)}))
