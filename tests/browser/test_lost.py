"""A kernel that is killed in the middle of an edit, and a page that sleeps or loses its connection for a while.

On a tiny model. Nothing that was run is lost, nothing on screen says otherwise, and clicks reach Python again.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Notebook
from tests.browser.mutants import LONG, with_line
from tests.browser.profile import SPOILED
from tests.browser.test_grid import click
from tests.browser.test_reopened import LOST
from tests.browser.test_workbench import button, go_to, panel, press, unfold
from workbench.files.session import load_session
from workbench.widgets.shared.javascript import STATIC, read_module

pytestmark = pytest.mark.browser

Run = Callable[..., Notebook]

# Waits in the middle of its first phase until it is cancelled: here nobody does.
APP = """from tests.helpers.panels import FACTS, QUICK, tiny
import workbench as wb
from workbench.widgets.edit import panel as edit_panel
def held(*given, cancel, **options):
    cancel.wait()
app = wb.Workbench(tiny(), FACTS, fact="france-capital", autosave="night")
app.editor.recipe = QUICK
app.selection = "L1H4 L1MLP"
app"""
ENDED = "What was running has ended with it."
GOES_ON = ".wb-panel progress, .wb-panel .wb-busy, .wb-panel .wb-alert:has-text('Edit running')"
GRID = """import threading, time
import numpy as np
from ipywidgets import Button
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.shared.panel import Panel

class Small(Panel):
    def __init__(self):
        super().__init__()
        self.grid = HeatGrid(np.ones((30, 9)), rows=[f"L{i}" for i in range(30)], cols=[f"H{i}" for i in range(9)],
                             kind="head", naming="{row}{col}")
        self.button, self.pressed = Button(description="Press"), 0
        self.button.on_click(self.press)
        self._lay_out(self.button, self.grid)
    def press(self, _):
        self.pressed += 1
    def _picture(self):
        return self.grid.to_png()
    def __repr__(self):
        return "Small()"

small = Small()
def later(seconds, cells):
    def work():
        time.sleep(seconds)
        small.grid.selected = cells
    threading.Thread(target=work).start()
