"""`rnnfast bench --ranks`: launchers, figures of all rounds, tables; a program plays the launcher of MPI."""

import json
import os
import sys

import matplotlib.image
import pytest
from threads_as_ranks import on_ranks

from rnnfast.bench import ranks_report, ranks_results, ranks_runner, ranks_worker
from rnnfast.bench.cluster import FREE, Cluster, Link, Machine, Rank
from rnnfast.bench.grid import ModelSize
from rnnfast.bench.ranks_results import joined, link_of
from rnnfast.bench.runner import BenchFailed
from rnnfast.bench.step_model import TREE, step

SIZE = ModelSize("lstm", 1, 50, 8, 16, 4)
LINK = Link(4e8, 1e-4)
MACHINE = Machine(1e9, 2e8, 1e9, 1.5e9, ranks_results._CACHE, LINK)
CLUSTER = Cluster(MACHINE, LINK, 2)

# It prints what it was started with, a line of its own, and the events in a file; then it ends with a code.
LAUNCHER = """
import json, pathlib, sys, time

folder = pathlib.Path(__file__).parent
with open(folder / "started", "a") as file:
    print(json.dumps([sys.argv[1:3], sys.argv[4:6], json.loads(sys.argv[6])]), file=file)
print("a line of the library")
print((folder / "events").read_text(), end="", flush=True)
if {waits}:
    time.sleep(60)
print("its last words", file=sys.stderr)
sys.exit({code})
"""


@pytest.fixture
def started(tmp_path):
    """A launcher that prints these events and ends with a code, and what it was started with."""

    def make(*events, code=0, waits=False):
        (tmp_path / "launcher.py").write_text(LAUNCHER.format(code=code, waits=waits))
        (tmp_path / "events").write_text("".join(json.dumps(event) + "\n" for event in events))
        return [sys.executable, str(tmp_path / "launcher.py")]

    make.calls = lambda: [json.loads(line) for line in (tmp_path / "started").read_text().splitlines()]
    return make


def settings(launcher, **changes):
    given = {"ranks": [1, 2], "launcher": launcher, "models": [SIZE], "numbers": [10], "rounds": 1}
    return ranks_runner.Settings(**{**given, **changes})


def times_of_sums(numbers):
    """Seconds of a sum over two ranks, by the model."""
    rank = Rank(CLUSTER, 2)
    return 2 * rank.slices(4 * numbers) + rank.passes(TREE * numbers / 2)


def events(factors=((1, 1, 1.0), (1, 8, 1.0), (2, 8, 1.0))):
    """Events of a machine that behaves like the model, but for factors by ranks and blocks."""
    found = [{"ranks": 1, "event": "memory", "local_size": 1, "rates": [1e9]}]
    found.append({"ranks": 2, "event": "memory", "local_size": 2, "rates": [0.8e9, 0.7e9]})
    seconds = {N: step(SIZE._replace(N=N), 1, 1, CLUSTER).work for N in (16, 4, 1)}
    found.append({"ranks": 1, "event": "rates", "model": list(SIZE), "seconds": seconds})
    for numbers in (10**6, 10**7):
        tree = times_of_sums(numbers)
        found.append(
            {
                "ranks": 2,
                "event": "sum",
                "numbers": numbers,
                "tree": [tree] * 3,
                "allreduce": [1.3 * tree] * 3,
            }
        )
    for ranks, blocks, factor in factors:
        taken = [factor * step(SIZE, ranks, blocks, CLUSTER).seconds] * 2
        found.append(
            {"ranks": ranks, "event": "step", "model": list(SIZE), "blocks": blocks, "seconds": taken}
        )
    return found


def test_numbers_of_ranks_are_powers_of_two_from_one():
    assert ranks_runner.rank_counts("8, 2") == [1, 2, 8]
    for text, words in (
        ("3", "powers of two, as in 1,2,4, got '3'"),
        ("0", "got '0'"),
        (",", "at least one"),
    ):
        with pytest.raises(ValueError, match=words):
            ranks_runner.rank_counts(text)


# The launcher


@pytest.fixture
def with_mpi4py(monkeypatch):
    """Pretend that mpi4py is installed."""
    monkeypatch.setattr(ranks_runner.importlib.util, "find_spec", lambda name: name)


def programs(folder, *names):
    folder.mkdir()
    for name in names:
        (folder / name).touch(mode=0o755)
    return folder


@pytest.mark.skipif(os.name == "nt", reason="programs have endings there")
@pytest.mark.usefixtures("with_mpi4py")
def test_the_launcher_is_that_of_slurm_or_stands_beside_python(tmp_path, monkeypatch):
    beside, path = programs(tmp_path / "beside", "mpirun"), programs(tmp_path / "path", "srun", "mpiexec")
    monkeypatch.setattr(sys, "executable", str(beside / "python"))
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert ranks_runner.launcher(None) == [str(path / "mpiexec")]
    (beside / "mpiexec").touch(mode=0o755)
    assert ranks_runner.launcher(None) == [str(beside / "mpiexec")]
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert ranks_runner.launcher(None) == ["srun"]
    assert ranks_runner.launcher("mpiexec --oversubscribe") == ["mpiexec", "--oversubscribe"]


