"""Notebook 03 as it is in the repository: opened by somebody else, looked at before anything is run, then used.

JupyterLab draws no widget of a notebook that it does not trust, and every notebook from elsewhere is one: first the
pictures are seen, then, once it is trusted, what the panels stored, then the panels themselves.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Lab, Notebook
from tests.browser.test_picker import click
from tests.browser.test_workbench import drawn

pytestmark = [pytest.mark.browser, pytest.mark.model]

COMMITTED = Path(__file__).parents[2] / "notebooks" / "03_click_a_circuit.ipynb"
LOST = "Not connected to a kernel: run the cell again to use this panel."
PICKER, PICKED = 3, 9  # the cells of the picker and of what was picked; counted from 0, with the texts


def test_the_committed_tour_shows_what_it_stored_and_can_be_clicked(page: Page, lab: Lab) -> None:
    stored = nbformat.read(COMMITTED, as_version=4).cells[PICKED].outputs[0].text.splitlines()[0].split()
    n_heads = sum("H" in name for name in stored)
    shutil.copy(COMMITTED, lab.folder / COMMITTED.name)
    notebook = Notebook(page, lab, COMMITTED.name)
    notebook.open()
    outputs = page.locator(".jp-OutputArea-output")
    pictures = outputs.locator("img[src^='data:image/png']")
    expect(pictures).to_have_count(3)
    assert min(pictures.evaluate_all("(all) => all.map((one) => one.naturalWidth)")) > 400
    panels = page.locator(".jp-OutputArea-output > .wb-panel")
    expect(panels).to_have_count(0)

    notebook.wait_for_stored_widgets()
    # Trusted, as the question of JupyterLab's command palette does it
    page.evaluate("() => { jupyterapp.commands.execute('notebook:trust'); }")
    page.locator(".jp-Dialog").get_by_role("button", name=re.compile("Trust|Yes")).click()
    expect(panels).to_have_count(3)
    expect(pictures).to_have_count(0)
    picker, edit, comparison = (panels.nth(i) for i in range(3))

    # Not run: every panel says so, and shows what it stored
    for one in (picker, edit, comparison):
        one.scroll_into_view_if_needed()
        expect(one.get_by_text(LOST).locator("visible=true")).to_have_count(1)
        expect(one.get_by_role("button").locator("visible=true").first).to_have_css("opacity", "0.55")
    assert notebook.ask("'picker' in globals()") is False
    expect(picker.locator(".hg-badge").nth(1)).to_have_js_property("hidden", False)
    expect(picker.locator(".hg-status").nth(1)).to_have_text(f"{n_heads} heads selected")
    chips = picker.get_by_role("button").filter(has_text=" ×")
    expect(chips).to_have_text([f"{name} ×" for name in stored])
    expect(edit.locator("caption", has_text="What it says to held-out questions")).to_be_visible()
    expect(edit.locator("td", has_text="Rome").first).to_be_visible()
    expect(edit.locator("svg[role=img]")).to_have_count(3)
    expect(comparison.locator("svg[aria-label^='P(whole answer) after learn at strength 1.00']")).to_be_visible()
    expect(comparison.locator(".hg-title")).to_have_text(["Before", "After learn", "After minus before"])
    # Trace, heads and MLPs of the picker; before, after and the difference: from what was stored, without a kernel
    assert drawn(page) == 6

    # Its first cells are run, up to the picker
    page.evaluate("(index) => { jupyterapp.shell.currentWidget.content.activeCellIndex = index; }", PICKER + 1)
    notebook.command("notebook:run-all-above")
    notebook.wait_for("[str(c) for c in picker.selection]", [])
    picker.scroll_into_view_if_needed()
    expect(picker.get_by_text(LOST)).to_have_count(0)
    expect(picker.locator(".hg-badge").nth(1)).to_have_js_property("hidden", True)
    expect(picker.locator(".hg-status").nth(1)).to_have_text("0 heads selected")
    click(page, "Heads", 10, 5)
    expect(chips).to_have_text(["L10H5 ×"])
    notebook.wait_for("[str(c) for c in picker.selection]", ["L10H5"])
    expect(edit.get_by_text(LOST).locator("visible=true")).to_have_count(1)  # its cell was not run
