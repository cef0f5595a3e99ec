"""Attack what is promised until the time is up: the table in RELIABILITY.md.

Usage: make soak, or
    PYTHONPATH=tests:benchmarks python -m soak [--minutes 30] [--seed N] [--json FILE]
        [--only JOB]

The jobs take turns, each in a process of its own: one that crashes, hangs or outgrows
its memory is itself a finding. Ends in one table, and with exit code 1 if anything
that was promised did not hold; the evidence then stays in the folder named.
"""

import argparse
import faulthandler
import importlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from soak.tally import Attack, Row

#: Each is a module of `soak`, and the least minutes for which it is worth a turn.
JOBS = {
    "kills": 0,
    "faults": 0,
    "damage": 0,
    "machine": 0,
    "weights": 0,
    "caches": 0,
    "lists": 0,
    "videos": 0,
    "command": 5,
}
TURN = 30.0  # seconds
#: Processes are killed here, not machines: what a disk would take for each fsync is
#: better spent on further attacks.
MEMORY = Path("/dev/shm")
PATIENCE = 600.0  # beyond its time, before a turn counts as hung
HEAD = """
| attack | tried | held | harmless | missed | lost | seconds |
|---|---|---|---|---|---|---|"""


def turn(job: str, seed: int, seconds: float, shared: Path) -> dict[str, Row]:
    """Do one turn in a process of its own."""
    folder = Path(tempfile.mkdtemp(dir=shared))
    command = [sys.executable, "-m", "soak", "--turn", job, "--seed", str(seed)]
    command += ["--seconds", str(seconds), "--folder", str(folder)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TMPDIR": str(folder),
    }
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment,
            timeout=seconds + PATIENCE,
        )
        if ended.returncode == 0:
            found = json.loads(ended.stdout.splitlines()[-1])
            return {name: Row(**row) for name, row in found.items()}
        reason = f"ended in {ended.returncode}: {ended.stderr[-3000:]}"
    except subprocess.TimeoutExpired:
        reason = f"did not end in {seconds + PATIENCE:.0f} s"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {job: Row(tried=1, lost=[f"seed {seed}: {reason}"])}


def do_turn(job: str, seed: int, seconds: float, folder: Path) -> None:
    """Be that process."""
    faulthandler.enable()
    work = importlib.import_module(f"soak.{job}")
    ends = time.monotonic() + seconds
    attack = Attack(random.Random(seed), ends, folder, shared=folder.parent)
    work.run(attack)
    print(json.dumps({name: asdict(row) for name, row in attack.rows.items()}))


def soak(
    minutes: float, seed: int, jobs: list[str], shared: Path
) -> Iterator[dict[str, dict]]:
    """Take turns until the time is up; after each, all rows so far by attack."""
    ends = time.monotonic() + 60 * minutes
    # Starting up takes time, too: much of a short turn.
    length = min(TURN, 0.4 * 60 * minutes / len(jobs))
    seeds = random.Random(seed)
    rows: dict[tuple[str, str], Row] = defaultdict(Row)
    spent: dict[str, float] = defaultdict(float)
    for job in itertools.cycle(jobs):
        began = time.monotonic()
        if began > ends:
            return
        found = turn(job, seeds.getrandbits(32), min(length, ends - began), shared)
        spent[job] += time.monotonic() - began
        for name, row in found.items():
            rows[job, name].add(row)
            for what in row.lost:
                print(f"LOST, {job}, {name}: {what}", file=sys.stderr, flush=True)
        yield {
            name: asdict(row) | {"job": job, "seconds": round(spent[job], 1)}
            for (job, name), row in rows.items()
        }


def table(rows: dict[str, dict]) -> str:
    """The rows in Markdown; the seconds of a job stand in its first row."""
    lines, shown = [HEAD.lstrip()], set()
    for name, row in rows.items():
        seconds = "" if row["job"] in shown else f"{row['seconds']:.0f}"
        shown.add(row["job"])
        cells = [row[key] for key in ("tried", "held", "harmless", "missed")]
        cells = [name, *(f"{cell:,}" for cell in cells), len(row["lost"]), seconds]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().getrandbits(32)
    )
    parser.add_argument("--json", type=Path, help="write the table here as JSON, too")
    parser.add_argument("--only", action="append", choices=JOBS, help="this job only")
    for name in ("--turn", "--seconds", "--folder"):  # what `turn` hands on
        parser.add_argument(name, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.turn:
        do_turn(asked.turn, asked.seed, float(asked.seconds), Path(asked.folder))
        return 0
    jobs = asked.only or [job for job, least in JOBS.items() if asked.minutes >= least]
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    shared = Path(tempfile.mkdtemp(prefix="aqa-soak-", dir=place))
    print(f"seed {asked.seed}, {asked.minutes:g} minutes, in {shared}", file=sys.stderr)
    began, rows = time.monotonic(), {}
    with suppress(KeyboardInterrupt):
        for rows in soak(asked.minutes, asked.seed, jobs, shared):
            if asked.json:
                minutes = round((time.monotonic() - began) / 60, 1)
                record = {"seed": asked.seed, "minutes": minutes, "rows": rows}
                asked.json.write_text(json.dumps(record, indent=2) + "\n")
    print(table(rows))
    lost = sum(len(row["lost"]) for row in rows.values())
    if lost:
        print(f"{lost} lost; the evidence is in {shared}", file=sys.stderr)
        return 1
    shutil.rmtree(shared)
    return 0


if __name__ == "__main__":
    sys.exit(main())
