"""How fast features are extracted, against what one would write oneself.

    python benchmarks/extraction.py VIDEO... [--archs c3d-small,c3d-full] [--turns 3]

Ways, each in a process of its own, which take turns so that whatever else the machine
does hits all alike:

    naive   decode for each of the six copies, clip by clip, torch's default layout
    plain   decode once, no sharing between copies (`--plain`)
    fp32    what `aqa extract` does
    bf16    the same in bf16, where the processor has instructions for it

Printed for each: seconds a video in its fastest turn, of these decoding; the ratio to
naive; useful GFLOP/s (two for each multiplication that this way has to do, time for
decoding and all else included) and that over the best rate of a convolution measured
here, of any size, layout and batch in the network; peak memory.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from aqa.cache.store import Features
from aqa.extract.c3d import ARCHITECTURES
from aqa.extract.config import ClipConfig, ExtractConfig
from aqa.extract.network import C3DExtractor, precision_note
from aqa.extract.overlap import layers, multiplications
from aqa.extract.preprocessing import PRESETS, clip_starts, fit_length
from aqa.extract.videos.video import decode
from aqa.extract.weights.load import load_weights

CLIPS = ClipConfig()
WAYS = ("naive", "plain", "fp32", "bf16")


class Naive:
    """C3D as one would write it down."""

    def __init__(self, arch: str) -> None:
        """Load random weights."""
        weights = load_weights("random", arch)
        shape = ARCHITECTURES[arch]
        modules: list[nn.Module] = []
        inputs = 3
        for group, widths in enumerate(shape.widths):
            for width in widths:
                modules += [nn.Conv3d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
            kernel = (1, 2, 2) if group == 0 else (2, 2, 2)
            modules.append(nn.MaxPool3d(kernel, kernel, ceil_mode=group == 4))
        modules += [nn.Flatten(), nn.Linear(shape.pooled, shape.features), nn.ReLU()]
        self.net = nn.Sequential(*modules).eval()
        values = list(weights.state.values())
        for parameter, value in zip(self.net.parameters(), values, strict=True):
            parameter.data = value

    @torch.inference_mode()
    def __call__(self, path: Path) -> tuple[Features, float]:
        """Features (offsets, clips, D) and the seconds that decoding took."""
        copies, decoding = [], 0.0
        mean = np.array([90.25, 97.66, 101.41], np.float32)
        for starts in clip_starts(CLIPS):
            begun = time.perf_counter()
            frames = decode(path, PRESETS["c3d"], config=CLIPS).frames
            decoding += time.perf_counter() - begun
            pixels = fit_length(frames, CLIPS)[..., ::-1] - mean
            video = torch.from_numpy(pixels).permute(3, 0, 1, 2).contiguous()
            clips = [self.net(video[None, :, start : start + 16]) for start in starts]
            copies.append(torch.cat(clips))
        return torch.stack(copies).numpy(), decoding


class Ours:
    """`aqa extract`'s own path, but for decoding ahead."""

    def __init__(self, arch: str, way: str) -> None:
        """Load random weights."""
        precision = "bf16" if way == "bf16" else "fp32"
        self.extractor = C3DExtractor(
            ExtractConfig(
                weights="random",
                arch=arch,
                device="cpu",
                precision=precision,
                plain=way == "plain",
            )
        )

    def __call__(self, path: Path) -> tuple[Features, float]:
        """Features (offsets, clips, D) and the seconds that decoding took."""
        begun = time.perf_counter()
        frames = decode(path, PRESETS["c3d"], config=CLIPS).frames
        decoding = time.perf_counter() - begun
        return self.extractor.features(frames), decoding


def serve(way: str, arch: str, pipe: "Connection[Any, Any]") -> None:
    """In a process of its own: extract what is asked for, and say what it took."""
    run = Naive(arch) if way == "naive" else Ours(arch, way)
    while path := pipe.recv():
        begun = time.perf_counter()
        features, decoding = run(path)
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        pipe.send((seconds, decoding, peak, features))


