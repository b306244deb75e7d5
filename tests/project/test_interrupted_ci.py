"""`.ci/run arm64`, stopped at any moment, leaves the machine as it was.

The scripts run with stand-ins for all that needs a network, a package manager or an emulator, in a mount
namespace in which /dev and the registry of binary formats are folders of the test.
"""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRIVATE = ("unshare", "--mount", "--propagation", "private")

# Every call of a stand-in is a moment; at the wanted one it waits for the end.
STAND_IN = r"""#!/bin/bash
name=${0##*/}
if [ "$name $1" = "python3 -" ]; then exec "$PYTHON" "$@"; fi
if [ "$name" = git ]; then exit 1; fi # the folder is no repository
echo "$name $*" >>"$SCENE/calls"
if [ "$(wc -l <"$SCENE/calls")" = "$MOMENT" ]; then
    if [ "$STUBBORN" ]; then trap '' INT TERM; fi
    touch "$SCENE/reached"
    sleep 600
fi
case "$name $*" in
    "python3 -m venv "*)
        mkdir -p "$3/bin"
        ln -s "$SCENE/stand-ins/python3" "$3/bin/python"
        ln -s "$SCENE/stand-ins/pip" "$3/bin/pip"
        ;;
    "pip wheel "*) mkdir -p "$5" && touch "$5/rnnfast-0-py3-none-any.whl" ;;
    mmdebstrap*) mkdir -p "${*: -1}" ;;
    chroot*)
        for device in null zero full random urandom; do [ -c "$1/dev/$device" ] || exit 1; done
        [ -e "$1/proc/self" ] || exit 1
        ;;
esac
case "$*" in *bits_of_layers.py) echo '{"panel bytes": 0}' ;; esac
"""
DEVICES = {"full": 7, "null": 3, "random": 8, "urandom": 9, "zero": 5}
COMMANDS = ("python3", "pip", "git", "apt-get", "mmdebstrap", "qemu-aarch64", "chroot")

SET_SCENE = r"""
set -eu
[ "$(readlink /proc/self/ns/mnt)" != "$OUTSIDE" ]
mount --bind "$SCENE/formats" /proc/sys/fs/binfmt_misc
mount --bind "$SCENE/dev" /dev
[ -e /dev/canary ]
exec "$SCENE/checkout/.ci/run" arm64 >"$SCENE/log" 2>&1
"""


