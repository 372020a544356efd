"""`make mutants` itself: that each safeguard it takes out is where it says."""

from __future__ import annotations

import pytest

from tools.mutants import MUTANTS, PROJECT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutants_text_stands_in_its_file_once(mutant: Mutant) -> None:
    assert (PROJECT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
