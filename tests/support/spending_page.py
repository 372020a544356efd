"""docs/how-to/spend.md and show-balance.md, and their snippets."""

from __future__ import annotations

import re

from support.project import DOCS
from support.roles import ALICE

GENERATION = "11111111-0000-4000-8000-000000000001"
JOB = "22222222-0000-4000-8000-000000000002"


def snippets(language: str, page: str = "spend") -> list[str]:
    """Return the page's snippets in this language, with the ids of Alice, a generation and a job filled in."""
    text = (DOCS / "how-to" / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [
        snippet.replace("<user id>", ALICE).replace("<generation id>", GENERATION).replace("<job id>", JOB)
        for snippet in found
    ]
