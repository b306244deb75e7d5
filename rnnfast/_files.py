"""Files that are either whole or not there: what a crash, a full disk or Ctrl-C leaves behind."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the place of `path` only once it is complete and on the disk.

    The bytes go to a temporary file in the same folder (a rename across file systems is not atomic). When
    the `with` block ends well, the file is flushed, synchronised and renamed, then the folder is
    synchronised. When it ends with any exception, `KeyboardInterrupt` included, the temporary file is
    removed and `path` is as it was.

    Parameters
    ----------
    path
        The file to write. Its folder must exist. A symbolic link is followed, so the link stays a link.

    Yields
    ------
    file
        Binary file, open for writing, reading and seeking. Its `name` is the temporary path, for writers
        that want a name instead of a file; they must write into that file, not replace it.

    Raises
    ------
    OSError
        The folder is missing or not writable (the error names `path`), `path` is a folder, or the disk is
        full.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with write_atomically(Path(folder) / "note.txt") as file:
    ...         _ = file.write(b"whole or not there")
    ...     (Path(folder) / "note.txt").read_text()
    'whole or not there'
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    # The name says nothing of the target's, which may already be as long as the file system allows.
    temporary = target.parent / f".rnnfast-{secrets.token_hex(8)}.tmp"
    file = _create(temporary, target)
    try:
        with file:
            _lock(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        with suppress(OSError):  # there is no old file, or its file system knows no permissions
            os.chmod(temporary, target.stat().st_mode & 0o777)
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(target)  # a full disk does not say which file it was
        raise
    _synchronise_folder(target.parent)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files of processes that were killed while they wrote; others keep theirs.

    Parameters
    ----------
    folder
        Looked at, not below it. Nothing happens where it is missing, or on Windows.
    """
    for path in Path(folder).glob(".rnnfast-*.tmp") if fcntl is not None else ():
        with suppress(OSError), open(path, "rb") as file:
            if _lock(file.fileno()):
                os.unlink(path)


@contextmanager
def only_one(folder: str | os.PathLike[str]) -> Iterator[bool]:
    """Whether no other process is inside such a block for the same folder; True where locks are unknown."""
    if fcntl is None:
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(descriptor) is not False
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Lock an open file until it is closed, which also happens when its process is killed.

    True if it is ours, False if it is another's, None where the system or the drive knows no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _create(temporary: Path, target: Path) -> IO[bytes]:
    """A new file with the permissions the umask allows (`tempfile` would make it private to the user)."""
    try:
        return open(temporary, "x+b")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None


def _synchronise_folder(folder: Path) -> None:
    """Make the rename survive a power cut. Windows cannot open folders, and some network drives refuse."""
    if os.name == "nt":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
