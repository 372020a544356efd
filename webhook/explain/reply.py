"""A short text for the customer for each verdict. It names no id, no account and no internal word."""

from __future__ import annotations

from webhook.explain.outcome import Verdict
from webhook.explain.settlement import settlement
from webhook.explain.story import EventStory, GenerationStory, SaleStory, Story, UserStory
from webhook.explain.user_verdict import is_correction, purchases_of
from webhook.explain.wording import counted, day, money

_CORRECTING = (
    "We could not add its credits to your account automatically. "
    "We are correcting this now and will write to you as soon as the credits are there."
)
_SIGNED_IN = (
    "If you do not see the credits, please check that you are signed in with the account that you used for the payment."
)
_SEND_DETAILS = (
    "Please send us the receipt that you got by e-mail. If you do not have it, send us the day and the amount of the "
    "payment, the last four digits of the card, and the e-mail address that you used for it."
)
_PROVE = (
    "Thank you for your message. Please send us the receipt that you got by e-mail, or write to us from the e-mail "
    "address that you used for the payment. Please also name the e-mail address of the account that should have the "
    "credits."
)
_SORRY = "We are sorry for the trouble."
_REFUND_ONE = "If you wanted to pay only once, please tell us and we will refund one of them."

_REPLIES = {
    "granted": f"{{granted}} {_SIGNED_IN}",
    "assigned": f"{_SORRY} {{granted}}",
    "granted_elsewhere": "The credits of the payment were added to an account with another e-mail address than the one "
    "that was used for the payment. Please answer with the e-mail address of the account that should have them.",
    "unknown_account": _PROVE,
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
    "user_assigned": f"{_SORRY} Your account has {{available}} now.",
    "user_empty": "Your account has {available} at the moment. If you expected more, please send us the receipt that "
    "you got by e-mail.",
}


def reply(verdict: Verdict, story: Story | None) -> str:
    """Return the text for a verdict; ``story`` is ``None`` if none or several were found."""
    sale = story.sale if isinstance(story, EventStory) else story if isinstance(story, SaleStory) else None
    code = _code_of_user(story) if verdict.code == "user_fine" and isinstance(story, UserStory) else verdict.code
    if not isinstance(story, UserStory | GenerationStory):
        code = _code_of_sale(verdict, sale)
    values = _values_of_user(story) if isinstance(story, UserStory | GenerationStory) else _values_of_sale(sale)
    return f"Hello,\n\n{_REPLIES.get(code, _REPLIES['parked']).format(**values)}\n\nKind regards"


def _code_of_sale(verdict: Verdict, sale: SaleStory | None) -> str:
    """Return the text for a sale. A sender is not known to be the payer until the account is known."""
    is_settled = sale is not None and any(row.type == "PURCHASE" for row in sale.rows)
    match verdict.code:
        case "parked" if is_settled:
            return "parked_granted"
        case code if code in ("parked", "unsettled") or code not in _REPLIES:
            return "parked" if sale and sale.user else "unknown_account"
        case "granted" if verdict.needs_attention:
            return "granted_elsewhere"
        case "granted" if sale and sale.assignment:
            return "assigned"
        case code:
            return code


def _code_of_user(story: UserStory) -> str:
    if story.user.available <= 0:
        return "user_empty"
    purchases = purchases_of(story.rows)
    return "user_assigned" if purchases and is_correction(purchases[0]) else "user_fine"


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
    number = counted(result.credits if result else purchase.amount, "credit")
    # The day of an assignment is not that of the payment, and the customer does not know the former.
    at = "" if story.assignments else f" on {day(purchase.created_at)}"
    return f"{_payment(story)} arrived, and {number} were added to your account{at}."


def _taken_back(story: SaleStory | None) -> str:
    result = settlement(story) if story else None
    if story is None or result is None:
        return ""
    disputed = any(each.is_dispute and each.money_amount for each in story.reversals)
    cause = "disputed with your bank" if disputed else "refunded"
    part = "It was" if result.target == 0 else "A part of it was"
    return f"{part} {cause} later, so {counted(result.credits - result.target, 'credit')} were removed again."
