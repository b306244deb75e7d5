"""A program: train on ranks, kill one at random moments, resume on another number of ranks, and compare with
a run on one rank that was never killed.

    python tests/kill_ranks_and_resume.py FOLDER [TRIALS [SEED [RANKS]]]

Each trial kills up to three times, and takes the numbers of ranks in turn: 2,4,1, or RANKS, comma-separated.
The last line printed is JSON: trials, how many ended equal, kills, how many of these hit one of several ranks
and how many of those one line named (while ranks are started, only the launcher speaks), how many came before
a run had begun, and the most seconds from a kill to the end of all ranks.
"""

import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from kill_and_resume import OFTEN, SMALL, TEXT, outcome
from ranks_helpers import descendants, end_ranks, start_ranks

LONGEST = 300
BLOCKS = "--blocks 4 --epochs 20"  # in place of 4 epochs


def ranks_of(process):
    """The process ids of the ranks, by number."""
    found = {}
    for pid in descendants(process.pid):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            variables = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        number = re.search(rb"(?:^|\0)(?:PMI_RANK|OMPI_COMM_WORLD_RANK)=(\d+)", variables)
        if number and b"\0-m\0rnnfast\0" in command:
            found[int(number[1])] = pid
    return found


def is_there(pid):
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def run(count, arguments, log, kill_after=None, chance=random):
    """Code, error output, number of the killed rank or None, and the seconds from the kill to the end."""
    with open(log, "w+", encoding="utf-8") as file:
        process = start_ranks(count, "-m", "rnnfast", *arguments, stdout=file, stderr=file)
        try:
            rank, began = None, time.monotonic()
            if kill_after is not None:
                ranks = {}
                while process.poll() is None and len(ranks) < count:
                    time.sleep(0.01)
                    if time.monotonic() > began + kill_after:
                        ranks = ranks_of(process)
                if process.poll() is None:
                    rank = chance.randrange(count)
                    os.kill(ranks[rank], signal.SIGKILL)
                    began = time.monotonic()
            code = process.wait(LONGEST)
            while rank is not None and any(map(is_there, ranks.values())):
                time.sleep(0.01)
            return code, log.read_text(encoding="utf-8"), rank, time.monotonic() - began
        finally:
            end_ranks(process)


def trial(counts, command, folder, chance, seconds, log):
    """Kill and resume until a run is through; what happened, as a Counter, and the slowest end."""
    found, slowest, arguments = Counter(), 0.0, command
    while True:
        count = next(counts)
        after = chance.uniform(0, seconds) if found["kills"] < 3 else None
        code, text, rank, took = run(count, arguments, log, after, chance)
        if rank is None:
            if code:
                raise SystemExit(f"exit code {code}: {text}")
            return found, slowest
        lines = re.findall(r"^rnnfast: rank (\d+) of (\d+) ", text, re.MULTILINE)
        if code == 0 or lines not in ([], [(str(rank), str(count))]):
            raise SystemExit(f"rank {rank} of {count} was killed, and the job ended with code {code}: {text}")
        has_begun = (folder / "settings.json").exists()
        arguments = ["train", "--resume", folder] if has_begun else [*command, "--overwrite"]
        found += Counter(
            {"kills": 1, "of several": count > 1, "named": len(lines), "before it began": not has_begun}
        )
        slowest = max(slowest, took)


def main(place, trials=5, seed=0, ranks="2,4,1"):
    """Run the trials in a folder; the result as a dict."""
    place = Path(place)
    place.mkdir(parents=True, exist_ok=True)
    (place / "text.txt").write_text(TEXT)
    log, chance = place / "log.txt", random.Random(int(seed))
    counts = itertools.cycle(map(int, ranks.split(",")))
    command = ["train", place / "text.txt", *SMALL.split(), *OFTEN.split(), *BLOCKS.split()]
    seconds = 60.0
    for name in ("first", "whole"):  # the first compiles
        code, text, _, took = run(1, [*command, "--save", place / name], log)
        if code:
            raise SystemExit(text)
        seconds = min(seconds, took)
    expected = outcome(place / "whole")
    result = {"trials": 0, "equal": 0, "kills": 0, "of several": 0, "named": 0, "before it began": 0}
    result["slowest end"] = 0.0
    for _ in range(int(trials)):
        folder = place / "run"
        shutil.rmtree(folder, ignore_errors=True)
        found, slowest = trial(counts, [*command, "--save", folder], folder, chance, seconds, log)
        for name, number in (Counter(trials=1, equal=outcome(folder) == expected) + found).items():
            result[name] += number
        result["slowest end"] = round(max(result["slowest end"], slowest), 2)
        print(json.dumps(result), flush=True)
    return result


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
