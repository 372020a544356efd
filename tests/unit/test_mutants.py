"""`make mutants`: the code that each mutant removes exists."""

from __future__ import annotations

import pytest

from tools.mutant import Mutant
from tools.mutants import ALL, PROJECT


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_mutant_text_occurs_once_in_its_file(mutant: Mutant) -> None:
    assert (PROJECT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
