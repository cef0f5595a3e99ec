"""Settings of a pre-training run.

Conventions: iterations count batches, a batch counts clips over all processes together.
Defaults are the paper's (section 5): C3D on UCF-101, rate 0.001 divided by 10 every
40,000 iterations, 100,000 iterations. Batch, clips and dropout, which the paper does
not give, are those of C3D's UCF-101 recipe. Imports nothing heavy.
"""

from dataclasses import dataclass
from pathlib import Path

from aqa.extract.config import Limits


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of one pre-training run."""

    #: A folder of class folders: UCF-101 or any other.
    videos: Path
    #: The weights file to write, with checkpoint and loss curve beside it.
    out: Path
    #: A `trainlist0N.txt`, with `testlist0N.txt` and `classInd.txt` beside it. None:
    #: those in `videos` if there are any, else part of each class is held out.
    split: Path | None = None
    #: Without lists, the part of each class to test on.
    held_out: float = 0.25
    #: None: the network of `init`, "c3d-small" without it.
    arch: str | None = None
    #: Weights to start from, as for `load_weights`. None: C3D's Gaussian values.
    init: str | None = None
    #: A name in `PRESETS`. None: that of `init`, "c3d" without it. `random` weights
    #: need inputs of standard deviation 1, as "imagenet" gives.
    preprocessing: str | None = None
    seed: int = 0

    iterations: int = 100_000
    batch: int = 30
    learning_rate: float = 0.001
    step: int = 40_000
    gamma: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.005
    #: After FC-6 and FC-7, in training.
    dropout: float = 0.5

    #: Frames between the starts of a video's clips.
    stride: int = 16
    mirror: bool = True
    evaluate_every: int = 5_000
    #: Whichever comes first, iterations or seconds.
    checkpoint_every: int = 1_000
    checkpoint_seconds: float = 300.0
    device: str = "auto"
    #: "auto" (bf16 or fp16 on CUDA, else fp32), "fp32", "bf16" or "fp16".
    precision: str = "auto"
    #: Decoding processes. 0: decode in this one; None: all processors but one.
    workers: int | None = None
    #: Decoded videos kept in memory, MiB over all decoding processes of a GPU.
    memory: int = 1024
    #: Train on what can be decoded of damaged videos.
    allow_damaged: bool = False
    #: Limits per video when all are checked, before the training.
    limits: Limits = Limits()
