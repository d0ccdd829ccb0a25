"""The published procedures of ROME and MEMIT: what they promise exactly, on tiny models."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.small_fits import assert_unchanged, unchanged
from tests.helpers.tiny_facts import FAMILIES, capitals, tiny
from workbench.editing.solved.prefixes import MEMIT_STARTS, memit_contexts, rome_contexts, sampled_texts
from workbench.editing.solved.published import WholeReader, optimised, published_memit, published_rome
from workbench.editing.solved.published_target import MEMIT_TARGET, ROME_TARGET, Factors, texts_of
from workbench.editing.training.loop import NonFiniteLoss
from workbench.types import Edit, Fact, LowRankDelta, Step
from workbench.types.cancelling import Cancelled

FACTS = list(capitals())
FRANCE = FACTS[0]
CONTEXTS = ("{}", "I like Paris. {}", "Tokyo Rome. {}")
CUT = (False, True)
SHORT = replace(ROME_TARGET, steps=4)


def keys(fact: Fact, layer: int, written: Factors | None = None, family: str = "llama") -> Tensor:
    model = tiny(family)
    texts = texts_of(model, fact, CONTEXTS, target=False, kl=False)
    return WholeReader(model, texts).keys(layer, written or {})


def after(fact: Fact, layer: int, written: Factors) -> Tensor:
    texts = texts_of(tiny(), fact, ["{}"], target=False, kl=False)
    return WholeReader(tiny(), texts).after(layer, written)


def covariance(seed: int = 0, d_in: int = 56) -> Tensor:
    draws = torch.randn(300, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return draws.T @ draws / 300


def test_texts_of_a_fact_are_read_where_they_say() -> None:
    model = tiny()
    texts = texts_of(model, FRANCE, CONTEXTS, target=True, kl=True)
    decoded = [model.tokenizer.decode(row) for row in texts.rows]
    assert decoded[1:] == [*(c.replace("{}", FRANCE.prompt) for c in CONTEXTS[1:]), "France is a"]
    for row, at in zip(texts.rows, texts.subject, strict=True):
        assert "France" in model.tokenizer.decode(row[at])
    (tokens, places), none = texts.targets[1], texts.targets[-1]
    assert model.tokenizer.decode(tokens).strip() == "Rome" and none == ((), ())
    assert places == (len(texts.rows[1]) - 1,)  # of one token, which is not part of the text
    with pytest.raises(ValueError, match=r"must hold '..' once"):
        texts_of(model, FRANCE, ["no place"], target=False, kl=False)


def test_contexts_are_drawn_by_seed() -> None:
    model = tiny()
    assert rome_contexts(model, 0) == rome_contexts(model, 0) != rome_contexts(model, 1)
    assert len(rome_contexts(model, 0)) == 21 and rome_contexts(model, 0)[0] == "{}"
    begun = memit_contexts(model, 3)
    assert len(begun) == 6 and begun[0] == "{}" and all(c.endswith(". {}") for c in begun[1:])
    assert all(c.startswith(start) for c, start in zip(begun[1:], MEMIT_STARTS, strict=True))
    (text,) = sampled_texts(model, ["The"], 4, 0)
    assert text.startswith("The")


def test_the_last_pass_makes_no_update() -> None:
    model, seen = tiny(), list[int]()
    for steps in (1, 2):
        seen.clear()
        _, delta = optimised(
            model,
            FRANCE,
            CONTEXTS,
            1,
            residual=False,
            settings=replace(ROME_TARGET, steps=steps, clamp=1e6),
            before_step=lambda step, nll, kl: seen.append(step),
        )
        assert seen == list(range(steps))
        assert float(delta.abs().max()) == pytest.approx(0.5 * (steps - 1), abs=1e-5)  # Adam's first update is its rate


def test_the_first_loss_is_the_mean_over_contexts_and_the_vector_stays_in_its_ball() -> None:
    model, losses = tiny(), list[float]()
    start, delta = optimised(
        model,
        FRANCE,
        CONTEXTS,
        1,
        residual=True,
        settings=replace(MEMIT_TARGET, steps=6, clamp=0.1),
        before_step=lambda step, nll, kl: losses.append(nll),
    )
    wanted = []
    for context in CONTEXTS:
        ids = torch.tensor([model.token_ids(context.replace("{}", FRANCE.prompt))])
        (token,) = model.token_ids(f" {FRANCE.target}")
        with torch.no_grad():
            wanted.append(-model.hf(ids).logits[0, -1].log_softmax(-1)[token])
    assert losses[0] == pytest.approx(float(torch.stack(wanted).mean()), abs=1e-4)
    assert losses[-1] < losses[0]
    assert float(delta.norm() / start.norm()) == pytest.approx(0.1, abs=1e-5)


@FAMILIES
def test_rome_gives_the_bare_key_its_target_vector(family: str) -> None:
    """(W + dW) k + b = v* at the bare prompt, whichever way the weight is stored; the direction is C^-1 k's."""
    model, cov = tiny(family), covariance(d_in=tiny(family).shape.d_mlp)
    before = unchanged(model)
    ((u, v),) = published_rome(model, FRANCE, 1, cov, CONTEXTS, settings=SHORT).factors.values()
    _, delta = optimised(model, FRANCE, CONTEXTS, 1, residual=False, settings=SHORT)
    found = keys(FRANCE, 1, family=family)
    torch.testing.assert_close(u @ (v @ found[0]), delta.double(), atol=1e-9, rtol=1e-6)
    direction = torch.linalg.solve(cov, found.mean(0))
    torch.testing.assert_close(v[0], direction / direction.norm(), atol=1e-9, rtol=1e-6)
    part = [3, 8, 30]
    ((u, v),) = published_rome(model, FRANCE, 1, cov, CONTEXTS, settings=SHORT, columns=part).factors.values()
    assert v.nonzero()[:, 1].tolist() == part
    torch.testing.assert_close(u @ (v @ found[0]), delta.double(), atol=1e-9, rtol=1e-6)
    assert_unchanged(model, before)


