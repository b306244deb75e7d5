"""What the output layers of models have in common: affine and a mean loss in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.layers.affine import Affine
from rnnfast.layers.window import Part


class AffineLoss(Affine):
    """Base of layers whose `forward` makes a mean loss of hidden states, and its gradients on the way."""

    TAPE = (*Affine.TAPE, "_gradients")
    # Of the hidden states, and in the kernel's form those of W and b, where the incoming gradient is 1.
    _gradients: tuple[np.ndarray, ...] | None = None

    def _run(
        self,
        xs: np.ndarray,
        targets: Any,
        blocks: np.ndarray | None,
        sums: np.ndarray | None = None,
        scored: int = -1,
        adds: bool = False,
    ) -> tuple[np.ndarray, bool, int]:
        """The losses (N, T) of checked arguments, whether there are gradients, how many steps are scored.

        With `sums` (N,) it adds up the losses of each row and makes gradients, those of the mean over
        `scored` steps, or over those of the call; with `adds`, the gradients of the parameters accumulate.
        """
        raise NotImplementedError

    def _part_targets(self, owner: str, hs: np.ndarray, ts: Any, part: Part) -> Any:
        """The targets that `_run` takes for a part, checked."""
        raise NotImplementedError

    def parameter_gradients(self, dout: float = 1.0, *, adds: bool = False) -> None:
        """The second half of `backward`: fills `grads`; with `adds`, they accumulate."""
        raise NotImplementedError

    def backward(self, dout: float = 1.0, *, out: np.ndarray | None = None) -> np.ndarray:
        """Gradient (N, T, H) of `dout` times the last loss by the hidden states; fills `grads`."""
        with self._turn:
            self._claim_tape()
            result = self.input_gradient(dout, out)
            self.parameter_gradients(dout)
            return result

    def input_gradient(self, dout: float = 1.0, out: np.ndarray | None = None) -> np.ndarray:
        """The first half of `backward`: the gradient (N, T, H) of the inputs."""
        owner = f"{type(self).__name__}.backward"
        _check.called_before(owner, self._gradients is not None, "forward")
        assert self._gradients is not None
        dxs = self._gradients[0]
        scale = self.dtype.type(_check.number(owner, "dout", dout))
        result = self._output(owner, out, dxs.shape, dxs, *self._weights, *self._dweights)
        with np.errstate(under="ignore"):
            return np.multiply(dxs, scale, out=result)

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
        """Add the losses of a part to `sums` (N,) and make its gradients; whether there are any.

        They are those of the mean over `scored` steps of the whole sequence; with `adds`, those of the
        parameters accumulate. `hs` (N, steps, H) are of the part, `ts` of the whole, as `forward` takes them.
        `blocks` are the first step of each block of its time grid, and its length.
        """
        return self._run(hs, self._part_targets(owner, hs, ts, part), blocks, sums, scored, adds)[1]

    def part_losses(
        self, owner: str, hs: np.ndarray, ts: Any, part: Part, blocks: np.ndarray | None
    ) -> np.ndarray:
        """`losses` (N, steps) of a part, for what `score` takes; the next call overwrites them."""
        return self._run(hs, self._part_targets(owner, hs, ts, part), blocks)[0]

    def mean(self, sums: np.ndarray, scored: int) -> float:
        """The mean loss of `scored` numbers, from their sums (N,) in each row, added in order."""
        total = float(np.add.accumulate(sums)[-1]) if sums.size else 0.0
        return total / max(1, int(scored))
