"""`python -m rnnfast.torch script.py ARGS`: a PyTorch script with its recurrent layers on the kernels."""

from __future__ import annotations

import atexit
import importlib.util
import runpy
import sys
from pathlib import Path

from rnnfast.torch import enable, report

USAGE = """usage: python -m rnnfast.torch (script.py | -m module) [arguments]

The recurrent layers of the program run on rnnfast. At its end it prints how many calls ran there, how many on
PyTorch, and why. RNNFAST_VERBOSE=1 prints each new shape. Options of python come first, as in
python -u -m rnnfast.torch script.py."""


def main(arguments: list[str]) -> None:
    """Run a script, a folder with a __main__.py or a module as `python` would."""
    if not arguments or arguments[0] in ("-h", "--help") or arguments == ["-m"]:
        is_asked = arguments[:1] in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if is_asked else sys.stderr)
        raise SystemExit(0 if is_asked else 2)
    is_module = arguments[0] == "-m"
    sys.path[0] = str(Path.cwd())
    if is_module and importlib.util.find_spec(arguments[1].partition(".")[0]) is None:
        _refuse(f"there is no module {arguments[1]}")
    if not is_module and not Path(arguments[0]).exists():
        _refuse(f"there is no file {arguments[0]}")
    enable()
    atexit.register(lambda: print(report(), file=sys.stderr))  # after the program's own threads have ended
    if is_module:
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        path = Path(arguments[0]).absolute()
        sys.path[0] = str(path if path.is_dir() else path.resolve().parent)
        runpy.run_path(str(path), run_name="__main__")


def _refuse(why: str) -> None:
    print(f"rnnfast.torch: {why}; {USAGE.splitlines()[0]}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
