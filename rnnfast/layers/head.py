"""The output layer of a head: affine, and its loss at every step or at the last step."""

from __future__ import annotations

from collections.abc import Sequence
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.engine.locks import in_turn
from rnnfast.heads.definition import Head, head_of, squared
from rnnfast.kernels.losses.affine_loss import affine_loss_of
from rnnfast.kernels.product.gemm import packed_size
from rnnfast.kernels.recurrence.sequence import block_steps, time_grid
from rnnfast.layers.affine import AffineLoss
from rnnfast.layers.window import Blocks, Part, Rows, full_grid, nothing, offsets_of, packed_rows


class Span(NamedTuple):
    """The scored steps of each sequence, begins .. ends, both (N,)."""

    begins: np.ndarray
    ends: np.ndarray

    def steps(self) -> int:
        """Scored steps of all sequences."""
        return int((self.ends - self.begins).sum())

    def part(self, first: int, last: int) -> Span:
        """The span within steps first .. last, counted from `first`."""
        return Span(np.clip(self.begins, first, last) - first, np.clip(self.ends, first, last) - first)


def scored_span(ends: np.ndarray, every_step: bool) -> Span:
    """Every step up to the ends (N,), or the last one only."""
    return Span(np.zeros_like(ends) if every_step else np.maximum(ends - 1, 0), ends)


class Targets(NamedTuple):
    """Targets (N, T, O) or (N, 1, O), the scored steps, weights (N, T), (N, 1) or (0, 0) for none, lengths
    (N,) if they are given, and the time grid."""

    ts: np.ndarray
    span: Span
    weights: np.ndarray
    lengths: np.ndarray | None = None
    grid: np.ndarray | None = None

    def scored(self) -> float:
        """The sum of the weights of the scored steps."""
        return float(self.step_weights().sum(dtype=np.float64)) if self.weights.size else self.span.steps()

    def is_read(self) -> np.ndarray:
        """Whether each target is read, (N, steps) up to the last scored step, or (N, 1)."""
        read = self.step_weights() != 0
        return read.any(axis=1, keepdims=True) if self.ts.shape[1] == 1 else read

    def step_weights(self) -> np.ndarray:
        """The weights (N, steps) up to the last scored step, 0 at unscored ones."""
        steps = np.arange(int(self.span.ends.max(initial=0)))
        inside = (self.span.begins[:, np.newaxis] <= steps) & (steps < self.span.ends[:, np.newaxis])
        if not self.weights.size:
            return inside.astype(self.weights.dtype)
        return np.where(
            inside, self.weights if self.weights.shape[1] == 1 else self.weights[:, : steps.size], 0
        )


class Groups(NamedTuple):
    """Groups of rows whose gradients are added by a tree, and the rows of the largest block of a grid."""

    bounds: np.ndarray
    grids: np.ndarray
    counts: np.ndarray
    rows: int


def _one_group(grid: np.ndarray | None, batch: int) -> Groups:
    """All rows in one group."""
    assert grid is not None
    bounds, counts = np.array([0, batch]), np.array([grid.size - 1])
    return Groups(bounds, grid[np.newaxis], counts, block_steps(batch) * batch)


def _groups_of(blocks: Blocks, steps: int, lengths: np.ndarray | None) -> Groups:
    """The rows of each block in one group."""
    grids = []
    for block in blocks.rows():
        count = block.stop - block.start
        own = None if lengths is None else lengths[block]
        grids.append(full_grid(count, steps) if own is None else time_grid(offsets_of(own, steps), count))
    counts = np.array([grid.size - 1 for grid in grids])
    padded = [np.pad(grid, (0, int(counts.max()) + 1 - grid.size), mode="edge") for grid in grids]
    most = max(block_steps(size) * size for size in (block.stop - block.start for block in blocks.rows()))
    return Groups(np.ascontiguousarray(blocks.bounds, np.int64), np.array(padded), counts, most)


