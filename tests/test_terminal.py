"""What is shown while work goes on, and what file names may not do to a terminal."""

import io
import json

import pytest
from rich.console import Console

from aqa.cache import console
from aqa.cache.console import log_lines, print_json, progress_bar
from aqa.cache.errors import printable


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when told."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(console.time, "monotonic", lambda: Clock.now)
    return Clock


def test_labels_are_shown_and_never_obeyed(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    with progress_bar() as progress:
        progress(0, 2, "x[/y].mp4")
        progress(1, 2, "[red]x\x1b[2J")
    assert "x[/y].mp4" in screen.getvalue() or "[red]x" in screen.getvalue()
    assert "\x1b[2J" not in screen.getvalue()


def test_work_that_was_spared_takes_no_time(capsys, clock):
    show = log_lines(every=1.0)
    show(900, 1000, "heads")
    clock.now += 10
    show(950, 1000, "heads")
    assert capsys.readouterr().err == "heads: 950/1000, 5/s, 10 s left\n"


def test_nothing_done_says_nothing_of_the_time_left(capsys, clock):
    show = log_lines(every=1.0)
    clock.now += 2
    show(0, 10, "videos")
    clock.now += 2
    show(0, 10, "videos")
    assert capsys.readouterr().err == "videos: 0/10\nvideos: 0/10\n"


def test_control_characters_and_bytes_are_escaped():
    assert printable("Fünf [1].mp4") == "Fünf [1].mp4"
    assert printable("a\x1b[2J\nb\x07\u202e") == "a\\x1b[2J\\nb\\x07\\u202e"
    name = b"\xff.mp4".decode("utf-8", "surrogateescape")
    assert printable(name).encode() == b"\\udcff.mp4"


def test_json_is_strict(capsys):
    print_json({"a": 1.5})
    assert json.loads(capsys.readouterr().out) == {"a": 1.5}
    with pytest.raises(ValueError, match="JSON"):
        print_json(float("nan"))
