"""The pieces of an evaluation, on a tiny model without a script: they give what the plain model gives."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.helpers.scripted import tiny
from tests.helpers.tiny_facts import capital, capitals, edit_of, some_gates
from workbench.editing.applied import applied
from workbench.evaluation.answer_slots import answers_at
from workbench.evaluation.answering import Answering, Ask
from workbench.evaluation.ask import ask
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.probabilities import answer_probabilities
from workbench.language.generation import generate
from workbench.language.prompts import prompt_ids
from workbench.language.scoring import continuation_logprobs, continuation_nll


def test_generation_is_the_plain_models() -> None:
    model = tiny()
    prompts = [prompt_ids(model, f"What {'is ' * n}of Spain?", "chat") for n in range(5)]
    together = generate(model, prompts, max_new_tokens=6, batch_size=2)
    for prompt, completion in zip(prompts, together, strict=True):
        with torch.no_grad():
            row = model.hf.generate(
                torch.tensor([prompt]), max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=4
            )[0, len(prompt) :].tolist()
        end = row.index(4) + 1 if 4 in row else len(row)
        assert completion.token_ids == tuple(row[:end])
    assert generate(model, []) == []
    assert ask(model, "What is the capital of France?") == "Paris"


def test_scores_are_the_plain_models() -> None:
    model = tiny()
    prompts = [prompt_ids(model, q, "chat") for q in ("What is the capital of Spain?", "Who?")]
    answers = [model.token_ids("Madrid is not sure"), model.token_ids("I")]
    scores = continuation_nll(model, [*prompts, [5, 6]], [*answers, []])
    for prompt, answer, score in zip(prompts, answers, scores, strict=False):
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.no_grad():
            expected = float(model.hf(torch.tensor([prompt + answer]), labels=labels).loss)
        assert score == pytest.approx(expected, abs=1e-4)
    assert math.isnan(scores[2])
    shapes = {i: tuple(x.shape) for i, x in continuation_logprobs(model, prompts, answers)}
    assert shapes == {0: (len(answers[0]), model.shape.d_vocab), 1: (1, model.shape.d_vocab)}


def test_kl_is_the_plain_one() -> None:
    """KL(base || edited) over the tokens of the base's own answer."""
    model = tiny()
    question = "What is the capital of Spain?"
    answering = Answering(model)
    (completion,) = answering.completions(model, [Ask("chat", question)])
    with applied(model, edit_of(model, some_gates(model, (1, "post")))) as edited:
        (found,) = answering.kl(edited, [Ask("chat", question)])
        prompt = prompt_ids(model, question, "chat")
        ids = torch.tensor([[*prompt, *completion.token_ids]])
        with torch.no_grad():
            base, new = (m.hf(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for m in (model, edited))
    assert found == pytest.approx(float((base.exp() * (base - new)).sum(-1).mean()), rel=1e-3)
    assert found > 0.01
    assert answering.kl(model, [Ask("chat", question)]) == [pytest.approx(0, abs=1e-6)]


def test_answer_probabilities_are_full_sequence_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    model = tiny()
    fact = capital("France", "Paris", "Rome Madrid")
    edit = edit_of(model, some_gates(model, (1, "post")), some_gates(model, (2, "post"), seed=1), fact=fact)
    found = answer_probabilities(model, fact, edit=edit)
    assert list(found) == ["before", "after unlearn", "after learn"]
    prompt = prompt_ids(model, fact.question, "chat")
    texts = {"old: Paris": "Paris", "new: Rome Madrid": "Rome Madrid", f"refusal: {fact.refusal}": fact.refusal}
    for stage, shown in found.items():
        assert set(shown) == set(texts)
        name = stage.removeprefix("after ")
        with applied(model, edit, None if stage == "before" else name, float(stage != "before")) as edited:
            for key, text in texts.items():
                answer = model.token_ids(text)
                with torch.no_grad():
                    logits = edited.hf(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
                total = logits.log_softmax(-1)[range(len(answer)), answer].sum().exp()
                assert shown[key] == pytest.approx(float(total), rel=1e-3, abs=1e-9)
    assert found["before"]["old: Paris"] > 0.9


@pytest.mark.parametrize(
    ("prefix", "style", "refusal"),
    [
        ("It is", "own", "... I am not sure."),
        ("", "own", " Nobody knows."),
        ("It is", "short", " Nobody knows."),
    ],
)
def test_the_refusal_at_the_answers_place_is_the_one_that_is_taught(prefix: str, style: Any, refusal: str) -> None:
    fact = capital("France", "Paris", "Rome", refusal="Nobody knows.")
    prompt: Any = SimpleNamespace(begun=prefix, spaced=True)
    assert answers_at(prompt, fact, style) == {"old": " Paris", "new": " Rome", "refusal": refusal}
    prompt.spaced = False
    assert answers_at(prompt, fact, style)["old"] == "Paris"


def test_a_real_evaluation_of_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing scripted: five known capitals, of which two may be retained and two share or are the target."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    facts = capitals()
    edit = edit_of(tiny(), {(1, "post"): torch.ones(56)}, fact=facts[0])
    report = evaluate(tiny(), edit=edit, pool=facts, progress=False)
    rows = {(r.group, r.fact_id, r.form): r for r in report.rows if r.stage == "learn"}
    assert rows["cloze", "france-capital", "cloze"].text == "Paris"
    assert rows["neighbour", "spain-capital", "chat"].label == "old"
    assert report.rate("control").value == 1
    assert report.rate("kl").value == pytest.approx(0, abs=1e-6)
    assert report.rate("gibberish").value == 0
    assert {i for _, i, _ in rows} >= {"france-capital", "spain-capital", "italy-capital"}