class TimeAffineWithLoss(AffineLoss):
    """The output layer of a head: affine and a mean loss in one pass.

    ``loss = mean(head(xs W + b, ts))`` over scored steps and outputs; `forward` computes the gradient.

    Parameters
    ----------
    W : ndarray (H, P*O)
        Weights, float32 or float64, C-contiguous; a block of O columns for each of the head's P parameters.
    b : ndarray (P*O,)
        Bias.
    head : str or Head
        One of `rnnfast.heads`, or its name.

    Attributes
    ----------
    params, grads : list of ndarray
        ``[W, b]`` and their gradients; always the same arrays; `backward` writes in place.

    Raises
    ------
    ValueError, TypeError
        The columns of W are no multiple of P, an array does not fit, or the head is unknown.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeAffineWithLoss.from_sizes(3, 1, head="gaussian", dtype=np.float64)
    >>> loss = layer.forward(np.ones((2, 5, 3)), np.ones((2, 5, 1)), weights=np.array([1.0, 0.5]))
    >>> layer.backward().shape
    (2, 5, 3)
    """

    PASSING = (*AffineLoss.PASSING, "_full_rows")
    AXES: tuple[str, str] = ("H", "P*O")
    SIZES: tuple[str, str] = ("hidden_size", "output_size")
    _full_rows: Rows | None = None

    def __init__(self, W: np.ndarray, b: np.ndarray, head: str | Head = squared) -> None:
        super().__init__(W, b)
        self._set_head(head)

    def _set_head(self, head: str | Head) -> None:
        owner = type(self).__name__
        self.head = head_of(owner, head)
        count, cols = len(self.head.equations.parameters), self._weights[1].size
        if cols % count:
            raise ValueError(
                f"{owner}: the columns of W must be a multiple of {count} for the head {self.head.name}, got "
                f"{cols}."
            )
        self.output_size = cols // count

    @classmethod
    def from_sizes(
        cls,
        hidden_size: int,
        output_size: int,
        *,
        head: str | Head = squared,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> Any:
        """Create a layer with the book's initial values: weights randn / sqrt(fan-in), zero bias.

        Parameters
        ----------
        hidden_size, output_size : int
            H and O.
        head : str or Head
            One of `rnnfast.heads`, or its name.
        rng : numpy.random.Generator, optional
            Draws the weights; a fresh generator by default.
        dtype : float32 or float64
        """
        head = head_of(f"{cls.__name__}.from_sizes", head)
        size = _check.values.size(f"{cls.__name__}.from_sizes", "output_size", output_size)
        layer = cls._drawn((hidden_size, len(head.parameters) * size), rng, dtype)
        layer._set_head(head)
        return layer

    def _shown(self) -> dict[str, Any]:
        return {**super()._shown(), "output_size": self.output_size, "head": self.head.name}

    def forward(self, xs: np.ndarray, ts: np.ndarray, *, lengths: Any = None, weights: Any = None) -> float:
        """The mean loss; its gradients are kept for `backward`.

        Parameters
        ----------
        xs : ndarray (N, T, H)
            Hidden states, in the dtype of the parameters.
        ts : ndarray (N, T, O), or (N, O) for a target at the last step only
            Targets, in the same dtype.
        lengths : sequence of N ints, optional
            Steps of each sequence; T by default. Later steps are not scored.
        weights : ndarray (N, T) or (N,), optional
            Weights of the steps or of the sequences in the mean, at least 0; 1 by default. Targets of weight
            0 are not read.
        """
        with self._turn:
            owner = f"{type(self).__name__}.forward"
            xs, targets = self._checked(owner, xs, ts, lengths=lengths, weights=weights)
            sums, scored = np.zeros(xs.shape[0]), targets.scored()
            self._run(xs, targets, targets.grid, sums, scored)
            return self.mean(sums, scored)

    @in_turn
    def losses(
        self, xs: np.ndarray, ts: np.ndarray, *, lengths: Any = None, weights: Any = None
    ) -> np.ndarray:
        """The loss of each step, summed over the outputs and times its weight, (N, T) in float64; arguments
        are as in `forward`, and gradients are unchanged."""
        owner = f"{type(self).__name__}.losses"
        xs, targets = self._checked(owner, xs, ts, lengths=lengths, weights=weights)
        return self._run(xs, targets, targets.grid)[0].copy()

    def _checked(
        self, owner: str, xs: np.ndarray, ts: np.ndarray, *, lengths: Any = None, weights: Any = None
    ) -> tuple[np.ndarray, Targets]:
        depth, cols = self._weights[0].shape[0], self.output_size
        xs = _check.arrays.floats(owner, "xs", xs, ("N", "T", depth), self.dtype, "H is the rows of W")
        batch, steps, _ = xs.shape
        every_step = np.ndim(ts) != 2
        shape = (batch, steps, cols) if every_step else (batch, cols)
        ts = _check.arrays.floats(owner, "ts", ts, shape, self.dtype, "O is the number of outputs")
        lengths = None if lengths is None else _check.arrays.lengths(owner, lengths, batch, steps)
        ends = np.full(batch, steps) if lengths is None else lengths
        ts = ts.reshape(batch, steps if every_step else 1, cols)
        rows = packed_rows(owner, batch, steps, lengths, None, self._full_rows)
        if lengths is None:
            self._full_rows = rows
        weights = (
            nothing(self.dtype, 2)
            if weights is None
            else _check.arrays.weights(owner, weights, (batch, steps), self.dtype)
        )
        targets = Targets(ts, scored_span(ends, every_step), weights, lengths, rows.blocks)
        return xs, self._fitting(owner, targets)

    def _fitting(self, owner: str, targets: Targets) -> Targets:
        """Targets that the head can take."""
        self.head.check(owner, targets.ts, targets.is_read)
        return targets

    def _run(
        self,
        xs: np.ndarray,
        targets: Targets,
        blocks: np.ndarray | None,
        sums: np.ndarray | None = None,
        scored: float = -1,
        adds: bool = False,
        groups: Groups | None = None,
    ) -> tuple[np.ndarray, bool, float]:
        ts, span, weights = targets[:3]
        W, b = map(_check.arrays.kernel_ready, self._weights)
        (depth, cols), (batch, steps, _) = W.shape, xs.shape
        dtype, gradients, wide = self.dtype, sums is not None, np.dtype(np.float64)
        if gradients:
            self._gradients = None
        groups = _one_group(blocks, batch) if groups is None else groups
        rows, levels = groups.rows, (groups.counts.size - 1).bit_length()

        def take(name: str, *shape: int) -> np.ndarray:
            return self._workspace.take(name, shape, dtype)

        losses = self._workspace.take("losses", (batch, steps), wide)
        dxs = take("dxs", *(xs.shape if gradients else (0, 0, 0)))
        dW, db, outputs = take("dW", depth, cols), take("db", cols), self.output_size
        scored_blocks = affine_loss_of(self.head.equations)(
            xs, ts, weights, W, b, *span, *groups[:3], dtype.type(1 / (scored * outputs or 1)), gradients,
            adds, losses, np.zeros(batch) if sums is None else sums, dxs, dW, db,
            take("x_block", rows, depth), take("y_block", rows, cols),
            self._workspace.take("values", ((cols + 2 * outputs) * rows,), wide),
            take("packed_w", packed_size(depth, cols, dtype)),
            take("packed_wt", packed_size(cols, depth, dtype)),
            take("packed_dy", packed_size(rows, cols, dtype)),
            take("block_sum", cols), take("partial", levels * (depth + 1) * cols),
        )  # fmt: skip
        if gradients:
            self._made_by = get_ident()
            self._gradients = dxs, dW, db
        return losses, scored_blocks > 0, scored

    def _run_blocks(
        self, xs: np.ndarray, targets: Targets, blocks: Blocks, sums: np.ndarray, scored: float
    ) -> None:
        known = self._workspace.plans.get("groups")
        groups = (
            None if known is None or known[0] is not blocks.bounds or known[1] != xs.shape[1] else known[2]
        )
        if groups is None or targets.lengths is not None:
            groups = _groups_of(blocks, xs.shape[1], targets.lengths)
            if targets.lengths is None:
                self._workspace.plans["groups"] = blocks.bounds, xs.shape[1], groups
        self._run(xs, targets, None, sums, scored, groups=groups)

    def _scored_steps(self, targets: Targets) -> np.ndarray:
        if not targets.weights.size:
            return (targets.span.ends - targets.span.begins).astype(np.float64)
        # One step after the other: pairwise sums would depend on the longest sequence here.
        sums = np.cumsum(targets.step_weights(), axis=1, dtype=np.float64)
        return sums[:, -1] if sums.size else np.zeros(len(sums))

    def make_room(self, batch: int, steps: int) -> None:
        """Allocate the arrays of a window before the first call."""
        self._gradients = None
        self._workspace.take("losses", (batch, steps), np.dtype(np.float64))
        self._workspace.take("dxs", (batch, steps, self.params[0].shape[0]), self.dtype)

    def parameter_gradients(self, dout: float = 1.0, *, adds: bool = False) -> None:
        """The second half of `backward`: fills `grads`, or adds to them."""
        assert self._gradients is not None
        for grad, made in zip(self._dweights, self._gradients[1:], strict=True):
            with np.errstate(under="ignore"):
                scaled = made * self.dtype.type(dout)
            grad[...] = grad + scaled if adds else scaled

    # A sequence in parts, for models.

    def _part_targets(self, owner: str, hs: np.ndarray, ts: Any, part: Part) -> Targets:
        batch, steps, _ = hs.shape
        cols, every_step = self.output_size, np.ndim(ts) != 2
        span = scored_span(part.ends(batch), every_step).part(part.first, part.last)
        if every_step:
            ts = _check.arrays.floats(owner, "ts", part.of(ts), (batch, steps, cols), self.dtype)
        else:
            ts = _check.arrays.floats(owner, "ts", ts, (batch, cols), self.dtype)[:, np.newaxis]
        weights = part.weights
        if weights is None:
            weights = nothing(self.dtype, 2)
        elif weights.shape[1] > 1:
            weights = np.ascontiguousarray(part.of(weights))
        return self._fitting(owner, Targets(ts, span, weights))

    def scored(self, ts: Any, parts: Sequence[Part]) -> float:
        """Scored steps of the whole sequence, with targets (N, T, O) or (N, O)."""
        span, weights = scored_span(parts[0].ends(len(ts)), np.ndim(ts) != 2), parts[0].weights
        return Targets(ts, span, nothing(self.dtype, 2) if weights is None else weights).scored()

    def mean(self, sums: np.ndarray, scored: float) -> float:
        """The mean loss, from the sums (N,) of `score`, added in order."""
        return super().mean(sums, scored * self.output_size)

    def period(self, batch: int) -> int:
        """Chunk lengths are multiples of this number of steps, so that sums over time have whole blocks."""
        return block_steps(batch)

    def scratch_bytes(self, batch: int, steps: int) -> int:
        """Upper bound in bytes on `forward` with gradients, including targets and the ends of sequences."""
        depth, cols = self._weights[0].shape
        rows = block_steps(batch) * batch
        packed = packed_size(depth, cols, self.dtype) + packed_size(cols, depth, self.dtype)
        packed += packed_size(rows, cols, self.dtype) + rows * (depth + cols) + (3 * depth + 4) * cols
        elements = packed + batch * steps * (depth + 2 * cols)
        return elements * self.dtype.itemsize + batch * (steps + 20) * 8 + 4096


class TimeAffineSquaredLoss(TimeAffineWithLoss):
    """The output layer of a regression: affine and mean squared error in one pass.

    ``loss = mean((xs W + b - ts)^2)``: `TimeAffineWithLoss` with the head "squared".

    Parameters
    ----------
    W : ndarray (H, O)
        Weights, float32 or float64, C-contiguous.
    b : ndarray (O,)
        Bias.

    Examples
    --------
    >>> import numpy as np, rnnfast
    >>> layer = rnnfast.TimeAffineSquaredLoss(np.ones((3, 1)), np.zeros(1))
    >>> layer.forward(np.ones((2, 5, 3)), np.full((2, 5, 1), 1.0))
    4.0
    >>> layer.backward().shape
    (2, 5, 3)
    """

    AXES = ("H", "O")

    def __init__(self, W: np.ndarray, b: np.ndarray) -> None:
        super().__init__(W, b)

    @classmethod
    def from_sizes(  # type: ignore[override]
        cls,
        hidden_size: int,
        output_size: int,
        *,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> TimeAffineSquaredLoss:
        """Create a layer, as `TimeAffineWithLoss.from_sizes` does."""
        return cls._drawn((hidden_size, output_size), rng, dtype)

    def _shown(self) -> dict[str, Any]:
        return {name: value for name, value in super()._shown().items() if name != "head"}
