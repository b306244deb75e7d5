"""`python -m rnnfast.torch script.py ARGS`: a PyTorch script with its recurrent layers on the kernels."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from rnnfast.torch import enable, report

USAGE = "usage: python -m rnnfast.torch [-m module | script.py] [arguments of the script]"


def main(arguments: list[str]) -> None:
    """Run a script or a module as `python` would; what was served is told on stderr at its end."""
    if not arguments or arguments[0] in ("-h", "--help") or arguments == ["-m"]:
        print(USAGE, file=sys.stderr)
        raise SystemExit(0 if arguments[:1] in (["-h"], ["--help"]) else 2)
    if arguments[0] != "-m" and not Path(arguments[0]).is_file():
        print(f"rnnfast.torch: there is no file {arguments[0]}; {USAGE}", file=sys.stderr)
        raise SystemExit(2)
    with enable():
        try:
            if arguments[0] == "-m":
                sys.argv = arguments[1:]
                sys.path[0] = str(Path.cwd())
                runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
            else:
                sys.argv = arguments
                sys.path[0] = str(Path(arguments[0]).resolve().parent)
                runpy.run_path(arguments[0], run_name="__main__")
        finally:
            print(report(), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
