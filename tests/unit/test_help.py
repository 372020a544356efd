"""What the command line says of itself."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from webhook.cli import commands


def every_command(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, *path, name)
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(every_command(commands)), ids=" ".join)
def test_help_of_each_command_is_whole_in_80_columns(path: tuple[str, ...]) -> None:
    """No line is too long for a terminal, and a list of commands cuts none of its summaries off."""
    result = CliRunner().invoke(commands, [*path, "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    assert not any(line.endswith("...") and "Usage:" not in line for line in result.output.splitlines())


@pytest.mark.parametrize("path", list(every_command(commands)), ids=" ".join)
def test_help_of_each_command_has_an_example_that_is_accepted(path: tuple[str, ...]) -> None:
    """It follows the summary; its arguments and options exist, and none that is required is missing."""
    lines = CliRunner().invoke(commands, [*path, "--help"]).output.splitlines()
    assert lines[4] == "  Example:"
    words = shlex.split(lines[5])
    assert words[: len(path) + 1] == ["webhook", *path]
    command: click.Command = commands
    while isinstance(command, click.Group):
        words = words[1:]
        command = command.commands[words[0]]
    command.make_context(words[0], words[1:])
