"""The embedded series of CO2."""

import zlib

import numpy as np

from rnnfast.data import mauna_loa_co2


def test_the_series_is_the_published_one():
    days, ppm = mauna_loa_co2()
    assert days.shape == ppm.shape == (2284,)
    assert (np.diff(days) == np.timedelta64(7, "D")).all()
    assert str(days[0]) == "1958-03-29"
    assert str(days[-1]) == "2001-12-29"
    assert np.isnan(ppm).sum() == 59
    at = {str(day): value for day, value in zip(days, ppm, strict=True)}
    published = {"1958-04-05": 317.3, "1974-05-18": 333.2, "1987-12-26": 349.2, "2001-12-29": 371.5}
    assert {day: at[day] for day in published} == published
    tenths = np.round(10 * ppm)
    assert np.array_equal(tenths / 10, ppm, equal_nan=True)
    assert zlib.crc32(np.nan_to_num(tenths).astype("<i2").tobytes()) == CHECKSUM


CHECKSUM = 598525887  # of the tenths, with 0 in the gaps
