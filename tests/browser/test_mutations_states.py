"""The assertions about a kernel restart, a reopened notebook, the dark theme and a panel's keys can fail.

A restart takes the widgets out of the kernel, so the sources of the two widgets here are read from files. One pass with
the real ones, in which every assertion holds, and one with all of them broken, in which none may. See mutants.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Error, Page, expect

from tests.browser.conftest import Lab, Notebook
from tests.browser.mutants import LONG, SHORT, patience, with_line
from tests.browser.test_grid import GRID, NAN, click, sees
from workbench.widgets.shared.javascript import read_module

pytestmark = pytest.mark.browser

Run = Callable[..., Notebook]

# By entry point, the lines that are broken and what they become
BROKEN = {
    "grid/grid.js": (
        (
            "colorOf: ramp(night ? dark : light, low),",
            "colorOf: ramp(light, low),",
        ),
        ("this.page.badge.hidden = connected;", "this.page.badge.hidden = true;"),
    ),
    "connection.js": (
        ("if (!isNotebooks(event)) event.stopPropagation();", ""),
        ('line.classList.toggle("wb-lost", lost);', ""),
    ),
}
CELL = f"""{GRID.rstrip().removesuffix("grid")}
from pathlib import Path
from ipywidgets import Button, VBox
from workbench.widgets.shared.connection import Connection
connection = Connection()
for widget, name in ((grid, "grid.js"), (connection, "connection.js")):
    widget._esm = Path(name).read_text(encoding="utf-8")
VBox([connection, Button(description="A button"), grid]).add_class("wb-panel")
"""


def dark(page: Page) -> None:
    page.wait_for_function(
        """() => {
          const canvas = document.querySelector('.hg-picture'), cells = document.querySelector('.hg-cells');
          const bar = canvas.getContext('2d').getImageData(cells.offsetLeft + 90, 8, 1, 1).data;  // at zero
          return bar[0] + bar[1] + bar[2] < 150;
        }"""
    )


def untouched(page: Page) -> None:
    assert page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length") == 1


def badge(page: Page) -> None:
    expect(page.locator(".hg-badge")).to_have_js_property("hidden", False)  # in a panel its line is seen instead


def line(page: Page) -> None:
    expect(page.locator(".wb-lost")).to_be_visible()


def test_the_assertions_about_states_can_fail(run_notebook: Run, page: Page, lab: Lab) -> None:
    held: list[str] = []

    def look(notebook: Notebook, milliseconds: int, **checks: Callable[[Page], None]) -> None:
        with patience(page, notebook, milliseconds):
            for name, check in checks.items():
                try:
                    check(page)
                    held.append(name)
                except (AssertionError, Error):
                    if milliseconds == LONG:
                        raise

    def use(notebook: Notebook, milliseconds: int) -> None:
        sees(page, f"0 heads selected{NAN}")
        click(page, 5, 2)
        sees(page, f"1 head selected{NAN}")
        expect(page.locator(".hg-badge")).to_be_hidden()
        notebook.theme("JupyterLab Dark")
        look(notebook, milliseconds, dark=dark)
        notebook.theme("JupyterLab Light")
        page.get_by_role("button", name="A button").focus()
        page.keyboard.press("b")
        look(notebook, milliseconds, keys=untouched)
        notebook.save()  # a save after a restart keeps no widgets
        notebook.restart_kernel()
        look(notebook, milliseconds, badge=badge, line=line)
        # It has started again, its second shell too: JupyterLab throws when a kernel goes while it asks for that.
        assert notebook.ask("'grid' in globals()") is False
        page.wait_for_timeout(1000)
        notebook.shut_down_kernel()
        notebook.open()
        sees(page, f"1 head selected{NAN}")
        look(notebook, milliseconds, badge_again=badge, line_again=line)

    def write(*, broken: bool) -> None:
        for script, lines in BROKEN.items():
            source = read_module(script)
            for before, after in lines if broken else ():
                source = with_line(source, before, after)
            (lab.folder / Path(script).name).write_text(source, encoding="utf-8")

    write(broken=False)
    notebook = run_notebook(CELL)
    use(notebook, LONG)
    assert held == ["dark", "keys", "badge", "line", "badge_again", "line_again"]
    held.clear()
    write(broken=True)
    notebook.run_all()
    use(notebook, SHORT)
    assert held == []
