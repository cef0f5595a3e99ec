"""C3D on the nodes of a Ray cluster: an extractor with one network per node or GPU.

Nodes may join and leave during a run. A worker gets a few videos at a time, decodes
them ahead as `C3DExtractor` does, and streams back one result per video in the order
of its batch. Which videos are finished is known from the cache's parts alone, which
the caller writes: a run may be stopped here and continued without Ray, or vice versa.

When a worker dies, the first video of its batch is charged with the death; a video
with two deaths fails, the others are tried again.

Conventions: videos and the weights file have the same path on every node; all nodes
run the same versions of this package, which is checked by their provenance. Results
come in the order in which they are finished. All videos are taken at the start, so
videos that other runs on the same cache finish later are computed here once more.
"""

import contextlib
import logging
import os
import re
import socket
import sys
from collections import Counter, deque
from collections.abc import Generator, Iterable
from functools import cached_property
from typing import Any

from aqa.cache.errors import AqaError
from aqa.cache.provenance import Provenance, require_same
from aqa.extract.config import ExtractConfig
from aqa.extract.datasets.dataset import Video
from aqa.extract.extractor import Extracted, VideoSource
from aqa.extract.network import C3DExtractor

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise AqaError(
        "--engine ray: expected Ray to be installed; pip install '.[ray]' in a checkout"
    ) from error

#: Videos per batch, at most; fewer towards the end.
MAX_BATCH = 8
#: Workers that may die over a video before it fails.
MAX_DEATHS = 2
#: Consecutive workers that may fail to start on one node.
MAX_FAILED_STARTS = 3
#: Seconds within which a cluster must accept a connection.
CONNECT_SECONDS = 10.0
#: Seconds between checks for new nodes.
POLL_SECONDS = 1.0


class Network:
    """The Ray actor: a network that lives as long as its node."""

    def load(self, config: ExtractConfig) -> tuple[str, tuple[str, ...]] | AqaError:
        """Load the weights; return provenance as JSON and notes, or the error."""
        try:
            self._extractor = C3DExtractor(config)
        except AqaError as error:
            return error
        return self._extractor.provenance.json, self._extractor.notes

    def extract(self, videos: list[Video]) -> Generator[Extracted | AqaError]:
        """Yield the features of each video, or why there are none, in order."""
        for _, result in self._extractor.extract(videos):
            yield result


class Worker:
    """The driver's handle of an actor: loading, idle, or at work on `batch`."""

    def __init__(self, config: ExtractConfig, node: dict[str, Any], share: int) -> None:
        """Start an actor with a `share`-th of a node's processors and GPUs."""
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
                # Ray would give the same batch to one worker after another.
                max_task_retries=0,
            )
            .remote()
        )
        self.load()

    def load(self) -> None:
        """Load the network, for the first time or after a restart."""
        self.pending: Any = self._actor.load.remote(self._config)
        self.ready = False

    def start(self, videos: list[Video]) -> None:
        """Start work on a batch."""
        self.batch.extend(videos)
        streaming = self._actor.extract.options(num_returns="streaming")
        self.pending = streaming.remote(videos)

    def result(self) -> Any:
        """Return what `load` returned, or the result for the batch's first video."""
        return ray.get(next(self.pending) if self.ready else self.pending)

    def kill(self) -> None:
        """Release the actor's processors."""
        ray.kill(self._actor)


