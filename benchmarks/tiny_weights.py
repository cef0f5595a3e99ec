"""Make the weights called `tiny` again: python benchmarks/tiny_weights.py FOLDER OUT.

Renders the classes into FOLDER (three minutes) and trains on them (about an hour of
one core); run again, it goes on where it was stopped. See extract/data/README.md.
"""

import sys
import time
from pathlib import Path

import torch

from aqa.extract.pretraining.rendered import make


def main(folder: Path, out: Path) -> None:
    torch.set_num_threads(1)
    begun = time.monotonic()

    def tell(done: float, total: float, label: str) -> None:
        if done % 10 == 0 or done == total:
            print(
                f"{time.monotonic() - begun:.0f} s {done}/{total} {label}", flush=True
            )

    print(make(folder, out, workers=0, progress=tell))
    cpu = time.process_time()
    print(f"{cpu:.0f} s of processor time in this process")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
