"""What a Ray cluster runs for us: a network on a node, and the driver's hold on it.

Conventions: as in `ray_engine`, whose work this does. A worker streams results back in
the order of its batch; when it dies, the first of the batch is what it had in hand.
"""

from collections import deque
from collections.abc import Generator
from typing import Any

from aqa.cache.errors import AqaError
from aqa.extract.config import ExtractConfig
from aqa.extract.datasets.dataset import Video
from aqa.extract.network import C3DExtractor
from aqa.extract.stage import Extracted

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise AqaError(
        "--engine ray: expected Ray to be installed; pip install 'aqa[ray]'"
    ) from error

__all__ = ["Network", "RayError", "RayTaskError", "Worker", "ray"]


class Network:
    """What lives in a worker: the network, for as long as its node does."""

    def load(self, config: ExtractConfig) -> tuple[str, tuple[str, ...]] | AqaError:
        """Load the weights; return provenance as JSON and notes, or what is wrong."""
        try:
            self._extractor = C3DExtractor(config)
        except AqaError as error:
            return error
        return self._extractor.provenance.json, self._extractor.notes

    def extract(self, videos: list[Video]) -> Generator[Extracted | AqaError]:
        """Features of each video, or why there are none, in order."""
        for _, made in self._extractor.extract(videos):
            yield made


class Worker:
    """One worker as the driver sees it: starting, at work on `batch`, or idle."""

    def __init__(self, config: ExtractConfig, node: dict[str, Any], share: int) -> None:
        """Start it on a node, of whose processors (and GPUs) it gets a share."""
        self.node: str = node["NodeID"]
        self._config = config
        self.batch: deque[Video] = deque()
        resources = node["Resources"]
        self._actor: Any = (
            ray.remote(Network)
            .options(
                num_cpus=resources.get("CPU", 0) / share,
                num_gpus=resources.get("GPU", 0) / share,
                scheduling_strategy=NodeAffinitySchedulingStrategy(self.node, False),
                max_restarts=-1,
                # Not Ray's: it would hand the same batch to worker after worker.
                max_task_retries=0,
            )
            .remote()
        )
        self.load()

    def load(self) -> None:
        """Have the network loaded, for the first time or again."""
        self.pending: Any = self._actor.load.remote(self._config)
        self.ready = False

    def begin(self, videos: list[Video]) -> None:
        """Set it to work on a batch."""
        self.batch.extend(videos)
        streaming = self._actor.extract.options(num_returns="streaming")
        self.pending = streaming.remote(videos)

    def answer(self) -> Any:
        """Return what `load` gave, or the result of the first of the batch."""
        return ray.get(next(self.pending) if self.ready else self.pending)

    def end(self) -> None:
        """Let its processors go."""
        ray.kill(self._actor)
