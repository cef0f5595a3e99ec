"""SIGKILL at any instant, of one extraction or of two on one cache; then resume."""

import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

from fakes import dataset

from aqa.extract.stage import extract
from soak.extraction import (
    ESCAPED,
    complaint,
    extractor,
    fill,
    fork,
    snapshot,
    undisturbed,
)
from soak.tally import Attack

ROW = "SIGKILL of an extraction"
#: After so many kills a run may finish.
IN_A_ROW = 6


def run(attack: Attack) -> None:
    golden = undisturbed(attack.folder / "golden", fill)
    row, place = attack.rows[ROW], attack.folder / "killed"
    began = time.monotonic()
    fork(partial(fill, attack.folder / "timed" / "features.h5")).wait()
    longest = time.monotonic() - began
    while not attack.over:
        cache = place / "features.h5"
        kills = sum(killed(attack, cache, longest) for _ in range(IN_A_ROW))
        # The rest undisturbed, and once more: a run with nothing to do tidies up.
        for _ in range(2):
            extract(dataset(), cache, extractor())
        row.tried += kills
        if (found := snapshot(place)) == golden:
            row.held += kills
        else:
            names = sorted(k for k in found | golden if found.get(k) != golden.get(k))
            attack.lose(ROW, f"after {kills} kills other files or bytes: {names}")
        shutil.rmtree(place)


def killed(attack: Attack, cache: Path, longest: float) -> int:
    """Start one or two extractions, kill them, and count those that it hit."""
    ways: list[list[tuple[int, int] | None]] = [[None], [None] * 2, [(0, 2), (1, 2)]]
    shards = attack.rng.choice(ways)
    children = [fork(partial(_fill, cache, shard)) for shard in shards]
    time.sleep(attack.rng.uniform(0, longest * len(shards)))
    random.shuffle(children)
    for child in children:
        child.kill()
    ended = [child.wait() for child in children]
    told: set[str] = set().union(*(keys for _, keys in ended))
    if what := complaint(cache, told):
        attack.lose(ROW, what)
    for code, _ in ended:
        if code not in (0, -signal.SIGKILL):
            attack.lose(ROW, f"an extraction ended in {code} ({ESCAPED}: a traceback)")
    return sum(code == -signal.SIGKILL for code, _ in ended)


def _fill(cache, shard, tell):
    fill(cache, tell, shard)
