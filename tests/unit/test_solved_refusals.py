"""Closed-form edits of tiny models: what they refuse, and that nothing is half-applied."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.solved import FRANCE, SPAIN, memit, rome, solved, tiny
from tests.helpers.tiny_facts import MAKERS, knowing
from workbench.editing.solved.keys import mean_by_fact
from workbench.editing.solved.places import (
    SubjectMissing,
    about_contexts,
    context_of,
)
from workbench.editing.training.loop import NonFiniteLoss
from workbench.editing.training.rows import Row
from workbench.language.prompts import prompt_ids
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, FactSet, Step
from workbench.types.cancelling import Cancelled


@pytest.fixture(autouse=True, scope="module")
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The covariances of the tiny models are measured once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


# What is refused


NAMELESS = replace(FRANCE, paraphrases=("What is its capital?",))


@pytest.mark.parametrize(
    ("recipe", "facts", "selection", "words"),
    [
        (rome(), FRANCE, 5, r"no selector of its own, so a number of neurons \(5\)"),
        (rome(), FRANCE, "L1Q2 L1KV0", r"L1Q2, L1KV0 have no columns of an output projection.*heads"),
        (rome(layers=(7,)), FRANCE, None, r"Layer 7 does not exist: the model has 3 layers \(0 to 2\)"),
        (memit(covariance_tokens=20), FRANCE, None, r"20 tokens.*56 inputs.*min_tokens"),
        (memit(answers="short"), NAMELESS, None, r"subject 'France' is not in the context .*its capital"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_lost(recipe: BaseRecipe, facts: Any, selection: Any, words: str) -> None:
    model = tiny("llama")
    before = model.fingerprint, [name for name, _ in model.hf.named_modules()]
    with pytest.raises((ValueError, NonFiniteLoss), match=words):
        solved(model, recipe, facts, selection)
    assert (model.fingerprint, [name for name, _ in model.hf.named_modules()]) == before


def test_a_target_that_is_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.editing.solved.target._Search.backward", lambda *_: (float("nan"), 0.0))
    before = tiny("llama").fingerprint
    with pytest.raises(NonFiniteLoss, match=r"target vector is not finite at step 0 \(loss nan\).*recipe's rate"):
        solved(tiny("llama"), memit())
    assert tiny("llama").fingerprint == before


@pytest.mark.parametrize(
    "options",
    [
        {"layers": (0, 1)},
        {"keys": "some"},
        {"stages": ("learn", "unlearn")},
        {"rate": 0.0},
        {"rate": float("inf")},
        {"covariance": "other"},
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        wb.recipes.ROME(**options)


def with_neuron(scale: float) -> LoadedModel:
    """A model one of whose neurons hardly fires."""
    hf = MAKERS["llama"]()
    with torch.no_grad():
        up = hf.model.layers[1].mlp.up_proj
        up.weight[5] *= scale
    return knowing(hf)


@pytest.mark.parametrize("covariance", ["measured", "identity"])
def test_a_neuron_that_does_not_fire_has_no_denominator(covariance: Any) -> None:
    recipe = rome(covariance=covariance, ridge=1e-3)
    with pytest.raises(ValueError, match=r"denominator .* at layer 1 mlp.down_proj is \S+, .*the 1 selected columns"):
        solved(with_neuron(1e-6 if covariance == "identity" else 0.0), recipe, selection="L1N5")
    if covariance == "identity":
        edit = solved(with_neuron(1e-6), replace(recipe, force=True), selection="L1N5")
        assert 0 < edit.writes[0].denominator < 1e-9
    with pytest.raises(ValueError, match="denominator"):
        solved(with_neuron(0.0), replace(recipe, force=True), selection="L1N5")


def test_a_subject_outside_a_context() -> None:
    model = tiny("llama")
    row = Row(tuple(prompt_ids(model, "What is the capital?", "chat")), tuple(model.token_ids("France")), 0)
    with pytest.raises(SubjectMissing, match=r"'France' is not in the context .*What is the capital"):
        context_of(model, row, "France")


def test_every_occurrence_has_a_key_and_none_in_what_counts() -> None:
    model = tiny("llama")
    asked = prompt_ids(model, "France is France, what is the capital of France?", "chat")
    begun = model.token_ids("The capital of France is")
    row = Row(tuple(asked), (*begun, *model.token_ids(" France")), len(begun))
    found = context_of(model, row, "France")
    texts = [model.tokenizer.decode([found.ids[i]]).strip() for i in found.subject]
    assert texts == ["France"] * 4
    assert max(found.subject) < len(asked) + len(begun)
    assert all("France" in model.tokenizer.decode(list(c.row.prompt)) for c in about_contexts(model, [FRANCE]))


def test_means_by_fact() -> None:
    columns = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 10.0]])
    torch.testing.assert_close(mean_by_fact(columns, torch.tensor([0, 0, 1])), torch.tensor([[2.0, 3.0], [10.0, 10.0]]))


# Cancelling


def by_flag(flag: threading.Event) -> Callable[[Step], Any]:
    return lambda step: flag.set() if step.step == 1 else None


def by_return(flag: threading.Event) -> Callable[[Step], Any]:
    return lambda step: step.step < 1


def by_key(flag: threading.Event) -> Callable[[Step], Any]:
    def press(step: Step) -> None:
        if step.step == 1:
            raise KeyboardInterrupt

    return press


@pytest.mark.parametrize("how", [by_flag, by_return, by_key])
def test_cancelled_in_the_middle_of_the_target(how: Callable[[threading.Event], Any]) -> None:
    model = tiny("llama")
    solved(model, memit())  # so that all that is measured is there
    ids = torch.tensor([[5, 90, 17, 33]])
    before, logits = model.fingerprint, model.runner(ids).logits
    flag = threading.Event()
    with pytest.raises((Cancelled, KeyboardInterrupt)):
        solved(model, memit(stages=("unlearn", "learn")), on_step=how(flag), cancel=flag)
    assert model.fingerprint == before
    assert torch.equal(model.runner(ids).logits, logits)
    assert not any(p.requires_grad for p in model.runner.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.runner.modules())


def test_steps_are_shown_as_they_are_made() -> None:
    steps: list[Step] = []
    edit = solved(tiny("llama"), memit(), on_step=steps.append)
    assert tuple(steps) == edit.history
    assert [step.step for step in steps] == [0, 1, 2]
    two = solved(tiny("llama"), memit(), FactSet([FRANCE, SPAIN]))
    assert [step.step for step in two.history] == [0, 1, 2, 3, 4, 5]
