"""Training ends in the same bits on 1, 2, 4 and 8 ranks, also if the number changes on the way."""

from ranks_helpers import ROOT, needs_ranks, run_ranks

pytestmark = needs_ranks
PROGRAM = ROOT / "tests" / "train_on_ranks.py"


def lines(ranks, *arguments):
    """What the ranks print, each line once."""
    done = run_ranks(ranks, PROGRAM, *arguments, timeout=300)
    assert done.code == 0, done.err
    printed = done.out.splitlines()
    assert len(printed) == ranks
    return set(printed)


def test_200_steps_end_in_the_same_bits_on_any_number_of_ranks_and_however_they_exchange():
    expected = lines(1)
    assert len(expected) == 1
    for ranks in (2, 4, 8):
        assert lines(ranks) == expected
    for ranks in (2, 4):
        assert lines(ranks, "--messages") == expected


def test_runs_go_on_with_other_numbers_of_ranks_to_the_same_bits(tmp_path):
    expected = lines(1)
    for epochs, ranks in ((1, 2), (2, 8), (3, 1), (4, 4)):
        found = lines(ranks, tmp_path, epochs)
    assert found == expected
