"""What is known of a sale before an action: its account, its payer, and what Stripe reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from webhook.events.fields import IDENTIFIER
from webhook.events.sales import user_id_of
from webhook.explain.records import Rows, record
from webhook.explain.reported import Reported
from webhook.explain.story import EventStory, SaleStory, User, load_event, load_sale
from webhook.explain.wording import weekday


@dataclass(frozen=True)
class Known:
    """A sale, or a parked event whose sale is not recorded yet."""

    owner: User | None
    """The account that has the sale now."""
    payer_email: str | None
    """Known while an event of the sale is parked."""
    reported: Reported | None
    """What Stripe reports, whatever an operator assigned."""

    @property
    def day(self) -> str | None:
        """The day of the payment with its name, such as ``Tuesday, 2026-11-24``."""
        return weekday(self.reported.at) if self.reported and self.reported.at else None


def load_known(name: str, ledger: Rows) -> Known | None:
    """Return what is known of the sale of an event or payment; raises :class:`LedgerUnavailableError`."""
    if not IDENTIFIER.fullmatch(name):
        return None
    if event := load_event(ledger, name):
        return _of_event(event)
    sale = load_sale(ledger, name)
    return _of_sale(sale) if sale else None


def load_account(user_id: str | None, ledger: Rows) -> User | None:
    """Return an account; ``None`` if there is none, or if this is another system's id."""
    found = ledger.rows("explain_user", user_id=user_id) if user_id_of(user_id) else []
    return record(User, found[0]) if found else None


def names_of(user_ids: Iterable[str], ledger: Rows) -> dict[str, str]:
    """Return what people call the users: their e-mail addresses, else their ids."""
    accounts = {user_id: load_account(user_id, ledger) for user_id in user_ids}
    return {user_id: (account and account.email) or user_id for user_id, account in accounts.items()}


def other_payer(known: Known | None, account: User | None) -> str | None:
    """Return the payer's address if it is not that of the account; ``None`` if one of them is not known."""
    if known is None or account is None or not (known.payer_email and account.email):
        return None
    return known.payer_email if known.payer_email.casefold() != account.email.casefold() else None


def _of_event(story: EventStory) -> Known:
    sale = _of_sale(story.sale) if story.sale else Known(None, None, None)
    return Known(sale.owner, story.event.payer_email or sale.payer_email, story.reported or sale.reported)


def _of_sale(story: SaleStory) -> Known:
    payer = next((event.payer_email for event in story.parked if event.payer_email), None)
    return Known(story.user, payer, story.reported or _reported(story))


def _reported(story: SaleStory) -> Reported | None:
    """Return what the facts report. A number of credits that an operator assigned is not among them."""
    if story.sale is None:
        return None
    facts = [each for each in story.facts if each.payment_id == story.sale.payment_id]
    most = max((each for each in facts if each.credits is not None), key=lambda each: each.version, default=None)
    sale = story.sale
    return Reported("sale", most.credits if most else None, sale.money_amount, sale.currency, sale.paid)
