"""The folder with the results of a command that is no training of a language model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rnnfast import _check
from rnnfast.cli.run_folder import SETTINGS, missing_folders
from rnnfast.files.atomic import only_one, remove_leftovers, write_atomically
from rnnfast.training.checkpoint import read_json, run_file

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
