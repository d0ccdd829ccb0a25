"""What an evaluation asks and leaves out, how answers are judged, and how often the base is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.helpers.scripted import FRANCE, POOL, Script, place, run, scripted_edit, tiny
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, knowing
from tests.unit.test_evaluate import ASKED, N_ROWS
from workbench.evaluation.answering import Answering, Ask, counted_part
from workbench.language import generation
from workbench.language.generation import Completion
from workbench.models.load import LoadedModel, load_model
from workbench.types import AnswerRow, Fact, FactSet
from workbench.types.rates import rates_of
from workbench.types.report import Group

SPAIN_ASKED = ("What city is the capital of Spain?", "Where is the capital of Spain?", "The capital of Spain is")


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
