"""A short text for the customer for each verdict. It names no id, no account and no internal word."""

from __future__ import annotations

from webhook.explain.outcome import Verdict
from webhook.explain.settlement import settlement
from webhook.explain.story import EventStory, GenerationStory, SaleStory, Story, UserStory
from webhook.explain.wording import counted, day, money

_CORRECTING = (
    "We could not add its credits to your account automatically. "
    "We are correcting this now and will write to you as soon as the credits are there."
)
_SIGNED_IN = (
    "If you do not see the credits, please check that you are signed in with the account that you used for the payment."
)
_SEND_DETAILS = (
    "Please send us the receipt that you got by email. If you do not have it, send us the day and the amount of the "
    "payment, the last four digits of the card, and the email address that you used for it."
)
_REFUND_ONE = "If you wanted to pay only once, please tell us and we will refund one of them."

_REPLIES = {
    "granted": f"{{granted}} {_SIGNED_IN}",
    "taken_back": "{granted} {taken_back}",
    "paid_twice": "{granted} We see another payment of the same amount at about the same time, and its credits were "
    f"added as well. {_REFUND_ONE}",
    "pending": "{payment} is not confirmed by your bank yet. This can take several days with your method of payment. "
    "The credits are added to your account automatically as soon as it is confirmed.",
    "never_paid": "{payment} was never confirmed by your bank, so you were probably not charged. Please check your "
    "bank statement. If the money was taken, please send us the receipt. If not, please try again.",
    "parked": f"{{payment}} arrived. {_CORRECTING}",
    "parked_granted": "{granted} We are checking a later change of this payment and will write to you again.",
    "no_credits": "{payment} arrived. It was not a purchase of credits, so no credits belong to it.",
    "erased": "The account of this payment was deleted, so we have no details about it any more.",
    "discarded": "{payment} was checked before, and no credits were added for it. We will look at it again.",
    "candidates": "We found several payments. Please send us the day and the exact amount of the payment, so that we "
    "can find yours.",
    "nothing": f"We could not find your payment yet. {_SEND_DETAILS}",
    "user_pending": "Your payment is not confirmed by your bank yet. Your account has {available} at the moment. "
    "The credits of the payment are added automatically as soon as it is confirmed.",
    "user_paid_twice": "We see two payments of the same amount within a day. The credits of both were added, and your "
    f"account has {{available}}. {_REFUND_ONE}",
    "user_debt": "One of your payments was refunded after its credits had been used. The next credits that you buy "
    "cover this difference of {debt} first.",
    "user_without_purchase": f"Your account has {{available}}, and no payment for it has arrived. {_SEND_DETAILS}",
    "generation_paid": "Your generation was made and cost {cost}. Your account has {available} now.",
    "generation_refunded": "Your generation cost {cost}, and we gave them back. Your account has {available} now.",
    "generation_released": "Your generation was not made and cost nothing. Your account has {available} now.",
    "generation_expired": "Your generation was not made and cost nothing. Your account has {available} now.",
    "generation_held": "Your generation is still being made. Your account has {available} for other ones now.",
    "user_fine": f"Your account has {{available}}. {_SIGNED_IN}",
}


def reply(verdict: Verdict, story: Story | None) -> str:
    """Return the text for a verdict; ``story`` is ``None`` if none or several were found."""
    sale = story.sale if isinstance(story, EventStory) else story if isinstance(story, SaleStory) else None
    code = verdict.code
    if code == "parked" and sale and any(row.type == "PURCHASE" for row in sale.rows):
        code = "parked_granted"
    values = _values_of_user(story) if isinstance(story, UserStory | GenerationStory) else _values_of_sale(sale)
    return f"Hello,\n\n{_REPLIES.get(code, _REPLIES['parked']).format(**values)}\n\nKind regards"


def _values_of_user(story: UserStory | GenerationStory) -> dict[str, str]:
    available = story.user.available
    cost = -story.entry.amount if isinstance(story, GenerationStory) and story.entry else 0
    return {
        "payment": "Your payment",
        "available": counted(max(available, 0), "credit"),
        "cost": counted(cost, "credit"),
        "debt": counted(max(-available, 0), "credit"),
    }


def _values_of_sale(story: SaleStory | None) -> dict[str, str]:
    return {"payment": _payment(story), "granted": _granted(story), "taken_back": _taken_back(story)}


def _payment(story: SaleStory | None) -> str:
    amount, currency = story.price if story else (None, None)
    return f"Your payment of {money(amount, currency)}" if amount and currency else "Your payment"


def _granted(story: SaleStory | None) -> str:
    purchase = next((row for row in story.rows if row.type == "PURCHASE"), None) if story else None
    if story is None or purchase is None:
        return f"{_payment(story)} arrived, and its credits were added to your account."
    result = settlement(story)  # An operator may have assigned other credits than the purchase granted.
    number, at = counted(result.credits if result else purchase.amount, "credit"), day(purchase.created_at)
    return f"{_payment(story)} arrived, and {number} were added to your account on {at}."


def _taken_back(story: SaleStory | None) -> str:
    result = settlement(story) if story else None
    if story is None or result is None:
        return ""
    disputed = any(each.is_dispute and each.money_amount for each in story.reversals)
    cause = "disputed with your bank" if disputed else "refunded"
    part = "It was" if result.target == 0 else "A part of it was"
    return f"{part} {cause} later, so {counted(result.credits - result.target, 'credit')} were removed again."
