"""The Ray engine on a real cluster of two nodes, both of them on this machine."""

import contextlib
import importlib
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fakes import encode, noise

from aqa.cache.errors import AqaError
from aqa.cache.parts import verify
from aqa.cli import main
from aqa.extract.config import ClipConfig, ExtractConfig
from aqa.extract.datasets.dataset import Dataset, Video
from aqa.extract.extractor import VideoSource
from aqa.extract.network import C3DExtractor, precision_note
from aqa.extract.stage import extract

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from aqa.extract import ray_engine  # noqa: E402
from aqa.extract.ray_engine import RayExtractor  # noqa: E402

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CONFIG = ExtractConfig(
    weights="random:1",
    arch="c3d-tiny",
    clips=ClipConfig(length=18, offsets=3),
    device="cpu",
    workers=1,
)

#: What runs in the workers, from a module that they can import: it leaves its process
#: id behind for each video, and some videos are deadly.
DEADLY = """
import os, signal
from pathlib import Path
from aqa.extract.ray_engine import (Network)

class DeadlyNetwork(Network):
    def extract(self, videos):
        for video in videos:
            if "deadly" in video.key:
                os.kill(os.getpid(), signal.SIGKILL)
            (Path(__file__).with_name("pids") / str(os.getpid())).touch()
            yield from super().extract([video])
"""


@pytest.fixture
def dataset(tmp_path):
    """Twelve short videos of noise, in names that sort among each other."""
    videos = []
    for number in range(12):
        path = tmp_path / "videos" / f"{number:02d}.avi"
        encode(path, noise(20, 144, 176, seed=number))
        videos.append(Video(path.name, path, "", "", float(number)))
    return Dataset(tmp_path / "videos", tuple(videos), ())


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    """Make the workers deadly; gives the folder of their process ids."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "pids").mkdir()
    (tmp_path / "deadly_network.py").write_text(DEADLY)
    module = importlib.import_module("deadly_network")
    monkeypatch.setattr(ray_engine, "Network", module.DeadlyNetwork)
    yield tmp_path / "pids"
    sys.modules.pop("deadly_network")


@pytest.fixture
def cluster(deadly):
    """Two nodes of one processor each, joined."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


class Meddled(VideoSource):
    """An extractor whose n-th result is followed by the n-th mishap."""

    def __init__(self, extractor, mishaps):
        self.provenance = extractor.provenance
        self._extractor, self._mishaps = extractor, mishaps

    def extract(self, videos):
        for count, result in enumerate(self._extractor.extract(videos), start=1):
            yield result
            self._mishaps.get(count, lambda: None)()


def test_deaths_of_workers_and_nodes_change_no_byte(cluster, dataset, deadly, tmp_path):
    def kill_one():
        for pid in (path.name for path in deadly.iterdir()):
            with contextlib.suppress(OSError):
                if b"ray::" in Path("/proc", pid, "cmdline").read_bytes():
                    return os.kill(int(pid), signal.SIGKILL)
        raise AssertionError("no worker is alive")

    def remove_node():
        cluster.remove_node(next(iter(cluster.worker_nodes)))

    whole, cache = tmp_path / "whole.h5", tmp_path / "ray" / "features.h5"
    extract(dataset, whole, C3DExtractor(CONFIG))
    poison = replace(dataset.videos[0], key="05-deadly.avi")
    poisoned = tuple(sorted((*dataset.videos, poison), key=lambda video: video.key))
    mishaps = {2: kill_one, 4: remove_node, 5: lambda: cluster.add_node(num_cpus=1)}
    made = extract(
        replace(dataset, videos=poisoned),
        cache,
        Meddled(RayExtractor(CONFIG), mishaps),
    )
    assert [failure.key for failure in made.failures] == ["05-deadly.avi"]
    assert "2 workers died over it" in made.failures[0].reason
    assert made.merged and made.done == 12
    assert cache.read_bytes() == whole.read_bytes()
    assert verify(cache) == []
    # More processes than nodes: those that died were replaced.
    assert len(list(deadly.iterdir())) >= 3


def test_the_command_gives_the_same_bytes_and_notes(cluster, dataset, tmp_path):
    for video in dataset.videos[2:]:
        video.path.unlink()
    said = {}
    for engine in ("local", "ray"):
        command = ["extract", "--videos", dataset.root, "--cache", tmp_path / engine]
        command += ["--weights", "random:1", "--arch", "c3d-tiny", "--length", 21]
        command += ["--precision", "bf16", "--device", "cpu", "--workers", 1]
        command += ["--engine", engine]
        if engine == "ray":
            command += ["--ray-address", cluster.address]
        ran = CliRunner().invoke(main, [str(word) for word in command])
        assert ran.exit_code == 0, ran.output
        assert "2 extracted" in ran.stdout
        said[engine] = [line for line in ran.stderr.splitlines() if "bf16" in line]
    assert (tmp_path / "local").read_bytes() == (tmp_path / "ray").read_bytes()
    note = precision_note("bf16", torch.device("cpu"))
    assert said["local"] == said["ray"] == ([note] if note else [])


def test_weights_that_a_node_lacks_are_an_error(cluster):
    extractor = RayExtractor(replace(CONFIG, weights="nowhere.pth", arch=None))
    with pytest.raises(AqaError, match="on the node .*nowhere.pth"):
        _ = extractor.provenance


def test_no_cluster_at_the_address_is_an_error():
    with pytest.raises(AqaError, match="expected a Ray cluster at 127.0.0.1:1"):
        RayExtractor(CONFIG, "127.0.0.1:1")
