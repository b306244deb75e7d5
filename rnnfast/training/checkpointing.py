"""The whole state of a training run in one file; a resumed run continues with the same bits.

The file holds everything the next window depends on: parameters, their last good copies, the optimizer's
state, the carried state, dropout's random numbers, the place in the text, the sums for the reports and the
history. It is replaced atomically, so a run may be killed at any moment.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _check
from rnnfast.files.atomic import remove_leftovers
from rnnfast.files.tensors import Spec, parse_object, read_tensors, write_tensors
from rnnfast.layers import state as states
from rnnfast.layers.state import State
from rnnfast.optim import Optimizer, merge_shared
from rnnfast.training.progress import Meter

FORMAT = "rnnfast-training-1"
_MEASURES = ("perplexity", "loss")
_COUNTS, _FLAG = ("epoch", "steps", "tokens"), "improved"
_COLUMNS = 10
_DTYPES = ("float32", "float64", "int64")
_PIECE = 1 << 20


class Saved(NamedTuple):
    """A file of `Checkpointing`: its description, and its arrays by name."""

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]
    history: list[dict[str, Any]]

    @property
    def epoch(self) -> int:
        """The current epoch, or the last one finished; counted from 1."""
        return self.about["meter"]["epoch"]

    @property
    def step(self) -> int:
        """Updates made."""
        return self.about["meter"]["step"]

    @property
    def has_model(self) -> bool:
        """Whether a `Checkpoint` has saved a model next to it."""
        try:
            return json.loads(self.about["saver"] or "{}").get("saved") is True
        except (ValueError, AttributeError, RecursionError):  # `Checkpointing.resume` reports it
            return False


class _Mark(NamedTuple):
    """A copy, made between two windows, of the values that the next window changes before its update."""

    meter: dict[str, Any]
    window: int
    state: State
    rng: Any
    learning_rate: float
    epochs: int


class Checkpointing:
    """Writes the state of a `Trainer` to a file, and restores it.

    Parameters
    ----------
    trainer : Trainer
    path
        The file. Its folder must exist.
    every : float
        Seconds from one write to the next; 0 for after every window.
    ids, valid
        Checked training and validation data.
    batch_size : int
    """

    def __init__(
        self, trainer: Any, path: str | os.PathLike[str], every: float, ids: Any, valid: Any, batch_size: int
    ) -> None:
        owner = "Trainer.fit: checkpoint_file"
        _check.objects.offers(owner, "the model", trainer.model, ("get_state", "set_state"), "RNNLM")
        _check.training.can_go_on(owner, trainer.bptt)
        _check.objects.offers(
            owner, "the optimizer", trainer.optimizer, ("state_dict", "load_state_dict"), "SGD()"
        )
        self.path = Path(os.path.abspath(path))  # the working directory may change before a write
        self.every = _check.values.number("Trainer.fit", "checkpoint_every", every, 0.0)
        self._trainer = trainer
        of_sequences, blocks = isinstance(ids, tuple), trainer.batch_blocks
        self._run = {
            **described(trainer),
            "batch_size": batch_size,
            "blocks": 1 if blocks is None else blocks.number,
            "sequences" if of_sequences else "text": checksum(ids),
            "valid": checksum(valid),
            **({"shuffle": trainer.shuffle} if of_sequences else {}),
        }
        self._processes = trainer.processes
        self._mark: _Mark | None = None
        self._written = -np.inf

    def __reduce__(self) -> Any:
        raise TypeError(
            "Checkpointing cannot be copied or pickled: it writes for the fit that is under way; "
            "copy the trainer."
        )

    def mark(self, meter: Meter, window: int, whole: bool = True) -> None:
        """Remember the state of training after `window` windows of an epoch, all of them applied.

        Unless the last one was `whole`, nothing is written until the next mark: training cannot resume there.
        """
        trainer, self._mark = self._trainer, None
        if not whole:
            return
        self._mark = _Mark(
            meter.state(),
            window,
            State.of(trainer.model),
            getattr(trainer.model, "rng_state", ()),
            float(trainer.optimizer.lr),
            len(trainer.history),
        )

    def mark_learning_rate(self) -> None:
        """Update the marked learning rate; a callback may have changed it."""
        if self._mark is not None:
            self._mark = self._mark._replace(learning_rate=float(self._trainer.optimizer.lr))

    @property
    def is_due(self) -> bool:
        """Whether `every` seconds have passed since the last write."""
        return time.monotonic() - self._written >= self.every

    def write(self) -> None:
        """Write the last mark; the old file stays until the new one is complete. All ranks call it."""
        if self._mark is None:
            return
        trainer, mark, saver = self._trainer, self._mark, self._trainer.checkpoint
        state = self._processes.whole(mark.state)
        self._written = time.monotonic()
        if not self._processes.speaks:
            return
        kept = _kept(trainer.optimizer)
        outline, arrays = states.packed(state)
        arrays = dict(arrays, history=_table(trainer.history[: mark.epochs], trainer.measure))
        arrays |= {f"param.{i}": param for i, param in enumerate(_params(trainer.model))}
        arrays |= {f"good.{i}": good for i, good in enumerate(trainer.last_good.copies or ())}
        arrays |= {f"best.{i}": best for i, best in enumerate(trainer.best.copies or ())}
        arrays |= {f"optimizer.{name}": array for name, array in kept["arrays"].items()}
        about = {
            "run": self._run,
            "measure": trainer.measure,
            "meter": mark.meter,
            "window": mark.window,
            "state": outline,
            "rng": [list(pair) for pair in mark.rng],
            "optimizer": {**kept["scalars"], "lr": mark.learning_rate},
            "order_seed": trainer.order_seed,
            # As text: the keys of a description are sorted, those of a `config.json` must not be.
            "saver": json.dumps(saver.get_state()) if hasattr(saver, "get_state") else None,
            "arrays": {name: [array.dtype.name, array.ndim] for name, array in arrays.items()},
        }
        write_tensors(self.path, FORMAT, arrays, about)

    def resume(self, meter: Meter) -> int:
        """Restore everything from the file; returns the number of windows done in the epoch.

        Without a file the run starts anew: a run may be killed before its first write.
        """
        if self._processes.speaks:
            remove_leftovers(self.path.parent)
        if not self._processes.agreed(self.path.exists()):
            return 0
        with self._processes.all_or_none(self.path):
            return self._resumed(meter)

    def _resumed(self, meter: Meter) -> int:
        saved = read_training(self.path)
        # A file without "shuffle" comes from a version that never shuffled sequences.
        kept: dict[str, Any] = {"shuffle": False} if "sequences" in saved.about["run"] else {}
        kept["blocks"] = 1  # one without "blocks", from a version that did not cut batches
        kept["constants"] = self._run.get("constants")
        if self._trainer.blocks is None:  # a run keeps its number
            try:
                number = _check.training.blocks("Trainer.fit", saved.about["run"].get("blocks", 1)) or 1
            except (TypeError, ValueError) as error:
                raise _check.training.malformed(self.path, str(error)) from None
            trainer, self._run["blocks"] = self._trainer, number
            trainer.batch_blocks = self._processes.blocks(trainer, self._run["batch_size"], number)
        _check.training.same_run("Trainer.fit", self.path, {**kept, **saved.about["run"]}, self._run)
        _check.training.more_epochs("Trainer.fit: epochs", self.path, meter.epochs, saved.epoch)
        try:
            self._restore(saved, meter)
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise _check.training.malformed(self.path, f"does not fit the run ({error})") from None
        return saved.about["window"]

    def _restore(self, saved: Saved, meter: Meter) -> None:
        trainer, about, arrays = self._trainer, saved.about, saved.arrays
        seed = None
        if self._run.get("shuffle"):
            seed = _check.values.size("the order", "seed", about.get("order_seed"), 0, 2**63 - 1)
        model, params = trainer.model, _params(trainer.model)
        values = [arrays[f"param.{i}"] for i in range(len(params))]
        _check.objects.same_parameters("the parameters", values, params)
        good = _copies(arrays, "good", "the last good parameters", model)
        best = _copies(arrays, "best", "the best parameters", model)
        prefix = "optimizer."
        kept = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
        for name, array in kept.items():
            _check.arrays.shape("the optimizer", name, array, params[int(name.split(".")[1])].shape)
        optimizer = {"scalars": about["optimizer"], "arrays": kept}
        trainer.optimizer.load_state_dict(optimizer, **_without_copy(trainer.optimizer, "load_state_dict"))
        model.set_state(self._own(states.unpacked(about["state"], arrays)))
        if about["rng"]:
            model.rng_state = tuple(tuple(pair) for pair in about["rng"])
        meter.set_state(about["meter"])
        for param, value in zip(params, values, strict=True):
            param[...] = value
        trainer.last_good.put(good)
        trainer.best.put(best)
        trainer.order_seed = seed
        trainer.history = saved.history
        if about["saver"] is not None and hasattr(trainer.checkpoint, "set_state"):
            trainer.checkpoint.set_state(parse_object(self.path, about["saver"], "the state of the saver"))

    def _own(self, state: Any) -> Any:
        """The rows of a state of the whole batch that are on this process."""
        blocks, whole = self._trainer.batch_blocks, State(state)
        if blocks is None or whole.rows is None:
            return state
        return whole[blocks.among(whole.rows)].value


def _copies(arrays: dict[str, np.ndarray], kind: str, what: str, model: Any) -> list[np.ndarray] | None:
    """The copies of the parameters under this name; None if the file has none."""
    count = sum(name.startswith(f"{kind}.") for name in arrays)
    if not count:
        return None
    copies = [arrays[f"{kind}.{i}"] for i in range(count)]
    _check.objects.same_parameters(what, copies, model.params)
    return copies


def _without_copy(optimizer: Any, method: str) -> dict[str, bool]:
    """The option that makes a method skip the second copy of the arrays; a user's optimizer may lack it."""
    own = getattr(type(optimizer), method, None) is getattr(Optimizer, method)
    return {"copy": False} if own else {}


