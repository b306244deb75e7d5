"""The scratch memory of layers: reused, grown, aligned; and the base class."""

import hypothesis.strategies as st
import numpy as np
from helpers import DTYPES
from hypothesis import given

from rnnfast.layers.base import Layer, Workspace

FLOAT32, FLOAT64 = (np.dtype(dtype) for dtype in DTYPES)


def test_the_same_name_and_shape_give_the_same_memory_with_its_content():
    workspace = Workspace()
    first = workspace.take("states", (3, 4), FLOAT32)
    first[...] = 7.0
    again = workspace.take("states", (3, 4), FLOAT32)
    assert np.shares_memory(first, again)
    np.testing.assert_array_equal(again, np.full((3, 4), 7.0, np.float32))


def test_names_have_memory_of_their_own():
    workspace = Workspace()
    arrays = [workspace.take(name, (100,), FLOAT64) for name in "abc"]
    for value, array in enumerate(arrays):
        array[...] = value
    for value, array in enumerate(arrays):
        assert (array == value).all()


def test_a_smaller_request_reuses_memory_and_a_larger_one_grows_it_once():
    workspace = Workspace()
    assert workspace.nbytes == 0
    large = workspace.take("x", (10, 10), FLOAT64)
    assert workspace.nbytes == 800
    assert np.shares_memory(workspace.take("x", (3,), FLOAT64), large)
    assert np.shares_memory(workspace.take("x", (200,), FLOAT32), large)
    assert workspace.nbytes == 800
    larger = workspace.take("x", (101,), FLOAT64)
    assert workspace.nbytes == 808
    assert not np.shares_memory(larger, large)
    assert np.shares_memory(workspace.take("x", (10, 10), FLOAT64), larger)


def test_an_array_that_was_outgrown_stays_valid_for_its_holder():
    workspace = Workspace()
    old = workspace.take("x", (4,), FLOAT64)
    old[...] = 1.0
    workspace.take("x", (4000,), FLOAT64)[...] = 2.0
    assert (old == 1.0).all()


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.lists(st.integers(0, 9), max_size=3),
            st.sampled_from([FLOAT32, FLOAT64]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_every_array_is_what_was_asked_for_and_ready_for_kernels(requests):
    workspace = Workspace()
    largest = {}
    for name, shape, dtype in requests:
        array = workspace.take(name, tuple(shape), dtype)
        assert array.shape == tuple(shape)
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.aligned
        assert array.flags.writeable
        assert type(array) is np.ndarray
        assert array.size == 0 or array.ctypes.data % 64 == 0
        array[...] = 1.0
        largest[name] = max(largest.get(name, 0), array.nbytes)
    assert workspace.nbytes == sum(largest.values())


def test_a_layer_without_state_resets_nothing():
    assert Layer().reset_state() is None
