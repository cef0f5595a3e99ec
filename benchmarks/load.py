"""Large data sets: seconds and memory of caches, manifests and label files.

Usage: python benchmarks/load.py [--samples 10000] [--rows 100000 1000000]

Each job runs in a process of its own. Memory is the most that it and its children
held at once beyond what it held before it began, shared pages counted once (the Pss
of Linux), looked at every 20 ms. "features" is the size of the features alone: a fit
that held them twice would show twice as much.
"""

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aqa.cache.errors import AqaError
from aqa.cache.labels import read_labels
from aqa.cache.provenance import Provenance
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache, write_cache
from aqa.extract.datasets import read_dataset
from aqa.regress.config import FitConfig, Schedule
from aqa.regress.data import load
from aqa.regress.heads.fit import fit

SHAPE = (6, 6, 256)  # copies, clips, width


def make_cache(path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            key=f"diving/{row:06d}",
            action="diving",
            split="train" if row % 4 else "test",
            score=float(rng.uniform(30, 90)),
            frames=103,
            source_sha256="ab" * 32,
        )
        for row in range(count)
    ]
    features = (rng.random(SHAPE, dtype=np.float32) for _ in samples)
    write_cache(path, samples, features, Provenance({"features": "made"}))


def make_table(path: Path, column: str, rows: int, videos: int) -> None:
    """A CSV of `rows` rows about the first `videos` of them, over and over."""
    with path.open("w") as file:
        file.write(f"{column},action,score,split\n")
        for row in range(rows):
            file.write(f"v/{row % videos:07d}.avi,figure,50,train\n")


def open_cache(path: Path) -> None:
    FeatureCache.open(path).close()


def refused(read: Callable[[Path], object], path: Path) -> None:
    """Read a list that names every video several times."""
    try:
        read(path)
    except AqaError:
        return
    raise SystemExit(f"{path}: expected to be refused")


def fit_lstm(cache: Path, out: Path) -> None:
    config = FitConfig(schedule=replace(Schedule(), iterations=60), calibration_folds=0)
    fit(cache, replace(config, workers=2), out)


def measure(job: Callable[..., object], *arguments: object) -> tuple[float, ...]:
    """Seconds, those of its own processor, and MiB beyond what it began with."""
    near, far = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_do, args=(far, job, arguments)
    )
    process.start()
    assert process.pid is not None
    pid = process.pid
    far.close()  # so that a job that fails ends the wait for it
    near.recv()
    before = memory(pid)
    most, done = before, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, memory(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    near.send("go")
    seconds = near.recv()  # on the clock, and of the processor
    done.set()
    watcher.join()
    process.join()
    return *seconds, (most - before) / 2**20


def _do(pipe: Any, job: Callable[..., object], arguments: Iterable[object]) -> None:
    pipe.send("ready")
    pipe.recv()
    began, used = time.perf_counter(), time.process_time()
    job(*arguments)
    pipe.send((time.perf_counter() - began, time.process_time() - used))


def memory(pid: int) -> int:
    """Bytes that a process and its descendants hold; pages shared are counted once."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # it is gone
        return 0
    own = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(own.split()[1]) * 1024 + sum(map(memory, children))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    asked = parser.parse_args()
    size = asked.samples * np.prod(SHAPE) * 4 / 2**20
    print(f"features: {asked.samples:,} x {SHAPE}, {size:.0f} MiB\n")
    print("| job | seconds | of the processor | MiB more |\n|---|---|---|---|")

    def show(name: str, job: Callable[..., object], *arguments: object) -> None:
        seconds, used, more = measure(job, *arguments)
        print(f"| {name} | {seconds:.2f} | {used:.2f} | {more:.0f} |", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = folder / "features.h5"
        show(
            f"write a cache of {asked.samples:,} samples",
            make_cache,
            cache,
            asked.samples,
        )
        show("open it", open_cache, cache)
        show("load it to fit", load, cache)
        show("fit an LSTM on it, 60 iterations", fit_lstm, cache, folder / "models")
        (folder / "v").mkdir()
        for rows in asked.rows:
            table = folder / f"{rows}.csv"
            make_table(table, "key", rows, rows)
            show(f"labels, {rows:,} rows", read_labels, table)
            videos = min(rows, 100_000)
            for row in range(videos):
                (folder / "v" / f"{row:07d}.avi").touch()
            make_table(table, "video", rows, videos)
            if videos == rows:
                show(f"manifest, {rows:,} rows", read_dataset, table)
            else:
                show(f"manifest, {rows:,} rows, refused", refused, read_dataset, table)


if __name__ == "__main__":
    main()
