"""A child process that computes one function, for one item after the other.

Conventions: children are forked from a server process of one thread, so that they start
in milliseconds and safely beside threads and GPUs. The server is a fresh interpreter,
started with the first child; it keeps what functions import loaded. The script that
runs here is not imported and needs no `__main__` guard; functions must be importable.
Children compute on one thread, ignore Ctrl-C, which is the caller's to handle, and end
with the caller, however that ends.
"""

import atexit
import ctypes
import os
import pickle
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NoReturn

from aqa.cache.errors import AqaError, UnreadableFile, brief
from aqa.cache.messages import Channel

#: How often in a row a child may be lost before it does anything.
_STARTS = 3
#: Bytes kept to say with that there is no more memory.
_SPARE = 1 << 18


class ProcessDied(AqaError):
    """A child crashed, or was ended after its time; does not name what it computed."""


class _Lost(Exception):
    """A child is gone through no fault of what it computed; says why."""


@dataclass(frozen=True)
class Job:
    """What children compute: `function`, after `prepare(*arguments)`.

    `seconds` are the wall clock of one item. With `memory`, bytes beyond what a child
    holds when it is ready, it may also not write files or print, its answers are at
    most as large, and all its errors are AqaErrors of one line: for foreign files.
    """

    function: Callable[..., Any]
    prepare: Callable[..., object] | None = None
    arguments: tuple[Any, ...] = ()
    seconds: float | None = None
    memory: int | None = None


class Child:
    """One process at a time that computes a job; replaced if it has died."""

    def __init__(self, job: Job) -> None:
        """Start nothing yet."""
        self._job = job
        #: The channel, and the socket that ends the process.
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._stopped = False

    def outcome(self, *item: Any) -> Any:
        """Return `function(*item)`, or the AqaError that it ended in.

        Raises UnreadableFile where children die before they do anything, what the job's
        `prepare` raised, and whatever else than an AqaError `function` raised.
        """
        reason: object = "stopped"
        for _ in range(0 if self._stopped else _STARTS):
            try:
                if self._sockets is None:
                    self._start()
                succeeded, value = self._exchange(item, self._job.seconds)
            except _Lost as lost:
                reason = lost
                continue
            if succeeded or isinstance(value, AqaError):
                return value
            raise value
        raise UnreadableFile(
            f"child processes die before they do anything ({reason}): is there memory "
            "for them?"
        )

    def stop(self) -> None:
        """End the process for good, from another thread than that of `outcome`."""
        self._stopped = True
        if self._sockets is not None:
            with suppress(OSError):
                self._sockets[0].shutdown(socket.SHUT_RDWR)

    def close(self) -> int | None:
        """End the process; return its exit code, None where that is not known."""
        if self._sockets is None:
            return None
        (channel, status), self._sockets = self._sockets, None
        with channel, status, suppress(OSError, ValueError):
            status.shutdown(socket.SHUT_WR)
            # The server does not answer while it loads a function.
            status.settimeout(1.0 if self._stopped else 5.0)
            return int(status.recv(8))
        return None

    def _start(self) -> None:
        job = self._job
        setup = os.getcwd(), job.prepare, job.arguments, job.memory
        try:
            (channel, far), (status, end) = socket.socketpair(), socket.socketpair()
            self._sockets = channel, status
            with far, end:
                _server.fork(far, end)
            Channel(channel).send(pickle.dumps((_path(), pickle.dumps(job.function))))
        except OSError as error:
            self.close()
            raise _Lost(error) from None
        succeeded, value = self._exchange(setup, None)
        if isinstance(value, ProcessDied):
            raise _Lost(value)
        if not succeeded:
            self.close()
            raise value

    def _exchange(
        self, item: tuple[Any, ...], seconds: float | None
    ) -> tuple[bool, Any]:
        """Return whether there is a result, and the result or the error."""
        assert self._sockets is not None
        channel = Channel(self._sockets[0], seconds)
        taken = False
        try:
            if self._stopped:
                raise EOFError
            channel.send_arguments(item)
            taken = True
            return channel.receive_answer(self._job.memory)
        except TimeoutError:
            self.close()
            return False, ProcessDied(f"takes longer than {seconds:g} s")
        except (EOFError, ConnectionError):
            code = self.close()
            if code is None or not taken:  # it died with its server, or while it waited
                raise _Lost("ended from outside") from None
            return False, ProcessDied(f"its process crashed ({exit_cause(code)})")
        except BaseException as error:
            self.close()
            if isinstance(error, AqaError):
                return False, error
            raise


def exit_cause(code: int) -> str:
    """Say how a process ended: `exit code 3` or the name of a signal."""
    names = {-number: number.name for number in signal.Signals}
    return names.get(code, f"exit code {code}")


def _path() -> list[str]:
    return [os.path.abspath(place) for place in sys.path]


