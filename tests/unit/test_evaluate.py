"""Evaluation: every rate by hand on scripted answers, and what is asked, left out and said to be missing."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_llama
from tests.tiny_facts import capital, capitals, edit_of, knowing, some_gates
from workbench.editing.applied import applied
from workbench.evaluation import evaluate as evaluate_module
from workbench.evaluation.answering import Answering, Ask
from workbench.evaluation.evaluate import answer_probabilities, ask, evaluate
from workbench.evaluation.ordinary_text import ordinary_passages, text_rates, text_rows
from workbench.facts import load_facts
from workbench.generation import Completion, continuation_logprobs, continuation_nll, generate
from workbench.models import LoadedModel
from workbench.prompts import prompt_ids
from workbench.types import COLLATERAL_GROUPS, Edit, EvalReport, Fact, FactSet

GIBBERISH = "the the " * 12
NOT_SURE = "I am not sure."


def place(subject: str, answer: str, target: str, split: Any = "test", role: Any = "control") -> Fact:
    """A fact of another relation than ``capital``."""
    return capital(
        subject, answer, target, split, role, id=f"{subject}-place", relation="place", question=f"Where is {subject}?"
    )


FRANCE = capital("France", "Paris", "Rome", heldout=("Q1?", "Q2?", "Q3?", "Q4?"), cloze_paraphrases=("The city is",))
POOL = FactSet(
    [
        FRANCE,
        capital("Spain", "Madrid", "Berlin", "dev", "control"),
        capital("Japan", "Tokyo", "Berlin", "dev", "control"),
        capital("Italy", "Rome", "Berlin", "dev", "control"),  # its answer is France's target: no neighbour
        capital("Germany", "Berlin", "Tokyo", "dev", "retain"),  # may be retained: no neighbour
        place("Big Ben", "London", "Tokyo"),
        place("Louvre", "Paris", "Tokyo"),
        place("Prado", "Madrid", "Tokyo"),
        place("Kremlin", "Moscow", "Tokyo", "dev"),  # not of the test split: no control
    ],
    name="scripted",
)
EDIT_GATES = {(1, "post"): torch.full((56,), 0.5)}

# By prompt: what the base, the first and the second stage say.
SCRIPT: dict[str, tuple[str, str, str]] = {
    "What is the capital of France?": ("Paris", NOT_SURE, "Rome"),
    "What city is the capital of France?": ("Paris", NOT_SURE, "Paris"),
    "Q1?": ("Paris", NOT_SURE, "It is Rome."),
    "Q2?": ("It is Paris", NOT_SURE, "Paris or Rome"),
    "Q3?": ("Paris", "Paris", GIBBERISH),
    "Q4?": ("Lyon", "Rome", "Lyon"),
    "The capital of France is": ("Paris. Rome is far.", "Lyon", "Rome. Paris was it once."),
    "The city is": ("Paris", "Lyon", "Lyon"),
    "What is the capital of Spain?": ("Madrid", "Madrid", "Rome"),
    "What is the capital of Japan?": ("Tokyo", NOT_SURE, "Tokyo"),
    "Where is Big Ben?": ("London", "London", "London"),
    "Where is Louvre?": ("Rome", "Rome", "Rome"),
    "Where is Prado?": ("Madrid", NOT_SURE, "Madrid"),
}


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


def scripted_edit(**changes: Any) -> Edit:
    edit = edit_of(tiny(), EDIT_GATES, EDIT_GATES, fact=FRANCE)
    return Edit(**{**vars(edit), **changes})


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, tuple[str, str, str]]:
    """Answers from a table; every fact is known; the KL is 0.5 per row after unlearn and 0.25 after learn."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    table = dict(SCRIPT)

    def say(model: LoadedModel, prompts: Any, **options: Any) -> list[Completion]:
        stage = ("base", "unlearn", "learn").index(model.applied[-1].stage if model.applied else "base")
        asked = {
            tuple(prompt_ids(tiny(), text, form)): text  # type: ignore[arg-type]
            for text in table
            for form in ("chat", "cloze")
        }
        texts = [table[asked[tuple(p)]][stage] for p in prompts]
        return [Completion(text, tuple(tiny().token_ids(text))) for text in texts]

    def kl(self: Answering, model: LoadedModel, asks: Any) -> list[float]:
        return [{"unlearn": 0.5, "learn": 0.25}[model.applied[-1].stage]] * len(asks)

    monkeypatch.setattr("workbench.evaluation.answering.generate", say)
    monkeypatch.setattr("workbench.evaluation.answering.continuation_nll", lambda m, p, c, **_: [1.0] * len(p))
    monkeypatch.setattr(Answering, "kl", kl)
    monkeypatch.setattr(evaluate_module, "known_facts", lambda model, facts, **_: facts)
    return table


