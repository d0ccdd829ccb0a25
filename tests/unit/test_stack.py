"""Stacks of edits: turned on and off, moved, scaled and removed exactly; overlaps, and what a later edit broke."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.examples import Names
from tests.helpers.small_fits import FACTS, FRANCE, RETAIN, SPAIN, assert_unchanged, fitted, unchanged
from tests.helpers.tiny import loaded, random_edit, tiny_llama
from tests.helpers.tiny_facts import edit_of, some_gates, tiny
from tests.unit.test_sequential import METHODS, SELECTIONS, first, second
from workbench.editing.applied import carried
from workbench.editing.stack_answers import answers_of
from workbench.editing.stack_overlaps import shared_directions, shared_entries
from workbench.models.deltas.reading import read_directions
from workbench.models.load import LoadedModel
from workbench.types import Codebook, Edit, EditStage, FactSet, GateDelta, LowRankDelta, MemoryDelta

JAPAN, GERMANY = FACTS["japan-capital"], FACTS["germany-capital"]


def logits(model: LoadedModel) -> Tensor:
    ids = torch.tensor([model.token_ids("The capital of France is")])
    with torch.no_grad():
        return model.runner(input_ids=ids).logits


@cache
def third() -> Edit:
    """Full fine-tuning on top of a LoRA on top of gates."""
    with wb.applied(tiny(), [first("ia3"), second("ia3", "lora")]) as edited:
        kept = FactSet([f for f in RETAIN if f.id != JAPAN.id])
        return fitted(edited, SELECTIONS["full"], JAPAN, recipe=METHODS["full"], retain=kept)


def three() -> wb.EditStack:
    return wb.EditStack(tiny(), [first("ia3"), second("ia3", "lora"), third()])


def test_a_stack_of_gates_a_lora_and_whole_tensors() -> None:
    model, before = tiny(), unchanged(tiny())
    stack = three()
    edits = [first("ia3"), second("ia3", "lora"), third()]
    with wb.applied(model, edits) as edited, stack as stacked:
        assert torch.equal(logits(stacked), logits(edited))
        assert stacked.fingerprint == edited.fingerprint == stack.fingerprint == third().fingerprint_on_top
        parts: Any = stacked.delta
        assert [part.kind for part in parts.parts] == ["gates", "low-rank", "dense", "dense"]
    assert list(stack) == edits and len(stack) == 3 and stack.notes == ()
    assert [f.id for f in stack.facts] == [FRANCE.id, SPAIN.id, JAPAN.id]
    assert repr(stack) == f"EditStack('tiny': {FRANCE.id}, {SPAIN.id}, {JAPAN.id})"
    assert_unchanged(model, before)


def test_every_state_is_exact() -> None:
    """Off, scaled and removed equals a stack that never had it, to the bit, in whatever order one gets there."""
    model, stack = tiny(), three()
    whole, plain = logits(stack.model), logits(model)
    kept = stack.model
    assert not torch.equal(whole, plain)
    with wb.applied(model, [first("ia3"), second("ia3", "lora")]) as two:
        assert torch.equal(logits(stack.toggle(2).model), logits(two))
    assert torch.equal(logits(kept), whole), "a model that was given before stays as it was"
    with wb.applied(model, first("ia3"), strength=0.5) as half:
        assert torch.equal(logits(stack.toggle(1).scale(0, 0.5).model), logits(half))
    assert torch.equal(logits(stack.scale(0, 0.0).model), plain)
    assert torch.equal(logits(stack.scale(0, 1).toggle(1).toggle(-1, on=True).model), whole)
    assert torch.equal(logits(stack.copy().remove(2).remove(1).remove(0).model), plain)
    for i in (0, 0, 0):
        stack.remove(i)
    assert stack.model is model and stack.fingerprint == model.fingerprint and not len(stack)
    assert repr(stack) == "EditStack('tiny': no edits)"


def test_edits_of_the_base_are_moved_freely() -> None:
    model = tiny()
    lora, dense = (first(name) for name in ("lora", "full"))
    stack = wb.EditStack(model, [first("ia3"), lora, dense])
    with wb.applied(model, [dense, first("ia3"), lora]) as other:
        assert torch.equal(logits(stack.move(2, 0).model), logits(other))
    assert [e.method for e in stack] == ["full", "ia3", "lora"] and stack.notes == ()
    assert [e.method for e in stack.move(0, -1)] == ["ia3", "lora", "full"]


def test_an_edit_is_on_or_off_and_nothing_else() -> None:
    stack = three()
    with pytest.raises(ValueError, match=r"on must be True, False or None .* got 'off'"):
        stack.toggle(0, "off")  # pyright: ignore[reportArgumentType]
    assert all(layer.on for layer in stack.layers)


def test_an_edit_is_not_moved_below_what_it_was_made_on() -> None:
    stack = three()
    for i, j in ((0, 1), (1, 0), (2, 0)):
        with pytest.raises(ValueError, match=r"was made on top of .* so it must stay above it"):
            stack.move(i, j)
    base_edit = fitted(fact=GERMANY, retain=FactSet([f for f in RETAIN if f.id != GERMANY.id]))
    stack.add(base_edit)
    with pytest.raises(ValueError, match=f"{SPAIN.id} was made without {GERMANY.id} below it"):
        stack.toggle(3).move(3, 1)
    assert [e.id for e in stack][3] == base_edit.id
    assert stack.remove(1).notes == (
        f"{JAPAN.id} was made on top of {SPAIN.id}, and acts without it here: what it was measured to do is not what "
        "it does here.",
    )
    stack.remove(1)
    assert stack.move(1, 0).edits[0] is base_edit


def test_notes_say_what_is_missing_below() -> None:
    stack = three().toggle(0)
    assert len(stack.notes) == 2 and all(f"on top of {FRANCE.id}, and acts without" in n for n in stack.notes)
    assert len(stack.toggle(1).notes) == 1
    stack = three().scale(0, 0.5)
    assert f"on top of {FRANCE.id} at strength 1" in stack.notes[0]
    assert stack.scale(0, 1.0).notes == ()
    assert "acts without it here" in three().toggle(0)._repr_html_()


def test_one_edit_twice() -> None:
    """An edit that was made on two of one kind stays above both, and what it lacks is said."""
    base = tiny()
    under = edit_of(base, some_gates(base, (1, "post")), fact=FRANCE)
    with wb.applied(base, [under, under]) as edited:
        made = edit_of(base, some_gates(base, (2, "post")), fact=SPAIN)
        top = replace(made, base_fingerprint=edited.fingerprint, earlier=carried(edited))
    stack = wb.EditStack(base, [under, under, top])
    assert stack.notes == () and stack.copy().toggle(0).notes[0].startswith(
        f"{SPAIN.id} was made on top of {FRANCE.id}, and acts without it here"
    )
    assert f"on top of {FRANCE.id} at strength 1" in stack.copy().scale(0, 0.5).notes[0]
    with pytest.raises(ValueError, match="so it must stay above it"):
        stack.move(2, 1)
    stack.add(under)
    with pytest.raises(ValueError, match="so it must stay above it"):
        stack.move(2, 1)
    with pytest.raises(ValueError, match=f"{SPAIN.id} was made without another {FRANCE.id} below it"):
        stack.move(3, 0)
    assert stack.edits == (under, under, top, under)


def test_what_is_refused() -> None:
    model, other = tiny(), loaded(tiny_llama(seed=3))
    with pytest.raises(ValueError, match=f"lacks {FRANCE.id}"):
        wb.EditStack(model, [second("ia3", "lora")])
    with pytest.raises(ValueError, match=other.fingerprint[:16]):
        wb.EditStack(other, [first("ia3")])
    with wb.applied(model, first("ia3")) as edited, pytest.raises(ValueError, match=r"EditStack\(model.base\)"):
        wb.EditStack(edited)
    stack = wb.EditStack(model, first("ia3"))
    for call in (stack.toggle, stack.remove, lambda i: stack.move(0, i)):
        with pytest.raises(IndexError, match="places 0 to 0; got 1"):
            call(1)
    for strength in (math.nan, math.inf, "1"):
        wrong: Any = strength
        with pytest.raises(ValueError, match="finite"):
            stack.scale(0, wrong)
    with pytest.raises(ValueError, match="stages must be"):
        stack.add(first("ia3"), stage="forget")
    with pytest.raises(ValueError, match="nothing to ask"):
        wb.EditStack(model).broken()
    assert repr(stack) == f"EditStack('tiny': {FRANCE.id})"


def test_saved_and_loaded(tmp_path: Path) -> None:
    stack = three().toggle(1).scale(0, 0.25)
    stack.add(first("lora"), stage="learn", strength=2)
    folder = stack.save(tmp_path / "stack")
    back = wb.EditStack.load(tiny(), folder)
    assert back.fingerprint == stack.fingerprint and back.notes == stack.notes and repr(back) == repr(stack)
    assert torch.equal(logits(back.model), logits(stack.model))
    back.remove(0).save(folder)
    assert len(wb.EditStack.load(tiny(), folder)) == 3
    with pytest.raises(ValueError, match="of 'tiny' with the fingerprint"):
        wb.EditStack.load(loaded(tiny_llama(seed=3)), folder)
    with pytest.raises(FileNotFoundError):
        wb.EditStack.load(tiny(), tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"not a saved stack"):
        wb.EditStack.load(tiny(), first("ia3").save(tmp_path / "edit"))
    file = folder / "stack.json"
    document = json.loads(file.read_text())
    document["layers"][0]["strength"] = 3.0
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="checksum"):
        wb.EditStack.load(tiny(), folder)


# Overlaps


def test_directions_by_hand() -> None:
    """A plane and a line at 60 degrees to it: cos² is a quarter; a scaled copy lies in it."""
    plane = torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 0], [1, 1, 0, 0]])
    line = torch.tensor([[0.5, 0, math.sqrt(0.75), 0]])
    cosine, shared, of = shared_directions(plane, line)
    assert (cosine, shared, of) == (pytest.approx(0.5), pytest.approx(0.25), 1)
    assert shared_directions(plane, -3 * plane) == (pytest.approx(1), pytest.approx(2), 2)
    assert shared_directions(plane, torch.tensor([[0.0, 0, 0, 5]]))[:2] == (0, 0)


def test_entries_by_hand() -> None:
    one, other = torch.tensor([0.0, 3.0, 4.0, 0.0]), torch.tensor([1.0, 0.0, -1.0, 0.0])
    assert shared_entries(one, other) == (pytest.approx(-4 / (5 * math.sqrt(2))), 1, 2)
    assert shared_entries(one, torch.zeros(4)) == (0.0, 0, 0)


def test_what_is_multiplied_by_0_is_not_read() -> None:
    """An edit at strength 0 shares no direction with another one."""
    v = torch.tensor([[1.0, 0, 0], [0, 2, 0]])
    delta = LowRankDelta({(1, "mlp.down_proj"): (torch.tensor([[0.0, 3.0], [0.0, 0.0]]), v)})
    assert torch.equal(read_directions(delta)[1, "mlp.down_proj"], v[1:])
    assert read_directions(delta.scaled(0.0)) == {}
    book = Codebook(torch.ones(1, 3), torch.ones(1, 2), torch.ones(1), ((7,),))
    memory = MemoryDelta({(1, "mlp.down_proj"): (book,)})
    assert read_directions(memory) and read_directions(memory.scaled(0.0)) == {}


def low_rank_edit(model: LoadedModel, v: Tensor, fact: Any) -> Edit:
    edit = edit_of(model, {})
    delta = LowRankDelta({(1, "mlp.down_proj"): (torch.ones(model.shape.d_model, len(v)) / 50, v)})
    return replace(edit, stages=(EditStage("learn", delta),), facts=(fact,))


def test_overlaps_of_a_stack() -> None:
    model = tiny()
    v = torch.zeros(2, model.shape.d_mlp)
    v[0, 0], v[1, 1] = 1.0, 2.0
    w = torch.zeros(1, model.shape.d_mlp)
    w[0, 0], w[0, 5] = 0.6, 0.8
    gates = torch.ones(model.shape.d_mlp)
    gates[:4] = torch.tensor([0.5, 2.0, 1.0, 0.0])
    by_gates = [replace(edit_of(model, {(1, "post"): g}), facts=(JAPAN,)) for g in (gates, gates * 2)]
    stack = wb.EditStack(model, [low_rank_edit(model, v, FRANCE), low_rank_edit(model, w, SPAIN), *by_gates])
    found = stack.overlaps()
    keys = [row for row in found.rows if row.kind == "keys"]
    assert [(r.first, r.second, r.place, r.of) for r in keys] == [(0, 1, "L1 mlp.down_proj", 1)]
    assert keys[0].cosine == pytest.approx(0.6) and keys[0].shared == pytest.approx(0.36)
    both = next(row for row in found.rows if row.kind == "gates")
    assert (both.first, both.second, both.place, both.shared, both.of) == (2, 3, "L1 post", 2, 3)
    weight = model.hf.get_submodule("model.layers.1.mlp.down_proj").weight.detach().double()
    moved = weight + (torch.ones(model.shape.d_model, 2) / 50 @ v).double()
    assert found.norms[0].change == pytest.approx(float((moved - weight).norm() / weight.norm()), rel=1e-5)
    assert found.norms[0].norm == pytest.approx(float(moved.norm() / weight.norm()), rel=1e-5)
    assert [row.layer for row in found.norms] == [0, 1, 2, 3] and found.norms[0].place == "L1 mlp.down_proj"
    assert f"{FRANCE.id} and {SPAIN.id} share 0.36 of 1 directions at L1 mlp.down_proj (cosine 0.60)." in found.words
    assert len(found.to_frame()) == len(found.rows) and list(found.norms_frame()["after"])[1] == SPAIN.id
    assert len(found.plot().data) == 2 and "0.36" in found._repr_html_()
    assert {(r.first, r.second) for r in stack.toggle(1).overlaps().rows} == {(0, 2), (0, 3), (2, 3)}
    assert wb.EditStack(model).overlaps().words == "No two edits that are on share a place."


# What broke


def test_which_edit_broke_which_fact() -> None:
    """The second edit makes the model say what the first had unmade; the third breaks a fact that nobody edited."""
    shown = Names()
    model, edit = shown.model, shown.edit
    france, japan, germany = (shown.facts[id] for id in (FRANCE.id, JAPAN.id, GERMANY.id))
    back = edit.delta()
    assert isinstance(back, GateDelta)
    undone = replace(
        edit,
        stages=(EditStage("learn", GateDelta({key: 1 / gate for key, gate in back.gates.items()})),),
        facts=(japan,),
    )
    stack = wb.EditStack(model, [edit, undone])
    found = stack.broken(germany)
    of_france = [(row.label, row.holds) for row in found.rows if row.fact_id == france.id]
    assert of_france == [("old", True), ("new", True), ("old", False)]
    assert [(b.fact_id, b.by) for b in found.broken if b.fact_id == france.id] == [(france.id, 1)]
    assert f"{france.id} was broken by {japan.id}" in found.words
    assert found.facts == (france.id, japan.id, germany.id)
    with wb.applied(model, edit) as edited:
        assert [r.text for r in found.rows if r.fact_id == germany.id][1] == wb.ask(edited, germany.question)
    frame = found.to_frame()
    assert list(frame["after"])[:3] == ["base", france.id, japan.id] and len(found.plot().data) == 1
    assert "was broken by" in found._repr_html_()
    alone = stack.toggle(1).broken()
    assert alone.words == "No edit broke one of the 2 facts." and len(alone.rows) == 4


@pytest.mark.parametrize(
    ("texts", "holds"),
    [
        (["Paris", "Rome", "Berlin"], [True, True, False]),
        (["Paris", "I am not sure.", "Rome"], [True, True, True]),
        (["Paris", "I am not sure.", "Paris"], [True, True, False]),
        (["Paris", "Paris", "Rome"], [True, None, None]),
        (["Berlin", "Rome", "Rome"], [None, True, True]),
    ],
)
def test_what_counts_as_broken(texts: list[str], holds: list[bool | None], monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.editing import stack_answers
    from workbench.language.generation import Completion

    replies = iter(texts)
    monkeypatch.setattr(stack_answers, "greedy_answers", lambda *_, **__: [Completion(next(replies), (1,))])
    layers = wb.EditStack(tiny(), [first("ia3"), replace(random_edit(tiny()), facts=(SPAIN,))]).layers
    found = answers_of(tiny(), layers, [FRANCE], lambda after: tiny(), progress=False, cancel=None)
    assert [row.holds for row in found.rows] == holds
    assert bool(found.broken) == (False in holds)


def test_an_edit_that_is_a_context_is_read_when_it_is_on() -> None:
    model = tiny()
    edit = fitted(model, None, FRANCE, recipe=wb.recipes.InContext(style="flipped", flip="target", examples=0))
    stack = wb.EditStack(model, [edit])
    said = [row.text for row in stack.broken(SPAIN).rows if row.fact_id == SPAIN.id]
    assert said == [wb.ask(model, SPAIN.question), wb.ask(stack.model, SPAIN.question)]
    assert said[0] != said[1] and stack.toggle(0).broken(SPAIN).rows[1].text == said[0]


def test_at_strength_0_an_edit_is_no_part_of_the_model() -> None:
    """Low-rank updates: columns of zeros would bring other sums in another order."""
    recipe = wb.recipes.MEMIT(layers=(0, 1), steps=2, contexts=False, covariance_tokens=1500)
    options: dict[str, Any] = {"recipe": recipe, "pool": FACTS, "progress": False}
    one, other = (wb.rewrite(tiny(), fact, **options) for fact in (FRANCE, SPAIN))
    with_it, without = wb.EditStack(tiny(), [one, other]).scale(0, 0.0), wb.EditStack(tiny(), [other])
    assert torch.equal(logits(with_it.model), logits(without.model))
    assert with_it.fingerprint == without.fingerprint
    assert with_it.scale(1, 0.0).model is with_it.base


def test_a_stack_is_made_of_edits_and_places_are_whole_numbers() -> None:
    for wrong in (None, "x", ["x"], 3):
        given: Any = wrong
        with pytest.raises(TypeError, match="A stack is made of edits, got"):
            wb.EditStack(tiny(), given)
    stack = wb.EditStack(tiny(), [fitted()])
    place: Any = np.int64(0)
    assert not stack.toggle(place).layers[0].on
    odd: Any = "0"
    with pytest.raises(IndexError, match="got '0'"):
        stack.toggle(odd)
