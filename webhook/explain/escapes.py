"""Text from outside, made safe for a terminal."""

from __future__ import annotations

DELETE = 0x7F
"""The last code of ASCII."""


def printable(text: str) -> str:
    r"""Return the text with every character that is not printable as an escape, such as ``\x1b`` or ``\u202e``.

    These are control characters (C0, C1, DEL), bidirectional and other format characters, line separators and
    surrogates. A terminal could execute or hide them.
    """
    return "".join(each if each.isprintable() else _escape(ord(each)) for each in text)


def _escape(code: int) -> str:
    return chr(code).encode("ascii", "backslashreplace").decode() if code > DELETE else f"\\x{code:02x}"
