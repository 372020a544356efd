"""Explains payments and users: what is known about them, a verdict in one sentence, and a reply to the customer."""

from webhook.explain.search import find
from webhook.explain.story import load_event, load_generation, load_sale, load_user
from webhook.explain.stripe_search import search_stripe
from webhook.explain.verdict import verdict

__all__ = ["find", "load_event", "load_generation", "load_sale", "load_user", "search_stripe", "verdict"]
