"""The commands that act as an operator: assign, adjust, discard: options and help."""
# ruff: noqa: D301 - Click does not wrap a paragraph that begins with \b

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import click

from webhook.cli.exit_codes import FOUND, OK, Command, command
from webhook.cli.text_option import TextParameter
from webhook.commands import adjust, assign, parked
from webhook.commands.operator import system_user
from webhook.ledger.operator import Adjustment, Operator

MOST_CREDITS = 1_000_000_000
"""The largest adjustment, in credits."""


class CreditsParameter(click.ParamType[int]):
    """A whole number of credits, not 0. Its command has to ignore unknown options: ``-50`` looks like one."""

    name = "credits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; raises :class:`click.UsageError`."""
        text = str(value)
        if re.match(r"--?[a-z]", text):
            raise click.NoSuchOption(text, ctx=ctx)
        if not re.fullmatch(r"[+-]?[0-9]{1,10}", text) or not 0 < abs(int(text)) <= MOST_CREDITS:
            self.fail(f"it must be a whole number from 1 to {MOST_CREDITS}, or below 0 to take credits", param, ctx)
        return int(text)


def _as_operator(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Add the options of an action, and pass them on as ``operator``."""

    @click.option("--reason", required=True, type=TextParameter(), help="Why. Only your team sees it.")
    @click.option(
        "--by",
        metavar="NAME",
        type=TextParameter(),
        help="Your name. Default: the system user. The database login is stored, too.",
    )
    def run(*, reason: str, by: str | None, **options: Any) -> int | None:
        return function(operator=Operator(by or system_user(), reason), **options)

    run.__doc__ = function.__doc__
    return run


_id_option = click.option(
    "--id", "action_id", metavar="UUID", type=click.UUID, help="Repeats an action: the same id acts once."
)
_debt_option = click.option("--allow-debt", is_flag=True, help="Take credits that a user has spent or holds.")


@command("assign")
@click.argument("name", metavar="EVENT_OR_PAYMENT_ID")
@click.option("--user", "user_id", metavar="UUID", type=click.UUID, help="The user who gets the credits.")
@click.option("--credits", "credits_", metavar="N", type=click.IntRange(1, MOST_CREDITS), help="The credits it sells.")
@click.option("--withdraw", "withdraws", is_flag=True, help="End the latest assignment instead.")
@_id_option
@_debt_option
@_as_operator
def assign_command(  # noqa: PLR0913 - one for each option
    *,
    name: str,
    user_id: uuid.UUID | None,
    credits_: int | None,
    withdraws: bool,
    action_id: uuid.UUID | None,
    allow_debt: bool,
    operator: Operator,
) -> int:
    """Set who a sale is for, or how many credits it sells.

    \b
    Example:
      webhook assign evt_123 --credits 100 --reason "metadata forgotten"

    It takes a parked event, or a payment (pi_…, in_…, cs_…), also one that was granted to the wrong user: that user's
    credits are taken back. Later refunds settle on the right user. The money comes from Stripe, so an unpaid sale
    waits for its payment. Exit codes: 0 = the sale lacks nothing, 1 = it is not settled yet, 2 = nothing was changed.
    """
    if withdraws == bool(user_id or credits_):
        raise click.UsageError("give --user, --credits or both; or --withdraw alone")
    user = None if user_id is None else str(user_id)
    request = assign.Request(name, user, credits_, str(action_id or uuid.uuid4()), withdraws, allow_debt)
    return OK if assign.assign(request, operator) else FOUND


@click.command("adjust", cls=Command, context_settings={"ignore_unknown_options": True})
@click.argument("user_id", metavar="USER", type=click.UUID)
@click.argument("credits_", metavar="CREDITS", type=CreditsParameter())
@click.option("--description", metavar="TEXT", type=TextParameter(), help="What the user's history shows.")
@_id_option
@_debt_option
@_as_operator
def adjust_command(  # noqa: PLR0913 - one for each option
    *,
    user_id: uuid.UUID,
    credits_: int,
    description: str | None,
    action_id: uuid.UUID | None,
    allow_debt: bool,
    operator: Operator,
) -> None:
    """Give credits to a user, or take them with a number below 0.

    \b
    Example:
      webhook adjust 1f0c7a3e-5a3b-4c62-9c1e-0d6a3f1f6a10 -50 --reason mistake

    The id is printed first. If there is no answer, repeat the command with --id: it acts once.
    """
    adjustment = Adjustment(str(action_id or uuid.uuid4()), str(user_id), credits_, description)
    adjust.adjust(adjustment, operator, allow_debt=allow_debt)


@command("discard")
@click.argument("event_ids", nargs=-1, required=True, metavar="EVENT_ID...")
@_as_operator
def discard_command(*, event_ids: tuple[str, ...], operator: Operator) -> None:
    """Remove parked events from the list without settling them.

    \b
    Example:
      webhook discard evt_123 --reason "a test purchase"

    The payload is deleted after 30 days. `webhook parked EVENT_ID` shows who discarded the event, when and why. A
    discarded event never returns to the list. If Stripe delivers it again, it is settled if possible. Other events of
    its sale are not affected. If one of the given events is not parked, none is discarded and the exit code is 2.
    """
    parked.discard(event_ids, operator)


COMMANDS = (assign_command, adjust_command, discard_command)
