"""The edit panel through the messages a browser sends: what is clicked equals what is scripted, and is shown."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets
import pytest

import workbench
from tests.helpers.edit_panels import Picker, panel
from tests.helpers.panels import EVIL, FACTS, FRANCE, QUICK, SPAIN, Held, control, descendants, shown, tiny
from tests.helpers.pictures import data_of
from tests.helpers.reader import harmless
from tests.helpers.small_fits import same
from tests.helpers.tiny_facts import capital
from tests.helpers.wire import click, enter
from workbench.editing.methods.table import Recipe
from workbench.editing.rewrite import rewrite
from workbench.evaluation.evaluate import evaluate
from workbench.types import AnswerRow, EvalReport, Rate, Selection, Step
from workbench.types.fact import as_facts
from workbench.widgets.edit import views as edit_views
from workbench.widgets.shared.code import edit_code, fact_call, fact_call_in_a_line, recipe_code, selection_code
from workbench.widgets.shared.code_block import CodeBlock
from workbench.widgets.shared.connection import Connection


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


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


# Code and pictures


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
