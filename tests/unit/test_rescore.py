"""Reports counted again, tables over many edits, and intervals that draw edited facts and controls both."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench as wb
from benchmarks.crossed_intervals import coverage
from tests.helpers.scripted import POOL, run
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, edit_of, knowing, some_gates
from workbench.models.provenance import package_commit
from workbench.types import EvalReport, FactSet
from workbench.types.crossed import crossed_mean
from workbench.types.intervals import mean_over
from workbench.types.rates import RATES
from workbench.types.report import AnswerRow, SampleRow, TextRow

# The interval


def grid(rows: np.ndarray) -> dict[Any, list[float]]:
    return {(f"e{i}", f"c{j}"): [float(v)] for i, line in enumerate(rows) for j, v in enumerate(line)}


def test_without_anything_to_cross_it_is_the_mean_over_clusters() -> None:
    own = {("a", "a"): [1.0, 0.0], ("b", "b"): [1.0, 1.0], ("c", "c"): [0.0, 1.0]}
    assert crossed_mean(own) == mean_over({"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [0.0, 1.0]})
    one = {("a", str(i)): [float(i > 2)] for i in range(9)}
    assert crossed_mean(one) == mean_over({str(i): [float(i > 2)] for i in range(9)})
    assert crossed_mean({(str(i), "a"): [float(i > 2)] for i in range(9)}).method == "wilson"
    assert crossed_mean({}).n == 0


def test_the_variance_is_that_of_plain_resampling() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(12, 1)) + rng.normal(size=(1, 40)) + rng.normal(size=(12, 40))
    rate = crossed_mean(grid(rows), seed=2, resamples=4000)
    means = [rows[rng.integers(0, 12, 12)][:, rng.integers(0, 40, 40)].mean() for _ in range(4000)]
    half = 2.200985 * float(np.std(means, ddof=1))  # Student's t with 11 degrees of freedom
    assert (rate.high - rate.low) / 2 == pytest.approx(half, rel=0.05)
    assert (rate.value, rate.n, rate.clusters, rate.method) == (
        pytest.approx(rows.mean()),
        480,
        12,
        "crossed bootstrap",
    )


def test_it_is_wider_than_either_way_alone() -> None:
    rng = np.random.default_rng(0)
    rows = ((rng.normal(size=(20, 1)) + rng.normal(size=(1, 50)) + rng.normal(size=(20, 50))) < 2).astype(float)
    rate = crossed_mean(grid(rows))
    for other in (mean_over(dict(enumerate(rows))), mean_over(dict(enumerate(rows.T)))):
        assert rate.value == pytest.approx(other.value) and rate.low < other.low
    assert rate.method == "crossed wilson" and 0 <= rate.low < rate.value < rate.high <= 1
    perfect = crossed_mean(grid(np.ones((20, 50))))
    assert (perfect.value, perfect.high) == (1, 1) and perfect.low == pytest.approx(20 / (20 + 1.959964**2), abs=1e-6)
    flat = crossed_mean(grid(np.full((3, 4), 0.7)))
    assert math.isnan(flat.low) and flat.value == pytest.approx(0.7)


def test_pairs_that_were_not_asked_do_not_count() -> None:
    cells = grid(np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]))
    cells["e0", "c1"] = []
    assert (crossed_mean(cells).value, crossed_mean(cells).n) == (pytest.approx(7 / 8), 8)
    with pytest.raises(ValueError, match=r"must be finite; \('e0', 'c0'\) has \[nan\]"):
        crossed_mean(cells | {("e0", "c0"): [math.nan]})
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        crossed_mean(cells, resamples=0)


def test_what_is_a_share_is_said_by_its_bounds() -> None:
    """An excess over the base, from -1 to 1, is none where no cell happens to be negative."""
    rows = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    excess = crossed_mean(grid(rows), within=(-1.0, 1.0))
    assert excess.method == "crossed bootstrap" and excess.low < 0 < excess.value < excess.high <= 1
    assert crossed_mean(grid(rows), within=(0.0, 1.0)).method == crossed_mean(grid(rows)).method == "crossed wilson"
    one = {("a", str(i)): [float(i > 2)] for i in range(9)}
    assert (crossed_mean(one, within=(-1.0, 1.0)).method, crossed_mean(one).method) == ("bootstrap", "wilson")


def test_values_without_bounds_are_no_shares() -> None:
    """A change of exactly 0 in every text, as of an edit that never fires there, has no interval of shares."""
    zeros = grid(np.zeros((3, 4)))
    anything = (-math.inf, math.inf)
    for rate in (crossed_mean(zeros, within=anything), mean_over({0: [0.0], 1: [0.0]}, within=anything)):
        assert rate.value == 0 and not rate.has_interval
    assert crossed_mean(zeros).has_interval and mean_over({0: [0.0], 1: [0.0]}).has_interval


def test_it_holds_the_truth_where_one_way_alone_does_not() -> None:
    """The full simulation is a benchmark; this is one cell of it."""
    found = coverage(0, 40, 60, (0.6, 0.1), 0.9, 40)
    assert found["crossed"] >= 0.9 and found["controls alone"] < 0.75


# Counting again


@pytest.mark.usefixtures("script")
def test_a_stored_report_is_counted_again(tmp_path: Path) -> None:
    report = run(collateral=False, seed=3)
    stored = EvalReport.load(report.save(tmp_path / "report.json"))
    assert {"versions", "commit", "settings"} <= stored.provenance.keys()
    blank = replace(stored, rows=tuple(replace(row, label="other") for row in stored.rows), rates={})
    again = wb.rescore(blank, POOL)
    assert again.rows == report.rows and again.rates == report.rates
    only = wb.rescore(blank, POOL, groups=("control",))
    assert {row.label for row in only.rows if row.group != "control"} == {"other"}
    assert [r.label for r in only.rows if r.group == "control"] == [
        r.label for r in report.rows if r.group == "control"
    ]
    assert wb.rescore(blank, POOL, groups="control").rows == only.rows
    wrong: Any = ["held-out"]
    with pytest.raises(ValueError, match=r"groups must be some of \['train', .*got \['held-out'\]"):
        wb.rescore(blank, POOL, groups=wrong)
    other = FactSet([replace(f, target="Lyon") if f.id == "france-capital" else f for f in POOL], name="mine")
    counts: Any = (wb.rescore, lambda r, facts: wb.crossed_rates([r], facts), wb.lenient_rates)
    for count in counts:
        with pytest.raises(
            ValueError, match=r"'france-capital' with .* target 'Rome', and 'mine' has it .*'Lyon'\. Give"
        ):
            count(stored, other)
    with pytest.raises(ValueError, match=r"'one' lacks facts that the report asked: .*Give facts="):
        wb.rescore(report, FactSet([POOL[0]], name="one"))


@pytest.mark.parametrize("options", [{"collateral": True}, {"wordings": "sealed"}, {"samples": 2}])
def test_every_kind_of_row_is_judged_as_it_was(options: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    facts = capitals()
    model = knowing(tiny_llama(tied=False), facts)
    edit = edit_of(model, some_gates(model, (1, "post"), (2, "post")), fact=facts[0])
    monkeypatch.setattr("workbench.evaluation.chosen.load_facts", lambda split=None: FactSet(name="none"))
    report = wb.evaluate(model, edit=edit, pool=facts, controls=facts[1:3], seed=2, progress=False, **options)
    blank = replace(report, rows=tuple(replace(row, label="gibberish") for row in report.rows), rates={})
    again = wb.rescore(blank, facts)
    assert again.rows == report.rows and again.rates == report.rates


def test_controls_are_judged_by_all_that_was_taught(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One of two facts that an edit taught is evaluated; a control gets the target of the other one."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    facts = capitals()
    model = knowing(tiny_llama(tied=False), facts)
    edit = edit_of(model, some_gates(model, (1, "post"), (2, "post")), fact=facts[0])
    edit = replace(edit, facts=FactSet([facts[0], facts["spain-capital"]]))
    given: dict[str, Any] = {"edit": edit, "pool": facts, "controls": facts[1:2], "progress": False}
    report = EvalReport.load(wb.evaluate(model, facts[0], **given).save(tmp_path / "report.json"))
    assert report.facts == ("france-capital",)
    said = [replace(r, text="Berlin") if (r.group, r.stage) == ("control", "learn") else r for r in report.rows]
    again = wb.rescore(replace(report, rows=tuple(said)), facts)
    assert [r.label for r in again.rows if (r.group, r.stage) == ("control", "learn")] == ["new"], "Spain's target"
    with pytest.raises(ValueError, match=r"lacks facts .*'spain-capital'"):
        wb.rescore(report, facts.filter(lambda fact: fact.subject != "Spain"))


# Tables of many reports


def row(fact: str, group: Any, stage: str, label: Any) -> AnswerRow:
    given: dict[str, Any] = {"relation": "r", "form": "chat", "prompt": f"{fact}?", "text": "", "nll": 1.0}
    return AnswerRow(fact_id=fact, group=group, stage=stage, label=label, **given)


def small(edited: str, lost: set[str]) -> EvalReport:
    """A report of which some controls are lost."""
    facts = capitals()
    controls = [fact.id for fact in facts if fact.id != edited]
    rows = [row(c, "control", "base", "old") for c in controls] + [row(edited, "heldout", "base", "old")]
    rows += [row(c, "control", "learn", "other" if c in lost else "old") for c in controls]
    rows += [row(edited, "heldout", "learn", "new")]
    report = EvalReport(rows=tuple(rows), rates={}, facts=(edited,), stages=("base", "learn"))
    return wb.rescore(report, facts, groups=())


def test_samples_are_judged_again() -> None:
    given = {"fact_id": "france-capital", "group": "heldout", "prompt": "Q?", "texts": ("It is Paris.", "It is Rome.")}
    wrong = tuple(SampleRow(stage=stage, old=(False, True), **given) for stage in ("base", "learn"))
    report = replace(small("france-capital", set()), samples=wrong)
    again = wb.rescore(report, capitals())
    assert [row.old for row in again.samples] == [(True, False)] * 2
    assert wb.rescore(report, capitals(), groups="control").samples == wrong


def test_a_table_crosses_edited_facts_and_controls() -> None:
    facts = capitals()
    reports = [small(fact.id, {"japan-capital"}) for fact in facts if fact.subject != "Japan"]
    rates = wb.crossed_rates(reports, facts)
    control = rates["learn"]["control"]
    assert (control.value, control.n, control.method) == (pytest.approx(12 / 16), 16, "crossed wilson")
    by_edit = mean_over({i: [1.0, 1.0, 1.0, 0.0] for i in range(4)})
    assert by_edit.low > control.low, "that one control is lost by all edits is no accident of the edits"
    assert rates["learn"]["new"] == mean_over({i: [1.0] for i in range(4)})
    assert rates["base"]["control"].by_definition
    with pytest.raises(ValueError, match="at least one report"):
        wb.crossed_rates([])
    with pytest.raises(ValueError, match=r"several of \['france-capital'\]"):
        wb.crossed_rates([reports[0], reports[0]], facts)
    with pytest.raises(ValueError, match="must have the same stages"):
        wb.crossed_rates([reports[0], replace(reports[1], stages=("base",))], facts)
    bases = [replace(report, base_fingerprint=name) for report, name in zip(reports, "ab", strict=False)]
    with pytest.raises(ValueError, match="edits of one base; those of france-capital, "):
        wb.crossed_rates(bases, facts)


def test_a_mean_probability_has_an_interval_of_probabilities() -> None:
    """By one report, and over several."""
    rule, values = RATES["p_refusal"], (0.02, 0.01, 0.97, 0.9)
    alone = rule.of({(f"f{i}", "heldout", "q"): v for i, v in enumerate(values)})
    assert alone.value == pytest.approx(0.475) and 0 <= alone.low < alone.value < alone.high <= 1
    assert (rule.within, rule.bound) == ((0, 1), 1) and RATES["gibberish"].within == (-1, 1)
    facts = capitals()
    reports: list[EvalReport] = []
    for fact, value in zip(facts, values, strict=False):
        of: Any = {s: {fact.id: {"old": 0.0, "new": 0.0, "refusal": value}} for s in ("base", "learn")}
        reports.append(wb.rescore(replace(small(fact.id, set()), probabilities=of), facts, groups=()))
    together = wb.crossed_rates(reports, facts)["learn"]["p_refusal"]
    assert together.value == pytest.approx(0.475) and 0 <= together.low < together.high <= 1


def test_texts_are_crossed_by_what_they_say() -> None:
    """Two reports that read the same texts in another order, one of them a text more."""
    facts = capitals()
    costs = {"a": 0.1, "b": 0.9, "c": 0.5}
    reports: list[EvalReport] = []
    for edited, order in (("france-capital", "ab"), ("italy-capital", "bac")):
        given: dict[str, Any] = {"n_tokens": 1, "source": "own generations"}
        texts = [
            TextRow(stage=s, sentence=t, nll=costs[t] * (s == "learn"), **given)
            for s in ("base", "learn")
            for t in order
        ]
        reports.append(wb.rescore(replace(small(edited, set()), texts=tuple(texts)), facts, groups=()))
    found = wb.crossed_rates(reports, facts)["learn"]["long_text_nll_change"]
    cells = {(e, t): [costs[t]] for e, order in (("france-capital", "ab"), ("italy-capital", "bac")) for t in order}
    assert found == crossed_mean(cells), "by its place, a stretch would be paired with another one"
    without = wb.rescore(small("spain-capital", set()), facts, groups=())
    some = wb.crossed_rates([*reports, without], facts)["learn"]
    assert some["long_text_nll_change"] == found, "of the reports that have it"
    assert some["new"].n == 3


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    assert package_commit(tmp_path) is None
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "packed-refs").write_text("# pack\nabc1 refs/heads/main\n")
    package_commit.cache_clear()
    assert package_commit(tmp_path) == "abc1"
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / ".git").write_text(f"gitdir: {tmp_path / '.git'}\n")
    assert package_commit(tree) == "abc1"
    (tmp_path / ".git" / "HEAD").write_text("def2\n")
    package_commit.cache_clear()
    assert package_commit(tree) == "def2"


@pytest.mark.usefixtures("script")
def test_reports_that_were_asked_otherwise_are_not_crossed() -> None:
    report = run(stages=["learn"])
    settings = report.provenance["settings"]
    assert settings["max_new_tokens"] == 24 and settings["wordings"] == "own"
    for name, value in (("wordings", "sealed"), ("max_new_tokens", 40)):
        changed = {**report.provenance, "settings": {**settings, name: value}}
        other = replace(report, facts=("italy-capital",), provenance=changed)
        with pytest.raises(ValueError, match=f"they have {name} .*{value}"):
            wb.crossed_rates([report, other], POOL)
    older = {name: value for name, value in settings.items() if name != "max_new_tokens"}
    without = replace(report, facts=("italy-capital",), provenance={**report.provenance, "settings": older})
    assert "learn" in wb.crossed_rates((one for one in (report, without)), POOL)


@pytest.mark.usefixtures("script")
def test_facts_may_be_a_list_and_reports_are_reports() -> None:
    report = run(stages=["learn"])
    assert wb.rescore(report, list(POOL)).rows == report.rows
    assert wb.crossed_rates([report], list(POOL)) == wb.crossed_rates([report], POOL)
    assert wb.lenient_rates(report, list(POOL)) == wb.lenient_rates(report, POOL)
    wrong: Any = ["report.json"]
    with pytest.raises(TypeError, match=r"takes reports, got 'report\.json'"):
        wb.crossed_rates(wrong, POOL)
