"""Evaluations that would be lost at their last step, thoughts that do not count, and reports read with another set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.panels import FACTS, tiny
from tests.helpers.tiny import random_edit, tiny_gpt2
from tests.helpers.tiny_facts import tokenizer_from_files
from workbench.evaluation.answer_rows import names_target
from workbench.evaluation.long_text import given_text, own_text
from workbench.files.user_cache import cache_folder
from workbench.language.replies import without_thought
from workbench.types import EvalReport, FactSet

FRANCE, JAPAN = FACTS["france-capital"], FACTS["japan-capital"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def evaluated(**options: Any) -> EvalReport:
    model = tiny()
    edit = replace(random_edit(model, "L1N5 L2H1"), facts=(FRANCE,), retain_ids=())
    return wb.evaluate(model, edit=edit, pool=FACTS, progress=False, **options)


@pytest.mark.parametrize("seed", [-1, "a", None, 1.5, True])
def test_a_seed_is_checked_before_anything_is_asked(seed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.evaluation.evaluate.evaluate_views", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(ValueError, match=r"seed must be a whole number from 0 to 2\*\*63 - 1, got"):
        evaluated(seed=seed)


def test_other_arguments_that_were_taken_for_something_else() -> None:
    with pytest.raises(ValueError, match="floor must be True or False, got 'no'"):
        evaluated(floor="no")
    with pytest.raises(TypeError, match=r"controls= is a list of facts, got one \('japan-capital'\); write \[fact\]"):
        evaluated(controls=JAPAN)
    with pytest.raises(TypeError, match="pool= is a FactSet, got a list"):
        wb.evaluate(tiny(), FRANCE, pool=list(FACTS), progress=False)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"An edit is an Edit, got 'edits/france'.*load_edit"):
        wb.evaluate(tiny(), edit="edits/france", progress=False)  # pyright: ignore[reportArgumentType]
    report = evaluated()
    with pytest.raises(ValueError, match=r"write \[report\]"):
        wb.crossed_rates(report, FACTS)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="seed must be a whole number"):
        wb.crossed_rates([report], FACTS, seed=-1)


def test_a_report_is_not_scored_by_a_set_with_other_answers() -> None:
    report = evaluated()
    other = FactSet([replace(f, answer="Edo") if f.id == JAPAN.id else f for f in FACTS], name="other")
    with pytest.raises(ValueError, match=r"asked 'japan-capital' as a fact with the answer 'Tokyo'.*'other'.*'Edo'"):
        wb.rescore(report, other)
    with pytest.raises(ValueError, match="'Edo'"):
        wb.crossed_rates([report], other)
    assert wb.rescore(report, FACTS).rates == report.rates


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>Not Rome</think> Tokyo", "Tokyo"),
        ("It is not Rome.</think>\nTokyo", "Tokyo"),
        ("Tokyo", "Tokyo"),
        ("Write <think>x</think> in Rome", "Write <think>x</think> in Rome"),
    ],
)
def test_a_thought_counts_nowhere(text: str, said: str) -> None:
    assert without_thought(text) == said
    assert names_target(text, [FRANCE]) == ("Rome" in said)


def test_a_thought_is_no_bleeding_and_a_report_scored_again_says_so() -> None:
    report = evaluated(controls=[JAPAN])

    def thinking(row: Any) -> Any:
        return replace(row, text=f"<think>Not Rome</think>{row.text}") if row.stage != "base" else row

    thought = replace(report, rows=tuple(map(thinking, report.rows)))
    again = wb.rescore(thought, FACTS)
    for stage in report.stages:
        for rate in ("control", "bleed", "new", "old"):
            if rate in report.rates[stage]:
                assert str(again.rate(rate, stage)) == str(report.rate(rate, stage)), (rate, stage)


def test_windows_of_one_token_have_something_to_read() -> None:
    model = wb.load_model(tiny_gpt2(), tokenizer=tokenizer_from_files(chat=False))
    rows = given_text(model, ["The capital of France is Paris. " * 3], context=1).rows
    assert rows and all(tokens for _, tokens in rows)


@pytest.mark.parametrize("change", [{"rows": None}, {"rows": [[1, 2]]}, {"rows": [[[1], ["x"]]]}, {}])
def test_a_damaged_text_is_written_again(change: dict[str, Any]) -> None:
    import json

    model = tiny()
    before = own_text(model, 64, context=40)
    (path,) = (cache_folder() / "own_text").glob("*.json")
    fields = json.loads(path.read_text(encoding="utf-8"))
    del fields["rows"]
    path.write_text(json.dumps({**fields, **change}), encoding="utf-8")
    assert own_text(model, 64, context=40).rows == before.rows
