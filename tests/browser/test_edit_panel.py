"""The edit panel in a real JupyterLab on a tiny model: fields, what stays, phases; and that these checks can fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Notebook
from tests.browser.mutants import Mutant, survivors
from tests.browser.test_workbench import button, cut, panel, press, sees, violations

pytestmark = [pytest.mark.browser]

Run = Callable[..., Notebook]
# A fit that waits where it is told to, so that phases can be looked at.
PANEL = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import threading, time
from dataclasses import replace
import workbench as wb
from tests.helpers.panels import FACTS, QUICK, tiny
from workbench.types.cancelling import Cancelled
from workbench.widgets.edit import panel as edit_panel, train_choice
from workbench.widgets.shared import run_panel
RunPanel, TrainChoice = run_panel.RunPanel, train_choice.TrainChoice
go, really = threading.Event(), edit_panel.fit_and_evaluate
go.set()
def held(*given, cancel, on_step, **options):
    def step(one):
        on_step(one)
        while one.step == 2 and not go.wait(0.02) and not cancel.is_set():
            pass
    return really(*given, cancel=cancel, on_step=step, **options)
edit_panel.fit_and_evaluate = held
fact = replace(FACTS[0], heldout=tuple(f"Which city is the capital of France? ({{i}})" for i in range(5)))
panel = wb.EditPanel(tiny(), fact, "L1H0 L2MLP", pool=FACTS, recipe=QUICK, max_controls=1)
gone = []
panel.on_go(lambda panel, where: gone.append(where))
panel.run().wait(60)
panel
"""


def hidden_tables(page: Page) -> list[str]:
    """Tables in sight with columns that only scrolling shows."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.wb-panel .wb-scroll')]
        .filter((one) => one.offsetParent && one.scrollWidth > one.clientWidth + 1)
        .map((one) => one.textContent.slice(0, 40))"""
    )


def fresh(notebook: Notebook) -> None:
    """No run goes on, and the settings are those of the last one."""
    notebook.execute("go.set()\npanel.job and panel.job.cancel()\npanel.recipe = QUICK")
    notebook.execute("panel.controls['Train'].value = 'picked'")
    notebook.wait_for("panel.busy", False)


def unfolded(page: Page, notebook: Notebook) -> None:
    fresh(notebook)
    notebook.execute("panel.controls['Advanced'].value = False")
    expect(panel(page).get_by_label("seed", exact=True)).to_be_hidden()
    press(page, "Advanced")
    expect(panel(page).get_by_label("seed", exact=True)).to_be_visible()


def answered(page: Page, notebook: Notebook) -> None:
    """A field answers at once, Run is off, and what is shown stays; Enter keeps what was typed."""
    unfolded(page, notebook)
    steps, rate = (panel(page).get_by_label(name, exact=True) for name in ("learn steps", "learning rate"))
    steps.fill("7")
    steps.press("Enter")
    notebook.wait_for("list(panel.recipe.stage_steps)", [3, 7])
    expect(steps).to_have_value("7")
    rate.fill("0")
    rate.press("Enter")
    expect(panel(page).locator(".wb-problem", has_text="Learning rate must be a number above 0, not 0.")).to_have_count(
        2
    )
    expect(button(page, "Run")).to_be_disabled()
    expect(panel(page).locator(".wb-verdict")).to_be_visible()
    rate.fill("0.05")
    rate.press("Enter")
    expect(button(page, "Run")).to_be_enabled()


def marked(page: Page, notebook: Notebook) -> None:
    """Results say that the settings have changed."""
    unfolded(page, notebook)
    expect(panel(page).locator(".wb-changed")).to_have_count(0)
    steps = panel(page).get_by_label("learn steps", exact=True)
    steps.fill("9")
    steps.press("Tab")
    expect(panel(page).locator(".wb-changed")).to_contain_text("steps 3 + 9 steps, was 3 + 4 steps")


def followed(page: Page, notebook: Notebook) -> None:
    """The phase that goes on is named; the last results stay under it, also when it is cancelled."""
    fresh(notebook)
    held = notebook.ask("panel.edit.id")
    notebook.execute("go.clear()")
    expect(button(page, "Cancel")).to_have_count(0)
    press(page, "Run")
    now = panel(page).locator(".wb-step-now")
    expect(now).to_contain_text("unlearn")
    expect(now).to_contain_text("2 of 3")
    notebook.wait_for("panel.phase_words", "unlearn 2 of 3")
    expect(panel(page).locator(".wb-verdict")).to_be_visible()
    press(page, "Cancel")
    sees(page, "The run after it was cancelled: these results are kept.", 10)
    assert notebook.ask("panel.edit.id") == held
    expect(panel(page).locator(".wb-steps")).to_have_count(0)


def defaulted(page: Page, notebook: Notebook) -> None:
    fresh(notebook)
    sees(page, "Default for comparison:", 10)
    press(page, "Use the default")
    notebook.wait_for("panel.selection is None", True)
    expect(button(page, "Use the default")).to_have_count(0)


def led_on(page: Page, notebook: Notebook) -> None:
    notebook.execute("gone.clear()")
    press(page, "Probe")
    notebook.wait_for("gone", ["probing"])


def test_the_edit_panel_and_that_its_assertions_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(PANEL)
    notebook.execute("panel.planner.run().wait(60)")
    expect(panel(page).locator("caption", has_text="How far it reaches")).to_be_visible()
    for theme, width in (("JupyterLab Light", 1100), ("JupyterLab Dark", 1500)):
        notebook.theme(theme)
        page.set_viewport_size({"width": width, "height": 1000})
        expect(panel(page).locator(".wb-verdict")).to_be_visible()
        assert not cut(page) and not violations(page)
        assert not hidden_tables(page), "there is room for all columns"
        sizes = page.evaluate(
            "() => [...new Set([...document.querySelectorAll('.wb-panel svg text')].map((t) => {"
            " const drawn = t.getBoundingClientRect(); return getComputedStyle(t).fontSize; }))]"
        )
        assert sizes == ["12px"], "the charts' type does not grow with the window"
    notebook.execute("panel.planner.forget()")
    seen = "(one) => one.offsetParent && one.textContent"
    tips = page.evaluate(
        f"() => [...document.querySelectorAll('.wb-panel [title]')].filter({seen}).map((one) => one.title)"
    )
    assert len(tips) > 5 and not [tip for tip in tips if re.fullmatch(r"(null|undefined)?", tip)]
    mutants = [
        Mutant("Advanced", unfolded, "panel.settings.controls._unfold = lambda: None",
               "del panel.settings.controls._unfold\npanel.settings.controls._unfold()"),
        Mutant("fields", answered, "panel._recheck = lambda: None", "del panel._recheck"),
        Mutant("the mark", marked, "panel._mark.compare = lambda now: None", "del panel._mark.compare"),
        Mutant("phases", followed, "panel._run_progress.draw = lambda: None", "del panel._run_progress.draw"),
        Mutant("what stays", followed, "real = panel._order\n"
               "panel._order = lambda: (panel._clear(), real())[1]", "del panel._order\ngo.set()\n"
               "while panel.busy:\n    time.sleep(0.05)\npanel.run().wait(60)"),
        Mutant("the default", defaulted, "TrainChoice.use_default, real = lambda self: None, TrainChoice.use_default",
               "TrainChoice.use_default = real"),
        Mutant("the way on", led_on, "leads, panel._leads = panel._leads, []", "panel._leads = leads"),
    ]  # fmt: skip
    assert survivors(page, notebook, mutants, "connection.js", [], ".wb-panel") == []
