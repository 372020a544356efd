"""Exit codes: 0 = fine, 1 = something was found or is left, 2 = no answer or wrong usage."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from webhook.errors import ExpectedError

OK, FOUND, NO_ANSWER = 0, 1, 2

_CLICK = (click.ClickException, click.exceptions.Exit)


class Command(click.Command):
    """A command that exits with the code that its function returns, or with 2 and one line if that fails.

    ``None`` is 0. Python would exit with 1 on any exception, which is a result here. Errors that are not expected are
    bugs: their traceback is printed too.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and raise :class:`SystemExit` with its exit code."""
        code = self._run(ctx)
        _discard_unwritable_output()
        sys.exit(code)

    def _run(self, ctx: click.Context) -> int:
        try:
            with _interrupted_by_termination():
                return super().invoke(ctx) or OK
        except _CLICK:
            raise  # wrong usage: click exits with 2
        except (KeyboardInterrupt, click.Abort):
            return fail("interrupted")
        except (ExpectedError, OSError) as error:  # OSError: for example a closed pipe or a full disk
            return fail(str(error))
        except Exception as error:  # noqa: BLE001 - a bug
            return fail(f"bug: {type(error).__name__}", details=traceback.format_exc())


def command(name: str) -> Callable[[Callable[..., int | None]], Command]:
    """Return the decorator that makes a :class:`Command` of a function."""
    return click.command(name, cls=Command)


def fail(message: str, code: int = NO_ANSWER, *, details: str = "") -> int:
    """Print one line on standard error, after any ``details``, and return the exit code."""
    with suppress(OSError):
        click.echo(f"{details}webhook: {message}", err=True)
    return code


@contextmanager
def exit_on_unwritable_help() -> Iterator[None]:
    """Exit with 2 if click cannot print a help text or the version."""
    try:
        yield
    except OSError as error:
        code = fail(str(error))
        _discard_unwritable_output()
        sys.exit(code)


@contextmanager
def _interrupted_by_termination() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP like Ctrl-C. An ignored signal, as under nohup, stays ignored."""
    signals = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    try:
        for each in signals:
            signal.signal(each, signal.default_int_handler)
        yield
    finally:
        for each in signals:
            signal.signal(each, signal.SIG_DFL)


def _discard_unwritable_output() -> None:
    """Redirect what cannot be written to /dev/null, as https://docs.python.org/3/library/signal.html#note-on-sigpipe.

    Python would otherwise write it again at exit, fail again, and exit with 120.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None if the shell closed it
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
