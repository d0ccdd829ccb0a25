"""Contrasts in ablations, lenses, attention and caches: what facts give, and what they say of what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.plain_hooks import FACTS, FRANCE, single
from tests.helpers.traces import hooked
from workbench.language.contrasts import prepare

COUNTRIES = ("France", "Italy", "Spain", "Germany")


def pair(country: str = "France", **other: Any) -> wb.Contrast:
    given: dict[str, Any] = {"clean": f"The capital of {country} is", "corrupted": "The capital of Japan is"}
    return wb.Contrast(**{**given, "answer": " Paris", "wrong": " Tokyo", "positions": {"country": country}, **other})


@pytest.mark.parametrize("ablation", ["zero", "swap"])
@pytest.mark.parametrize("corruption", ["swap", "noise"])
def test_an_ablation_of_a_facts_contrast_is_that_of_the_fact(ablation: Any, corruption: Any) -> None:
    if (ablation, corruption) == ("swap", "noise"):
        pytest.skip("a contrast with noise has no other text")
    contrast = wb.Contrast.of(single(), FRANCE, corruption=corruption, pool=FACTS, form="cloze")
    options: dict[str, Any] = {"ablation": ablation, "control": 2, "new_tokens": 2}
    against = "partner" if corruption == "swap" else None
    of = {"corruption": corruption, "form": "cloze", "pool": FACTS, "against": against}
    fact = wb.ablate(single(), FRANCE, "L1H2 L0MLP", **options, **of)
    own = wb.ablate(single(), contrast, "L1H2 L0MLP", **options)
    for name in ("clean", "ablated", "corrupted", "clean_next", "ablated_next", "ablated_text", "corruption", "left"):
        assert getattr(fact, name) == getattr(own, name), name
    assert [one.ablated for one in fact.controls] == [one.ablated for one in own.controls]


def test_an_ablation_by_a_divergence_is_that_of_plain_hooks() -> None:
    model = single()
    ready = prepare(model, pair())
    with torch.no_grad():
        clean = model.hf(torch.tensor([ready.clean])).logits[:, -1].log_softmax(-1)
        corrupted = model.hf(torch.tensor([ready.corrupted])).logits[:, -1].log_softmax(-1)
        with hooked(model.hf, {f"{model.architecture.family.layers}.0.mlp": (False, torch.zeros_like)}):
            without = model.hf(torch.tensor([ready.clean])).logits[:, -1].log_softmax(-1)
    ablation = wb.ablate(model, pair(), "L0MLP", metric="kl")
    assert ablation.clean == pytest.approx(0.0, abs=1e-6)
    assert ablation.ablated == pytest.approx(float((clean.exp() * (clean - without)).sum()), abs=1e-4)
    assert ablation.corrupted == pytest.approx(float((clean.exp() * (clean - corrupted)).sum()), abs=1e-4)
    assert ablation.words.startswith("L0MLP set to zero: KL divergence from the clean run")


def test_ablations_of_many_have_means_and_errors() -> None:
    several = wb.ablate(single(), [pair(one) for one in COUNTRIES], "L0MLP")
    effects = torch.tensor([wb.ablate(single(), pair(one), "L0MLP").effect for one in COUNTRIES])
    assert [one.effect for one in several] == pytest.approx(effects.tolist())
    assert several.effect == pytest.approx(float(effects.mean()))
    assert several.stderr == pytest.approx(float(effects.std()) / 2)
    assert several.to_frame().shape == (4, 6) and len(several) == 4 and repr(several).startswith("Ablations(4 texts")
    assert wb.ablate(single(), [pair()], "L0MLP").stderr is None


def test_a_mean_is_over_the_clean_runs_of_the_others() -> None:
    model, others = single(), [pair(one) for one in COUNTRIES]
    texts = [prepare(model, one).clean for one in others[1:]]
    module, states = f"{model.architecture.family.layers}.1.mlp", list[torch.Tensor]()
    with torch.no_grad():
        for ids in texts:
            keep: Any = lambda value: states.append(value[0, 1:]) or value  # noqa: E731
            with hooked(model.hf, {module: (False, keep)}):
                model.hf(torch.tensor([ids]))
        mean = torch.cat(states).mean(0)
        with hooked(model.hf, {module: (False, lambda value: mean.expand_as(value))}):
            logits = model.hf(torch.tensor([prepare(model, others[0]).clean])).logits[0, -1]
    found = wb.ablate(model, others, "L1MLP", ablation="mean")[0]
    ready = prepare(model, others[0])
    assert found.references == 3
    assert found.ablated == pytest.approx(float(logits[ready.answer_ids[0]] - logits[ready.wrong_ids[0]]), abs=1e-4)
    assert wb.ablate(model, others[0], "L1MLP", ablation="mean", pool=FACTS).references == 5


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ({}, {"ablation": "mean"}, "over the clean runs of others: give several"),
        ({"corrupted": None, "noise": 1.0}, {"ablation": "swap"}, "needs a corrupted text"),
        ({}, {"against": "target", "form": "chat"}, "against=, form= is for facts"),
        ({}, {"corruption": "noise"}, "the contrast has its own: 'swap'"),
        ({"clean": torch.zeros(3, 42), "corrupted": torch.ones(3, 42), "positions": {}}, {}, "given as states"),
    ],
)
def test_an_ablation_says_what_does_not_fit(given: dict[str, Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        wb.ablate(single(), pair(**given), "L0MLP", **options)


def test_a_lens_of_a_contrast_reads_its_two_answers() -> None:
    model = single()
    fact = wb.lens(model, FRANCE, form="cloze")
    own = wb.lens(model, wb.Contrast.of(model, FRANCE, corruption="noise", form="cloze"))
    for name in ("old", "new"):
        assert own.probabilities[name] == fact.probabilities[name] and own.ranks[name] == fact.ranks[name]
    assert own.names == ("old", "new") and own.top == fact.top
    assert own.verdict == fact.verdict.replace("the old answer", "the answer").replace("the new", "the wrong")
    assert len(own.plot().data) == 4 and list(own.to_frame().columns)[-1] == "rank_new"


def test_a_lens_of_a_set_of_answers_is_of_any_of_them() -> None:
    either = wb.lens(single(), pair(answer=[" Paris", " Rome"], wrong=None))
    paris, rome = (wb.lens(single(), pair(answer=one)) for one in (" Paris", " Rome"))
    expected = [a + b for a, b in zip(paris.probabilities["old"], rome.probabilities["old"], strict=True)]
    assert either.probabilities["old"] == pytest.approx(expected)
    assert either.ranks["old"] == tuple(map(min, paris.ranks["old"], rome.ranks["old"]))
    assert either.names == ("old",) and "or 1 more" in either.tokens["old"]
    assert either.finding and either.plot() is not None and either.first_win is None
    assert [one.prompt for one in wb.lens(single(), [pair(), pair("Italy")])] == [
        prepare(single(), pair(one)).prompt for one in ("France", "Italy")
    ]


def test_mean_attention_is_between_named_positions() -> None:
    model, given = single(), [pair(), pair("Italy", clean="The capital city of Italy is", corrupted=None, noise=1.0)]
    first, prompt = wb.attention_patterns(model, given[0])
    second, _ = wb.attention_patterns(model, given[1])
    means = wb.attention_patterns(model, given)
    before, country, last = means.roles
    assert (before, country, last) == ("tokens before the change", "country", "last token") and means.n == 2
    assert prompt.tokens[3] == " France" and tuple(means.weights.shape) == (3, 6, 3, 3)
    assert torch.allclose(means.weights.sum(-1), torch.ones(3, 6, 3), atol=1e-5)
    assert torch.allclose(means.weights[..., 2, 1], (first[..., 4, 3] + second[..., 5, 4]) / 2, atol=1e-6)
    by_hand = (first[..., :3, :3].sum(-1).mean(-1) + second[..., :4, :4].sum(-1).mean(-1)) / 2
    assert torch.allclose(means.weights[..., 0, 0], by_hand, atol=1e-6)
    frame = wb.attention_pattern(model, given, "L1H3")
    assert frame.loc[last, country] == pytest.approx(float(means.weights[1, 3, 2, 1]))
    error = (first[1, 3, 4, 3] - second[1, 3, 5, 4]).abs() / 2
    assert frame.attrs["stderr"].loc[last, country] == pytest.approx(float(error), abs=1e-6)
    assert wb.attention_pattern(model, given[0], "L1H3").shape == (5, 5)


def test_a_cache_of_a_contrast_is_that_of_its_clean_run() -> None:
    name = "blocks.1.hook_mlp_out"
    own, text = wb.cache(single(), pair(), name), wb.cache(single(), "The capital of France is", name, form="cloze")
    assert torch.equal(own[name], text[name])
    with pytest.raises(ValueError, match="form= is for facts"):
        wb.cache(single(), pair(), name, form="cloze")


def test_readings_of_states_are_refused() -> None:
    states = pair(clean=torch.zeros(3, 42), corrupted=torch.ones(3, 42), positions={}, answer=1, wrong=2)
    for read in (wb.lens, wb.attention_patterns):
        with pytest.raises(ValueError, match="was given as states"):
            read(single(), states)
