"""Edit, then consolidate: the closed form's edit is the first stage, and the steps move U alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.small_fits import FACTS, FRANCE, RETAIN, assert_unchanged, unchanged
from tests.helpers.tiny_facts import tiny
from workbench.types import Edit, LowRankDelta
from workbench.types.cancelling import Cancelled


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def recipe(**changes: Any) -> wb.recipes.EditThenConsolidate:
    given: dict[str, Any] = {
        "first": "rome",
        "layers": (1,),
        "contexts": False,
        "steps": 3,
        "retain_batch_size": 4,
        "min_tokens": 1,
        "force": True,
        "draw_back": None,
    }
    return wb.recipes.EditThenConsolidate(**{**given, **changes})


def made(selection: Any = None, **changes: Any) -> Edit:
    options = {k: changes.pop(k) for k in ("on_step", "cancel") if k in changes}
    settings = recipe(**changes)
    given: dict[str, Any] = {"retain": RETAIN, "pool": FACTS, "progress": False, **options}
    return wb.rewrite(tiny(), FRANCE, selection, recipe=settings, **given)


def test_the_first_stage_is_the_closed_forms_edit() -> None:
    edit = made()
    solved = wb.rewrite(tiny(), FRANCE, recipe=recipe().closed_form, retain=RETAIN, pool=FACTS, progress=False)
    assert edit.stage_names == recipe().stage_names == ("edit", "consolidate")
    assert edit.stages[0].delta.digest() == solved.delta().digest()
    assert edit.writes == solved.writes and edit.selector == solved.selector and edit.fisher_ids == solved.fisher_ids
    assert {step.stage for step in edit.history} == {"edit", "consolidate"}


def test_a_dry_run_tells_the_closed_form_and_that_steps_follow() -> None:
    model = tiny()
    plan = wb.dry_run(model, FRANCE, recipe=recipe(), retain=RETAIN, pool=FACTS, progress=False)
    alone = wb.dry_run(model, FRANCE, recipe=recipe().closed_form, retain=RETAIN, pool=FACTS, progress=False)
    assert plan.method == "edit, then consolidate" and plan.known
    assert plan.writes == alone.writes == made().writes and plan.reach == alone.reach and plan.reach
    (note,) = [note for note in plan.notes if note not in alone.notes]
    assert note.startswith("This is ROME, which comes first. The 3 steps after it")


def test_the_steps_move_u_and_keep_v() -> None:
    edit = made(learning_rate=0.5)
    solved, added = (stage.delta for stage in edit.stages)
    assert isinstance(solved, LowRankDelta) and isinstance(added, LowRankDelta)
    for key, (u, v) in solved.factors.items():
        assert torch.equal(added.factors[key][1], v)
        assert 0 < float(added.factors[key][0].abs().max()) < 10 * float(u.abs().max())


def test_the_steps_teach_and_strength_0_is_the_base(tmp_path: Path) -> None:
    model, before = tiny(), unchanged(tiny())
    edit = made(steps=30, learning_rate=1.0, retain_weight=0.1, draw_back=0.9)
    ids = torch.tensor([model.token_ids("The capital of France is")])
    steps = [step for step in edit.history if step.stage == "consolidate"]
    assert edit.learned is not None and edit.learned > 0.9 and steps[-1].loss < 0.1 * steps[0].loss
    with wb.applied(model, edit, strength=0.0) as off, torch.no_grad():
        assert torch.equal(off.hf(ids).logits, model.hf(ids).logits)
    back = wb.load_edit(edit.save(tmp_path / "edit"))
    assert back.id == edit.id and back.recipe == edit.recipe
    assert_unchanged(model, before)


def test_drawing_back_keeps_what_is_learned_at_a_lower_strength() -> None:
    whole, back = (made(steps=30, learning_rate=1.0, retain_weight=0.1, draw_back=wanted) for wanted in (None, 0.9))
    assert whole.strength == 1.0 and back.learned == whole.learned
    assert back.learned is not None and back.learned > 0.9 and back.strength < 1.0
    for key, (u, _) in back.delta().factors.items():  # pyright: ignore[reportAttributeAccessIssue]
        assert u.shape[1] == 2, key


def test_a_reserve_keeps_more_of_the_strength() -> None:
    options: dict[str, Any] = {"steps": 30, "learning_rate": 1.0, "retain_weight": 0.1, "draw_back": 0.9}
    least, more = made(**options).strength, made(**options, reserve=1.2).strength
    assert more == pytest.approx(min(1.0, 1.2 * least)) and more > least


def test_the_closed_form_takes_as_many_steps_as_are_asked_for() -> None:
    edit = made(target_steps=2)
    assert [step.step for step in edit.history if step.stage == "edit"] == [0, 1]
    assert recipe().closed_form.to_dict()["steps"] == wb.recipes.ROME().steps


def test_the_selections_columns_alone_are_read() -> None:
    edit = made("L1N4 L1N9 L1N33", layers=None)
    for stage in edit.stages:
        assert isinstance(stage.delta, LowRankDelta)
        ((_, v),) = stage.delta.factors.values()
        assert v.abs().sum(0).nonzero().flatten().tolist() == [4, 9, 33]


def test_the_closed_form_is_closed_on_request() -> None:
    """For the same questions as the steps hold in place."""
    options = {"first_closed": True, "leave_out": 0, "closing_wordings": 2}
    closed = recipe(**options).closed_form
    assert isinstance(closed, wb.recipes.ROME) and closed.close and not recipe().closed_form.to_dict()["close"]
    assert (closed.leave_out, closed.closing_wordings, closed.closing_weight) == (
        0,
        2,
        wb.recipes.ROME().closing_weight,
    )
    assert recipe(**options, closing_weight=3.0).closed_form.to_dict()["closing_weight"] == 3.0
    edit = made(**options)
    solved = wb.rewrite(tiny(), FRANCE, recipe=closed, retain=RETAIN, pool=FACTS, progress=False)
    assert edit.stages[0].delta.digest() == solved.delta().digest()
    assert edit.closed_relations == solved.closed_relations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": "lora"}, "first must be one of"),
        ({"stages": ("unlearn", "learn"), "steps": None}, "stages must be"),
        ({"draw_back": 0.0}, "draw_back must be"),
        ({"reserve": 0.5}, "reserve must be 1 or more, got 0.5"),
        ({"target_steps": 0}, "target_steps must be None or 1 or more, got 0"),
        ({"closing_weight": 3.0}, "closing_weight must be 30 where first_closed is False, got 3.0"),
        ({"closing_weight": float("nan")}, "closing_weight must be a finite number from 0"),
        ({"first_closed": True, "close": False}, "first_closed must be False where close is"),
    ],
)
def test_a_value_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


@pytest.mark.parametrize("stage", ["edit", "consolidate"])
def test_cancelling_leaves_the_model_as_it_was(stage: str) -> None:
    model, before, seen = tiny(), unchanged(tiny()), list[int]()

    def stop(step: Any) -> bool:
        seen.append(step.step)
        starts = sum(n == 0 for n in seen)
        return starts < (1 if stage == "edit" else 2)

    with pytest.raises(Cancelled):
        made(on_step=stop)
    assert seen.count(0) == (1 if stage == "edit" else 2)
    assert_unchanged(model, before)
