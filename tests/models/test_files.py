"""Atomic writes: after any interruption the old file or the new one is there, whole, and nothing else."""

import errno
import os
import types

import numpy as np
import pytest

from rnnfast.files import atomic
from rnnfast.files.atomic import fcntl, only_one, remove_leftovers, write_atomically

LOCKS = fcntl is not None
POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX permissions and links")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_appears_with_its_content_and_nothing_beside_it(tmp_path):
    with write_atomically(tmp_path / "weights") as file:
        file.write(b"abc")
    assert (tmp_path / "weights").read_bytes() == b"abc"
    assert names(tmp_path) == ["weights"]


def test_the_old_content_stays_visible_until_the_block_ends(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"old")
    with write_atomically(str(path)) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_file_and_no_temporary_one(tmp_path, error):
    path = tmp_path / "weights"
    path.write_bytes(b"old")

    def interrupted():
        with write_atomically(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["weights"]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch, name):
    path = tmp_path / "weights"
    path.write_bytes(b"old")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="No space left") as caught, write_atomically(path) as file:
        file.write(b"half")
    monkeypatch.undo()
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["weights"]


def test_file_and_folder_are_synchronized_around_the_rename(tmp_path, monkeypatch):
    actual = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (actual.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (actual.append("replace"), replace(a, b)))
    with write_atomically(tmp_path / "weights") as file:
        file.write(b"abc")
    expected = ["fsync", "replace"] if os.name == "nt" else ["fsync", "replace", "fsync"]
    assert actual == expected


def test_the_file_can_be_written_by_its_name_by_others_and_from_its_start_again(tmp_path):
    with write_atomically(tmp_path / "weights") as file, open(file.name, "r+b") as other:
        other.write(b"by name")
    assert (tmp_path / "weights").read_bytes() == b"by name"
    with write_atomically(tmp_path / "weights") as file:
        file.write(b"....abc")
        file.seek(0)
        file.write(b"head")
    assert (tmp_path / "weights").read_bytes() == b"headabc"
    with write_atomically(tmp_path / "ids.npy") as file:
        np.save(file, np.arange(3))
    np.testing.assert_array_equal(np.load(tmp_path / "ids.npy"), np.arange(3))


def test_leftovers_of_killed_processes_are_removed_and_files_being_written_are_not(tmp_path):
    (tmp_path / ".rnnfast-0123.tmp").write_bytes(b"half")
    (tmp_path / "other.tmp").write_bytes(b"not ours")
    with write_atomically(tmp_path / "weights") as file:
        remove_leftovers(tmp_path)
        file.write(b"abc")
    remove_leftovers(tmp_path / "missing")
    assert names(tmp_path) == (
        ["other.tmp", "weights"] if LOCKS else [".rnnfast-0123.tmp", "other.tmp", "weights"]
    )
    assert (tmp_path / "weights").read_bytes() == b"abc"


@pytest.mark.skipif(not LOCKS, reason="this system has no locks of this kind")
def test_one_process_at_a_time_is_alone_in_a_folder(tmp_path):
    with only_one(tmp_path) as first, only_one(tmp_path) as second, only_one(tmp_path.parent) as other:
        assert (first, second, other) == (True, False, True)
    with only_one(tmp_path) as again:
        assert again


def test_a_missing_folder_or_a_folder_as_target_is_named_in_the_error(tmp_path):
    missing = tmp_path / "missing" / "weights"
    with pytest.raises(FileNotFoundError, match="weights") as caught, write_atomically(missing):
        pass
    assert caught.value.filename == str(missing)
    with pytest.raises(IsADirectoryError, match=tmp_path.name), write_atomically(tmp_path):
        pass


@POSIX
def test_permissions_follow_the_umask_or_the_file_that_is_replaced(tmp_path):
    before = os.umask(0o027)
    try:
        with write_atomically(tmp_path / "weights") as file:
            file.write(b"abc")
    finally:
        os.umask(before)
    assert (tmp_path / "weights").stat().st_mode & 0o777 == 0o640
    (tmp_path / "weights").chmod(0o604)
    with write_atomically(tmp_path / "weights") as file:
        file.write(b"abc")
    assert (tmp_path / "weights").stat().st_mode & 0o777 == 0o604


@POSIX
def test_a_symbolic_link_stays_a_link_to_the_new_content(tmp_path):
    (tmp_path / "run-1").write_bytes(b"old")
    (tmp_path / "latest").symlink_to(tmp_path / "run-1")
    with write_atomically(tmp_path / "latest") as file:
        file.write(b"new")
    assert (tmp_path / "latest").is_symlink()
    assert (tmp_path / "run-1").read_bytes() == b"new"


