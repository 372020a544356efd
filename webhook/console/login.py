"""A login, and the values that are signed for it: its cookie and its notices."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from itsdangerous import BadData, URLSafeTimedSerializer

VIEWER, OPERATOR = "viewer", "operator"


@dataclass(frozen=True)
class Login:
    """The person who uses the console."""

    name: str
    role: str
    """``viewer`` or ``operator``."""
    key: str = field(repr=False)
    """The secret that signs values for this login."""
    may_act: bool = False
    """Whether changes work: an operator, and the database login is a member of ``billing_operator``."""

    def sign(self, purpose: str, value: Any) -> str:
        """Return the signed value for a cookie."""
        return _serializer(self.key, purpose).dumps(value)

    def read(self, purpose: str, signed: str, *, max_age: int) -> Any:
        """Return the value that was signed for the same purpose within ``max_age`` seconds, else ``None``."""
        try:
            return _serializer(self.key, purpose).loads(signed, max_age=max_age)
        except BadData:
            return None


def _serializer(key: str, purpose: str) -> URLSafeTimedSerializer:
    signer = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    return URLSafeTimedSerializer(key, salt=f"webhook.console.{purpose}", signer_kwargs=signer)
