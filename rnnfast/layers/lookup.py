"""Inputs that are rows of a table: words. Of a small table, each row has its product with Wx once."""

from __future__ import annotations

import numpy as np

from rnnfast.kernels.sequence import block_steps
from rnnfast.layers.carrying import Carrying
from rnnfast.layers.window import Inputs, Lookup, Run


class Lookups(Carrying):
    """A recurrent layer that reads words."""

    _run: Run | None

    def looks_up(self, size: int, batch: int, steps: int) -> bool:
        """Whether inputs that are rows of a table of so many are looked up in products with that table."""
        return 0 < 2 * size <= batch * min(steps, block_steps(batch))

    def _looked_up(self, lookup: Lookup) -> Inputs:
        # Copies, as inputs would be: the caller may change both before `go_back`. Words that do not
        # occur are zero there: whatever they are, 0 times it must be 0.
        ids = self._workspace.take("ids", lookup.ids.shape, np.dtype(np.int64))
        words = self._take("words", *lookup.words.shape)
        ids[...], words[...] = lookup.ids, 0
        occurring = np.unique(ids)
        words[occurring] = lookup.words[occurring]
        return Inputs(self._take("no_xs", 0, 0, self.input_size), ids, words, lookup.dwords)

    @property
    def reads_words(self) -> bool:
        """Whether the last window was read from a table of words."""
        return self._run is not None and self._run.inputs.ids is not None
