"""Messages between a process and its children: arguments there, answers back.

Conventions: a message is its size and its bytes, mostly a pickle; an answer has the
arrays of its pickle behind it. Arguments are trusted, and may hold open files. Answers
are not: a parser that read a foreign file may have been taken over. Of theirs only
arrays, built-in types, exceptions and classes of this package are accepted, so that
they cannot run code here.
"""

import copyreg
import io
import pickle
import socket
import time
from dataclasses import dataclass
from typing import Any

from aqa.cache.errors import AqaError, brief


@dataclass(frozen=True)
class OpenFile:
    """An open file among arguments: a child has it under a number of its own."""

    descriptor: int


class Channel:
    """One end of a channel, for at most `seconds` from now (then TimeoutError).

    EOFError or ConnectionError where the other end is gone.
    """

    def __init__(self, end: socket.socket, seconds: float | None = None) -> None:
        """Send and receive over a socket."""
        self._end = end
        self._until = None if seconds is None else time.monotonic() + seconds

    def send(self, *messages: Any) -> None:
        """Send messages of bytes."""
        for message in messages:
            self._hurry()
            self._end.sendall(memoryview(message).nbytes.to_bytes(8, "little"))
            self._end.sendall(message)

    def receive(self, most: float = float("inf")) -> bytearray:
        """Return a message; AqaError for one of more than `most` bytes."""
        size = int.from_bytes(self._receive(8), "little")
        if size > most:
            raise AqaError(f"reads as {size} bytes; at most {most} are taken")
        return self._receive(size)

    def send_arguments(self, arguments: tuple[Any, ...]) -> None:
        """Send arguments, and wait until the child has taken them."""
        files: list[int] = []

        def set_apart(file: OpenFile) -> tuple[Any, ...]:
            files.append(file.descriptor)
            return _taken, (len(files) - 1,)

        data = io.BytesIO()
        pickler = pickle.Pickler(data, 5)
        pickler.dispatch_table = copyreg.dispatch_table | {OpenFile: set_apart}
        pickler.dump(arguments)
        self._hurry()
        socket.send_fds(self._end, [b"+"], files)
        self.send(data.getbuffer())
        self._receive(1)

    def receive_arguments(self) -> bytearray:
        """Return pickled arguments."""
        mark, _files[:], _, _ = socket.recv_fds(self._end, 1, 250)
        if not mark:
            raise EOFError
        arguments = self.receive()
        self._end.sendall(mark)
        return arguments

    def send_answer(self, data: bytes, arrays: list[pickle.PickleBuffer]) -> None:
        """Send a pickled pair: whether the function returned, and what, or its error.

        `arrays` are the buffers of the pickle.
        """
        count = len(arrays).to_bytes(8, "little")
        self.send(data, count, *(array.raw() for array in arrays))

    def receive_answer(self, most: int | None) -> tuple[bool, Any]:
        """Return such a pair, of at most `most` bytes; AqaError for what is refused.

        Where there is a limit, no error but an AqaError is accepted.
        """
        left = float("inf") if most is None else most
        data = self.receive(left)
        left -= len(data)
        arrays = []
        for _ in range(int.from_bytes(self.receive(8), "little")):
            arrays.append(self.receive(left))
            left -= len(arrays[-1])
        try:
            succeeded, value = _Unpickler(io.BytesIO(data), buffers=arrays).load()
        except Exception as error:
            raise AqaError(f"its answer is refused: {brief(error)}") from None
        if succeeded or isinstance(value, Exception if most is None else AqaError):
            return succeeded, value
        raise AqaError("its answer is refused")

    def _receive(self, size: int) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            self._hurry()
            count = self._end.recv_into(rest)
            if not count:
                raise EOFError
            rest = rest[count:]
        return data

    def _hurry(self) -> None:
        if self._until is not None:
            self._end.settimeout(max(self._until - time.monotonic(), 1e-3))


#: In a child, the open files that came with the last arguments.
_files: list[int] = []


def _taken(place: int) -> OpenFile:
    return OpenFile(_files[place])


class _Unpickler(pickle.Unpickler):
    """Reads what children answer."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class that is allowed; UnpicklingError for anything else."""
        allowed = (
            module.startswith("numpy")
            and name in ("ndarray", "dtype", "_reconstruct", "_frombuffer", "scalar")
            or (module, name) in _PLAIN
        )
        if module.startswith(("aqa.", "builtins")) and "." not in name:
            found = super().find_class(module, name)
            base = Exception if module == "builtins" else object
            allowed |= (
                isinstance(found, type)
                and found.__module__ == module
                and issubclass(found, base)
            )
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
