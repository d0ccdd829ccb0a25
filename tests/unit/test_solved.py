"""Closed-form edits of tiny models: what they write and where."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.families import model_of
from tests.helpers.solved import FACTS, FRANCE, ITALY, QUICK, SPAIN, factors_of, memit, rome, solved, tiny
from tests.helpers.tiny_facts import FAMILIES, MAKERS, capital, knowing
from workbench.editing.solved import formulas
from workbench.editing.solved.keys import PreparedContexts, mean_by_fact
from workbench.editing.solved.places import (
    question_contexts,
    training_contexts,
)
from workbench.editing.solved.spots import Place, Spot, key_spot, module_name
from workbench.editing.solved.window import restored_by_window
from workbench.models.load import LoadedModel
from workbench.types import Edit, Selection


@pytest.fixture(autouse=True, scope="module")
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The covariances of the tiny models are measured once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def outputs(model: LoadedModel, edit: Edit, place: Place) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """At every occurrence of the subject in what is taught: keys, outputs without and with the edit, and contexts."""
    recipe: Any = edit.recipe
    contexts = training_contexts(model, edit.facts, "learn", recipe.taught)
    prepared = PreparedContexts(model, contexts, place.layer)
    spots = [key_spot(place), Spot(place.module, place.layer)]
    before = prepared.read(spots)
    with wb.applied(model, edit) as edited:
        after = prepared.read(spots, view=edited.hf)
    torch.testing.assert_close(after[spots[0]], before[spots[0]])
    return before[spots[0]], before[spots[1]], after[spots[1]], prepared.context_of_column.tolist()


@FAMILIES
@pytest.mark.parametrize("selection", [None, "L1N3 L1N7 L1N20 L1N31", "L1H2 L1H3"])
def test_rome_gives_its_value_at_the_mean_key(family: str, selection: str | None) -> None:
    model = tiny(family)
    edit = solved(model, rome(), selection=selection)
    (write,) = edit.writes
    keys, before, after, _ = outputs(model, edit, Place(1, write.module))
    (factors,) = factors_of(edit).values()
    assert write.residual_before is not None and write.residual_before > 0.1
    moved = (after - before).mean(0)  # outputs are linear in keys, so their mean is that of the mean key
    assert float(moved.norm()) == pytest.approx(write.residual_before, rel=1e-4)
    torch.testing.assert_close(moved, factors[0] @ (factors[1] @ keys.mean(0)), atol=1e-5, rtol=1e-4)
    used = factors[1].abs().sum(0) > 0
    inside = set(write.columns or range(len(used)))
    assert all(bool(used[i]) == (i in inside) for i in range(len(used)))


def test_two_keys_are_exact_at_the_bare_question() -> None:
    model = tiny("llama")
    edit = solved(model, rome(two_keys=True))
    _, before, after, contexts = outputs(model, edit, Place(1, "mlp"))
    moved = after - before
    bare = torch.tensor([i for i, context in enumerate(contexts) if context == 0])
    assert float(moved[bare].mean(0).norm()) == pytest.approx(edit.writes[0].residual_before or 0.0, rel=1e-4)
    assert float(moved.mean(0).norm()) != pytest.approx(edit.writes[0].residual_before or 0.0, rel=1e-2)


def test_emmet_of_one_fact_is_rome() -> None:
    model = tiny("llama")
    one = factors_of(solved(model, wb.recipes.EMMET(**QUICK, layers=(1,))))
    other = factors_of(solved(model, rome()))
    for (u, v), (u2, v2) in zip(one.values(), other.values(), strict=True):
        torch.testing.assert_close(u @ v, u2 @ v2)


def test_emmet_is_exact_for_every_fact_of_a_batch() -> None:
    model = tiny("llama")
    edit = solved(model, wb.recipes.EMMET(**QUICK, layers=(1,)), [FRANCE, SPAIN])
    assert edit.writes[0].keys == 2
    assert (edit.writes[0].residual_after or 0.0) < 1e-4 * (edit.writes[0].residual_before or 0.0)


@FAMILIES
def test_memit_comes_nearer_layer_by_layer(family: str) -> None:
    model = tiny(family)
    options: dict[str, Any] = {"leverage": 3000.0, "rank": None, "batch_size": 1}  # in an order drawn by seed
    edit = solved(model, memit(**options), [FRANCE, SPAIN])
    assert [write.layer for write in edit.writes] == [0, 1]
    assert edit.writes[0].residual_after == edit.writes[1].residual_before
    assert (edit.writes[1].residual_after or 9.0) < 0.8 * (edit.writes[0].residual_before or 0.0)
    assert edit.delta().lowest_layer == 0
    assert solved(model, memit(**options), [FRANCE, SPAIN]).id == edit.id
    assert any(solved(model, memit(**options, seed=seed), [FRANCE, SPAIN]).id != edit.id for seed in (1, 2, 3))


def test_a_larger_leverage_writes_more() -> None:
    model = tiny("llama")
    small, large = (solved(model, memit(leverage=x)).writes[0].relative_norm for x in (0.3, 300.0))
    assert small < 0.5 * large


def test_lambda_can_be_given() -> None:
    model = tiny("llama")
    heavy, light = (solved(model, memit(covariance_weight=x)).writes[0].relative_norm for x in (100.0, 0.01))
    assert heavy < 0.5 * light


def test_alphaedit_writes_in_the_free_directions() -> None:
    model = tiny("llama")
    recipe = wb.recipes.AlphaEdit(**QUICK, layers=(1,), kept=0.7)
    for selection in (None, "L1N1 L1N4 L1N9 L1N16 L1N25 L1N36"):
        edit = solved(model, recipe, selection=selection)
        columns = edit.writes[0].columns
        measured = wb.covariance(model, 1, pool=FACTS, max_tokens=1500)
        projection, _ = formulas.free_directions(measured.values, 0.7, columns)
        ((_, v),) = factors_of(edit).values()
        inside = v if columns is None else v[:, list(columns)]
        torch.testing.assert_close(inside @ projection, inside, atol=1e-6, rtol=1e-5)
        held = solved(model, replace(recipe, hold_retained=True), selection=selection)
        assert held.id != edit.id
        assert held.retain_ids == ("germany-capital", "japan-capital") != edit.retain_ids


def test_alphaedit_holds_the_keys_of_what_was_written_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """K_p: of an earlier stage the keys that it was solved for; of edits that the model carries one a fact, read on
    the edited model."""
    model, given = tiny("llama"), list[tuple[Tensor, Tensor, Tensor | None]]()
    plain = formulas.alphaedit

    def seen(projection: Tensor, keys: Tensor, residuals: Tensor, **options: Any) -> Any:
        given.append((keys, options["weights"], options["earlier"]))
        return plain(projection, keys, residuals, **options)

    monkeypatch.setattr(formulas, "alphaedit", seen)
    recipe = wb.recipes.AlphaEdit(**QUICK, layers=(0, 1), kept=0.9)
    solved(model, replace(recipe, stages=("unlearn", "learn")))
    for (keys, weights, earlier), (_, _, later) in zip(given[:2], given[2:], strict=True):
        assert earlier is None and later is not None
        torch.testing.assert_close(later @ later.T, (keys * weights) @ keys.T)
    given.clear()
    first = solved(model, recipe, [FRANCE, ITALY])
    assert [earlier for _, _, earlier in given] == [None, None]
    given.clear()
    with wb.applied(model, first) as edited:
        solved(edited, recipe, SPAIN)
        contexts = question_contexts(edited, [FRANCE, ITALY])
        read = PreparedContexts(model, contexts, 0, view=edited.hf).read([Spot("mlp in", 1)], view=edited.hf)
    means = mean_by_fact(read[Spot("mlp in", 1)], torch.tensor([c.fact for c in contexts for _ in c.subject]))
    (_, _, below), (_, _, held) = given
    assert below is not None and held is not None
    torch.testing.assert_close(held, means.T, atol=1e-4, rtol=1e-4)


def test_alphaedit_without_free_keys_is_refused() -> None:
    model = tiny("llama")
    with pytest.raises(ValueError, match=r"kept=0.999999.*nothing would be left to move"):
        solved(model, wb.recipes.AlphaEdit(**QUICK, layers=(1,), kept=0.999999), selection="L1N1 L1N2")


def test_columns_outside_the_selection_stay_exactly_zero() -> None:
    model = tiny("gpt2")
    edit = solved(model, memit(rank=None), selection="L0N3 L1H2 L1H3 L2N4 L2N7")
    width = model.shape.d_head
    inside = {
        (0, "mlp.c_proj"): [3],
        (1, "attn.c_proj"): list(range(2 * width, 4 * width)),
        (2, "mlp.c_proj"): [4, 7],
    }
    for key, (_, v) in factors_of(edit).items():
        assert v.abs().sum(0).nonzero()[:, 0].tolist() == inside[key]
    assert edit.selector == "given"
    assert edit.selection == Selection("L0N3 L1H2 L1H3 L2N4 L2N7")


def test_rome_takes_the_module_with_the_most_columns() -> None:
    edit = solved(tiny("llama"), rome(), selection="L0N3 L1H2 L2N4 L2N7")
    assert [(w.layer, w.module) for w in edit.writes] == [(1, "attn")]  # a head has 8
    assert edit.selection == Selection("L1H2")
    assert edit.selector == "given, of which 1 of 3 modules"


def test_the_trace_chooses_and_it_is_said() -> None:
    model = tiny("llama")
    edit = solved(model, memit(layers=None, window=2))
    assert edit.selector == "causal trace"
    layers = [write.layer for write in edit.writes]
    assert layers == [1, 2]  # the only window without layer 0
    assert edit.selection == Selection([f"L{layer}MLP" for layer in layers])
    other = capital("Peru", "Paris", "Rome")  # which it does not know
    edit = solved(model, memit(layers=None, window=1), other)
    assert edit.selector.startswith("the usual depth (the model does not say the answer")


def test_two_stages() -> None:
    model = tiny("llama")
    edit = solved(model, memit(stages=("unlearn", "learn"), steps=4))
    assert edit.stage_names == ("unlearn", "learn")
    assert [write.stage for write in edit.writes] == ["unlearn", "unlearn", "learn", "learn"]
    assert {step.stage for step in edit.history} == {"unlearn", "learn"}
    assert edit.delta("unlearn").digest() != edit.delta().digest()
    with wb.applied(model, edit, strength=0.0) as edited:
        ids = torch.tensor([[5, 90, 17, 33]])
        assert torch.equal(edited.hf(ids).logits, model.runner(ids).logits)


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = tiny("llama")
    edit = solved(model, memit(), selection="L1H2 L2N4")
    loaded = wb.load_edit(edit.save(tmp_path / "edit"))
    assert (loaded.id, loaded.writes, loaded.recipe, loaded.history) == (
        edit.id,
        edit.writes,
        edit.recipe,
        edit.history,
    )
    for recipe in (rome(two_keys=True), memit(stages=("unlearn", "learn")), wb.recipes.AlphaEdit(), wb.recipes.EMMET()):
        assert type(recipe).from_dict(recipe.to_dict()) == recipe


def test_used_facts_are_named() -> None:
    edit = solved(tiny("llama"), memit())
    assert edit.retain_ids == edit.fisher_ids == ("germany-capital", "japan-capital")
    assert solved(tiny("llama"), memit(covariance="identity")).used_ids == ()


def test_a_target_that_cannot_reach_the_answer_is_said() -> None:
    """Of tiny Qwen2 the layers from 1 on see three tokens back, and no subject is so near the answer."""
    model = model_of("qwen2")
    with pytest.warns(UserWarning, match=r"did not move.*after layer 1.*Choose a lower layer"):
        edit = solved(model, rome(covariance="identity", clozes=False))
    assert all(not u.any() for u, _ in factors_of(edit).values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert any(u.any() for u, _ in factors_of(solved(model, rome(layers=(0,), covariance="identity"))).values())


@pytest.mark.parametrize("recipe", [memit(leverage=0.05), memit(leverage=3000.0), rome()])
def test_what_was_learned_is_measured_on_the_written_edit(recipe: Any) -> None:
    """A target vector teaches much more than an update that hardly comes near it."""
    model, facts = tiny("llama"), [FRANCE, SPAIN]
    recipe = replace(recipe, steps=40, rate=0.3, largest=30.0, size_weight=0.0, about_weight=0.0, kl_weight=0.0)
    edit = solved(model, recipe, facts)
    contexts = training_contexts(model, facts, "learn", recipe.taught, clozes=recipe.clozes)
    by_fact: dict[int, list[float]] = {0: [], 1: []}
    with wb.applied(model, edit) as edited, torch.no_grad():
        for context in contexts:
            row = context.row
            logprobs = edited.hf(torch.tensor([row.prompt + row.answer])).logits[0].log_softmax(-1)
            at = range(row.departs, len(row.answer))
            mean = sum(float(logprobs[len(row.prompt) + i - 1, row.answer[i]]) for i in at) / len(at)
            by_fact[context.fact].append(math.exp(mean))
    wanted = min(sorted(found)[len(found) // 4] for found in by_fact.values())
    assert edit.learned == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("kind", [wb.recipes.ROME, wb.recipes.EMMET])
def test_what_is_lacking_after_the_write_is_measured(kind: Any) -> None:
    """In half precision the weights do not hold the update exactly."""
    whole = solved(tiny("llama"), kind(**QUICK, layers=(1,), covariance="identity"))
    half = knowing(MAKERS["llama"]().to(torch.bfloat16))
    rounded = solved(half, kind(**QUICK, layers=(1,), covariance="identity"))
    before, after = whole.writes[0].residual_before or 0.0, whole.writes[0].residual_after or 0.0
    assert 0 < after < 1e-4 * before
    before, after = rounded.writes[0].residual_before or 0.0, rounded.writes[0].residual_after or 0.0
    assert 1e-4 * before < after < before


def test_windows_are_cells_of_the_causal_trace() -> None:
    """A window of one layer, of a text that names the subject once, is the trace's cell there."""
    model = tiny("llama")
    found = restored_by_window(model, FRANCE, 1, samples=4)
    trace = wb.causal_trace(model, FRANCE, "mlp", samples=4, window=1, pool=FACTS, progress=False)
    torch.testing.assert_close(found.float(), trace.at(role="last subject token").float(), atol=1e-5, rtol=1e-4)
    three = wb.causal_trace(model, FRANCE, "mlp", samples=4, window=3, pool=FACTS, progress=False)
    whole = restored_by_window(model, FRANCE, 3, samples=4)
    torch.testing.assert_close(whole.float(), three.at(role="last subject token")[1:2].float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("larger", ["stream", "output"])
def test_a_modules_target_is_as_large_as_what_it_is_added_to(larger: str) -> None:
    """A module whose output is small beside the stream may still need a vector of the stream's size."""
    model = knowing(MAKERS["llama"]())
    place = Place(1, "mlp")
    with torch.no_grad():
        weight = model.hf.get_submodule(module_name(model.architecture, place)).weight
        weight.mul_((0.01 if larger == "stream" else 100.0) / float(weight.norm()))
    edit = solved(model, rome(largest=0.5, rate=100.0))
    recipe: Any = edit.recipe
    contexts = training_contexts(model, edit.facts, "learn", recipe.taught)
    spots = [Spot("resid", 1), Spot("mlp", 1)]
    states = PreparedContexts(model, contexts, place.layer).read(spots)
    stream, output = (float(states[spot].norm(dim=-1).mean()) for spot in spots)
    assert (stream > 3 * output) == (larger == "stream")
    (write,) = edit.writes
    assert write.residual_before == pytest.approx(0.5 * max(stream, output), rel=1e-3)
