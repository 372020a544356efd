"""The program ``webhook`` and its list of commands."""
# ruff: noqa: D301 - Click does not wrap a paragraph that begins with \b

from __future__ import annotations

import click

from webhook import __version__
from webhook.cli import checks, console, endpoint, explain, operator, parked, serving
from webhook.cli.exit_codes import exit_on_unwritable_help


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="webhook")
def commands() -> None:
    """Turn Stripe's webhook events into credits in Postgres.

    \b
    Example:
      webhook doctor
    """


_GROUPS = (serving, explain, console, parked, operator, checks)

for each in (*(command for group in _GROUPS for command in group.COMMANDS), endpoint.endpoint_commands):
    commands.add_command(each)


def main() -> None:
    """Run the command line; what the ``webhook`` program calls."""
    with exit_on_unwritable_help():
        commands()
