"""The commands of the console: options and help."""
# ruff: noqa: D301 - Click does not wrap a paragraph that begins with \b

from __future__ import annotations

import click

from webhook.cli.exit_codes import Command, command
from webhook.cli.text_option import TextParameter
from webhook.commands import console
from webhook.commands.operator import system_user


class _CommandWithSubcommands(Command, click.Group):
    """A command with subcommands and with the exit codes of every command."""


@click.group("console", cls=_CommandWithSubcommands, invoke_without_command=True)
@click.option("--by", metavar="NAME", type=TextParameter(), help="Your name. Default: the system user; root names one.")
@click.pass_context
def console_command(context: click.Context, *, by: str | None) -> None:
    """Explain and repair payments in the browser.

    \b
    Example:
      webhook console --by ann

    It serves the console for you alone on 127.0.0.1 until Ctrl-C. It prints an address that works once, within 60
    seconds. It connects to OPERATOR_DATABASE_URL, by default DATABASE_URL. Without a subcommand it needs no token.
    """
    if context.invoked_subcommand:
        return
    if by is None and console.is_root():
        raise click.UsageError("root names no person: give --by NAME")
    console.serve(by or system_user())


@command("token")
@click.argument("name")
@click.option("--operator", is_flag=True, help="It may change something, not only view.")
def token_command(name: str, *, operator: bool) -> None:
    """Print a new token and its entry for CONSOLE_TOKENS.

    \b
    Example:
      webhook console token ann --operator

    Give the token to its person in private: it is not stored. The entry goes into CONSOLE_TOKENS of the worker,
    separated from others by a comma.
    """
    console.make_token(name, operator=operator)


console_command.add_command(token_command)
COMMANDS = (console_command,)
