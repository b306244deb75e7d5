"""The command line, run in the process of its tests."""

import contextlib
import io

import pytest

from rnnfast.cli.app import app


def rnnfast_command(*arguments, given=b""):
    """Exit code, stdout and stderr of the command, run in this process, with bytes on standard input."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given), encoding="ascii"))
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as stop,
        ):
            app([str(argument) for argument in arguments], prog_name="rnnfast")
    return stop.value.code, out.getvalue(), err.getvalue()


def assert_one_line(arguments, *words, code=2):
    """The command ends with this code and one line on stderr, which has all words."""
    found, out, err = rnnfast_command(*arguments)
    assert found == code, (out, err)
    assert err.count("\n") == 1, err
    assert err.startswith("rnnfast"), err
    for word in words:
        assert str(word) in err, err
