"""docs/how-to/spend.md and its snippets."""

from __future__ import annotations

import re

from support.project import DOCS
from support.roles import ALICE

PAGE = (DOCS / "how-to" / "spend.md").read_text(encoding="utf-8")
GENERATION = "11111111-0000-4000-8000-000000000001"


def snippets(language: str) -> list[str]:
    """Return the page's snippets in this language, with the ids of Alice and a generation filled in."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [text.replace("<user id>", ALICE).replace("<generation id>", GENERATION) for text in found]
