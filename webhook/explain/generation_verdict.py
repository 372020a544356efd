"""The verdict on a generation."""

from __future__ import annotations

from webhook.explain.outcome import Verdict
from webhook.explain.records import Hold
from webhook.explain.story import GenerationStory
from webhook.explain.wording import counted, moment


def of_generation(story: GenerationStory) -> Verdict:
    """Return the verdict on a generation: what it cost, or what became of its hold."""
    if story.entry and story.refund:
        cost, given_back = counted(-story.entry.amount, "credit"), moment(story.refund.created_at)
        return Verdict("generation_refunded", f"The generation cost {cost}, which were given back on {given_back}.")
    if story.entry:
        cost = counted(-story.entry.amount, "credit")
        return Verdict("generation_paid", f"The generation cost {cost} on {moment(story.entry.created_at)}.")
    if story.hold:
        return _of_hold(story, story.hold)
    return Verdict("generation_unknown", "The generation has no ledger row and no hold.")


def _of_hold(story: GenerationStory, hold: Hold) -> Verdict:
    held = counted(hold.amount, "credit")
    if hold.released_at:
        return Verdict("generation_released", f"The generation cost nothing: its hold of {held} was released.")
    if hold.expires_at <= story.read_at:
        return Verdict("generation_expired", f"The generation cost nothing: its hold of {held} has expired.")
    return Verdict("generation_held", f"The generation holds {held} until {moment(hold.expires_at)}.")
