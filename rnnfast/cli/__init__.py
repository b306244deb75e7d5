"""The command line, one sub-command a file: `train`, `evaluate`, `generate`, `predict`, `diagnose`, `bench`,
`warmup`.

* `app.py` puts them together; `options.py` has what `train` can be told, `session.py` what it does with it;
  `bench_options.py` what `bench` can be told.
* `experiment.py` is one run: a text, a model and the baselines it has to beat, of which `unigram.py` is one;
  `run_folder.py` is what lies in its folder beside the model.
* `errors.py` says in one line what went wrong, `wording.py` in the words of the command line; `numbers.py`
  reads the values of options.
* `inputs.py` reads text and prompts, also from standard input.
* `progress.py`, `plots.py`, `results.py` and `words.py` show runs, learning curves, tables and text;
  `verdicts.py` says what the tables of `diagnose` mean.

typer, rich and matplotlib come with `pip install "rnnfast[cli]"`; nothing outside this folder needs them.
"""

from __future__ import annotations

import importlib.util
import io
import sys

__all__ = ["main"]

_NEEDED = ("typer", "rich", "matplotlib")


def main() -> None:
    """What the command `rnnfast` and `python -m rnnfast` run.

    Exits with 0 when all went well, 1 when training had to stop, 2 when something given to it cannot be used,
    130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        # A console of Windows may lack letters of a text, which shall not end a run at its last line.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _run()
    except KeyboardInterrupt:  # while it imports, before the command can say so
        print("rnnfast: interrupted.", file=sys.stderr)
        sys.exit(130)


def _run() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        needed = " and ".join(missing)
        print(f'rnnfast: the command line needs {needed}: pip install "rnnfast[cli]"', file=sys.stderr)
        sys.exit(2)
    from rnnfast.cli.app import app

    app(prog_name="rnnfast")
