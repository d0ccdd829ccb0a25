"""A sweep in a real JupyterLab: run it, read its average as maps, and go from a cell to the facts that make it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Notebook, settled_box
from tests.browser.mutants import Mutant, survivors
from tests.browser.test_workbench import cut, press, violations

pytestmark = pytest.mark.browser

Run = Callable[..., Notebook]

PANEL = """
import workbench as wb
from tests.helpers.panels import FACTS, tiny
from tests.unit.test_picker_averages import maps
model = tiny()
panel = wb.SweepPanel(maps, FACTS, out="swept", model=model, pool=FACTS)
panel
"""
AVERAGE = """
import workbench as wb
from tests.helpers.panels import FACTS, tiny
from tests.unit.test_picker_averages import maps
model = tiny()
results = wb.sweep(maps, FACTS, out="averaged", model=model, pool=FACTS, progress=False)
picker = wb.average_picker(model, results)
bars = picker.behind.bars
picker
"""
SHOTS = os.environ.get("WORKBENCH_SHOTS", "")
"""A folder for screenshots; empty: none."""
TAB = """
import workbench as wb
from tests.helpers.panels import FACTS, FRANCE, tiny
app = wb.Workbench(tiny(), FACTS, fact=FRANCE, autosave=False)
app
"""
EMPTY = "picker.show_average(); picker.selection = ''; picker.heads.cursor = None; picker.behind.clear(picker.maps)"
CELL = "[picker.behind.cell and list(picker.behind.cell[1]), bars.title]"


def grid(page: Page) -> Locator:
    """The map of heads, between the trace and the MLPs."""
    return page.locator(".wb-panel .hg-root").nth(1)


def click_head(page: Page, layer: int, head: int) -> None:
    box = settled_box(grid(page).locator(".hg-cells"))
    page.mouse.click(box["x"] + (head + 0.5) * box["width"] / 6, box["y"] + (layer + 0.5) * box["height"] / 3)


def fact_row(page: Page, id: str) -> Locator:
    return page.get_by_role("option", name=re.compile(f"^{id},"))


def cell_clicked(page: Page, notebook: Notebook) -> None:
    """A click on a cell lists its facts, by value, with the interval of their mean."""
    notebook.execute(EMPTY)
    expect(page.get_by_text("Click a cell to list the facts that make it.")).to_be_visible()
    click_head(page, 1, 3)
    notebook.wait_for(CELL, [[1, 3], "Facts behind L1H3"])
    expect(page.get_by_text(re.compile(r"L1H3 is .* \(95% interval .* to .*\), a mean over 5 facts"))).to_be_visible()
    names = notebook.ask("list(wb.facts_of_cell(picker.maps['heads'], (1, 3)))")
    rows = page.locator(".bl-root", has_text="Facts behind L1H3").locator(".bl-row")
    expect(rows).to_have_count(5)
    for i, name in enumerate(names):
        expect(rows.nth(i)).to_contain_text(name)


def by_keyboard(page: Page, notebook: Notebook) -> None:
    """The list follows the cursor of the arrow keys too."""
    notebook.execute(EMPTY)
    click_head(page, 1, 3)
    notebook.wait_for(CELL, [[1, 3], "Facts behind L1H3"])
    page.keyboard.press("ArrowRight")
    notebook.wait_for(CELL, [[1, 4], "Facts behind L1H4"])
    expect(page.get_by_text("Facts behind L1H4").first).to_be_visible()


def fact_opened(page: Page, notebook: Notebook) -> None:
    """A click on a fact shows its own maps, those of the sweep, at once."""
    notebook.execute(EMPTY)
    click_head(page, 1, 3)
    fact_row(page, "italy-capital").click()
    expect(page.get_by_text("The maps of italy-capital alone.")).to_be_visible()
    expect(fact_row(page, "italy-capital")).to_have_attribute("aria-selected", "true")
    notebook.wait_for("[picker.fact.id, picker.job is None]", ["italy-capital", True])
    same = "bool((picker.maps['heads'].values == results['italy-capital']['head'].values).all())"
    assert notebook.ask(same)


def led_back(page: Page, notebook: Notebook) -> None:
    notebook.execute(EMPTY)
    click_head(page, 1, 3)
    fact_row(page, "italy-capital").click()
    notebook.wait_for("isinstance(picker.fact, wb.Fact)", True)
    page.get_by_role("button", name="Back to the average").click()
    notebook.wait_for("[len(picker.fact), picker.maps['heads'].n, bars.title]", [5, 5, "Facts behind L1H3"])
    expect(page.get_by_role("button", name="Back to the average")).to_be_hidden()


def test_from_a_cell_to_its_facts_and_back(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(AVERAGE)
    for check in (cell_clicked, by_keyboard, fact_opened, led_back):
        check(page, notebook)
    notebook.execute(EMPTY)
    click_head(page, 1, 3)
    expect(fact_row(page, "italy-capital")).to_be_visible()
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.theme(theme)
        assert not violations(page) and not cut(page)
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/average-{theme.split()[-1]}.png", full_page=True)


def test_a_sweep_is_run_and_its_average_read(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(PANEL)
    press(page, "Run")
    expect(page.get_by_text("Average so far")).to_be_visible()
    notebook.wait_for("[len(panel.results), panel.busy]", [5, False])
    page.get_by_role("button", name="Show the average as maps").click()
    expect(page.get_by_text("Click a cell to list the facts that make it.")).to_be_visible()
    assert notebook.ask("panel.picker.maps['heads'].n") == 5
    click_head(page, 2, 1)
    expect(page.get_by_text("Facts behind L2H1").first).to_be_visible()
    if SHOTS:
        for theme in ("JupyterLab Dark", "JupyterLab Light"):
            notebook.theme(theme)
            page.screenshot(path=f"{SHOTS}/panel-{theme.split()[-1]}.png", full_page=True)


def test_the_tab_of_the_workbench_sweeps(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(TAB)
    page.get_by_role("tab", name="7 Sweep").click()
    page.get_by_label("Asked as").select_option("cloze")
    page.get_by_label("At most").fill("3")
    page.get_by_label("At most").press("Enter")
    page.get_by_label("Results in").fill("from-the-tab")
    expect(page.get_by_text("3 facts")).to_be_visible()
    press(page, "Sweep")
    expect(page.get_by_text("over 3 items").last).to_be_visible()
    notebook.wait_for("[len(app.sweeping.panel.results), app.sweeping.panel.busy]", [3, False])
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.theme(theme)
        assert not violations(page) and not cut(page)
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/tab-{theme.split()[-1]}.png", full_page=True)


TO_CURSOR = "this.actions.setCursor(this.press.cell);"
ARROW = "actions.setCursor(to);"


def test_the_assertions_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(AVERAGE)
    follows = "picker._linked._on_cell = picker._cell_chosen"
    mutants = [
        Mutant("the cursor of a click", cell_clicked, (TO_CURSOR, "")),
        Mutant("the cursor of a key", by_keyboard, (ARROW, "")),
        Mutant("the list follows", cell_clicked, "picker._linked._on_cell = lambda *cell: None", follows),
        Mutant(
            "the order of the list",
            cell_clicked,
            "bars._order = 'given'; from workbench.widgets.picker import behind; keep = behind.facts_of_cell; "
            "behind.facts_of_cell = lambda *given: dict(reversed(keep(*given).items()))",
            "bars._order = 'value'; behind.facts_of_cell = keep",
        ),
        Mutant(
            "open a fact",
            fact_opened,
            "opens = picker.behind._on_open; picker.behind._on_open = lambda id: None",
            "picker.behind._on_open = opens",
        ),
        Mutant(
            "its own maps",
            fact_opened,
            "own = picker.own_maps; picker.own_maps = lambda id: own('spain-capital')",
            "picker.own_maps = own",
        ),
        Mutant(
            "lead back",
            led_back,
            "back = picker.behind._on_back; picker.behind._on_back = lambda: None",
            "picker.behind._on_back = back",
        ),
    ]
    assert survivors(page, notebook, mutants, "grid/grid.js", ["picker.heads"], ".hg-root") == []