@pytest.mark.usefixtures("with_mpi4py")
def test_a_missing_launcher_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ValueError, match="no launcher of MPI was found: pip install mpich"):
        ranks_runner.launcher(None)
    with pytest.raises(ValueError, match="must begin with a program on the PATH, got 'nothing -x'"):
        ranks_runner.launcher("nothing -x")


def test_a_missing_mpi4py_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(ranks_runner.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'mpi4py is not installed here: pip install "rnnfast\[mpi\]"'):
        ranks_runner.launcher(None)


def test_numbers_of_ranks_take_turns_in_rounds(started, monkeypatch):
    monkeypatch.setattr(ranks_runner, "joined", lambda events: {"events": events})
    record, seen = {}, []
    command = started({"event": "first", "value": 3})
    ranks_runner.measure(
        settings(command, rounds=2), record, lambda ranks, event: seen.append((ranks, event))
    )
    assert record["events"] == [{"ranks": n, "event": "first", "value": 3} for n in (1, 2, 1, 2)]
    assert seen == [(n, {"event": "first", "value": 3}) for n in (1, 2, 1, 2)]
    calls = started.calls()
    assert [call[0] for call in calls] == [["-n", "1"], ["-n", "2"]] * 2
    assert all(call[1] == ["-m", "rnnfast.bench.ranks_worker"] for call in calls)
    assert [call[2]["with_rates"] for call in calls] == [True, False, False, False]
    assert calls[1][2] == {
        "ranks": 2,
        "models": [list(SIZE)],
        "blocks": 8,
        "numbers": [10],
        "seconds": 4.0,
        "with_rates": False,
    }


def test_a_launcher_that_fails_is_named_with_its_last_words(started):
    with pytest.raises(BenchFailed, match="-n 1 ended with code 3") as failed:
        ranks_runner.measure(settings(started(code=3)), {}, print)
    assert failed.value.details == "its last words"


def test_ranks_that_refuse_are_stopped_and_their_sentence_is_the_error(started):
    command = started({"event": "refused", "message": "bench: it cannot."}, waits=True)
    with pytest.raises(BenchFailed, match="bench: it cannot"):
        ranks_runner.measure(settings(command), {}, print)


PLAN = {"ranks": 1, "models": [list(SIZE)], "blocks": 4, "numbers": [10], "seconds": 0.0, "with_rates": True}


def works(ranks, plan, allreduce=None):
    """The events of each rank, but for those of compiling."""

    def work(rank):
        seen = []
        ranks_worker.Worker({**plan, "ranks": ranks}, rank, allreduce, seen.append).run()
        return [event for event in seen if event["event"] not in ("compiling", "compiled")]

    return on_ranks(ranks, work)


def test_a_rank_times_copies_passes_of_fewer_rows_and_steps():
    [[memory, passes, undivided, steps]] = works(1, PLAN)
    assert (memory["event"], memory["local_size"], len(memory["rates"])) == ("memory", 1, 1)
    assert (passes["event"], passes["model"]) == ("rates", list(SIZE))
    assert list(passes["seconds"]) == ["16", "4", "1"]
    assert (steps["event"], steps["model"], steps["blocks"]) == ("step", list(SIZE), 4)
    assert (undivided["event"], undivided["blocks"]) == ("step", 1)
    assert len(steps["seconds"]) >= 4
    assert min(*memory["rates"], *passes["seconds"].values(), *steps["seconds"]) > 0


def test_ranks_time_their_sums_in_turn_with_those_of_mpi():
    summed = []
    plan = {**PLAN, "models": [], "numbers": [10, 20], "with_rates": False}
    first, second = works(2, plan, lambda array: summed.append(array.size))
    for seen in (first, second):
        assert [event["event"] for event in seen] == ["memory", "sum", "sum"]
        assert [event["numbers"] for event in seen[1:]] == [10, 20]
        assert {len(event[name]) for event in seen[1:] for name in ("tree", "allreduce")} == {10}
    assert first[1:] == second[1:]  # the slowest rank counts
    assert first[0]["local_size"] == len(first[0]["rates"]) == 2
    assert sorted(summed) == [10] * 40 + [20] * 40


# The figures


def test_the_figures_of_a_machine_like_the_model_are_as_predicted():
    found = joined(events())
    assert [(line["ranks"], line["blocks"]) for line in found["steps"]] == [(1, 1), (1, 8), (2, 8)]
    assert [line["ratio"] for line in found["steps"]] == pytest.approx([1.0] * 3, rel=1e-6)
    undivided, alone, two = (line["seconds"]["median"] for line in found["steps"])
    speedups = [line["speedup"] for line in found["steps"]]
    assert speedups == pytest.approx([alone / undivided, 1.0, alone / two])
    assert [line["ratio"] for line in found["sums"]] == pytest.approx([1.3, 1.3])
    assert ranks_report.cluster_of(found["clusters"][0]).machine.rate == pytest.approx(1e9)