def why_not():
    """Why this machine cannot play the scene, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    if not all(map(shutil.which, ("bash", "mount", "ps", "unshare"))):
        return "needs bash, mount, ps and unshare"
    with tempfile.TemporaryDirectory() as folder:
        rights = 'mknod "$1/null" c 1 3 && : <"$1/null" && mount --bind "$1" /proc/sys/fs/binfmt_misc'
        command = [*PRIVATE, "bash", "-c", rights, "bash", folder]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return "needs the right to mount and to make devices"
    return None


pytestmark = pytest.mark.skipif(bool(reason := why_not()), reason=reason or "")


class Scene(NamedTuple):
    """A folder with all that a run touches, and the process of the run."""

    folder: Path
    process: subprocess.Popen


def begin(folder, moment, stubborn=False):
    """Start `.ci/run arm64`; the stand-in of that moment waits, and with `stubborn` ignores signals."""
    for name in ("stand-ins", "formats", "dev/disk", "tmp", "checkout/tests"):
        (folder / name).mkdir(parents=True)
    shutil.copytree(ROOT / ".ci", folder / "checkout" / ".ci")
    for name in ("checkout/pyproject.toml", "formats/register", "dev/canary", "dev/disk/one"):
        (folder / name).write_text("")
    for name, minor in DEVICES.items():
        os.mknod(folder / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    for name in COMMANDS:
        (folder / "stand-ins" / name).write_text(STAND_IN)
        (folder / "stand-ins" / name).chmod(0o755)
    environment = {
        "PATH": f"{folder / 'stand-ins'}:{os.environ['PATH']}",
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "SCENE": str(folder),
        "OUTSIDE": os.readlink("/proc/self/ns/mnt"),
        "PYTHON": sys.executable,
        "MOMENT": str(moment),
        "STUBBORN": "yes" if stubborn else "",
    }
    command = [*PRIVATE, "bash", "-c", SET_SCENE]
    return Scene(folder, subprocess.Popen(command, env=environment, start_new_session=True))


def left_running(process):
    """The processes of the run's session that have not ended."""
    listed = subprocess.run(["ps", "-A", "-o", "sid=,pid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for session, pid, state in rows if int(session) == process.pid and state[0] != "Z"]


def listing(folder):
    return sorted((str(path.relative_to(folder)), path.lstat().st_mode) for path in folder.rglob("*"))


def end(scene):
    """Kill what a failed test leaves."""
    for pid in left_running(scene.process):
        os.kill(pid, signal.SIGKILL)
    scene.process.wait()


# The commands of .ci/arm64 are the third to the twelfth, and from the eighth on all is mounted.
MOMENTS = range(3, 13)
CTRL_C = {5, 8, 10}
STUBBORN = {9, 10}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A scene for each of the ten moments, stopped there; they run side by side."""
    place = tmp_path_factory.mktemp("scenes")
    scenes, left = {}, {}
    try:
        for moment in MOMENTS:
            scenes[moment] = begin(place / str(moment), moment, moment in STUBBORN)
        deadline = time.monotonic() + 120
        for moment in MOMENTS:
            folder, process = scenes[moment]
            while not (folder / "reached").exists() and process.poll() is None:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.02)
            if moment in CTRL_C:
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            else:
                process.terminate()
        for moment, scene in scenes.items():
            scene.process.wait(60)
            left[moment] = left_running(scene.process)
        yield scenes, left
    finally:
        for scene in scenes.values():
            end(scene)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stopped_job_leaves_no_trace(moment, stopped):
    scenes, left = stopped
    folder, process = scenes[moment]
    assert len((folder / "calls").read_text().splitlines()) == moment, (folder / "log").read_text()
    assert [name for name, _ in listing(folder / "dev")] == ["canary", "disk", "disk/one", *DEVICES]
    assert process.returncode == 130
    assert left[moment] == []
    assert list((folder / "tmp").iterdir()) == []
    if (folder / "formats" / "register").read_text():
        assert (folder / "formats" / "rnnfast-arm64").read_text() == "-1\n"


def test_a_whole_job_leaves_no_trace_either(tmp_path):
    scene = begin(tmp_path / "scene", 99)
    try:
        before = listing(scene.folder / "dev")
        assert scene.process.wait(120) == 0, (scene.folder / "log").read_text()
        assert left_running(scene.process) == []
    finally:
        end(scene)
    assert "arm64        passed" in (scene.folder / "log").read_text()
    assert listing(scene.folder / "dev") == before
    assert list((scene.folder / "tmp").iterdir()) == []
    assert (scene.folder / "formats" / "rnnfast-arm64").read_text() == "-1\n"


CLEAN_UP = r"""
set -eu
[ "$(readlink /proc/self/ns/mnt)" != "$OUTSIDE" ]
source <(sed -n '/^lanes=/,/^trap finish/{/^trap/d;p}' "$1")
work=$2
mkdir -p "$work/a folder"
mount --bind "$3" "$work/a folder"
finish
"""


def test_a_folder_with_a_mount_in_it_is_kept(tmp_path):
    """The clean-up alone, with a mount that no job of today makes."""
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary" / "file").write_text("")
    command = [
        *PRIVATE,
        "bash",
        "-c",
        CLEAN_UP,
        "bash",
        ROOT / ".ci/run",
        tmp_path / "work",
        tmp_path / "canary",
    ]
    environment = {**os.environ, "OUTSIDE": os.readlink("/proc/self/ns/mnt")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f".ci/run: {tmp_path}/work/a folder is mounted; kept: {tmp_path}/work\n"
    assert (tmp_path / "canary" / "file").exists()
