"""Causal traces against a slow loop over plain hooks, a model solved by hand, and TransformerLens."""

from __future__ import annotations

import inspect
import math
import random
from dataclasses import fields
from pathlib import Path
from typing import Any, get_overloads, get_type_hints

import pytest
import torch
from torch import Tensor

from tests.helpers.tiny import N_VOCAB
from tests.helpers.tiny_facts import by_hand
from tests.helpers.traces import FRANCE, MAKERS, SPAIN, SlowTrace, embedded, noisy, tiny, trace
from workbench.language.prompts import swapped, traced_prompt
from workbench.tracing.attribution import AttributionKeywords, attribute
from workbench.tracing.causal import TraceKeywords, causal_trace, default_window
from workbench.tracing.setup import SetupOptions
from workbench.types import EffectMap, Fact, FactSet, TracedPrompt


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


SITES = pytest.mark.parametrize(("site", "window"), [("resid", 1), ("mlp", 1), ("mlp", 3), ("attn", 2), ("attn", 4)])


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("metric", ["probability", "logit_diff"])
@SITES
def test_noise_equals_the_slow_loop(family: str, metric: Any, site: str, window: int) -> None:
    model = tiny(family)
    form = "cloze" if window != 3 else "chat"
    prompt = traced_prompt(model, FRANCE, form=form)
    slow = SlowTrace(model, prompt, noisy(model, prompt, prompt.subject, 3, 2.0, 5), metric)
    found = trace(
        model,
        site=site,
        metric=metric,
        form=form,
        samples=3,
        noise=2.0,
        seed=5,
        window=None if site == "resid" else window,
    )
    assert found.values.abs().max() > (1e-4 if metric == "probability" else 0.01)
    near = min(1e-4, 0.01 * float(found.values.abs().max()))  # probabilities of a tiny random model are small
    torch.testing.assert_close(found.values, slow.all_cells(site, window), atol=near, rtol=0)
    assert found.clean == pytest.approx(slow.clean_value, abs=1e-4)
    assert found.corrupted == pytest.approx(sum(slow.baselines) / 3, abs=1e-4)


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("metric", ["probability", "logit_diff"])
@SITES
def test_swap_equals_the_slow_loop(family: str, metric: Any, site: str, window: int) -> None:
    model = tiny(family)
    form = "chat" if window == 2 else "cloze"
    prompt = swapped(model, FRANCE, traced_prompt(model, FRANCE, form=form), SPAIN)
    clean = traced_prompt(model, FRANCE, form=form)
    assert sum(a != b for a, b in zip(clean.token_ids, prompt.token_ids, strict=True)) == 1
    shown = TracedPrompt(**{**vars_of(clean), "other_id": prompt.other_id})
    slow = SlowTrace(model, shown, [embedded(model, prompt.token_ids)], metric)
    found = trace(
        model,
        site=site,
        metric=metric,
        form=form,
        corruption="swap",
        partner=SPAIN,
        window=None if site == "resid" else window,
    )
    assert float(found.values.abs().max()) > 1e-6
    near = min(1e-4, 0.01 * float(found.values.abs().max()))
    torch.testing.assert_close(found.values, slow.all_cells(site, window), atol=near, rtol=0)
    assert found.clean == pytest.approx(slow.clean_value, abs=1e-4)
    assert found.corrupted == pytest.approx(slow.baselines[0], abs=1e-4)
    assert found.n == 1
    assert found.stderr is None
    if metric == "logit_diff":  # 14 for the answer and 0 for the partner's, and the other way round
        assert found.clean == pytest.approx(14, abs=1e-2)
        assert found.corrupted == pytest.approx(-14, abs=1e-2)


def vars_of(prompt: TracedPrompt) -> dict[str, Any]:
    return dict(vars(prompt))


def test_the_batch_size_does_not_matter() -> None:
    whole = trace(tiny(), site="mlp", samples=3)
    for rows in (1, 17, 40):
        found = trace(tiny(), site="mlp", samples=3, max_rows=rows)
        torch.testing.assert_close(found.values, whole.values, atol=1e-5, rtol=0)


def test_samples_and_their_error() -> None:
    found = trace(tiny(), samples=4, form="cloze")
    assert found.n == 4
    assert found.per_fact is not None
    assert found.per_fact.shape == (4, 4, 5)
    torch.testing.assert_close(found.per_fact.mean(0), found.values)
    torch.testing.assert_close(found.stderr, found.per_fact.std(0) / 2)
    one = trace(tiny(), samples=1, form="cloze")
    assert one.stderr is None


def test_seeds() -> None:
    a, b, c = (trace(tiny(), samples=2, seed=s) for s in (0, 0, 1))
    assert torch.equal(a.values, b.values)
    assert not torch.equal(a.values, c.values)


