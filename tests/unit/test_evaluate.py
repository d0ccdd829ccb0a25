"""Evaluation: every rate by hand on scripted answers, and what is said to be missing."""

from __future__ import annotations

import math

import pytest

from tests.helpers.scripted import FRANCE, GIBBERISH, NOT_SURE, POOL, SCRIPT, Script, run, scripted_edit, tiny
from workbench.editing.applied import applied
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.probabilities import answer_probabilities
from workbench.types import Fact, FactSet, Rate

# 2 training questions, 4 held-out ones, 2 clozes, 2 neighbours (Spain, Japan), 3 controls (Big Ben, Louvre, Prado)
N_ROWS = 13
ASKED = N_ROWS + 1  # the Louvre once more, for it has the same answer
NO_TWIN = "same subject as france-capital: 'scripted' has no such fact"
EXPECTED: dict[str, dict[str, tuple[float, int]]] = {
    "base": {
        "new": (0, 4),
        "new_known": (0, 3),
        "new_unknown": (0, 1),
        "old": (3 / 4, 4),
        "refusal": (0, 4),
        "forget": (0, 3),  # Q4 was never answered with the old fact
        "forget_refusal": (0, 3),
        "forget_other": (0, 3),
        "forget_gibberish": (0, 3),
        "train_refusal": (0, 2),
        "train_new": (0, 2),
        "cloze_new": (0, 2),
        "control": (1, 2),  # the base fails on the Louvre, so it does not count
        "neighbour": (1, 2),
        "same_subject": (math.nan, 0),
        "same_answer": (math.nan, 0),  # the base fails on the Louvre
        "gibberish": (0, N_ROWS),
        "bleed": (0, 4),  # the base names Rome for the Louvre, so that does not count
        "kl": (math.nan, 0),  # not measured: it would be 0
    },
    "unlearn": {
        "new": (1 / 4, 4),
        "new_known": (0, 3),
        "new_unknown": (1, 1),
        "old": (1 / 4, 4),
        "refusal": (2 / 4, 4),
        "forget": (2 / 3, 3),
        "forget_refusal": (2 / 3, 3),
        "forget_other": (0, 3),
        "forget_gibberish": (0, 3),
        "train_refusal": (1, 2),
        "train_new": (0, 2),
        "cloze_new": (0, 2),
        "control": (1 / 2, 2),
        "neighbour": (1 / 2, 2),
        "same_subject": (math.nan, 0),
        "same_answer": (math.nan, 0),
        "gibberish": (0, N_ROWS),
        "bleed": (0, 4),
        "kl": (0.5, 5),
    },
    "learn": {
        "new": (1 / 4, 4),
        "new_known": (1 / 3, 3),
        "new_unknown": (0, 1),
        "old": (1 / 4, 4),  # "both" is old as well
        "refusal": (0, 4),
        "forget": (1 / 3, 3),  # neither "both" (Q2) nor gibberish (Q3) is forgotten
        "forget_refusal": (0, 3),
        "forget_other": (0, 3),
        "forget_gibberish": (1 / 3, 3),  # Q3
        "train_refusal": (0, 2),
        "train_new": (1 / 2, 2),
        "cloze_new": (1 / 2, 2),
        "control": (1, 2),
        "neighbour": (1 / 2, 2),
        "same_subject": (math.nan, 0),
        "same_answer": (math.nan, 0),
        "gibberish": (1 / N_ROWS, N_ROWS),
        "bleed": (1 / 4, 4),  # Spain's capital
        "kl": (0.25, 5),
    },
}


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("stage", EXPECTED)
def test_every_rate_by_hand(stage: str) -> None:
    report = run()
    assert set(report.rates[stage]) - {"p_refusal"} == set(EXPECTED[stage])
    for name, (expected, n) in EXPECTED[stage].items():
        rate = report.rates[stage][name]
        assert (rate.value, rate.n) == (pytest.approx(expected, nan_ok=True), n), name
        if not math.isnan(rate.low):
            assert rate.low <= rate.value + 1e-12, name
            assert rate.value <= rate.high + 1e-12, name


@pytest.mark.usefixtures("script")
def test_one_stage_alone_has_the_same_rates() -> None:
    one = run(stages=["learn"])
    assert one.stages == ("base", "learn")
    assert one.rates == {stage: rates for stage, rates in run().rates.items() if stage != "unlearn"}
    with pytest.raises(ValueError, match=r"stages must be some of \['unlearn', 'learn'\]"):
        run(stages=["relearn"])


