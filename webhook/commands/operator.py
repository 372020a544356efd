"""What the commands of operators share: their name, their ledger and the log line of an action."""

from __future__ import annotations

import os
import pwd
import sys
from contextlib import closing

import structlog

from webhook.ledger.operator import Operator, OperatorLedger
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


def log_action(action: str, number: int, operator: Operator, **details: int | str) -> None:
    """Write the warning of an action that was committed. It names no user and no reason."""
    logs.set_up(as_json=read_logs_json())
    log = structlog.get_logger("webhook")
    log.warning("operator action", action=action, number=number, by=operator.by, channel=operator.channel, **details)
