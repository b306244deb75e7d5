"""A rank that dies or fails alone: all ranks end, and one line names it."""

import os
import re
import sys
import time
from pathlib import Path

import kill_ranks_and_resume
import numpy as np
import pytest
from ranks_helpers import library, needs_ranks, run_ranks

from rnnfast.files.atomic import remove_leftovers
from rnnfast.files.tensors import Spec, read_tensors

pytestmark = needs_ranks

PROGRAM = Path(__file__).parents[1].joinpath("watched_ranks.py")
SENTENCE = (
    r"^rnnfast: rank (\d) of (\d) \(process \d+ on \S+\) (.*); "
    r"training ended on all ranks\. Resume with --resume\.$"
)
KILLS = int(os.environ.get("RNNFAST_KILLS", "1"))  # a long run: 20


def ended(count, *arguments, **options):
    """The end of the job, and what its lines say of which rank."""
    done = run_ranks(count, PROGRAM, *arguments, timeout=60, **options)
    said = re.findall(SENTENCE, done.err, re.MULTILINE)
    assert done.err.count("rnnfast: ") == len(said), done.err
    assert "left" not in done.out or not said
    return done, said


def moments(done, word):
    """When the ranks have printed the word, in seconds."""
    return [float(moment) for moment in re.findall(rf"{word}\s+([\d.]+)", done.out)]


def test_ranks_leave_together():
    done, said = ended(3, "nothing", "late", 1)
    assert (done.code, said, done.err) == (0, [], "")
    left = moments(done, "left")
    assert len(left) == 3
    assert max(left) - min(left) < 2  # the late one took 3 s


def test_blocks_inside_a_block_only_wait():
    done, said = ended(3, "inner", "-", 1)
    assert (done.code, said, done.err) == (0, [], "")
    turns = sorted(moments(done, "turn"))
    assert len(turns) == 9
    assert turns[5] < turns[6] - 0.5  # all wait for the last turn of rank 1


def test_a_rank_that_dies_while_it_waits_for_the_others_is_named():
    done, said = ended(3, "waits", "killed", 1)
    assert said == [("1", "3", "died")], done.err


@pytest.mark.parametrize("turn", range(KILLS))
@pytest.mark.parametrize(
    ("count", "work", "end", "rank"),
    [
        (3, "python", "killed", 0),
        (4, "compiled", "killed", 3),
        (2, "mpi", "killed", 0),
        (4, "mpi", "killed", 3),
        (3, "compiled", "crashed", 1),
        (3, "mpi", "exited", 1),
    ],
)
def test_a_rank_that_dies_is_named_and_ends_the_others(count, work, end, rank, turn):
    done, said = ended(count, work, end, rank)
    assert said == [(str(rank), str(count), "died")], done.err
    assert done.code != 0
    (moment,) = moments(done, "dies")
    assert time.time() - moment < 10


@pytest.mark.parametrize("turn", range(KILLS))
def test_rank_0_killed_while_it_writes_leaves_the_file_before(tmp_path, turn):
    _, said = ended(2, "writing", "killed", 0, cwd=tmp_path)
    assert said == [("0", "2", "died")]
    specs = {"numbers": Spec(np.dtype(np.float32), (-1,))}
    _, arrays = read_tensors(tmp_path / "numbers", "test", lambda about: specs)
    numbers = arrays["numbers"]
    assert numbers.size == 10**6
    assert numbers[0] >= 1
    assert (numbers == numbers[0]).all()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["numbers"]


@pytest.mark.parametrize(("work", "rank"), [("mpi", 0), ("compiled", 2)])
def test_a_rank_that_fails_alone_prints_its_error_and_ends_the_others(work, rank):
    done, said = ended(3, work, "fails", rank)
    assert said == [(str(rank), "3", "failed with FileNotFoundError")], done.err
    assert done.err.count("FileNotFoundError: data.bin has gone\n") == 1
    assert done.code != 0


@pytest.mark.parametrize("end", ["alike", "all fail"])
def test_what_all_ranks_raise_is_no_loss(end):
    done, said = ended(3, "nothing", end)
    assert said == []
    assert done.err.count("Traceback") == 3
    assert done.code != 0


@pytest.mark.skipif("MPICH" not in library(), reason="options of MPICH")
def test_the_ranks_end_by_themselves_where_the_launcher_leaves_them_alone():
    done, said = ended(3, "compiled", "killed", 1, options=["-disable-auto-cleanup"])
    assert said == [("1", "3", "died")], done.err
    assert done.code != 0


@pytest.mark.skipif("MPICH" not in library(), reason="options of MPICH")
def test_ranks_on_several_machines_share_one_guard():
    options = ["-launcher", "fork", "-hosts", "127.0.0.1,127.0.0.2", "-ppn", "1"]
    options.append("-disable-auto-cleanup")  # else the launcher may be gone before it has passed the line on
    done, said = ended(2, "compiled", "killed", 1, options=options)
    assert said == [("1", "2", "died")], done.err
    done, said = ended(2, "nothing", options=options)
    assert (done.code, said) == (0, [])


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of ranks in /proc")
def test_runs_whose_ranks_are_killed_go_on_with_other_numbers_of_ranks_to_the_same_bits(tmp_path):
    found = kill_ranks_and_resume.main(tmp_path, KILLS)
    assert found["equal"] == found["trials"] == KILLS
    assert found["of several"] > 0
    assert found["slowest end"] < 10
