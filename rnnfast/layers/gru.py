"""The GRU: one step (`GRU`) and a whole sequence (`TimeGRU`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check, _threads
from rnnfast.kernels.gemm import packed_size
from rnnfast.kernels.gru import GATES, gru_backward, gru_forward, gru_step
from rnnfast.kernels.sequence import (
    block_steps,
)
from rnnfast.kernels.shares import (
    recurrent_packed_size,
)
from rnnfast.layers.one_step import OneStep
from rnnfast.layers.recurrent import Recurrent
from rnnfast.layers.rows import Rows
from rnnfast.layers.window import Inputs

RESETS = ("before", "after")


class TimeGRU(Recurrent):
    """GRU over a whole sequence, with truncated backpropagation through time.

    ``z, r = sigmoid`` of the first two blocks of ``x_t Wx + h_{t-1} Wh + b``;
    ``h_t = (1 - z) h_{t-1} + z h_hat``, where the reset gate acts before the recurrent product, as in the
    book, ``h_hat = tanh(x_t Wxh + (r h_{t-1}) Whh + bh)``, or after it, as in PyTorch and cuDNN,
    ``h_hat = tanh(x_t Wxh + bh + r (h_{t-1} Whh + bhh))``. (PyTorch's z means keep: it is 1 - z here.)

    Parameters
    ----------
    Wx : ndarray (D, 3H)
        Input weights, the blocks z, r, h; float32 or float64; their dtype is the layer's.
    Wh : ndarray (H, 3H)
        Recurrent weights, likewise.
    b : ndarray (3H,)
        Bias, likewise.
    stateful : bool
        Whether the state after one `forward` is the initial state of the next. The forward chain then runs on
        while each `backward` ends at the beginning of its own window: truncated BPTT.
    reset : {"before", "after"}
        Where the reset gate acts.
    bhh : ndarray (H,), optional
        The recurrent bias that ``reset="after"`` has beside `b`; zeros by default.

    Attributes
    ----------
    params, grads : list of ndarray
        ``[Wx, Wh, b]``, and ``bhh`` with ``reset="after"``, and their gradients; the arrays keep their
        identity, `backward` writes in place.
    h : ndarray (N, H) or None
        A copy of the state after the last step; None before the first `forward` and after `reset_state`.
    dh : ndarray (N, H) or None
        A copy of the gradient of the initial state of the last window; None before the first `backward`.

    Notes
    -----
    As for `TimeLSTM`.

    Source: Saito, *Deep Learning from Scratch 2*, appendix C; Cho et al., *Learning phrase representations
    using RNN encoder-decoder*, 2014.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeGRU.from_sizes(3, 4, rng=np.random.default_rng(0), reset="after")
    >>> hs = layer.forward(np.ones((2, 5, 3), np.float32))
    >>> [p.shape for p in layer.params]
    [(3, 12), (4, 12), (12,), (4,)]
    >>> layer.backward(np.ones_like(hs)).shape
    (2, 5, 3)
    """

    GATES = GATES

    def __init__(
        self,
        Wx: np.ndarray,
        Wh: np.ndarray,
        b: np.ndarray,
        stateful: bool = False,
        *,
        reset: str = "before",
        bhh: np.ndarray | None = None,
    ) -> None:
        owner = type(self).__name__
        params = self._check_params(Wx, Wh, b)
        hidden = params[1].shape[0]
        self.reset = _check.choice(owner, "reset", reset, RESETS)
        if self.reset == "after":
            bhh = np.zeros(hidden, params[0].dtype) if bhh is None else bhh
            params.append(_check.parameter(owner, "bhh", bhh, (hidden,), params[0].dtype))
        else:
            _check.absent(owner, "bhh", bhh, 'reset="after"')
        self._set_up(params, stateful)

    def _shown(self) -> dict[str, Any]:
        return {**super()._shown(), "reset": self.reset}

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
        stateful: bool = False,
        reset: str = "before",
    ) -> TimeGRU:
        """A layer with weights drawn as in the book: normal, divided by the square root of the fan-in; zero
        biases.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Source of the weights; a fresh one by default.
        dtype : float32 or float64
        stateful, reset
            As in the constructor.
        """
        return cls(*cls._draw(input_size, hidden_size, rng, dtype), stateful, reset=reset)

    @property
    def _after(self) -> bool:
        return self.reset == "after"

    def _gru_params(self) -> list[np.ndarray]:
        """Wx, Wh, b and the recurrent bias, which the kernels do not read where there is none."""
        params = self._kernel_params()
        return params if self._after else [*params, self._take("no_bias", 0)]

    def _plan_forward(self, batch: int, rows: Rows, words: int) -> tuple:
        width, row, take = self.hidden_size, self._row(), self._take
        gate_row = self._row(GATES + self._after)
        team = self._team(rows, 1)
        blocks, slots = self._slots(batch, rows, gate_row)
        saved = (
            take("states", batch + int(rows.offsets[-1]), row),
            take("gates", slots * block_steps(batch) * batch, gate_row),
        )
        scratch = (
            take("packed_x", packed_size(self.input_size, GATES * width, self.dtype)),
            take("packed_gates", recurrent_packed_size(width, width, 2, team.members, self.dtype)),
            take("packed_hat", recurrent_packed_size(width, width, 1, team.members, self.dtype)),
            self._input_block(batch),
            self._word_table(words),
            take("kept", batch, row),
            take("product", batch, row),
        )
        return team, saved, scratch, blocks - slots

    def _forward(
        self,
        inputs: Inputs,
        before: list[np.ndarray],
        after: list[np.ndarray],
        rows: Rows,
        hs: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        team, saved, scratch, intact = self._planned("forward", inputs, rows, self._plan_forward)
        arguments = (
            *inputs[:3], *before, *self._gru_params(), self._after, *rows, *saved, hs, *after, *scratch,
        )  # fmt: skip
        _threads.run(gru_forward, team.members, team.by_units, arguments)
        self._intact = intact
        return saved

    def _plan_backward(self, batch: int, rows: Rows, words: int) -> tuple:
        depth, width, row, take = self.input_size, self.hidden_size, self._row(), self._take
        cols, block_rows = GATES * width, block_steps(batch) * batch
        remake = self._intact > 0
        team = self._team(rows, 2)
        return team, (
            take("packed_x", packed_size(cols, depth, self.dtype)),
            take("packed_gates", recurrent_packed_size(2 * width, width, 1, team.members, self.dtype)),
            take("packed_hat", recurrent_packed_size(width, width, 1, team.members, self.dtype)),
            take("packed_wx", packed_size(depth, cols, self.dtype) if remake else 0),
            take("packed_wz", packed_size(width, 2 * width, self.dtype) if remake else 0),
            take("packed_wh", packed_size(width, width, self.dtype) if remake else 0),
            take("dts", block_rows + 1, self._row(GATES + 1)),
            take("dh", batch, row),
            take("dproduct", batch, row),
            self._input_block(batch),
            self._word_sums(words, self._row(GATES + 1)),
            take("h_block", block_rows, row),
            take("product", block_rows if remake else batch, row),
        )

    def _backward(
        self,
        inputs: Inputs,
        rows: Rows,
        saved: tuple[np.ndarray, ...],
        dhs: np.ndarray,
        dstate_next: list[np.ndarray],
        dxs: np.ndarray,
        dstate: list[np.ndarray],
    ) -> None:
        team, scratch = self._planned("backward", inputs, rows, self._plan_backward)
        intact = self._gates_to_remake(rows)
        params = *self._gru_params(), self._after
        grads = self._dweights if self._after else (*self._dweights, self._take("no_bias", 0))
        arguments = (
            *inputs[:3], *saved, intact, dhs, *dstate_next, *params, *rows, self._adds,
            dxs, inputs.dwords, *dstate, *grads, *scratch,
        )  # fmt: skip
        _threads.run(gru_backward, team.members, team.by_units, arguments)

    def _step_arguments(self, state: list[np.ndarray], params: list[np.ndarray]) -> tuple:
        bhh = params[3:] or [self._take("no_bias", 0)]
        return (*state, *params[:3], *bhh, self._after, self._take("step", (GATES + 1) * self.hidden_size))

    def _step(self, x: np.ndarray, arguments: tuple, out: np.ndarray) -> None:
        gru_step(x, *arguments, out)


class GRU(OneStep):
    """One step of the GRU, as in the book: ``h = (1 - z) h_prev + z h_hat``; gates as in `TimeGRU`.

    Parameters
    ----------
    Wx, Wh, b : ndarray (D, 3H), (H, 3H), (3H,)
        Weights and bias, float32 or float64.
    reset, bhh
        As in `TimeGRU`.

    Source: Saito, *Deep Learning from Scratch 2*, appendix C.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> cell = rnnfast.GRU(np.zeros((3, 6)), np.zeros((2, 6)), np.ones(6))
    >>> cell.forward(np.zeros((1, 3)), np.zeros((1, 2))).round(4)
    array([[0.5568, 0.5568]])
    """

    def __init__(
        self,
        Wx: np.ndarray,
        Wh: np.ndarray,
        b: np.ndarray,
        *,
        reset: str = "before",
        bhh: np.ndarray | None = None,
    ) -> None:
        self._wrap(TimeGRU(Wx, Wh, b, stateful=True, reset=reset, bhh=bhh))

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
        reset: str = "before",
    ) -> GRU:
        """A layer with weights drawn as `TimeGRU.from_sizes` draws them.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Source of the weights; a fresh one by default.
        dtype : float32 or float64
        reset : {"before", "after"}
            As in the constructor; the second recurrent bias is zero too.
        """
        params = TimeGRU.from_sizes(input_size, hidden_size, rng=rng, dtype=dtype).params
        return cls(*params, reset=reset)

    def forward(self, x: np.ndarray, h_prev: np.ndarray) -> np.ndarray:
        """The next state (N, H) from an input `x` (N, D) and the state `h_prev` (N, H)."""
        return self._advance(x, (h_prev,))[0]

    def backward(self, dh_next: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(dx, dh_prev)`` of shapes (N, D) and (N, H) from the gradient `dh_next` (N, H) of the new state.

        `grads` is overwritten with this step's gradients.
        """
        dx, dh_prev = self._retreat((dh_next,))
        return dx, dh_prev
