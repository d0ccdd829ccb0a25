"""Dry runs of keyed updates: where V, which is fixed before anything is trained, opens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.small_fits import FACTS, FRANCE, RETAIN
from tests.helpers.tiny_facts import tiny
from workbench.editing.solved.keys import keys_at
from workbench.editing.solved.places import question_contexts
from workbench.editing.solved.spots import Place
from workbench.types import LowRankDelta

QUIET: dict[str, Any] = {"retain": RETAIN, "pool": FACTS, "progress": False}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def recipe(**changes: Any) -> wb.recipes.Keyed:
    given: dict[str, Any] = {"layers": (0,), "answer_layers": (2,), "steps": 3, "contexts": False}
    given |= {"retain_batch_size": 4, "min_tokens": 1, "force": True, "draw_back": None}
    return wb.recipes.Keyed(**{**given, **changes})


def test_a_dry_run_opens_to_others_as_the_fixed_rows_do() -> None:
    model = tiny()
    plan = wb.dry_run(model, FRANCE, recipe=recipe(), **QUIET)
    edit = wb.rewrite(model, FRANCE, recipe=recipe(), **QUIET)
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta)
    (_, row) = delta.factors[0, "mlp.down_proj"]
    sizes = {}
    for reach in plan.reach:
        keys = keys_at(model, question_contexts(model, [FACTS[reach.fact_id]]), [Place(0, "mlp")])[Place(0, "mlp")]
        sizes[reach.fact_id] = float((keys @ row.double().T).abs().mean())
    assert len(sizes) > 2
    for reach in plan.reach:
        assert reach.opening == pytest.approx(sizes[reach.fact_id] / sizes[FRANCE.id], rel=1e-4)
        assert math.isnan(reach.change)
    assert not plan.known and plan.selection == edit.selection and plan.selector == edit.selector
    assert [(w.layer, w.denominator) for w in plan.writes] == [(w.layer, w.denominator) for w in edit.writes]
    assert "nan" not in str(plan) and "L2 to L2" in plan.notes[0]


def test_a_dry_run_of_an_update_at_the_answer_alone_tells_no_reach() -> None:
    plan = wb.dry_run(tiny(), FRANCE, recipe=recipe(places=("answer",)), **QUIET)
    assert plan.reach == () and len(plan.writes) == 1 and "opens too" in plan.notes[0]
