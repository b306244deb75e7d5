"""Checks of blocks of rows, and of the ranks that share them."""

from __future__ import annotations

from typing import Any

from rnnfast._check.errors import CheckpointError
from rnnfast._check.values import size


def blocks(owner: str, number: Any) -> int | None:
    """A number of blocks, a power of two; None to let the batch size decide."""
    if number is None:
        return None
    number = size(owner, "blocks", number)
    if number & (number - 1):
        raise ValueError(f"{owner}: blocks must be a power of two such as 4 or 8, got {number}.")
    return number


def ranks_divide_blocks(owner: str, ranks: int, number: int, batch_size: int, least: int) -> None:
    """Every rank has the same number of blocks; `least` rows are those of a block by default."""
    if number % ranks:
        blocks = "1 block" if number == 1 else f"{number} blocks"
        start = "start 1 process" if number == 1 else f"start at most {number}"
        larger = f", or take {least * ranks} rows or more" if ranks <= 8 else ""
        raise ValueError(
            f"{owner}: a batch of {batch_size} rows has {blocks}, too few for {ranks} ranks; {start}, or "
            f"begin a run with blocks={ranks}{larger}."
        )


def failed_on_rank_0(function: Any) -> RuntimeError:
    """The error for a function that only rank 0 calls."""
    name = getattr(function, "__name__", type(function).__name__)
    return RuntimeError(f"Trainer.fit: {name} failed on rank 0.")


def other_rank_failed(path: Any) -> CheckpointError:
    """The error for a file that another rank cannot resume from."""
    return CheckpointError(f"{path}: another rank cannot resume from it.")