def test_a_name_as_long_as_the_file_system_allows_still_works(tmp_path):
    path = tmp_path / ("x" * 255)
    with write_atomically(path) as file:
        file.write(b"abc")
    assert path.read_bytes() == b"abc"


def test_a_target_that_is_open_elsewhere_for_a_moment_is_replaced_later(tmp_path, monkeypatch):
    """As on Windows, where a reader or a virus scanner is in the way."""
    replace, refused = os.replace, []

    def busy(source, target):
        if len(refused) < 3:
            refused.append(target)
            raise PermissionError(errno.EACCES, "Access is denied", str(source), None, str(target))
        replace(source, target)

    monkeypatch.setattr(atomic, "_WAITS", (0.0,) * 3)
    monkeypatch.setattr(os, "replace", busy)
    with write_atomically(tmp_path / "weights") as file:
        file.write(b"new")
    assert (tmp_path / "weights").read_bytes() == b"new"
    assert refused == [tmp_path / "weights"] * 3
    refused.clear()
    monkeypatch.setattr(atomic, "_WAITS", (0.0,) * 2)
    with pytest.raises(PermissionError) as caught, write_atomically(tmp_path / "weights") as file:
        file.write(b"newer")
    assert caught.value.filename == str(tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == b"new"
    assert names(tmp_path) == ["weights"]


def test_only_windows_waits_for_a_target_that_is_open():
    assert bool(atomic._WAITS) is (os.name == "nt")
    assert sum(atomic._WAITS) < 3


@pytest.mark.parametrize("refuses", [False, True])
def test_macos_has_the_drive_write_its_own_memory_down(tmp_path, monkeypatch, refuses):
    asked, synchronized = [], []

    def control(descriptor, command):
        asked.append(command)
        if refuses:
            raise OSError(errno.ENOTSUP, "Operation not supported")

    macos = types.SimpleNamespace(F_FULLFSYNC=51, fcntl=control, LOCK_EX=2, LOCK_NB=4, flock=lambda *_: None)
    monkeypatch.setattr(atomic, "fcntl", macos)
    monkeypatch.setattr(os, "fsync", synchronized.append)
    with write_atomically(tmp_path / "weights") as file:
        file.write(b"abc")
    assert asked == [51] * (1 if os.name == "nt" else 2)
    assert len(synchronized) == (len(asked) if refuses else 0)


class Windows:
    """`msvcrt.locking`: one holder a byte, until its descriptor is closed."""

    LK_NBLCK = 2

    def __init__(self):
        self.held = {}

    def locking(self, descriptor, mode, count):
        assert (mode, count) == (self.LK_NBLCK, 1)
        place = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        holder = self.held.get(place)
        if holder not in (None, descriptor) and self.is_open(holder, place[0]):
            raise PermissionError(errno.EACCES, "Permission denied")
        self.held[place] = descriptor

    @staticmethod
    def is_open(descriptor, inode):
        try:
            return os.fstat(descriptor).st_ino == inode
        except OSError:
            return False


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(atomic, "fcntl", None)
    monkeypatch.setattr(atomic, "msvcrt", Windows())


def test_on_windows_one_process_at_a_time_is_alone_in_a_folder(tmp_path, windows):
    with only_one(tmp_path) as first:
        assert first
        with only_one(tmp_path) as second:
            assert not second
    with only_one(tmp_path) as third:
        assert third
    assert names(tmp_path) == []


def test_on_windows_leftovers_are_removed_and_files_being_written_are_not(tmp_path, windows):
    (tmp_path / ".rnnfast-0123.tmp").write_bytes(b"half")
    with write_atomically(tmp_path / "weights") as file:
        file.write(b"ab")
        remove_leftovers(tmp_path)
        assert len(names(tmp_path)) == 1
        file.write(b"c")
    assert (tmp_path / "weights").read_bytes() == b"abc"
    assert names(tmp_path) == ["weights"]


def test_where_there_are_no_locks_nothing_is_removed_and_everybody_is_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "fcntl", None)
    monkeypatch.setattr(atomic, "msvcrt", None)
    (tmp_path / ".rnnfast-0123.tmp").write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".rnnfast-0123.tmp"]
    with only_one(tmp_path) as first, only_one(tmp_path) as second:
        assert first
        assert second
