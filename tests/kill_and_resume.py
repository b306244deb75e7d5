"""A program: train, SIGKILL at random moments, resume, and compare with a run that was never killed.

    python tests/kill_and_resume.py FOLDER [TRIALS [SEED]]

Each trial kills one run up to three times. The last line printed is JSON: trials, how many ended equal,
kills, and how many of these came before a run had begun, so that it had to be started again.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from rnnfast.cli.app import app
from rnnfast.training.checkpointing import read_training

TEXT = "You say goodbye and I say hello.\n\nHello, hello! I don't know why you say goodbye.\n\n" * 12
SMALL = "--cell lstm --nlayers 2 --emsize 8 --nhid 8 --bptt 7 --batch-size 4 --dropout 0.3 --lr 0.02"
OFTEN = "--epochs 4 --log-interval 3 --checkpoint-every 0"
TIMES = {"seconds", "seconds_left", "tokens_per_second"}


def started(arguments, log):
    """The process id of a fork that runs the command; imports and compiled kernels are there already."""
    pid = os.fork()
    if pid:
        return pid
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        app(arguments, prog_name="rnnfast")
    except SystemExit as stop:
        sys.stdout.flush()
        os._exit(stop.code or 0)
    finally:
        os._exit(99)


def ended(pid):
    """The exit code of a process, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def outcome(folder):
    """All that a finished run has left, without times."""
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("training.safetensors", "metrics.jsonl", "learning_curve.png")
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
    training = []
    for place in (folder, folder / "cbow"):
        about, arrays, history = read_training(place / "training.safetensors")
        about["meter"] = {
            name: about["meter"][name] for name in ("epoch", "step", "tokens", "loss", "good_step")
        }
        history = [{name: value for name, value in record.items() if name not in TIMES} for record in history]
        training.append((about, {name: array.tobytes() for name, array in arrays.items()}, history))
    return {"files": files, "metrics": metrics, "training": training}


def trial(command, folder, chance, seconds, log):
    """Kill and resume until a run is through; kills, and those before it had begun."""
    kills = early = 0
    arguments = command
    while True:
        pid = started(arguments, log)
        if kills < 3:
            time.sleep(chance.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)
        code = ended(pid)
        if code == 0:
            return kills, early
        if code != -signal.SIGKILL:
            raise SystemExit(f"exit code {code}: {log.read_text()}")
        kills += 1
        if (folder / "settings.json").exists():
            arguments = ["train", "--resume", str(folder)]
        else:
            early += 1
            arguments = [*command, "--overwrite"]


def main(place, trials=5, seed=0):
    """Run the trials in a folder; the result as a dict."""
    place = Path(place)
    place.mkdir(parents=True, exist_ok=True)
    (place / "text.txt").write_text(TEXT)
    log, chance = place / "log.txt", random.Random(seed)
    command = ["train", str(place / "text.txt"), *SMALL.split(), *OFTEN.split()]
    seconds = 60.0
    for name in ("first", "second", "whole"):  # the first compiles
        began = time.monotonic()
        if ended(started([*command, "--save", str(place / name)], log)):
            raise SystemExit(log.read_text())
        seconds = min(seconds, time.monotonic() - began)
    expected = outcome(place / "whole")
    result = {"trials": 0, "equal": 0, "kills": 0, "before it began": 0}
    for _ in range(trials):
        folder = place / "run"
        shutil.rmtree(folder, ignore_errors=True)
        kills, early = trial([*command, "--save", str(folder)], folder, chance, seconds, log)
        result["trials"] += 1
        result["equal"] += outcome(folder) == expected
        result["kills"] += kills
        result["before it began"] += early
    return result


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:]))))
