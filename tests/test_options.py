"""What several commands understand in the same way."""

import click
import pytest
from click.testing import CliRunner

from aqa.cache.console import actions_option, workers_option


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
