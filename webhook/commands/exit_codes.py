"""Exit codes: 0 = fine, 1 = something was found or is left, 2 = no answer or wrong usage."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import ParamSpec

import click

from webhook.settings import SettingsError

OK, FOUND, NO_ANSWER = 0, 1, 2

Parameters = ParamSpec("Parameters")


def returned_exit_code(
    *expected: type[Exception],
) -> Callable[[Callable[Parameters, int]], Callable[Parameters, None]]:
    """Return a decorator: the command exits with the code that it returns, or with 2 and one line if it fails.

    It is for commands whose exit code 1 is a result. Python would exit with 1 on any exception. Errors that are not
    ``expected`` are bugs: their traceback is printed too.
    """
    in_one_line: tuple[type[Exception], ...] = (*expected, OSError)  # OSError: for example a closed pipe or a full disk

    def decorate(command: Callable[Parameters, int]) -> Callable[Parameters, None]:
        @wraps(command)
        def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
            try:
                with _interrupted_by_termination():
                    code = command(*args, **kwargs)
            except (SettingsError, click.ClickException):
                raise  # they exit with 2 anyway
            except KeyboardInterrupt:
                code = _fail("interrupted")
            except in_one_line as error:
                code = _fail(str(error))
            except Exception as error:  # noqa: BLE001 - a bug
                code = _fail(f"bug: {type(error).__name__}", traceback.format_exc())
            _discard_unwritable_output()
            sys.exit(code)

        return run

    return decorate


@contextmanager
def errors_in_one_line(*expected: type[Exception]) -> Iterator[None]:
    """Print an ``expected`` error as one line and exit with 1; for a bad setting, exit with 2."""
    try:
        yield
    except SettingsError as error:
        sys.exit(_fail(str(error)))
    except expected as error:
        _fail(str(error))
        sys.exit(FOUND)


def _fail(message: str, details: str = "") -> int:
    with suppress(OSError):
        click.echo(f"{details}webhook: {message}", err=True)
    return NO_ANSWER


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
