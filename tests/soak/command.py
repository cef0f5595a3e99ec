"""The real `aqa extract`, with a network and videos, killed at any instant; resumed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from soak.extraction import snapshot
from soak.tally import Attack

ROW = "signals to `aqa extract`"
VIDEOS = 3
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)


def run(attack: Attack) -> None:
    golden = attack.shared / "command"
    videos, took = golden / "videos", golden / "took"
    cache = attack.folder / "work" / "features.h5"
    if not took.exists():
        write_videos(videos)
        began = time.monotonic()
        whole = start(videos, golden / "cache" / "features.h5")
        if whole.wait():
            raise RuntimeError(f"undisturbed, it ended in {whole.returncode}")
        took.write_text(str(time.monotonic() - began))
    expected, longest = snapshot(golden / "cache"), float(took.read_text())
    row = attack.rows[ROW]
    while not attack.over:
        hits = sum(interrupted(attack, videos, cache, longest) for _ in range(2))
        again = start(videos, cache)
        code = again.wait()
        row.tried += hits
        if code == 0 and snapshot(cache.parent) == expected:
            row.held += hits
        else:
            attack.lose(ROW, f"ended in {code}, with {sorted(snapshot(cache.parent))}")
        shutil.rmtree(cache.parent, ignore_errors=True)


def interrupted(attack: Attack, videos: Path, cache: Path, longest: float) -> int:
    """One run, interrupted anywhere: 1 if it was, and 0 if it was done by then."""
    number = attack.rng.choice(SIGNALS)
    process = start(videos, cache)
    time.sleep(attack.rng.uniform(0, longest))
    process.send_signal(number)
    code = process.wait()
    # Before Python has set up its handlers, a signal kills as it always does.
    expected = {0, -number} | ({130} if number != signal.SIGKILL else set())
    if code not in expected:
        attack.lose(ROW, f"{number.name} ended in {code}")
    if not session_ends(process.pid):
        attack.lose(ROW, f"{number.name} left children behind")
    return int(code != 0)


def start(videos: Path, cache: Path) -> subprocess.Popen:
    """Run the command in a session of its own, so that its children are known."""
    command = [sys.executable, "-m", "aqa.cli", "extract", "--videos", videos]
    command += ["--cache", cache, "--weights", "random", "--arch", "c3d-tiny"]
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=videos.parent,
    )


def session_ends(group: int) -> bool:
    """Whether nothing of the session lives on; orphans may take a moment."""
    for _ in range(400):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def write_videos(folder: Path) -> None:
    import damage

    folder.mkdir(parents=True)
    for number in range(VIDEOS):
        made = folder / f"{number}.avi"
        damage.write_clip(made, "mpeg4", frames=20 + number, size=(64, 48))
