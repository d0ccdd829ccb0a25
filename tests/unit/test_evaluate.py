"""Evaluation: every rate by hand on scripted answers, and what is asked, left out and said to be missing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.helpers.scripted import FRANCE, GIBBERISH, NOT_SURE, POOL, SCRIPT, Script, place, run, scripted_edit, tiny
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, edit_of, knowing, some_gates
from workbench.editing.applied import applied
from workbench.evaluation.answer_slots import answers_at
from workbench.evaluation.answering import Answering, Ask, counted_part
from workbench.evaluation.ask import ask
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.probabilities import answer_probabilities
from workbench.language import generation
from workbench.language.generation import Completion, generate
from workbench.language.prompts import prompt_ids
from workbench.language.scoring import continuation_logprobs, continuation_nll
from workbench.models.load import LoadedModel, load_model
from workbench.types import AnswerRow, Fact, FactSet, Rate
from workbench.types.rates import rates_of
from workbench.types.report import Group

SPAIN_ASKED = ("What city is the capital of Spain?", "Where is the capital of Spain?", "The capital of Spain is")
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


# What is asked


@pytest.mark.usefixtures("script")
def test_retained_facts_are_never_evaluated() -> None:
    report = run(edit=scripted_edit(retain_ids=("spain-capital", "Prado-place", "germany-capital")))
    asked = {r.fact_id for r in report.rows}
    assert asked == {"france-capital", "japan-capital", "Big Ben-place", "Louvre-place"}


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize("part", ["selection_ids", "fisher_ids"])
def test_facts_that_chose_the_gates_are_never_evaluated(part: str) -> None:
    """Nor those that the Fisher information was measured on; the report says how many are left out."""
    report = run(edit=scripted_edit(**{part: ("Prado-place", "japan-capital")}))
    assert {r.fact_id for r in report.rows} == {"france-capital", "spain-capital", "Big Ben-place", "Louvre-place"}
    assert report.left_out == 2 and run().left_out == 0
    with pytest.raises(ValueError, match=r"those whose answers the edit used .*\['Prado-place'\]"):
        run(edit=scripted_edit(**{part: ("Prado-place",)}), controls=[POOL["Prado-place"]])


@pytest.mark.parametrize(
    ("said", "label"),
    [
        (("Madrid", "Madrid", "Madrid, not far from Tokyo."), "old"),  # Tokyo is its own target, which nobody taught
        (("Madrid", "Madrid", "Madrid or Rome"), "both"),  # Rome is what France was taught
        (("Madrid, as Rome", "Madrid", "Madrid, as Rome"), "old"),  # as the base says it
        (("Madrid", "Madrid", "Rome"), "new"),
    ],
)
def test_an_untouched_fact_is_judged_by_what_the_edit_taught(
    script: Script, said: tuple[str, str, str], label: str
) -> None:
    script["Where is Prado?"] = said
    report = run()
    rows = {r.stage: r.label for r in report.rows if r.fact_id == "Prado-place"}
    assert rows == {"base": "old", "unlearn": "old", "learn": label}
    assert report.rate("control").value == (1 if label == "old" else 0.5)


def test_what_an_untouched_fact_answers_itself_is_never_new(script: Script) -> None:
    """Italy's capital is what France was taught."""
    script["What is the capital of Italy?"] = ("Rome", "Rome", "Rome")
    report = run(controls=[POOL["italy-capital"]])
    assert [r.label for r in report.rows if r.fact_id == "italy-capital"] == ["old"] * 3


@pytest.mark.usefixtures("script")
def test_other_facts_about_the_edited_subject_are_no_controls() -> None:
    twin = capital("France", "Paris", "Berlin", "test", "control", id="twin")
    asked = {r.fact_id for r in run(pool=FactSet([*POOL, twin], name="with a twin")).rows}
    assert "twin" not in asked


def test_a_fact_of_ones_own_may_be_a_bundled_one(script: Script) -> None:
    """Its twin is no control; nor is that of a retained fact; nor may either be given as one."""
    bundled = [place("Prado", "Madrid", "Tokyo"), place("Louvre", "Paris", "Tokyo")]
    own = Fact(subject="Prado", prompt="The Prado is in", question="Where?", answer="Madrid", target="Rome")
    kept = Fact(
        id="kept", subject="Louvre", prompt="The Louvre is in", question="Which city?", answer="Paris", target="Rome"
    )
    script["Where?"] = script["The Prado is in"] = ("Madrid", "Rome", "Rome")
    script["Where is the capital of Spain?"] = ("Madrid", "Madrid", "Madrid")  # the same answer
    edit = scripted_edit(facts=(own,), retain_ids=("kept",))
    options: dict[str, Any] = {"facts": own, "edit": edit, "pool": FactSet([*POOL, kept], name="scripted")}
    assert {r.fact_id for r in run(**options).rows if r.group == "control"} == {"Big Ben-place"}
    with pytest.raises(ValueError, match=r"controls= overlaps .*\['Louvre-place', 'Prado-place'\]"):
        run(**options, controls=[*bundled, place("Big Ben", "London", "Tokyo")])


