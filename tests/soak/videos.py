"""Videos cut short and overwritten, decoded as extraction decodes them.

`tried` are all cases, `harmless` those whose frames are the whole clip's all the
same, `held` those refused by default, `missed` those that are not. A promise is
broken only by what is no video error, and by a case that decodes other files.
"""

import math
import os
from pathlib import Path

import damage
import numpy as np
from test_video import PLAYLISTS as PLAYLIST_FILES

from aqa.extract.config import ClipConfig, Limits
from aqa.extract.datasets.dataset import Video
from aqa.extract.preprocessing import PRESETS
from aqa.extract.videos.integrity import VideoError
from aqa.extract.videos.video import Decoded, decode_all
from soak.tally import Attack

BATCH = 24
PLAYLISTS = "playlists that name other files"


def run(attack: Attack) -> None:
    rng = np.random.default_rng(attack.rng.getrandbits(64))
    clips = {
        name: damage.write_clip(attack.folder / name, *made, frames=40)
        for name, made in damage.CLIPS.items()
    }
    whole = {video.key: found for video, found in decoded(list(clips.values()))}
    canary = damage.write_clip(attack.folder / "canary.ts", "libx264", frames=5)
    while not attack.over:
        playlists(attack, canary)
        spoilt: dict[Path, tuple[str, str]] = {}
        for number in range(BATCH):
            name = attack.rng.choice(list(clips))
            kind = attack.rng.choice(list(damage.DAMAGES))
            content = next(spoil(kind, clips[name].read_bytes(), rng))
            path = attack.folder / f"{number}{clips[name].suffix}"
            path.write_bytes(content)
            spoilt[path] = name, kind
        for video, found in decoded(list(spoilt)):
            name, kind = spoilt[video.path]
            row = attack.rows[f"video, {kind}"]
            row.tried += 1
            if isinstance(found, Decoded) and equal(found, whole[name]):
                row.harmless += 1
            elif isinstance(found, VideoError) or found.damage:
                row.held += 1
            else:
                row.missed += 1


def spoil(kind: str, data: bytes, rng: np.random.Generator):
    """One case; a cut anywhere."""
    if kind == "cut short":
        yield data[: rng.integers(1, len(data))]
    else:
        yield from damage.DAMAGES[kind](data, 1, rng)


def decoded(paths: list[Path]):
    videos = [Video(path.name, path, "", "", math.nan) for path in paths]
    return decode_all(
        videos,
        PRESETS["c3d"],
        ClipConfig(),
        workers=1,
        allow_damaged=True,
        limits=Limits(),
    )


def equal(one: Decoded, other: Decoded) -> bool:
    return one.total == other.total and np.array_equal(one.frames, other.frames)


def playlists(attack: Attack, canary: Path) -> None:
    """Each form once, under a name of chance: none may lead to the canary."""
    made = {}
    for name, text in PLAYLIST_FILES.items():
        suffix = attack.rng.choice(["", ".avi", ".mp4", ".ts"])
        path = attack.folder / f"{attack.rng.getrandbits(32)}-{name}{suffix}"
        path.write_text(text.format(canary))
        made[path] = name
    os.utime(canary, (0, 1))
    for video, found in decoded(list(made)):
        row = attack.rows[PLAYLISTS]
        row.tried += 1
        if isinstance(found, VideoError) and canary.stat().st_atime == 0:
            row.held += 1
        else:
            attack.lose(PLAYLISTS, f"{made[video.path]} led somewhere")
        video.path.unlink()