@pytest.mark.usefixtures("script")
def test_intervals() -> None:
    """Rows of one fact, or one of each of several: Wilson, for 1 of 4 by its formula. What the base answered right is
    right at the base: no interval."""
    report = run()
    new = report.rate("new")
    z2 = 1.959963984540054**2
    centre = (0.25 + z2 / 8) / (1 + z2 / 4)
    half = math.sqrt(z2) / (1 + z2 / 4) * math.sqrt(0.25 * 0.75 / 4 + z2 / 64)
    assert (new.method, new.clusters) == ("wilson", 1)
    assert (new.low, new.high) == (pytest.approx(centre - half), pytest.approx(centre + half))
    assert (report.rate("neighbour").clusters, report.rate("neighbour").method) == (2, "wilson")
    fixed = {name for name, rate in report.rates["base"].items() if rate.by_definition}
    split = {"forget_refusal", "forget_other", "forget_gibberish"}
    # No related fact is known.
    assert fixed == {"new_known", "forget", *split, "control", "neighbour", "gibberish", "bleed"}
    assert str(report.rate("control", "base")) == report.summary().loc["control", "base"] == "1.00 by definition (n=2)"
    assert not any(rate.by_definition for rate in report.rates["learn"].values())


@pytest.mark.usefixtures("script")
def test_rows_keep_text_class_and_group() -> None:
    report = run()
    assert len(report.rows) == 3 * ASKED
    by_key = {(r.prompt, r.stage): r for r in report.rows}
    for prompt, texts in SCRIPT.items():
        for stage, text in zip(report.stages, texts, strict=True):
            assert by_key[prompt, stage].text == text
    groups = {r.prompt: r.group for r in report.rows}
    assert groups["What is the capital of France?"] == groups["What city is the capital of France?"] == "train"
    assert groups["Q1?"] == "heldout"
    assert groups["The capital of France is"] == groups["The city is"] == "cloze"
    assert groups["What is the capital of Spain?"] == "neighbour"
    assert groups["Where is Prado?"] == "control"
    assert {r.form for r in report.rows if r.group == "cloze"} == {"cloze"}
    assert by_key["Q2?", "learn"].label == "both"
    assert by_key["Q3?", "learn"].label == "gibberish"
    assert by_key["Q4?", "base"].label == "other"
    assert by_key["What is the capital of Spain?", "learn"].label == "new"  # what France was taught
    assert by_key["Q1?", "learn"].nll == 1.0
    assert by_key["Q1?", "learn"].kl is None
    assert by_key["Where is Prado?", "learn"].kl == 0.25
    assert by_key["Where is Prado?", "base"].kl is None


@pytest.mark.usefixtures("script")
def test_of_a_cloze_the_first_sentence_counts() -> None:
    rows = {r.stage: r for r in run().rows if r.prompt == "The capital of France is"}
    assert rows["base"].label == "old"
    assert rows["learn"].label == "new"
    assert rows["learn"].text == "Rome. Paris was it once."


