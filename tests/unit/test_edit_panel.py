"""The edit panel through the messages a browser sends: what is clicked equals what is scripted, and states are true."""

from __future__ import annotations

import base64
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
import traitlets

import workbench
from tests.helpers.panels import EVIL, FACTS, FRANCE, QUICK, SPAIN, Held, control, descendants, own, shown, tiny, until
from tests.helpers.pictures import data_of
from tests.helpers.reader import harmless
from tests.helpers.small_fits import same
from tests.helpers.tiny_facts import capital, capitals
from tests.helpers.wire import click, enter
from workbench.editing.methods import ia3
from workbench.editing.methods.table import Recipe
from workbench.editing.rewrite import rewrite
from workbench.editing.selector import default_selection
from workbench.editing.training.loop import NonFiniteLoss
from workbench.evaluation.evaluate import evaluate
from workbench.types import AnswerRow, Edit, EvalReport, Rate, Selection, Step
from workbench.types.cancelling import Cancelled
from workbench.types.fact import as_facts
from workbench.widgets.compare.view import CompareView
from workbench.widgets.edit import job as edit_job
from workbench.widgets.edit import panel as edit_panel
from workbench.widgets.edit import views as edit_views
from workbench.widgets.edit.panel import EditPanel
from workbench.widgets.shared import run_panel
from workbench.widgets.shared.code import edit_code, fact_call, fact_call_in_a_line, recipe_code, selection_code
from workbench.widgets.shared.code_block import CodeBlock
from workbench.widgets.shared.connection import Connection
from workbench.widgets.shared.voice import person


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def panel(source: Any = "L1MLP", fact: Any = FRANCE, **options: Any) -> EditPanel:
    return EditPanel(tiny(), fact, source, **{"pool": FACTS, "recipe": QUICK, "max_controls": 1, **options})


class Picker(traitlets.HasTraits):
    """Stands for a CircuitPicker."""

    selection = traitlets.Any(Selection())


# Clicked and scripted


def test_clicked_equals_scripted_to_the_bit_and_so_does_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tiny().fingerprint
    shown_panel = panel()
    enter(control(shown_panel, "unlearn steps"), value=2)
    enter(control(shown_panel, "learning rate"), value=0.03)
    enter(control(shown_panel, "retain weight"), value=1.5)
    enter(control(shown_panel, "seed"), value=7)
    recipe = replace(QUICK, steps=(2, 4), learning_rate=0.03, retain_weight=1.5, seed=7)
    assert shown_panel.recipe == recipe
    click(control(shown_panel, "Run"))
    assert shown_panel.job is not None
    report = shown_panel.job.wait(60)

    edit = rewrite(tiny(), FRANCE, "L1MLP", recipe=recipe, pool=FACTS, progress=False)
    scripted = evaluate(tiny(), edit=edit, pool=FACTS, max_controls=1, progress=False)
    assert shown_panel.edit is not None and same(shown_panel.edit, edit)
    assert [(s.loss, s.kl, s.p_new) for s in shown_panel.edit.history] == [
        (s.loss, s.kl, s.p_new) for s in edit.history
    ]
    assert shown_panel.report is report and report.rows == scripted.rows
    assert shown_panel.error is None and shown_panel.job.state == "done" and tiny().fingerprint == before

    monkeypatch.setattr(workbench, "load_model", lambda *args: tiny())
    names: dict[str, Any] = {}
    exec(shown_panel.code.replace("recipe=recipe", "progress=False, recipe=recipe"), names)
    assert same(names["edit"], edit) and names["report"].rows == scripted.rows


def test_what_is_seen_afterwards() -> None:
    one = panel()
    one.run().wait(60)
    text = shown(one)
    for words in (
        "unlearn: 3 steps to P = ",
        "learn: 4 steps to P = ",
        "after unlearn",
        "after learn",
        "(n=",
        "done after",
        "Rome in ",
        *FRANCE.heldout,
    ):
        assert words in text
    assert text.count("<svg") == 3 and "▸ learn" in text
    assert one.report is not None and str(one.report.rates["learn"]["control"]) in text
    for row in one.report.rows:
        assert row.group != "heldout" or row.text in text
    assert not control(one, "Run").disabled and control(one, "Cancel").disabled


