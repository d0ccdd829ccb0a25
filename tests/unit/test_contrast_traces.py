"""Contrasts in traces and attributions: bit for bit what facts give, by plain hooks, by every metric, and for many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.plain_hooks import FACTS, FRANCE, ITALY, SPAIN, single
from tests.helpers.traces import hooked
from workbench.language.contrasts import prepare
from workbench.types import EffectMap

COUNTRIES = ("France", "Italy", "Spain")
OPTIONS: dict[str, Any] = {"pool": FACTS, "progress": False}
PAIR: dict[str, Any] = {
    "clean": "The capital of France is",
    "corrupted": "The capital of Spain is",
    "answer": " Paris",
    "wrong": " Madrid",
}


def pair(**other: Any) -> wb.Contrast:
    return wb.Contrast(**{**PAIR, **other})


def same(first: EffectMap, second: EffectMap) -> None:
    assert torch.equal(first.values, second.values)
    assert (first.clean, first.corrupted, first.method) == (second.clean, second.corrupted, second.method)
    assert first.labels == second.labels


@pytest.mark.parametrize("corruption", ["noise", "swap"])
@pytest.mark.parametrize("normalise", [False, True])
def test_a_contrast_of_a_fact_gives_what_the_fact_gives(corruption: Any, normalise: bool) -> None:
    model = single()
    shared: dict[str, Any] = {**OPTIONS, "normalise": normalise, "metric": "logit_diff", "samples": 2}
    contrasts = [wb.Contrast.of(model, fact, corruption=corruption, pool=FACTS, form="cloze") for fact in FACTS[:2]]
    form = {"form": "cloze", "corruption": corruption}
    same(wb.causal_trace(model, FRANCE, **form, **shared), wb.causal_trace(model, contrasts[0], **shared))
    both = wb.causal_trace(model, FACTS[:2], **form, **shared), wb.causal_trace(model, contrasts, **shared)
    same(*both)
    assert both[0].stderr is not None and both[1].stderr is not None and torch.equal(both[0].stderr, both[1].stderr)
    for method in ("attribution", "patching"):
        heads = [
            wb.attribute(model, t, "head", method=method, **shared, **f)
            for t, f in ((FRANCE, form), (contrasts[0], {}))
        ]
        same(*heads)


METRICS: dict[str, Callable[[Tensor, Tensor, int, int], Tensor]] = {
    "logit_diff": lambda logits, clean, right, wrong: logits[:, right] - logits[:, wrong],
    "probability": lambda logits, clean, right, wrong: logits.softmax(-1)[:, right],
    "log_prob": lambda logits, clean, right, wrong: logits.softmax(-1)[:, right].log(),
    "rank": lambda logits, clean, right, wrong: (logits > logits[:, [right]]).sum(-1).float(),
    "kl": lambda logits, clean, right, wrong: torch.nn.functional.kl_div(
        logits.log_softmax(-1), clean.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1),
}


@pytest.mark.parametrize("metric", METRICS)
def test_a_cell_is_what_plain_hooks_give(metric: Any) -> None:
    model = single()
    ready = prepare(model, pair())
    right, wrong = ready.answer_ids[0], ready.wrong_ids[0]
    clean, corrupted = torch.tensor([ready.clean]), torch.tensor([ready.corrupted])
    module, kept = f"{model.architecture.family.layers}.1", list[Tensor]()

    def keep(value: Tensor) -> Tensor:
        kept.append(value.clone())
        return value

    def put(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, 3] = kept[0][:, 3]
        return value

    with torch.no_grad():
        with hooked(model.hf, {module: (True, keep)}):
            best = model.hf(clean).logits[:, -1]
        worst = model.hf(corrupted).logits[:, -1]
        with hooked(model.hf, {module: (True, put)}):
            restored = model.hf(corrupted).logits[:, -1]
        at_best, at_worst, after = (float(METRICS[metric](x, best, right, wrong)) for x in (best, worst, restored))
    trace = wb.causal_trace(model, pair(), metric=metric, progress=False)
    near = 4 if metric == "rank" else 1e-4  # hundreds of tokens are about equally likely here
    assert (trace.metric, trace.metric_words.name) == (metric, metric)
    assert trace.clean == pytest.approx(at_best, abs=near) and trace.corrupted == pytest.approx(at_worst, abs=near)
    assert float(trace.values[1, 3]) == pytest.approx(after - at_worst, abs=near)
    assert float(trace.values[0, 3]) == pytest.approx(at_best - at_worst, abs=near)
    assert abs(at_best - at_worst) > (100 if metric == "rank" else 0.5)


@pytest.mark.filterwarnings("ignore:.*hardly changes")
def test_gradients_of_log_prob_are_near_exact_patching() -> None:
    """The corrupted run is the clean one but for a little noise, so that the first order is nearly all."""
    little = pair(corrupted=None, noise=1e-3, noise_at=3)
    for metric in ("log_prob", "logit_diff"):
        maps = [
            wb.attribute(single(), little, "mlp", method=method, metric=metric, samples=2, progress=False).values
            for method in ("attribution", "patching")
        ]
        assert torch.allclose(*maps, rtol=0.1, atol=2e-4), metric


def margin(logits: Tensor) -> Tensor:
    return logits[:, 3] - logits[:, 4]


def test_a_function_is_a_metric(tmp_path: Any) -> None:
    trace = wb.causal_trace(single(), pair(), metric=margin, progress=False)
    by_name = wb.causal_trace(single(), pair(answer=3, wrong=4), metric="logit_diff", progress=False)
    assert torch.equal(trace.values, by_name.values)
    assert trace.metric == "margin" and trace.provenance["settings"]["metric"] == "margin"
    assert wb.EffectMap.load(trace.save(tmp_path / "a.safetensors")).metric_words.scale == "effect on margin"
    heads = wb.attribute(single(), FRANCE, metric=margin, samples=1, **OPTIONS)
    assert heads.metric == "margin"


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (lambda logits: logits, r"'own metric' must .* returned shape \(\d+, \d+\) and not \(\d+,\)"),
        (lambda logits: 3.0, "returned float and not"),
        (lambda logits: logits[:, 0] * float("nan"), "not finite"),
        (lambda logits: logits[:, 0].detach(), "has no gradient"),
        (lambda logits: logits.argmax(-1), "has no gradient"),
        ("rank", "'rank' has no gradient"),
        ("loss", "metric must be one of"),
    ],
)
def test_a_metric_that_does_not_fit_says_so(metric: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        wb.attribute(single(), pair(), metric=metric, progress=False)


def test_a_metric_that_does_not_tell_the_runs_apart_is_warned_of() -> None:
    def constant(logits: Tensor) -> Tensor:
        return logits.softmax(-1).sum(-1)

    with pytest.warns(UserWarning, match=r"hardly changes the constant, from 1 \(clean\) to 1 \(corrupted\)"):
        wb.causal_trace(single(), pair(), metric=constant, progress=False)
    with pytest.raises(ValueError, match=r"nothing to recover. Use .* answer or contrast"):
        wb.attribute(single(), pair(), metric=constant, normalise=True, progress=False)


def test_maps_of_many_contrasts_are_means_over_named_positions() -> None:
    given = [
        pair(clean=f"{start} of {one} is", corrupted=f"{start} of {other} is", positions={"country": one, "end": -1})
        for start, one, other in (("The capital", "France", "Spain"), ("The capital city", "Italy", "Spain"))
    ]
    maps = [wb.causal_trace(single(), one, progress=False) for one in given]
    many = wb.causal_trace(single(), given, progress=False)
    assert many.labels["position"] == ("tokens before the change", "country", "end")
    assert torch.allclose(many.values[:, 1], (maps[0].values[:, 3] + maps[1].values[:, 4]) / 2)
    spread = (maps[0].values[:, 3] - maps[1].values[:, 4]).abs() / 2
    assert many.stderr is not None and torch.allclose(many.stderr[:, 1], spread, atol=1e-6)
    assert str(many.top(1, role="country")) == "L0ATTN L0MLP" and many.subject == ()
    assert wb.attribute(single(), given, progress=False).n == 2


def test_states_are_traced_as_their_text_is() -> None:
    model = single()
    ready = prepare(model, pair())
    embedding: Any = model.hf.get_input_embeddings()
    states = [embedding(torch.tensor(ids)) for ids in (ready.clean, ready.corrupted)]
    given = {"clean": states[0], "corrupted": states[1], "answer": ready.answer_ids[0], "wrong": ready.wrong_ids[0]}
    by_state = wb.causal_trace(model, wb.Contrast(**given), progress=False)
    assert torch.equal(by_state.values, wb.causal_trace(model, pair(), progress=False).values)
    for option, said in (
        ({"method": "dla"}, "Direct effects read"),
        ({"engine": "transformerlens"}, "TransformerLens"),
    ):
        with pytest.raises(ValueError, match=f"{said}.* was given as states"):
            wb.attribute(model, wb.Contrast(**given), progress=False, **mistyped(option))


def test_transformerlens_gives_the_same() -> None:
    fast, slow = (
        wb.causal_trace(single(), pair(), metric="kl", engine=engine, progress=False)
        for engine in ("auto", "transformerlens")
    )
    assert torch.allclose(fast.values, slow.values, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ((pair(), FRANCE), {}, "takes facts or contrasts, not both"),
        ((), {}, "at least one fact"),
        ((pair(),), {"form": "chat"}, "form= is for facts"),
        ((pair(),), {"token": "target", "partner": ITALY}, "partner=, token= is for facts"),
        ((pair(), pair(corrupted=None, noise=1.0, noise_at=3)), {}, "Some contrasts have noise"),
        ((pair(wrong=None),), {"metric": "logit_diff"}, "give the contrast a wrong= answer"),
    ],
)
def test_what_does_not_go_together(given: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        wb.causal_trace(single(), given, progress=False, **options)
    with pytest.raises(TypeError, match="takes a Fact"):
        wb.attribute(single(), mistyped([SPAIN, "france-capital"]), progress=False)


def test_controls_may_be_contrasts() -> None:
    others = [pair(clean=f"The capital of {name} is") for name in ("Italy", "Germany")]
    less = wb.attribute(single(), pair(), contrast=others, progress=False)
    alone = [wb.attribute(single(), one, progress=False).values for one in (pair(), *others)]
    assert torch.allclose(less.values, alone[0] - (alone[1] + alone[2]) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="must not hold"):
        wb.attribute(single(), pair(), contrast=[pair()], progress=False)
