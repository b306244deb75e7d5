"""The command line on ranks of MPI: the files of one process, and each line printed once."""

import json
import signal
import sys
import time

import pytest
from helpers import assert_equal, sends_interrupts
from ranks_helpers import end_ranks, needs_ranks, run_ranks, start_ranks

from rnnfast.forecast import RNNForecaster
from rnnfast.training.checkpoint import MODEL
from rnnfast.training.checkpointing import read_training

pytestmark = needs_ranks

TEXT = "you say goodbye and i say hello . hello hello i do not know why you say goodbye\n" * 40
SMALL = ("--nhid", 8, "--emsize", 8, "--bptt", 5, "--batch-size", 10, "--blocks", 4, "--dropout", 0.2)
FILES = ("model.safetensors", "cbow/model.safetensors")


def command(count, *arguments, **options):
    """The command on ranks; its code, and what all of them print."""
    return run_ranks(count, "-m", "rnnfast", *arguments, **options)


def bits(folder):
    return [(folder / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def runs(text, tmp_path_factory):
    """The folders and outputs of the same run on 1, 2 and 4 ranks."""
    place, found = tmp_path_factory.mktemp("runs"), {}
    for count in (1, 2, 4):
        folder = place / str(count)
        done = command(count, "train", text, *SMALL, "--epochs", 2, "--save", folder)
        assert (done.code, done.err) == (0, ""), done
        found[count] = folder, done.out
    return found


def test_the_models_of_any_number_of_ranks_have_the_same_bits(runs):
    expected = bits(runs[1][0])
    for count in (2, 4):
        assert bits(runs[count][0]) == expected


def test_the_folders_of_any_number_of_ranks_have_the_same_files(runs):
    def listing(folder):
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))

    def metrics(folder):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if "second" not in k} for line in lines]

    for count in (2, 4):
        assert listing(runs[count][0]) == listing(runs[1][0])
        assert metrics(runs[count][0]) == metrics(runs[1][0])


def test_lines_and_tables_are_printed_once(runs):
    for folder, out in runs.values():
        for words in (
            "validation: ",
            "epoch 2/2 done",
            "unigram, add one",
            "writes:",
            f"run folder: {folder}",
        ):
            assert out.count(words) == (2 if words.startswith("epoch") else 1), out


# Without --blocks.

DEFAULT = tuple(part for part in SMALL if part not in ("--blocks", 4))
SHARED = "4 ranks share batches of 4 blocks; one process with --blocks 4 ends in the same bits\n"


def saved_blocks(folder):
    return json.loads((folder / "settings.json").read_text())["arguments"]["blocks"]


def test_the_default_batch_is_cut_for_the_ranks_and_a_run_keeps_its_blocks(runs, text, tmp_path):
    folder = tmp_path / "run"
    done = command(4, "train", text, *DEFAULT, "--epochs", 1, "--save", folder)
    assert (done.code, done.err) == (0, ""), done
    assert done.out.count(SHARED) == 1
    assert saved_blocks(folder) == 4
    refused = command(8, "train", "--resume", folder, "--epochs", 2)
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused
    assert "has 4 blocks, too few for 8 ranks; start at most 4" in refused.err
    done = command(1, "train", "--resume", folder, "--epochs", 2)
    assert (done.code, done.err) == (0, ""), done
    assert "share batches" not in done.out
    assert bits(folder) == bits(runs[1][0])
    assert saved_blocks(folder) == 4


def test_a_batch_that_serves_the_ranks_has_its_usual_blocks(text, tmp_path):
    found = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        done = command(count, "train", text, *DEFAULT, "--batch-size", 20, "--epochs", 1, "--save", folder)
        assert done.code == 0, done
        found.append((saved_blocks(folder), bits(folder)))
    assert found[0] == found[1]
    assert found[0][0] == 4


@pytest.mark.parametrize(("before", "after"), [(1, 2), (4, 1)])
def test_a_run_goes_on_with_another_number_of_ranks(before, after, runs, text, tmp_path):
    folder = tmp_path / "run"
    command(before, "train", text, *SMALL, "--epochs", 1, "--save", folder)
    done = command(after, "train", "--resume", folder, "--epochs", 2)
    assert (done.code, done.err) == (0, ""), done
    assert bits(folder) == bits(runs[1][0])


def test_json_is_printed_once(text, tmp_path):
    options = ("--epochs", 1, "--no-baseline", "--json", "--save", tmp_path / "run")
    done = command(2, "train", text, *SMALL, *options)
    assert done.code == 0, done
    assert json.loads(done.out)["run"] == str(tmp_path / "run")
    assert done.err.count("epoch 1/1 done") == 1


