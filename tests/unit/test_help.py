"""The ``--help`` output of every command."""

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
def test_help_of_each_command_fits_80_columns(path: tuple[str, ...]) -> None:
    """No line is longer, and no summary in a list of commands is truncated."""
    result = CliRunner().invoke(commands, [*path, "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    assert not any(line.endswith("...") and "Usage:" not in line for line in result.output.splitlines())


@pytest.mark.parametrize("path", list(every_command(commands)), ids=" ".join)
def test_help_example_of_each_command_is_valid(path: tuple[str, ...]) -> None:
    """The example follows the summary, and click parses it without an error."""
    lines = CliRunner().invoke(commands, [*path, "--help"]).output.splitlines()
    assert lines[4] == "  Example:"
    words = shlex.split(lines[5])
    assert words[: len(path) + 1] == ["webhook", *path]
    command: click.Command = commands
    while isinstance(command, click.Group) and words[1:2] != ["--by"]:
        words = words[1:]
        command = command.commands[words[0]]
    command.make_context(words[0], words[1:])
