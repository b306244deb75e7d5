"""How much memory a recurrent layer takes for a window, known before it is run."""

from __future__ import annotations

from rnnfast._threads import get_num_threads
from rnnfast.kernels.gemm import packed_size
from rnnfast.kernels.sequence import block_steps, padded_row
from rnnfast.kernels.shares import recurrent_packed_size
from rnnfast.layers.gru import TimeGRU
from rnnfast.layers.lstm import TimeLSTM
from rnnfast.layers.recurrent import KEPT_BYTES, Recurrent

_SMALL = 4096  # Python's objects, and what rounds buffers to cache lines


def recurrent_bytes(layer: Recurrent, batch: int, steps: int) -> int:
    """Bytes of scratch, saved states and carried states after `forward` and `backward` over a window.

    An upper bound, a few per cent above what is taken; inputs, outputs, parameters and their gradients are
    not in it.
    """
    dtype, depth, width = layer.dtype, layer.input_size, layer.hidden_size
    gates, members = layer.GATES, get_num_threads()
    cols, row = gates * width, padded_row(width, dtype)
    grid = block_steps(batch)
    block_rows, blocks = grid * batch, max(1, -(-steps // grid))
    kept, gate_row = _kept_row(layer)
    slots = blocks if kept_bytes(layer, batch, steps) <= KEPT_BYTES else 1
    elements = (batch + batch * steps) * row + slots * block_rows * kept
    elements += blocks * batch * row if isinstance(layer, TimeLSTM) else 0  # starts
    elements += max(packed_size(depth, cols, dtype), packed_size(cols, depth, dtype))
    elements += max(
        recurrent_packed_size(width, width, gates, members, dtype),
        recurrent_packed_size(cols, width, 1, members, dtype),
    )
    if kept:  # what makes gates again: the weights in panels, the reset gate's product
        elements += packed_size(depth, cols, dtype) + packed_size(width, cols, dtype) + block_rows * row
    elements += (block_rows + 1) * gate_row + block_rows * row
    elements += block_rows * padded_row(depth, dtype)
    elements += (8 + 4 * len(layer.STATES)) * batch * row
    places = (4 * (steps + 1) + 2 * (batch + blocks)) * 8 + batch * steps  # offsets, order, grid; resets
    return elements * dtype.itemsize + places + _SMALL


def kept_bytes(layer: Recurrent, batch: int, steps: int) -> int:
    """Bytes of the gates and cells of all blocks of a window, if they are kept."""
    grid = block_steps(batch)
    blocks = max(1, -(-steps // grid))
    return blocks * grid * batch * _kept_row(layer)[0] * layer.dtype.itemsize


def _kept_row(layer: Recurrent) -> tuple[int, int]:
    """Elements kept of a row of gates and cells for `backward`, and from one row of their gradients to the
    next."""
    dtype, width = layer.dtype, layer.hidden_size
    if isinstance(layer, TimeLSTM):
        row = padded_row(layer.GATES * width, dtype)
        return row + padded_row(width, dtype), row
    if isinstance(layer, TimeGRU):
        kept = padded_row((layer.GATES + (layer.reset == "after")) * width, dtype)
        return kept, padded_row((layer.GATES + 1) * width, dtype)
    return 0, padded_row(width, dtype)
