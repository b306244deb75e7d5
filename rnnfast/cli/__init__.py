"""The command line, one sub-command a file: `train`, `evaluate`, `generate`, `predict`, `diagnose`,
`export`, `convert`, `forecast`, `classify`, `bench`, `warmup`.

* `app.py` registers the sub-commands. `options.py` has the options of `train`. `session.py` runs `train`.
* `experiment.py` is one run: a text, a model and its baselines, one of which is `unigram.py`. `run_folder.py`
  manages the files of a run.
* `forecasting.py` runs `forecast`, whose options are in `forecast_options.py`; `backtests.py` has its scores,
  `series_files.py` its files. `out_folder.py` manages the results of `forecast` and `classify`,
  `resumable.py` stops and resumes them.
* `processes.py` runs a command as ranks, of which the first prints and writes.
* `errors.py` prints errors in one line, `wording.py` rewords them for the command line, `numbers.py` parses
  the values of options.
* `inputs.py` reads text and prompts, also from standard input.
* `progress.py`, `plots.py`, `results.py` and `words.py` show runs, learning curves, tables and text.
  `verdicts.py` interprets the tables of `diagnose`.

typer, rich and matplotlib come with `pip install "rnnfast[cli]"`; nothing outside this folder needs them.
"""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import sys
from typing import NoReturn

from rnnfast.cli.processes import Processes, launched

__all__ = ["main"]

_NEEDED = ("typer", "rich", "matplotlib")


def main() -> None:
    """Entry point of `rnnfast` and `python -m rnnfast`.

    The exit code is 0 for success, 1 when training had to stop, 2 for unusable input, 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        # A Windows console may be unable to print some characters; that must not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    processes = Processes(launched(os.environ))
    processes.run(lambda: _run(processes))


def answer_ctrl_c() -> None:
    """Let Ctrl-C end the process until a command begins: an exception in an import may crash it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _quit)


def _quit(*_: object) -> NoReturn:
    if launched(os.environ).rank == 0:
        os.write(2, b"rnnfast: interrupted.\n")
    os._exit(130)


def _run(processes: Processes) -> None:
    try:
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            needed = " and ".join(missing)
            print(
                f'rnnfast: the command line needs {needed}: pip install "rnnfast[cli]", or, in a clone, '
                'pip install -e ".[cli]"',
                file=sys.stderr,
            )
            sys.exit(2)
        from rnnfast.cli.app import app

        if signal.getsignal(signal.SIGINT) is _quit:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        app(prog_name="rnnfast", obj=processes)
    except KeyboardInterrupt:  # during the imports, before the command handles it
        print("rnnfast: interrupted.", file=sys.stderr)
        sys.exit(130)
