"""The assertions about the workbench can fail: see mutants.py."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser import test_workbench as bench
from tests.browser.conftest import Notebook
from tests.browser.mutants import Mutant, survivors
from tests.browser.test_workbench import FACTS, WAITING_FIT, go_to, press

pytestmark = [pytest.mark.browser, pytest.mark.model]

Run = Callable[..., Notebook]

# An edit by hand, a fit that waits to be cancelled, one pair of maps, and answers that only name the model: assertions
# about a mutant wait for less than a second, so nothing may take longer.
APP = f"""{FACTS}
{WAITING_FIT}
import torch
from workbench.types import EditStage, GateDelta
from workbench.widgets.compare import asking, wanted as compare
asking.ask = lambda model, text: text + " " + str([one.strength for one in model.applied] or "base")
gate = torch.ones(model.shape.site_size("z"))
gate[4 * 64 : 5 * 64] = 0.0
edit = wb.Edit(stages=(EditStage("learn", GateDelta({{(23, "z"): gate}})),), selection=wb.Selection("L23H4"),
               selector="given", recipe=wb.Recipe(stages=("learn",)), facts=(facts["france-capital"],), retain_ids=(),
               history=(), base_fingerprint=model.fingerprint, base_name=model.name)
maps = wb.compare_maps(model, edit, facts["france-capital"], site="head", corruption="swap", pool=facts, progress=False)
compare.compare_maps = lambda *given, **options: maps
app = wb.Workbench(model, facts, fact="france-capital")
app.picker.compute = lambda *names: None
app.editor.controls["Train"].value = "default"
app._show_edit(edit)
from contextlib import nullcontext
from workbench.widgets.compare.asking import Asking
from workbench.widgets.compare.view import CompareView
from workbench.widgets.compare.before_after import BeforeAfterMaps
real_show, real_ask = BeforeAfterMaps.show, Asking.ask
app
"""


def idle(notebook: Notebook) -> None:
    """No edit is running."""
    notebook.execute("app.editor.job and app.editor.job.cancel()")
    notebook.wait_for("app.editor.running", False)


def started(page: Page, notebook: Notebook) -> None:
    idle(notebook)
    go_to(page, "3 Edit")
    press(page, "Run")
    expect(bench.panel(page).locator(".widget-tab .wb-step-now", has_text="prepare")).to_be_visible()
    assert notebook.ask("app.editor.running") is True
    idle(notebook)


def cancelled(page: Page, notebook: Notebook) -> None:
    idle(notebook)
    go_to(page, "3 Edit")
    press(page, "Run")
    notebook.wait_for("app.editor.running", True)
    press(page, "Cancel")
    expect(bench.panel(page).get_by_text("Cancelled here.").locator("visible=true")).to_be_visible()
    assert notebook.ask("[app.editor.running, app.editor.job.state]") == [False, "cancelled"]


def slid(page: Page, notebook: Notebook) -> None:
    notebook.execute("app.comparison.strength = 0.4\napp.comparison.strength = 0.5")  # in the browser too
    go_to(page, "4 Compare")
    slider = bench.panel(page).get_by_role("slider", name="Strength")
    bars = bench.panel(page).locator("svg[aria-label^='P(whole answer) after learn']")
    at = r"^P\(whole answer\) after learn at strength {:.2f}\."
    expect(bars).to_have_attribute("aria-label", re.compile(at.format(0.5)))
    shown: list[str] = []
    for key, value in (("Home", 0.0), ("End", 1.0)):
        slider.focus()
        slider.press(key)
        expect(bars).to_have_attribute("aria-label", re.compile(at.format(value)))
        assert notebook.ask("app.comparison.strength") == value
        shown.append(bars.text_content() or "")
    assert shown[0] != shown[1], "the bars are the same"


def chosen(page: Page, notebook: Notebook) -> None:
    idle(notebook)
    go_to(page, "1 Fact")
    for name in ("germany", "italy"):
        bench.fill(page, "Search", f"{name}-capital")
        # By its text: the list filtered for the fact before has one line, too.
        line = bench.panel(page).get_by_label("Facts", exact=True).locator("option")
        expect(line).to_have_text([re.compile(name.capitalize())])
        bench.panel(page).get_by_label("Facts", exact=True).select_option(index=0)
        cloze = bench.panel(page).get_by_text(f"The capital of {name.capitalize()} is").locator("visible=true")
        expect(cloze.first).to_be_visible()
        ids = "[app.chooser.fact.id, app.picker.fact.id, app.editor.fact.id]"
        notebook.wait_for(ids, [f"{name}-capital"] * 3)


def saved(page: Page, notebook: Notebook) -> None:
    notebook.execute("app._alert.value = ''")
    bench.unfold(page, "Session")
    bench.fill(page, "Folder", "kept")
    press(page, "Save")
    expect(bench.panel(page).get_by_text(re.compile("Done: Saved in ")).locator("visible=true")).to_be_visible()


def opened(page: Page, notebook: Notebook) -> None:
    idle(notebook)
    notebook.execute(
        "app.chooser.fact = 'france-capital'\napp.picker.selection = 'L23H4 L13MLP'\napp.save_session('to-open')\n"
        "app.chooser.fact = 'italy-capital'\napp.picker.selection = 'L2H2'\napp._alert.value = ''"
    )
    bench.unfold(page, "Session")
    bench.fill(page, "Folder", "to-open")
    press(page, "Open")
    expect(bench.panel(page).get_by_text("Opened france-capital: ").locator("visible=true")).to_be_visible()
    held = "[app.chooser.fact.id, app.picker.fact.id, app.editor.fact.id, str(app.picker.selection)]"
    assert notebook.ask(held) == ["france-capital"] * 3 + ["L23H4 L13MLP"]
    go_to(page, "2 Circuit")
    shown = bench.panel(page).get_by_role("button").filter(has_text=" ×", visible=True)
    expect(shown).to_have_text(["L23H4 ×", "L13MLP ×"])


def compared(page: Page, notebook: Notebook) -> None:
    """In a view of its own, which has no maps from before: they come when it is looked at, and again by the button."""
    notebook.execute("app._show_edit(None)\napp._made.pop('comparison')\napp.tab = 'chooser'\napp._show_edit(edit)")
    assert notebook.ask("[app.comparison.result, len(app.comparison.grids)]") == [None, 0]
    go_to(page, "4 Compare")
    titles = bench.panel(page).locator(".hg-title").locator("visible=true")
    expect(titles).to_have_text(["Before", "After learn", "After minus before"])
    notebook.wait_for("app.comparison.job is not None and app.comparison.job.state", "done")
    held = "[app.comparison.result is maps, len(app.comparison.grids), app.comparison.error]"
    assert notebook.ask(held) == [True, 3, None]
    notebook.execute("before = app.comparison.job")
    press(page, "Compare")
    notebook.wait_for("[app.comparison.job is not before, app.comparison.job.state]", [True, "done"])
    expect(bench.panel(page).get_by_text("done after").locator("visible=true")).to_be_visible()


def asked(page: Page, notebook: Notebook) -> None:
    """A question that was not asked before: an edit that is shown again keeps its answers."""
    notebook.execute("app._show_edit(None)\napp._show_edit(edit)")
    go_to(page, "4 Compare")
    notebook.execute("app.comparison.strength = 0.3")
    question = f"Which city ({notebook.ask('len(app.comparison.answers)')})?"
    field = bench.panel(page).get_by_label("Ask", exact=True).locator("visible=true")
    field.fill(question)
    field.press("Enter")
    table = bench.panel(page).locator("table").locator("visible=true").first
    row = [question, f"{question} base", f"{question} [0.3]"]
    expect(table.locator("tbody tr").first.locator("th, td")).to_have_text(row)
    expect(table.locator("thead th").last).to_have_text("after learn, strength 0.30")
    answers = (
        "[app.comparison.answers[-1].base, app.comparison.answers[-1].edited, app.comparison.answers[-1].strength]"
    )
    assert notebook.ask(answers) == [*row[1:], 0.3]


ASKER = "asker = app.comparison._asker\nreal_at = lambda: (app.comparison.stage, app.comparison.strength)\n"


def asked_by_enter(page: Page, notebook: Notebook) -> None:
    notebook.execute(f"{ASKER}n = len(app.comparison.answers)")
    go_to(page, "4 Compare")
    bench.panel(page).get_by_label("Ask", exact=True).locator("visible=true").press("Enter")
    notebook.wait_for("len(app.comparison.answers) - n", 1)


def asked_again(page: Page, notebook: Notebook) -> None:
    """A past question, at the strength of now."""
    asking = "app.comparison.strength = 0.3\napp.comparison.ask('Who?').wait()\napp.comparison.strength = 0.8"
    notebook.execute(ASKER + asking)
    go_to(page, "4 Compare")
    press(page, r"Who\?")
    cells = bench.panel(page).locator("table").locator("visible=true").first.locator("tbody tr").first.locator("th, td")
    expect(cells).to_have_text(["Who?", "Who? base", "Who? [0.8]"])


def scripted(page: Page, notebook: Notebook) -> None:
    notebook.execute("app._line.unfold(None)")
    script = bench.panel(page).locator(".wb-top pre", has_text="wb.load_model()")
    expect(script).to_have_count(0)
    bench.unfold(page, "Code")
    expect(script).to_be_visible()
    assert notebook.ask("[app._code.opened, app._code.source == app.code]") == [True, True]


def test_the_workbenchs_assertions_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(APP)
    mutants = [
        Mutant("slider", slid, ("model.save_changes();", "")),
        Mutant("the slider's key", slid, ('input.addEventListener("input", moved);', "")),
        Mutant(
            "probabilities by strength",
            slid,
            "app.comparison._show_probabilities = lambda: None",
            "del app.comparison._show_probabilities",
        ),
        Mutant("Run", started, "app.editor.run = lambda: None", "del app.editor.run"),
        Mutant("Cancel", cancelled, "app.editor.cancel = lambda: None", "del app.editor.cancel"),
        Mutant("Save", saved, "app._try = lambda action: None", "del app._try"),
        Mutant("Code", scripted, "app._line._pressed = lambda button, on: None", "del app._line._pressed"),
        Mutant("Compare", compared, "CompareView.run = lambda self: None", "del CompareView.run"),
        Mutant(
            "the maps of Compare",
            compared,
            "BeforeAfterMaps.show = lambda self, shown: None",
            "BeforeAfterMaps.show = real_show",
        ),
        Mutant("Ask", asked, "Asking.ask = lambda self, text=None: None", "Asking.ask = real_ask"),
        Mutant(
            "Enter in Ask",
            asked_by_enter,
            "asker._question.on_msg(asker._key, remove=True)",
            "asker._question.on_msg(asker._key)",
        ),
        Mutant(
            "answers of the edited model",
            asked,
            "real, asking.applied = asking.applied, lambda model, *more: nullcontext(model)",
            "asking.applied = real",
        ),
        Mutant(
            "answers at the slider's strength",
            asked,
            "real, asking.applied = asking.applied, lambda model, edit, stage, strength: real(model, edit, stage)",
            "asking.applied = real",
        ),
        Mutant("a past question", asked_again, "asker._at = lambda: ('learn', 0.3)", "asker._at = real_at"),
        Mutant(
            "Open",
            opened,
            "app._open_clicked = lambda: 'Opened france-capital: 0 maps, 2 picked, its edit.'",
            "del app._open_clicked",
        ),
        Mutant(
            "another fact",
            chosen,
            "real, app.chooser._callbacks = app.chooser._callbacks, []",
            "app.chooser._callbacks = real",
        ),
    ]
    assert survivors(page, notebook, mutants, "slider.js", ["app.comparison.controls['Strength']"], ".wb-slider") == []
