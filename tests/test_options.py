"""What several commands understand in the same way."""

import click
import pytest
from click.testing import CliRunner

from aqa.cache.console import (
    GroupedCommand,
    actions_option,
    device_option,
    json_option,
    workers_option,
)


@click.command()
@actions_option
@workers_option
def echo(actions, workers):
    click.echo(f"{actions} {workers}")


@pytest.mark.parametrize(
    ("text", "said"),
    [("a,b", "('a', 'b')"), (" a , b ", "('a', 'b')"), ("", "None")],
)
def test_actions_are_names_without_blanks(text, said):
    ran = CliRunner().invoke(echo, ["--actions", text])
    assert ran.output == f"{said} None\n"


def test_a_comma_too_many_is_refused():
    ran = CliRunner().invoke(echo, ["--actions", "a,,b"])
    assert ran.exit_code == 2
    assert "a comma between them" in ran.output


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
    ("slip", "meant"),
    [("--input", "--videos"), ("--gpu", "--device"), ("--video", "--videos")],
)
def test_options_of_other_tools_are_answered(slip, meant):
    ran = CliRunner().invoke(grouped, [slip, "x"])
    assert ran.exit_code == 2
    assert f"did you mean {meant}?" in ran.output


def test_options_that_nothing_stands_for_get_no_suggestion():
    ran = CliRunner().invoke(grouped, ["--lr", "1"])
    assert ran.exit_code == 2 and "No such option" in ran.output
    assert "learning" not in ran.output