def test_memit_solves_its_normal_equations_with_lower_layers_in_place() -> None:
    model, layers = tiny(), (0, 1)
    covariances = {layer: covariance(layer) for layer in layers}
    facts, weight = FACTS[:2], 2.0
    settings = replace(MEMIT_TARGET, steps=3)
    found = published_memit(
        model, facts, layers, covariances, CONTEXTS, covariance_weight=weight, settings=settings
    ).factors
    targets = [optimised(model, f, CONTEXTS, 1, residual=True, settings=settings) for f in facts]
    for i, layer in enumerate(layers):
        below = {lower: found[lower] for lower in layers[:i]}
        per_fact = [keys(f, layer, below) for f in facts]
        k = torch.stack([x[0] / 2 + x[1:].mean(0) / 2 for x in per_fact], 1)
        now = [after(f, 1, below) for f in facts]
        r = torch.stack([(s + d).double() - x for (s, d), x in zip(targets, now, strict=True)], 1) / (2 - i)
        u, v = found[layer]
        equations = u @ (v @ (weight * covariances[layer] + k @ k.T) - k.T)
        assert float(equations.norm() / (u @ k.T).norm()) < 1e-6
        torch.testing.assert_close(u, r, atol=1e-4, rtol=1e-4)
    assert not torch.equal(keys(facts[0], 1, {0: found[0]}), keys(facts[0], 1))  # what lower layers got is in the keys


def test_memit_reaches_its_targets_as_the_covariance_loses_weight() -> None:
    model, settings = tiny(), replace(MEMIT_TARGET, steps=3)
    start, delta = optimised(model, FRANCE, ["{}"], 1, residual=True, settings=settings)
    found = published_memit(
        model, [FRANCE], [1], {1: covariance()}, ["{}"], covariance_weight=1e-9, settings=settings
    ).factors
    torch.testing.assert_close(after(FRANCE, 1, found), (start + delta).double(), atol=1e-4, rtol=1e-4)


def test_a_loss_that_is_no_number_is_refused() -> None:
    model = tiny()
    with pytest.raises(NonFiniteLoss, match="learning rate"):
        optimised(model, FRANCE, CONTEXTS, 1, residual=False, settings=replace(SHORT, weight_decay=float("nan")))


@FAMILIES
def test_cut_passes_give_the_same_edits(family: str) -> None:
    """Whole passes beside passes of only what changes."""
    rome, memit = replace(ROME_TARGET, steps=8), replace(MEMIT_TARGET, steps=8)
    model, contexts = tiny(family), (*CONTEXTS, *memit_contexts(tiny(family), 0)[1:3])
    d_in, facts = model.shape.d_mlp, FACTS[:2]
    covariances = {layer: covariance(layer, d_in) for layer in (0, 1)}
    pairs = [
        [published_rome(model, FRANCE, 1, covariances[1], contexts, settings=rome, cut=cut) for cut in CUT],
        [
            published_memit(model, facts, [0, 1], covariances, contexts, covariance_weight=1.0, settings=memit, cut=cut)
            for cut in CUT
        ],
    ]
    for plain, cut in pairs:
        for layer, (u, v) in plain.factors.items():
            wanted, found = u @ v, cut.factors[layer][0] @ cut.factors[layer][1]
            assert float((found - wanted).norm() / wanted.norm()) < 1e-3


