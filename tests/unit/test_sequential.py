"""Sequential editing: an edit that is made on an edited model has that model as its base."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.small_fits import FACTS, FRANCE, RETAIN, SPAIN, assert_unchanged, fitted, recipe, same, unchanged
from tests.helpers.tiny_facts import edit_of, some_gates, tiny
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.loop import Training
from workbench.editing.training.passes import Passes
from workbench.models.engine import Resumable
from workbench.models.folded import folded
from workbench.models.load import LoadedModel
from workbench.types import Edit, FactSet

METHODS: dict[str, Any] = {
    "ia3": recipe(),
    "lora": wb.recipes.LoRA(steps=3, retain_weight=0),
    "full": wb.recipes.FullFineTuning(steps=3, retain_weight=0, learning_rate=1e-3, stages=("unlearn", "learn")),
}
SELECTIONS = {"ia3": "L1MLP L1ATTN", "lora": "L1MLP L2H1", "full": "L1MLP"}
JAPAN = FACTS["japan-capital"]


def logits(model: LoadedModel) -> Tensor:
    ids = torch.tensor([model.token_ids(text) for text in ("The capital of France is", "The capital of Spain is")])
    with torch.no_grad():
        return model.runner(input_ids=ids).logits


@cache
def first(method: str) -> Edit:
    return fitted(selection=SELECTIONS[method], recipe=METHODS[method])


@cache
def second(under: str, method: str) -> Edit:
    """Made on top of the first edit of a method."""
    with wb.applied(tiny(), first(under)) as edited:
        return fitted(edited, SELECTIONS[method], SPAIN, recipe=METHODS[method])


PAIRS = [(under, on_top) for under in METHODS for on_top in METHODS]


@pytest.mark.parametrize(("under", "on_top"), PAIRS)
def test_a_sequential_edit_does_what_its_fit_did(under: str, on_top: str) -> None:
    """Put on top of the earlier one it gives the target the probability with which its fit ended, whatever the kinds
    of delta."""
    model, made, before = tiny(), second(under, on_top), unchanged(tiny())
    settings: Any = METHODS[on_top]
    with wb.applied(model, first(under)) as edited, wb.applied(edited, made, stack=True) as twice:
        assert edited.fingerprint == made.base_fingerprint == first(under).fingerprint_on_top
        assert twice.fingerprint == made.fingerprint_on_top
        training = Training(FitRows(folded(edited), [SPAIN], settings, retain=RETAIN), settings, 0)
        now = Passes(Resumable(twice), training.base.prepared)
        last = made.history[-1]
        assert last.stage == "learn"
        wanted = training.monitored["p_new"]
        assert float((-now.nll([wanted], now.prefix())).exp()) == pytest.approx(last.p_new, abs=1e-5)
    assert_unchanged(model, before)


DOWN = "model.layers.1.mlp.down_proj"


def by_hand(weight: Tensor, edit: Edit) -> Tensor:
    """A down projection with an edit's delta on it; a dense one adds its difference to the base's weight."""
    delta: Any = edit.delta()
    if delta.kind == "gates":
        return weight * delta.gates[1, "post"]
    if delta.kind == "low-rank":
        u, v = delta.factors[1, "mlp.down_proj"]
        return weight + u @ v
    parts: list[Any] = [stage.delta for stage in edit.stages]
    return weight + sum(part.weights[f"{DOWN}.weight"] - tiny().hf.get_submodule(DOWN).weight for part in parts)


@pytest.mark.parametrize(("under", "on_top"), PAIRS)
def test_it_equals_composition_by_hand(under: str, on_top: str) -> None:
    model, one, two = tiny(), first(under), second(under, on_top)
    weight = model.hf.get_submodule(DOWN).weight.detach()
    wanted = by_hand(by_hand(weight, one), two)
    with wb.applied(model, [one, two]) as twice, wb.applied(model, one.then(two)) as joined:
        assert (logits(twice) - logits(joined)).abs().max() < 1e-4
        found = folded(twice).hf.get_submodule(DOWN).weight
        assert (found - weight).abs().max() > 1e-3
        assert (found - wanted).abs().max() < 1e-5
        assert (logits(folded(twice)) - logits(twice)).abs().max() < 1e-4


def test_the_chain_of_fingerprints_and_what_is_missing() -> None:
    model, one, two = tiny(), first("ia3"), second("ia3", "lora")
    with wb.applied(model, [one, two]) as edited:
        three = fitted(edited, "L2MLP", JAPAN, retain=FactSet([f for f in RETAIN if f.id != JAPAN.id]))
    assert [e.facts for e in three.earlier] == [(FRANCE.id,), (SPAIN.id,)]
    assert [e.under for e in three.earlier] == [model.fingerprint, one.fingerprint_on_top]
    assert three.root_fingerprint == model.fingerprint and three.base_fingerprint == two.fingerprint_on_top
    with pytest.raises(ValueError) as caught, wb.applied(model, [one, three]):
        pass
    for part in (three.base_fingerprint[:16], one.fingerprint_on_top[:16], f"lacks {two.facts[0].id}", two.id[:12]):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match=f"lacks {FRANCE.id}"), wb.applied(model, two):
        pass
    with (
        wb.applied(model, one, strength=0.5) as half,
        pytest.raises(ValueError, match=r"at strength 1.*besides.*at strength 0.5"),
        wb.applied(half, two, stack=True),
    ):
        pass
    assert one.then(two.then(three)).base_fingerprint == model.fingerprint
    with pytest.raises(ValueError, match="join the last two first"):
        one.then(two).then(three)


def test_what_one_edit_held_and_another_edited_is_edited() -> None:
    """Else the joined edit could not be evaluated on its own facts."""
    model = tiny()
    holding = replace(edit_of(model, some_gates(model, (1, "post")), fact=FRANCE), retain_ids=(JAPAN.id, SPAIN.id))
    joined = holding.then(edit_of(model, some_gates(model, (2, "post")), fact=JAPAN))
    assert (holding.used_ids, joined.used_ids) == ((JAPAN.id, SPAIN.id), (SPAIN.id,))
    assert [fact.id for fact in joined.facts] == [FRANCE.id, JAPAN.id]


def test_it_is_made_by_the_edited_models_own_answers() -> None:
    """Selector, Fisher information and retained rows are those of the edited model: an edit made on it differs from the
    same one of the base, and on an edit of strength 0 it is the same to the bit."""
    options: Any = {"selection": 5, "fact": SPAIN, "optimiser": "natural"}
    of_base = fitted(**options)
    with wb.applied(tiny(), first("ia3"), strength=0.0) as off:
        at_zero = fitted(off, **options)
    with wb.applied(tiny(), first("ia3")) as edited:
        on_top = fitted(edited, **options)
    assert same(of_base, at_zero) and of_base.selection == at_zero.selection
    assert not same(of_base, on_top)


def test_what_earlier_edits_rewrite_and_broke_is_not_retained() -> None:
    model = tiny()
    of_base = wb.default_retain(model, [SPAIN], pool=FACTS, progress=False).ids
    assert JAPAN.id in of_base
    edit = fitted(fact=JAPAN, retain=FactSet([f for f in RETAIN if f.id != JAPAN.id]))
    with wb.applied(model, edit) as edited:
        left = wb.default_retain(edited, [SPAIN], pool=FACTS, progress=False).ids
        known = wb.known_facts(edited, FACTS, progress=False).ids
    assert JAPAN.id not in left and set(left) <= set(of_base) & set(known)


def test_saved_evaluated_and_probed(tmp_path: Path) -> None:
    model, two = tiny(), second("lora", "ia3")
    back = wb.load_edit(two.save(tmp_path / "two"))
    assert back.earlier == two.earlier and back.id == two.id and repr(back) == repr(two)
    assert "earlier" not in (first("lora").save(tmp_path / "one") / "edit.json").read_text()
    with wb.applied(model, first("lora")) as edited:
        report = wb.evaluate(edited, edit=back, pool=FACTS, progress=False)
        assert report.base_fingerprint == edited.fingerprint and report.stages == ("base", *back.stage_names)
        probes = wb.probe(edited, back, probes=("strength", "requantise"), pool=FACTS, progress=False)
        assert probes.edit_id == back.id and "requantise" in probes.probes
        rates = wb.counterfact_rates(edited, back, pool=FACTS)
        assert set(rates) == {"base", *back.stage_names}
        with pytest.raises(ValueError, match=r"pass the base model \(model\.base\)"):
            wb.evaluate(edited, edit=first("ia3"), pool=FACTS)
    for judge in (wb.evaluate, wb.probe):
        call: Any = judge
        with pytest.raises(ValueError, match=f"lacks {FRANCE.id}"):
            call(model, edit=back, pool=FACTS)


def test_stop_is_given_edits_that_can_be_applied() -> None:
    seen: list[bool] = []

    def stop(edit: Edit) -> bool:
        with wb.applied(tiny(), [first("ia3"), edit]) as twice:
            seen.append(twice.applied[-1].edit is edit)
        return True

    with wb.applied(tiny(), first("ia3")) as edited:
        fitted(edited, "L1MLP", SPAIN, stop=stop)
    assert seen == [True]
