"""Inputs and targets of a forecaster, against loops over single values."""

import numpy as np
import pytest

from rnnfast.forecast.fitting import Columns, Windows
from rnnfast.forecast.frames import Grid
from rnnfast.forecast.panel import Panel, filled, panel_of_arrays
from rnnfast.forecast.preprocessing import History, Preprocessing, Table

NAN = np.nan
SERIES = [
    np.array([3.0, 5.0, NAN, 4.0, 8.0, 9.0, NAN, NAN, 7.0, 6.0, 5.0, 9.0]),
    np.array([NAN, NAN, 2.0, 1.0]),
    np.array([10.0]),
    np.arange(30.0) ** 1.5,
]


def recipe_of(target="difference", season=1, horizon=1, scaler="standard", flags=True, counts=False):
    return Preprocessing(target, season, horizon, scaler, flags, 0.5 if counts else None, Grid("step"), [], 0)


def filled_naively(y, step):
    known = list(y)
    for t in range(step, len(y)):
        if np.isnan(known[t]):
            known[t] = known[t - step]
    return known


def base_naively(known, t, k, target, season, location):
    """The base of the value at step t + k, known at step t."""
    if target == "level":
        return location
    place = t if target == "difference" else t + k - season
    return known[place] if place >= 0 else NAN


def inputs_naively(y, t, recipe, location, scale):
    step = recipe.season if recipe.target == "seasonal_difference" else 1
    known = filled_naively(y, step)
    origin = location if recipe.target == "level" else known[t - step] if t >= step else NAN
    row = [0.0 if np.isnan(y[t] - origin) else (y[t] - origin) / scale]
    if recipe.flags:
        row.append(float(not np.isnan(y[t])))
    if recipe.counts:
        row.append(np.log(scale) - 0.5)
    if recipe.season > 1 and recipe.target != "seasonal_difference":
        for k in range(1, recipe.horizon + 1):
            there, then = t + k - recipe.season, t - recipe.season
            start = location if recipe.target == "level" else (known[then] if then >= 0 else NAN)
            lag = (known[there] - start) / scale if there >= 0 else NAN
            row.append(0.0 if np.isnan(lag) else lag)
    return row


