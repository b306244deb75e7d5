"""What `rnnfast bench` counts together from its measurements, and how it shows them."""

import io

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from rnnfast.bench import chart, machine, report, runner, summary
from rnnfast.bench.grid import ModelSize, Shape

BIG, WIDE = Shape(20, 35, 100, 100), Shape(64, 100, 128, 256)


def layer_record(cell, shape, which, seconds, share=0.5, **peers):
    times = {"rnnfast": seconds, **peers}
    return {
        "cell": cell,
        "shape": list(shape),
        "pass": which,
        "share": share,
        "contenders": {name: {"median": value} for name, value in times.items()},
        "ratios": {name: value / seconds for name, value in peers.items()},
        "differences": dict.fromkeys(peers, 1e-7),
    }


def model_record(size, which, seconds, **peers):
    record = layer_record("", BIG, which, seconds, **peers)
    tokens = {name: size.N * size.T / found["median"] for name, found in record["contenders"].items()}
    kept = {name: record[name] for name in ("pass", "contenders", "ratios", "differences")}
    return {**size._asdict(), **kept, "tokens_per_second": tokens}


def a_run(threads, layers=(), models=(), peers=("torch", "jax"), noise=0.01):
    return {
        "threads": threads,
        "pinned": list(range(threads)),
        "versions": {"rnnfast": "1", **dict.fromkeys(peers, "2")},
        "layers": list(layers),
        "models": list(models),
        "peak": {"median": threads * 1e11},
        "noise": noise,
        "noisy": noise > runner.NOISY,
    }


@pytest.fixture
def record():
    """A report in which every part of the tables, the summary and the picture has something to show."""
    one = [
        layer_record("rnn", BIG, "forward", 0.001, 0.4, torch=0.002, jax=0.0009),
        layer_record("rnn", BIG, "both", 0.003, 0.5, torch=0.009, jax=0.006),
        layer_record("rnn", WIDE, "both", 0.010, 0.9, torch=0.020, jax=0.040),
    ]
    two = [
        layer_record("rnn", BIG, "both", 0.0015, 0.5, torch=0.009, jax=0.006),
        layer_record("rnn", WIDE, "both", 0.008, 0.6, torch=0.020, jax=0.040),
    ]
    model = ModelSize("lstm", 2, 65, 128, 50, 50)
    models = [model_record(model, "gradients", 0.25, torch=0.5), model_record(model, "step", 0.5, torch=0.4)]
    runs = [a_run(1, one), a_run(2, two), a_run(1, (), models)]
    settings = {"peers": ["torch", "jax"], "peers_named": True, "goal": 1.1}
    return {"machine": machine.description(), "settings": settings, "runs": runs}


# Counting together


def test_ratios_count_by_cell_peer_and_threads_and_to_the_fastest(record):
    found = {(line["cell"], line["threads"], line["peer"]): line for line in summary.ratios(record["runs"])}
    assert found["rnn", 1, "torch"]["mean"] == pytest.approx((2 * 3 * 2) ** (1 / 3))
    assert found["rnn", 1, "jax"]["least"] == pytest.approx(0.9)
    fastest = found["rnn", 1, summary.FASTEST]
    assert (fastest["lines"], fastest["where"]) == (3, "(20, 35, 100, 100) forward")
    assert fastest["mean"] == pytest.approx((0.9 * 2 * 2) ** (1 / 3))
    assert found["model", 1, "torch"]["least"] == pytest.approx(0.8)
    assert ("model", 1, "jax") not in found


def test_shares_of_the_peak_count_where_the_work_is_wide_enough(record):
    found = [(line["threads"], line["pass"], line["least"]) for line in summary.shares(record["runs"])]
    assert found == [(1, "both", 0.9), (2, "both", 0.6)]  # the shape with 100 hidden units is left out


def test_the_gain_of_threads_counts_where_there_is_enough_to_do(record):
    [line] = summary.gains(record["runs"])
    assert (line["cell"], line["threads"], line["lines"]) == ("rnn", 2, 2)
    assert line["least"] == pytest.approx(10 / 8)
    assert line["mean"] == pytest.approx((2 * 10 / 8) ** 0.5)
    record["runs"][0]["layers"][1]["contenders"]["rnnfast"]["median"] = 0.0019
    assert summary.gains(record["runs"])[0]["lines"] == 1


def test_lines_below_the_goal_come_with_the_fastest_peer_and_the_worst_first(record):
    found = [(line["what"], line["peer"]) for line in summary.short_of(record["runs"], 1.1)]
    assert found == [
        ("2 x lstm, V=65 D=H=128 N=50 T=50 whole step", "torch"),
        ("rnn (20, 35, 100, 100) forward", "jax"),
    ]
    assert summary.short_of(record["runs"], 0.5) == []


# Showing it


def shown(record, width=200, goal=1.1):
    console = Console(file=io.StringIO(), width=width)
    report.show(console, record, goal)
    return console.file.getvalue()


def test_the_report_has_times_ratios_shares_and_the_summary(record):
    text = shown(record)
    for words in ("RNN, 2 threads", "PyTorch ms", "Language model, 1 thread", "10,000", "the fastest", "90%"):
        assert words in text
    assert "2 of 7 ratios to the fastest peer are below 1.1:" in text
    assert "0.90 against JAX, rnn (20, 35, 100, 100) forward, 1 thread" in text
    assert "noisy" not in text
    assert "No ratio to the fastest peer is below 0.5." in shown(record, goal=0.5)


def test_a_narrow_terminal_gets_ratios_without_times_and_no_line_is_cut(record):
    text = shown(record, width=80)
    assert "PyTorch ms" not in text
    assert "PyTorch" in text
    assert "…" not in text.split("Ratios")[0]


def test_a_noisy_machine_is_called_so(record):
    record["runs"][1].update(noise=0.2, noisy=True)
    assert "spread over 20% of their median" in shown(record)
    assert "spread over 20% of their median" in report.markdown(record, 1.1)


def test_the_tables_in_markdown_have_as_many_cells_in_each_row(record):
    text = report.markdown(record, 1.1)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 6
    for table in tables:
        assert len({row.count("|") for row in table}) == 1
        assert set(table[1]) <= set("|-: ")
    assert "| (64, 100, 128, 256) | fwd + bwd | 10.0 | 20.0 | 2.00 | 40.0 | 4.00 | 90% |" in tables[0]


def bars_in(path, colors):
    """How many pixels of each color a picture has."""
    pixels = matplotlib.image.imread(path)[..., :3] * 255
    return [
        int((np.abs(pixels - [int(c[i : i + 2], 16) for i in (1, 3, 5)]).max(axis=-1) < 6).sum())
        for c in colors
    ]


def test_the_picture_has_bars_for_each_number_of_threads_and_pass(record, tmp_path):
    chart.draw(tmp_path / "a.png", record)
    assert min(bars_in(tmp_path / "a.png", [chart._HUES[0][0], chart._HUES[0][1], chart._HUES[1][1]])) > 300
    record["runs"] = record["runs"][:1]
    chart.draw(tmp_path / "b.png", record)
    assert bars_in(tmp_path / "b.png", [chart._HUES[1][1]]) == [0]