def _kept(optimizer: Any) -> dict[str, dict[str, Any]]:
    """The state of an optimizer."""
    return optimizer.state_dict(**_without_copy(optimizer, "state_dict"))


def described(trainer: Any) -> dict[str, Any]:
    """The values that a resumed run must share with the original run, as JSON values."""
    model, bptt = trainer.model, trainer.bptt
    named = type(bptt).__repr__ is not object.__repr__
    constants = [dict(own) for own in getattr(model, "constants", ())]
    scalars = {k: v for k, v in _kept(trainer.optimizer)["scalars"].items() if k != "steps"}
    return {
        **getattr(model, "config", {"model": type(model).__name__}),
        **({"constants": constants} if constants else {}),
        "optimizer": scalars.pop("name", type(trainer.optimizer).__name__),
        **scalars,
        "bptt": repr(bptt) if named else type(bptt).__name__,
        "clip_norm": trainer.clip_norm,
        "clip_value": trainer.clip_value,
        "anneal": trainer.anneal,
        "patience": trainer.patience,
        **({"restore_best": True} if trainer.restore_best else {}),
    }


def checksum(data: Any) -> int | None:
    """CRC-32 of token ids (tokens,), or of sequences with targets; read piece by piece.

    The checksum of ids does not depend on their dtype. Other numbers are converted to float64, which
    represents them exactly, and their shapes are included.
    """
    if data is None:
        return None
    if not isinstance(data, tuple):
        return _crc(data, "<i8", _PIECE, 0)
    crc = 0
    for array in data:
        if array is None:  # no lengths, or no weights
            continue
        crc = zlib.crc32(repr(tuple(np.shape(array))).encode(), crc)
        rows = max(1, _PIECE // max(1, int(np.prod(np.shape(array)[1:]))))
        crc = _crc(array, "<f8", rows, crc)
    return crc


def _crc(array: Any, dtype: str, rows: int, crc: int) -> int:
    """CRC-32 of an array (S, ...), `rows` of its rows at a time."""
    for start in range(0, len(array), rows):
        _check.arrays.whole_file("Trainer.fit", array)
        piece = np.ascontiguousarray(array[start : start + rows], dtype=dtype)
        crc = zlib.crc32(piece.reshape(-1).view(np.uint8).data, crc)
    return crc


def read_training(path: str | os.PathLike[str]) -> Saved:
    """Read a file of `Checkpointing`.

    Raises
    ------
    CheckpointError
        The file is damaged, or holds no training state.
    OSError
        The file cannot be read.
    """
    about, arrays = read_tensors(path, FORMAT, _specs)
    table = arrays.pop("history")
    if table.shape[1] != _COLUMNS:
        raise _check.training.malformed(
            path, f"its history must have {_COLUMNS} columns, got {table.shape[1]}"
        )
    try:
        return Saved(about, arrays, [_record(row, about["measure"]) for row in table])
    except (ValueError, OverflowError) as error:
        raise _check.training.malformed(path, f"its history is not valid ({error})") from None


def _specs(about: dict[str, Any]) -> dict[str, Spec]:
    """The expected arrays; ValueError or TypeError if `about` describes no training run."""
    kinds = {"run": dict, "meter": dict, "window": int, "rng": list, "optimizer": dict, "arrays": dict}
    for name, kind in kinds.items():
        if not isinstance(about.get(name), kind):
            raise ValueError(f"it lacks {name!r}")
    Meter.check(about["meter"])
    _check.values.choice("training", "measure", about.get("measure"), _MEASURES)
    _check.values.size("training", "window", about["window"], 0)
    if not isinstance(about["saver"], str | None):
        raise ValueError("it lacks 'saver'")
    found = {}
    for name, (kind, axes) in about["arrays"].items():
        _check.values.choice("training", "dtype", kind, _DTYPES)
        found[name] = Spec(np.dtype(kind), (-1,) * _check.values.size("training", "axes", axes, 0, 8))
    if found.get("history") != Spec(np.dtype(np.float64), (-1, -1)):
        raise ValueError("it lacks the history")
    if {name: spec for name, spec in found.items() if name.startswith("state.")} != states.specs(
        about["state"]
    ):
        raise ValueError("its outline of the state is not that of its arrays")
    return found


def _params(model: Any) -> list[np.ndarray]:
    """Each parameter once, even if arrays share memory."""
    return merge_shared(model.params, model.grads)[0]


def _names(measure: str) -> tuple[str, ...]:
    """The columns of the history."""
    measured = f"train_{measure}", f"valid_{measure}", f"best_valid_{measure}"
    rest = "learning_rate", "steps", "tokens", "tokens_per_second", "seconds"
    return "epoch", *measured, _FLAG, *rest


def _table(history: list[dict[str, Any]], measure: str) -> np.ndarray:
    """The records as floats (epochs, 10), with NaN for None."""
    names = _names(measure)
    rows = [[np.nan if record[name] is None else record[name] for name in names] for record in history]
    return np.array(rows, np.float64).reshape(len(rows), len(names))


def _record(row: np.ndarray, measure: str) -> dict[str, Any]:
    names = _names(measure)
    record: dict[str, Any] = dict(zip(names, map(float, row), strict=True))
    for name in _COUNTS:
        record[name] = int(record[name])
    for name in names[2:4]:
        record[name] = None if np.isnan(record[name]) else record[name]
    record[_FLAG] = bool(record[_FLAG])
    return record