OPTIONS = [
    {},
    {"flags": False},
    {"season": 4},
    {"season": 4, "horizon": 3},
    {"target": "level"},
    {"target": "level", "season": 3, "horizon": 2},
    {"target": "seasonal_difference", "season": 4},
    {"target": "seasonal_difference", "season": 4, "horizon": 4},
    {"target": "level", "counts": True, "scaler": "auto"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_inputs_and_targets_equal_loops(options):
    recipe = recipe_of(**options)
    panel = panel_of_arrays("test", "y", SERIES)
    scale = recipe.scale_of(panel)
    table = Table(recipe, panel, scale, np.zeros((len(SERIES), 0)))
    scored = table.scored()
    for row, y in enumerate(SERIES):
        location, unit = scale.location[row], scale.scale[row]
        steps = len(y)
        inputs = table.inputs(np.array([row]), np.array([0]), steps)[0]
        targets = table.targets(np.array([row]), np.array([0]), steps)[0]
        assert inputs.shape == (steps, recipe.width)
        known = filled_naively(y, recipe.fills_from)
        for t in range(steps):
            np.testing.assert_allclose(inputs[t], inputs_naively(y, t, recipe, location, unit), rtol=1e-12)
            wanted = []
            for k in range(1, recipe.horizon + 1):
                value = y[t + k] if t + k < steps else NAN
                base = base_naively(known, t, k, recipe.target, recipe.season, location)
                wanted.append((value - base) / (1.0 if recipe.counts else unit))
            assert scored[panel.begins[row] + t] == (not np.isnan(wanted[0]))
            for k, one in enumerate(wanted):
                if np.isnan(one):
                    wanted[k] = wanted[k - 1] if k else 0.0
            np.testing.assert_allclose(targets[t], wanted, rtol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_inputs_of_any_steps_have_the_bits_of_all_steps(options):
    recipe = recipe_of(**options)
    panel = panel_of_arrays("test", "y", SERIES)
    table = Table(recipe, panel, recipe.scale_of(panel), np.zeros((len(SERIES), 0)))
    whole = table.inputs(np.array([0, 3]), np.array([0, 0]), 12)
    part = table.inputs(np.array([3, 0]), np.array([5, 2]), 4)
    np.testing.assert_array_equal(part[0], whole[1, 5:9])
    np.testing.assert_array_equal(part[1], whole[0, 2:6])
    past = table.past(np.array([0]), np.array([6]))
    one = recipe.inputs(
        past.recent, past.observed[:, np.newaxis], recipe.scale_of(panel).rows(np.array([0])),
        np.zeros((1, 1, 0)), np.zeros((1, 1, 0)),
    )  # fmt: skip
    np.testing.assert_array_equal(one[0, 0], whole[0, 6])


@pytest.mark.parametrize("season", [1, 2, 5])
def test_gaps_take_the_value_of_the_season_before(season):
    rng = np.random.default_rng(season)
    series = [rng.standard_normal(n) for n in (1, 7, 30, 12)]
    for one in series:
        one[rng.random(len(one)) < 0.4] = NAN
    panel = panel_of_arrays("test", "y", series)
    found = filled(panel.values, panel.begins, season)
    for row, y in enumerate(series):
        np.testing.assert_array_equal(
            found[panel.begins[row] : panel.begins[row + 1]], filled_naively(y, season)
        )


def test_without_gaps_nothing_is_copied():
    panel = panel_of_arrays("test", "y", np.arange(12.0).reshape(3, 4))
    assert filled(panel.values, panel.begins, 2) is panel.values


@pytest.mark.parametrize("scaler", ["standard", "mean", None])
def test_scales_ignore_gaps_and_are_never_zero(scaler):
    series = [np.array([2.0, NAN, 6.0, 4.0]), np.full(5, 3.0), np.zeros(4)]
    panel = panel_of_arrays("test", "y", series)
    location, scale = recipe_of("level", scaler=scaler).scale_of(panel)
    wanted = {
        "standard": ([4.0, 3.0, 0.0], [np.sqrt(8 / 3), 1.0, 1.0]),
        "mean": ([0.0, 0.0, 0.0], [4.0, 3.0, 1.0]),
        None: ([0.0] * 3, [1.0] * 3),
    }[scaler]
    np.testing.assert_allclose(location, wanted[0])
    np.testing.assert_allclose(scale, wanted[1])


def test_the_scale_of_differences_is_their_root_mean_square():
    y = np.array([1.0, 4.0, NAN, 8.0, 6.0])
    scale = recipe_of().scale_of(panel_of_arrays("test", "y", y))
    np.testing.assert_allclose(scale.scale, [np.sqrt((9 + 16 + 4) / 3)])


@pytest.mark.parametrize(("steps", "size"), [(1, 4), (4, 4), (5, 4), (23, 4), (23, 7), (9, 2)])
def test_windows_score_each_step_once(steps, size):
    begins = np.array([0, steps, steps + 2])
    windows = Windows(begins, np.array([steps, 2]), size)
    assert windows.lengths.max() <= size
    weights = windows.weights(np.ones(steps + 2, bool))
    counts = np.zeros(steps + 2)
    for number in range(len(windows)):
        length = windows.lengths[number]
        own = np.ones(length) if weights is None else weights[number : number + 1][0, :length]
        place = begins[windows.rows[number]] + windows.first[number]
        counts[place : place + length] += own
    np.testing.assert_array_equal(counts, 1)


def test_weights_leave_out_unknown_targets_and_early_steps():
    windows = Windows(np.array([0, 6]), np.array([6]), 8)
    scored = np.array([True, True, False, True, True, True])
    assert windows.weights(np.ones(6, bool)) is None
    np.testing.assert_array_equal(windows.weights(scored)[:][0], scored)
    np.testing.assert_array_equal(windows.weights(scored, np.array([4]))[:][0], [0, 0, 0, 0, 1, 1])


def test_columns_are_zero_behind_the_end():
    windows = Windows(np.array([0, 3, 8]), np.array([3, 5]), 8)

    def compute(rows, first, steps):
        return np.full((len(rows), steps, 2), NAN) + rows[:, np.newaxis, np.newaxis] * 0 + 1.0

    def poisoned(rows, first, steps):
        return np.full((len(rows), steps, 2), NAN)

    columns = Columns(windows, compute, 2, np.float32)
    assert columns.shape == (2, 5, 2)
    assert columns[:].dtype == np.float32
    behind = Columns(windows, poisoned, 2, np.float32)[:]
    assert np.isnan(behind[0, :3]).all()
    assert (behind[0, 3:] == 0).all()
    assert behind[:, 1:4].shape == (2, 3, 2)


def test_a_past_goes_on_with_forecasts():
    past = History(np.array([[1.0, 2.0, 3.0]]), np.array([False]), np.array([7]))
    after = past.followed_by(np.array([9.0]))
    np.testing.assert_array_equal(after.recent, [[2.0, 3.0, 9.0]])
    assert after.observed.all()
    assert after.positions[0] == 8


def test_a_panel_can_be_cut_and_begin_with_gaps():
    future = np.arange(7.0)[:, np.newaxis]
    panel = panel_of_arrays("test", "y", [np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0, 7.0])])
    panel = panel._replace(future=future)
    cut = panel.until(np.array([2, 1]))
    np.testing.assert_array_equal(cut.values, [1, 2, 4])
    np.testing.assert_array_equal(cut.begins, [0, 2, 3])
    np.testing.assert_array_equal(cut.future[:, 0], [0, 1, 3])
    np.testing.assert_array_equal(panel.after(np.array([1, 2]), 2)[..., 0], [[1, 2], [5, 6]])
    late = cut.after_gaps(np.array([0, 2]))
    np.testing.assert_array_equal(late.values, [1, 2, NAN, NAN, 4])
    np.testing.assert_array_equal(late.starts, [0, -2])
    assert isinstance(late, Panel)