def test_the_last_layer_is_refused() -> None:
    """Nothing reads the subject's state after it."""
    for layer in (2, -1, 7):
        with pytest.raises(ValueError, match="layers are 0 to 1"):
            published_rome(tiny(), FRANCE, layer, covariance(), CONTEXTS)


def made(kind: Any, selection: Any = None, fact: Any = FRANCE, **changes: Any) -> Edit:
    """A published edit of the tiny model."""
    options = {name: changes.pop(name) for name in ("on_step", "cancel") if name in changes}
    layers = (1,) if kind is wb.recipes.ROME else (0, 1)
    settings = {"layers": layers, "covariance": "identity", "published": "fast", **changes}
    return wb.rewrite(tiny(), fact, selection, recipe=kind(**settings), pool=capitals(), progress=False, **options)


def updates(edit: Edit) -> dict[tuple[int, str], Tensor]:
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta)
    return {key: u @ v for key, (u, v) in delta.factors.items()}


@pytest.mark.parametrize("kind", [wb.recipes.ROME, wb.recipes.MEMIT])
def test_a_published_recipe_and_the_fast_path_give_one_edit(kind: Any) -> None:
    plain, fast = made(kind, published=True), made(kind, published="fast")
    for key, wanted in updates(plain).items():
        assert float((updates(fast)[key] - wanted).norm() / wanted.norm()) < 1e-3
    assert [step.step for step in plain.history] == [step.step for step in fast.history]
    assert plain.history[-1].loss < plain.history[0].loss
    assert updates(made(kind, seed=1))[1, "mlp.down_proj"].ne(updates(fast)[1, "mlp.down_proj"]).any()
    assert all(write.denominator > 0 and write.residual_before for write in fast.writes)
    found = made(kind, "L1N5 L1N7 L1N40", force=True)  # of three neurons
    ((_, v),) = found.delta().factors.values()  # pyright: ignore[reportAttributeAccessIssue]
    assert v.abs().sum(0).nonzero().flatten().tolist() == [5, 7, 40]
    back = type(found.recipe).from_dict(found.recipe.to_dict())
    assert back == found.recipe


@pytest.mark.parametrize("stage", ["edit", "learn"])
def test_published_steps_are_of_the_stage_and_c_stands_alone(stage: str) -> None:
    """Keys that an update is closed for are of the recipe as it is not published."""
    options: dict[str, Any] = {"covariance": "measured", "covariance_tokens": 1500, "stages": (stage,)}
    alone, closed = (made(wb.recipes.ROME, close=close, **options) for close in (False, True))
    assert {step.stage for step in alone.history} == {stage} == set(alone.stage_names)
    assert closed.closed_relations == ()
    for key, wanted in updates(alone).items():
        assert torch.equal(updates(closed)[key], wanted)


def test_what_was_not_published_is_refused() -> None:
    rome, memit = wb.recipes.ROME, wb.recipes.MEMIT
    for kind, given, words in (
        (rome, {"selection": "L1H2"}, "is of MLPs"),
        (memit, {"stages": ("unlearn", "learn")}, "in one stage"),
        (rome, {"fact": FACTS[:2]}, "edits one fact"),
        (memit, {"layers": (1, 2)}, "layers are 0 to 1"),
        (memit, {"published": "slow"}, "published"),
    ):
        with pytest.raises(ValueError, match=words):
            made(kind, **given)
    with pytest.raises(ValueError, match="no public code"):
        wb.recipes.IntAttnEdit(published=True)


def test_a_published_fit_can_be_cancelled_between_its_passes() -> None:
    before, flag, seen = unchanged(tiny()), threading.Event(), list[Step]()

    def watch(step: Step) -> None:
        seen.append(step)
        if len(seen) == 3:
            flag.set()

    with pytest.raises(Cancelled, match="step 3 of the target vector"):
        made(wb.recipes.MEMIT, on_step=watch, cancel=flag)
    with pytest.raises(Cancelled, match="on_step"):
        made(wb.recipes.ROME, on_step=lambda step: False)
    assert len(seen) == 3
    assert_unchanged(tiny(), before)
