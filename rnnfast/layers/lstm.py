"""The LSTM: one step (`LSTM`) and a whole sequence (`TimeLSTM`)."""

from __future__ import annotations

import numpy as np

from rnnfast import _threads
from rnnfast._turns import in_turn
from rnnfast.kernels.gemm import packed_size
from rnnfast.kernels.lstm import GATES, lstm_backward, lstm_forward, lstm_step
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
from rnnfast.state import State


class TimeLSTM(Recurrent):
    """LSTM over a whole sequence, with truncated backpropagation through time.

    With f, g, i, o the four blocks of ``x_t Wx + h_{t-1} Wh + b`` in this order, f, i, o through a sigmoid
    and g through tanh: ``c_t = f c_{t-1} + g i``, ``h_t = o tanh(c_t)``.

    Parameters
    ----------
    Wx : ndarray (D, 4H)
        Input weights, float32 or float64; their dtype is the layer's.
    Wh : ndarray (H, 4H)
        Recurrent weights.
    b : ndarray (4H,)
        Bias.
    stateful : bool
        Whether the state after one `forward` is the initial state of the next. The forward chain then runs on
        while each `backward` ends at the beginning of its own window: truncated BPTT.

    Attributes
    ----------
    params, grads : list of ndarray
        ``[Wx, Wh, b]`` and their gradients; the arrays keep their identity, `backward` writes in place.
    h, c : ndarray (N, H) or None
        Copies of the state and the cell after the last step; None before the first `forward` and after
        `reset_state`.
    dh, dc : ndarray (N, H) or None
        Copies of the gradients of the initial state and cell of the last window; None before the first
        `backward`.

    Notes
    -----
    `forward` keeps a reference to `xs` for `backward`, as the book's layers do: do not write into it in
    between. The results of a row do not depend, bit for bit, on the rest of the batch, nor on how a sequence
    is cut into calls. The gates of a long window are not kept but made again in `backward`, with the same
    bits: memory beyond the outputs is then little more than one copy of them.

    Source: Saito, *Deep Learning from Scratch 2*, section 6.3; Hochreiter and Schmidhuber, *Long short-term
    memory*, 1997; Gers, Schmidhuber and Cummins, *Learning to forget*, 2000.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeLSTM.from_sizes(3, 4, rng=np.random.default_rng(0))
    >>> hs = layer.forward(np.ones((2, 5, 3), np.float32), lengths=[5, 2])
    >>> hs.shape, bool(hs[1, 2:].any())
    ((2, 5, 4), False)
    >>> layer.backward(np.ones_like(hs)).shape
    (2, 5, 3)
    """

    GATES = GATES
    STATES = ("h", "c")

    def __init__(self, Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray, stateful: bool = False) -> None:
        self._set_up(self._check_params(Wx, Wh, b), stateful)

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
        stateful: bool = False,
    ) -> TimeLSTM:
        """A layer with weights drawn as in the book: normal, divided by the square root of the fan-in; zero
        bias.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Source of the weights; a fresh one by default.
        dtype : float32 or float64
        stateful : bool
            As in the constructor.
        """
        return cls(*cls._draw(input_size, hidden_size, rng, dtype), stateful)

    @property
    @in_turn
    def c(self) -> np.ndarray | None:
        """A copy of the cell (N, H) after the last step; None before the first and after `reset_state`."""
        return None if self._state is None else self._state[1].copy()

    @property
    @in_turn
    def dc(self) -> np.ndarray | None:
        """A copy of the gradient (N, H) of the initial cell of the last window; None before `backward`."""
        return None if self._dstate is None else self._dstate[1].copy()

    def set_state(self, h: np.ndarray | State | None, c: np.ndarray | None = None) -> None:
        """Set the state and the cell (N, H) from which the next `forward` of a stateful layer, or `step`,
        starts. Without `c` the cell is zero, unless `h` is a `State`, which holds both.
        """
        self._set_state(h, c)

    def backward(
        self,
        dhs: np.ndarray,
        *,
        dh_next: np.ndarray | None = None,
        dc_next: np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Backpropagate through the window of the last `forward`.

        Parameters
        ----------
        dhs : ndarray (N, T, H)
            Gradient of the loss with respect to each output.
        dh_next, dc_next : ndarray (N, H), optional
            Gradients that arrive at the final state and cell from what follows the window; zero by default
            (truncation).
        out : ndarray (N, T, D), optional
            Where to write the result; a fresh array by default.

        Returns
        -------
        dxs : ndarray (N, T, D)
            Gradient with respect to each input.
            `grads` is overwritten, and `dh` and `dc` are the gradients of the initial
            state and cell.
        """
        return self._backpropagate(dhs, (dh_next, dc_next), out)

    def _plan_forward(self, batch: int, rows: Rows, words: int) -> tuple:
        width, row, gate_row, take = self.hidden_size, self._row(), self._row(GATES), self._take
        team = self._team(rows, 1)
        blocks, slots = self._slots(batch, rows, row + gate_row)
        kept_rows = slots * block_steps(batch) * batch
        saved = (
            take("states", batch + int(rows.offsets[-1]), row),
            take("gates", kept_rows, gate_row),
            take("cells", kept_rows, row),
            take("starts", blocks, batch, row),
        )
        scratch = (
            take("packed_x", packed_size(self.input_size, GATES * width, self.dtype)),
            take("packed_h", recurrent_packed_size(width, width, GATES, team.members, self.dtype)),
            self._input_block(batch),
            self._word_table(words),
            take("kept", batch, row),
            take("carry", batch, row),
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
        arguments = (*inputs[:3], *before, *self._kernel_params(), *rows, *saved, hs, *after, *scratch)
        _threads.run(lstm_forward, team.members, team.by_units, arguments)
        self._intact = intact
        return saved

    def _plan_backward(self, batch: int, rows: Rows, words: int) -> tuple:
        depth, width, row, take = self.input_size, self.hidden_size, self._row(), self._take
        cols, block_rows = GATES * width, block_steps(batch) * batch
        remake = self._intact > 0
        team = self._team(rows, 2)
        return team, (
            take("packed_x", packed_size(cols, depth, self.dtype)),
            take("packed_h", recurrent_packed_size(cols, width, 1, team.members, self.dtype)),
            take("packed_wx", packed_size(depth, cols, self.dtype) if remake else 0),
            take("packed_wh", packed_size(width, cols, self.dtype) if remake else 0),
            take("dts", block_rows + 1, self._row(GATES)),
            take("dh", batch, row),
            take("dc", batch, row),
            self._input_block(batch),
            self._word_sums(words, self._row(GATES)),
            take("h_block", block_rows, row),
            take("kept", batch, row),
            take("carry", batch, row),
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
        arguments = (
            *inputs[:3], *saved, intact, dhs, *dstate_next, *self._kernel_params(), *rows, self._adds,
            dxs, inputs.dwords, *dstate, *self._dweights, *scratch,
        )  # fmt: skip
        _threads.run(lstm_backward, team.members, team.by_units, arguments)

    def _step_arguments(self, state: list[np.ndarray], params: list[np.ndarray]) -> tuple:
        return (*state, *params, self._take("step", GATES * self.hidden_size))

    def _step(self, x: np.ndarray, arguments: tuple, out: np.ndarray) -> None:
        lstm_step(x, *arguments, out)


class LSTM(OneStep):
    """One step of the LSTM, as in the book: ``c = f c_prev + g i``, ``h = o tanh(c)``; gates as in
    `TimeLSTM`.

    Parameters
    ----------
    Wx, Wh, b : ndarray (D, 4H), (H, 4H), (4H,)
        Weights and bias, float32 or float64.

    Source: Saito, *Deep Learning from Scratch 2*, section 6.3.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> cell = rnnfast.LSTM(np.zeros((3, 8)), np.zeros((2, 8)), np.ones(8))
    >>> h, c = cell.forward(np.zeros((1, 3)), np.zeros((1, 2)), np.zeros((1, 2)))
    >>> h.round(4), c.round(4)
    (array([[0.3696, 0.3696]]), array([[0.5568, 0.5568]]))
    """

    def __init__(self, Wx: np.ndarray, Wh: np.ndarray, b: np.ndarray) -> None:
        self._wrap(TimeLSTM(Wx, Wh, b, stateful=True))

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> LSTM:
        """A layer with weights drawn as `TimeLSTM.from_sizes` draws them.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        rng : numpy.random.Generator, optional
            Source of the weights; a fresh one by default.
        dtype : float32 or float64
        """
        params = TimeLSTM.from_sizes(input_size, hidden_size, rng=rng, dtype=dtype).params
        return cls(*params)

    def forward(self, x: np.ndarray, h_prev: np.ndarray, c_prev: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(h, c)`` from an input `x` (N, D), the state `h_prev` and the cell `c_prev`, both (N, H)."""
        h, c = self._advance(x, (h_prev, c_prev))
        return h, c

    def backward(self, dh_next: np.ndarray, dc_next: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(dx, dh_prev, dc_prev)`` from the gradients (N, H) of the new state and cell.

        `grads` is overwritten with this step's gradients.
        """
        dx, dh_prev, dc_prev = self._retreat((dh_next, dc_next))
        return dx, dh_prev, dc_prev
