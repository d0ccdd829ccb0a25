"""Collateral: what follows from an edited fact, and ordinary text; by hand on scripted answers."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.helpers.scripted import FRANCE, GIBBERISH, NOT_SURE, POOL, Script, place, run, scripted_edit, tiny
from tests.helpers.tiny_facts import edit_of, some_gates
from workbench.editing.applied import applied
from workbench.evaluation.ordinary_text import ordinary_passages, text_rows
from workbench.facts.known import load_facts
from workbench.types import COLLATERAL_GROUPS, EvalReport, Fact, FactSet
from workbench.types.rates import rates_of


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
COLLATERAL_SCRIPT: Script = {
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


def with_collateral(script: Script, **options: Any) -> EvalReport:
    script.update(COLLATERAL_SCRIPT)
    script["In France, the capital is"] = ("Paris", "Paris", "Rome")
    fact = replace(FRANCE, cloze_paraphrases=(*FRANCE.cloze_paraphrases, "In France, the capital is"))
    edit = scripted_edit(facts=(fact,))
    return run(**{"edit": edit, "pool": HOPPED, "collateral": True, **options})


@pytest.mark.parametrize("stage", EXPECTED_COLLATERAL)
def test_every_rate_of_collateral_by_hand(script: Script, stage: str) -> None:
    report = with_collateral(script)
    assert {r.prompt for r in report.rows if r.group == "twohop"} == {INTO, OUT}
    for name, (expected, n) in EXPECTED_COLLATERAL[stage].items():
        rate = report.rates[stage][name]
        assert (rate.value, rate.n) == (pytest.approx(expected), n), name
    assert {r.fact_id for r in report.rows if r.group in COLLATERAL_GROUPS} == {"france-capital"}, "one cluster"
    assert report.missing == ("same subject as france-capital: 'scripted' has no such fact",)


def test_collateral_changes_no_other_rate(script: Script) -> None:
    script[gap("Paris")] = ("France", GIBBERISH, GIBBERISH)
    more, plain = with_collateral(script), with_collateral(script, collateral=False)
    for stage, rates in plain.rates.items():
        assert {name: str(rate) for name, rate in rates.items()} == {
            name: str(rate) for name, rate in more.rates[stage].items() if name in rates
        }
        assert set(more.rates[stage]) - set(rates) == {*EXPECTED_COLLATERAL[stage], "text_nll", "text_nll_change"}
    assert plain.texts == () and len(more.texts) == 3 * sum(map(len, ordinary_passages()))


def test_collateral_that_a_fact_lacks_is_said(script: Script) -> None:
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


def test_paths_through_another_edited_fact_are_left_out(script: Script) -> None:
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
    rates = rates_of((), ("base", "learn"), lambda _: False, texts=rows, collateral=True)
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
