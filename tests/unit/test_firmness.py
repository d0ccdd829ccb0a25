"""Controls that the untouched base loses by itself: which they are, and the rate over the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.scripted import SCRIPT, run, tiny
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, knowing
from workbench.evaluation import firmness
from workbench.evaluation.answering import Answering
from workbench.evaluation.firmness import flips_of, on_record, rounded, said_again, write_record
from workbench.facts.known_table import answer_keys
from workbench.language.generation import Completion
from workbench.models.load import LoadedModel
from workbench.types import EvalReport, Flip

PRADO = "Where is Prado?"
BEN = "Where is Big Ben?"


def lose(monkeypatch: pytest.MonkeyPatch, lost: dict[str, str]) -> list[tuple[torch.dtype, int, int]]:
    """Let the base lose questions in conditions: by question, the condition. Returns what is asked: the weights' type,
    how many prompts, and how many a batch."""
    asked: list[tuple[torch.dtype, int, int]] = []

    def say(model: LoadedModel, prompts: Any, *, batch_size: int, **_: Any) -> list[Completion]:
        asked.append((model.dtype, len(prompts), batch_size))
        condition = "bfloat16" if model.dtype == torch.bfloat16 else "another batch"
        texts: list[str] = []
        for ids in prompts:
            question = next(q for q in SCRIPT if q.endswith("?") and q in tiny().tokenizer.decode(ids))
            texts.append("Lima" if lost.get(question) == condition else SCRIPT[question][0])
        return [Completion(text, ()) for text in texts]

    monkeypatch.setattr(firmness, "generate", say)
    return asked


@pytest.mark.usefixtures("script")
def test_firm_controls_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = lose(monkeypatch, {PRADO: "bfloat16"})
    report = run(firm=True)
    assert asked == [(torch.float32, 2, 1), (torch.bfloat16, 2, 48)], "the Louvre is not asked: the base fails on it"
    assert report.flips == (Flip(fact_id="Prado-place", prompt=PRADO, condition="bfloat16", text="Lima"),)
    shares = {
        stage: (of["control"].value, of["control_firm"].value, of["control_firm"].n)
        for stage, of in report.rates.items()
    }
    assert shares == {"base": (1, 1, 1), "unlearn": (1 / 2, 1, 1), "learn": (1, 1, 1)}
    assert report.rate("control_firm", "base").by_definition
    assert "1 controls are near ties" in report.flip_words and "Prado-place" in report.flip_words
    loaded = EvalReport.load(report.save(tmp_path / "firm.json"))
    assert loaded.flips == report.flips and str(loaded.rate("control_firm")) == str(report.rate("control_firm"))


@pytest.mark.usefixtures("script")
def test_both_conditions_count(monkeypatch: pytest.MonkeyPatch) -> None:
    lose(monkeypatch, {PRADO: "bfloat16", BEN: "another batch"})
    report = run(firm=True)
    assert {(f.fact_id, f.condition) for f in report.flips or ()} == {
        ("Prado-place", "bfloat16"),
        ("Big Ben-place", "another batch"),
    }
    assert report.rate("control").n == 2 and report.rate("control_firm").n == 0


@pytest.mark.usefixtures("script")
def test_where_nothing_is_on_record_nothing_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = lose(monkeypatch, {})
    for firm in (None, False):
        report = run(firm=firm)
        assert report.flips is None and "control_firm" not in report.rates["learn"] and not report.flip_words
    assert not asked
    assert EvalReport.load(report.save(tmp_path / "plain.json")).flips is None
    assert run(firm=True).flips == ()


@pytest.mark.usefixtures("script")
def test_what_is_on_record_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = lose(monkeypatch, {})
    monkeypatch.setattr(firmness, "record_path", lambda fingerprint: tmp_path / f"{fingerprint[:16]}.json")
    on_record.cache_clear()
    try:
        keys = answer_keys(tiny(), [("chat", q) for q in (PRADO, BEN)])
        said: dict[str, firmness.Said] = {
            keys[0]: {"another batch": "Madrid", "bfloat16": "I do not know."},
            keys[1]: {"another batch": "London"},
        }
        write_record(tiny().fingerprint, said)
        report = run()
        assert [f.fact_id for f in report.flips or ()] == ["Prado-place"] and not asked
        assert on_record("f" * 64) == {}
        on_record.cache_clear()
        write_record(tiny().fingerprint, {keys[0]: said[keys[0]]})
        assert run().flips is None, "of one control it is not known"
        report = run(firm=True)
        assert [f.fact_id for f in report.flips or ()] == ["Prado-place"] and [n for _, n, _ in asked] == [1, 1]
        assert run(firm=False).flips is None
    finally:
        on_record.cache_clear()


def test_a_rounded_copy_leaves_the_model_as_it_is() -> None:
    model = knowing(tiny_llama(tied=False), capitals())
    before = model.fingerprint
    half = rounded(model)
    assert half.dtype == torch.bfloat16 and model.dtype == torch.float32 and model.fingerprint == before
    for (name, weight), (_, own) in zip(half.hf.named_parameters(), model.hf.named_parameters(), strict=True):
        assert torch.equal(weight, own.to(torch.bfloat16)) and not weight.requires_grad, name
        assert weight.data_ptr() != own.data_ptr()
    tied = tiny_llama(tied=True)
    copied = rounded(LoadedModel(tied, model.tokenizer, name="tied", architecture=model.architecture)).hf
    assert copied.get_output_embeddings().weight is copied.get_input_embeddings().weight


def test_a_real_model_is_asked_in_each_condition() -> None:
    model = knowing(tiny_llama(tied=False), capitals())
    facts = list(capitals())[:2]
    said = said_again(Answering(model), facts)
    assert {id: set(of) for id, of in said.items()} == {f.id: {"another batch", "bfloat16"} for f in facts}
    assert all(of["another batch"].startswith(f.answer) for f, of in zip(facts, said.values(), strict=True))
    half = rounded(model)
    assert set(said_again(Answering(half), facts)[facts[0].id]) == {"another batch"}
    assert flips_of(Answering(model), [], measure=True) is None
