"""Metrics: by hand, and that one row of the table is enough for maps, files, figures and panels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers.mistyped import mistyped
from tests.helpers.results import prompt, trace
from tests.helpers.traces import FRANCE, tiny
from workbench.tracing import metric as metrics
from workbench.tracing.causal import causal_trace
from workbench.tracing.metric import METRICS, MetricRule, check_metric
from workbench.types import EffectMap
from workbench.types.metric_words import MetricWords
from workbench.widgets.picker.captions import measured

PROMPT = replace(prompt((" a", " b"), (0,)), answer_id=1, other_id=2, other_token=" Rome")


def test_by_hand() -> None:
    logits = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]])
    assert METRICS["probability"].measure(logits, PROMPT).tolist() == pytest.approx([0.114195, 1 / 3], abs=1e-5)
    assert METRICS["logit_diff"].measure(logits, PROMPT).tolist() == [-2.0, 0.0]
    with pytest.raises(ValueError, match="needs a second token"):
        METRICS["logit_diff"].measure(logits, replace(PROMPT, other_id=None))
    with pytest.raises(ValueError, match=r"metric must be one of \('probability', 'logit_diff'\), got 'kl'"):
        check_metric("kl")


def test_words_of_a_map() -> None:
    probability, logits = trace(prompts=(PROMPT,)), trace(prompts=(PROMPT,), metric="logit_diff")
    assert (probability.metric_words.scale, probability.metric_words.unit) == ("effect on probability", "probability")
    assert (logits.metric_words.scale, logits.metric_words.unit) == ("effect on logit difference (logits)", "logits")
    assert measured(probability) == "probability"
    assert measured(logits) == "logit of '·Paris' minus '·Rome'"
    assert measured(replace(logits, prompts=())) == "logit difference"
    assert trace(metric="mine").metric_words.scale == "effect on mine"


def test_one_row_adds_a_metric(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    words = MetricWords(name="log_prob", title="log probability", unit="nats")
    rule = MetricRule(words=words, measure=lambda logits, prompt: logits.log_softmax(-1)[:, prompt.answer_id])
    monkeypatch.setitem(metrics.METRICS, "log_prob", rule)
    effect = causal_trace(tiny(), FRANCE, metric=mistyped("log_prob"), form="cloze", samples=1, progress=False)
    plain = causal_trace(tiny(), FRANCE, form="cloze", samples=1, progress=False)
    assert effect.clean == pytest.approx(torch.tensor(plain.clean).log().item(), abs=1e-5)
    again = EffectMap.load(effect.save(tmp_path / "map.safetensors"))
    assert again.words == words
    figure = again.plot()
    assert figure.layout.coloraxis.colorbar.title.text == "effect on log probability (nats)"
    assert measured(again) == "log probability"