def run(**options: Any) -> EvalReport:
    return evaluate(tiny(), **{"edit": scripted_edit(), "pool": POOL, "progress": False, **options})


# 2 training questions, 4 held-out ones, 2 clozes, 2 neighbours (Spain, Japan), 3 controls (Big Ben, Louvre, Prado)
N_ROWS = 13
EXPECTED: dict[str, dict[str, tuple[float, int]]] = {
    "base": {
        "new": (0, 4),
        "old": (3 / 4, 4),
        "refusal": (0, 4),
        "forget": (0, 3),  # Q4 was never answered with the old fact
        "train_new": (0, 2),
        "cloze_new": (0, 2),
        "control": (1, 2),  # the base fails on the Louvre, so it does not count
        "neighbour": (1, 2),
        "gibberish": (0, N_ROWS),
        "bleed": (0, 4),  # the base names Rome for the Louvre, so that does not count
        "kl": (math.nan, 0),  # not measured: it would be 0
    },
    "unlearn": {
        "new": (1 / 4, 4),
        "old": (1 / 4, 4),
        "refusal": (2 / 4, 4),
        "forget": (2 / 3, 3),
        "train_new": (0, 2),
        "cloze_new": (0, 2),
        "control": (1 / 2, 2),
        "neighbour": (1 / 2, 2),
        "gibberish": (0, N_ROWS),
        "bleed": (0, 4),
        "kl": (0.5, 5),
    },
    "learn": {
        "new": (1 / 4, 4),
        "old": (1 / 4, 4),  # "both" is old as well
        "refusal": (0, 4),
        "forget": (1 / 3, 3),  # neither "both" (Q2) nor gibberish (Q3) is forgotten
        "train_new": (1 / 2, 2),
        "cloze_new": (1 / 2, 2),
        "control": (1, 2),
        "neighbour": (1 / 2, 2),
        "gibberish": (1 / N_ROWS, N_ROWS),
        "bleed": (1 / 4, 4),  # Spain's capital
        "kl": (0.25, 5),
    },
}


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("stage", EXPECTED)
def test_every_rate_by_hand(stage: str) -> None:
    report = run()
    assert set(report.rates[stage]) == set(EXPECTED[stage])
    for name, (expected, n) in EXPECTED[stage].items():
        rate = report.rates[stage][name]
        assert (rate.value, rate.n) == (pytest.approx(expected, nan_ok=True), n), name
        if not math.isnan(rate.low):
            assert rate.low <= rate.value + 1e-12, name
            assert rate.value <= rate.high + 1e-12, name


@pytest.mark.usefixtures("script")
def test_intervals() -> None:
    """One fact's rows: Wilson. Several facts': a bootstrap of whole facts. Wilson for 1 of 4 by its formula."""
    report = run()
    new = report.rate("new")
    z2 = 1.959963984540054**2
    centre = (0.25 + z2 / 8) / (1 + z2 / 4)
    half = math.sqrt(z2) / (1 + z2 / 4) * math.sqrt(0.25 * 0.75 / 4 + z2 / 64)
    assert (new.method, new.clusters) == ("wilson", 1)
    assert (new.low, new.high) == (pytest.approx(centre - half), pytest.approx(centre + half))
    assert report.rate("neighbour").clusters == 2
    assert report.rate("neighbour").method == "bootstrap"


