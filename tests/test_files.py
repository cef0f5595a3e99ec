"""A file is replaced whole or not at all, and one at a time."""

import errno
import os
import shutil
import threading
from contextlib import suppress

import pytest
from fakes import at_once, names

from aqa.cache.errors import AqaError
from aqa.cache.files import (
    locked,
    make_folder,
    probe,
    remove_orphans,
    replacing,
    write_file,
)


def test_a_file_is_written_in_one_call_in_a_new_folder(tmp_path):
    folder = tmp_path / "a" / "b"
    write_file(folder / "file", "Kür\n")
    write_file(folder / "other", b"\0")
    assert (folder / "file").read_bytes() == b"K\xc3\xbcr\n"
    assert (folder / "other").read_bytes() == b"\0"
    assert names(folder) == ["file", "other"]


@pytest.fixture
def old(tmp_path):
    """A file that is to be replaced."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, None])
def test_the_old_file_is_there_until_the_end_and_after_a_failure(old, error):
    with suppress(error or RuntimeError), replacing(old) as file:
        file.write(b"new")
        assert old.read_bytes() == b"old"
        if error:
            raise error
    assert old.read_bytes() == (b"old" if error else b"new")
    assert names(old.parent) == ["file"]


@pytest.mark.parametrize("step", ["open", "fsync", "close", "replace"])
def test_every_step_may_fail(old, monkeypatch, step):
    real = getattr(os, step)

    def failing(*arguments):
        if step == "close":
            real(*arguments)
        raise OSError(errno.ENOSPC, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, failing)
        with pytest.raises(AqaError, match=f"{old}: cannot be written: No space left"):
            write_file(old, b"new")
    assert old.read_bytes() == b"old" and names(old.parent) == ["file"]


def test_a_folder_in_the_place_of_a_file_is_an_error(tmp_path):
    with pytest.raises(AqaError, match="cannot be made"):
        (tmp_path / "file").touch()
        make_folder(tmp_path / "file" / "below")


def test_orphans_of_one_file_or_of_all_are_removed(tmp_path):
    mine, others = f".mine.{'0' * 16}.tmp", f".mine.h5.{'1' * 16}.tmp"
    for name in (mine, others, ".mine.tmp", "mine"):
        (tmp_path / name).touch()
    remove_orphans(tmp_path, "mine")
    assert names(tmp_path) == sorted([others, ".mine.tmp", "mine"])
    remove_orphans(tmp_path)
    assert names(tmp_path) == sorted([".mine.tmp", "mine"])


def test_one_has_the_lock_alone_or_many_share_it(tmp_path):
    path, log = tmp_path / "file", []
    started = threading.Event()

    def alone():
        started.set()
        with locked(path):
            log.append("alone")

    with locked(path, shared=True), locked(path, shared=True):
        thread = threading.Thread(target=alone)
        thread.start()
        started.wait()
        thread.join(0.05)
        log.append("shared")
    thread.join()
    assert log == ["shared", "alone"]
    assert names(tmp_path) == []


def test_the_lock_survives_its_file_being_removed_under_many(tmp_path):
    path, holders, most = tmp_path / "file", [0], []

    def hold(times):
        for _ in range(times):
            with locked(path):
                holders[0] += 1
                most.append(holders[0])
                holders[0] -= 1

    at_once(hold, [30] * 4)
    assert most == [1] * 120 and names(tmp_path) == []


def test_what_is_read_back_otherwise_is_not_put_in_place(old):
    def check(temporary):
        assert temporary.read_bytes() == b"new" and old.read_bytes() == b"old"
        raise AqaError("something else")

    with pytest.raises(AqaError, match="else"), replacing(old, check) as file:
        file.write(b"new")
    assert old.read_bytes() == b"old" and names(old.parent) == ["file"]


def test_without_locks_sharing_goes_on_and_having_alone_does_not(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", no_locks)
    path = tmp_path / "file"
    for options in ({"shared": True}, {"needed": False}):
        with locked(path, **options):
            pass
    with pytest.raises(AqaError, match="no locks; merge into"), locked(path):
        pass


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 4097, 65536, 300_000])
def test_a_probe_tells_files_apart(tmp_path, size):
    data = os.urandom(size)
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(data)
    before = probe(path)
    other.write_bytes(data)
    os.utime(other, (1, 1))
    assert probe(other) == before
    other.write_bytes(data + b"x")
    assert probe(other) != before
    for place in {0, size // 2, size - 1} if 0 < size <= 65536 else ():
        other.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert probe(other) != before
    other.write_bytes(os.urandom(size))
    assert size == 0 or probe(other) != before


def test_a_probe_of_a_folder_is_of_its_files(tmp_path):
    folder, copy = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.jpg").write_bytes(bytes([number]) * 5000)
    shutil.copytree(folder, copy)
    before = probe(folder)
    assert probe(copy) == before
    (copy / "7.jpg").rename(copy / "70.jpg")
    assert probe(copy) != before
    (copy / "70.jpg").rename(copy / "7.jpg")
    (copy / "0.jpg").write_bytes(b"x" * 5000)
    assert probe(copy) != before
