"""A replaced video is done again, and an untouched one is not even read."""

import hashlib
import json
import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from fakes import MADE, FakeExtractor

from aqa.cache.errors import AqaError
from aqa.cache.files import probe
from aqa.cache.parts import merge, part_path, write_part
from aqa.cache.samples import Sample
from aqa.cache.store import FeatureCache
from aqa.extract.datasets.dataset import Dataset, Video
from aqa.extract.extractor import Extracted, source_changed, source_sha256
from aqa.extract.stage import extract, plan
from aqa.extract.videos.frame_folder import folder_sha256


class Extractor(FakeExtractor):
    """Features that are the first byte of the file; an empty one fails."""

    def extract(self, videos):
        for video in videos:
            self.seen.append(video.key)
            content = video.path.read_bytes()
            made = AqaError(f"{video.path}: expected a video, found nothing")
            if content:
                features = np.full((1, 2, 3), content[0], np.float32)
                made = Extracted(features, 9, hashlib.sha256(content).hexdigest())
            yield video, made


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    names = "a.avi", "b.avi", "c.avi"
    for name in names:
        (folder / name).write_bytes(name.encode())
    made = tuple(Video(name, folder / name, "", "", 1.0) for name in names)
    return Dataset(folder, made, ())


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "features.h5"


def run(videos, cache):
    extractor = Extractor()
    made = extract(videos, cache, extractor)
    return extractor.seen, made


def tick():
    """Let the file system's clock, which is a coarse one, go on."""
    time.sleep(0.02)


def values(cache):
    with FeatureCache.open(cache) as opened:
        return opened.read()[:, 0, 0, 0].tolist()


def test_a_replaced_video_is_done_again_though_its_old_time_was_kept(videos, cache):
    run(videos, cache)
    tick()
    path = videos.videos[1].path
    before = path.stat()
    path.write_bytes(b"x: another video")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    seen, made = run(videos, cache)
    assert (seen, made.done, made.skipped, made.merged) == (["b.avi"], 1, 2, True)
    assert values(cache) == [ord("a"), ord("x"), ord("c")]
    assert run(videos, cache)[0] == []


def test_one_replaced_before_the_merge_is_done_again(videos, cache):
    video = videos.videos[0]
    sample = Sample("a.avi", "", "", 1.0, 9, source_sha256(video.path))
    write_part(cache, sample, np.zeros((1, 2, 3), np.float32), MADE)
    assert len(plan(videos, cache, Extractor()).todo) == 2
    tick()
    video.path.write_bytes(b"another")
    assert len(plan(videos, cache, Extractor()).todo) == 3


def test_a_touched_video_of_the_same_bytes_is_not_done_again(videos, cache):
    run(videos, cache)
    tick()
    for video in videos.videos:
        video.path.write_bytes(video.path.read_bytes())
    assert run(videos, cache)[0] == []


def test_features_outlive_their_videos(videos, cache):
    run(videos, cache)
    for video in videos.videos:
        video.path.unlink()
    assert run(videos, cache)[0] == []


def test_a_replacement_that_fails_is_named_and_the_old_features_stay(videos, cache):
    run(videos, cache)
    tick()
    videos.videos[2].path.write_bytes(b"")
    _, made = run(videos, cache)
    assert [failure.key for failure in made.failures] == ["c.avi"]
    assert values(cache) == [ord("a"), ord("b"), ord("c")]


def changed(path, known_probe, written):
    """Ask with a digest that is wrong: True tells that the file was read whole."""
    return source_changed(path, "other", known_probe, written=written)


def test_an_untouched_video_is_not_read_whole(videos):
    path = videos.videos[0].path
    later = time.time_ns() + 10**9
    assert not changed(path, probe(path), later)
    assert changed(path, probe(path), path.stat().st_ctime_ns)
    assert changed(path, "", later)  # nothing is known of it
    assert changed(path, probe(videos.videos[1].path), later)


def test_another_data_set_of_older_files_under_the_same_names_is_refused(
    videos, cache, tmp_path
):
    other = tmp_path / "other"
    shutil.copytree(videos.root, other)
    for number, path in enumerate(sorted(other.iterdir())):
        path.write_bytes(b"%d of the other set" % number)
    tick()
    run(videos, cache)  # the other set's files are older than these features
    shutil.rmtree(videos.root)
    other.rename(videos.root)  # even under the same paths
    before = cache.read_bytes()
    with pytest.raises(AqaError, match=r"3 of 3 videos .* another --cache .*--replace"):
        run(videos, cache)
    with pytest.raises(AqaError, match="a.avi, b.avi, c.avi"):
        plan(videos, cache, Extractor())
    assert cache.read_bytes() == before
    notes = []
    made = extract(videos, cache, Extractor(), replace=True, report=notes.append)
    assert (made.done, made.merged) == (3, True)
    assert values(cache) == [ord("0"), ord("1"), ord("2")]
    assert notes[0].startswith("3 videos are other files")
    assert run(videos, cache)[0] == []


