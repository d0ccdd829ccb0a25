"""What an edit panel shows of a run: its time, its phases, its verdict, of which settings it is, and what stays."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import workbench
from tests.helpers.edit_panels import Picker, own_note, panel
from tests.helpers.panels import FRANCE, QUICK, SPAIN, Held, control, shown, tiny
from tests.helpers.wire import click, enter
from workbench.editing.methods.table import LoRA, Recipe
from workbench.editing.rewrite import rewrite
from workbench.evaluation.evaluate import evaluate
from workbench.types import Component, Edit, EvalReport, Selection, Step
from workbench.types.cancelling import Cancelled
from workbench.types.outcome import outcome
from workbench.widgets.edit import job as edit_job
from workbench.widgets.edit import panel as edit_panel
from workbench.widgets.edit import timeline
from workbench.widgets.edit import views as edit_views
from workbench.widgets.edit.panel import EditPanel
from workbench.widgets.shared import run_panel


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


# What is shown, and what stays


def ran(source: Any = "L1MLP", **options: Any) -> EditPanel:
    one = panel(source, **options)
    one.run().wait(60)
    return one


def test_the_verdict_stands_first_and_is_no_green_done() -> None:
    one = ran()
    assert one.report is not None and one.edit is not None
    found = outcome(one.report, one.edit.facts)
    text = shown(one._results)
    assert text.index("wb-verdict") < text.index("wb-hint") < text.index("wb-badge") < text.index("Evaluation")
    assert f"wb-verdict-{found.kind}" in text and found.words in text
    assert "wb-alert-done" not in shown(one) and "Done:" not in shown(one)


def test_an_edit_that_changed_nothing_is_bad_and_says_what_is_still_there() -> None:
    one = ran(recipe=replace(QUICK, steps=1, learning_rate=1e-9))
    text = shown(one._results)
    n = len(FRANCE.heldout)
    assert n == 1 and "wb-verdict-bad" in text and "Still Paris in 1 of 1 held-out question; Rome in 0;" in text


def test_texts_have_badges_and_the_rest_of_them_is_folded() -> None:
    heldout = tuple(f"{FRANCE.question} ({i})" for i in range(5))
    one = ran(fact=replace(FRANCE, heldout=heldout))
    text = shown(one._results)
    first, _, rest = text.partition("2 more of these questions")
    assert [question in first for question in heldout] == [True] * 3 + [False] * 2
    assert all(question in rest for question in heldout[3:]) and "badge" in rest
    report = EvalReport(rows=(), rates={"base": {}, "learn": {}}, stages=("base", "learn"), facts=("a",))
    assert edit_views.texts(report) == ""
    kinds = {label: edit_views.badge_of(label).html for label in ("old", "new", "refusal", "both", "gibberish")}
    assert ["wb-badge-other" in html for html in kinds.values()] == [False, False, False, True, True]
    assert all(label in html for label, html in kinds.items())


def test_the_rates_that_say_most_are_at_hand() -> None:
    text = shown(ran()._results)
    first, _, rest = text[text.index("Evaluation") :].partition("<details>")
    assert "controls still right" in first and "new answer, held-out" in first and "gibberish" not in first
    assert "more rates" in rest and "gibberish above" in rest


def test_what_is_picked_stands_beside_the_default() -> None:
    one = panel("L1H0 L2MLP")
    gates = Selection("L1H0 L2MLP").n_parameters(tiny())
    neurons = tiny().shape.n_layers * tiny().shape.d_mlp
    assert f"2 components, {gates:,} gates. Default for comparison: {neurons:,} default neurons." in shown(one)
    button = control(one, "Use the default")
    assert button.layout.display is None
    click(button)
    assert one.selection is None and button.layout.display == "none" and "for comparison" not in shown(one)
    one = panel("L1H0", recipe=LoRA(stages=("learn",)))
    assert "low-rank updates" in shown(one) and "gate" not in shown(one.settings), "a LoRA trains no gates"
    assert "low-rank updates" in control(one, "Train").options[0][0]


def test_results_name_their_run_and_what_was_changed_since() -> None:
    picker = Picker(selection=Selection("L1MLP"))
    one = ran(picker)
    assert one.run_words.startswith("Run: L1MLP, quick, 3 + 4 steps, ") and "changed" not in one.run_words
    enter(control(one, "learn steps"), value=9)
    picker.selection = Selection("L1H0 L1H1 L1H2 L2H0 L2H1")
    assert "steps 3 + 9 steps, was 3 + 4 steps" in one.run_words
    assert "what moves 5 picked components, was L1MLP" in one.run_words
    assert one.report is not None and "wb-verdict" in shown(one), "the results are still there"
    enter(control(one, "learn steps"), value=4)
    picker.selection = Selection("L1MLP")
    assert "changed" not in one.run_words
    enter(control(one, "random control"), value=True)
    assert "random control with a random control, was none" in one.run_words


def test_a_reopened_edit_is_marked_with_its_own_settings() -> None:
    first = ran()
    assert first.edit is not None
    other = panel("L2MLP")
    other.show(first.edit, first.report, elapsed=12.0)
    assert other.run_words.startswith("Run: L1MLP, quick, 3 + 4 steps") and other.elapsed == 12.0
    assert "what moves L2MLP, was L1MLP" in other.run_words and "wb-verdict" in shown(other)
    made = first.edit.provenance["created"][:4]
    assert f", {made}-" in other.run_words
    other.show(None, None)
    assert other.run_words == "" and other.elapsed is None and "wb-verdict" not in shown(other)


def broken(*given: Any, **options: Any) -> Any:
    raise RuntimeError("no memory")


@pytest.mark.parametrize("ends", ["refused", "failed", "cancelled"])
def test_a_run_without_a_result_leaves_the_last_one(ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ran()
    edit, report, before = one.edit, one.report, shown(one._results)
    assert edit is not None
    if ends == "refused":
        enter(control(one, "learning rate"), value=0.0)
    elif ends == "failed":
        monkeypatch.setattr(edit_panel, "fit_and_evaluate", broken)
    else:
        Held(monkeypatch)
    click(control(one, "Run"))
    one.cancel()
    with pytest.raises((ValueError, RuntimeError, Cancelled)):
        one.wait(10)
    assert one.edit is edit and one.report is report and shown(one._results) == before
    assert one.run_words.startswith("Run: L1MLP")
    assert ("kept" in one.run_words) == (ends != "refused")
    assert one.edit_code is not None and "L1MLP" in one.edit_code


def test_the_last_results_stay_until_the_next_edit_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    one, seen = ran(), []
    first, report = one.edit, one.report

    def fit(*given: Any, **options: Any) -> Edit:
        seen.append((one.edit is first, one.report is report, "wb-verdict" in shown(one._results)))
        return rewrite(*given, **options)

    def asked(*given: Any, **options: Any) -> EvalReport:
        seen.append((one.edit is first, one.report is report, "wb-verdict" in shown(one._results)))
        return evaluate(*given, **options)

    monkeypatch.setattr(edit_job, "rewrite", fit)
    monkeypatch.setattr(edit_job, "evaluate", asked)
    enter(control(one, "seed"), value=5)
    one.run().wait(60)
    assert seen == [(True, True, True), (False, False, False)]
    assert one.edit is not first and "seed" not in one.run_words


# How long it takes


def test_before_run_it_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_panel, "probe_seconds", lambda model: 10 * timeline.PROBE)
    one = panel()
    note = own_note(one)
    assert note.startswith("about ") and note.endswith(" min, guessed from the speed of this model")
    enter(control(one, "learn steps"), value=4000)
    assert own_note(one) != note
    enter(control(one, "learn steps"), value=4)
    one.run().wait(60)
    assert "guessed" not in own_note(one), "from now on it is measured"


def test_the_phases_of_a_run_stay_with_their_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_panel, "SECONDS_BETWEEN_DRAWINGS", 0.0)
    one, said = panel(), list[str]()
    one._run_progress._stepper.observe(lambda _: said.append(one.phase_words), names="value")
    one.run().wait(60)
    began = list(dict.fromkeys(words.split()[0] for words in said if words))
    assert began == ["unlearn", "learn", "evaluate"], "each is drawn when it begins; the first before the run"
    assert any(re.fullmatch(r"evaluate model [123] of 3: \d+ of \d+ prompts", words) for words in said)
    text = shown(one)
    assert text.count("wb-step-done") == 4 and "wb-step-now" not in text and one.phase_words == ""
    assert one.elapsed is not None and one.job is not None and one.elapsed == one.job.seconds


def test_buttons_lead_on_once_somebody_listens() -> None:
    one, gone = ran(), []
    row = one._results._buttons
    assert row.layout.display == "none"
    one.on_go(lambda panel, where: gone.append((panel, where)))
    assert row.layout.display is None
    for name in ("Compare", "Probe"):
        click(control(one, name))
    assert gone == [(one, "comparison"), (one, "probing")]
    one.fact = SPAIN
    assert row.layout.display == "none"


def test_a_kernel_that_dies_loses_only_what_was_running(tmp_path: Path) -> None:
    """What the panel holds of the run before can be saved at every moment of the next."""
    one = ran()
    assert one.edit is not None and one.report is not None
    kept = one.edit.id

    def fit(*given: Any, on_step: Any, **options: Any) -> Any:
        on_step(Step("unlearn", 0, 1.0, 0.1, 0.9, 0.1, 0.0))
        assert one.edit is not None and one.report is not None
        one.edit.save(tmp_path / "edit")
        one.report.save(tmp_path / "report.json")
        raise KeyboardInterrupt  # as a kernel that is stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edit_panel, "fit_and_evaluate", fit)
        with pytest.raises(KeyboardInterrupt):
            one.run().wait(10)
    assert workbench.load_edit(tmp_path / "edit").id == kept == one.edit.id and not one.running
    assert EvalReport.load(tmp_path / "report.json").rows == one.report.rows
    assert one.run().wait(60) is one.report, "and it runs again"


def test_changed_settings_are_seen_with_advanced_folded_and_put_back() -> None:
    one, default = panel("L1H0", recipe=None), Recipe()
    reset = control(one, "Reset")
    assert "changed:" not in shown(one) and reset.layout.display == "none"
    enter(control(one, "unlearn steps"), value=2)
    enter(control(one, "learn steps"), value=3)
    enter(control(one, "seed"), value=7)
    assert "changed: steps 2 + 3, seed 7" in shown(one) and reset.layout.display is None
    assert one.recipe.stage_steps == (2, 3) and one.recipe.seed == 7
    enter(control(one, "seed"), value=0)
    assert "changed: steps 2 + 3<" in shown(one)
    click(reset)
    assert one.recipe == default and "changed:" not in shown(one) and reset.layout.display == "none"


def test_the_default_is_the_recipes_own_settings_too() -> None:
    one = panel("L1H0", recipe=None)
    enter(control(one, "learn steps"), value=3)
    click(control(one, "Use the default"))
    neurons = tiny().shape.n_layers * tiny().shape.d_mlp
    assert one.recipe == Recipe() and one.selection is None and "changed:" not in shown(one)
    assert f"{neurons:,} neurons, {neurons:,} gates." in shown(one)
    assert Selection([Component(0, "N", i) for i in range(5)]).n_parameters(tiny()) == 5, "a neuron has one gate"
    control(one, "Recipe").value = "full"
    assert "gates." not in shown(one.settings), "which moves all layers"


def test_a_reopened_recipe_has_a_way_back_to_the_built_in_numbers() -> None:
    one = panel("L1H0", recipe=None)
    for given in (Recipe(steps=(2, 3), seed=4), Recipe(), Recipe(steps=Recipe().stage_steps), Recipe(contexts=False)):
        one.recipe = given
        assert one.recipe == given
    assert "changed:" not in shown(one), "of one with other settings than the fields show, they are its own"
    one.recipe = Recipe(steps=(2, 3))
    assert "changed: steps 2 + 3" in shown(one)
    click(control(one, "Reset"))
    assert one.recipe == Recipe()
