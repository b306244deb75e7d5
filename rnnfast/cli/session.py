"""A run on the terminal: train both models, compare them, print a sample."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from rnnfast.cli.errors import BAD_FILES, INTERRUPTED, STOPPED, counted, fail, in_options, one_line
from rnnfast.cli.experiment import Experiment
from rnnfast.cli.processes import Processes
from rnnfast.cli.progress import clock, compilations, show_progress
from rnnfast.cli.results import (
    Result,
    draw_learning_curve,
    first_words,
    print_json,
    show_results,
    stream_text,
)
from rnnfast.cli.run_folder import Metrics, Reached
from rnnfast.models import CBOWLM, RNNLM
from rnnfast.training import Progress, TrainingDiverged, load_checkpoint
from rnnfast.training.checkpoint import MODEL

_SAMPLE_LENGTH = {"word": 60, "whitespace": 60, "char": 300}


def _as_called() -> str:
    """This command as the user can type it again."""
    if shutil.which("rnnfast"):
        return "rnnfast"
    program = Path(sys.argv[0])
    return "python -m rnnfast" if program.name == "__main__.py" else shlex.quote(sys.argv[0])


class Session:
    """Trains, reports and saves one experiment.

    Parameters
    ----------
    experiment : Experiment
    settings : dict
        Settings saved with the run.
    interval : int
        Windows from one report to the next.
    reached : dict
        Progress of the network (False) and the baseline (True) in a resumed run, if they began.
    console : Console
        Receives progress and results.
    as_json : bool
        Whether to print the results as JSON on standard output.
    processes : Processes
        The ranks that train; the first alone writes and shows results.
    """

    def __init__(
        self,
        experiment: Experiment,
        settings: dict[str, Any],
        interval: int,
        reached: dict[bool, Reached | None],
        console: Console,
        *,
        as_json: bool,
        processes: Processes,
    ) -> None:
        self.experiment, self._processes = experiment, processes
        self.reached = reached
        self.settings = settings
        self.interval = interval
        self.console, self.as_json = console, as_json
        self.histories: dict[str, list[dict[str, Any]]] = {}
        self.parameters: dict[str, int] = {}
        self.complete: list[str] = []
        self.unigram = experiment.unigram_perplexity()
        self.cell = experiment.settings.recurrent_cell().title

    def run(self, *, baseline: bool) -> None:
        """Do the whole run; if it is stopped early, exit with a code."""
        experiment, folder = self.experiment, self.experiment.folder
        size = experiment.tokenizer.vocab_size
        keep = self._is_behind_us if experiment.resumed else None
        place = folder.metrics if self._processes.is_first else os.devnull
        with one_line(*BAD_FILES, MemoryError, code=STOPPED), Metrics(place, keep) as metrics:
            self._introduce(metrics)
            try:
                with compilations(lambda: self._say("compiling kernels, once")):
                    self._train(self.cell, experiment.settings.make_rnn(size), metrics)
                    if baseline:
                        self._train("CBOW", experiment.settings.make_cbow(size), metrics)
            except (KeyboardInterrupt, TrainingDiverged) as stop:
                self._processes.end_alike()
                self._stop(stop, metrics)
            if not self._processes.is_first:
                return
            results = self._compare()
            names = [*self.complete, "unigram"]
            found = {name: result.perplexity for name, result in zip(names, results, strict=True)}
            metrics.write("result", valid_perplexity=found)
            self._draw()
        with one_line(*BAD_FILES, code=STOPPED):
            sample = self._sample()
        self._say(f"\nthe {self.cell} writes:{sample}\n")
        if self.as_json:
            print_json(self._summary(results, sample))
        self._say(f"run folder: {folder.path}")
        run = f"{shlex.quote(str(folder.path))}{self._own_cell()}"
        self._say(f"try: {_as_called()} generate {run} --prompt {self._known_word()}")

    def _own_cell(self) -> str:
        """The `--cell` argument for other commands if the cell is the user's own, else ""."""
        cell = self.experiment.settings.cell
        return f" --cell {shlex.quote(cell)}" if ":" in cell else ""

    def _known_word(self) -> str:
        """The most frequent word of the text, quoted for a shell."""
        tokenizer = self.experiment.tokenizer
        known = [token for token in tokenizer.id_to_token if token not in tokenizer.special]
        words = [token for token in known if token.isalnum()] or known or ["?"]
        return shlex.quote(words[0])

    def _say(self, text: str = "") -> None:
        self.console.print(text, soft_wrap=True)

    def _introduce(self, metrics: Metrics) -> None:
        experiment = self.experiment
        tokens, judged = len(experiment.train_ids), len(experiment.valid_ids)
        words, unknown = experiment.tokenizer.vocab_size, experiment.unknown_share
        if not metrics.began:
            metrics.write(
                "start",
                settings=self.settings,
                train_tokens=tokens,
                valid_tokens=judged,
                vocabulary=words,
                unknown_share=unknown,
            )
        self._say(f"{self.settings['text']}: {tokens:,} tokens, {words:,} different")
        self._say(f"validation: {judged:,} tokens, {unknown:.1%} of them unknown")

    def _is_behind_us(self, line: dict[str, Any]) -> bool:
        """Whether a line of `metrics.jsonl` was written before the point of resumption."""
        if line["event"] == "start":
            return True
        place = self.reached.get(line.get("model") == "CBOW")
        if place is None or line["event"] not in ("progress", "epoch"):
            return False
        return line["step"] <= place.step if line["event"] == "progress" else line["epoch"] <= place.finished

    def _train(self, name: str, model: RNNLM | CBOWLM, metrics: Metrics) -> None:
        epochs = self.experiment.settings.epochs
        place = self.reached.get(name == "CBOW")
        is_over = place is not None and place.finished >= epochs
        if is_over:
            self._say(f"{name}: already finished; --epochs N trains longer")
        elif place is not None:
            done = f"continues after {counted(place.step, 'window')}, in epoch {place.epoch}"
            self._say(f"{name}: {done if place.step else 'begins'}")
        self.parameters[name] = sum(param.size for param in model.params)
        with show_progress(self.console, name, self.interval) as display:

            def report_window(progress: Progress) -> None:
                display.window(progress)
                if progress.step % self.interval == 0:
                    metrics.write("progress", model=name, **asdict(progress))

            def report_epoch(record: dict[str, Any]) -> None:
                display.epoch(record, epochs, self.unigram)
                metrics.write("epoch", model=name, **record)

            ranks = self._processes.ranks
            trainer = self.experiment.trainer(model, self.settings, report_window, report_epoch, ranks)
            try:
                self.experiment.fit(trainer)
            finally:
                self.histories[name] = trainer.history
        self.complete.append(name)
        last = trainer.history[-1]
        why = "" if last["epoch"] == epochs else ", no longer improving"
        if not is_over:
            self._say(f"{name}: {counted(last['epoch'], 'epoch')} in {clock(last['seconds'])}{why}")

    def _stop(self, stop: BaseException, metrics: Metrics) -> None:
        """Print what was kept, and exit."""
        folder, cell = self.experiment.folder, self._own_cell()
        interrupted = isinstance(stop, KeyboardInterrupt)
        message = "interrupted" if interrupted else self._divergence(str(stop))
        metrics.write("stopped", why="interrupted" if interrupted else "diverged", message=message)
        self._draw()
        if self.complete and not interrupted:
            self._compare()
        if (folder.path / MODEL).is_file():
            kept = f"the run is saved in {folder.path}; see rnnfast evaluate {folder.path}{cell}"
        else:
            kept = "nothing had been learned yet"
        again = f"; rnnfast train --resume {folder.path}{cell} continues it" if interrupted else ""
        fail(f"{message.rstrip('.')}; {kept}{again}.", INTERRUPTED if interrupted else STOPPED)

    def _divergence(self, message: str) -> str:
        """The message: which model diverged, whether the other is complete, and a likely cause."""
        name = list(self.histories)[-1]
        owner = f"{name} (the baseline)" if name == "CBOW" else name
        complete = "".join(f"; the {other} is complete" for other in self.complete)
        cause = "; --eps is 0, and may be the cause" if self.experiment.settings.eps == 0 else ""
        return f"{owner}: {in_options(message).rstrip('.')}{cause}{complete}"

    def _compare(self) -> list[Result]:
        """Show validation perplexities; warn about each model worse than word frequencies alone."""
        settings = self.experiment.settings
        unit = "character" if settings.tokenizer == "char" else "word"
        titles = {
            self.cell: f"{self.cell}, {settings.nlayers} x {settings.nhid}",
            "CBOW": f"CBOW, last {settings.window} {unit}s",
        }
        results = []
        for name in self.complete:
            history = self.histories[name]
            best = min(history, key=lambda record: record["valid_perplexity"])
            reached = best["valid_perplexity"], self.parameters[name], best["epoch"]
            last = history[-1]
            results.append(Result(titles[name], *reached, last["epoch"], last["tokens_per_second"]))
        results.append(Result("unigram, add one", self.unigram, self.experiment.tokenizer.vocab_size))
        show_results(self.console, results)
        self._say(f"unigram: predicts each {unit} by its frequency (plus one), ignoring context")
        for result in results[:-1]:
            if result.perplexity > self.unigram:
                self._say(
                    f"warning: {result.title}: worse than the unigram, which knows only frequencies of "
                    f"{unit}s; another --lr, more --epochs or more text may help."
                )
        return results

    def _summary(self, results: list[Result], sample: str) -> dict[str, Any]:
        """The JSON object of --json."""
        experiment = self.experiment
        return {
            "run": str(experiment.folder.path),
            "text": self.settings["text"],
            "train_tokens": len(experiment.train_ids),
            "valid_tokens": len(experiment.valid_ids),
            "vocabulary": experiment.tokenizer.vocab_size,
            "unknown_share": experiment.unknown_share,
            "models": [
                {"model": name, "valid_perplexity": result.perplexity, **_trained(result)}
                for name, result in zip([*self.complete, "unigram"], results, strict=True)
            ],
            "sample": sample.strip("\n"),
        }

    def _draw(self) -> None:
        finished = {name: history for name, history in self.histories.items() if history}
        if finished and self._processes.is_first:
            text = self.settings["text"].removeprefix("the training part of ")
            title = f"Perplexity by epoch: {text}"
            draw_learning_curve(self.experiment.folder.curve, finished, self.unigram, title)

    def _sample(self) -> str:
        """A text by the saved model, which is the best and not always the last."""
        experiment = self.experiment
        model = load_checkpoint(experiment.folder.path).model
        tokenizer = experiment.tokenizer
        start = first_words(tokenizer)
        ids = model.generate_iter(
            start,
            _SAMPLE_LENGTH[experiment.settings.tokenizer],
            temperature=0.8,
            skip_ids=(tokenizer.unk_id,),
            rng=experiment.settings.rng(2),
        )
        return "".join(stream_text(tokenizer, start, ids)).rstrip()


def _trained(result: Result) -> dict[str, Any]:
    """Size and, for a trained model, epochs and speed, as JSON values."""
    if result.epochs is None:
        return {"parameters": result.parameters}
    names = ("parameters", "best_epoch", "epochs", "tokens_per_second")
    return {name: getattr(result, name) for name in names}