def test_figures_of_several_rounds_are_joined():
    found = joined([*events(), *events(((1, 1, 3.0), (1, 8, 3.0), (2, 8, 3.0)))[3:]])
    assert [line["seconds"]["samples"] for line in found["steps"]] == [4, 4, 4]
    assert [line["tree"]["samples"] for line in found["sums"]] == [6, 6]
    assert [line["ratio"] for line in found["steps"]] == pytest.approx([2.0] * 3, rel=1e-6)


def test_a_slow_step_stands_out_against_the_prediction():
    [one, two] = joined(events(((1, 8, 1.0), (2, 8, 1.5))))["steps"]
    assert (one["ratio"], two["ratio"]) == pytest.approx((1.0, 1.5), rel=1e-6)


def test_the_messages_of_a_machine_are_found_in_its_sums():
    sums = [{"ranks": 2, "numbers": n, "tree": {"median": times_of_sums(n)}} for n in (10**6, 10**7)]
    assert link_of(sums, 1e9, 1.5e9) == pytest.approx(LINK)
    assert link_of([], 1e9, 1.5e9) == Link(FREE, 0.0)
    fast = [{"ranks": 2, "numbers": n, "tree": {"median": 1e-12 * n}} for n in (10**6, 10**7)]
    assert link_of(fast, 1e9, 1.5e9).bandwidth == FREE


# The report


@pytest.fixture
def record():
    machine = {"processor": "P", "cores": 2, "vector_bytes": 32, "float32_lanes": 8}
    return {"machine": machine, "settings": {"rounds": 3}, **joined(events())}


def test_the_tables_show_speedup_efficiency_and_the_prediction(record):
    steps, sums = ranks_report.sheets(record)
    shown = {column.head: column.cells for column in steps.columns}
    assert (shown["ranks"], shown["blocks"]) == (["1", "1", "2"], ["1", "8", "8"])
    assert shown["times as fast"][1] == "1.00"
    assert shown["efficiency"][1] == "100%"
    assert shown["measured / predicted"] == ["1.00"] * 3
    assert {column.head: column.cells for column in sums.columns}["numbers"] == ["1,000,000", "10,000,000"]
    page = ranks_report.markdown(record)
    assert "### Training steps, one thread a rank\n\n| model | ranks | blocks | ms |" in page
    assert "Medians of 3 rounds" in page


def test_one_rank_alone_has_no_table_of_sums(record):
    record["sums"] = []
    assert len(ranks_report.sheets(record)) == 1


def test_the_picture_has_a_panel_for_each_model(record, tmp_path):
    ranks_report.draw(tmp_path / "bench.png", json.loads(json.dumps(record, allow_nan=False)))
    assert matplotlib.image.imread(tmp_path / "bench.png").shape[0] > 300


# The command


@pytest.mark.usefixtures("with_mpi4py")
def test_the_command_writes_figures_tables_and_picture(started, tmp_path, monkeypatch):
    from test_bench import rnnfast_bench

    monkeypatch.setattr(ranks_runner, "QUICK_MODELS", (SIZE,))
    found = {1: [], 2: []}
    for event in events():
        found[event.pop("ranks")].append(event)

    def of_ranks(command, plan):
        yield from found[plan["ranks"]] if plan["with_rates"] or plan["ranks"] > 1 else found[1][:1]

    monkeypatch.setattr(ranks_runner, "_events", of_ranks)
    code, out, err = rnnfast_bench(
        "--ranks", "2", "--quick", "--launcher", sys.executable, "--out", tmp_path / "o"
    )
    assert (code, err) == (0, "")
    assert "1/6: 1 rank, 1 block: 1 x lstm, V=50 D=H=8 N=16 T=4: " in out
    assert "measured / predicted" in out
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"bench.json", "bench.md", "bench.png"}
    kept = json.loads((tmp_path / "o" / "bench.json").read_text())
    assert kept["complete"] is True
    assert kept["settings"]["ranks"] == [1, 2]
    assert [line["ranks"] for line in kept["steps"]] == [1, 1, 2]


@pytest.mark.usefixtures("with_mpi4py")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--ranks", "3"), "--ranks must be powers of two, as in 1,2,4, got '3'"),
        (("--ranks", "2", "--launcher", "no_such_launcher"), "--launcher must begin with a program"),
        (("--ranks", "2", "--threads", "1"), "--threads has no effect with --ranks; leave it out"),
        (("--launcher", "mpiexec"), "--launcher has no effect without --ranks; leave it out"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(arguments, words):
    from test_bench import rnnfast_bench

    code, out, err = rnnfast_bench(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
