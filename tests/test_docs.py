"""The documents are part of the product: they name every command, and truly."""

import re
from pathlib import Path

import click
import pytest

import aqa
from aqa.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(group, path=("aqa",)):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(main))


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help_and_stands_in_the_readme(name):
    command = COMMANDS[name]
    assert command.help, f"{name} has no help"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"
    assert f"`{name}" in README or re.search(rf"^{name}\b", README, re.M), name


def test_readme_names_no_command_that_is_not_there():
    said = set(re.findall(r"^aqa ([a-z][a-z ]*[a-z])(?= |$)", README, re.M))
    said |= set(re.findall(r"`aqa ([a-z]+(?: [a-z]+)?)", README))
    known = {name.removeprefix("aqa ") for name in COMMANDS}
    groups = {name.split()[0] for name in known if " " in name}
    for words in said:
        first = words.split()[0]
        assert first in known or first in groups, words
        if first in groups and " " in words:
            assert " ".join(words.split()[:2]) in known, words


def test_readme_gives_the_two_commands():
    assert "make demo" in README
    assert "make test" in README


def test_changelog_speaks_of_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {aqa.__version__}" in changelog
