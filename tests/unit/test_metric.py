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
    assert METRICS["log_prob"].measure(logits, PROMPT).exp().tolist() == pytest.approx([0.114195, 1 / 3], abs=1e-5)
    assert METRICS["rank"].measure(logits, PROMPT).tolist() == [1.0, 0.0]
    clean = torch.tensor([[0.0, 0.0, 0.0]])
    assert METRICS["kl"].measure(logits, PROMPT, clean).tolist() == pytest.approx([0.737900, 0.0], abs=1e-5)
    with pytest.raises(ValueError, match=r"metric must be one of \('probability', .*, or a function .*, got 'kls'"):
        check_metric(mistyped("kls"))


def test_several_answers_by_hand() -> None:
    logits = torch.tensor([[0.0, 1.0, 3.0, 2.0]])
    several = replace(PROMPT, answers=(1, 3), others=(0, 2))
    p = logits.softmax(-1)[0]
    assert float(METRICS["probability"].measure(logits, several)) == pytest.approx(float(p[1] + p[3]))
    assert float(METRICS["log_prob"].measure(logits, several)) == pytest.approx(float((p[1] + p[3]).log()), abs=1e-6)
    assert float(METRICS["rank"].measure(logits, several)) == 1.0
    odds = float(((p[1] + p[3]) / (p[0] + p[2])).log())
    assert float(METRICS["logit_diff"].measure(logits, several)) == pytest.approx(odds, abs=1e-6)


def test_what_lowers_a_rank_supports_the_answer() -> None:
    effects = trace(
        metric="rank", unit="mlp", values=torch.tensor([[-3.0, 0.0], [2.0, 1.0]]), tokens=(" a", " b"), layers=2
    )
    assert str(effects.top(1)) == "L0MLP" and str(effects.above(2.5)) == "L0MLP"
    assert str(replace(effects, metric="logit_diff").top(1)) == "L1MLP"


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
    words = MetricWords(name="own", title="own log probability", unit="nats")
    rule = MetricRule(words=words, measure=lambda logits, prompt: logits.log_softmax(-1)[:, prompt.answer_id])
    monkeypatch.setitem(metrics.METRICS, "own", rule)
    effect = causal_trace(tiny(), FRANCE, metric=mistyped("own"), form="cloze", samples=1, progress=False)
    plain = causal_trace(tiny(), FRANCE, form="cloze", samples=1, progress=False)
    assert effect.clean == pytest.approx(torch.tensor(plain.clean).log().item(), abs=1e-5)
    again = EffectMap.load(effect.save(tmp_path / "map.safetensors"))
    assert again.words == words
    figure = again.plot()
    assert figure.layout.coloraxis.colorbar.title.text == "effect on own log probability (nats)"
    assert measured(again) == "own log probability"