class RayExtractor(VideoSource):
    """C3D on a Ray cluster: a stage's `Extractor`."""

    def __init__(self, config: ExtractConfig, address: str | None = None) -> None:
        """Connect to the cluster at `address` or RAY_ADDRESS, or start a local one.

        Raises:
            AqaError: there is no such cluster.
        """
        self._connected = not ray.is_initialized()
        if self._connected:
            _connect(address or os.environ.get("RAY_ADDRESS"))
        self._config = config
        self._workers: list[Worker] = []
        self._failed_starts = Counter[str]()
        self._loaded: Provenance | None = None
        self._notes: dict[str, None] = {}

    @cached_property
    def provenance(self) -> Provenance:
        """What the features are made with; waits for the first node."""
        with _ray_on_stderr():
            while self._loaded is None:
                self._start_workers()
                for worker in self._wait():
                    self._accept(worker)
        return self._loaded

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of the nodes known so far."""
        _ = self.provenance  # waits for one
        return tuple(self._notes)

    def extract(
        self, videos: Iterable[Video]
    ) -> Generator[tuple[Video, Extracted | AqaError]]:
        """Yield the features of each video, or why there are none, when finished."""
        waiting, deaths = deque(videos), Counter[str]()
        with contextlib.ExitStack() as at_exit:
            at_exit.enter_context(_ray_on_stderr())
            at_exit.callback(self._disconnect)
            while waiting or any(worker.batch for worker in self._workers):
                self._start_workers()
                self._hand_out(waiting)
                for worker in self._wait():
                    if worker.ready:
                        yield from self._collect(worker, waiting, deaths)
                    else:
                        self._accept(worker)

    def _disconnect(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        if self._connected:
            ray.shutdown()

    def _hand_out(self, waiting: deque[Video]) -> None:
        """Give idle workers a batch each; smaller ones when few videos are left."""
        size = min(-(-len(waiting) // (2 * max(len(self._workers), 1))), MAX_BATCH)
        for worker in self._workers:
            if worker.ready and not worker.batch and waiting:
                count = min(size, len(waiting))
                worker.start([waiting.popleft() for _ in range(count)])

    def _start_workers(self) -> None:
        """Start workers on nodes that are new or have lost one."""
        untyped: Any = ray
        nodes = {node["NodeID"]: node for node in untyped.nodes() if node["Alive"]}
        running = Counter(worker.node for worker in self._workers)
        for name, node in nodes.items():
            share = 1
            if self._config.device != "cpu":
                share = max(int(node["Resources"].get("GPU", 0)), 1)
            if node["Resources"].get("CPU", 0) >= 1:
                for _ in range(share - running[name]):
                    self._workers.append(Worker(self._config, node, share))

    def _wait(self) -> list[Worker]:
        """Return workers that have a result, after at most `POLL_SECONDS`."""
        busy = {w.pending: w for w in self._workers if w.batch or not w.ready}
        if not busy:
            return []
        done, _ = ray.wait(list(busy), num_returns=1, timeout=POLL_SECONDS)
        return [busy[pending] for pending in done]

    def _accept(self, worker: Worker) -> None:
        """Check that a loaded worker has the same provenance as the others."""
        try:
            loaded = worker.result()
        except RayError as error:  # the actor died, or its node is gone
            worker.kill()
            self._workers.remove(worker)
            self._failed_starts[worker.node] += 1
            if self._failed_starts[worker.node] == MAX_FAILED_STARTS:
                raise AqaError(
                    f"on the node {worker.node[:12]}: {MAX_FAILED_STARTS} workers did "
                    f"not start; the last: {error}"
                ) from error
            return
        if isinstance(loaded, AqaError):
            raise AqaError(f"on the node {worker.node[:12]}: {loaded}") from loaded
        record, notes = loaded
        provenance = Provenance.parse(record)
        self._loaded = self._loaded or provenance
        require_same(provenance, self._loaded, f"the node {worker.node[:12]}")
        self._notes |= dict.fromkeys(notes)
        worker.ready = True
        del self._failed_starts[worker.node]

    def _collect(
        self, worker: Worker, waiting: deque[Video], deaths: Counter[str]
    ) -> Generator[tuple[Video, Extracted | AqaError]]:
        """Yield one result of a worker; if it died, put its batch back."""
        try:
            result = worker.result()
        except RayTaskError as error:
            raise error.cause from error
        except (RayError, StopIteration) as error:
            suspect, *others = worker.batch
            worker.batch.clear()
            waiting.extendleft(reversed(others))
            worker.load()
            deaths[suspect.key] += 1
            if deaths[suspect.key] < MAX_DEATHS:
                waiting.append(suspect)
                return
            yield (
                suspect,
                AqaError(
                    f"{suspect.path}: {MAX_DEATHS} workers died over it; the last: "
                    f"{error}"
                ),
            )
            return
        yield worker.batch.popleft(), result


def _ray_on_stderr() -> contextlib.redirect_stdout[Any]:
    """Keep Ray's own messages out of the results on stdout."""
    return contextlib.redirect_stdout(sys.stderr)


def _connect(address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address and re.fullmatch(r"[^/]+:\d+", address):
            # Fail fast: Ray retries an unreachable address for minutes.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError) as error:
        raise AqaError(
            f"--ray-address: expected a Ray cluster at {address}, found none ({error})"
        ) from error
