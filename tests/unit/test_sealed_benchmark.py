"""The benchmark of sealed facts, rehearsed on a scripted model: its draw, what it keeps, its table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import workbench as wb
from benchmarks import sealed, tables
from benchmarks.lib import kept
from benchmarks.lib.code import Code
from benchmarks.lib.kept import Kept
from benchmarks.lib.store import Line
from tests.helpers.scripted import FRANCE, POOL, place, run, scripted_edit, tiny
from workbench.evaluation.answering import Answering
from workbench.evaluation.floor import FLOOR
from workbench.files.reports import report_from_dict
from workbench.types import EvalReport, FactSet
from workbench.types.rates import RATES
from workbench.types.report import TextRow

LONG = (("base", 2.0), ("unlearn", 2.2), ("learn", 2.5))


@pytest.fixture
def made(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> sealed.Sealed:
    del script
    secret = [place(name, "Madrid", "Tokyo", "sealed") for name in ("Prado", "Louvre", "Kremlin")]
    sets = {None: POOL, "sealed": FactSet(secret, name="sealed facts")}
    monkeypatch.setattr(kept, "code_of", lambda _: Code("c" * 40, False, "today"))
    monkeypatch.setattr(wb, "load_facts", lambda split=None: sets[split])
    monkeypatch.setattr(wb, "known_facts", lambda _, facts, **__: facts)
    monkeypatch.setattr(sealed, "in_sealed_wordings", lambda *_: sealed.IN_SEALED_WORDINGS)
    monkeypatch.setattr(wb, "rewrite", lambda *_, **__: scripted_edit())
    monkeypatch.setattr(wb, "evaluate", lambda *_, **options: run(stages=options["stages"], seed=options["seed"]))
    args: Any = SimpleNamespace(split="dev", seed=1, facts=1, max_controls=60, samples=2, text_tokens=10)
    return sealed.Sealed(Answering(tiny()), Kept(tmp_path / "sealed.jsonl.xz", "sealed.py"), args)


def test_the_draw_is_of_one_split_and_made_once(made: sealed.Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [fact.split for fact in made.facts()] == ["dev"]
    made.args.split, made.args.facts = "sealed", 2
    drawn = made.facts()
    assert len(drawn) == 2 and {fact.split for fact in drawn} == {"sealed"}
    monkeypatch.setattr(wb, "known_facts", lambda *_, **__: pytest.fail("it is on file"))
    assert made.facts() == drawn
    monkeypatch.setattr(wb, "known_facts", lambda _, facts, **__: facts)
    made.args.facts = 4
    with pytest.raises(SystemExit, match="Only 3 facts of the split 'sealed' meet"):
        made.facts()


def test_no_fact_is_drawn_that_the_base_does_not_name_in_sealed_wordings(
    made: sealed.Sealed, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.args.split, made.args.facts = "sealed", 2
    unnamed = wb.load_facts(split="sealed")[0].id
    monkeypatch.setattr(sealed, "in_sealed_wordings", lambda _, fact: 0.2 if fact.id == unnamed else 0.3)
    assert unnamed not in [fact.id for fact in made.facts()]


def test_an_edit_is_measured_once_with_every_text(made: sealed.Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    done = made.single("ia3", FRANCE)
    report = report_from_dict(done["report"])
    assert report.rows == run(stages=["learn"]).rows
    monkeypatch.setattr(wb, "rewrite", lambda *_, **__: pytest.fail("it is on file"))
    assert made.single("ia3", FRANCE) == done
    found = sealed.crossed({"ia3": [report]}, POOL)
    assert found["ia3"]["new"] == report.rate("new") and list(found) == ["ia3"]
    lines = sealed.table(found).splitlines()
    assert "| new answer, held-out questions | at least 0.95 | 0.25 " in lines[2]
    assert any("| gibberish above the base's | at most 0.02 | 0.08 " in line for line in lines)


def test_rates_that_are_newer_than_a_report_are_counted(made: sealed.Sealed) -> None:
    del made
    report = run(stages=["learn"])
    older = {stage: {k: v for k, v in of.items() if k != "new_known"} for stage, of in report.rates.items()}
    found = sealed.crossed({"ia3": [replace(report, rates=older)]}, POOL)
    assert found["ia3"]["new_known"] == report.rate("new_known")


def test_the_floor_has_a_column(made: sealed.Sealed) -> None:
    del made
    report = run()
    named = {"base": "base", "unlearn": FLOOR, "learn": "learn"}
    rows = tuple(replace(row, stage=named[row.stage]) for row in report.rows)
    rates = {named[stage]: of for stage, of in report.rates.items()}
    changed = wb.EvalReport(rows=rows, rates=rates, facts=report.facts, stages=("base", FLOOR, "learn"))
    found = sealed.crossed({"ia3": [changed]}, POOL)
    assert list(found) == ["ia3", "ia3: floor (1)"]
    assert found["ia3: floor (1)"]["forget_refusal"].value == pytest.approx(2 / 3)
    assert found["ia3"]["forget_refusal"].value == 0


def test_long_text_is_over_the_facts_that_have_it(made: sealed.Sealed) -> None:
    """Every edit counts in every other rate."""
    del made
    shallow = run()
    nothing = shallow.rate("new")
    texts = (*shallow.texts, *(TextRow(stage=s, sentence="Long.", n_tokens=9, nll=n, source="given") for s, n in LONG))
    rates = {stage: dict(of) | {"long_text_nll_change": nothing} for stage, of in shallow.rates.items()}
    deep = replace(shallow, facts=("japan-capital",), texts=texts, rates=rates)
    found = sealed.crossed({"ia3": [shallow, deep]}, POOL)["ia3"]
    assert found["long_text_nll_change"].value == pytest.approx(0.5) and found["new"].n == 2 * nothing.n
    assert "long_text_nll_change" not in sealed.crossed({"ia3": [shallow]}, POOL)["ia3"]


def test_a_rehearsal_needs_no_sealed_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``--split sealed`` the script asks for none."""
    asked: list[Any] = []

    class Stopped(Exception):
        """Where the measurement would begin."""

    def stop(*args: Any) -> None:
        asked.append(args[-1].split)
        raise Stopped

    monkeypatch.setattr(wb, "load_model", tiny)
    monkeypatch.setattr(sealed, "Sealed", stop)
    for given in (["--facts", "1"], ["--split", "sealed"]):
        with pytest.raises(Stopped):
            sealed.main(given)
    assert asked == ["dev", "sealed"]


