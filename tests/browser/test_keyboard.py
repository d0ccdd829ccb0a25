"""Everything can be reached and used by keyboard, and no key meant for a panel reaches the notebook around it.

In command mode JupyterLab binds the arrows and most letters (x cuts a cell, d d deletes it, 0 0 restarts the kernel)
for whatever has the focus, unless text can be typed into it: a list, a button and a tab would lose their keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Notebook
from tests.browser.test_workbench import FACTS, WAITING_FIT, button, panel, sees

pytestmark = [pytest.mark.browser, pytest.mark.model]

Run = Callable[..., Notebook]

APP = f"""{FACTS}
{WAITING_FIT}
from workbench.widgets.shared import markup
app = wb.Workbench(model, facts, fact="germany-capital")
app.picker.compute = lambda *units: None
app
"""
# In command mode: insert, cut, copy, paste, delete, undo, merge, change to Markdown or raw, and ask to restart.
TYPED = ("x", "d", "d", "a", "b", "c", "v", "z", "y", "m", "r", "Shift+M", "Shift+ArrowDown", "0", "0", "i", "i")


def cells(page: Page) -> dict[str, Any]:
    """The notebook's cells with their types, the active one, how many are selected, and its mode."""
    return page.evaluate(
        """() => {
        const { content } = jupyterapp.shell.currentWidget;
        return {
          cells: content.widgets.map((one) => `${one.model.type}: ${one.model.sharedModel.getSource()}`),
          active: content.activeCellIndex,
          selected: content.selectedCells.length,
          dialogs: document.querySelectorAll('.jp-Dialog').length,
        }; }"""
    )


def tab_to(page: Page, target: Locator, key: str = "Tab") -> None:
    """Press Tab until it has the focus, as somebody without a mouse does."""
    for _ in range(40):
        if target.evaluate("(node) => node === document.activeElement"):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{key} does not reach {target}")


def test_the_whole_workbench_by_keyboard(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook("first = 1", APP, "last = 3")
    panel(page).get_by_label("Search", exact=True).click()
    before = cells(page)
    assert (len(before["cells"]), before["active"]) == (3, 1)

    # A list and a dropdown: the arrows choose, letters do nothing to the notebook
    facts = panel(page).get_by_label("Facts", exact=True)
    tab_to(page, facts)
    page.keyboard.press("ArrowDown")
    notebook.wait_for("[app.chooser.fact.id, app.picker.fact.id]", ["italy-capital"] * 2)
    sees(page, "The capital of Italy is Rome")
    page.keyboard.press("ArrowUp")
    notebook.wait_for("app.chooser.fact.id", "germany-capital")
    for key in TYPED:
        page.keyboard.press(key)
    assert cells(page) == before
    relation = panel(page).get_by_label("Relation", exact=True).first
    tab_to(page, relation, "Shift+Tab")
    page.keyboard.press("ArrowDown")
    notebook.wait_for("app.chooser.controls['Relation'].value", notebook.ask("facts.relations[0]"))
    page.keyboard.press("Home")
    notebook.wait_for("app.chooser.controls['Relation'].value", "all relations")
    assert cells(page) == before

    # A wide table scrolls
    wide = "markup.table([f'a column {i}' for i in range(40)], [range(40)], 'Wide')"
    notebook.execute(f"app._alert.value = {wide}")
    table = panel(page).get_by_role("region", name="Wide")
    tab_to(page, table)
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.wb-scroll[aria-label=Wide]').scrollLeft > 0")
    for key in TYPED:
        page.keyboard.press(key)
    assert cells(page) == before
    notebook.execute("app._alert.value = ''")

    # To another tab, and its buttons
    tabs = panel(page).get_by_role("tab")
    tab_to(page, tabs.nth(0), "Shift+Tab")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    notebook.wait_for("app.tab", "editor")
    run, cancel = button(page, "Run"), button(page, "Cancel")
    expect(run).to_be_disabled()  # nothing is picked, and the other choice is to be reached first
    tab_to(page, button(page, "Use the default"))
    page.keyboard.press("Enter")
    expect(run).to_be_enabled()
    tab_to(page, run)
    page.keyboard.press("x")
    page.keyboard.press("Enter")
    expect(panel(page).locator(".widget-tab .wb-step-now", has_text="prepare")).to_be_visible()
    notebook.wait_for("app.editor.running", True)
    tab_to(page, cancel)
    page.keyboard.press("Space")
    sees(page, "Cancelled here.", 10)
    assert notebook.ask("[app.editor.running, app.editor.job.state]") == [False, "cancelled"]
    assert cells(page) == before


SMALL = """
import numpy as np
from ipywidgets import Button, VBox
from workbench.widgets.shared.connection import Connection
from workbench.widgets.grid.grid import HeatGrid
made = lambda: HeatGrid(np.ones((4, 3)), rows="abcd", cols="xyz")
alone, inside, button = made(), made(), Button(description="A button")
panel = VBox([Connection(), inside, button]).add_class("wb-panel")
VBox([alone, panel])
"""


def test_a_map_alone_and_in_a_panel_by_keyboard(run_notebook: Run, page: Page) -> None:
    """The map's own keys, beside the panel's; and the keys that are the notebook's in a panel too."""
    notebook = run_notebook("first = 1", SMALL, "last = 3")
    before: dict[str, Any] = {}
    for i, name in enumerate(("alone", "inside")):
        page.locator(".hg-cells").nth(i).click(position={"x": 5, "y": 5})
        notebook.wait_for(f"{name}.selected", [[0, 0]])
        before = cells(page)
        assert before["active"] == 1
        for key in ("ArrowDown", "ArrowRight", "Space"):
            page.keyboard.press(key)
        notebook.wait_for(f"{name}.selected", [[0, 0], [1, 1]])
        for key in TYPED:
            page.keyboard.press(key)
        page.keyboard.press("Escape")
        assert cells(page) == before, name

    prompt = page.locator(".jp-InputArea-prompt").nth(1)
    expect(prompt).to_have_text("[2]:")
    for key, count, active in (("Control+Enter", 4, 1), ("Shift+Enter", 5, 2)):
        page.get_by_role("button", name="A button").focus()
        page.keyboard.press(key)
        expect(prompt).to_have_text(f"[{count}]:")
        expect(page.locator(".hg-cells")).to_have_count(2)
        after = cells(page)
        assert (after["cells"], after["active"]) == (before["cells"], active)
