"""The base of the output layers of models: affine and a mean loss in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.layers.affine import Affine
from rnnfast.layers.blocks import Blocks
from rnnfast.layers.window import Part


class AffineLoss(Affine):
    """Base of layers whose `forward` computes a mean loss from hidden states, and also its gradients."""

    TAPE = (*Affine.TAPE, "_gradients")
    # Gradients for an incoming gradient of 1: of the hidden states, and in the kernel's form of W and b.
    _gradients: tuple[np.ndarray, ...] | None = None

    def _run(
        self,
        xs: np.ndarray,
        targets: Any,
        blocks: np.ndarray | None,
        sums: np.ndarray | None = None,
        scored: float = -1,
        adds: bool = False,
    ) -> tuple[np.ndarray, bool, float]:
        """The losses (N, T) of checked arguments, whether there are gradients, and the count of scored steps.

        With `sums` (N,), it adds each row's losses to them and computes gradients of the mean over `scored`
        steps, or over the steps of the call. With `adds`, the gradients of the parameters accumulate.
        """
        raise NotImplementedError

    _checked: Callable[..., tuple[np.ndarray, Any]]  # the checked arguments of `forward`, for `_run`

    def _scored_steps(self, targets: Any) -> np.ndarray:
        """The sum of the weights of the scored steps of each row, (N,) in float64."""
        raise NotImplementedError

    def _part_targets(self, owner: str, hs: np.ndarray, ts: Any, part: Part) -> Any:
        """The checked targets of a part, as `_run` takes them."""
        raise NotImplementedError

    def parameter_gradients(self, dout: float = 1.0, *, adds: bool = False) -> None:
        """The second half of `backward`: fills `grads`; with `adds`, they accumulate."""
        raise NotImplementedError

    def backward(self, dout: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        """Gradient (N, T, H) of `dout` times the last loss with respect to the inputs; fills `grads`."""
        with self._turn:
            self._claim_tape()
            result = self.input_gradient(dout, out)
            self.parameter_gradients(dout)
            return result

    def input_gradient(self, dout: float = 1.0, out: np.ndarray | None = None) -> np.ndarray:
        """The first half of `backward`: the gradient (N, T, H) of the inputs."""
        owner = f"{type(self).__name__}.backward"
        _check.objects.called_before(owner, self._gradients is not None, "forward")
        assert self._gradients is not None
        dxs = self._gradients[0]
        scale = self.dtype.type(_check.values.number(owner, "dout", dout))
        result = self._output(owner, out, dxs.shape, dxs, *self._weights, *self._dweights)
        with np.errstate(under="ignore"):
            return np.multiply(dxs, scale, out=result)

    # A batch in blocks, for models.

    def forward_by_blocks(
        self, xs: np.ndarray, ts: np.ndarray, blocks: Blocks, options: Mapping[str, Any]
    ) -> float:
        """`forward` for the rows (N, T, H) of a batch in blocks: the mean loss of the whole batch.

        The gradients that are kept are those of the rows here; those of the parameters are added by blocks.
        """
        with self._turn:
            xs, targets = self._checked(f"{type(self).__name__}.forward", xs, ts, **options)
            sums, scored = np.zeros(len(xs)), float(blocks.gathered(self._scored_steps(targets)).sum())
            self._run_blocks(xs, targets, blocks, sums, scored)
            return self.mean(blocks.gathered(sums), scored)

    def _run_blocks(
        self, xs: np.ndarray, targets: Any, blocks: Blocks, sums: np.ndarray, scored: float
    ) -> None:
        """`_run` with gradients by blocks."""
        raise NotImplementedError

    @property
    def made(self) -> tuple[np.ndarray, ...]:
        """The gradients of W and b in the kernel's form, for an incoming gradient of 1."""
        assert self._gradients is not None
        return self._gradients[1:]

    # A sequence in parts, for models.

    def score(
        self,
        owner: str,
        hs: np.ndarray,
        ts: Any,
        part: Part,
        blocks: np.ndarray,
        sums: np.ndarray,
        scored: int,
        adds: bool,
    ) -> bool:
        """Add the losses of a part to `sums` (N,) and compute its gradients; returns whether there are any.

        The gradients are those of the mean over `scored` steps of the whole sequence; with `adds`, the
        gradients of the parameters accumulate. `hs` (N, steps, H) belong to the part, `ts` to the whole
        sequence, as in `forward`. `blocks` holds the first step of each block of the part's time grid, and
        the part's length.
        """
        return self._run(hs, self._part_targets(owner, hs, ts, part), blocks, sums, scored, adds)[1]

    def part_losses(
        self, owner: str, hs: np.ndarray, ts: Any, part: Part, blocks: np.ndarray | None
    ) -> np.ndarray:
        """`losses` (N, steps) of a part, with arguments as in `score`; the next call overwrites them."""
        return self._run(hs, self._part_targets(owner, hs, ts, part), blocks)[0]

    def mean(self, sums: np.ndarray, scored: float) -> float:
        """The mean of `scored` losses, from the sums (N,) of the rows, added in order."""
        total = float(np.add.accumulate(sums)[-1]) if sums.size else 0.0
        return float(total / scored) if scored else 0.0