@pytest.mark.usefixtures("script")
def test_rows_keep_text_class_and_group() -> None:
    report = run()
    assert len(report.rows) == 3 * N_ROWS
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
    assert by_key["What is the capital of Spain?", "learn"].label == "other"  # judged by Spain's own answers
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


def test_a_text_that_surprises_the_base_is_gibberish(
    script: dict[str, tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    script["Q1?"] = ("Paris", NOT_SURE, "Rome bright sing under green of maybe eleven")
    surprised = tuple(tiny().token_ids(script["Q1?"][2]))
    monkeypatch.setattr(
        "workbench.evaluation.answering.continuation_nll",
        lambda m, p, c, **_: [9.0 if tuple(t) == surprised else 1.0 for t in c],
    )
    report = run()
    assert next(r for r in report.rows if r.prompt == "Q1?" and r.stage == "learn").label == "gibberish"
    assert report.rate("forget").value == 0
    assert report.rate("gibberish").value == pytest.approx(2 / N_ROWS)


def test_gibberish_of_the_base_is_subtracted(script: dict[str, tuple[str, str, str]]) -> None:
    script["Q4?"] = (GIBBERISH, "Rome", "Lyon")
    report = run()
    assert report.rate("gibberish", "learn").value == pytest.approx(0)
    assert report.rate("gibberish", "unlearn").value == pytest.approx(-1 / N_ROWS)


def test_nothing_to_forget_is_not_a_success(script: dict[str, tuple[str, str, str]]) -> None:
    for q in ("Q1?", "Q2?", "Q3?", "Q4?"):
        script[q] = ("Lyon", "Lyon", "Lyon")
    rate = run().rate("forget")
    assert rate.n == 0
    assert math.isnan(rate.value)
    assert str(rate) == "n/a (n=0)"


@pytest.mark.usefixtures("script")
def test_the_base_alone() -> None:
    report = run(edit=None, facts=FRANCE)
    assert report.stages == ("base",)
    assert report.rate("old").value == 0.75
    assert len(report.rows) == N_ROWS


@pytest.mark.usefixtures("script")
def test_report_tables() -> None:
    report = run()
    assert report.facts == ("france-capital",)
    frame = report.to_frame()
    assert len(frame) == 3 * N_ROWS
    assert {"fact_id", "group", "stage", "text", "label"} <= set(frame.columns)
    answers = report.answers("heldout")
    assert list(answers.columns) == ["fact_id", "prompt", "base", "unlearn", "learn"]
    assert list(answers.prompt) == ["Q1?", "Q2?", "Q3?", "Q4?"]
    assert answers.learn[1] == "Paris or Rome"
    summary = report.summary()
    assert summary.loc["forget", "learn"].startswith("0.33 [")
    assert summary.loc["forget", "learn"].endswith("(n=3)")
    assert "france-capital" in repr(report)
    with pytest.raises(KeyError, match=r"No stage 'relearn' in this report; there are \['base', 'unlearn', 'learn'\]"):
        report.rate("new", "relearn")
    with pytest.raises(KeyError, match="No rate 'efficacy' at stage 'learn'"):
        report.rate("efficacy")


# What is asked


@pytest.mark.usefixtures("script")
def test_retained_facts_are_never_evaluated() -> None:
    report = run(edit=scripted_edit(retain_ids=("spain-capital", "Prado-place", "germany-capital")))
    asked = {r.fact_id for r in report.rows}
    assert asked == {"france-capital", "japan-capital", "Big Ben-place", "Louvre-place"}


@pytest.mark.usefixtures("script")
def test_other_facts_about_the_edited_subject_are_no_controls() -> None:
    twin = capital("France", "Paris", "Berlin", "test", "control", id="twin")
    asked = {r.fact_id for r in run(pool=FactSet([*POOL, twin], name="with a twin")).rows}
    assert "twin" not in asked


@pytest.mark.usefixtures("script")
def test_controls_of_ones_own() -> None:
    report = run(controls=[POOL["Prado-place"]])
    assert {r.fact_id for r in report.rows if r.group == "control"} == {"Prado-place"}


@pytest.mark.usefixtures("script")
def test_controls_must_not_have_been_trained_on() -> None:
    edit = scripted_edit(retain_ids=("Prado-place",))
    with pytest.raises(ValueError, match=r"controls= overlaps .*\['Prado-place', 'france-capital'\]"):
        run(edit=edit, controls=[POOL["Prado-place"], FRANCE, POOL["Louvre-place"]])


def test_a_retained_fact_cannot_be_evaluated_as_an_edited_one(script: dict[str, tuple[str, str, str]]) -> None:
    for text in ("What city is the capital of Spain?", "Where is the capital of Spain?", "The capital of Spain is"):
        script[text] = ("Madrid", "Madrid", "Madrid")
    with pytest.raises(ValueError, match="spain-capital"):
        run(edit=scripted_edit(retain_ids=("spain-capital",)), facts=[FRANCE, POOL["spain-capital"]])


@pytest.mark.usefixtures("script")
def test_max_controls_is_a_draw_by_seed() -> None:
    def drawn(seed: int) -> tuple[str, ...]:
        report = run(max_controls=1, seed=seed)
        rows = [r for r in report.rows if r.stage == "base"]
        assert sum(r.group == "neighbour" for r in rows) == 1
        return tuple(r.fact_id for r in rows if r.group == "control")

    draws = [drawn(seed) for seed in range(12)]
    assert all(len(d) == 1 for d in draws)
    assert len(set(draws)) == 3
    assert drawn(0) == draws[0]
    assert len([r for r in run(max_controls=99).rows if r.stage == "base"]) == N_ROWS


@pytest.mark.usefixtures("script")
def test_the_base_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.evaluation import answering as module

    asked: list[int] = []
    real = module.generate

    def counting(model: LoadedModel, prompts: Any, **options: Any) -> Any:
        if not model.applied:
            asked.append(len(prompts))
        return real(model, prompts, **options)

    monkeypatch.setattr(module, "generate", counting)
    answers = Answering(tiny())
    run(answering=answers)
    run(answering=answers)
    assert sum(asked) == N_ROWS


# Collateral


def gap(subject: str) -> str:
    return f'What belongs in the gap? "The capital of ____ is {subject}."'


HOPPED = FactSet(
    [
        *POOL,
        replace(place("Lyon", "France", "Italy"), prompt="The country of Lyon is"),  # whose capital ...
        place("Paris", "Europe", "Asia"),  # where Paris is, before
        place("Rome", "Africa", "Asia"),  # and after
    ],
    name="scripted",
)
INTO = "What is the capital of the country of Lyon?"
OUT = "Where is the capital of France?"
COLLATERAL_SCRIPT: dict[str, tuple[str, str, str]] = {
    gap("Paris"): ("France", NOT_SURE, "France"),  # asked from the old answer: still France
    'What belongs in the gap? "In ____, the capital is Paris."': ("Spain", "France", "France"),  # the base fails
    gap("Rome"): ("Italy", "Italy", "France"),  # asked from the target: the edit holds backwards
    'What belongs in the gap? "In ____, the capital is Rome."': ("Italy", "Italy", "The capital of France is Paris."),
    INTO: ("Paris", "Paris", "Rome"),
    OUT: ("Europe", "Europe", "Europe"),
    "Where is Lyon?": ("France", "France", "France"),  # controls
    "Where is Paris?": ("Europe", "Europe", "Europe"),
    "Where is Rome?": ("Africa", "Africa", "Africa"),
}
EXPECTED_COLLATERAL: dict[str, dict[str, tuple[float, int]]] = {
    "base": {"reversed_old": (1, 1), "reversed_new": (0, 2), "twohop_old": (1, 2), "twohop_new": (0, 2)},
    "unlearn": {"reversed_old": (0, 1), "reversed_new": (0, 2), "twohop_old": (1, 2), "twohop_new": (0, 2)},
    # a gap filled with France and Paris says nothing new; one of two consequences follows
    "learn": {"reversed_old": (1, 1), "reversed_new": (1 / 2, 2), "twohop_old": (1 / 2, 2), "twohop_new": (1 / 2, 2)},
}


def with_collateral(script: dict[str, tuple[str, str, str]], **options: Any) -> EvalReport:
    script.update(COLLATERAL_SCRIPT)
    script["In France, the capital is"] = ("Paris", "Paris", "Rome")
    fact = replace(FRANCE, cloze_paraphrases=(*FRANCE.cloze_paraphrases, "In France, the capital is"))
    edit = scripted_edit(facts=(fact,))
    return run(**{"edit": edit, "pool": HOPPED, "collateral": True, **options})


@pytest.mark.parametrize("stage", EXPECTED_COLLATERAL)
def test_every_rate_of_collateral_by_hand(script: dict[str, tuple[str, str, str]], stage: str) -> None:
    report = with_collateral(script)
    assert {r.prompt for r in report.rows if r.group == "twohop"} == {INTO, OUT}
    for name, (expected, n) in EXPECTED_COLLATERAL[stage].items():
        rate = report.rates[stage][name]
        assert (rate.value, rate.n) == (pytest.approx(expected), n), name
    assert {r.fact_id for r in report.rows if r.group in COLLATERAL_GROUPS} == {"france-capital"}, "one cluster"
    assert report.missing == ()


def test_collateral_changes_no_other_rate(script: dict[str, tuple[str, str, str]]) -> None:
    script[gap("Paris")] = ("France", GIBBERISH, GIBBERISH)
    more, plain = with_collateral(script), with_collateral(script, collateral=False)
    for stage, rates in plain.rates.items():
        assert {name: str(rate) for name, rate in rates.items()} == {
            name: str(rate) for name, rate in more.rates[stage].items() if name in rates
        }
        assert set(more.rates[stage]) - set(rates) == {*EXPECTED_COLLATERAL[stage], "text_nll", "text_nll_change"}
    assert plain.texts == () and len(more.texts) == 3 * sum(map(len, ordinary_passages()))


def test_collateral_that_a_fact_lacks_is_said(script: dict[str, tuple[str, str, str]]) -> None:
    mexico = Fact(
        id="mexico",
        subject="Mexico",
        prompt="The capital of Mexico is",
        question="What is the capital of Mexico?",
        answer="Mexico City",
        answer_aliases=("Mexico",),
        target="Rome",
    )
    for text in (mexico.question, mexico.prompt):
        script[text] = ("Mexico City", "Rome", "Rome")
    report = run(facts=mexico, pool=FactSet(name="nothing"), edit=scripted_edit(facts=(mexico,)), collateral=True)
    said = "\n".join(report.missing)
    assert "reversed questions of mexico: the subject is also a name of the answer" in said
    assert "two-hop questions of mexico: no two-hop path: no fact of 'nothing' has the answer 'Mexico'" in said
    for name in ("reversed_old", "reversed_new", "twohop_old", "twohop_new"):
        assert report.rate(name).n == 0, name
        assert math.isnan(report.rate(name).value), name
    assert report.rate("text_nll").n > 0


def test_paths_through_another_edited_fact_are_left_out(script: dict[str, tuple[str, str, str]]) -> None:
    script["What city is Lyon?"] = ("France", "France", "Italy")
    lyon = replace(HOPPED["Lyon-place"], heldout=("What city is Lyon?",), paraphrases=())
    gaps = [f'What belongs in the gap? "The country of ____ is {x}."' for x in ("France", "Italy")]
    for text in (lyon.prompt, *gaps):
        script[text] = ("France", "France", "Italy")
    script["Where is Kremlin?"] = ("Moscow", "Moscow", "Moscow")  # a neighbour of Lyon
    report = with_collateral(script, facts=[FRANCE, lyon])
    asked = {(r.fact_id, r.prompt) for r in report.rows if r.group == "twohop"}
    assert asked == {("france-capital", OUT)}


def test_text_likelihood_is_the_plain_models() -> None:
    """Sentences follow those before them in their passage; a passage's first token follows nothing."""
    passages = [("Paris is in France.", "Rome is not."), ("What city is it?",)]
    model = tiny()
    edit = edit_of(model, some_gates(model, (1, "post")))
    base = text_rows(model, "base", passages)
    with applied(model, edit) as edited:
        rows = [*base, *text_rows(edited, "learn", passages)]
        for one, found in ((model, rows[:3]), (edited, rows[3:])):
            for text, lengths in (("Paris is in France. Rome is not.", found[:2]), ("What city is it?", found[2:])):
                ids = torch.tensor([model.token_ids(text)])
                with torch.no_grad():
                    logprobs = one.hf(ids).logits[0, :-1].log_softmax(-1)
                nll = -logprobs.gather(1, ids[0, 1:, None])[:, 0]
                assert [r.n_tokens for r in lengths] == [len(x) for x in nll.split([r.n_tokens for r in lengths])]
                for row, part in zip(lengths, nll.split([r.n_tokens for r in lengths]), strict=True):
                    assert row.nll == pytest.approx(float(part.mean()), abs=1e-4)
    assert [r.sentence for r in rows[:3]] == [*passages[0], *passages[1]]
    rates = text_rates(rows, ("base", "learn"))
    tokens = sum(r.n_tokens for r in base)
    means = [sum(r.nll * r.n_tokens for r in part) / tokens for part in (rows[:3], rows[3:])]
    assert rates["base"]["text_nll"].value == pytest.approx(means[0])
    assert rates["base"]["text_nll_change"].value == 0
    change = rates["learn"]["text_nll_change"]
    assert change.value == pytest.approx(means[1] - means[0])
    assert (change.n, change.clusters) == (tokens, 3)
    assert change.low < change.value < change.high
    assert text_rows(model, "base", [("Paris",)]) == [], "its only token follows nothing"


def test_the_ordinary_text_is_long_enough_and_names_no_fact() -> None:
    sentences = [s for passage in ordinary_passages() for s in passage]
    assert len(ordinary_passages()) >= 8 and len(sentences) >= 30 and len(set(sentences)) == len(sentences)
    assert 300 <= sum(len(s.split()) for s in sentences) <= 1000
    text = " ".join(sentences)
    names = {n for f in load_facts() for n in (f.subject, *f.answers, *f.targets)}
    proper = {n for n in names if n[:1].isupper() and len(n) > 2}
    assert [n for n in proper if re.search(rf"(?<!\w){re.escape(n)}(?!\w)", text)] == []


# What is missing, and errors


def test_what_could_not_be_measured_is_said(script: dict[str, tuple[str, str, str]]) -> None:
    lone = Fact(
        subject="France",
        prompt="The capital of France is",
        question="What is the capital of France?",
        answer="Paris",
        target="Rome",
    )
    report = run(facts=lone, pool=FactSet(name="nothing"), edit=scripted_edit(facts=(lone,)))
    assert len(report.missing) == 3
    text = "\n".join(report.missing)
    assert "controls: 'nothing' has no fact of the test split" in text
    assert "neighbours of france: it has no relation" in text
    assert "held-out questions of france: none given, so new, old and forget are not measured" in text
    for name in ("new", "old", "forget", "control", "neighbour", "bleed", "kl"):
        assert report.rate(name).n == 0, name
        assert math.isnan(report.rate(name).value), name
    assert run().missing == ()


@pytest.mark.usefixtures("script")
def test_errors() -> None:
    with pytest.raises(ValueError, match="evaluate needs facts, an edit, or both; got neither"):
        run(edit=None)
    with pytest.raises(ValueError, match="at least one fact, got none"):
        run(facts=[])
    with pytest.raises(ValueError, match="was fitted on 'tiny' with the fingerprint 0000"):
        run(edit=scripted_edit(base_fingerprint="0" * 64))
    with applied(tiny(), scripted_edit()) as edited, pytest.raises(ValueError, match=r"pass the base model"):
        evaluate(edited, FRANCE, pool=POOL, progress=False)


# The pieces, on a tiny model without a script


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
