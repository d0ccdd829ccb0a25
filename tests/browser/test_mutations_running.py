"""What is done while an edit runs, Export, and the chip of picks for another fact: each check fails when its handler is
broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser import test_workbench as bench
from tests.browser.conftest import Notebook
from tests.browser.mutants import Mutant, survivors
from tests.browser.test_workbench import FACTS, WAITING_FIT, go_to, press

pytestmark = [pytest.mark.browser, pytest.mark.model]

Run = Callable[..., Notebook]

APP = f"""{FACTS}{WAITING_FIT}
app = wb.Workbench(model, facts, fact="germany-capital")
app.selection = "L23H4"
app
"""


def idle(notebook: Notebook) -> None:
    """No edit is running, on screen or not."""
    notebook.execute("app._editors.running and app._editors.running.job.cancel()")
    notebook.wait_for("app._editors.running is None", True)


def went_on(page: Page, notebook: Notebook) -> None:
    idle(notebook)
    notebook.execute("app.chooser.fact, app.selection = 'germany-capital', 'L23H4'")
    go_to(page, "3 Edit")
    press(page, "Run")
    notebook.wait_for("app.editor.running", True)
    notebook.execute("app.chooser.fact = 'italy-capital'")
    line = bench.panel(page).locator(".wb-row.wb-running")
    expect(line).to_contain_text("Germany: Berlin → ")
    expect(bench.button(page, "Run")).to_be_disabled()
    assert notebook.ask("[app.fact.id, app.editor.running, app._editors.busy]") == ["italy-capital", False, True]
    press(page, "Show it")
    notebook.wait_for("[app.fact.id, app.editor.running]", ["germany-capital", True])
    expect(bench.button(page, "Show it")).to_have_count(0)
    press(page, "Cancel edit")
    notebook.wait_for("[app.editor.running, app.editor.job.state]", [False, "cancelled"])
    expect(line).to_be_hidden()


def exported(page: Page, notebook: Notebook) -> None:
    notebook.execute("app._alert.value = ''")
    press(page, "Export")
    expect(bench.panel(page).get_by_text("Exported to ").locator("visible=true")).to_be_visible()
    assert notebook.ask("len(list(app._kept.keeper.own.glob('*-capital-*.html'))) > 0") is True


def dropped(page: Page, notebook: Notebook) -> None:
    idle(notebook)
    notebook.execute("app.chooser.fact, app.selection = 'germany-capital', 'L2H2'\napp.picker.bar.claim()")
    expect(bench.button(page, "picked for Germany ×")).to_have_count(0)
    notebook.execute("app.chooser.fact = 'italy-capital'")
    press(page, "picked for Germany ×")
    notebook.wait_for("len(app.selection)", 0)


def test_what_is_done_while_an_edit_runs_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(APP)
    mutants = [
        Mutant(
            "another fact while an edit runs",
            went_on,
            "app._editors._free = lambda running: app._editors.shown",
            "del app._editors._free",
        ),
        Mutant("Show it", went_on, "app.show_running = lambda: None", "del app.show_running"),
        Mutant("Cancel edit", went_on, "app._cancel_running = lambda: None", "del app._cancel_running"),
        Mutant(
            "why a second edit waits", went_on, "app._editors._why_not = lambda panel: ''", "del app._editors._why_not"
        ),
        Mutant("Export", exported, "app.export_html = lambda: None", "del app.export_html"),
        Mutant(
            "picked for", dropped, "app.picker.bar.drop_elsewhere = lambda: None", "del app.picker.bar.drop_elsewhere"
        ),
    ]
    assert survivors(page, notebook, mutants, "code.js", ["app._code"], ".wb-code") == []
