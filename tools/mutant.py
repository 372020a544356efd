"""A safeguard, and the replacement that removes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A safeguard, and the replacement that removes it."""

    name: str
    file: str
    old: str
    new: str
    suite: tuple[str, ...] = ()
    """The tests of which one has to fail; none for those of settlement and spending."""
