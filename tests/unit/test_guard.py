"""Guards: which facts become one, whose replies an edit changes, and how far an edit is turned up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.small_fits import FACTS, FRANCE, SPAIN
from tests.helpers.tiny_facts import capital, edit_of, some_gates, tiny
from workbench.editing.training.guard import Guard, guards_of
from workbench.types import Fact, FactSet


def lands(n: int, relation: str) -> list[Fact]:
    names = [f"{relation}land{i}" for i in range(n)]
    return [capital(name, "Paris", "Rome", "dev", "retain", relation=relation) for name in names]


def test_half_of_the_guards_are_neighbours_that_nothing_holds() -> None:
    near, far = lands(12, "capital"), lands(12, "currency")
    retained = FactSet([*near[:4], *far[:4]], name="held")
    guards, left = guards_of([FRANCE], retained, [*near, *far], 8, seed=0, may_take=True)
    assert [fact.relation for fact in guards] == ["capital"] * 4 + ["currency"] * 4
    assert left is retained and not {fact.id for fact in guards} & set(retained.ids)
    assert guards != guards_of([FRANCE], retained, [*near, *far], 8, seed=1, may_take=True)[0]


@pytest.mark.parametrize(("may_take", "taken"), [(True, 2), (False, 0)])
def test_at_most_a_third_of_the_retained_neighbours_is_taken(may_take: bool, taken: int) -> None:
    near, far = lands(6, "capital"), lands(9, "currency")
    retained = FactSet([*near, *far[:2]], name="held")
    guards, left = guards_of([FRANCE], retained, [*near, *far], 8, seed=0, may_take=may_take)
    assert [fact.relation for fact in guards] == ["capital"] * taken + ["currency"] * min(7, 8 - taken)
    assert set(left.ids) == set(retained.ids) - {fact.id for fact in guards} and len(left) == 8 - taken
    assert left.name == "held"


def test_no_guards_leave_everything_as_it_is() -> None:
    retained = FactSet(lands(6, "capital"), name="held")
    assert guards_of([FRANCE], retained, [*retained], 0, seed=0, may_take=True) == ([], retained)


def test_replies_that_change_are_counted() -> None:
    model = tiny()
    guard = Guard(model, [FRANCE], FACTS.filter(role="retain"), 0, None)
    assert guard.lost(model.hf) == 0
    gates = some_gates(model, (0, "post"), (1, "post"))
    edit = edit_of(model, {place: torch.full_like(values, 9.0) for place, values in gates.items()})
    with wb.applied(model, edit) as edited:
        said = [wb.ask(edited, fact.training_questions[0]) for fact in FACTS.filter(role="retain")]
        changed = sum(text != fact.answer for text, fact in zip(said, FACTS.filter(role="retain"), strict=True))
        assert guard.lost(edited.hf) == changed > 0


@pytest.mark.parametrize(
    ("lost", "strength", "tries"),
    [([0, 0, 0, 0, 0], 0.8, 5), ([1, 1, 1, 2, 0], 0.6, 4), ([0, 1], 0.4, 2), ([3, 2, 3, 3, 3], 0.8, 5)],
)
def test_an_edit_is_turned_up_until_another_reply_changes(
    monkeypatch: pytest.MonkeyPatch, lost: list[int], strength: float, tries: int
) -> None:
    guard, counts, turned = Guard(tiny(), [FRANCE], [], 0, None), iter(lost), list[float]()
    turn: Callable[[float], None] = turned.append
    monkeypatch.setattr(guard, "lost", lambda _: next(counts))
    assert guard.highest(None, turn, 0.4, 0.8) == pytest.approx(strength)
    assert turned == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8][:tries])


def test_a_keyed_edit_keeps_less_of_its_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    settings: dict[str, Any] = {
        "layers": (0, 1),
        "answer_layers": (1, 2),
        "steps": 12,
        "contexts": False,
        "learning_rate": 0.2,
        "min_tokens": 1,
        "force": True,
        "draw_back": 0.9,
        "reserve": 2.0,
    }

    def made(**changes: Any) -> wb.Edit:
        recipe = wb.recipes.Keyed(**{**settings, **changes})
        return wb.rewrite(tiny(), FRANCE, recipe=recipe, pool=FACTS, retain=[], progress=False)

    free = made(retain_weight=0.0, protect=0.0)
    monkeypatch.setattr(Guard, "lost", lambda guard, view: 0)
    assert made(retain_weight=0.0, protect=0.0, guards=2).strength == free.strength
    counts = iter([0, 1])
    monkeypatch.setattr(Guard, "lost", lambda guard, view: next(counts))
    guarded = made(retain_weight=0.0, protect=0.0, guards=2)
    assert guarded.strength == pytest.approx(free.strength / 2)
    assert SPAIN.id not in guarded.used_ids and "germany-capital" in guarded.used_ids
