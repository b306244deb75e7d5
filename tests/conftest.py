"""Shared fixtures. The Numba cache of the tests lives in the checkout, chosen before Numba is imported."""

import os
import signal
from pathlib import Path

os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parent / "__pycache__" / "numba"))

import hypothesis
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts a program in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("default")


@pytest.fixture(scope="module")
def text(request, tmp_path_factory):
    """A file with the `TEXT` of the test module."""
    path = tmp_path_factory.mktemp("text") / "song.txt"
    path.write_text(request.module.TEXT)
    return path


@pytest.fixture(autouse=True)
def busy_machines(request, monkeypatch):
    """Teams work on busy machines as well, except where the tests measure the load."""
    from rnnfast.engine.load import Load

    if request.node.path.stem != "test_load":
        monkeypatch.setattr(Load, "members", lambda load, wanted, pace=None: wanted)


@pytest.fixture
def shared_windows(monkeypatch):
    """Any window is worth a team, on any machine; afterwards as many threads as before."""
    import rnnfast
    from rnnfast.engine import load, threads
    from rnnfast.layers import plans

    before = rnnfast.get_num_threads()
    monkeypatch.setattr(load, "allowed", lambda: 64)
    monkeypatch.setattr(threads, "LEAST_OPERATIONS", 1.0)
    monkeypatch.setattr(threads, "LEAST_BYTES", 1.0)
    monkeypatch.setattr(plans, "LEAST_STEP_OPERATIONS", 0.0)
    yield
    rnnfast.set_num_threads(before)


@pytest.fixture(autouse=True)
def nothing_stays_protected():
    """Arrays that a freeze made read-only are writable again."""
    from rnnfast.layers.frozen import _protected

    yield
    assert _protected == {}


@pytest.fixture
def lent(monkeypatch):
    """What kernels are told of their packed operands, a list a call: [] not frozen, [0, 0] to be packed."""
    from rnnfast.layers.frozen import Packed

    found, lend = [], Packed.lend

    def spy(*arguments):
        made = lend(*arguments)
        found.append(made.tolist())
        return made

    monkeypatch.setattr(Packed, "lend", spy)
    return found
