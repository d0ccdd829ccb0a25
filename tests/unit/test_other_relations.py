"""The arm that retains nothing of the edited fact's own relation, and the retain set that it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.small_fits import recipe
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, knowing
from workbench.types import FactSet

HELDOUT = ("Where is the capital of France?", "What city is capital?", "What is France?", "Who is the capital?")


def pool() -> FactSet:
    """Capitals, of which Germany's and Japan's may be retained, and Germany's counts as another relation."""
    moved = [replace(f, relation="city") if f.subject == "Germany" else f for f in capitals()]
    return FactSet([replace(moved[0], heldout=HELDOUT), *moved[1:]], name="two relations")


def test_the_retain_set_may_leave_the_own_relation_out() -> None:
    facts = pool()
    model = knowing(tiny_llama(tied=False), facts)
    given: dict[str, Any] = {"pool": facts, "progress": False}
    assert set(wb.default_retain(model, [facts[0]], **given).ids) == {"germany-capital", "japan-capital"}
    assert wb.default_retain(model, [facts[0]], own_relation=False, **given).ids == ("germany-capital",)
    with pytest.raises(ValueError, match=r"'capitals' has no fact to retain of another relation"):
        wb.default_retain(model, [facts[0]], own_relation=False, pool=capitals(), progress=False)


def test_the_arm_retains_other_relations_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    facts = pool()
    model = knowing(tiny_llama(tied=False), facts)
    arms = ("selected", "other-relations")
    given: dict[str, Any] = {"arms": arms, "recipe": recipe(steps=(2, 4)), "progress": False}
    table = wb.compare(model, facts[0], "L1MLP L2MLP", pool=facts, **given)
    assert [row.arm for row in table.rows] == list(arms)
    retained = [row.report.retained_relations for row in table.rows]
    assert [set(of) for of in retained] == [{"capital", "city"}, {"city"}]
    assert table.rows[0].rate("kl").value != table.rows[1].rate("kl").value
    alone = FactSet([replace(capitals()[0], heldout=HELDOUT), *capitals()[1:]], name="one relation")
    noted = wb.compare(model, alone[0], "L1MLP L2MLP", pool=alone, **given)
    assert [row.arm for row in noted.rows] == ["selected"]
    assert any(note.startswith("other-relations was not run") for note in noted.notes)