def test_a_changed_video_that_fails_keeps_its_features_and_says_so(videos, cache):
    run(videos, cache)
    videos.videos[1].path.write_bytes(b"")
    before = cache.read_bytes()
    for _ in range(2):
        made = run(videos, cache)[1]
        [failure] = made.failures
        assert failure.key == "b.avi" and failure.reason.endswith(
            "found nothing; the cache keeps the features of the file that was there "
            "before"
        )
        assert (
            failure.reason
            in json.loads(cache.with_name("failures.json").read_text())[0].values()
        )
        assert cache.read_bytes() == before


def test_what_else_the_cache_holds_is_said(videos, cache):
    run(videos, cache)
    notes = []
    fewer = replace(videos, videos=videos.videos[:1])
    extract(fewer, cache, Extractor(), report=notes.append)
    assert notes == [
        "the cache also holds 2 videos that are not asked for: b.avi, c.avi; heads "
        "are trained on all that it holds"
    ]


def test_extra_labels_and_the_probe_reach_the_cache(videos, cache):
    given = replace(videos.videos[0], extra={"surgeon": "B"})
    extract(replace(videos, videos=(given,)), cache, Extractor())
    with FeatureCache.open(cache) as opened:
        assert opened.samples[0].extra == {"surgeon": "B"}
        assert opened.samples[0].source_probe == probe(given.path)


def test_a_picture_written_over_in_its_folder_is_a_change(tmp_path):
    folder = tmp_path / "001"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"img_{number:05d}.jpg").write_bytes(bytes([number]))
    digest = source_sha256(folder)
    assert digest == folder_sha256(folder)
    known = digest, probe(folder)
    tick()
    written = time.time_ns()
    tick()
    assert not source_changed(folder, *known, written=written)
    (folder / ".DS_Store").touch()
    assert not source_changed(folder, *known, written=written)
    (folder / "img_00002.jpg").write_bytes(b"x")  # of the same length
    assert source_changed(folder, *known, written=written)


def test_a_folder_that_became_no_video_fails_alone(videos, cache):
    folder = videos.root / "d"
    folder.mkdir()
    (folder / "img_00001.jpg").write_bytes(b"d")
    made = replace(videos, videos=(*videos.videos, Video("d", folder, "", "", 1.0)))
    sample = Sample("d", "", "", 1.0, 9, source_sha256(folder))
    write_part(cache, sample, np.zeros((1, 2, 3), np.float32), MADE)
    tick()
    (folder / "other_00001.jpg").write_bytes(b"d")
    assert [video.key for video in plan(made, cache, Extractor()).todo][-1] == "d"


def test_caches_of_one_folder_share_the_list_of_failures(videos, cache):
    listed, other = cache.with_name("failures.json"), cache.with_name("other.h5")
    content = videos.videos[0].path.read_bytes()
    videos.videos[0].path.write_bytes(b"")
    run(videos, cache)
    run(videos, other)
    found = [failure["cache"] for failure in json.loads(listed.read_text())]
    assert found == ["features.h5", "other.h5"]
    videos.videos[0].path.write_bytes(content)
    run(videos, other)
    assert json.loads(listed.read_text())[0]["cache"] == "features.h5"
    run(videos, cache)
    assert not listed.exists()
    listed.write_text('[{"key": "of an older version"}, 3]')
    run(videos, cache)
    assert not listed.exists()


def test_a_failure_is_remembered_by_later_shards_and_listed_at_once(videos, cache):
    videos.videos[0].path.write_bytes(b"")
    first = extract(videos, cache, Extractor(), (0, 3))
    listed = cache.with_name("failures.json")
    assert first.failures and not first.merged and listed.is_file()
    assert not extract(videos, cache, Extractor(), (1, 3)).merged
    last = extract(videos, cache, Extractor(), (2, 3))
    assert last.merged and last.failures == () and listed.is_file()
    # A torn or foreign record is as good as none.
    record = part_path(cache, "a.avi").with_suffix(".failed")
    record.write_text("{")
    assert not extract(videos, cache, Extractor(), (2, 3)).merged
    assert not listed.exists()


def test_parts_that_were_merged_by_hand_are_not_missed(videos, cache):
    """Another shard merges while this one works."""

    class Meddled(Extractor):
        def extract(self, videos):
            for result in super().extract(videos):
                yield result
                merge(cache)

    both = replace(videos, videos=videos.videos[:2])
    extract(both, cache, Extractor(), (1, 2))
    assert extract(both, cache, Meddled(), (0, 2)).merged
    assert values(cache) == [ord("a"), ord("b")]
