"""Options that several commands share, progress, and text that is safe to print."""

import io
import json
import shlex

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from aqa.cache import console
from aqa.cache.console import (
    GroupedCommand,
    actions_option,
    device_option,
    json_option,
    log_lines,
    print_json,
    progress_bar,
    workers_option,
)
from aqa.cache.errors import printable
from aqa.cli import main


@click.command()
@actions_option
@workers_option
def echo(actions, workers):
    click.echo(f"{actions} {workers}")


@pytest.mark.parametrize(
    ("text", "said"),
    [("a,b", "('a', 'b')"), (" a , b ", "('a', 'b')"), ("", "None"), ("a,,b", None)],
)
def test_actions_are_names_without_blanks(text, said):
    ran = CliRunner().invoke(echo, ["--actions", text])
    if said:
        assert ran.output == f"{said} None\n"
    else:
        assert ran.exit_code == 2 and "a comma between them" in ran.output


@click.command(
    cls=GroupedCommand,
    groups={"Input": ("videos",), "Speed": ("workers", "device")},
    examples=("aqa do --videos list.csv", "aqa do --videos list.csv --workers 2"),
)
@click.option("--videos", help="Where.")
@workers_option
@device_option
@json_option
def grouped(**_):
    """Do something with videos that takes more than forty-five letters to say."""


def test_help_lists_options_in_groups_and_ends_with_examples():
    text = CliRunner().invoke(grouped, ["--help"]).output
    places = [
        text.index(part)
        for part in (
            *("Input:", "--videos", "Speed:", "--workers", "--device", "Options:"),
            *("--json", "--help", "Examples:\n  aqa do --videos list.csv\n"),
        )
    ]
    assert places == sorted(places)
    assert text.endswith("  aqa do --videos list.csv --workers 2\n")
    assert grouped.get_short_help_str().endswith("letters to say.")


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        ("--input", "did you mean --videos?"),
        ("--gpu", "did you mean --device?"),
        ("--lr", "No such option"),  # and no option of another command
    ],
)
def test_options_of_other_tools_are_answered(slip, said):
    ran = CliRunner().invoke(grouped, [slip, "x"])
    assert ran.exit_code == 2 and said in ran.output
    assert "learning" not in ran.output


def test_labels_are_shown_and_never_obeyed(monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr("rich.console.Console", lambda **_: terminal)
    with progress_bar() as progress:
        progress(0, 2, "x[/y].mp4")
        progress(1, 2, "[red]x\x1b[2J")
    assert "x[/y].mp4" in screen.getvalue() or "[red]x" in screen.getvalue()
    assert "\x1b[2J" not in screen.getvalue()


def test_the_time_left_follows_from_what_was_done_meanwhile(capsys, monkeypatch):
    now = iter([100.0, 100.0, 100.0, 110.0, 110.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now, 130.0))
    show = log_lines(every=1.0)
    show(900, 1000, "heads")  # spared work takes no time
    show(950, 1000, "heads")
    assert capsys.readouterr().err == "heads: 950/1000, 5/s, 10 s left\n"
    show = log_lines(every=0.0)
    show(0, 10, "videos")  # nothing done says nothing of the time left
    assert capsys.readouterr().err == "videos: 0/10\n"


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


def commands(group, *names):
    """Yield the words of every command below a group, and the command."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        else:
            yield (*names, name), command


@pytest.mark.parametrize(("words", "command"), list(commands(main)))
def test_every_command_has_examples_that_parse(words, command):
    least = 2 if words[0] in ("extract", "fit", "compare", "score") else 1
    assert len(command.examples) >= least
    for line in command.examples:
        program, *arguments = shlex.split(line.partition(" > ")[0])
        assert (program, *arguments[: len(words)]) == ("aqa", *words)
        assert command.make_context(words[-1], arguments[len(words) :])


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.04, "0.04 s"),
        (0.43, "0.4 s"),
        (0.99, "1 s"),
        (8, "8 s"),
        (100, "100 s"),
        (4000, "67 min"),
        (200_000, "55.6 h"),
    ],
)
def test_durations_are_said_in_a_unit_that_fits(seconds, said):
    assert console.duration(seconds) == said