def test_the_default_window() -> None:
    assert default_window(48) == 10
    assert default_window(30) == 6
    assert default_window(3) == 1
    assert default_window(1) == 1


@pytest.mark.parametrize(("function", "keywords"), [(causal_trace, TraceKeywords), (attribute, AttributionKeywords)])
def test_overloads_take_what_the_function_takes(function: Any, keywords: Any) -> None:
    """And a map comes back for one site or unit, a map each for several."""
    own = {name for name, p in inspect.signature(function).parameters.items() if p.kind == p.KEYWORD_ONLY}
    hints = get_type_hints(function)
    assert {name: hints[name] for name in own} == get_type_hints(keywords)
    shared = {field.name for field in fields(SetupOptions)} - ({"noise_positions"} if function is attribute else set())
    assert shared <= own
    assert all(f"Unpack[{keywords.__name__}]" == o.__annotations__["options"] for o in get_overloads(function))
    returned = [overload.__annotations__["return"] for overload in get_overloads(function)]
    assert returned[0] == "EffectMap" and returned[1].startswith("dict[")


def test_what_a_result_says_about_itself() -> None:
    found = trace(tiny(), site="mlp", samples=2, window=2, form="chat")
    (prompt,) = found.prompts
    assert found.axes == ("layer", "position")
    assert found.labels["layer"] == ("L0", "L1", "L2", "L3")
    assert found.labels["position"] == prompt.tokens
    assert "".join(prompt.tokens) == prompt.text
    assert [prompt.tokens[i] for i in found.subject] == [" France"]
    assert prompt.text.endswith("<|im_start|>assistant\n")
    assert (prompt.form, prompt.prefix, prompt.answer_token, prompt.other_token) == ("chat", "", "Paris", "Rome")
    assert found.provenance["settings"]["window"] == 2
    assert found.provenance["settings"]["seed"] == 0
    assert found.provenance["fingerprint"] == tiny().fingerprint
    assert (found.unit, found.method, found.metric) == ("mlp", "noise", "probability")
    swap = trace(tiny(), corruption="swap", partner=SPAIN)
    assert swap.prompts[0].partner == "spain-capital"
    assert "Spain" in (swap.prompts[0].partner_text or "")
    assert "France" in swap.prompts[0].text
    assert swap.prompts[0].other_token == "Madrid"


def test_restoring_everything_that_was_corrupted_brings_the_answer_back() -> None:
    """One subject token: restoring its embedding is the clean run."""
    found = trace(tiny(), samples=2, form="cloze")
    (position,) = found.subject
    assert found.corrupted is not None
    assert float(found.values[0, position]) == pytest.approx(found.clean - found.corrupted, abs=1e-5)
    assert not found.values[:, :position].any()  # tokens before the subject do not see it


# A model solved by hand (see tests.helpers.tiny_facts.by_hand)

T = 5
PARIS, MADRID = 4.0, -4.0


def hand_trace(site: Any = "resid", **options: Any) -> EffectMap:
    return trace(by_hand(), site=site, **{"form": "cloze", "corruption": "swap", "partner": SPAIN, **options})


def test_the_hand_made_model_says_paris() -> None:
    model = by_hand()
    prompt = traced_prompt(model, FRANCE, form="cloze")
    assert prompt.tokens == ("The", " capital", " of", " France", " is")
    assert prompt.subject == (3,)
    logits = model.hf(torch.tensor([prompt.token_ids])).logits[0, -1]
    expected = torch.zeros(N_VOCAB)
    expected[prompt.answer_id] = PARIS
    expected[model.token_ids(" Madrid")[0]] = MADRID
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_residual_trace_by_hand() -> None:
    """Restoring the subject before layer 1, or the last token after it, takes Paris - Madrid from -8 to +8."""
    found = hand_trace(metric="logit_diff")
    expected = torch.zeros(3, T)
    expected[0, 3] = expected[1, 3] = expected[2, 4] = 16
    torch.testing.assert_close(found.values, expected, atol=1e-4, rtol=0)
    assert found.clean == pytest.approx(8, abs=1e-4)
    assert found.corrupted == pytest.approx(-8, abs=1e-4)


def test_residual_trace_by_hand_as_probability() -> None:
    """P(Paris) is e^4 / (e^4 + e^-4 + N - 2) in the clean run and e^-4 / (the same sum) in the corrupted one."""
    total = math.exp(4) + math.exp(-4) + N_VOCAB - 2
    clean, corrupted = math.exp(4) / total, math.exp(-4) / total
    found = hand_trace()
    expected = torch.zeros(3, T)
    expected[0, 3] = expected[1, 3] = expected[2, 4] = clean - corrupted
    torch.testing.assert_close(found.values, expected, atol=1e-6, rtol=0)
    assert found.clean == pytest.approx(clean, abs=1e-6)
    assert found.corrupted == pytest.approx(corrupted, abs=1e-6)


