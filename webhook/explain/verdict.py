"""The verdict on a story: one sentence, whether it needs attention, and what to do. Pure functions."""

from __future__ import annotations

from dataclasses import replace

from webhook.explain.generation_verdict import of_generation
from webhook.explain.outcome import Verdict, discarded, paid_by, parked
from webhook.explain.sale_verdict import of_sale
from webhook.explain.story import EventStory, GenerationStory, SaleStory, Story, UserStory
from webhook.explain.user_verdict import of_user

__all__ = ["Verdict", "verdict"]


def verdict(story: Story) -> Verdict:
    """Return the verdict on a sale, a user or a parked event."""
    match story:
        case SaleStory():
            return of_sale(story)
        case UserStory():
            return of_user(story)
        case GenerationStory():
            return of_generation(story)
        case EventStory():
            return _of_event(story)


def _of_event(story: EventStory) -> Verdict:
    event = story.event
    if event.resolution is None:
        found = parked(event, is_granted=bool(story.sale and story.sale.rows), reported=story.reported)
        return replace(found, note=paid_by(event.payer_email, story.sale.user if story.sale else None))
    if event.resolution == "discarded":
        return discarded(event)
    if story.sale:
        return of_sale(story.sale)
    return Verdict("event_settled", f"The event {event.id} was parked as {event.reason}, and is settled.")
