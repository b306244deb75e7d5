"""The command line, one sub-command a file: `train`, `evaluate`, `generate`, `predict`, `diagnose`,
`export`, `convert`, `forecast`, `classify`, `bench`, `warmup`.

* `app.py` registers the sub-commands; `options.py` has options, their values and texts from standard input.
* `session.py` runs `train`; `experiment.py` is one run: a text, a model and its baselines. `run_folder.py`
manages
  the files of a run; `resumable.py` those of `forecast` and `classify`, and their
  resuming.
* `models.py` has the commands of trained models, `files.py` those that change formats; `series_files.py`
reads series.
* `processes.py` runs a command as ranks, of which the first prints and writes.
* `errors.py` prints errors in one line, in the words of the command line.
* `progress.py` and `results.py` show runs, learning curves, tables and text.

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


def _answer_ctrl_c() -> None:
    """Let Ctrl-C end the command until its work begins: an exception in an import may crash it."""
    program = sys.argv[0] if sys.argv else ""
    is_module = program == os.path.join(os.path.dirname(os.path.dirname(__file__)), "__main__.py")
    is_command = is_module or os.path.basename(program) in ("rnnfast", "rnnfast.exe")
    if is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
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


_answer_ctrl_c()
