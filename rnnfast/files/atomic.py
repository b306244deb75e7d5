"""Atomic file writes: after a crash, a full disk or Ctrl-C, a file is either complete or absent."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

try:
    import msvcrt
except ImportError:  # other systems
    msvcrt = None  # type: ignore[assignment]

# On Windows, an open file cannot be replaced: seconds to wait for a virus scanner or a reader.
_WAITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if os.name == "nt" else ()
# On Windows, locked bytes cannot be read, so the lock lies beyond the end of every file.
_LOCKED_BYTE = (1 << 31) - 2
# Windows cannot open folders: there a file in the folder is locked.
_LOCK_FILE = ".rnnfast.lock"


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces `path` only once it is complete and on the disk.

    The bytes go to a temporary file in the same folder (a rename across file systems is not atomic). At the
    end of the `with` block, the file is flushed, synchronized and renamed, then the folder is synchronized.
    After any exception, including `KeyboardInterrupt`, the temporary file is removed and `path` is unchanged.

    Parameters
    ----------
    path
        The file to write. Its folder must exist. A symbolic link is followed, so the link stays a link.

    Yields
    ------
    file
        Binary file, open for writing, reading and seeking. Its `name` is the temporary path, for writers
        that need a name instead of a file; they must write into this file, not replace it.

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
    # The name does not contain the target's, which may already have the maximum length.
    temporary = target.parent / f".rnnfast-{secrets.token_hex(8)}.tmp"
    file = _create(temporary, target)
    try:
        with file:
            _lock(file.fileno())
            yield file
            file.flush()
            _synchronize(file.fileno())
        with suppress(OSError):  # there is no old file, or its file system has no permissions
            os.chmod(temporary, target.stat().st_mode & 0o777)
        _replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(target)  # the error of a full disk has no file name
        raise
    _synchronize_folder(target.parent)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files of killed processes; files of running processes stay.

    Parameters
    ----------
    folder
        The folder to clean, without its subfolders. Nothing happens if it is missing or locks do not work.
    """
    for path in Path(folder).glob(".rnnfast-*.tmp"):
        with suppress(OSError):
            with open(path, "r+b") as file:
                is_left = _lock(file.fileno())
            if is_left:  # no other process reuses a name, and Windows does not remove open files
                os.unlink(path)


@contextmanager
def only_one(folder: str | os.PathLike[str]) -> Iterator[bool]:
    """Whether this is the only process in such a block for the folder; True if locks do not work."""
    place = Path(folder)
    if fcntl is None:
        if msvcrt is None:
            yield True
            return
        place /= _LOCK_FILE
    is_ours: bool | None = False
    descriptor = os.open(place, os.O_RDONLY if fcntl is not None else os.O_RDWR | os.O_CREAT)
    try:
        is_ours = _lock(descriptor)
        yield is_ours is not False
    finally:
        os.close(descriptor)
        if is_ours and fcntl is None:
            with suppress(OSError):  # another process has opened it since
                os.unlink(place)


def _lock(descriptor: int) -> bool | None:
    """Lock an open file until it is closed, or until its process is killed.

    True if the lock is ours, False if another process has it, None if the system or the drive has no locks.
    """
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            return _lock_on_windows(descriptor)
        else:
            return None
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _lock_on_windows(descriptor: int) -> bool:
    """Lock a byte far beyond the end; the position in the file is unchanged."""
    windows: Any = msvcrt
    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    try:
        windows.locking(descriptor, windows.LK_NBLCK, 1)
    except PermissionError:  # another process has locked the byte
        return False
    finally:
        os.lseek(descriptor, place, os.SEEK_SET)
    return True


def _replace(temporary: Path, target: Path) -> None:
    """Rename; on Windows, wait for a process that briefly has the target open."""
    for seconds in _WAITS:
        try:
            os.replace(temporary, target)
            return
        except PermissionError:
            time.sleep(seconds)
    os.replace(temporary, target)


def _synchronize(descriptor: int) -> None:
    """Write the file through to the drive; on macOS, `fsync` alone leaves it in the drive's cache."""
    whole = getattr(fcntl, "F_FULLFSYNC", None)
    if whole is not None:
        with suppress(OSError):  # a file system without it, such as a network drive
            fcntl.fcntl(descriptor, whole)
            return
    os.fsync(descriptor)


def _create(temporary: Path, target: Path) -> IO[bytes]:
    """Create a file with the permissions of the umask (`tempfile` would make it private to the user)."""
    try:
        return open(temporary, "x+b")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None


def _synchronize_folder(folder: Path) -> None:
    """Make the rename survive a power cut. Windows and some network drives do not support this."""
    if os.name == "nt":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            _synchronize(descriptor)
        finally:
            os.close(descriptor)