@pytest.mark.parametrize(("window", "rows"), [(1, [1]), (2, [1, 2]), (3, [0, 1, 2])])
def test_attention_trace_by_hand(window: int, rows: list[int]) -> None:
    """Only a window that holds layer 1 matters, at the last token (a window of 2 at layer 2 is 1 and 2)."""
    found = hand_trace("attn", metric="logit_diff", window=window)
    expected = torch.zeros(3, T)
    expected[rows, 4] = 16
    torch.testing.assert_close(found.values, expected, atol=1e-4, rtol=0)


def test_mlp_trace_by_hand() -> None:
    assert not hand_trace("mlp", metric="logit_diff", window=2).values.any()


def test_the_planted_path_comes_first() -> None:
    assert str(hand_trace("attn", metric="logit_diff", window=1).top(1)) == "L1ATTN"
    noise = hand_trace("attn", corruption="noise", partner=None, metric="logit_diff", window=1, samples=20)
    assert str(noise.top(1)) == "L1ATTN" and noise.corrupted is not None
    assert float(noise.values[1, 4]) == pytest.approx(noise.clean - noise.corrupted, abs=1e-4)
    assert float(noise.values[[0, 2]].abs().max()) < 1e-5


def test_nothing_is_found_for_a_wrong_answer() -> None:
    """Rome's logit is 0 whatever the subject is, and so is its share: e^4 + e^-4 does not change."""
    found = hand_trace(token="target")
    assert found.prompts[0].answer_token == " Rome"
    assert found.clean == pytest.approx(1 / (math.exp(4) + math.exp(-4) + N_VOCAB - 2), abs=1e-7)
    assert float(found.values.abs().max()) < 1e-7


def test_nothing_is_found_at_the_subject_for_noise_on_other_tokens() -> None:
    found = hand_trace(corruption="noise", partner=None, noise_positions=[0, 1], samples=8, metric="logit_diff")
    assert float(found.values[:, 3].abs().max()) < 1e-6
    own = hand_trace(corruption="noise", partner=None, samples=8, metric="logit_diff")
    assert float(own.values[0, 3]) > 1


# Choice of the text and the token


# On the bundled model


def sample_of_cells(model: Any, prompt: TracedPrompt, n: int) -> list[tuple[int, int]]:
    """Cells from the subject on (before it every effect is 0), drawn by seed."""
    tokens = range(prompt.subject[0], len(prompt.token_ids))
    cells = [(layer, position) for layer in range(model.shape.n_layers) for position in tokens]
    return random.Random(0).sample(cells, n)


@pytest.mark.model
@pytest.mark.parametrize("site", ["resid", "mlp", "attn"])
def test_bundled_model_equals_the_slow_loop(model: Any, facts: FactSet, site: Any) -> None:
    fact: Fact = facts["france-capital"]
    prompt = traced_prompt(model, fact, form="cloze")
    slow = SlowTrace(model, prompt, noisy(model, prompt, prompt.subject, 2, 3.0, 0), "probability")
    found = causal_trace(model, fact, site, form="cloze", samples=2, progress=False)
    assert found.clean == pytest.approx(slow.clean_value, abs=1e-4)
    window = 1 if site == "resid" else default_window(30)
    for layer, position in sample_of_cells(model, prompt, 12):
        assert float(found.values[layer, position]) == pytest.approx(
            slow.cell(site, layer, position, window), abs=1e-4
        ), (layer, position)


@pytest.mark.model
def test_bundled_model_equals_transformer_lens(model: Any, facts: FactSet) -> None:
    import pandas as pd
    from transformer_lens.patching import get_act_patch_resid_pre

    fact = facts["france-capital"]
    found = causal_trace(model, fact, form="cloze", corruption="swap", metric="logit_diff", progress=False)
    (prompt,) = found.prompts
    partner = swapped(model, fact, traced_prompt(model, fact, form="cloze"), facts[prompt.partner or ""])

    def difference(logits: Tensor) -> Tensor:
        return logits[0, -1, prompt.answer_id] - logits[0, -1, prompt.other_id]

    cells = sample_of_cells(model, prompt, 8)
    with torch.no_grad():
        _, cache = model.bridge.run_with_cache(
            torch.tensor([prompt.token_ids]), names_filter=lambda name: name.endswith("hook_resid_pre")
        )
        patched = get_act_patch_resid_pre(
            model.bridge,
            torch.tensor([partner.token_ids]),
            cache,
            difference,
            index_axis_names=None,
            index_df=pd.DataFrame(cells, columns=["layer", "pos"]),
        )
    for (layer, position), value in zip(cells, patched.flatten().tolist(), strict=True):
        assert float(found.values[layer, position]) == pytest.approx(value - found.corrupted, abs=1e-4)
