"""Anything may happen to a cache in any order: what was finished stays finished.

A hypothesis state machine over extraction, kills, shards, damage, merging,
relabelling and verification. Its model is two dictionaries: which videos must be
finished, and which labels they must carry.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from fakes import KEYS, MADE, FakeExtractor, Killed, dataset, features_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from aqa.cache.errors import AqaError
from aqa.cache.labels import Label, relabel
from aqa.cache.parts import finished, list_parts, merge, part_path, parts_folder, verify
from aqa.cache.store import FeatureCache
from aqa.extract.stage import extract

KEYS = KEYS[:6]
KEY = st.sampled_from(KEYS)


def flip(path, where):
    """Overwrite a byte of the features, which are the same bytes in any cache."""
    content = bytearray(path.read_bytes())
    place = content.find(where)
    content[place + 3] ^= 0x55
    path.write_bytes(content)


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.cache = self.folder / "features.h5"
        #: Keys that must be finished, and whether their row lies in the cache.
        self.done = {}
        self.scores = dict.fromkeys(KEYS, 50.0)

    def teardown(self):
        shutil.rmtree(self.folder)

    def dataset(self):
        return dataset(KEYS, self.scores)

    def note(self, keys, merged):
        self.done |= {key: False for key in keys if key not in self.done}
        if merged:
            self.done = dict.fromkeys(self.done, True)

    @rule(
        broken=st.sets(KEY, max_size=2),
        shard=st.sampled_from([None, (0, 2), (1, 2)]),
    )
    def extracted(self, broken, shard):
        first, step = shard or (0, 1)
        own = KEYS[first::step]
        sound = [key for key in own if key not in broken]
        try:
            made = extract(self.dataset(), self.cache, FakeExtractor(broken), shard)
        except AqaError as error:
            # A part that this run did not make anew: named, and put away.
            assert "extract again" in str(error)
            self.note(sound, False)
            return
        assert made.skipped == len([key for key in own if key in self.done])
        assert {f.key for f in made.failures} == (broken - set(self.done)) & set(own)
        self.note(sound, made.merged)

    @rule(dies_at=st.integers(0, len(KEYS)))
    def killed(self, dies_at):
        extractor, merged = FakeExtractor(dies_at=dies_at), False
        try:
            made = extract(self.dataset(), self.cache, extractor)
            merged = made.merged
        except Killed:
            # What a real kill would leave: a file that was not renamed.
            folder = parts_folder(self.cache)
            folder.mkdir(exist_ok=True)
            (folder / f".{'0' * 64}.h5.{'ab' * 8}.tmp").write_bytes(b"half")
        self.note(extractor.seen, merged)

    @precondition(lambda self: False in self.done.values())
    @rule(data=st.data(), cut=st.booleans())
    def a_part_is_damaged(self, data, cut):
        key = data.draw(st.sampled_from([k for k, m in self.done.items() if not m]))
        path = part_path(self.cache, key)
        if cut:
            path.write_bytes(path.read_bytes()[:-700])
        else:
            flip(path, features_of(key).tobytes()[:16])
        del self.done[key]
        assert any(path.name in problem for problem in verify(self.cache))

    @precondition(lambda self: True in self.done.values())
    @rule(data=st.data())
    def a_row_is_damaged(self, data):
        key = data.draw(st.sampled_from([k for k, m in self.done.items() if m]))
        flip(self.cache, features_of(key).tobytes()[:16])
        del self.done[key]
        assert any(key in problem for problem in verify(self.cache))
        # Made anew at once: a cache with a damaged row cannot be merged further.
        made = extract(self.dataset(), self.cache, FakeExtractor())
        self.note(KEYS, made.merged)
        assert verify(self.cache) == []

    @precondition(lambda self: self.done)
    @rule()
    def merged(self):
        try:
            merge(self.cache)
        except AqaError:
            # Damaged parts were named and removed; the rest goes on.
            if not list_parts(parts_folder(self.cache)) and not self.cache.exists():
                return
            merge(self.cache)
        self.note([], True)

    @precondition(lambda self: True in self.done.values())
    @rule(data=st.data(), score=st.integers(0, 100))
    def relabelled(self, data, score):
        key = data.draw(st.sampled_from([k for k, m in self.done.items() if m]))
        label = {key: Label("diving", float(score), "train")}
        try:
            relabel(self.cache, label)
        except AqaError as error:
            # It merges first: damaged parts were named and removed.
            assert "Removed: extract again" in str(error)
            relabel(self.cache, label)
        self.scores[key] = float(score)
        self.note([], True)

    @invariant()
    def nothing_finished_is_lost(self):
        assert set(finished(self.cache, MADE)) == set(self.done)
        if self.cache.exists():
            with FeatureCache.open(self.cache) as opened:
                rows = {key: row for row, key in enumerate(opened.samples.key)}
                for key in (key for key, merged in self.done.items() if merged):
                    row = rows[key]
                    assert np.array_equal(opened.read([row])[0], features_of(key))
                    assert opened.samples.score[row] == self.scores[key]


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=10,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
