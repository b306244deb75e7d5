"""Commands that can be stopped and resumed: their folder, their saved options, and their ends."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from rnnfast import _check
from rnnfast.cli.errors import BAD_INPUT, INTERRUPTED, STOPPED, fail, is_closed_pipe, wording
from rnnfast.cli.options import BadOption, given_options
from rnnfast.cli.processes import Processes
from rnnfast.cli.run_folder import SETTINGS, dated_folder, missing_folders
from rnnfast.files.atomic import only_one, remove_leftovers, write_atomically
from rnnfast.training import TrainingDiverged
from rnnfast.training.checkpoint import read_json, run_file


class Resumable:
    """One call of a command with the options `out`, `overwrite` and `resume`.

    Parameters
    ----------
    context : typer.Context
        That of the command.
    files : sequence of str
        The names of all files that the command writes.
    unsaved : sequence of str
        Options that belong to a single call, besides those three.

    Attributes
    ----------
    told : dict
        The value of each option; of a run that is resumed, those with which it began.
    given : set of str
        The names of the options given on the command line.
    resumes : bool
        Whether the call continues a run.

    Raises
    ------
    CheckpointError, OSError, ValueError
        There is no such run, or an option does not fit it.
    """

    def __init__(self, context: typer.Context, files: Sequence[str], unsaved: Sequence[str] = ()) -> None:
        self._command, self._files = str(context.info_name), files
        self._processes: Processes = context.obj
        self._of_one_call = {"out", "overwrite", "resume", *unsaved}
        self.told, self.given = dict(context.params), given_options(context)
        self.resumes = self.told["resume"] is not None
        if self.resumes:
            self.told |= self._agreed(context, Path(self.told["resume"]))
        elif self.told["overwrite"] and self.told["out"] is None:
            raise _check.values.no_effect(
                "--overwrite", "without --out, since each run then has a new folder"
            )

    def choose_blocks(self, batch_size: int) -> int | None:
        """The blocks of a batch of this many rows, which are saved with a run that begins."""
        if not self.resumes:
            self.told["blocks"] = self._processes.blocks(self.told["blocks"], batch_size)
        return self.told["blocks"]

    def _saved(self) -> dict[str, Any]:
        """The options saved with a run, as JSON values: all except those of a single call."""
        saved = {name: value for name, value in self.told.items() if name not in self._of_one_call}
        return {name: _as_json(value) for name, value in saved.items()}

    def _agreed(self, context: typer.Context, path: Path) -> dict[str, Any]:
        """The options with which the run began; those given again must be the same."""
        saved, told = OutFolder.resume(path, self._command, self._files).read_settings(), self._saved()
        saved = {"blocks": 1, **saved}  # once, all rows of a batch were one block
        if set(saved) != set(told):
            raise _check.training.malformed(
                path / SETTINGS, f"not the arguments of this version of rnnfast {self._command}"
            )
        parameters = {str(parameter.name): parameter for parameter in context.command.params}
        for name in sorted(self.given - {"resume"}):
            flag = _flag(parameters[name])
            if name in self._of_one_call:
                _check.values.absent(
                    self._command, flag, self.told[name], "a run that begins, not to --resume"
                )
            _check.training.same_option(path, flag, saved[name], told[name])
        try:
            return {name: _read(context, parameters[name], value) for name, value in saved.items()}
        except (typer.BadParameter, ValueError, TypeError) as error:
            raise _check.training.malformed(path / SETTINGS, f"not the settings of a run ({error})") from None

    def folder(self, stack: ExitStack, *, trains: bool = True) -> OutFolder:
        """The folder of the run, locked as long as `stack`; if the call begins one that trains, with its
        options."""
        path = self._processes.agreed(self.told["resume"] or self.told["out"] or dated_folder())
        return self._processes.first_then(
            lambda: self._locked(path, stack, trains),
            lambda: OutFolder.beside(path, self._command, self._files),
        )

    def _locked(self, path: Path, stack: ExitStack, trains: bool) -> OutFolder:
        if self.resumes:
            folder = OutFolder.resume(path, self._command, self._files)
        else:
            folder = OutFolder(path, self._command, self._files, overwrite=self.told["overwrite"])
            if trains:
                folder.write_settings(self._saved())
        stack.enter_context(folder.alone())
        return folder

    def run(self, work: Callable[[], object], folder: OutFolder, *, trains: bool = True) -> None:
        """Do all of it; a call that cannot go on leaves no files, and one that was stopped can be resumed."""
        again = f"rnnfast {self._command} --resume {shlex.quote(str(folder.path))} continues it"
        again = f"; {again}" if trains else ""
        try:
            work()
        except KeyboardInterrupt:
            self._processes.end_alike()
            fail(f"interrupted{again}.", INTERRUPTED)
        except OSError as error:
            if is_closed_pipe(error):
                raise
            fail(f"{wording(error).rstrip('.')}{again}.", STOPPED)
        except (ValueError, TypeError, MemoryError, ImportError, TrainingDiverged) as error:
            if isinstance(error, TrainingDiverged):
                self._processes.end_alike()
            if self._processes.is_first and not self.resumes:
                folder.discard()
            fail(wording(error), STOPPED if isinstance(error, TrainingDiverged | MemoryError) else BAD_INPUT)


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _flag(parameter: Any) -> str:
    """A parameter as its user types it: FILE, or --hidden-size."""
    return parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar


def _read(context: typer.Context, parameter: Any, value: Any) -> Any:
    """A saved value, checked like one on the command line, since anybody may have edited the file."""
    if value is None and parameter.default is not None:
        raise BadOption(f"{_flag(parameter)} must have a value")
    return parameter.process_value(context, value)


# The folder with the results of a command that is no training of a language model.


_FORMAT = "rnnfast-results-1"


class OutFolder:
    """A folder for the results of a command, and for the arguments with which it can be resumed.

    Parameters
    ----------
    path
        Created if it is missing; unrelated files in it are not touched.
    command : str
        The sub-command.
    files : sequence of str
        The names of all files that the command writes.
    overwrite : bool
        Whether earlier results of the same command are removed.

    Raises
    ------
    OSError
        The folder cannot be created; `FileExistsError` if it has one of the files.

    Examples
    --------
    >>> import tempfile
    >>> folder = OutFolder(Path(tempfile.mkdtemp()) / "run", "forecast", ["forecast.csv"])
    >>> folder.write_settings({"h": 12})
    >>> OutFolder.resume(folder.path, "forecast", ["forecast.csv"]).read_settings()
    {'h': 12}
    """

    def __init__(self, path: Path, command: str, files: Sequence[str], *, overwrite: bool = False) -> None:
        self.path, self._command, self._files = Path(path), command, (SETTINGS, *files)
        earlier = [name for name in self._files if (self.path / name).exists()]
        if earlier and not (overwrite and self._is_ours()):
            raise _check.training.run_in_the_way(self.path, earlier[0])
        self._made = missing_folders(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        with self.alone():
            remove_leftovers(self.path)
            for name in earlier:
                (self.path / name).unlink()

    @classmethod
    def resume(cls, path: Path, command: str, files: Sequence[str]) -> OutFolder:
        """The folder of a command that was stopped.

        Raises
        ------
        CheckpointError, OSError
            There is no such folder, or it is not one of this command.
        """
        folder = cls.beside(path, command, files)
        run_file(folder.path, SETTINGS)
        folder.read_settings()
        return folder

    @classmethod
    def beside(cls, path: Path, command: str, files: Sequence[str]) -> OutFolder:
        """The folder that another rank has made or resumed; nothing in it is changed."""
        folder = cls.__new__(cls)
        folder.path, folder._command, folder._files = Path(path), command, (SETTINGS, *files)
        folder._made = []
        return folder

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the folder against other processes inside the block; OSError if one already has it."""
        with only_one(self.path) as is_ours:
            if not is_ours:
                raise _check.training.run_under_way(self.path)
            yield

    def write_settings(self, arguments: dict[str, Any]) -> None:
        """Save the arguments, which are JSON values."""
        value = {"format": _FORMAT, "command": self._command, "arguments": arguments}
        with write_atomically(self.path / SETTINGS) as file:
            file.write(json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode())

    def read_settings(self) -> dict[str, Any]:
        """The arguments of `write_settings`; CheckpointError if the file has none."""
        path = self.path / SETTINGS
        value = read_json(path)
        told = (value.get("format"), value.get("command"))
        if told != (_FORMAT, self._command) or not isinstance(value.get("arguments"), dict):
            raise _check.training.malformed(path, f"not the settings of rnnfast {self._command}")
        return value["arguments"]

    def _is_ours(self) -> bool:
        try:
            self.read_settings()
        except (_check.CheckpointError, OSError):
            return False
        return True

    def discard(self) -> None:
        """Remove the files of a command that cannot go on, and the folders made for it."""
        for name in self._files:
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # the folder is no longer empty
            for folder in self._made:
                folder.rmdir()
