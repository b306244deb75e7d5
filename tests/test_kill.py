"""Runs that are killed at random moments and resumed end in the bits of a run that was not killed.

RNNFAST_KILLS is the number of runs, 2 by default; 100 take some minutes.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from helpers import needs_jit

RUNS = int(os.environ.get("RNNFAST_KILLS", "2"))


@needs_jit
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_and_resumed_runs_end_in_the_same_bits(tmp_path):
    program = Path(__file__).with_name("kill_and_resume.py")
    seed = os.environ.get("RNNFAST_KILLS_SEED", "0")
    # In memory where there is such a folder: each of some hundred writes a run waits for the disk otherwise.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        done = subprocess.run(
            [sys.executable, program, folder, str(RUNS), seed], capture_output=True, text=True, check=False
        )
        leftovers = list(Path(folder).rglob(".rnnfast-*"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["trials"], result["equal"]) == (RUNS, RUNS), result
    assert result["kills"] >= RUNS
    assert leftovers == []
