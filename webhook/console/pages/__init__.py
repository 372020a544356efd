"""The pages of the console: each module registers its own."""

from __future__ import annotations

from webhook.console.console import Console
from webhook.console.pages import adjust, assign, bulk, home, parked, reconcile, reloaded, sales, search, users


def register(console: Console) -> None:
    """Add all pages."""
    for module in (home, search, sales, users, parked, reconcile, adjust, assign, bulk, reloaded):
        module.register(console)