small"""
BEAT = """() => { window.longest = 0; let last = Date.now();
  setInterval(() => { const now = Date.now(); window.longest = Math.max(window.longest, now - last); last = now; },
              50); }"""
KERNEL = "jupyterapp.shell.currentWidget.context.sessionContext.session.kernel"
DROP = f"""() => {{ const kernel = {KERNEL}; window.statuses = [];
  kernel.connectionStatusChanged.connect((_, status) => window.statuses.push(status)); kernel._ws.close(); }}"""


def kill(notebook: Notebook) -> None:
    """As the system does where memory ends. JupyterLab says it in a dialog, which is closed."""
    notebook.page.evaluate(f"() => {{ {SPOILED} }}")  # it goes on to ask the kernel that was there before
    os.kill(notebook.ask("__import__('os').getpid()"), signal.SIGKILL)
    dialog = notebook.page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("died", timeout=LONG)
    dialog.get_by_role("button").last.click()


def test_a_kernel_killed_in_an_edit_loses_only_that_edit(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(APP)
    notebook.execute("app.editor.run().wait(); app.editor.recipe = QUICK; edit_panel.fit_and_evaluate = held")
    report = notebook.ask("app.report.summary().to_json()")
    edit = notebook.ask("app.edit.id")
    go_to(page, "3 Edit")
    expect(button(page, "Run")).to_be_enabled()
    press(page, "Run")
    expect(panel(page).locator(".wb-busy")).to_contain_text("Edit running")
    expect(page.locator(GOES_ON).locator("visible=true").first).to_be_visible()
    kill(notebook)
    expect(page.get_by_text(f"{LOST} {ENDED}").locator("visible=true")).to_have_count(1, timeout=LONG)
    for tab in ("3 Edit", "4 Compare", "5 Probe"):
        go_to(page, tab)
        expect(page.locator(GOES_ON).locator("visible=true")).to_have_count(0)
    go_to(page, "3 Edit")
    expect(button(page, "Run")).to_have_attribute("aria-disabled", "true")

    (run,) = load_session(notebook.lab.folder / "night").runs
    assert (run.fact.id, run.edit.id, run.ended) == ("france-capital", edit, "done") and run.report is not None

    notebook.wait_until_ready()
    notebook.run_all()
    expect(page.get_by_text(LOST)).to_have_count(0)
    unfold(page, "Session")
    panel(page).get_by_label("Folder", exact=True).fill("night")
    press(page, "Open")
    notebook.wait_for("[run.edit.id for run in app.runs]", [edit])
    expect(panel(page).locator(".wb-top .wb-opener", has_text="Run 1 of 1")).to_be_visible()
    assert notebook.ask("app.report.summary().to_json()") == report
    go_to(page, "3 Edit")
    expect(panel(page).get_by_text("Evaluation", exact=True).locator("visible=true").first).to_be_visible()
    expect(page.locator(GOES_ON).locator("visible=true")).to_have_count(0)


def test_the_assertions_about_a_killed_kernel_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(APP)
    notebook.execute("edit_panel.fit_and_evaluate = held")
    css = (STATIC / "connection.css").read_text(encoding="utf-8")
    ended = 'const more = ended ? " What was running has ended with it." : "";'
    source = with_line(read_module("connection.js"), ended, 'const more = "";')
    rules = [line for line in css.splitlines() if ".wb-running" in line]
    assert len(rules) == 1
    broken = {"_esm": source, "_css": css.replace(rules[0], "")}
    notebook.execute(
        f"from workbench.widgets.shared.connection import Connection\nimport ipywidgets\n"
        f"for one in [w for w in ipywidgets.Widget.widgets.values() if isinstance(w, Connection)]:\n"
        f"    one._esm, one._css = {broken['_esm']!r}, {broken['_css']!r}"
    )
    page.wait_for_timeout(500)
    go_to(page, "3 Edit")
    press(page, "Run")
    expect(panel(page).locator(".wb-busy")).to_contain_text("Edit running")
    kill(notebook)
    expect(page.get_by_text(LOST).locator("visible=true")).to_have_count(1, timeout=LONG)
    assert page.get_by_text(ENDED).count() == 0
    assert page.locator(GOES_ON).locator("visible=true").count() > 0


def works(page: Page, notebook: Notebook, pressed: int, cell: tuple[int, int], before: list[list[int]]) -> None:
    """Clicks reach Python, and what it answers is drawn."""
    expect(page.get_by_text(LOST)).to_have_count(0)
    expect(page.locator(".hg-badge").locator("visible=true")).to_have_count(0)
    page.get_by_role("button", name="Press").click()
    notebook.wait_for("small.pressed", pressed)
    click(page, *cell)
    notebook.wait_for("small.grid.selected", sorted([*before, list(cell)]))
    expect(page.locator(".hg-status").first).to_contain_text(f"{len(before) + 1} heads selected")


def test_a_page_that_sleeps_wakes_up_whole(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(GRID)
    expect(page.locator(".hg-status").first).to_contain_text("0 heads selected")
    page.evaluate(BEAT)
    notebook.execute("later(1.5, [[3, 4], [5, 6]])")
    browser = page.context.new_cdp_session(page)
    browser.send("Debugger.enable")
    browser.send("Debugger.pause")  # nothing of the page runs; a frozen tab goes on in headless Chromium
    time.sleep(3)
    browser.send("Debugger.resume")
    browser.send("Debugger.disable")
    expect(page.locator(".hg-status").first).to_contain_text("2 heads selected")
    assert page.evaluate("() => window.longest") > 2000, "it slept"
    works(page, notebook, 1, (7, 1), [[3, 4], [5, 6]])


def test_a_page_that_lost_its_connection_takes_up_what_it_missed(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(GRID)
    click(page, 2, 2)
    notebook.wait_for("small.grid.selected", [[2, 2]])
    notebook.execute("later(0.5, [[3, 4], [5, 6]])")
    page.evaluate(DROP)
    page.wait_for_function("() => window.statuses.includes('connecting')")
    page.wait_for_function("() => window.statuses.at(-1) === 'connected'", timeout=30_000)
    expect(page.locator(".hg-status").first).to_contain_text("2 heads selected", timeout=10_000)
    works(page, notebook, 1, (7, 1), [[3, 4], [5, 6]])


def test_the_assertions_about_a_deaf_widget_can_fail(run_notebook: Run, page: Page) -> None:
    """A kernel that sends what comes for a widget to a thread that is gone hears no click."""
    notebook = run_notebook(GRID)
    expect(page.locator(".hg-status").first).to_contain_text("0 heads selected")
    notebook.execute("small.grid.comm._reply_subshell_for = lambda data, default: 'gone'")
    click(page, 7, 1)
    expect(page.locator(".hg-banner").first).to_contain_text("has not reached Python")
    with pytest.raises(AssertionError):
        notebook.wait_for("small.grid.selected", [[7, 1]])
