"""Dates of series: frequencies, positions, and clocks."""

import numpy as np
import pytest

from rnnfast.forecast.frames import Grid, found_grid, grid_of


def dates_of(first, count, unit):
    """`count` dates from `first` on, made by NumPy or by the calendar."""
    if unit == "ME":
        months = np.datetime64(first, "M") + np.arange(1, count + 1)
        return (months.astype("datetime64[D]") - 1).astype("datetime64[s]")
    if unit == "MS":
        return (np.datetime64(first, "M") + np.arange(count)).astype("datetime64[s]")
    if unit == "QS":
        return (np.datetime64(first, "M") + 3 * np.arange(count)).astype("datetime64[s]")
    if unit == "YS":
        return (np.datetime64(first, "Y") + np.arange(count)).astype("datetime64[s]")
    if unit == "B":
        days = np.datetime64(first, "D") + np.arange(3 * count)
        return days[np.is_busday(days)][:count].astype("datetime64[s]")
    seconds = {"s": 1, "15min": 900, "h": 3600, "D": 86400, "W-SAT": 7 * 86400}[unit]
    return np.datetime64(first, "s") + np.arange(count) * np.timedelta64(seconds, "s")


UNITS = ["s", "15min", "h", "D", "W-SAT", "B", "MS", "ME", "QS", "YS"]


@pytest.mark.parametrize("unit", UNITS)
def test_positions_count_steps_and_lead_back_to_dates(unit):
    dates = dates_of("2023-11-01", 40, unit)
    grid = grid_of("test", unit)
    positions, phases = grid.positions("test", ["a"], np.array([0, 40]), dates)
    np.testing.assert_array_equal(np.diff(positions), 1)
    np.testing.assert_array_equal(grid.dates(positions, phases[0]).astype("datetime64[s]"), dates)
    found = found_grid("test", np.array([0, 40]), dates)
    if unit != "B":  # working days are days with gaps
        assert str(found) == str(grid)
    gaps = np.delete(dates, [3, 4, 17])
    with_gaps = grid.positions("test", ["a"], np.array([0, 37]), gaps).positions
    np.testing.assert_array_equal(with_gaps, np.delete(positions, [3, 4, 17]))


def test_series_may_have_phases_of_their_own():
    first, second = dates_of("2024-01-06", 5, "W-SAT"), dates_of("2024-01-01", 5, "W-SAT")
    grid = grid_of("test", "W")
    positions, phases = grid.positions(
        "test", ["a", "b"], np.array([0, 5, 10]), np.concatenate((first, second))
    )
    assert phases[0] != phases[1]
    np.testing.assert_array_equal(grid.dates(positions[5:], phases[1]).astype("datetime64[s]"), second)


def test_numbers_are_steps():
    grid = grid_of("test", 5)
    positions, phases = grid.positions("test", ["a"], np.array([0, 3]), np.array([7, 12, 22]))
    assert (positions.tolist(), phases.tolist()) == ([1, 2, 4], [2])
    np.testing.assert_array_equal(grid.dates(np.array([5]), 2), [27])
    assert found_grid("test", np.array([0, 2, 4]), np.array([0, 6, 0, 9])) == Grid("step", 3)
    assert not grid.of_dates


@pytest.mark.parametrize("freq", ["parsec", "", "0D", "-1D", "D5"])
def test_an_unknown_frequency_is_refused(freq):
    with pytest.raises(ValueError, match=r"test: freq must be"):
        grid_of("test", freq)


@pytest.mark.parametrize("freq", [0, 1.5, True])
def test_a_step_is_a_whole_number(freq):
    with pytest.raises((ValueError, TypeError), match="freq must be"):
        grid_of("test", freq)


@pytest.mark.parametrize(
    ("unit", "wrong"),
    [("D", "2023-11-05T01"), ("MS", "2024-01-02"), ("B", "2023-11-04"), ("2h", "2023-11-01T03")],
)
def test_a_date_off_the_grid_names_series_and_date(unit, wrong):
    first = np.datetime64("2023-11-01", "s")
    dates = np.array([first, np.datetime64(wrong, "s")])
    with pytest.raises(ValueError, match=r"series 'b' at " + wrong.replace("T", ".")):
        grid_of("test", unit).positions("test", ["a", "b"], np.array([0, 1, 3]), np.array([first, *dates]))


def test_one_date_has_no_step():
    with pytest.raises(ValueError, match="give freq"):
        found_grid("test", np.array([0, 1, 2]), np.array(["2024-01-01", "2024-05-01"], "datetime64[s]"))


@pytest.mark.parametrize(
    ("freq", "steps", "periods"),
    [
        ("h", 47, []),
        ("h", 48, [(1, 1)]),
        ("h", 24 * 14, [(1, 1), (7, 1)]),
        ("D", 13, []),
        ("D", 800, [(7, 1), (365, 1), (365, 2)]),
        ("W", 110, [(365, 1), (365, 2)]),
        ("MS", 23, []),
        ("MS", 25, [(365, 1), (365, 2)]),
        ("YS", 100, []),
    ],
)
def test_clocks_are_those_that_the_series_has_seen_twice(freq, steps, periods):
    waves = grid_of("test", freq).waves(steps)
    assert [(int(period // 86400), number) for period, number in waves] == periods


def test_clocks_come_again_after_their_period():
    grid = grid_of("test", "h")
    positions = np.arange(300)
    clocks = grid.clocks(positions, 0, grid.waves(24 * 20))
    assert clocks.shape == (300, 4)
    np.testing.assert_allclose(clocks[168:], clocks[:-168], atol=1e-8)
    np.testing.assert_allclose((clocks**2).sum(axis=1), 2)
    assert Grid("step").clocks(positions, 0, []).shape == (300, 0)
