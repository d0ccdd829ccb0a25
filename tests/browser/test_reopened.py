"""A panel without its kernel, in a real JupyterLab: shut down, opened again, and exported; whole, and said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import Notebook
from tests.browser.mutants import with_line
from tests.browser.test_grid import click
from workbench.plots.notebook_page import export_notebook
from workbench.widgets.shared.javascript import STATIC, read_module

pytestmark = pytest.mark.browser

Run = Callable[..., Notebook]

CELL = """
import numpy as np
from tqdm.auto import tqdm
from ipywidgets import HTML, Button, Dropdown, HBox, Tab, Text, VBox
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.shared import markup
from workbench.widgets.shared.connection import Connection
from workbench.widgets.shared.panel import Panel

class Inner(Panel):
    def __init__(self):
        super().__init__()
        self.lines = HTML(markup.panel_title("Inner"))
        self._lay_out(self.lines, *(HBox([Button(description=f"B{i}"), Text(description=f"T{i}")]) for i in range(3)))
    def _picture(self):
        return b""

class Outer(Panel):
    def __init__(self):
        super().__init__()
        values = np.random.default_rng(0).normal(size=(30, 9))
        self.grid = HeatGrid(values, rows=[f"L{i}" for i in range(30)], cols=[f"H{i}" for i in range(9)], title="Heads",
                             unit="logits", kind="head", naming="{row}{col}")
        self.other = HeatGrid(values[:4], rows=range(4), cols=range(9), title="Small")
        self.menu = Dropdown(description="Site", options=["resid", "mlp"])
        self.rate = HTML()
        self.inner = Inner()
        self.run = Button(description="Run")
        self.pressed = 0
        self.run.on_click(self.count)
        first = VBox([HBox([self.grid, self.other]), self.menu, self.run])
        self._lay_out(Tab([first, VBox([self.inner, self.rate])], titles=["1 Circuit", "2 Edit"]))
    def count(self, _):
        self.pressed += 1
    def _picture(self):
        return self.grid.to_png()
    def __repr__(self):
        return "Outer()"

for _ in tqdm(range(3), desc="Loading"):
    pass