def best_rates(arch: str) -> tuple[float, float]:
    """GFLOP/s of the best matrix product and convolution, fp32: (matmul, conv)."""
    square = torch.randn(2048, 2048)
    calls: dict[str, list[tuple[Callable[[], object], float]]] = {
        "matmul": [(lambda: square @ square, 2 * 2048**3)],
        "conv": [],
    }
    for layer in layers(ARCHITECTURES[arch]):
        if layer.inputs == 3:
            continue
        weight = torch.randn(layer.outputs, layer.inputs, 3, 3, 3)
        for clips in (1, 6):
            shape = (clips, layer.inputs, layer.length + 2, layer.side, layer.side)
            for layout in (torch.contiguous_format, torch.channels_last_3d):
                x = torch.randn(shape).contiguous(memory_format=layout)
                w = weight.contiguous(memory_format=layout)
                work = 2 * layer.multiplications * layer.length * clips
                call = partial(functional.conv3d, x, w, padding=(0, 1, 1))
                calls["conv"].append((call, work))
    best = {}
    for name, options in calls.items():
        best[name] = max(work / seconds(call) for call, work in options) / 1e9
    return best["matmul"], best["conv"]


def seconds(call: Callable[[], object]) -> float:
    """The fastest of several."""
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def work_of(way: str, arch: str) -> float:
    """Floating-point operations that a video of full length needs."""
    starts = np.unique(clip_starts(CLIPS)).tolist()
    shape = ARCHITECTURES[arch]
    products = multiplications(shape, starts, way in ("naive", "plain"))
    return 2 * (products + len(starts) * shape.pooled * shape.features)


def compare(
    arch: str, paths: Sequence[Path], ways: Sequence[str], turns: int
) -> list[dict[str, Any]]:
    """Let the ways take turns: rows, one for each video and way."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for way in ways:
        pipes[way], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(way, arch, theirs)))
        processes[-1].start()
    rows = []
    for path in paths:
        taken: dict[str, list[Any]] = {way: [] for way in ways}
        for _ in range(turns):
            for way in ways:
                pipes[way].send(path)
                taken[way].append(pipes[way].recv())
        reference = taken[ways[0]][0][3]
        for way in ways:
            total, decoding, peak, features = min(taken[way], key=lambda t: t[0])
            rows.append(
                {
                    "arch": arch,
                    "video": path.name,
                    "way": way,
                    "seconds": total,
                    "decoding": decoding,
                    "gflops": work_of(way, arch) / total / 1e9,
                    "peak_mb": peak / 1e6,
                    "difference": float(
                        np.abs(features - reference).max() / np.abs(reference).max()
                    ),
                }
            )
    for way, process in zip(ways, processes, strict=True):
        pipes[way].send(None)
        process.join()
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--archs", default="c3d-small,c3d-full")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ways = options.ways.split(",")
    if "bf16" in ways and precision_note("bf16", torch.device("cpu")):
        print("no bf16 instructions here: bf16 is left out")
        ways.remove("bf16")
    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    results = []
    for arch in options.archs.split(","):
        rates = [best_rates(arch)]
        rows = compare(arch, options.videos, ways, options.turns)
        rates.append(best_rates(arch))
        matmul, conv = map(max, zip(*rates, strict=True))
        print(
            f"\n{arch}: best rates matmul {matmul:.0f}, convolution {conv:.0f} GFLOP/s"
        )
        print(
            f"{'video':32} {'way':6} {'s':>6} {'decode':>7} {'x':>5} "
            f"{'GFLOP/s':>8} {'of best':>8} {'peak MB':>8} {'differs':>8}"
        )
        naive = math.nan
        for row in rows:
            if row["way"] == ways[0]:
                naive = row["seconds"]
            row |= {"ratio": naive / row["seconds"], "of_best": row["gflops"] / conv}
            print(
                f"{row['video'][:32]:32} {row['way']:6} {row['seconds']:6.2f} "
                f"{row['decoding'] / row['seconds']:7.1%} {row['ratio']:5.2f} "
                f"{row['gflops']:8.0f} {row['of_best']:8.0%} "
                f"{row['peak_mb']:8.0f} {row['difference']:8.0e}"
            )
        results += [row | {"matmul": matmul, "conv": conv} for row in rows]
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def machine() -> str:
    """The processor, in words."""
    found = platform.processor() or platform.machine()
    if (path := Path("/proc/cpuinfo")).exists():
        names = [line for line in path.read_text().split("\n") if "model name" in line]
        found = names[0].partition(": ")[2] if names else found
    return f"{found}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