def test_several_facts_at_once() -> None:
    one = panel(fact=[FRANCE, SPAIN])
    one.run().wait(60)
    assert one.edit is not None and [f.id for f in one.edit.facts] == [FRANCE.id, SPAIN.id]
    assert f"{SPAIN.id}: {SPAIN.heldout[0]}" in shown(one) and "2 facts together" in shown(one)
    assert as_facts(one.fact) == [FRANCE, SPAIN]


def test_whoever_wants_the_edit_is_called_with_the_panel() -> None:
    one, seen = panel(), []
    one.on_done(lambda p: seen.append((p.edit, p.report, p.running)))
    one.run().wait(60)
    assert seen == [(one.edit, one.report, False)] and one.edit is not None


def test_an_error_in_such_a_callback_is_shown_and_raised() -> None:
    def broken(_: EditPanel) -> None:
        raise LookupError(f"no such view {EVIL}")

    one = panel()
    one.on_done(broken)
    with pytest.raises(LookupError):
        one.run().wait(60)
    assert isinstance(one.error, LookupError) and 'role="alert"' in shown(one) and one.edit is not None


# States


def own_note(one: EditPanel) -> str:
    """What stands beside Run, as text."""
    return harmless(one._note.value).said


def test_a_second_run_is_refused_politely(monkeypatch: pytest.MonkeyPatch) -> None:
    held, one = Held(monkeypatch), panel()
    click(control(one, "Run"))
    first = one.job
    until(lambda: held.calls)
    click(control(one, "Run"))  # a message that was on its way when the button was switched off
    assert one.run() is first is one.job and held.calls == 1 and one.error is None and one.running
    assert "running already" in shown(one) and 'role="status"' in shown(one)
    assert control(one, "Run").disabled and control(one, "seed").disabled
    held.go.set()
    assert first is not None
    first.wait(10)
    assert not one.running and not control(one, "seed").disabled


def test_cancelling_a_fit() -> None:
    one = panel(recipe=replace(QUICK, steps=(90_000, 4)))
    click(control(one, "Run"))
    until(lambda: "<svg" in shown(one) and one.phase_words.startswith("unlearn "))
    assert re.fullmatch(r"unlearn [\d]+ of 90000", one.phase_words) and "left" in shown(one)
    assert one.status == one.phase_words or one.status.startswith("unlearn")
    click(control(one, "Cancel"))
    assert control(one, "Cancel").disabled
    assert one.job is not None
    with pytest.raises(Cancelled):
        one.job.wait(20)
    assert one.job.state == "cancelled" and one.error is None and one.edit is None and one.report is None
    assert "Cancelled in stage" in shown(one) and not control(one, "Run").disabled and one.phase_words == ""
    assert "<svg" not in shown(one) and "wb-steps" not in shown(one)
    one.recipe = QUICK
    assert one.run().wait(60) is one.report and one.report is not None, "and it runs again"