def test_a_text_that_surprises_the_base_is_gibberish(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script["Q1?"] = ("Paris", NOT_SURE, "Rome bright sing under green of maybe eleven")
    surprised = tuple(tiny().token_ids(script["Q1?"][2]))
    monkeypatch.setattr(
        "workbench.evaluation.answering.cached_nll",
        lambda m, p, c, **_: [9.0 if tuple(t) == surprised else 1.0 for t in c],
    )
    report = run()
    assert next(r for r in report.rows if r.prompt == "Q1?" and r.stage == "learn").label == "gibberish"
    assert report.rate("forget").value == 0
    assert report.rate("gibberish").value == pytest.approx(2 / N_ROWS)


def test_gibberish_of_the_base_is_subtracted(script: Script) -> None:
    script["Q4?"] = (GIBBERISH, "Rome", "Lyon")
    report = run()
    assert report.rate("gibberish", "learn").value == pytest.approx(0)
    assert report.rate("gibberish", "unlearn").value == pytest.approx(-1 / N_ROWS)


def test_nothing_to_forget_is_not_a_success(script: Script) -> None:
    for q in ("Q1?", "Q2?", "Q3?", "Q4?"):
        script[q] = ("Lyon", "Lyon", "Lyon")
    rate = run().rate("forget")
    assert rate.n == 0
    assert math.isnan(rate.value)
    assert str(rate) == "n/a (n=0)"


def test_no_rate_is_minus_nothing() -> None:
    assert str(Rate(-0.001, 3, -0.004, 0.2, "bootstrap")) == "0.00 [0.00, 0.20] (n=3)"


@pytest.mark.usefixtures("script")
def test_the_base_alone() -> None:
    report = run(edit=None, facts=FRANCE)
    assert report.stages == ("base",)
    assert report.rate("old").value == 0.75
    assert len(report.rows) == ASKED


@pytest.mark.usefixtures("script")
def test_report_tables() -> None:
    report = run()
    assert report.facts == ("france-capital",)
    frame = report.to_frame()
    assert len(frame) == 3 * ASKED
    assert {"fact_id", "group", "stage", "text", "label"} <= set(frame.columns)
    answers = report.answers("heldout")
    assert list(answers.columns) == ["fact_id", "prompt", "base", "unlearn", "learn"]
    assert list(answers.prompt) == ["Q1?", "Q2?", "Q3?", "Q4?"]
    assert answers.learn[1] == "Paris or Rome"
    summary = report.summary()
    forgotten = str(summary.loc["forget", "learn"])
    assert forgotten.startswith("0.33 [") and forgotten.endswith("(n=3)")
    assert "france-capital" in repr(report)
    with pytest.raises(KeyError, match=r"No stage 'relearn' in this report; there are \['base', 'unlearn', 'learn'\]"):
        report.rate("new", "relearn")
    with pytest.raises(KeyError, match="No rate 'efficacy' at stage 'learn'"):
        report.rate("efficacy")


# What is missing, and errors


def test_what_could_not_be_measured_is_said(script: Script) -> None:
    lone = Fact(
        subject="France",
        prompt="The capital of France is",
        question="What is the capital of France?",
        answer="Paris",
        target="Rome",
    )
    report = run(facts=lone, pool=FactSet(name="nothing"), edit=scripted_edit(facts=(lone,)))
    assert len(report.missing) == 6
    text = "\n".join(report.missing)
    assert "controls: 'nothing' has no fact of the test split" in text
    assert "neighbours of france: it has no relation" in text
    assert "held-out questions of france: none given, so new, old and forget are not measured" in text
    assert "training questions of france: the question alone was given" in text
    assert "same subject as france: 'nothing' has no such fact" in text
    assert "same answer as france: 'nothing' has no such fact" in text
    for name in ("new", "old", "forget", "control", "neighbour", "same_subject", "same_answer", "bleed", "kl"):
        assert report.rate(name).n == 0, name
        assert math.isnan(report.rate(name).value), name
    assert run().missing == (NO_TWIN,)
    elsewhere = run(edit=scripted_edit(retain_ids=("my-own-fact",)))
    assert [line.split("(")[1].split(")")[0] for line in elsewhere.missing if "(" in line] == ["my-own-fact"]


@pytest.mark.usefixtures("script")
def test_errors() -> None:
    with pytest.raises(ValueError, match="evaluate needs facts, an edit, or both; got neither"):
        run(edit=None)
    with pytest.raises(ValueError, match="at least one fact, got none"):
        run(facts=[])
    with pytest.raises(ValueError, match=r"once; these came more often: \['france-capital'\]"):
        run(facts=[FRANCE, FRANCE])
    with pytest.raises(ValueError, match="was fitted on 'tiny' with the fingerprint 0000"):
        run(edit=scripted_edit(base_fingerprint="0" * 64))
    with applied(tiny(), scripted_edit()) as edited, pytest.raises(ValueError, match=r"pass the base model"):
        evaluate(edited, FRANCE, pool=POOL, progress=False)
    with applied(tiny(), scripted_edit()) as edited, pytest.raises(ValueError, match=r"pass the base model"):
        answer_probabilities(edited, FRANCE, edit=scripted_edit())  # else the edit would be on it twice


@pytest.mark.usefixtures("script")
def test_controls_of_a_generator_are_measured_and_none_are_said() -> None:
    spain, japan = POOL["spain-capital"], POOL["japan-capital"]
    assert run(controls=(fact for fact in (spain, japan))).rate("control").n == 2
    empty = run(controls=[])
    assert empty.rate("control").n == 0 and "controls: controls= is empty" in empty.missing
    assert any("max_controls=0" in words for words in run(max_controls=0).missing)
    with pytest.raises(TypeError, match="an id is looked up"):
        run(controls=["spain-capital"])


@pytest.mark.parametrize("option", ["collateral", "floor", "firm"])
def test_switches_are_true_or_false(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be True or False, got 'no'"):
        run(**{option: "no"})