def test_a_neighbour_that_answers_what_another_edited_fact_is_taught_is_none(script: Script) -> None:
    """Spain's target is Tokyo here: Japan would be kept by an edit that spreads."""
    for text in SPAIN_ASKED:
        script[text] = ("Madrid", "Madrid", "Madrid")
    spain = replace(POOL["spain-capital"], target="Tokyo")
    report = run(facts=[FRANCE, spain])
    assert not {r.fact_id for r in report.rows if r.group == "neighbour"} & {"japan-capital", "italy-capital"}


def test_of_a_cloze_only_the_sentence_that_counts_is_scored() -> None:
    model = tiny()
    said = Completion("Rome. Paris was it", tuple(model.token_ids("Rome. Paris was it")))
    part = counted_part(model, said, "cloze")
    assert part is not None and part.text == "Rome." and model.tokenizer.decode(part.token_ids).strip() == "Rome."
    assert counted_part(model, said, "chat") is said
    whole = Completion("Rome", tuple(model.token_ids("Rome")))
    assert counted_part(model, whole, "cloze") is whole


@pytest.mark.usefixtures("script")
def test_controls_of_ones_own() -> None:
    report = run(controls=[POOL["Prado-place"]])
    assert {r.fact_id for r in report.rows if r.group == "control"} == {"Prado-place"}


@pytest.mark.usefixtures("script")
def test_controls_must_not_have_been_trained_on() -> None:
    edit = scripted_edit(retain_ids=("Prado-place",))
    with pytest.raises(ValueError, match=r"controls= overlaps .*\['Prado-place', 'france-capital'\]"):
        run(edit=edit, controls=[POOL["Prado-place"], FRANCE, POOL["Louvre-place"]])


def test_a_retained_fact_cannot_be_evaluated_as_an_edited_one(script: Script) -> None:
    for text in SPAIN_ASKED:
        script[text] = ("Madrid", "Madrid", "Madrid")
    with pytest.raises(ValueError, match="spain-capital"):
        run(edit=scripted_edit(retain_ids=("spain-capital",)), facts=[FRANCE, POOL["spain-capital"]])


def test_a_fact_that_is_neighbour_and_control_counts_once() -> None:
    """Its KL is that of the row on which it was measured."""
    given: dict[str, Any] = {"fact_id": "c", "relation": "r", "form": "chat", "prompt": "?", "label": "old", "nll": 1.0}
    groups: tuple[Group, ...] = ("neighbour", "control")
    rows = [
        AnswerRow(**given, group=group, stage=stage, text="Rome" if stage == "learn" else "x", kl=kl)
        for stage in ("base", "learn")
        for group, kl in zip(groups, (None, 0.5 if stage == "learn" else None), strict=True)
    ]
    rates = rates_of(rows, ("base", "learn"), lambda text: text == "Rome")["learn"]
    assert [(rates[n].n, rates[n].value) for n in ("bleed", "kl", "gibberish")] == [(1, 1.0), (1, 0.5), (1, 0.0)]
    assert rates["control"].n == rates["neighbour"].n == 1


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
    assert len([r for r in run(max_controls=99).rows if r.stage == "base"]) == ASKED


@pytest.mark.usefixtures("script")
def test_the_base_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = generation.generate

    def counting(model: LoadedModel, prompts: Any, **options: Any) -> Any:
        if not model.applied:
            asked.append(len(prompts))
        return real(model, prompts, **options)

    monkeypatch.setattr(generation, "generate", counting)
    first = run()
    assert sum(asked) == N_ROWS
    assert run(answering=Answering(tiny())).rows == run().rows == first.rows
    assert sum(asked) == N_ROWS


def test_a_base_whose_weights_changed_is_asked_again() -> None:
    model, asks = knowing(tiny_llama(tied=False), capitals()), [Ask("chat", "What is the capital of France?")]
    answering = Answering(model)
    before, (reply,) = answering.completions(model, asks), answering.replies(model, asks)
    with torch.no_grad():
        model.hf.get_output_embeddings().weight.neg_()
    (after,) = answering.replies(model, asks)
    assert answering.completions(model, asks) != before and after.nll != reply.nll
    assert (after,) == tuple(Answering(load_model(model.hf, tokenizer=model.tokenizer)).replies(model, asks))


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
