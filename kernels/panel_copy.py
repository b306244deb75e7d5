"""A contiguous copy of one panel of B, on the stack, for operands that many tiles read where they lie.

The rows of a panel of a wide matrix are in as many pages. With AVX2 a tile of six rows takes a new one every
6 cycles, and its panel and the rows of A do not fit the L1 cache together. Weight gradients by the tile, of
512 rows of gradients, shares of the FMA peak on Zen 4 with AVX2 (with AVX-512, whose tiles are four times as
large, copies gain 2 % at most):

| columns of X and of D | where they lie | copied |
|-----------------------|----------------|--------|
| 64, 512               | 0.90           | 0.84   |
| 128, 1024             | 0.80           | 0.83   |
| 650, 2600             | 0.72           | 0.87   |
| 1024, 4096            | 0.66           | 0.87   |
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.np.arrayobj import populate_array

from ._jit import intrinsic, spliced
from .tile import LINE_BYTES, PANEL_BYTES
from .vectors import copy_panel_row

# Rows of the longest panel that is copied, and the least number of tiles that read it.
COPIED_ROWS, COPIED_TILES = 512, 32
COPIES_PANELS = PANEL_BYTES <= LINE_BYTES

_I64 = ir.IntType(64)


def _panel_on_stack_twin(like):
    return np.empty(COPIED_ROWS * PANEL_BYTES // like.itemsize, like.dtype)


@intrinsic(_panel_on_stack_twin)
def panel_on_stack(typing_context, like):
    """An array with the type of `like` and room for one panel, which lasts until the caller returns."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        itemsize = like.dtype.bitwidth // 8
        count, item = _I64(COPIED_ROWS * PANEL_BYTES // itemsize), _I64(itemsize)
        data = cgutils.alloca_once(builder, context.get_data_type(like.dtype), size=count)
        data.align = LINE_BYTES
        array = context.make_array(like)(context, builder)
        populate_array(array, data, shape=[count], strides=[item], itemsize=item, meminfo=None)
        return array._getvalue()

    return like(like), codegen


@spliced
def copy_panel(depth, b, copy):
    """copy[k width + j] = B[k, j] for one whole panel.

    b     (array, first, row stride)   (depth, width), read
    copy  by panel_on_stack            overwritten
    """
    array, first, row = b
    width = PANEL_BYTES // array.itemsize
    for k in range(depth):
        copy_panel_row(array, first + k * row, copy, k * width)