outer = Outer()
connection = outer.children[0]
outer
"""
LOST = "Not connected to a kernel: run the cell again to use this panel."
# Elements of panels before which JupyterLab draws the icon of a broken link.
ICONS = """() => [...document.querySelectorAll('.wb-panel, .wb-panel *')].filter((one) => {
  const before = getComputedStyle(one, '::before');
  return /Font ?Awesome/.test(before.fontFamily) && before.content !== 'none' && before.display !== 'none';
}).length"""
RULE = ".wb-panel.jupyter-widgets-disconnected::before"


def start(run_notebook: Run, page: Page) -> Notebook:
    notebook = run_notebook(CELL)
    expect(page.locator(".hg-status").first).to_contain_text("0 heads selected")
    return notebook


def says_it_once(page: Page, seconds: float = 5) -> None:
    expect(page.get_by_text(LOST).locator("visible=true")).to_have_count(1, timeout=1000 * seconds)
    expect(page.locator(".hg-badge").locator("visible=true")).to_have_count(0)


def test_a_notebook_that_is_opened_again_is_whole_greyed_and_exported_as_it_was(
    run_notebook: Run, page: Page, context: BrowserContext
) -> None:
    notebook = start(run_notebook, page)
    click(page, 5, 2)
    click(page, 7, 7)
    notebook.wait_for("outer.grid.selected", [[5, 2], [7, 7]])
    page.get_by_role("combobox", name="Site").select_option("mlp")
    notebook.wait_for("outer.menu.value", "mlp")
    notebook.execute("outer.rate.value = markup.table(['question', 'rate'], [['held out', '0.937']], 'Rates')")
    value = notebook.ask("f'{outer.grid.values[5, 2]:.2f}'.replace('-', '−')")
    notebook.save()
    file = notebook.lab.folder / notebook.path
    exported = export_notebook(file)

    reopened = notebook.reopened(context)
    again = reopened.page
    expect(again.locator(".hg-status").first).to_contain_text("2 heads selected")
    says_it_once(again)
    assert again.evaluate(ICONS) == 0
    run = again.get_by_role("button", name="Run", exact=True)
    expect(run).to_have_css("opacity", "0.55")
    expect(run).to_have_attribute("aria-disabled", "true")
    left = [again.get_by_role("tab", name=name).bounding_box() for name in ("1 Circuit", "2 Edit")]
    assert all(left)
    again.get_by_role("tab", name="2 Edit").click()
    expect(again.get_by_text("0.937")).to_be_visible()
    says_it_once(again)
    edges = {again.get_by_role("button", name=f"B{i}").bounding_box()["x"] for i in range(3)}  # pyright: ignore[reportOptionalSubscript]
    assert len(edges) == 1, "columns are not pushed out of line"
    assert not Axe().run(again, context=".wb-panel").response["violations"]

    # What was exported before the kernel went is what was on screen
    again.set_content(exported.read_text(encoding="utf-8"))
    drawn = again.locator(".wb-saved")
    expect(drawn).to_have_count(1)  # and no bar of tqdm
    expect(drawn.get_by_role("heading", level=2)).to_have_text(["1 Circuit", "2 Edit"])
    expect(drawn.locator(".wbs-note").first).to_have_text("2 heads selected: L5H2, L7H7")
    title = drawn.locator("svg.wb-map").first.locator("title").nth(5 * 9 + 2)
    assert title.text_content() == f"L5H2: {value.rstrip('0')} logits" or value in str(title.text_content())
    expect(drawn.locator(".wbs-field")).to_have_text(["Site mlp"])
    expect(drawn.get_by_role("cell", name="0.937")).to_be_visible()
    assert "Loading" not in drawn.inner_text() and again.locator("button, input, select, script").count() == 0
    assert not Axe().run(again, context=".wb-saved").response["violations"]


def test_a_kernel_that_is_shut_down_is_noticed_and_a_new_one_too(run_notebook: Run, page: Page) -> None:
    notebook = start(run_notebook, page)
    run = page.get_by_role("button", name="Run", exact=True)
    run.click()
    notebook.wait_for("outer.pressed", 1)
    expect(page.get_by_text(LOST)).to_have_count(0)
    notebook.restart_kernel()
    says_it_once(page)
    assert page.evaluate(ICONS) == 0
    notebook.run_all()
    expect(page.get_by_text(LOST)).to_have_count(0)
    run.click()
    notebook.wait_for("outer.pressed", 1)

    notebook.shut_down_kernel()
    says_it_once(page)
    expect(run).to_have_attribute("aria-disabled", "true")
    expect(run).to_have_css("pointer-events", "none")
    menu = page.get_by_role("combobox", name="Site")
    menu.focus()
    page.keyboard.press("ArrowDown")
    expect(menu).to_have_value("resid")
    click(page, 5, 2)
    expect(page.locator(".hg-banner").first).to_contain_text("not connected")  # a click never looks accepted


def test_the_assertions_about_a_lost_kernel_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = start(run_notebook, page)
    css = (STATIC / "connection.css").read_text(encoding="utf-8")
    assert css.count(RULE) == 1
    live = "live: () => (!layout || layout.comm_live !== false) && holder[BORN] === kernel.deaths,"
    deaf = with_line(read_module("connection.js"), live, "live: () => !layout || layout.comm_live !== false,")
    changes: dict[str, Any] = {"css": css.replace(RULE, ".none"), "esm": deaf}
    (notebook.lab.folder / "broken.py").write_text(f"css = {changes['css']!r}\nesm = {changes['esm']!r}\n")
    notebook.execute("import broken; connection._css = broken.css")
    notebook.save()
    notebook.restart_kernel()
    expect(page.get_by_text(LOST).locator("visible=true")).to_have_count(1)
    assert page.evaluate(ICONS) > 0
    notebook.run_all()
    notebook.execute("import broken\nfor one in (connection, outer.inner.children[0]): one._esm = broken.esm")
    page.wait_for_timeout(500)
    notebook.shut_down_kernel()
    page.wait_for_timeout(2500)
    assert page.get_by_text(LOST).locator("visible=true").count() == 0
