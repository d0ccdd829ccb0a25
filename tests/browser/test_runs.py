"""The line on top of a workbench in a real JupyterLab: it stays in sight, opens a run by a click, and inserts the
script below the panel. On a tiny model, so that two edits take seconds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Notebook
from tests.browser.mutants import Mutant, survivors
from tests.browser.test_workbench import panel, unfold

pytestmark = [pytest.mark.browser]

Run = Callable[..., Notebook]
CELL = """from tests.helpers.panels import FACTS, QUICK, tiny
import workbench as wb
app = wb.Workbench(tiny(), FACTS, fact="france-capital")
app.editor.recipe = QUICK
app.selection = "L1H4 L1MLP"
app.editor.run().wait()
app.fact = "spain-capital"
app.editor.run().wait()
app.tab = "editor"
real_open = app.open_run
app"""
SOURCES = """() => jupyterapp.shell.currentWidget.content.model.sharedModel.cells.map((cell) => cell.getSource())"""
DELETE = """() => { const notebook = jupyterapp.shell.currentWidget.content.model.sharedModel;
  notebook.deleteCell(notebook.cells.findIndex((cell) => cell.getSource().startsWith('import workbench'))); }"""


def reopened(page: Page, notebook: Notebook) -> None:
    notebook.execute("real_open(app.runs[1])")
    unfold(page, "Run")
    panel(page).get_by_label("Runs", exact=True).select_option(index=0)
    notebook.wait_for("[app.fact.id, str(app.selection)]", ["france-capital", "L1H4 L1MLP"])
    expect(panel(page).locator(".wb-top .wb-opener", has_text="Run 1 of 2")).to_be_visible()
    expect(panel(page).locator(".wb-about")).to_contain_text("Paris → Rome")


def inserted(page: Page, notebook: Notebook) -> None:
    notebook.execute("app._line.unfold(None)")
    unfold(page, "Code")
    block = panel(page).locator(".wb-top .wb-code")
    expect(block.locator("pre")).to_contain_text("wb.rewrite(")
    block.get_by_role("button", name="Insert as cell below").click()
    try:
        expect(block.get_by_role("status")).to_have_text("Inserted below.")
        cells = page.evaluate(SOURCES)
        assert len(cells) == 3 and cells[1] == notebook.ask("app.code") and cells[2] == "6 * 7"
    finally:
        if len(page.evaluate(SOURCES)) == 3:
            page.evaluate(DELETE)


def copied(page: Page, notebook: Notebook) -> None:
    notebook.execute("app._line.unfold('code')")
    page.evaluate("() => navigator.clipboard.writeText('nothing yet')")
    block = panel(page).locator(".wb-top .wb-code")
    block.get_by_role("button", name="Copy").click()
    expect(block.get_by_role("status")).to_have_text("Copied.")
    assert page.evaluate("() => navigator.clipboard.readText()") == notebook.ask("app.code")


def closed(page: Page, notebook: Notebook) -> None:
    """A click on the summary closes it, and Python sends nothing more."""
    notebook.execute("app._line.unfold('code')")
    summary = panel(page).locator(".wb-top .wb-code summary")
    expect(panel(page).locator(".wb-top .wb-code pre")).to_be_visible()
    summary.click()
    notebook.wait_for("[app._code.opened, app._code.source]", [False, ""])


def leads_on(page: Page, notebook: Notebook) -> None:
    """A button at the end of a long tab turns to a shorter one, whose head is then in sight."""
    page.set_viewport_size({"width": 1100, "height": 420})
    notebook.execute("app._line.unfold(None); app.tab = 'picker'")
    further = panel(page).get_by_role("button", name="Edit these").locator("visible=true")
    further.scroll_into_view_if_needed()
    tab = panel(page).get_by_role("tab", name="3 Edit")
    expect(tab).not_to_be_in_viewport()
    further.click()
    notebook.wait_for("app.tab", "editor")
    expect(tab).to_be_in_viewport()


def stays_in_sight(page: Page) -> None:
    """However far the notebook is scrolled, in at most two lines."""
    page.mouse.move(500, 500)
    for _ in range(4):
        page.mouse.wheel(0, 250)
    where = """() => { const top = document.querySelector('.wb-top'), line = top.querySelector('.wb-line');
      let box = top.parentElement; while (getComputedStyle(box).overflowY === 'visible') box = box.parentElement;
      return [top.getBoundingClientRect().y - box.getBoundingClientRect().y, line.offsetHeight,
              document.querySelector('.wb-app').getBoundingClientRect().y - box.getBoundingClientRect().y]; }"""
    page.wait_for_function(f"() => ({where})()[2] < -100")
    below, height, _ = page.evaluate(where)
    middle = """() => {
      const { x, y, width } = document.querySelector('.wb-line').getBoundingClientRect();
      const above = (share) => document.elementFromPoint(x + share * width, y + 8);
      return [0.2, 0.5, 0.8].every((share) => above(share).closest('.wb-top')); }"""
    assert page.evaluate(middle), "something is drawn over it"
    assert -2 <= below < 12 and height <= 72, (below, height)


def test_the_line_on_top_and_its_assertions(run_notebook: Run, page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    notebook = run_notebook(CELL, "6 * 7")
    page.set_viewport_size({"width": 1100, "height": 800})
    notebook.command("application:toggle-left-area")
    stays_in_sight(page)
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.theme(theme)
        for name in ("Run", "Session", "Code"):
            unfold(page, name)
            page.wait_for_timeout(200)
            found = Axe().run(page, context=".wb-top").response["violations"]
            assert not found, (theme, [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found])
    mutants = [
        Mutant("open a run", reopened, "app._list._open_run = lambda id: None", "app._list._open_run = app.open_run"),
        Mutant("insert", inserted, ('said.textContent = "Inserted below.";', "")),
        Mutant("the place", inserted, ("return known ? number + 1 : shared.cells.length;", "return 0;")),
        Mutant("copy", copied, ("copyText(model.get(\"source\"), row).then(", "copyText(\"\", row).then(")),
        Mutant("close", closed, ('model.set("opened", fold.open);', "")),
        Mutant("lead on", leads_on, "app._connection.show_top = lambda: None", "del app._connection.show_top"),
    ]  # fmt: skip
    assert survivors(page, notebook, mutants, "code.js", ["app._code"], ".wb-top .wb-code details") == []
