"""What the commands of operators share: their name, their ledger and their log."""

from __future__ import annotations

import os
import pwd
import sys
from contextlib import closing

from webhook.ledger.operator import OperatorLedger
from webhook.observability import logs
from webhook.settings import Environment, read_logs_json, read_operator_database_url

OPERATOR_COMMANDS = "webhook assign, adjust and discard"


def operator_ledger(environ: Environment = os.environ) -> closing[OperatorLedger]:
    """Return the ledger at ``OPERATOR_DATABASE_URL``, else ``DATABASE_URL``; raises :class:`SettingsError`."""
    return closing(OperatorLedger(read_operator_database_url(environ)))


def is_interactive() -> bool:
    """Return whether a person can be asked: standard input and error are terminals."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def system_user() -> str:
    """Return the name of the operating system's user, or its id if it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def set_up_log() -> None:
    """Write the log lines of actions to standard error, in the form of the worker's lines."""
    logs.set_up(as_json=read_logs_json())
