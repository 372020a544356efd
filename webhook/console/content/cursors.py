"""Addresses of the further pages of a user's ledger. They are signed: the balance in them must not be forged."""

from __future__ import annotations

import hashlib

from itsdangerous import BadSignature, Signer

from webhook.console.console import Console
from webhook.explain.story import Cursor


def signed(console: Console, user_id: str, cursor: Cursor) -> str:
    """Return the text of a cursor for an address that a colleague can open, too."""
    return _signer(console, user_id).sign(str(cursor)).decode()


def read(console: Console, user_id: str, text: str) -> Cursor | None:
    """Return the cursor; ``None`` if it is not signed for this user: then the first page is shown."""
    try:
        return Cursor.parse(_signer(console, user_id).unsign(text).decode())
    except (BadSignature, UnicodeDecodeError):
        return None


def _signer(console: Console, user_id: str) -> Signer:
    return Signer(console.page_key, salt=f"webhook.console.ledger.{user_id}", digest_method=hashlib.sha256)