class _Server:
    """The process that children are forked from; one per calling process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def fork(self, channel: socket.socket, end: socket.socket) -> None:
        """Start a child that has the far end of `channel`; OSError if that fails.

        It is killed when the near end of `end` is shut for writing, and its exit code
        can then be read there. The first message to it is for the server: the import
        path and the pickled function.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._control is not None
            socket.send_fds(self._control, [b"+"], [channel.fileno(), end.fileno()])

    def _start(self) -> None:
        self.stop()  # what is left of one that was killed
        self._control, theirs = socket.socketpair()
        program = (
            f"import sys; sys.path[:] = {_path()!r}\n"
            f"from {__name__} import serve; serve({theirs.fileno()})"
        )
        one_thread = dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
        )
        # Ctrl-C reaches the server, too: it must not before that can ignore it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-W", "ignore", "-c", program],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, **one_thread},
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def stop(self) -> None:
        """End the server and its children."""
        with self._lock:
            if self._control is not None:
                self._control.close()
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            self._control = self._process = None

    def forget(self) -> None:
        """In a forked process: leave the server to the parent."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.returncode = 0  # not ours to wait for
        self.__init__()  # type: ignore[misc]


_server = _Server()
atexit.register(_server.stop)
os.register_at_fork(after_in_child=_server.forget)


def serve(control_descriptor: int) -> None:
    """Fork the children that are asked for, and kill them; return without a caller."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    control, server = socket.socket(fileno=control_descriptor), os.getpid()
    children: dict[Any, int] = {}  # by the socket that ends them
    while True:
        ready: Any
        for ready in wait([control, *children]):
            if ready is not control:
                pid = children.pop(ready)
                os.kill(pid, signal.SIGKILL)  # one that has ended keeps its exit code
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with ready, suppress(OSError):
                    ready.send(str(code).encode())
                continue
            message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
            if not message:
                for pid in children.values():
                    os.kill(pid, signal.SIGKILL)
                return
            channel, end = (socket.socket(fileno=each) for each in descriptors)
            with channel:
                try:
                    function = _load_function(channel)
                    children[end] = os.fork()
                except (OSError, EOFError):
                    end.close()
                    continue
                if children[end] == 0:
                    for each in (control, *children):
                        each.close()
                    _run(Channel(channel), function, server)


def _load_function(channel: socket.socket) -> Any:
    sys.path[:], function = pickle.loads(Channel(channel).receive())
    try:
        return pickle.loads(function)
    except Exception as error:
        return AqaError(f"cannot be loaded in a child process: {brief(error)}")


def _run(channel: Channel, function: Any, server: int) -> NoReturn:
    """Be a child."""
    memory: int | None = None

    def start(folder: str, prepare: Any, arguments: Any, most: int | None) -> None:
        nonlocal memory
        if isinstance(function, AqaError):
            raise function
        os.chdir(folder)
        if prepare is not None:
            prepare(*arguments)
        if most is not None:
            _confine(most)
        memory = most

    try:
        if sys.platform == "linux":
            set_death_signal = 1  # PR_SET_PDEATHSIG: killed when the server ends
            ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
        if os.getppid() == server:
            _answer(channel, start, None)
        while os.getppid() == server:
            _answer(channel, function, memory)
    finally:
        os._exit(0)


def _answer(channel: Channel, function: Any, memory: int | None) -> None:
    item = channel.receive_arguments()
    arrays: list[pickle.PickleBuffer] = []
    spare = b""
    try:
        spare = bytes(_SPARE)
        result = True, function(*pickle.loads(item))
        data = pickle.dumps(result, 5, buffer_callback=arrays.append)
    except BaseException as error:
        del spare
        data, arrays = pickle.dumps((False, _portable(error, memory))), []
    channel.send_answer(data, arrays)


def _portable(error: BaseException, memory: int | None) -> Any:
    """Return an error that the caller may load."""
    if isinstance(error, AqaError):
        return error
    said = f"{type(error).__name__}: {error}"
    if memory is None:
        plain = isinstance(error, Exception) and type(error).__module__ == "builtins"
        portable = error if plain else RuntimeError(said)
        portable.add_note(f"In a child process:\n{traceback.format_exc()}")
    # torch has no MemoryError of its own.
    elif isinstance(error, MemoryError) or "allocate memory" in str(error):
        portable = AqaError(f"needs more than {memory >> 20} MiB of memory")
    elif isinstance(error, FileNotFoundError):
        portable = AqaError("no such file")
    elif isinstance(error, OSError) and error.errno is not None:
        portable = UnreadableFile(f"cannot be read: {os.strerror(error.errno)}")
    else:
        portable = AqaError(brief(said, 200))
    return portable


def _confine(memory: int) -> None:
    """Let this process neither print nor write files, nor take much more memory."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    limit_memory(memory)


def limit_memory(extra: int) -> None:
    """Let this process allocate `extra` bytes beyond what it holds now (Linux only).

    The limit is on private writable memory: one on addresses would count what torch's
    libraries reserve without using it.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return
    if held := re.search(r"VmData:\s+(\d+) kB", status):
        most = int(held[1]) * 1024 + extra
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
