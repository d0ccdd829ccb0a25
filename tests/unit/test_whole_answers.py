"""Contrasts whose answers have more than one token: whole answers, measured by plain passes with the answer after the
text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.plain_hooks import FACTS, single
from tests.helpers.traces import hooked
from workbench.language.contrasts import prepare

PAIR: dict[str, Any] = {
    "clean": "The capital of France is",
    "corrupted": "The capital of Spain is",
    "answer": " Oslo",
    "wrong": " Bonn",
}
NOISE: dict[str, Any] = {"corrupted": None, "noise": 2.0, "noise_at": 3}


def pair(**other: Any) -> wb.Contrast:
    return wb.Contrast(**{**PAIR, **other})


def answers() -> tuple[list[int], list[int]]:
    prompt = prepare(single(), pair(), sequences=True).prompt
    assert prompt.other_id is not None and prompt.answer_rest and prompt.other_rest
    return [prompt.answer_id, *prompt.answer_rest], [prompt.other_id, *prompt.other_rest]


Changes = dict[str, tuple[bool, Callable[[Tensor], Tensor]]]


def whole(text: Any, ids: list[int], changes: Callable[[int], Changes] = lambda tokens: {}) -> float:
    """The log probability of an answer after a text, in one plain pass over both."""
    model, given = single(), [*text, *ids[:-1]]
    with torch.no_grad(), hooked(model.hf, changes(len(given))):
        logits = model.hf(torch.tensor([given])).logits[0, len(text) - 1 :]
    return float(logits.log_softmax(-1)[range(len(ids)), ids].sum())


def difference(text: Any, changes: Callable[[int], Changes] = lambda tokens: {}) -> float:
    right, wrong = answers()
    return whole(text, right, changes) - whole(text, wrong, changes)


def runs() -> tuple[tuple[int, ...], tuple[int, ...]]:
    ready = prepare(single(), pair(), sequences=True)
    assert ready.clean is not None and ready.corrupted is not None
    return ready.clean, ready.corrupted


def test_the_tokens_of_a_whole_answer() -> None:
    right, wrong = answers()
    assert single().tokenizer.decode(right) == " Oslo" and single().tokenizer.decode(wrong) == " Bonn"
    trace = wb.causal_trace(single(), pair(), metric="logit_diff", progress=False)
    assert (trace.prompts[0].answer_token, trace.prompts[0].other_token) == (" Oslo", " Bonn")
    assert trace.metric_words.unit == "nats" and len(trace.labels["position"]) == 5


def test_baselines_and_cells_are_those_of_plain_passes() -> None:
    model, (clean, corrupted) = single(), runs()
    layer, kept = f"{model.architecture.family.layers}.1", list[Tensor]()

    def keeping(tokens: int) -> Changes:
        return {layer: (True, lambda value: kept.append(value.clone()) or value)}

    def putting(tokens: int) -> Changes:
        def put(value: Tensor) -> Tensor:
            value = value.clone()
            value[:, 3] = kept[0][:, 3]
            return value

        return {layer: (True, put)}

    best, worst = difference(clean, keeping), difference(corrupted)
    trace = wb.causal_trace(model, pair(), metric="logit_diff", progress=False)
    assert (trace.clean, trace.corrupted) == (pytest.approx(best, abs=1e-4), pytest.approx(worst, abs=1e-4))
    assert float(trace.values[1, 3]) == pytest.approx(difference(corrupted, putting) - worst, abs=1e-4)
    right, _ = answers()
    alone = wb.causal_trace(model, pair(wrong=None), metric="log_prob", progress=False)
    assert alone.clean == pytest.approx(whole(clean, right), abs=1e-4)


def test_a_head_is_patched_at_all_positions_of_the_answer_too() -> None:
    model, (clean, corrupted) = single(), runs()
    module, width = f"{model.architecture.family.layers}.1.self_attn.o_proj", model.shape.d_head
    right, wrong = answers()
    effects = 0.0
    for sign, ids in ((1, right), (-1, wrong)):
        kept: list[Tensor] = []

        def put(value: Tensor, kept: list[Tensor] = kept) -> Tensor:
            value = value.clone()
            value[..., 2 * width : 3 * width] = kept[0][..., 2 * width : 3 * width]
            return value

        keep: Any = lambda value, kept=kept: kept.append(value.clone()) or value  # noqa: E731
        whole(clean, ids, lambda tokens, keep=keep: {module: (True, keep)})
        effects += sign * (whole(corrupted, ids, lambda tokens, put=put: {module: (True, put)}) - whole(corrupted, ids))
    exact = wb.attribute(model, pair(), method="patching", progress=False)
    assert float(exact.values[1, 2]) == pytest.approx(effects, abs=1e-4)
    assert exact.metric_words.title == "difference of log probabilities"


@pytest.mark.filterwarnings("ignore:.*hardly changes")
def test_gradients_are_near_exact_patching_where_little_changes() -> None:
    little = pair(corrupted=None, noise=1e-2, noise_at=3)
    exact, near = (
        wb.attribute(single(), little, "mlp", method=method, samples=2, progress=False).values
        for method in ("patching", "attribution")
    )
    assert torch.allclose(exact, near, rtol=0.1, atol=0.05 * float(exact.abs().max()))


def test_an_ablation_is_that_of_plain_passes() -> None:
    model, (clean, corrupted) = single(), runs()
    module = f"{model.architecture.family.layers}.1.mlp"
    ablation = wb.ablate(model, pair(), "L1MLP")
    zero = difference(clean, lambda tokens: {module: (False, torch.zeros_like)})
    assert ablation.clean == pytest.approx(difference(clean), abs=1e-4)
    assert ablation.ablated == pytest.approx(zero, abs=1e-4)
    assert ablation.corrupted == pytest.approx(difference(corrupted), abs=1e-4)
    assert "difference of log probabilities" in ablation.words
    swapped = wb.ablate(model, pair(), "L0ATTN L0MLP L1ATTN L1MLP L2ATTN L2MLP", ablation="swap")
    assert swapped.left is not None
    noised = wb.ablate(model, pair(**NOISE), "L1MLP", samples=3)
    trace = wb.causal_trace(model, pair(**NOISE), metric="logit_diff", samples=3, progress=False)
    assert noised.corrupted == pytest.approx(trace.corrupted, abs=1e-4)


def test_one_token_and_a_whole_answer_may_stand_against_each_other() -> None:
    """The logit difference of single tokens is that of their log probabilities."""
    single_token = wb.causal_trace(single(), pair(answer=" Paris", wrong=" Rome"), metric="logit_diff", progress=False)
    log_probs = [
        wb.causal_trace(single(), pair(answer=one, wrong=None), metric="log_prob", progress=False)
        for one in (" Paris", " Rome", " Bonn")
    ]
    assert torch.allclose(single_token.values, log_probs[0].values - log_probs[1].values, atol=1e-4)
    mixed = wb.causal_trace(single(), pair(answer=" Paris"), metric="logit_diff", normalise=True, progress=False)
    expected = log_probs[0].values - log_probs[2].values
    ends = [log_probs[0].clean - log_probs[2].clean, (log_probs[0].corrupted or 0) - (log_probs[2].corrupted or 0)]
    assert torch.allclose(mixed.values, expected / (ends[0] - ends[1]), atol=1e-4)


def test_a_divergence_needs_no_answer() -> None:
    same = [wb.causal_trace(single(), pair(answer=one), metric="kl", progress=False) for one in (" Oslo", " Paris")]
    assert torch.equal(same[0].values, same[1].values)


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ({}, {"metric": "probability"}, "is about one token"),
        ({}, {"metric": "rank"}, "is about one token"),
        ({"answer": [" Oslo", " Paris"]}, {"metric": "logit_diff"}, "one against one"),
        ({"wrong": " Osaka"}, {"metric": "logit_diff"}, "both begin with the token"),
        ({"wrong": None}, {"metric": "logit_diff"}, "give the contrast a wrong= answer"),
    ],
)
def test_what_whole_answers_do_not_fit(given: dict[str, Any], options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        wb.causal_trace(single(), pair(**given), progress=False, **options)
    with pytest.raises(ValueError, match=said):
        wb.ablate(single(), pair(**given), "L1MLP", **options)


def test_direct_effects_and_lenses_of_whole_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="one answer of one token"):
        wb.attribute(single(), pair(), method="dla", progress=False, pool=FACTS)
    with pytest.raises(ValueError, match="is 5 tokens here"):
        wb.lens(single(), pair())
