"""What a Ray cluster runs for us: a network on a node, and the driver's hold on it.

Conventions: as in `ray_engine`, whose work this does. A worker streams results back in
the order of its batch; when it dies, the first of the batch is what it had in hand.

The network on many machines: an extractor whose work a Ray cluster does.

One network lives on each node, on all its processors, or one for each GPU; nodes may
join and leave while it runs. A worker is handed a few videos at a time, decodes them
ahead as `C3DExtractor` does anywhere, and streams what it makes of them back. What is
finished is known from the cache's parts alone, which the caller writes: Ray only
drives, and a run may be broken off here and go on without it, or the other way round.

A worker that dies costs the video that it had in hand an attempt, and the others of
its batch none; a video with two such deaths is set aside as a failure.

Conventions: videos and the weights file lie where every node finds them under the
same path; all nodes have this package in the same versions, which their provenances
prove. Results come as they are finished, in no order. All videos are asked for at the
start: what other runs on the same cache finish later is done here once more.
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
from aqa.extract.network import C3DExtractor
from aqa.extract.stage import Extracted
from aqa.extract.videos.source import video_changed

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise AqaError(
        "--engine ray: expected Ray to be installed; pip install '.[ray]' in a checkout"
    ) from error


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


#: Videos that a worker is handed at once, at most; fewer towards the end.
BATCH = 8
#: Workers that a video may kill before it is set aside.
DEATHS = 2
#: Workers in a row that may fail to start on one node.
PATIENCE = 3
#: Seconds within which a cluster must answer.
KNOCK = 10.0
#: Seconds between looks at which nodes there are.
LOOK = 1.0


class RayExtractor:
    """C3D on the nodes of a Ray cluster: an `aqa.extract.stage.Extractor`."""

    changed = staticmethod(video_changed)

    def __init__(self, config: ExtractConfig, address: str | None = None) -> None:
        """Join the cluster at `address`, or RAY_ADDRESS; else make one of this machine.

        Raises:
            AqaError: there is no such cluster.
        """
        self._joined = not ray.is_initialized()
        if self._joined:
            _join(address or os.environ.get("RAY_ADDRESS"))
        self._config = config
        self._workers: list[Worker] = []
        self._refused = Counter[str]()
        self._found: Provenance | None = None
        self._notes: dict[str, None] = {}

    @cached_property
    def provenance(self) -> Provenance:
        """What the features are made with, on every node alike."""
        with _ray_on_stderr():
            while self._found is None:
                self._take_nodes()
                for worker in self._wait():
                    self._greet(worker)
        return self._found

    @property
    def notes(self) -> tuple[str, ...]:
        """What the nodes that are known have to say of device and precision."""
        _ = self.provenance  # by now there is one
        return tuple(self._notes)

    def extract(
        self, videos: Iterable[Video]
    ) -> Generator[tuple[Video, Extracted | AqaError]]:
        """Features of each video, or why there are none, as they are finished."""
        waiting, deaths = deque(videos), Counter[str]()
        with contextlib.ExitStack() as at_the_end:
            at_the_end.enter_context(_ray_on_stderr())
            at_the_end.callback(self._leave)
            while waiting or any(worker.batch for worker in self._workers):
                self._take_nodes()
                self._hand_out(waiting)
                for worker in self._wait():
                    if worker.ready:
                        yield from self._result(worker, waiting, deaths)
                    else:
                        self._greet(worker)

    def _leave(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()
        if self._joined:
            ray.shutdown()

    def _hand_out(self, waiting: deque[Video]) -> None:
        """Give every idle worker a batch, smaller ones when few videos are left."""
        size = min(-(-len(waiting) // (2 * max(len(self._workers), 1))), BATCH)
        for worker in self._workers:
            if worker.ready and not worker.batch and waiting:
                count = min(size, len(waiting))
                worker.begin([waiting.popleft() for _ in range(count)])

    def _take_nodes(self) -> None:
        """Start workers on nodes that are new, or that have lost one."""
        untyped: Any = ray
        nodes = {node["NodeID"]: node for node in untyped.nodes() if node["Alive"]}
        there = Counter(worker.node for worker in self._workers)
        for name, node in nodes.items():
            share = 1
            if self._config.device != "cpu":
                share = max(int(node["Resources"].get("GPU", 0)), 1)
            if node["Resources"].get("CPU", 0) >= 1:
                for _ in range(share - there[name]):
                    self._workers.append(Worker(self._config, node, share))

    def _wait(self) -> list[Worker]:
        """Workers that have something to say, after a second at most."""
        talking = {w.pending: w for w in self._workers if w.batch or not w.ready}
        if not talking:
            return []
        done, _ = ray.wait(list(talking), num_returns=1, timeout=LOOK)
        return [talking[pending] for pending in done]

    def _greet(self, worker: Worker) -> None:
        """Take a worker in whose network is loaded, if it is the same everywhere."""
        try:
            found = worker.answer()
        except RayError as error:  # or the node has gone
            worker.end()
            self._workers.remove(worker)
            self._refused[worker.node] += 1
            if self._refused[worker.node] == PATIENCE:
                raise AqaError(
                    f"on the node {worker.node[:12]}: {PATIENCE} workers did not "
                    f"start; the last: {error}"
                ) from error
            return
        if isinstance(found, AqaError):
            raise AqaError(f"on the node {worker.node[:12]}: {found}") from found
        record, notes = found
        loaded = Provenance.parse(record)
        self._found = self._found or loaded
        require_same(loaded, self._found, f"the node {worker.node[:12]}")
        self._notes |= dict.fromkeys(notes)
        worker.ready = True
        del self._refused[worker.node]

    def _result(
        self, worker: Worker, waiting: deque[Video], deaths: Counter[str]
    ) -> Generator[tuple[Video, Extracted | AqaError]]:
        """Take one result, or stock of a death."""
        try:
            made = worker.answer()
        except RayTaskError as error:
            raise error.cause from error
        except (RayError, StopIteration) as error:
            suspect, *others = worker.batch
            worker.batch.clear()
            waiting.extendleft(reversed(others))
            worker.load()
            deaths[suspect.key] += 1
            if deaths[suspect.key] < DEATHS:
                waiting.append(suspect)
                return
            yield (
                suspect,
                AqaError(
                    f"{suspect.path}: {DEATHS} workers died over it; the last: {error}"
                ),
            )
            return
        yield worker.batch.popleft(), made


def _ray_on_stderr() -> contextlib.redirect_stdout[Any]:
    """Keep what Ray has to say of its workers out of the results on stdout."""
    return contextlib.redirect_stdout(sys.stderr)


def _join(address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address and re.fullmatch(r"[^/]+:\d+", address):
            # Ray itself would knock for minutes where nobody is at home.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=KNOCK).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError) as error:
        raise AqaError(
            f"--ray-address: expected a Ray cluster at {address}, found none ({error})"
        ) from error
