"""Compare says one thing at one stage and strength: answers, bars, maps and code."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from ipywidgets import Button

from tests.helpers.panels import EVIL, control, descendants, shown, until
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, edit_of, knowing, some_gates
from tests.helpers.wire import click, enter, message
from workbench.comparing.maps import compare_maps
from workbench.editing.applied import applied
from workbench.evaluation.ask import ask
from workbench.evaluation.probabilities import answer_probabilities
from workbench.models.load import LoadedModel
from workbench.types import Edit
from workbench.types.cancelling import Cancelled
from workbench.widgets.compare import asking as asking_module
from workbench.widgets.compare import wanted as wanted_module
from workbench.widgets.compare.asking import Answered, tables
from workbench.widgets.compare.strength import answer_bars
from workbench.widgets.compare.view import CompareView
from workbench.widgets.compare.wanted import NO_PARTNER
from workbench.widgets.compare.words import after_words, strength_words
from workbench.widgets.shared.measure import Measure

FACT = capitals()[0]
SPAIN = "What is the capital of Spain?"


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


@lru_cache
def edit(seed: int = 0) -> Edit:
    """One under which the answers change between the strengths that are used here."""
    return edit_of(tiny(), some_gates(tiny(), (1, "post"), seed=seed), some_gates(tiny(), (0, "z"), seed=seed + 1))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def view(**options: Any) -> CompareView:
    return CompareView(tiny(), edit(), pool=capitals(), **options)


def asked(panel: CompareView, question: str | None = None) -> Answered:
    job = panel.ask(question)
    assert job is not None
    return job.wait(60)


def past_questions(panel: CompareView) -> list[str]:
    tips = [(w.description, w.tooltip or "") for w in descendants(panel) if isinstance(w, Button)]
    return [words for words, tip in tips if tip.startswith("Ask again")]


def at(strength: float, question: str, stage: str = "learn") -> str:
    with applied(tiny(), edit(), stage, strength) as edited:
        return ask(edited, question)


def test_an_answer_is_that_of_the_sliders_stage_and_strength() -> None:
    panel = view()
    texts = [at(strength, SPAIN) for strength in (0.0, 0.5, 1.0)]
    assert len(set(texts)) > 1, "the strengths must differ for this to say anything"
    for strength, text in zip((0.0, 0.5, 1.0), texts, strict=True):
        enter(control(panel, "Strength"), value=strength)
        found = asked(panel, SPAIN)
        assert found == Answered(SPAIN, "learn", strength, ask(tiny(), SPAIN), text)
    assert texts[0] == ask(tiny(), SPAIN), "at strength 0 it is the base"
    enter(control(panel, "After"), index=0)
    assert asked(panel).edited == at(1.0, SPAIN, "unlearn")


def test_the_header_says_the_stage_and_the_strength_and_earlier_rows_keep_theirs() -> None:
    panel = view()
    enter(control(panel, "Strength"), value=0.3)
    first = asked(panel, SPAIN)
    assert '<th scope="col">after learn, strength 0.30</th>' in shown(panel)
    enter(control(panel, "Strength"), value=1.0)
    second = asked(panel, "Who are you?")
    assert panel.answers == (first, second)
    table, _, before = shown(panel).partition("<caption>Asked before")
    assert '<th scope="col">after learn, strength 1.00</th>' in table and "Who are you?" in table
    assert "<td>after learn, strength 0.30</td>" in before and SPAIN in before
    again = asked(panel, SPAIN)
    assert tables(panel.answers).count("<caption>Asked before") == 1 and panel.answers[-1] == again


def test_a_past_question_is_asked_again_at_the_strength_of_now() -> None:
    panel = view()
    asked(panel, SPAIN)
    asked(panel, "Who are you?")
    chips = past_questions(panel)
    assert chips == ["Who are you?", SPAIN]
    panel.strength = 0.25
    click(control(panel, SPAIN))
    assert panel.asking is not None
    assert panel.asking.wait(60) == Answered(SPAIN, "learn", 0.25, ask(tiny(), SPAIN), at(0.25, SPAIN))
    assert len(panel.answers) == 3
    chips = past_questions(panel)
    assert chips == [SPAIN, "Who are you?"], "each question once, the last one first"


def test_enter_asks_what_was_typed_even_where_the_key_comes_before_the_last_letters() -> None:
    panel = view()
    field = control(panel, "Ask")
    enter(field, value="What is the capital of Spa")
    message(field, {"method": "custom", "content": {"event": "submit"}})
    enter(field, value=SPAIN)
    until(lambda: len(panel.answers) == 1)
    assert panel.answers[0].question == SPAIN
    message(field, {"method": "custom", "content": {"event": "other"}})
    message(field, {"method": "custom", "content": ["submit"]})
    assert panel.asking is not None and not panel.asking.running


def test_an_empty_question_is_said_at_the_field() -> None:
    panel = view()
    assert panel.ask("  ") is None
    assert "empty" in str(panel.error) and "Write a question first." in shown(panel)
    assert panel.message == "", "not in the alert of the maps"
    asked(panel, SPAIN)
    assert panel.error is None and "Write a question first." not in shown(panel)


def test_what_fails_is_said_at_the_field_and_the_answers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = view()
    first = asked(panel, SPAIN)

    def fail(*_: Any) -> Any:
        raise RuntimeError(EVIL)

    with monkeypatch.context() as patch:
        patch.setattr(asking_module, "ask", fail)
        job = panel.ask("Who?")
        assert job is not None
        with pytest.raises(RuntimeError):
            job.wait(60)
    assert "It could not be answered: &lt;img" in shown(panel) and panel.answers == (first,)
    assert isinstance(panel.error, RuntimeError) and not control(panel, "Ask both").disabled


def test_answers_come_back_with_their_edit_and_past_questions_stay() -> None:
    panel = view()
    first = asked(panel, SPAIN)
    panel.show(edit(5))
    assert panel.answers == () and control(panel, SPAIN) is not None
    panel.show(edit())
    assert panel.answers == (first,) and "What they answer" in shown(panel)


def test_the_slider_moves_the_bars_and_not_the_base() -> None:
    panel = view()
    enter(control(panel, "Strength"), value=0.4)
    with applied(tiny(), edit(), "learn", 0.0) as unchanged:
        assert panel.base_probabilities == dict(answer_probabilities(unchanged, FACT)["before"])
    before = panel.base_probabilities
    enter(control(panel, "Strength"), value=0.0)
    assert panel.probabilities == before == panel.base_probabilities
    assert "P(whole answer) after learn at strength 0.00" in shown(panel)


def test_bars_name_the_answers_by_mark_and_have_the_base_as_a_tick() -> None:
    base, edited = {"old: Paris": 0.97, "new: <b>": 1e-6}, {"old: Paris": 0.0, "new: <b>": 0.5}
    drawn = answer_bars(base, edited, "learn at strength 0.30")
    said = "P(whole answer) after learn at strength 0.30. "
    said += "● old: Paris: 0 (base 0.97); ◆ new: &lt;b&gt;: 0.5 (base &lt;0.001)"
    assert f'aria-label="{said}"' in drawn and "<b>" not in drawn
    assert drawn.count("wb-reference") == 2 and answer_bars({}, {}, "learn") == ""


def test_maps_are_of_the_sliders_strength_and_say_so() -> None:
    panel = view()
    panel.measure = Measure("logit_diff")
    panel.strength = 0.3
    result = panel.compare().wait(60)
    options: dict[str, Any] = {"metric": "logit_diff", "pool": capitals(), "progress": False}
    assert result.strength == 0.3 and panel.result is result
    found = compare_maps(tiny(), edit(), strength=0.3, **options)
    assert torch.equal(result.after.values, found.after.values)
    assert not torch.equal(found.after.values, compare_maps(tiny(), edit(), **options).after.values)
    assert "Before and after: learn at strength 0.30" in shown(panel)
    panel.strength = 0.0
    assert panel.result is result, "they stay, and say at which strength they are"
    assert "Before and after: learn at strength 0.30" in shown(panel) and "The slider is at 0.00" in shown(panel)
    base = panel.compare().wait(60)
    assert torch.equal(base.after.values, base.before.values) and base.before is result.before
    assert "Before and after: learn at strength 0.00" in shown(panel) and "The slider is" not in shown(panel)
    panel.strength = 0.3
    assert panel.result is result, "at once"


def test_one_measure_for_the_maps_and_recovery_is_of_the_bases_own_gap() -> None:
    panel = view()
    assert panel.measure == Measure("recovery", "swap")
    result = panel.compare().wait(60)
    raw = compare_maps(tiny(), edit(), metric="logit_diff", pool=capitals(), progress=False)
    gap = raw.before.clean - (raw.before.corrupted or 0.0)
    assert result.before.normalised and result.after.normalised and result.difference.normalised
    torch.testing.assert_close(result.before.values, raw.before.values / gap)
    torch.testing.assert_close(result.after.values, raw.after.values / gap)
    torch.testing.assert_close(result.difference.values, (raw.after.values - raw.before.values) / gap)
    assert (result.after.clean, result.after.corrupted) == (raw.after.clean, raw.after.corrupted)
    told: list[Measure] = []
    panel.on_measure(told.append)
    enter(control(panel, "Measure"), index=2)
    enter(control(panel, "Corruption"), index=1)
    assert told == [Measure("probability", "swap"), Measure("probability", "noise")] and panel.result is None
    panel.measure = Measure()
    assert len(told) == 2 and panel.result is result
    with pytest.raises(ValueError, match="another text, site or metric"):
        compare_maps(tiny(), edit(), metric="logit_diff", pool=capitals(), before=result.before, progress=False)


def test_noise_stands_in_where_no_swap_fits_and_the_code_says_it() -> None:
    panel = CompareView(tiny(), edit(), pool=capitals()[:1], edit_code="edit = THE_EDIT")
    result = panel.compare().wait(60)
    assert result.before.corruption == result.after.corruption == "noise"
    assert NO_PARTNER in shown(panel) and panel.error is None
    assert "corruption='noise'" in panel.code
    given = CompareView(tiny(), edit(), pool=capitals()[:1])
    given.partner = capitals()[2]
    assert given.compare().wait(60).before.corruption == "swap"
    assert NO_PARTNER not in shown(given) and "partner=wb.Fact(" in given.code


def test_maps_are_drawn_without_a_press_once_the_view_is_looked_at() -> None:
    panel = view()
    assert panel.job is None
    panel.shown()
    assert panel.job is not None
    first = panel.job.wait(60)
    until(lambda: not panel.busy)
    assert panel.result is first and len(panel.grids) == 3
    job = panel.job
    panel.shown()
    assert panel.job is job, "they are there"
    enter(control(panel, "Map"), index=3)
    until(lambda: panel.result is not None and panel.result.before.unit == "head")
    panel.measure = Measure("probability")
    assert panel.result is None and not panel.busy, "from outside: only when it is looked at"
    panel.shown()
    until(lambda: panel.result is not None and panel.result.before.metric == "probability")


def test_what_failed_or_was_cancelled_is_not_begun_again_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def fail(*_: Any, **__: Any) -> Any:
        nonlocal calls
        calls += 1
        raise RuntimeError("out of memory")

    monkeypatch.setattr(wanted_module, "compare_maps", fail)
    panel = view()
    panel.shown()
    until(lambda: panel.error is not None and not panel.busy)
    panel.shown()
    assert calls == 1 and "out of memory" in panel.message


def test_another_choice_takes_the_place_of_what_is_going_on(monkeypatch: pytest.MonkeyPatch) -> None:
    going, real = threading.Event(), wanted_module.compare_maps

    def slow(*args: Any, cancel: threading.Event, **options: Any) -> Any:
        if options["site"] == "resid":
            going.set()
            assert cancel.wait(30)
            raise Cancelled("Cancelled here.")
        return real(*args, cancel=cancel, **options)

    monkeypatch.setattr(wanted_module, "compare_maps", slow)
    panel = view()
    panel.shown()
    assert going.wait(30)
    enter(control(panel, "Map"), index=1)
    until(lambda: panel.result is not None and panel.result.before.unit == "mlp")
    assert panel.error is None and panel.message == ""
    monkeypatch.setattr(wanted_module, "compare_maps", real)
    enter(control(panel, "Map"), index=0)
    until(lambda: panel.result is not None and panel.result.before.unit == "resid")


def test_a_trace_is_cancelled_between_two_layers_and_says_how_far_it_is() -> None:
    steps, cancel = [], threading.Event()
    compare_maps(tiny(), edit(), pool=capitals(), on_step=lambda *step: steps.append(step), progress=False)
    n = tiny().shape.n_layers
    assert [done for done, _ in steps] == [*range(1, n + 1), n, *range(n + 1, 2 * n + 1), 2 * n]
    assert {total for _, total in steps} == {2 * n}
    with pytest.raises(Cancelled, match="after the edit"):
        compare_maps(
            tiny(), edit(), pool=capitals(), cancel=cancel, progress=False,
            on_step=lambda done, total: done > n and cancel.set(),
        )  # fmt: skip


def test_an_edit_comes_back_as_it_was_left() -> None:
    panel, other = view(), edit(5)
    panel.stage, panel.strength = "unlearn", 0.5
    result = panel.compare().wait(60)
    panel.show(other)
    assert (panel.stage, panel.result) == ("learn", None) and not panel.busy
    panel.show(edit())
    assert (panel.stage, panel.strength) == ("unlearn", 0.5) and panel.result is result


def test_the_code_repeats_every_answer_at_its_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = view(edit_code="edit = THE_EDIT")
    panel.strength = 0.5
    asked(panel, SPAIN)
    panel.strength, panel.stage = 0.3, "unlearn"
    asked(panel, f"{EVIL} Who?")
    panel.site = "head"
    result = panel.compare().wait(60)
    import workbench as wb

    monkeypatch.setattr(wb, "load_model", lambda *a, **k: tiny())
    names: dict[str, Any] = {"THE_EDIT": edit()}
    exec(panel.code, names)
    assert names["answers"] == [(a.base, a.edited) for a in panel.answers]
    assert torch.equal(names["maps"].difference.values, result.difference.values)
    assert names["maps"].strength == 0.3 and names["maps"].stage == "unlearn"
    assert dict(names["probabilities"]) == panel.probabilities
    assert dict(names["base_probabilities"]) == panel.base_probabilities


@pytest.mark.parametrize(("strength", "words"), [(0.3, "0.30"), (1.0, "1.00"), (0.125, "0.125"), (0.0, "0.00")])
def test_strengths_in_words(strength: float, words: str) -> None:
    assert strength_words(strength) == words
    assert after_words("learn", strength) == f"after learn, strength {words}"
