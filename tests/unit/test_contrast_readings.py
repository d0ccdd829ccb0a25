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


def as_states(contrast: wb.Contrast, **other: Any) -> wb.Contrast:
    """The same contrast, given as what its texts are to layer 0."""
    ready, embedding = prepare(single(), contrast), single().hf.get_input_embeddings()
    with torch.no_grad():
        runs = [embedding(torch.tensor(ids)) for ids in (ready.clean, ready.corrupted) if ids is not None]
    given: dict[str, Any] = {"clean": runs[0], "answer": ready.answer_ids[0], "wrong": ready.wrong_ids[0]}
    return wb.Contrast(**given, **({"corrupted": runs[1]} if len(runs) > 1 else {}), **other)


@pytest.mark.parametrize("ablation", ["zero", "swap", "mean"])
@pytest.mark.parametrize("engine", ["auto", "transformerlens"])
def test_an_ablation_of_states_is_that_of_their_text(ablation: Any, engine: Any) -> None:
    options: dict[str, Any] = {"ablation": ablation, "engine": engine, "new_tokens": 2, "control": 1}
    options |= {"pool": FACTS} if ablation == "mean" else {}
    own = wb.ablate(single(), pair(positions={}), "L1H2 L0MLP", **options)
    states = wb.ablate(single(), as_states(pair(positions={})), "L1H2 L0MLP", **options)
    for name in ("clean", "corrupted", "ablated"):
        assert getattr(states, name) == pytest.approx(getattr(own, name), abs=1e-4), name
    assert states.ablated != states.clean and states.ablated_text == own.ablated_text
    assert states.controls[0].ablated == pytest.approx(own.controls[0].ablated, abs=1e-4)


def test_an_ablation_of_states_with_noise_has_no_swap() -> None:
    noisy = as_states(pair(corrupted=None, noise=1.0), noise=1.0, positions={"country": 3})
    assert wb.ablate(single(), noisy, "L0MLP").corruption == "noise"
    with pytest.raises(ValueError, match="needs a corrupted text"):
        wb.ablate(single(), noisy, "L0MLP", ablation="swap")


def test_states_are_no_text_of_a_mean() -> None:
    many = [as_states(pair(positions={})), pair(positions={}), pair("Italy", positions={})]
    found = wb.ablate(single(), many, "L1MLP", ablation="mean")
    assert [one.references for one in found.rows] == [2, 1, 1]


def test_a_lens_attention_and_a_cache_of_states_are_those_of_their_text() -> None:
    text, states = pair(positions={}), as_states(pair(positions={}))
    own, given = wb.lens(single(), text), wb.lens(single(), states)
    assert given.probabilities["old"] == pytest.approx(own.probabilities["old"], abs=1e-4)
    assert given.ranks["old"] == own.ranks["old"] and given.probabilities["old"][-1] > 0.9
    weights, prompt = wb.attention_patterns(single(), states)
    torch.testing.assert_close(weights, wb.attention_patterns(single(), text)[0])
    assert prompt.tokens[0] == "state 0"
    head = wb.attention_pattern(single(), states, "L1H3")
    assert head.to_numpy() == pytest.approx(wb.attention_pattern(single(), text, "L1H3").to_numpy(), abs=1e-5)
    name = "blocks.1.hook_mlp_out"
    torch.testing.assert_close(wb.cache(single(), states, name)[name], wb.cache(single(), text, name)[name])


def test_a_hook_of_ones_own_comes_after_the_states() -> None:
    shut = [("blocks.0.hook_resid_pre", lambda value, hook: value * 0)]
    text, states = (
        wb.lens(single(), one, fwd_hooks=shut) for one in (pair(positions={}), as_states(pair(positions={})))
    )
    assert states.probabilities["old"] == pytest.approx(text.probabilities["old"], abs=1e-4)
    assert states.probabilities["old"] != wb.lens(single(), pair(positions={})).probabilities["old"]


def test_what_needs_a_text_says_so() -> None:
    states = as_states(pair(positions={}))
    with pytest.raises(ValueError, match=r"Lenses read token ids, .* was given as states"):
        wb.lens_grid(single(), states)
    with pytest.raises(ValueError, match=r"Writes read token ids, .* was given as states"):
        wb.writes(single(), "L1H3", fact=states)
