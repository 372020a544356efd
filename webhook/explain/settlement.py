"""The settlement of a sale with its numbers, computed from the facts as the database computes it."""

from __future__ import annotations

from dataclasses import dataclass

from webhook.explain.story import SaleStory


@dataclass(frozen=True)
class Settlement:
    """What a paid sale keeps. Credits are whole, money is in minor units of the sale's currency."""

    credits: int
    money_amount: int
    reversed: int
    """The money of all refunds and disputes together. One in another currency takes all of the sale's money."""
    target: int
    """The credits that the sale keeps."""
    granted: int
    """The credits that the user has from the ledger rows of the sale."""
    elsewhere: int
    """The credits that other users have from them. It should be 0."""

    @property
    def formula(self) -> str:
        """The numbers of the rule, such as ``100 - floor(100 * 550 / 1000) = 45``."""
        if not (self.reversed and self.money_amount):
            return f"{self.credits} - 0 = {self.target}"
        taken = min(self.reversed, self.money_amount)
        return f"{self.credits} - floor({self.credits} * {taken} / {self.money_amount}) = {self.target}"

    @property
    def is_settled(self) -> bool:
        """Whether the ledger rows match it."""
        return self.granted == self.target and self.elsewhere == 0


def settlement(story: SaleStory) -> Settlement | None:
    """Return the settlement of a sale, ``None`` if it is not paid or cannot be settled."""
    sale = story.sale
    if sale is None or not sale.paid or story.unsettled_reason or sale.credits is None or sale.money_amount is None:
        return None
    gone = sum(
        each.money_amount if each.currency == sale.currency or not each.money_amount else sale.money_amount
        for each in story.reversals
    )
    taken = sale.credits * min(gone, sale.money_amount) // sale.money_amount if sale.money_amount else 0
    of_user = [row.amount for row in story.rows if row.user_id == sale.user_id]
    return Settlement(
        credits=sale.credits,
        money_amount=sale.money_amount,
        reversed=gone,
        target=sale.credits - taken,
        granted=sum(of_user),
        elsewhere=sum(row.amount for row in story.rows if row.user_id != sale.user_id),
    )
