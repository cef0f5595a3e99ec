"""What an extraction is asked to do: every default of the stage, stated once.

Conventions: frame counts and offsets in frames; `precision` is what the network
computes in. Imports nothing heavy, so that the command line can show defaults.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipConfig:
    """How a video becomes clips (paper, section 5; the protocol's gaps closed).

    A video is brought to `length` frames and cut, once for each start offset
    0 .. `offsets` - 1, into clips of `clip` frames, `stride` apart.
    """

    length: int = 103
    clip: int = 16
    stride: int = 16
    offsets: int = 6
    #: Which frames of a longer video stay: "last", "first" or "middle".
    keep: str = "last"

    @property
    def clips(self) -> int:
        """Clips per copy: six for the paper's numbers."""
        return (self.length - (self.offsets - 1) - self.clip) // self.stride + 1


@dataclass(frozen=True)
class ExtractConfig:
    """One run of the extraction stage."""

    clips: ClipConfig = ClipConfig()
    weights: str | None = None
    #: None: what the weights say; random weights: "c3d-small".
    arch: str | None = None
    device: str = "auto"
    precision: str = "auto"
    #: None: the preset of the weights file; else "ceil" or "padded".
    pool5: str | None = None
    #: None: the preset of the weights file; else a name in `PRESETS`.
    preprocessing: str | None = None
    #: Use no sharing between copies: the oracle, several times slower.
    plain: bool = False
    allow_damaged: bool = False
    #: (i, N): this run does the i-th of N parts of the samples, 0-based.
    shard: tuple[int, int] | None = None
    #: Decoding processes; None: one fewer than the processors, at least one.
    workers: int | None = None
