"""Errors of the command line, in one line on stderr; an unforeseen exception keeps its traceback."""

from __future__ import annotations

import errno
import functools
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from rnnfast._check import CheckpointError, CorpusError
from rnnfast.cli.options import BadOption
from rnnfast.cli.processes import Processes
from rnnfast.engine.threads import get_num_threads

STOPPED, BAD_INPUT, INTERRUPTED = 1, 2, 130

# Exceptions from reading text and run folders, and from checking numbers.
BAD_FILES = (CorpusError, CheckpointError, OSError)
BAD_VALUES = (*BAD_FILES, ValueError, TypeError, LookupError, ArithmeticError, MemoryError)


def fail(message: str, code: int = BAD_INPUT) -> NoReturn:
    """Print one line on stderr and exit with a code."""
    typer.echo("rnnfast: " + " ".join(message.split()), err=True)
    raise typer.Exit(code)


@contextmanager
def one_line(*expected: type[Exception], code: int = BAD_INPUT) -> Iterator[None]:
    """Turn exceptions of the expected kinds into one line and an exit code."""
    try:
        yield
    except expected as error:
        if is_closed_pipe(error):
            raise
        fail(wording(error), code)


def is_closed_pipe(error: BaseException) -> bool:
    """Whether the reader closed the output; Windows reports EINVAL."""
    if not isinstance(error, OSError) or error.filename:
        return False
    return error.errno == errno.EPIPE or (os.name == "nt" and error.errno == errno.EINVAL)


def wording(error: Exception) -> str:
    """The message of an exception; that of an OSError or a CheckpointError names the path first."""
    if isinstance(error, OSError) and isinstance(error.__cause__, OSError):
        error = error.__cause__  # in the words of the system: a user of the command called no function
    if isinstance(error, FileExistsError) and error.filename:  # from making a folder
        return f"{os.fspath(error.filename)} is a file, not a folder."
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fspath(error.filename)}: {error.strerror}." if error.filename else f"{error.strerror}."
    if isinstance(error, MemoryError):
        return f"not enough memory: {str(error).rstrip('.')}."
    # The owner in these two is already a path.
    return str(error) if isinstance(error, OSError | CheckpointError) else in_options(str(error))


def _with_bare_flags(params: list[Any]) -> list[Any]:
    """The parameters, with no type shown in the help of a flag, which takes no value."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


class ThreadedCommand(TyperCommand):
    """A sub-command that first checks the number of threads in the environment, and joins the other ranks.

    The `obj` of its context is its `Processes`.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Its arguments and options."""
        return _with_bare_flags(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the arguments; the error for an option without a value lacks its command, so add it."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if hasattr(error, "format_message") and getattr(error, "ctx", None) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        ctx.obj = ctx.obj or Processes()
        with one_line(ValueError, ImportError):
            get_num_threads()
            ctx.obj.join(ctx.info_name)
        return super().invoke(ctx)


class OneLineGroup(TyperGroup):
    """The command, with usage errors in one line instead of a box, and Ctrl-C as exit code 130."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options."""
        return _with_bare_flags(super().get_params(ctx))

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the arguments; typer imports many modules for this."""
        try:
            return super().make_context(*args, **options)
        except KeyboardInterrupt:
            fail("interrupted.", INTERRUPTED)

    def invoke(self, ctx: Any) -> Any:
        """Run the sub-command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("interrupted.", INTERRUPTED)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and exit unless `standalone_mode` is false."""
        run = functools.partial(
            super().main, args, prog_name, complete_var, False, windows_expand_args, **extra
        )
        if not standalone_mode:
            return run()
        try:
            code = run()
        except OSError as error:
            if _output_fails(error):
                typer.echo(f"rnnfast: standard output: {error.strerror}.", err=True)
            elif not is_closed_pipe(error):
                raise
            _discard_output()
            sys.exit(STOPPED)
        except typer.Abort:  # Ctrl-C outside of a sub-command
            typer.echo("rnnfast: interrupted.", err=True)
            sys.exit(INTERRUPTED)
        except Exception as error:
            # Usage errors; their class is from click, or from the copy of click in newer releases of typer.
            if not hasattr(error, "format_message"):
                raise
            if isinstance(error, BadOption):
                typer.echo(f"rnnfast: {error.message}", err=True)
                sys.exit(BAD_INPUT)
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else "rnnfast"
            message = " ".join(error.format_message().split()).rstrip(".")
            typer.echo(f"{command}: {message}; see {command} --help.", err=True)
            sys.exit(BAD_INPUT)
        try:
            sys.stdout.flush()
        except OSError:  # already reported by the write
            _discard_output()
        sys.exit(code if isinstance(code, int) else 0)


def _output_fails(error: OSError) -> bool:
    """Whether an error that names no file comes from printing."""
    if error.filename is not None or error.strerror is None or is_closed_pipe(error):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"].split(".")[0] in ("click", "typer", "rich")


def _discard_output() -> None:
    """Stop writing to standard output, including the buffer that Python flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# Messages of the library, reworded for the command line: options instead of functions and arguments.


