"""The Elman network: one step (`RNN`) and a whole sequence (`TimeRNN`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rnnfast import _check
from rnnfast.kernels.gemm import packed_size
from rnnfast.kernels.rnn import block_steps, padded_row, rnn_backward, rnn_forward, rnn_step
from rnnfast.layers.base import Layer, Workspace

ACTIVATIONS = ("tanh", "relu")


def _recurrent_parameters(owner: str, Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    """The parameters of an Elman network, checked against each other: Wx decides D, Wh decides H."""
    Wh = _check.parameter(owner, "Wh", Wh, ("H", "H"))
    hidden = Wh.shape[0]
    Wh = _check.parameter(owner, "Wh", Wh, (hidden, hidden))
    Wx = _check.parameter(owner, "Wx", Wx, ("D", hidden), Wh.dtype)
    return [Wx, Wh, _check.parameter(owner, "b", b, (hidden,), Wh.dtype)]


class TimeRNN(Layer):
    """Elman network over a whole sequence, with truncated backpropagation through time.

    ``h_t = tanh(h_{t-1} Wh + x_t Wx + b)``, or relu. Backward, with ``dt = dh_t * (1 - h_t^2)``:
    ``dWh = sum h_{t-1}^T dt``, ``dh_{t-1} = dt Wh^T``, ``dWx = sum x_t^T dt``, ``dx_t = dt Wx^T``, ``db = sum
    dt``.

    Parameters
    ----------
    Wx : ndarray (D, H)
        Input weights, float32 or float64; their dtype is the layer's.
    Wh : ndarray (H, H)
        Recurrent weights.
    b : ndarray (H,)
        Bias.
    stateful : bool
        Whether the state after one `forward` is the initial state of the next. The forward chain then runs on
        while each `backward` ends at the beginning of its own window: truncated BPTT.
    activation : {"tanh", "relu"}

    Attributes
    ----------
    params, grads : list of ndarray
        ``[Wx, Wh, b]`` and their gradients; the arrays keep their identity, `backward` writes in place.
    h : ndarray (N, H) or None
        A copy of the state after the last step; None before the first `forward` and after `reset_state`.
    dh : ndarray (N, H) or None
        A copy of the gradient of the initial state of the last window; None before the first `backward`.

    Notes
    -----
    `forward` keeps a reference to `xs` for `backward`, as the book's layers do: do not write into it in
    between. The results of a row do not depend, bit for bit, on the rest of the batch, nor on how a sequence
    is cut into calls.

    Source: Saito, *Deep Learning from Scratch 2*, chapter 5; Elman, *Finding structure in time*, 1990.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeRNN.from_sizes(3, 4, rng=np.random.default_rng(0))
    >>> hs = layer.forward(np.ones((2, 5, 3), np.float32))
    >>> hs.shape
    (2, 5, 4)
    >>> layer.backward(np.ones_like(hs)).shape
    (2, 5, 3)
    """

    def __init__(
        self,
        Wx: np.ndarray,
        Wh: np.ndarray,
        b: np.ndarray,
        stateful: bool = False,
        *,
        activation: str = "tanh",
    ) -> None:
        owner = type(self).__name__
        self.params = _recurrent_parameters(owner, Wx, Wh, b)
        self.activation = _check.choice(owner, "activation", activation, ACTIVATIONS)
        self.grads = [np.zeros(p.shape, p.dtype) for p in self.params]
        self.stateful = bool(stateful)
        self.dtype = Wx.dtype
        self.input_size, self.hidden_size = Wx.shape
        self._workspace = Workspace()
        self._h: np.ndarray | None = None
        self._dh: np.ndarray | None = None
        self._xs: np.ndarray | None = None
        self._states: np.ndarray | None = None

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
        stateful: bool = False,
        activation: str = "tanh",
    ) -> TimeRNN:
        """A layer with weights drawn as in the book: normal, divided by the square root of the fan-in; zero
        bias.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Source of the weights; a fresh one by default.
        dtype : float32 or float64
        stateful, activation
            As in the constructor.
        """
        owner = f"{cls.__name__}.from_sizes"
        depth = _check.size(owner, "input_size", input_size)
        width = _check.size(owner, "hidden_size", hidden_size)
        kind = _check.float_dtype(owner, dtype)
        rng = np.random.default_rng() if rng is None else rng
        Wx = (rng.standard_normal((depth, width)) / np.sqrt(depth)).astype(kind)
        Wh = (rng.standard_normal((width, width)) / np.sqrt(width)).astype(kind)
        return cls(Wx, Wh, np.zeros(width, kind), stateful, activation=activation)

    @property
    def h(self) -> np.ndarray | None:
        """A copy of the state (N, H) after the last step."""
        return None if self._h is None else self._h.copy()

    @property
    def dh(self) -> np.ndarray | None:
        """A copy of the gradient (N, H) of the initial state of the last window."""
        return None if self._dh is None else self._dh.copy()

    def set_state(self, h: np.ndarray | None) -> None:
        """Set the state (N, H) from which the next `forward` of a stateful layer, or `step`, starts."""
        owner = f"{type(self).__name__}.set_state"
        if h is None:
            self._h = None
            return
        self._h = _check.floats(owner, "h", h, ("N", self.hidden_size), self.dtype).copy()

    def reset_state(self) -> None:
        """Forget the state: the next step starts from zero."""
        self._h = None

    def _initial_state(self, owner: str, batch: int, carried: bool) -> np.ndarray:
        """The carried state, or zeros, in the layer's own buffer."""
        if carried and self._h is not None:
            _check.batch(owner, self._h.shape[0], batch)
            return self._h
        if self._h is None or self._h.shape[0] != batch:
            self._h = np.empty((batch, self.hidden_size), self.dtype)
        self._h[...] = 0
        return self._h

    def forward(self, xs: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Run over a window.

        Parameters
        ----------
        xs : ndarray (N, T, D)
            Inputs, in the dtype of the parameters.
        out : ndarray (N, T, H), optional
            Where to write the result; a fresh array by default.

        Returns
        -------
        hs : ndarray (N, T, H)
            The state after each step.

        Raises
        ------
        TypeError, ValueError
            If `xs` or `out` has another dtype or shape, or a carried state another batch size. The state is
            then as before.
        """
        owner = f"{type(self).__name__}.forward"
        xs = _check.floats(
            owner, "xs", xs, ("N", "T", self.input_size), self.dtype, "D is the input size of Wx"
        )
        batch, steps, _ = xs.shape
        width, dtype = self.hidden_size, self.dtype
        if out is None:
            hs = np.empty((batch, steps, width), dtype)
        else:
            hs = _check.out(owner, out, (batch, steps, width), dtype, xs, *self.params)
        h = self._initial_state(owner, batch, self.stateful)
        take = self._workspace.take
        states = take("states", (steps + 1, batch, padded_row(width, dtype)), dtype)
        Wx, Wh, b = self._kernel_params()
        rnn_forward(
            xs, h, Wx, Wh, b, self.activation == "relu", states, hs,
            take("packed_x", (packed_size(self.input_size, width, dtype),), dtype),
            take("packed_h", (packed_size(width, width, dtype),), dtype),
        )  # fmt: skip
        h[...] = states[steps, :, :width]
        self._xs, self._states = xs, states
        return hs

    def backward(
        self, dhs: np.ndarray, *, dh_next: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Backpropagate through the window of the last `forward`.

        Parameters
        ----------
        dhs : ndarray (N, T, H)
            Gradient of the loss by each output.
        dh_next : ndarray (N, H), optional
            Gradient that arrives at the final state from what follows the window; zero by default
            (truncation).
        out : ndarray (N, T, D), optional
            Where to write the result; a fresh array by default.

        Returns
        -------
        dxs : ndarray (N, T, D)
            Gradient by each input. `grads` is overwritten, and `dh` is the gradient of the initial state.
        """
        owner = f"{type(self).__name__}.backward"
        _check.called_before(owner, self._xs is not None, "forward")
        assert self._xs is not None
        assert self._states is not None
        xs, states = self._xs, self._states
        batch, steps, depth = xs.shape
        width, dtype = self.hidden_size, self.dtype
        dhs = _check.floats(owner, "dhs", dhs, (batch, steps, width), dtype, "the shape of the last output")
        take = self._workspace.take
        if dh_next is None:
            dh_next = take("dh_next", (batch, width), dtype)
            dh_next[...] = 0
        else:
            dh_next = _check.floats(owner, "dh_next", dh_next, (batch, width), dtype)
        if out is None:
            dxs = np.empty((batch, steps, depth), dtype)
        else:
            dxs = _check.out(
                owner, out, (batch, steps, depth), dtype, xs, dhs, dh_next, *self.params, *self.grads
            )
        if self._dh is None or self._dh.shape[0] != batch:
            self._dh = np.empty((batch, width), dtype)
        Wx, Wh, _ = self._kernel_params()
        block, row = block_steps(batch), padded_row(width, dtype)
        rnn_backward(
            xs, states, dhs, dh_next, Wx, Wh, self.activation == "relu", dxs, self._dh, *self.grads,
            take("packed_x", (packed_size(width, depth, dtype),), dtype),
            take("packed_h", (packed_size(width, width, dtype),), dtype),
            take("packed_dt", (packed_size(block * batch, width, dtype),), dtype),
            take("dts", (block, batch, row), dtype),
            take("dh", (batch, row), dtype),
            take("x_block", (block, batch, depth), dtype),
        )  # fmt: skip
        return dxs

    def step(self, x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Advance the state by one input, for streaming; the bits of `forward`, no gradient.

        Parameters
        ----------
        x : ndarray (N, D)
            One input a row. The first step starts from zero, or from `set_state`.
        out : ndarray (N, H), optional
            Where to write the result; a fresh array by default.

        Returns
        -------
        h : ndarray (N, H)
            The new state.
        """
        owner = f"{type(self).__name__}.step"
        x = _check.floats(owner, "x", x, ("N", self.input_size), self.dtype, "D is the input size of Wx")
        shape = (x.shape[0], self.hidden_size)
        result = np.empty(shape, self.dtype) if out is None else _check.out(owner, out, shape, self.dtype, x)
        h = self._initial_state(owner, shape[0], carried=True)
        rnn_step(x, h, *self._kernel_params(), self.activation == "relu", result)
        h[...] = result
        return result

    def _kernel_params(self) -> Sequence[np.ndarray]:
        """The parameters in the form kernels are compiled for; transposed views are copied."""
        return [_check.kernel_ready(p) for p in self.params]


class RNN(Layer):
    """One step of the Elman network, as in the book: ``h = tanh(h_prev Wh + x Wx + b)``.

    Parameters
    ----------
    Wx, Wh, b : ndarray (D, H), (H, H), (H,)
        Weights and bias, float32 or float64.

    Source: Saito, *Deep Learning from Scratch 2*, section 5.3.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> cell = rnnfast.RNN(np.zeros((3, 2)), np.zeros((2, 2)), np.ones(2))
    >>> cell.forward(np.zeros((1, 3)), np.zeros((1, 2))).round(4)
    array([[0.7616, 0.7616]])
    """

    def __init__(self, Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray) -> None:
        self._time = TimeRNN(Wx, Wh, b, stateful=True)
        self.params, self.grads = self._time.params, self._time.grads

    def forward(self, x: np.ndarray, h_prev: np.ndarray) -> np.ndarray:
        """The next state (N, H) from an input `x` (N, D) and the state `h_prev` (N, H)."""
        time = self._time
        x = _check.floats(
            "RNN.forward", "x", x, ("N", time.input_size), time.dtype, "D is the input size of Wx"
        )
        h_prev = _check.floats("RNN.forward", "h_prev", h_prev, (x.shape[0], time.hidden_size), time.dtype)
        time.set_state(h_prev)
        return time.forward(x[:, None])[:, 0]

    def backward(self, dh_next: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(dx, dh_prev)`` of shapes (N, D) and (N, H) from the gradient `dh_next` (N, H) of the new state.

        `grads` is overwritten with this step's gradients.
        """
        time = self._time
        _check.called_before("RNN.backward", time._xs is not None, "forward")
        assert time._xs is not None
        shape = (time._xs.shape[0], time.hidden_size)
        dh_next = _check.floats("RNN.backward", "dh_next", dh_next, shape, time.dtype)
        dx = time.backward(dh_next[:, None])[:, 0]
        dh_prev = time.dh
        assert dh_prev is not None
        return dx, dh_prev