@pytest.fixture
def on_file(made: sealed.Sealed, monkeypatch: pytest.MonkeyPatch) -> EvalReport:
    """The default's report on France's capital, on file as the only edit beside the draw."""
    del made
    report = run(stages=["learn"])
    code = Code("c" * 40, False, "today")
    lines = [
        Line("drawn", {"split": "sealed"}, code, {"facts": [FRANCE.id]}),
        Line("ia3-france", {"method": "ia3"}, code, {"report": report.to_dict()}),
    ]
    monkeypatch.setattr(tables, "_lines", lambda _: {line.name: line for line in lines})
    monkeypatch.setattr(tables, "load_facts", lambda **_: POOL)
    monkeypatch.setattr(tables, "rescore", lambda one, **options: wb.rescore(one, POOL, **options))
    return report


def test_what_was_said_is_counted_by_whether_the_base_names_the_old_answer(on_file: EvalReport) -> None:
    table = tables.sealed_said("ia3").splitlines()
    assert table[0] == "|  | questions | new | new and old | old | another | gibberish | a refusal |"
    asked = [row for row in on_file.rows if (row.group, row.stage) == ("heldout", "base")]
    known = sum(row.label == "old" for row in asked)
    assert 0 < known < len(asked) == 4
    assert table[2].startswith(f"| `ia3`, the base gives the old answer | {known} |")
    assert table[3].startswith(f"| `ia3`, the base does not | {len(asked) - known} |")
    counts = [[int(cell) for cell in line.split("|")[3:-1]] for line in table[2:]]
    assert [sum(row) for row in counts] == [known, len(asked) - known]
    assert sum(row[0] for row in counts) == round(on_file.rate("new").value * len(asked))


def test_rates_by_relation_are_means_of_its_facts(on_file: EvalReport) -> None:
    head, _, row = tables.sealed_relations("ia3").splitlines()
    cells = dict(zip(head.split("|"), row.split("|"), strict=True))
    assert cells[f" {RATES['new'].words} "] == f" {on_file.rate('new').value:.2f} "
    assert cells[f" {RATES['control'].words} "] == f" {on_file.rate('control').value:.2f} "
    assert cells[f" {RATES['same_answer'].words} "].strip() == "n/a" and not on_file.rate("same_answer").n
    assert row.startswith("| `ia3`, capital (1) |")