def test_cancelling_the_evaluation_keeps_the_edit() -> None:
    cancel, edits, said = threading.Event(), [], []

    def fitted(edit: Edit) -> None:
        edits.append(edit)
        cancel.set()

    with pytest.raises(Cancelled, match="edit is kept"):
        edit_job.fit_and_evaluate(
            tiny(), capitals()[:1], Selection("L1MLP"), QUICK, pool=FACTS, max_controls=1, cancel=cancel,
            on_step=lambda step: None if step.stage == "unlearn" else False, on_edit=fitted,
            follow=lambda *given: said.append(given),
        )  # fmt: skip
    assert len(edits) == 1, "what on_step returns cancels nothing"
    assert said == [("evaluate", 0, 0, "looking for facts to compare with")]


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
def test_whatever_ends_the_random_control_the_report_stays(ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = panel("L1N3 L1N4 L2N5")
    enter(control(one, "random control"), value=True)
    fits: list[Any] = []

    def fit(*given: Any, **options: Any) -> Edit:
        fits.append(given)
        if len(fits) == 2:
            assert one.report is not None and one.edit is not None
            if ends == "failed":
                raise RuntimeError("no memory")
            one.cancel()
        return rewrite(*given, **options)

    monkeypatch.setattr(edit_job, "rewrite", fit)
    click(control(one, "Run"))
    assert one.job is not None
    with pytest.raises((Cancelled, RuntimeError)):
        one.job.wait(60)
    assert one.job.state == ends and one.report is not None and one.control_report is None
    assert ("are kept" if ends == "cancelled" else "no memory") in shown(one)
    assert str(one.report.rates["learn"]["kl"]) in shown(one) and "Not evaluated" not in shown(one)


def test_a_failing_fit_is_shown_kept_and_raised_again() -> None:
    one = panel("L0MLP L1MLP L2MLP")
    enter(control(one, "learning rate"), value=3e37)
    click(control(one, "Run"))
    assert one.job is not None
    with pytest.raises(NonFiniteLoss):
        one.job.wait(60)
    assert one.job.state == "failed" and isinstance(one.error, NonFiniteLoss) and one.error is one.job.error
    assert 'role="alert"' in shown(one) and "NonFiniteLoss" not in own(one) and one.edit is None
    assert one.message == person(one.error)
    enter(control(one, "learning rate"), value=0.05)
    one.run().wait(60)
    assert one.error is None and 'role="alert"' not in shown(one)


@pytest.mark.parametrize(
    ("source", "settings", "words"),
    [
        ("L99MLP", {}, "the model has"),
        (Selection(), {}, "Nothing is picked"),
        ("L1MLP", {"learning rate": 0.0}, "Recipe.learning_rate must be a positive number"),
        ("L1MLP", {"learning rate": float("nan")}, "Recipe.learning_rate"),
        ("L1MLP", {"learn steps": -5}, "Recipe.steps must be whole numbers from 1"),
        (
            "L1MLP",
            {"learn steps": 10**12},
            "Learn steps must be a whole number from 1 to 100,000",
        ),
        ("L1MLP", {"seed": 10**30}, "Seed must be"),
    ],
)
def test_wrong_settings_fail_at_once_and_say_why(source: Any, settings: dict[str, float], words: str) -> None:
    one = panel(source)
    for name, value in settings.items():
        enter(control(one, name), value=value)
    assert control(one, "Run").disabled and one.problem and one.problem in own_note(one)
    with pytest.raises(ValueError, match=words):
        one.run().wait(10)
    assert words in str(one.error) and 'role="alert"' in shown(one) and not one.running
    assert one.message == one.problem and "Error" not in one.problem and "Recipe." not in one.problem
    assert one.code.startswith("# These settings do not work" if settings else "import")


# What is trained


def test_the_picked_components_are_read_when_run_is_pressed(monkeypatch: pytest.MonkeyPatch) -> None:
    held, picker = Held(monkeypatch), Picker()
    held.go.set()
    one = panel(picker)
    train = control(one, "Train")
    assert train.options[0][0] == "Picked components (none yet)" and train.value == "picked"
    picker.selection = Selection("L1H0 L2MLP")
    gates = picker.selection.n_parameters(tiny())
    assert train.options[0][0] == f"Picked components (2: {gates} gates)" and train.value == "picked"
    assert "selection = 'L1H0 L2MLP'" in one.code
    click(control(one, "Run"))
    assert one.job is not None
    one.job.wait(10)
    assert held.given[2] == Selection("L1H0 L2MLP")
    enter(train, index=1)
    assert one.selection is None and "selection = None  # None: the default selector" in one.code
    one.run().wait(10)
    assert held.given[2] is None


def test_a_fact_that_is_not_learned_is_tried_harder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The panel follows the second fit, and says what it gave; its code and its control make the same."""
    few, more = 9, 30
    monkeypatch.setitem(ia3.RECIPES, "quick", hard := replace(QUICK, draw_back=1.0))
    monkeypatch.setattr(
        ia3, "default_selection", lambda *given, k=few, **options: default_selection(*given, k=k, **options)
    )
    monkeypatch.setattr(ia3, "MORE_NEURONS", more)
    one = panel(None, recipe=hard)
    seen: list[str] = []
    monkeypatch.setattr(run_panel, "SECONDS_BETWEEN_DRAWINGS", 0)
    for area in descendants(one):
        if isinstance(area, ipywidgets.HTML):
            area.observe(
                lambda change: "while it was fitted" in change["new"] and seen.append(change["new"]), names="value"
            )
    one.random_control = True
    one.run().wait(60)
    assert one.edit is not None and one.control_report is not None
    assert one.edit.recipe.stage_steps == (3, 8) and len(one.edit.selection) == more
    live = [drawn for drawn in seen if "Loss" not in drawn]
    again = ["once more with more neurons" in drawn for drawn in live]
    assert again[0] is False and again.index(True) > 1 and sum(again) > 1, "first without, then with"
    assert all(again[again.index(True) : -1]) and not again[-1], "and in the end the edit's own"
    assert all(words in shown(one) for words in ("unlearn again", "learn again", "random control", "evaluate it"))
    assert str(one.edit.shortfall)[1:] in shown(one) and "More learn steps may teach it." in shown(one)
    names: dict[str, Any] = {}
    monkeypatch.setattr(workbench, "load_model", lambda *args: tiny())
    exec(one.code, names)
    assert same(names["edit"], one.edit)
    assert names["control"].recipe == one.edit.recipe and names["control_report"].rows == one.control_report.rows
    assert f"selection = {more}\n" in CompareView(tiny(), one.edit, pool=FACTS).code
    one.show(names["edit"], None)
    assert str(one.edit.shortfall)[1:] in shown(one) and "A first fit of 9 reached P = " in shown(one)
    # An edit that was opened leaves the settings it was asked with: Run makes the same; also with half of all neurons,
    # beside which there is just room for a random control.
    assert one.recipe == hard
    monkeypatch.setattr(ia3, "MORE_NEURONS", 8000)
    one.random_control = True
    one.run().wait(60)
    assert len(one.edit.selection) == 84 and one.control_report is not None
    assert same(one.edit, rewrite(tiny(), FRANCE, recipe=hard, pool=FACTS, progress=False))
    picked = panel(recipe=hard)
    picked.run().wait(60)
    assert picked.edit is not None
    assert "so may the default selector" in shown(picked) and picked.edit.recipe.stage_steps == (3, 4)


def test_a_picker_that_is_not_made_of_traits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        selection, told = Selection("L1H0"), None

        def on_change(self, callback: Any) -> None:
            self.told = callback

    picker = Plain()
    one = panel(picker)
    picker.selection = Selection("L1H1")
    assert picker.told is not None
    picker.told()
    assert one.selection == Selection("L1H1") and "L1H1" in shown(one)
    with pytest.raises(ValueError, match="selection_source must be"):
        one.selection_source = 3
    one.selection_source = None
    assert one.selection is None and len(control(one, "Train").options) == 1


def test_the_recipes_and_their_settings() -> None:
    one = panel(recipe="paper")
    assert one.recipe == Recipe.named("paper") and "wb.Recipe.named('paper')" in one.code
    recipes = control(one, "Recipe")
    enter(recipes, index=list(recipes.options).index("learn-only"))
    assert one.recipe == Recipe.named("learn-only")
    assert control(one, "unlearn steps").layout.display == "none" and control(one, "learn steps").layout.display is None
    enter(control(one, "learn steps"), value=9)
    assert one.recipe.stage_steps == (9,) and "wb.Recipe.named('learn-only', steps=9)" in one.code
    with pytest.raises(ValueError, match="Unknown recipe"):
        panel(recipe="none such")


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("unlearn steps", {"value": "many"}),
        ("unlearn steps", {"value": None}),
        ("learning rate", {"value": [1]}),
        ("seed", {"value": {"a": 1}}),
        ("Recipe", {"index": 99}),
        ("Train", {"index": "first"}),
    ],
)
def test_nonsense_from_the_browser_changes_nothing(name: str, state: dict[str, Any]) -> None:
    one = panel()
    before = one.recipe, one.selection, one.code
    enter(control(one, name), **state)
    assert (one.recipe, one.selection, one.code) == before


def test_every_field_answers_what_it_cannot_be_all_at_once() -> None:
    one = panel()
    wrong = {"unlearn steps": 0, "learn steps": -5, "learning rate": 0.0, "retain weight": -1.0}
    for name, value in wrong.items():
        enter(control(one, name), value=value)
        assert control(one, name).value == value, "it stays as it was typed"
    for words in (
        "Unlearn steps must be a whole number from 1 to 100,000, not 0.",
        "Learn steps must be a whole number from 1 to 100,000, not -5.",
        "Learning rate must be a number above 0, not 0.",
        "Retain weight must be a number from 0 to 1,000,000, not -1.",
    ):
        assert words in one.problem and shown(one).count(words) == 2, "at the field and beside Run"
    for name in wrong:
        enter(control(one, name), value=2)
    assert one.problem == "" and not control(one, "Run").disabled and "must be" not in shown(one)
    enter(control(one, "learning rate"), value=None)
    assert "That is no number: 2 is kept." in shown(one) and not control(one, "Run").disabled
    enter(control(one, "learning rate"), value=0.5)
    assert "no number" not in shown(one)


def test_a_field_that_the_recipe_does_not_use_stops_nothing() -> None:
    one = panel()
    enter(control(one, "unlearn steps"), value=0)
    assert control(one, "Run").disabled
    recipes = control(one, "Recipe")
    enter(recipes, index=list(recipes.options).index("learn-only"))
    assert not control(one, "Run").disabled and one.problem == ""


# Facts, code, pictures


def test_another_fact_empties_the_panel_but_not_while_an_edit_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    one = panel()
    one.run().wait(60)
    one.fact = SPAIN
    assert one.fact == SPAIN and one.edit is None and one.report is None and one.job is None
    assert "Madrid" in shown(one) and "<svg" not in shown(one) and "spain-capital" in one.code
    held = Held(monkeypatch)
    job = one.run()
    until(lambda: held.calls)
    with pytest.raises(RuntimeError, match="Cancel it or wait"):
        one.fact = FRANCE
    assert one.fact == SPAIN and "Cancel it or wait" in shown(one)
    held.go.set()
    job.wait(10)
    with pytest.raises(ValueError, match="at least one fact"):
        one.fact = []


def test_the_code_is_that_of_the_last_run_until_a_setting_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    held, picker = Held(monkeypatch), Picker(selection=Selection("L1H0"))
    held.go.set()
    one = panel(picker)
    one.run().wait(10)
    ran = one.code
    assert "'L1H0'" in ran and "Code" in shown(one)
    enter(control(one, "seed"), value=3)
    assert one.code != ran and "seed=3" in one.code


def test_a_bundled_fact_is_looked_up_and_another_written_out() -> None:
    bundled = workbench.load_facts()["france-capital"]
    code = edit_code(tiny(), [bundled], None, Recipe.named("learn-only", seed=3), max_controls=None)
    assert "fact = facts['france-capital']\n" in code and "pool" not in code and "max_controls=None" in code
    names: dict[str, Any] = {"wb": workbench}
    own = replace(bundled, target='O\'Higgins "Ω"')
    exec(
        edit_code(tiny(), [own, bundled], None, Recipe()).split("selection =")[0].split("load_model('tiny')")[1], names
    )
    assert names["fact"] == [own, bundled]
    assert eval(fact_call_in_a_line(own), names) == own == eval(fact_call(own), names)
    assert eval(recipe_code(QUICK), names) == QUICK
    many = Selection([f"L{i % 3}N{i}" for i in range(200)])
    assert Selection(eval(selection_code(many))) == many and max(map(len, selection_code(many).splitlines())) < 110


def test_untrusted_texts_are_shown_and_never_run() -> None:
    evil = capital(EVIL, f"old {EVIL}", f"new {EVIL}", id=EVIL, refusal=EVIL)
    one = panel(fact=evil)
    assert "&lt;img" in shown(one)
    one.run().wait(60)
    assert "old &lt;img" in shown(one) and "<svg" in shown(one)
    row = AnswerRow(
        fact_id=EVIL, relation=EVIL, group="heldout", stage="base", form="chat", prompt=EVIL, text=EVIL, label="other",
        nll=1.0,
    )  # fmt: skip
    rates = {s: {"new": Rate(0.5, 2, 0.1, 0.9, "wilson")} for s in ("base", "learn")}
    for facts in ((EVIL,), (EVIL, "b")):
        report = EvalReport(rows=(row,), rates=rates, missing=(EVIL,), facts=facts, stages=("base", "learn"))
        parts = edit_views.verdict(report, [evil]), edit_views.texts(report), edit_views.rates(report)
        read = harmless("".join(parts))
        assert read.said.count(EVIL) >= 3 and "0.50 [0.10, 0.90] (n=2)" in read.said
    history = [Step("unlearn", 0, 1.0, 0.1, 0.9, 0.1, 0.0), Step("learn", 0, 2.0, 0.2, 0.8, 0.2, 0.1)]
    harmless(edit_views.answer_chart(history, Recipe(), [evil]) + edit_views.fit_charts(history, Recipe()))


def test_drawing_is_at_most_five_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    one, drawn = panel(), []

    def steps(*_: Any, on_step: Any, **__: Any) -> None:
        for i in range(400):
            on_step(Step("unlearn", i, float(i), 0.0, p_old=1 / (i + 1)))

    for area in descendants(one):
        if isinstance(area, ipywidgets.HTML):
            area.observe(lambda change: "<svg" in change["new"] and drawn.append(change["new"]), names="value")
    monkeypatch.setattr(edit_panel, "fit_and_evaluate", steps)
    monkeypatch.setattr(run_panel, "SECONDS_BETWEEN_DRAWINGS", 1000.0)
    one.run().wait(20)
    assert len(drawn) == 1
    monkeypatch.setattr(run_panel, "SECONDS_BETWEEN_DRAWINGS", 0.0)
    drawn.clear()
    one.run().wait(60)
    assert len(drawn) == 400


def test_a_picture_and_a_fixed_text_where_no_widget_can_run() -> None:
    bundle = panel()._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["text/plain"] == "EditPanel(france-capital: quick, not run)" == repr(panel())
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert panel()._repr_mimebundle_()["image/png"] == bundle["image/png"]


def test_every_control_has_a_name() -> None:
    for widget in descendants(panel()):
        if not isinstance(widget, ipywidgets.HTML | ipywidgets.Box | Connection | CodeBlock):
            assert widget.description


# The random control


def test_a_random_control_beside_the_edit_equals_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    one = panel("L1N3 L1N4 L2N5", recipe=replace(QUICK, seed=2))
    assert "control_report" not in one.code and not one.random_control
    enter(control(one, "random control"), value=True)
    assert "control_report = wb.evaluate(model, edit=control, max_controls=1, pool=pool)" in one.code
    report = one.run().wait(60)
    assert control(one, "random control").disabled is False
    found = one.control_report
    assert found is not None and found is not report and found.rows != report.rows
    monkeypatch.setattr(workbench, "load_model", lambda *args: tiny())
    names: dict[str, Any] = {}
    exec(one.code.replace("recipe=recipe, pool", "progress=False, recipe=recipe, pool"), names)
    assert names["report"].rows == report.rows and names["control_report"].rows == found.rows
    drawn = names["control"].selection
    assert len(drawn) == 3 and {c.kind for c in drawn} == {"N"} and not drawn & names["edit"].selection
    text = shown(one)
    assert "random control, after learn" in text and str(found.rates["learn"]["kl"]) in text
    assert "one draw" in text and f"against {found.rate('new')}" in text
    enter(control(one, "random control"), value=False)
    assert "control_report" not in one.code
    one.run().wait(60)
    assert one.control_report is None and "random control, after learn" not in shown(one)


def test_what_cannot_have_a_random_control_is_said_before_the_fit() -> None:
    one = panel("L0MLP L1MLP")
    one.random_control = True
    with pytest.raises(ValueError, match="Cannot draw 2 other components of kind 'MLP' from the model"):
        one.run().wait(60)
    assert one.edit is None and "Cannot draw 2 other components" in shown(one)


def test_a_snapshot_gives_the_rates_once_there_are_some() -> None:
    one = panel()
    card = data_of(one.snapshot())
    assert card == base64.b64decode(one._repr_mimebundle_()["image/png"])
    one.run().wait(60)
    assert one.snapshot().data == base64.b64decode(one._repr_mimebundle_()["image/png"]) != card
    assert one.report is not None
    head, *lines, last = edit_views.card_lines(FRANCE, "quick", one.report)[1:]
    assert (head, last) == ("Paris -> Rome", edit_views.RUN_CELL) and lines.pop(0) == "Recipe: quick"
    old = one.report.rates["learn"]["old"]
    assert [line.partition(":")[0] for line in lines] == ["before", "after unlearn", "after learn"]
    assert f"old {old.value:.2f} (n={old.n})" in lines[-1]
