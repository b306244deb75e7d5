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
