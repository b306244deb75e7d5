"""The training loop: windows, clipping, updates, validation, annealing, and a safe stop."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from rnnfast import _check
from rnnfast.engine.arrays import shown
from rnnfast.engine.locks import trains_alone
from rnnfast.optim import all_finite, clip_by_value
from rnnfast.optim.gradients import SharedGradients
from rnnfast.training.bptt import TruncatedBPTT
from rnnfast.training.chain import Window
from rnnfast.training.checkpointing import Checkpointing, checksum, described
from rnnfast.training.fitting import largest_batch, loss_of_first_window, prepared, reading_order, validated
from rnnfast.training.processes import BatchBlocks, processes_of, ranks_of
from rnnfast.training.progress import Meter, Progress, has_stalled
from rnnfast.training.safety import LastGood, StopTraining, TrainingDiverged, blamed, interrupts_deferred

# A mean loss whose perplexity overflows a float counts as infinite.
_LARGEST_LOSS = 700.0
# Training can recover from a larger loss (an LSTM with SGD(400) recovered from 576), but such parameters may
# give another text an infinite perplexity; therefore they are not kept as the last good ones.
_GOOD_LOSS = 100.0


class Trainer:
    """Train a language model on a text, or a regression on sequences, epoch after epoch.

    For each window, `bptt` computes the gradients; gradients of parameters that share memory (also an array
    and its transpose) are added up; the norm of all gradients together is clipped to `clip_norm`, each
    element to `clip_value`; then the optimizer updates the parameters. After each epoch, the perplexity on
    the validation text is computed; if it is not the best so far, the learning rate is divided by `anneal`.

    Parameters
    ----------
    model : RNNLM, CBOWLM or SequenceRegressor
        Or your own model with `params`, `grads`, `forward(xs, ts)`, `backward()` and `reset_state()`;
        validation and saving need more.
    optimizer
        An object with `lr` and `update(params, grads)`, for example `SGD(lr=20.0)`.
    bptt : TruncatedBPTT or ExactBPTT, optional
        The kind of backpropagation through time; `TruncatedBPTT(35)` by default.
    clip_norm : float, optional
        The largest norm of all gradients together; None for no limit.
    clip_value : float, optional
        The largest magnitude of one element, after `clip_norm`; None for no limit.
    anneal : float, optional
        Above 1; None keeps the learning rate.
    patience : int, optional
        Training ends after this number of epochs in a row without a new validation best; None for never.
    restore_best : bool
        Whether the parameters of the best epoch on the validation data come back at the end of `fit`.
    shuffle : bool
        Read sequences in a new random order each epoch. A text is always read in its order.
    rng : numpy.random.Generator, optional
        Draws one seed for each `fit` on sequences, for the orders of all its epochs; fresh by default.
    callback : callable, optional
        Called with a `Progress` after every window. Like `on_epoch`, it may raise `StopTraining`.
    on_epoch : callable, optional
        Called with the epoch's record, a dict as in `history`, after its validation.
    checkpoint : callable, optional
        Called with the model and a record when the model should be saved: after each best epoch so far
        (without validation, after every epoch), and when training stops early. The record then has "stopped"
        with "interrupted" or "diverged". Usually a `Checkpoint`.
    ranks : "world", mpi4py communicator or Ranks, optional
        The processes that train the model together, each on a part of every batch, with the bits of one
        process. Each runs the same program on the same data. Training begins with the parameters of rank 0,
        which alone calls `callback`, `on_epoch` and `checkpoint`, and writes files.
    precision : "bfloat16", optional
        Sets the model's `precision` before training.
    blocks : int, optional
        The number of blocks of rows whose gradients are summed apart and then in pairs; the bits depend on
        it. A power of two, by default 8, 4, 2 or 1: the largest that leaves at least 5 rows to a block.

    Attributes
    ----------
    history : list of dict
        One record per epoch of the last `fit`, also after an exception: "epoch", "train_perplexity",
        "valid_perplexity" (None without validation), "best_valid_perplexity", "improved", "learning_rate",
        "steps", "tokens", "tokens_per_second", "seconds". For sequences with targets, "loss" replaces
        "perplexity", and tokens are steps of sequences. "train_perplexity" covers its epoch only. "steps"
        (updates), "tokens" and "seconds" count from the beginning of the run, also across a resume: subtract
        the previous record for the values of one epoch. "tokens_per_second" is the mean of the run so far.
    order_seed : int or None
        The seed of the orders of the last `fit`; None if it did not shuffle.

    Notes
    -----
    Source: clipping, annealing and their defaults as in PyTorch's `word_language_model` example; Pascanu,
    Mikolov and Bengio, *On the difficulty of training recurrent neural networks*, 2013.

    Examples
    --------
    >>> from rnnfast.models import RNNLM
    >>> from rnnfast.optim import SGD
    >>> model = RNNLM(5, 8, 8, rng=np.random.default_rng(0))
    >>> trainer = Trainer(model, SGD(lr=1.0), TruncatedBPTT(5))
    >>> history = trainer.fit(np.arange(101) % 5, epochs=20, batch_size=2)
    >>> history[-1]["train_perplexity"] < history[0]["train_perplexity"]
    True
    """

    @_check.objects.knows_arguments
    def __init__(
        self,
        model: Any,
        optimizer: Any,
        bptt: Any = None,
        *,
        clip_norm: float | None = 0.25,
        clip_value: float | None = None,
        anneal: float | None = 4.0,
        patience: int | None = None,
        restore_best: bool = False,
        shuffle: bool = True,
        rng: np.random.Generator | None = None,
        callback: Callable[[Progress], object] | None = None,
        on_epoch: Callable[[dict[str, Any]], object] | None = None,
        checkpoint: Callable[[Any, dict[str, Any]], object] | None = None,
        ranks: Any = None,
        blocks: int | None = None,
        precision: str | None = None,
    ) -> None:
        _check.objects.offers("Trainer", "optimizer", optimizer, ("lr", "update"), "rnnfast.optim.SGD()")
        if bptt is not None:
            _check.objects.offers("Trainer", "bptt", bptt, ("batches", "windows"), "TruncatedBPTT(35)")
        if precision is not None:
            _check.objects.offers("Trainer", "model", model, ("precision",), "RNNLM")
            model.precision = precision
        self.model, self.optimizer = model, optimizer
        self.bptt = TruncatedBPTT(35) if bptt is None else bptt
        self.clip_norm = _check.values.above("Trainer", "clip_norm", clip_norm, 0.0)
        self.clip_value = _check.values.above("Trainer", "clip_value", clip_value, 0.0)
        self.anneal = _check.values.above("Trainer", "anneal", anneal, 1.0)
        self.patience = None if patience is None else _check.values.size("Trainer", "patience", patience)
        self.restore_best = _check.values.boolean("Trainer", "restore_best", restore_best)
        self.shuffle = _check.values.boolean("Trainer", "shuffle", shuffle)
        self.order_seed: int | None = None
        self.callback = callback
        self.on_epoch = on_epoch
        self.checkpoint = checkpoint
        self.ranks, self.blocks = ranks_of(ranks), _check.training.blocks("Trainer", blocks)
        self.history: list[dict[str, Any]] = []
        self.measure = "perplexity"
        self.last_good, self.best = LastGood(model.params), LastGood(model.params)
        self._rng = _check.values.generator("Trainer", rng)
        self._begin()

    def _begin(self) -> None:
        """Set the attributes that serve only a running `fit`."""
        self._keeper: Checkpointing | None = None
        self._shared, self.processes = SharedGradients(), processes_of(self.ranks)
        self.batch_blocks: BatchBlocks | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything except the ranks, and the attributes that serve only a running `fit`."""
        own = ("last_good", "best", "_keeper", "_shared", "processes", "batch_blocks", "ranks")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, history=list(state["history"]), ranks=None)
        self.last_good, self.best = LastGood(self.model.params), LastGood(self.model.params)
        self._begin()

    def __repr__(self) -> str:
        names = ("model", "optimizer", "bptt", "clip_norm", "clip_value", "anneal", "patience", "shuffle")
        values = {name: getattr(self, name) for name in names}
        return shown(self, {name: value for name, value in values.items() if value is not None})

    @trains_alone
    def fit(
        self,
        ids: Any,
        *,
        epochs: int,
        batch_size: int,
        valid: Any = None,
        checkpoint_file: str | os.PathLike[str] | None = None,
        checkpoint_every: float = 60.0,
        resume: bool = False,
    ) -> list[dict[str, Any]]:
        """Train.

        Parameters
        ----------
        ids : ndarray of int, (tokens,), or a pair of arrays (S, T, D) and (S, T, O) or (S, O), or Sequences
            The text; or, for a `SequenceRegressor`, sequences and their targets, at each step or the last, in
            the dtype of the model. Memory maps are read window by window. `rnnfast.data.Sequences` adds
            lengths and weights and takes lists; batches then hold sequences of similar length.
        epochs : int
            The number of passes over the data. Each begins with a fresh state.
        batch_size : int
            Rows of a batch. A text is read from equally spaced places; sequences are read in batches of this
            size, each from a fresh state. The last batch of sequences may be smaller.
        valid : optional
            A text, or sequences and targets, for validation; never shuffled.
        checkpoint_file : path, optional
            A file for everything training depends on: parameters, optimizer, carried state, random numbers,
            order of the data and place in it, learning rate, history. It is written at the beginning and the
            end, at Ctrl-C, and in between; the old file stays until the new one is complete.
        checkpoint_every : float
            The most seconds of work a killed process loses; 0 writes after every window. If gradients reach
            into earlier windows (`TruncatedBPTT` with `k2` above `k1`, or "auto"), a run can resume only at
            the beginning of a text or a batch of sequences ("auto": of an epoch), and the file is written
            only there.
        resume : bool
            Continue from `checkpoint_file`, with the bits of a run that was never stopped; without such a
            file, start anew. Model, optimizer, data and options must equal those of the original run, newly
            made; only `epochs` may differ. The order of sequences comes from the file, not from `rng`.

        Returns
        -------
        list of dict
            `history`.

        Raises
        ------
        CorpusError, ValueError, TypeError, IndexError
            Before training: a text is too short for one window of every row, an id is not in the vocabulary,
            or sequences or targets do not fit the model in shape or dtype. Later only if a memory-mapped file
            is truncated while it is read.
        CheckpointError, OSError
            `checkpoint_file` is damaged, belongs to a run with other settings, or cannot be written; the
            file is unchanged.
        TrainingDiverged
            The loss or a gradient is not finite; if the data hold a NaN or infinity, the message names it.
            After a bad loss, the update before it is undone. The parameters are those of the last good step,
            `checkpoint` was called with them, and the model's state is fresh.
        KeyboardInterrupt
            After Ctrl-C, once the current update is complete and `checkpoint` was called.
        """
        epochs = _check.values.size("Trainer.fit", "epochs", epochs, 0)
        ids, valid, batches = prepared("Trainer.fit", self.model, self.bptt, ids, valid, batch_size)
        of_sequences = isinstance(ids, tuple)
        if _check.values.boolean("Trainer.fit", "resume", resume) and checkpoint_file is None:
            _check.values.absent("Trainer.fit", "resume=True", resume, "a run with checkpoint_file")
        self.order_seed, self.history = None, []
        if of_sequences and self.shuffle:
            _check.training.reads_in_any_order("Trainer.fit", self.bptt)
            self.order_seed = int(self._rng.integers(2**63))
        self.measure = "loss" if of_sequences else "perplexity"
        self.last_good.forget()
        self.best.forget()
        meter = Meter(epochs, len(batches), batches.tokens)
        self._begin()
        self.batch_blocks = self.processes.blocks(self, largest_batch(ids, batch_size), self.blocks)
        if checkpoint_file is not None:
            self._keeper = Checkpointing(self, checkpoint_file, checkpoint_every, ids, valid, int(batch_size))
        with self.processes:
            options = [epochs, batch_size, resume, checkpoint_file is None, self.shuffle, self.blocks]
            self.processes.begin(self, lambda: [described(self), options, checksum(ids), checksum(valid)])
            passed = self._keeper.resume(meter) if self._keeper is not None and resume else 0
            return self._fit(meter, ids, batch_size, valid, passed)

    def _fit(self, meter: Meter, ids: Any, batch_size: int, valid: Any, passed: int) -> list[dict[str, Any]]:
        """Train on checked data, of whose first epoch `passed` windows are done."""
        try:
            self._mark(meter, passed)
            with suppress(StopTraining):
                while len(self.history) < meter.epochs and not has_stalled(self.history, self.patience):
                    self._write_if_due()
                    self._epoch(meter, ids, batch_size, passed)
                    value, passed = self._validated(meter, ids, batch_size, valid), 0
                    with interrupts_deferred():
                        self._finish_epoch(meter, value)
                self.processes.synchronize(self.optimizer, False)
            if self._keeper is not None:
                self._keeper.write()
        except KeyboardInterrupt:
            self._stop(meter, "interrupted", "Ctrl-C")
            raise
        except TrainingDiverged as error:
            named = blamed(error, ids, valid)
            self._stop(meter, "diverged", str(named))
            raise named from None
        if self.restore_best:
            self.best.restore()
        return self.history

    def _epoch(self, meter: Meter, ids: Any, batch_size: int, passed: int) -> None:
        """Train on every window after the first `passed`."""
        self.model.train_flg = True
        if meter.epoch == len(self.history):
            meter.start_epoch()
        options: dict[str, Any] = {"passed": passed} if passed else {}
        if self.order_seed is not None:
            options["order"] = reading_order(self.order_seed, meter.epoch, ids, batch_size)
        options |= {} if self.batch_blocks is None else {"blocks": self.batch_blocks}
        for window in self.bptt.windows(self.model, ids, batch_size, **options):
            self._update(meter, window)
            self._write_if_due()

    def _mark(self, meter: Meter, window: int, whole: bool = True) -> None:
        if self._keeper is not None:
            self._keeper.mark(meter, window, whole)

    def _write_if_due(self) -> None:
        keeper = self._keeper
        due = self.processes.synchronize(self.optimizer, keeper is not None and keeper.is_due)
        if due and keeper is not None:
            keeper.write()

    def _update(self, meter: Meter, window: Window) -> None:
        """Update the parameters with the gradients, and report it."""
        learning_rate = float(self.optimizer.lr)
        merged = self._shared.merged(self.model.params, self.model.grads)
        good = abs(window.loss) <= self._limit(_GOOD_LOSS)
        if not abs(window.loss) <= self._limit(_LARGEST_LOSS):
            raise self._diverged(meter, meter.step + 1, f"the loss is {window.loss:g}")
        norm = merged.clip(self.clip_norm)
        if not math.isfinite(norm):
            reason = f"the norm of the gradients is {norm:g}"
            raise self._diverged(meter, meter.step + 1, reason, good_loss=good)
        if self.clip_value is not None:
            clip_by_value(merged.grads, self.clip_value)
        if good or not self.last_good.is_kept:
            self.last_good.keep()
            meter.before_update()
        with interrupts_deferred():
            self.optimizer.update(merged.params, merged.grads)
            meter.add(window)
            self._mark(meter, window.number, window.whole)
            if self.callback is not None:
                try:
                    self.processes.call(self.callback, meter.progress(window, norm, learning_rate))
                finally:
                    if self._keeper is not None:
                        self._keeper.mark_learning_rate()

    def _limit(self, of_text: float) -> float:
        """The largest valid loss; a squared error may be any finite number."""
        return of_text if self.measure == "perplexity" else sys.float_info.max

    def _diverged(self, meter: Meter, step: int, reason: str, *, good_loss: bool = False) -> TrainingDiverged:
        """Restore the parameters of the last good step, reset the state, and return the error.

        The update before a bad loss caused it. After a good loss the parameters are good, unless that update
        made them so large that the gradients overflow.
        """
        with interrupts_deferred():
            undone = self.last_good.restore_if_blown_up() if good_loss else self.last_good.restore()
            if undone:
                meter.backpropagate()
            self.model.reset_state()
        return TrainingDiverged.at(meter.epoch, step, reason)

    def _validated(self, meter: Meter, ids: Any, batch_size: int, valid: Any) -> float | None:
        """Perplexity on the validation text, if any. It is the first check of the last update."""
        if not all_finite(self.model.params):
            raise self._diverged(meter, meter.step, "a parameter is not finite")
        if valid is None:
            loss = loss_of_first_window(self.model, self.bptt, ids, batch_size, self.batch_blocks)
            if not abs(loss) <= self._limit(_LARGEST_LOSS):
                raise self._diverged(meter, meter.step, f"the loss after it is {loss:g}")
            return None
        began = time.perf_counter()
        value = validated(self.model, valid, batch_size)
        meter.add_validation(time.perf_counter() - began)
        if not math.isfinite(value):
            raise self._diverged(meter, meter.step, f"the validation {self.measure} is {value:g}")
        return value

    def _finish_epoch(self, meter: Meter, value: float | None) -> None:
        """Anneal, record, save; `value` is the validation perplexity."""
        record = meter.record(self.measure, self.history, self.optimizer.lr, value)
        if not record["improved"] and self.anneal is not None:
            self.optimizer.lr /= self.anneal
        if self.restore_best and value is not None and record["improved"]:
            self.best.keep()
        self.history.append(record)
        if record["improved"]:
            self.processes.call(self.checkpoint, self.model, record)
        try:
            self.processes.call(self.on_epoch, record)
        finally:
            self._mark(meter, 0)

    def _stop(self, meter: Meter, stopped: str, message: str) -> None:
        """Save the run; a second Ctrl-C waits until that is done."""
        record = meter.record(self.measure, self.history, self.optimizer.lr)
        record.update(improved=False, stopped=stopped, message=message)
        with interrupts_deferred():
            if self._keeper is not None and stopped == "interrupted":  # a diverged run would diverge again
                self._keeper.write()
            self.processes.call(self.checkpoint, self.model, record)