# Errors of `_check` read "owner: name must be ..."; the owner is the function that Python called.
_OWNER = re.compile(r"[A-Za-z_][\w.]*: ")
# Arguments with another name on the command line.
_ARGUMENTS = {
    "embed_size": "--emsize",
    "hidden_size": "--nhid",
    "layers": "--nlayers",
    "dtype": "--dtype",
    "time_size": "--bptt",
    "clip_norm": "--clip",
}
# Not English words: always arguments.
_ANYWHERE = ["batch_size", "beta1", "beta2", "bptt", "clip_value", "decay_rate", "eps", "lr", "max_vocab"]
_ANYWHERE += [
    "freq",
    "max_epochs",
    "min_count",
    "precision",
    "season_length",
    "top_k",
    "top_p",
    "valid_fraction",
    "weight_decay",
]
# Also English words: arguments only at the beginning and before an equals sign.
_IN_PLACES = [
    "anneal",
    "blocks",
    "cell",
    "cells",
    "dropout",
    "encoding",
    "head",
    "lags",
    "length",
    "lower",
    "momentum",
    "optimizer",
    "peers",
    "ranks",
    "shapes",
    "target",
    "temperature",
    "threads",
    "tied",
    "tokenizer",
    "window",
]


def in_options(message: str) -> str:
    """A message of `_check` that names options instead of arguments.

    Examples
    --------
    >>> in_options("AdamW: lr must be at least 0, got -1.0.")
    '--lr must be at least 0, got -1.0.'
    >>> in_options("RNNLM: tied=True needs embed_size equal to hidden_size, got 8 and 9.")
    '--tied needs --emsize equal to --nhid, got 8 and 9.'
    """
    owner = _OWNER.match(message)
    message = message[owner.end() :] if owner else message
    for name in sorted({*_ARGUMENTS, *_ANYWHERE, *_IN_PLACES}, key=len, reverse=True):
        option = _ARGUMENTS.get(name, "--" + name.replace("_", "-"))
        at_start = rf"^{name}(?= (?:must|belongs)\b)"
        message = re.sub(at_start, option, message)
        message = re.sub(rf"(?<![\w/.-]){name}=True\b", option, message)
        message = re.sub(rf'(?<![\w/.-]){name}="?([^\s";]+)"?', rf"{option} \1", message)
        if name not in _IN_PLACES and name not in ("layers", "dtype"):
            message = re.sub(rf"(?<![\w/.-]){name}(?![\w/-]|\.\w)", option, message)
    return message


def counted(number: int, noun: str) -> str:
    """A number with its noun in singular or plural.

    Examples
    --------
    >>> counted(1, "epoch"), counted(1200, "step")
    ('1 epoch', '1,200 steps')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