def test_text_on_standard_input_is_read_once(text, tmp_path):
    with open(text) as song:
        options = ("--epochs", 1, "--no-baseline", "--save", tmp_path / "run")
        done = command(2, "train", "-", *SMALL, *options, stdin=song)
    assert (done.code, done.err) == (0, ""), done
    assert "the training part of standard input" in done.out


def test_a_dated_folder_is_one_folder(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(2, "train", text, *SMALL, "--epochs", 1, "--no-baseline")
    assert (done.code, done.err) == (0, ""), done
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "no file"), "no file does not exist"),
        (("train", "--epochs", "0"), "--epochs must be at least 1"),
        (("train", "--epochs"), "--epochs"),
        (("train", "--resume", "no folder"), "no folder"),
        (("train", "{text}", "--blocks", "3"), "--blocks must be a power of two"),
        (("train", "{text}", "--blocks", "1"), "too few for 2 ranks"),
        (("evaluate", "runs"), "evaluate runs in one process"),
        (("forecast", "no file.csv"), "no file.csv"),
        (("classify", "a.ts", "b.ts"), "a.ts"),
        (("nothing",), "nothing"),
    ],
)
def test_an_error_of_all_ranks_is_one_line(arguments, words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(2, *(one.format(text=text) for one in arguments))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert words in done.err
    assert list(tmp_path.iterdir()) == []


def test_help_is_printed_once():
    done = command(2, "--version")
    assert (done.code, done.out.count("rnnfast"), done.err) == (0, 1, "")


def test_a_run_that_is_in_the_way_stays(runs, text):
    folder, before = runs[2][0], bits(runs[2][0])
    done = command(2, "train", text, *SMALL, "--save", folder)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert "already has a run" in done.err
    assert bits(folder) == before


ALONE = """
import sys
from mpi4py import MPI
from rnnfast.cli import main
from rnnfast.cli.session import Session

def fail(self, *_):
    {what}

if MPI.COMM_WORLD.rank == {rank}:
    Session.{method} = fail
sys.argv = ["rnnfast", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("what", "words"),
    [("raise OSError('the disk is full.')", "the disk is full"), ("1 // 0", "ZeroDivisionError")],
)
def test_a_rank_that_fails_alone_says_so_and_ends_all(what, words, rank, text, tmp_path):
    program = ALONE.format(what=what, rank=rank, method="_introduce")
    options = ("--epochs", 100_000, "--save", tmp_path / "run")
    done = run_ranks(2, "-c", program, "train", text, *SMALL, *options, timeout=60)
    assert done.code != 0, done
    assert words in done.err
    assert rank == 0 or "rank 1: " in done.err


def test_a_failure_of_the_first_after_training_is_one_line(text, tmp_path):
    program = ALONE.format(what="raise OSError('the disk is full.')", rank=0, method="_draw")
    options = ("--epochs", 1, "--no-baseline", "--save", tmp_path / "run")
    done = run_ranks(2, "-c", program, "train", text, *SMALL, *options, timeout=60)
    assert (done.code, done.err) == (1, "rnnfast: the disk is full.\n")


LATE = """
import os, pathlib, signal, sys, time
from mpi4py import MPI
from rnnfast.cli import main
from rnnfast.cli.session import Session

pids = MPI.COMM_WORLD.allgather(os.getpid())

def interrupt_the_other(self):
    time.sleep(0.5)  # it has come to its end
    os.kill(pids[1], signal.SIGINT)
    time.sleep(0.5)

if MPI.COMM_WORLD.rank == 0:
    Session._draw = interrupt_the_other
sys.argv = ["rnnfast", *sys.argv[1:]]
main()
"""


@sends_interrupts
def test_ctrl_c_does_not_hit_a_rank_that_waits_for_the_end(text, tmp_path):
    options = ("--epochs", 1, "--no-baseline", "--save", tmp_path / "run")
    done = run_ranks(2, "-c", LATE, "train", text, *SMALL, *options, timeout=60)
    assert (done.code, done.err) == (0, ""), done


def test_different_arguments_are_refused(text, tmp_path):
    program = (
        "import sys; from mpi4py import MPI; from rnnfast.cli import main\n"
        "sys.argv = ['rnnfast', *sys.argv[1:], '--seed', str(MPI.COMM_WORLD.rank)]\n"
        "main()"
    )
    done = run_ranks(2, "-c", program, "train", text, *SMALL, "--save", tmp_path / "run")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert "different arguments" in done.err
    assert not (tmp_path / "run").exists()


def test_forecasts_of_two_ranks_are_those_of_one(tmp_path):
    pytest.importorskip("narwhals")
    rows = [f"{place % 3},{place // 3},{10 + (place // 3) % 7 + 0.1 * (place % 5)}" for place in range(240)]
    file = tmp_path / "shops.csv"
    file.write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    options = ("--h", 4, "--windows", 2, "--hidden-size", 4, "--max-epochs", 3, "--no-plot")
    outs, times = [], (" in 0:0", " left", "compiling", "share batches")
    for count, blocks in ((1, ("--blocks", 2)), (2, ())):
        done = command(count, "forecast", file, *options, *blocks, "--out", tmp_path / str(count))
        assert (done.code, done.err) == (0, ""), done
        outs.append(
            [line for line in done.out.splitlines() if line and not any(word in line for word in times)]
        )
        assert saved_blocks(tmp_path / str(count)) == 2
        assert done.out.count("2 ranks share batches of 2 blocks") == (count == 2)
    assert [line.replace(str(tmp_path / "2"), str(tmp_path / "1")) for line in outs[1]] == outs[0]
    assert (tmp_path / "1" / "forecast.csv").read_bytes() == (tmp_path / "2" / "forecast.csv").read_bytes()
    models = [RNNForecaster.load(tmp_path / count / MODEL).model_ for count in "12"]
    assert_equal(*(model.params for model in models))


def test_classifiers_of_two_ranks_are_those_of_one(tmp_path):
    pytest.importorskip("sklearn")
    lines = ["@classLabel true up down", "@data"]
    for number in range(40):
        slope = 1 if number % 3 else -1
        values = [str(slope * step + 0.3 * ((number * step) % 5)) for step in range(4 + number % 5)]
        lines.append(f"{','.join(values)}:{'up' if slope > 0 else 'down'}")
    file = tmp_path / "walk.ts"
    file.write_text("\n".join(lines) + "\n")
    options = ("--hidden-size", 6, "--max-epochs", 3)
    for count, blocks in ((1, ("--blocks", 2)), (2, ())):
        done = command(count, "classify", file, file, *options, *blocks, "--out", tmp_path / str(count))
        assert (done.code, done.err) == (0, ""), done
        assert done.out.count("accuracy") == 1
        assert saved_blocks(tmp_path / str(count)) == 2
        assert done.out.count("2 ranks share batches of 2 blocks") == (count == 2)
    for name in ("predictions.csv", MODEL):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_ranks_share_the_cores():
    program = (
        "import os; from rnnfast.distributed.ranks import Ranks; from rnnfast import get_num_threads\n"
        "Ranks(); os.write(1, f'{get_num_threads()} {len(os.sched_getaffinity(0))}\\n'.encode())"
    )
    if not sys.platform.startswith("linux"):
        pytest.skip("reads the processors of a process")
    done = run_ranks(2, "-c", program, environment={"RNNFAST_NUM_THREADS": ""})
    assert done.code == 0, done
    for line in done.out.splitlines():
        threads, processors = map(int, line.split())
        assert threads == max(1, processors // 2)
    done = run_ranks(2, "-c", program, environment={"RNNFAST_NUM_THREADS": "3"})
    assert [line.split()[0] for line in done.out.splitlines()] == ["3", "3"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to another process")
def test_ctrl_c_saves_the_run_on_any_number_of_ranks(text, tmp_path):
    folder = tmp_path / "run"
    options = (*SMALL, "--patience", 0, "--checkpoint-every", 1000, "--log-interval", 1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ranks inherit what is ignored
    try:
        process = start_ranks(
            2, "-m", "rnnfast", "train", text, *options, "--epochs", 99_999, "--save", folder
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        lines = folder / "metrics.jsonl"
        while process.poll() is None and (not lines.exists() or lines.read_text().count("\n") < 5):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        end_ranks(process)
    assert process.returncode == 130, (out, err)
    assert err.count("rnnfast: interrupted") == err.count("continues it") == 1
    done = read_training(folder / "training.safetensors").epoch
    resumed = command(1, "train", "--resume", folder, "--epochs", done)
    whole = command(2, "train", text, *options, "--epochs", done, "--save", tmp_path / "whole")
    assert resumed.code == whole.code == 0, (resumed, whole)
    assert bits(folder) == bits(tmp_path / "whole")
