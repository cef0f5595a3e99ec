"""Time and memory of extraction against the number of videos, workers and shards.

    python benchmarks/scaling.py [--videos 8,32] [--workers 1,2] [--shards 1,2]
                                 [--arch c3d-tiny] [--length 103] [--interrupt 0]

Every run is `aqa extract` as a user would start it, with random weights, on a folder
of links to a few rendered videos; shards are so many of it at once. Memory is that of
all its processes together (proportional set sizes, so that shared pages count once),
the largest of ten looks a second. `--interrupt` N breaks each run off N times with
SIGINT and starts it again; the cache is verified at the end of each. Linux only.
"""

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from aqa.cache.parts import parts_folder, verify
from aqa.extract.synthetic import synthesise


def link_videos(folder: Path, count: int, rendered: Sequence[Path]) -> Path:
    """Make a folder of `count` videos, of which each of the rendered ones is many."""
    folder.mkdir()
    for number, source in zip(range(count), itertools.cycle(rendered), strict=False):
        os.link(source, folder / f"{number:05d}{source.suffix}")
    return folder


def start(
    videos: Path, cache: Path, workers: int, shard: str, options: argparse.Namespace
) -> "subprocess.Popen[bytes]":
    """`aqa extract`, one shard of it."""
    command = [sys.executable, "-m", "aqa.cli", "extract"]
    command += [
        "--videos",
        str(videos),
        "--cache",
        str(cache),
        "--weights",
        "random",
        "--arch",
        options.arch,
    ]
    command += ["--workers", str(workers), "--shard", shard]
    command += ["--device", "cpu", "--length", options.length]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def finish(
    processes: "Sequence[subprocess.Popen[bytes]]",
    interrupt_at: int | None,
    cache: Path,
) -> tuple[int, bool]:
    """Wait for the processes: peak memory in bytes, and whether all of them ended well.

    All are interrupted once there are `interrupt_at` parts.
    """
    peak = 0
    while any(process.poll() is None for process in processes):
        peak = max(peak, sum(tree_memory(process.pid) for process in processes))
        if interrupt_at and count_parts(cache) >= interrupt_at:
            interrupt_at = None
            for process in processes:
                process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    return peak, all(process.returncode == 0 for process in processes)


def count_parts(cache: Path) -> int:
    """How many videos are finished and not yet merged."""
    return sum(1 for _ in parts_folder(cache).glob("*.h5"))


def tree_memory(root: int) -> int:
    """Proportional set size of a process and all below it, in bytes."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
        except (OSError, ValueError, IndexError):
            continue
    waiting, total = [root], 0
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) * 1024
            for line in rollup.split("\n")
            if line.startswith("Pss:")
        )
    return total


def numbers(text: str) -> list[int]:
    """Read a comma-separated list."""
    return [int(number) for number in text.split(",")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--videos", type=numbers, default=[8, 32])
    parser.add_argument("--workers", type=numbers, default=[1, 2])
    parser.add_argument("--shards", type=numbers, default=[1, 2])
    parser.add_argument("--arch", default="c3d-tiny")
    parser.add_argument("--length", default="103")
    parser.add_argument("--interrupt", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        rendered = sorted(
            synthesise(root / "rendered", 0.01, actions=("diving",)).rglob("*.avi")
        )
        print(
            f"{'videos':>6} {'workers':>7} {'shards':>6} {'s':>8} {'s/video':>8} "
            f"{'peak MB':>8} {'sound':>6}"
        )
        runs = itertools.product(options.videos, options.workers, options.shards)
        for number, (count, workers, shards) in enumerate(runs):
            folder = root / str(number)
            folder.mkdir()
            videos = link_videos(folder / "videos", count, rendered)
            cache, peak, well = folder / "features.h5", 0, False
            begun = time.perf_counter()
            for turn in range(options.interrupt + 1):
                at = count * (turn + 1) // (options.interrupt + 1)
                at = at if turn < options.interrupt else None
                processes = [
                    start(videos, cache, workers, f"{i + 1}/{shards}", options)
                    for i in range(shards)
                ]
                seen, well = finish(processes, at, cache)
                peak = max(peak, seen)
            taken = time.perf_counter() - begun
            sound = well and cache.exists() and not verify(cache)
            print(
                f"{count:6} {workers:7} {shards:6} {taken:8.1f} {taken / count:8.2f} "
                f"{peak / 1e6:8.0f} {'yes' if sound else 'NO':>6}",
                flush=True,
            )


if __name__ == "__main__":
    main()
