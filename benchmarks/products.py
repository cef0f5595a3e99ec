"""What bf16 products do to the rho of LSTM heads: `--products bf16` against fp32.

    python benchmarks/products.py CACHE [--seeds 3] [--iterations 4000]

Heads of all actions and of single actions learn from CACHE with the same seeds, so
that rows differ by the products alone, but for the change of seed that is the
yardstick. Processors without bf16 take up to a hundred times as long for its products,
so those are taken in fp32, of factors rounded to bf16, and rounded afterwards, as the
kernels do. The first line says how far that is from torch's own.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from aqa.regress.config import PRODUCTS, FitConfig, LstmConfig, Schedule
from aqa.regress.heads.fit import fit

TORCHS = torch.bmm


def bmm(a: Tensor, b: Tensor, **out: Any) -> Tensor:
    """Give what torch.bmm gives, with bf16 imitated."""
    if a.dtype == torch.bfloat16:
        return TORCHS(a.float(), b.float(), **out).bfloat16()
    return TORCHS(a, b, **out)


@contextmanager
def imitated() -> Iterator[None]:
    """Take all batched products of bf16 in fp32."""
    with patch.object(torch, "bmm", bmm):
        yield


def check() -> None:
    """Print how far the imitation is from torch's own bf16, on one product."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1, 90, 256, generator=generator).bfloat16()
    b = torch.randn(1, 256, 1024, generator=generator).bfloat16()
    exact, torchs, ours = TORCHS(a.float(), b.float()), TORCHS(a, b), bmm(a, b)
    apart = [
        (x.float() - exact).abs().max() / exact.abs().max() for x in (torchs, ours)
    ]
    print(f"one product: torch's bf16 off by {apart[0]:.1e}, imitated {apart[1]:.1e}")


def main() -> None:
    """Print a row for each kind of head, each seed and each kind of product."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=4000)
    asked = parser.parse_args()
    check()
    # One process: others would not imitate.
    base = FitConfig(
        schedule=Schedule(iterations=asked.iterations),
        calibration_folds=0,
        device="cpu",
        workers=1,
    )
    print("| heads | seed | products | rho, by action | Fisher z |")
    print("|---|---|---|---|---|")
    found = {}
    with imitated(), tempfile.TemporaryDirectory() as folder:
        for mode, seed, products in product(
            ("all-action", "single-action"), range(asked.seeds), PRODUCTS
        ):
            config = replace(
                base, mode=mode, seed=seed, lstm=LstmConfig(products=products)
            )
            said = fit(asked.cache, config, Path(folder, f"{mode} {seed} {products}"))
            rho = [result["spearman"] for result in said.results.values()]
            found[mode, seed, products] = rho
            print(
                f"| {mode} | {seed} | {products} | "
                f"{' '.join(f'{r:.3f}' for r in rho)} | "
                f"{said.average['fisher_z']:.3f} |",
                flush=True,
            )
    for mode in ("all-action", "single-action"):
        fp32, bf16 = (
            np.array([found[mode, seed, kind] for seed in range(asked.seeds)])
            for kind in PRODUCTS
        )
        print(
            f"{mode}, standard deviation of an action's rho: "
            f"{(bf16 - fp32).std():.4f} by bf16, "
            f"{fp32.std(0, ddof=1).mean():.4f} by the seed"
        )


if __name__ == "__main__":
    main()
