"""Run a foreign parser on an untrusted file in a child process with limits.

Conventions: `call` starts one process per call, forked from a server process of one
thread, so a parser may crash, hang or ask for any amount of memory. The server is a
fresh interpreter, started by the first call; it keeps modules loaded, so that later
calls take milliseconds. Server and children end with the process that called. Functions
must be importable (nothing defined in a script). Children cannot write files. Of their
pickled results only arrays, built-in types and classes of this package are accepted, so
that a parser that was taken over cannot run code in the caller.
"""

import atexit
import io
import os
import pickle
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from aqa.cache.errors import AqaError, UnreadableFile, brief
from aqa.cache.processes import kill_with_parent, limit_memory

Result = TypeVar("Result")
#: A child's first message: its process id, and when its time began (monotonic).
_START = struct.Struct("=qd")


@dataclass(frozen=True)
class Limits:
    """What one call may take: wall-clock seconds, and bytes of memory."""

    seconds: float = 60.0
    #: Beyond what the child holds before the call; also the size of the result.
    memory: int = 1 << 30


_LIMITS = Limits()


def call(
    function: Callable[..., Result], *args: Any, limits: Limits = _LIMITS
) -> Result:
    """Return `function(*args)`, computed in a child process.

    AqaError, in one line that does not name the file, where the function raised,
    crashed or exceeded a limit; UnreadableFile where the system refused (permission,
    I/O), or could not start the child: this says nothing about the file.
    """
    request = pickle.dumps((function, args, limits, os.getcwd()))
    with _server.connect() as channel:
        pid, began = 0, 0.0
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                _send(channel, request)
            pid, began = _START.unpack(_receive(channel, _START.size))
            succeeded, value = _read_reply(channel, limits)
        except EOFError:
            if not pid:
                raise UnreadableFile("cannot be read: no child process") from None
            if time.monotonic() - began >= limits.seconds:
                reason = f"takes longer than {limits.seconds:g} s to read"
            else:
                reason = "crashes its reader, or needs more memory than it may take"
            raise AqaError(reason) from None
        except BaseException:
            # The channel is not at its end, so the child still has this id.
            if pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise
    if not succeeded:
        raise value
    result: Result = value
    return result


def _send(channel: socket.socket, *messages: Any) -> None:
    for message in messages:
        channel.sendall(struct.pack("<Q", memoryview(message).nbytes))
        channel.sendall(message)


def _receive(channel: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        count = 0
        with suppress(ConnectionResetError):
            count = channel.recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return data


def _receive_message(channel: socket.socket, most: float) -> bytearray:
    size = int.from_bytes(_receive(channel, 8), "little")
    if size > most:
        raise AqaError(f"reads as {size} bytes; at most {most} are taken")
    return _receive(channel, size)


def _read_reply(channel: socket.socket, limits: Limits) -> tuple[bool, Any]:
    # The pickle, then the number of arrays that follow it, then their bytes.
    data = _receive_message(channel, limits.memory)
    left = limits.memory - len(data)
    arrays = []
    for _ in range(int.from_bytes(_receive(channel, 8), "little")):
        arrays.append(_receive_message(channel, left))
        left -= len(arrays[-1])
    try:
        succeeded, value = _Unpickler(io.BytesIO(data), buffers=arrays).load()
        if succeeded or isinstance(value, AqaError):
            return succeeded, value
    except Exception as error:
        raise AqaError(f"its reader's answer is refused: {brief(error)}") from None
    raise AqaError("its reader's answer is refused")


class _Unpickler(pickle.Unpickler):
    """Reads what children answer: plain data, arrays and classes of this package."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class that is allowed; UnpicklingError for anything else."""
        allowed = (
            module.startswith("numpy")
            and name in ("ndarray", "dtype", "_reconstruct", "_frombuffer", "scalar")
            or (module, name) in _PLAIN
        )
        if module.startswith("aqa.") and "." not in name:
            found = super().find_class(module, name)
            allowed = isinstance(found, type) and found.__module__ == module
        if not allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module, name)


_PLAIN = {
    ("builtins", "complex"),
    ("builtins", "frozenset"),
    ("builtins", "set"),
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
}


class _Server:
    """The process that children are forked from; one per calling process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def connect(self) -> socket.socket:
        """Return a channel to a new child."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            for _ in range(2):  # a server that was killed is started again
                try:
                    if self._control is None:
                        self._start()
                    assert self._control is not None
                    socket.send_fds(self._control, [b"+"], [theirs.fileno()])
                    return ours
                except OSError as error:
                    failure = error
                    self.stop()
        ours.close()
        raise UnreadableFile(f"cannot be read: no child process: {failure}")

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        path = [os.path.abspath(place) for place in sys.path]
        program = (
            f"import sys; sys.path[:] = {path!r}\n"
            "from aqa.cache.sandbox import serve\n"
            f"serve({theirs.fileno()})"
        )
        one_thread = dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
        )
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **one_thread},
            )

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
    """Fork a child for each channel that arrives; return when the caller is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended children leave no zombies
    control = socket.socket(fileno=control_descriptor)
    server = os.getpid()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as channel:
            try:
                request: Any = pickle.loads(_receive_message(channel, float("inf")))
            except EOFError:
                continue
            except Exception as error:
                request = AqaError(f"cannot be read in a child process: {brief(error)}")
            with suppress(OSError):  # no process: the channel closes before an answer
                if os.fork() == 0:
                    control.close()
                    _run_child(channel, request, server)


def _run_child(channel: socket.socket, request: Any, server: int) -> NoReturn:
    try:
        kill_with_parent()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if os.getppid() != server:
            os._exit(1)
        channel.sendall(_START.pack(os.getpid(), time.monotonic()))
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        reply, arrays = _compute(request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(channel, reply)
        channel.sendall(len(arrays).to_bytes(8, "little"))
        _send(channel, *(array.raw() for array in arrays))
    finally:
        os._exit(0)


def _compute(request: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Return the pickled pair (succeeded, result or AqaError) and the arrays in it."""
    arrays: list[pickle.PickleBuffer] = []
    try:
        if isinstance(request, AqaError):
            raise request
        function, args, limits, folder = request
        os.chdir(folder)
        signal.setitimer(signal.ITIMER_REAL, limits.seconds)  # kills, even inside C
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        limit_memory(limits.memory)
        result = True, function(*args)
        return pickle.dumps(result, 5, buffer_callback=arrays.append), arrays
    except BaseException as error:
        return pickle.dumps((False, _explain(error, request))), []


def _explain(error: BaseException, request: Any) -> AqaError:
    # torch has no MemoryError of its own.
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return AqaError(f"needs more than {request[2].memory >> 20} MiB of memory")
    if isinstance(error, AqaError):
        return error
    if isinstance(error, FileNotFoundError):
        return AqaError("no such file")
    if isinstance(error, OSError) and error.errno is not None:
        return UnreadableFile(f"cannot be read: {os.strerror(error.errno)}")
    return AqaError(brief(f"{type(error).__name__}: {error}", 200))
