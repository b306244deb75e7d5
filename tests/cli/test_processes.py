"""The processes of a command: how a launcher is recognized, and who does what; without MPI."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from helpers import sends_interrupts

from rnnfast.cli.processes import ALONE, Launch, Processes, launched

ROOT = Path(__file__).resolve().parents[2]
# mpi4py as it is where it finds no MPI, or not the other processes.
NOT_THERE = {
    "other version": "raise ImportError('libmpi.so.12: cannot open shared object file')",
    "no library": "raise RuntimeError('cannot load MPI library\\nlibmpi.so: not found')",
    "another": "class COMM_WORLD:\n    rank, size = 0, 1",
}


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        ({}, ALONE),
        ({"PMI_RANK": "2", "PMI_SIZE": "4"}, Launch(2, 4)),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, Launch(0, 2)),
        ({"SLURM_PROCID": "7", "SLURM_NTASKS": "16", "SLURM_STEP_NUM_TASKS": "16"}, Launch(7, 16)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}, ALONE),  # a batch script
        ({"PMI_RANK": "0", "PMI_SIZE": "1", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, Launch(0, 1)),
        ({"PMI_SIZE": "4"}, ALONE),
        ({"PMI_RANK": "", "PMI_SIZE": "four"}, ALONE),
    ],
)
def test_a_launcher_is_recognized_by_its_variables(environment, launch):
    assert launched(environment) == launch


def command(arguments, path=(), **environment):
    """The command in a process of its own, with modules of `path` before all others."""
    folders = [*map(str, path), str(ROOT), os.environ.get("PYTHONPATH", "")]
    names = ("PMI_", "OMPI_", "SLURM_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    program = "import sys; from rnnfast.cli import main\ntry: main()\nfinally: print('mpi4py' in sys.modules)"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, "PYTHONPATH": os.pathsep.join(folders), **environment},
    )


def test_without_a_launcher_nothing_of_mpi_is_imported(tmp_path):
    for environment in ({}, {"PMI_RANK": "0", "PMI_SIZE": "1"}):
        done = command(["train", str(tmp_path / "no file")], **environment)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "False\n", 1)


@pytest.mark.parametrize(("kind", "code"), NOT_THERE.items())
@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_do_not_know_each_other_end_with_one_sentence(kind, code, rank, tmp_path):
    package = tmp_path / "modules" / "mpi4py"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "MPI.py").write_text(code)
    text, folder = tmp_path / "song.txt", tmp_path / "run"
    text.write_text("you say goodbye and i say hello\n" * 50)
    arguments = ["train", str(text), "--save", str(folder)]
    done = command(arguments, [package.parent], PMI_RANK=str(rank), PMI_SIZE="2")
    assert done.returncode == 2
    assert not folder.exists()
    if rank:
        assert (done.stdout, done.stderr) == ("", "")
        return
    assert done.stderr.count("\n") == 1
    words = {"another": "as rank 0 of 2, but for mpi4py it is rank 0 of 1"}
    assert words.get(kind, "a command in 2 processes needs an MPI library") in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(importlib.util.find_spec("mpi4py") is not None, reason="mpi4py is there")
def test_processes_without_mpi4py_end_with_one_sentence(tmp_path):
    done = command(["train", str(tmp_path / "no file")], PMI_RANK="0", PMI_SIZE="2")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "a command in 2 processes needs mpi4py: pip install" in done.stderr


@pytest.mark.parametrize(
    "name", ["evaluate", "generate", "predict", "diagnose", "export", "convert", "bench", "warmup"]
)
def test_commands_of_one_process_refuse_several(name):
    with pytest.raises(ValueError, match=f"^{name} runs in one process, and 4 were started"):
        Processes(Launch(0, 4)).join(name)
    Processes(ALONE).join(name)


class Told:
    """Ranks of which this is the second: it is told the values of the first."""

    def __init__(self, *values):
        self.values = list(values)

    def agreed(self, value):
        return self.values.pop(0)


def test_one_process_does_everything_itself():
    alone = Processes()
    assert alone.is_first
    assert alone.ranks is None
    assert alone.agreed(3) == 3
    assert alone.of_first(lambda: 4) == 4
    assert alone.first_then(lambda: "first", pytest.fail) == "first"
    assert not alone.console().quiet
    with pytest.raises(SystemExit) as stop:
        alone.run(lambda: sys.exit(7))
    assert stop.value.code == 7


def test_other_ranks_wait_for_the_first_and_print_nothing():
    second = Processes(Launch(1, 2))
    second.ranks = Told(5, ("made", False), (None, False))
    assert not second.is_first
    assert second.agreed(3) == 5
    assert second.of_first(pytest.fail) == "made"
    assert second.first_then(pytest.fail, lambda: "others") == "others"
    assert second.console().quiet
    assert second.console(stderr=True).quiet


def test_other_ranks_end_when_the_first_has_failed():
    second = Processes(Launch(1, 2))
    second.ranks = Told((None, True), (None, True))
    with pytest.raises(typer.Exit):
        second.of_first(pytest.fail)
    with pytest.raises(typer.Exit):
        second.first_then(pytest.fail, pytest.fail)


def test_the_first_tells_the_others_that_it_failed():
    told = []

    class Ranks:
        @staticmethod
        def agreed(value):
            told.append(value)
            return value

    first = Processes(Launch(0, 2))
    first.ranks = Ranks
    with pytest.raises(ZeroDivisionError):
        first.of_first(lambda: 1 // 0)
    assert first.of_first(lambda: 8) == 8
    assert told == [(None, True), (8, False)]


INTERRUPTS = """
import signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
"""


@sends_interrupts
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", ["numpy", "numba", "rnnfast.layers.lstm", "typer", "rnnfast.cli.train"])
def test_ctrl_c_during_the_imports_ends_in_a_sentence(name, rank, tmp_path):
    """On ranks, the first alone says it."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTS.format(name=name))
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PMI_RANK": str(rank), "PMI_SIZE": "2"}
    command = [sys.executable, "-m", "rnnfast", "train"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == ("" if rank else "rnnfast: interrupted.\n")


def test_ctrl_c_belongs_to_the_programs_that_import_rnnfast():
    code = "import signal, rnnfast; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
