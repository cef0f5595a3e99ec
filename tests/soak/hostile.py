"""Hostile files for a reader: read or refused with an AqaError, and nothing else.

Conventions: nothing else means: no other exception, no other file read, none written,
no process, no connection, no code, no more than MEMORY bytes and SECONDS of the
processor's time. A canary
listens to Python's own audit events, to the time when a secret beside the folder was
last read (C libraries make no events), and for a folder that a planted pickle makes.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aqa.cache.errors import AqaError
from aqa.cache.processes import call
from soak.mutation import mutate, tokens
from soak.tally import Attack

MEMORY = 1 << 30
SECONDS = 20
NEVER = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"),
    *("subprocess.Popen", "socket.connect", "socket.getaddrinfo", "urllib.Request"),
    *("pickle.find_class", "webbrowser.open", "ftplib.connect", "shutil.rmtree"),
)
#: What the answers of sandboxed readers are made of; no bomb is.
OURS = ("aqa.", "numpy", "pathlib")
#: Never outside of the folder.
CHANGES = ("os.remove", "os.rename", "os.chmod", "os.symlink", "os.mkdir", "os.rmdir")


class Bomb:
    """Pickled, it makes a folder for whoever opens it."""

    def __init__(self, path: Path) -> None:
        """Aim at the folder `path`."""
        self.path = str(path)

    def __reduce__(self):
        """What the unpickler is told to call."""
        return os.mkdir, (self.path,)


class Canary:
    """Sings no more once a reader did what no reader may."""

    def __init__(self, folder: Path) -> None:
        """Listen to what leads out of `folder`; put temptations into it."""
        self.folder, self.secret = folder, folder.parent / "secret"
        self.bomb = Bomb(folder.parent / "exploded")
        self.secret.write_bytes(b"video,action,score,split\nsecret,diving,50,train\n")
        (folder / "link").symlink_to(self.secret)
        (folder / "folder").symlink_to(folder.parent)
        self._armed, self._heard = False, list[str]()
        self._rest()
        sys.addaudithook(self._hear)

    @contextmanager
    def listening(self) -> Iterator[list[str]]:
        """Yield what is heard; complete once the block is left."""
        self._heard = []
        self._armed = True
        try:
            yield self._heard
        finally:
            self._armed = False
            if self.secret.stat().st_atime_ns != self._read:
                self._heard.append("the secret was read")
                self._rest()
            if Path(self.bomb.path).exists():
                self._heard.append("the bomb went off")
                Path(self.bomb.path).rmdir()

    def _rest(self) -> None:
        os.utime(self.secret, ns=(1, 1))
        self._read = self.secret.stat().st_atime_ns

    def _hear(self, event: str, arguments: tuple) -> None:
        if not self._armed:
            return
        if event == "pickle.find_class" and arguments[0].startswith(OURS):
            return
        if event in NEVER:
            self._heard.append(f"{event} {arguments!r:.200}")
        elif event in CHANGES and not self._inside(arguments[0]):
            self._heard.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.fsdecode(arguments[0])
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if path == str(self.secret) or (writes and not self._inside(path)):
                self._heard.append(f"open {path!r:.200}")

    def _inside(self, path: Any) -> bool:
        return Path(os.fsdecode(path)).is_relative_to(self.folder)


@dataclass
class Reader:
    """A reader, and how a file for it comes about.

    `make` gives a content to spoil, `write` puts it where `read` looks for it;
    `spoil` says whether the content is to be mutated further.
    """

    name: str
    make: Callable[[], bytes]
    write: Callable[[bytes], object]
    read: Callable[[], object]
    spoil: float = 0.9


class Slow(BaseException):
    """Nobody catches it."""


def attack_readers(attack: Attack, canary: Canary, readers: list[Reader]) -> None:
    """Take turns until the time is up; every reader sees a sound file first."""
    words = tokens(str(canary.secret))
    call(os.getpid)  # starts the server that children are forked from
    for reader in readers:  # imports what it needs, before anyone listens
        reader.write(reader.make())
        try:
            reader.read()
        except AqaError:
            pass
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    signal.signal(signal.SIGPROF, _slow)
    while not attack.over:
        for reader in readers:
            content = reader.make()
            if attack.rng.random() < reader.spoil:
                content = mutate(content, attack.rng, words)
            attempt(attack, canary, reader, content)


def attempt(attack: Attack, canary: Canary, reader: Reader, content: bytes) -> None:
    """Read one hostile file."""
    row = attack.rows[reader.name]
    row.tried += 1
    reader.write(content)
    refused, wrong = False, ""
    with canary.listening() as heard:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            reader.read()
        except AqaError as error:
            refused = True
            if any(ord(c) < 32 and c != "\n" or c == "\x7f" for c in str(error)):
                wrong = f"a message with control characters: {str(error)!r:.300}"
        except BaseException as error:
            wrong = f"{type(error).__name__}: {error}"[:500]
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    if wrong or heard:
        attack.lose(reader.name, "; ".join([wrong, *heard]), content)
    elif refused:
        row.held += 1
    else:
        row.harmless += 1


def _slow(*_: object) -> None:
    raise Slow(f"more than {SECONDS} s")
