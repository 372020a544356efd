"""The log line of an operator's action."""

from __future__ import annotations

import structlog

from webhook.ledger.operator import Operator


def log_action(action: str, number: int, operator: Operator, **details: int | str) -> None:
    """Write the warning of an action that was committed. It names no user and no reason."""
    log = structlog.get_logger("webhook")
    log.warning("operator action", action=action, number=number, by=operator.by, channel=operator.channel, **details)
