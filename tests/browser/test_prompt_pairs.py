"""A pair of prompts in a real JupyterLab: written in tab 1, studied in tab 2, and what tab 3 says of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Notebook
from tests.browser.mutants import Mutant, survivors
from tests.browser.test_workbench import button, cut, fill, panel, violations

pytestmark = pytest.mark.browser

Run = Callable[..., Notebook]

APP = """
import workbench as wb
from tests.helpers.panels import FACTS, tiny, until
model = tiny()
facts = wb.FactSet(FACTS, name="capitals")
app = wb.Workbench(model, facts, fact="france-capital", autosave=False)
def scored():  # what was scored of the question before is cancelled, and its job is no longer waited for
    until(lambda: app.graph.edges is not None)
app
"""
CLEAN, CORRUPTED = "The capital of France is", "The capital of Spain is"
PAIR = f"wb.Contrast(clean={CLEAN!r}, corrupted={CORRUPTED!r}, answer=' Paris', wrong=' Madrid')"
EMPTY = (
    "app.fact = 'france-capital'; app.chooser.pair.contrast = None; app.chooser.pair.form.clear(); app.tab = 'chooser'"
)


def toggle(page: Page, name: str) -> Locator:
    return panel(page).locator(".widget-toggle-button:visible").get_by_text(name, exact=True)


def strip(page: Page) -> Locator:
    return panel(page).locator(".wb-pairs:visible")


def begun(page: Page, notebook: Notebook) -> None:
    notebook.execute(EMPTY)
    toggle(page, "Prompt pair").click()
    expect(panel(page).get_by_label("Clean prompt")).to_be_visible()


def drawn_while_written(page: Page, notebook: Notebook) -> None:
    begun(page, notebook)
    fill(page, "Clean prompt", CLEAN)
    fill(page, "Corrupted prompt", "The capital of Spain and Italy is")
    expect(panel(page).get_by_text("5 and 9 tokens")).to_be_visible()
    fill(page, "Corrupted prompt", CORRUPTED)
    expect(strip(page).locator("li")).to_have_count(5)
    expect(strip(page).locator(".wb-subject")).to_have_text("·France·Spain")
    assert notebook.ask("app.contrast is None")


def used(page: Page, notebook: Notebook) -> None:
    begun(page, notebook)
    for label, text in (("Clean prompt", CLEAN), ("Corrupted prompt", CORRUPTED), ("Answer", "Paris")):
        fill(page, label, text)
    button(page, "Use this pair").click()
    expect(panel(page).get_by_text("Write the wrong answer.")).to_be_visible()
    fill(page, "Wrong answer", "Madrid")
    panel(page).get_by_label("Wrong answer").press("Enter")
    notebook.wait_for(f"app.contrast == {PAIR}", True)
    expect(panel(page).get_by_text("after the clean prompt,")).to_be_visible()
    expect(strip(page).locator(".wb-traced")).to_have_text("·Paris·Madrid")


def left_and_come_back(page: Page, notebook: Notebook) -> None:
    notebook.execute(f"{EMPTY}; app.contrast = {PAIR}")
    toggle(page, "Listed fact").click()
    notebook.wait_for("[app.contrast is None, app.picker.fact == app.fact]", [True, True])
    toggle(page, "Prompt pair").click()
    notebook.wait_for(f"[app.contrast == {PAIR}, app.picker.fact == app.contrast]", [True, True])


def led_on(page: Page, notebook: Notebook) -> None:
    notebook.execute(f"{EMPTY}; app.contrast = {PAIR}; app.chooser.pair.job.wait()")
    button(page, "Show the circuit").click()
    notebook.wait_for("app.tab", "picker")
    expect(panel(page).get_by_text("against the corrupted prompt").first).to_be_visible()


def graph_in_sight(page: Page, notebook: Notebook) -> None:
    notebook.execute(f"{EMPTY}; app.contrast = {PAIR}; app.circuit_tab.shown = 'maps'; app.tab = 'picker'")
    expect(panel(page).locator(".gv-box")).to_be_hidden()
    toggle(page, "Graph").click()
    expect(panel(page).locator(".gv-box")).to_be_visible()
    expect(panel(page).locator(".gv-edge").nth(5)).to_be_attached()
    notebook.wait_for("[app.graph.contrast == app.contrast, app.graph.edges is not None]", [True, True])


def head_tips(page: Page, notebook: Notebook) -> None:
    notebook.execute(
        f"{EMPTY}; app.contrast = {PAIR}; app.circuit_tab.shown = 'graph'; app.tab = 'picker'; scored(); "
        "app.selection = 'L1H3'"
    )
    page.mouse.move(1, 1)
    panel(page).locator(".gv-box").get_by_role("option", name="L1H3", exact=True).hover()
    expect(page.locator(".gv-tip").first).to_contain_text("Where the last token attends:")
    expect(page.locator(".gv-tip").first).to_contain_text("·France")


def to_a_fact(page: Page, notebook: Notebook) -> None:
    notebook.execute(
        f"{EMPTY}; app.contrast = {PAIR}; app.circuit_tab.shown = 'graph'; app.tab = 'picker'; scored(); "
        "app.selection = 'L1H3'"
    )
    button(page, "Edit these").click()
    notebook.wait_for("[app.tab, app.editor.problem]", ["editor", "An edit needs a fact."])
    expect(button(page, "Run")).to_be_disabled()
    button(page, "Write it as a fact").click()
    expect(panel(page).get_by_label("Subject")).to_have_value("France")
    expect(panel(page).get_by_label("Target", exact=True)).to_have_value("Madrid")
    notebook.wait_for("[app.tab, app.contrast is None, str(app.selection)]", ["chooser", True, "L1H3"])


CHECKS = (drawn_while_written, used, left_and_come_back, led_on, graph_in_sight, head_tips, to_a_fact)


def test_a_pair_from_its_words_to_a_fact(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(APP)
    for check in CHECKS:
        check(page, notebook)


def test_the_pair_and_the_graph_in_both_themes(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(APP)
    notebook.execute(f"app.contrast = {PAIR}; app.chooser.pair.job.wait()")
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.theme(theme)
        notebook.execute("app.tab = 'chooser'")
        expect(strip(page)).to_be_visible()
        assert not violations(page) and not cut(page)
        notebook.execute("app.circuit_tab.shown = 'both'; app.tab = 'picker'; scored()")
        expect(panel(page).locator(".gv-box")).to_be_visible()
        assert not violations(page) and not cut(page)
        notebook.execute("app.tab = 'editor'")
        expect(button(page, "Write it as a fact")).to_be_visible()
        assert not violations(page) and not cut(page)


def test_a_reopened_session_has_the_pair_and_the_circuit(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(APP)
    notebook.execute(
        f"app.contrast = {PAIR}; app.circuit_tab.shown = 'graph'; app.tab = 'picker'; app.picker.job.wait(); "
        "scored(); app.circuit = app.graph.edges.top(2); wanted = app.circuit; app.save_session('kept'); "
        "app.contrast = None; app.circuit = wb.Circuit(); app.selection = ''; app.circuit_tab.shown = 'maps'"
    )
    notebook.execute("app.open_session('kept')")
    expect(panel(page).get_by_text("against the corrupted prompt").first).to_be_visible()
    toggle(page, "Graph").click()
    expect(panel(page).locator('.gv-part:not(.gv-node)[aria-selected="true"]')).to_have_count(2)
    notebook.wait_for(f"[app.circuit == wanted, app.contrast == {PAIR}]", [True, True])


def test_the_assertions_can_fail(run_notebook: Run, page: Page) -> None:
    """What a person clicks here is heard in Python: each handler is broken there."""
    notebook = run_notebook(APP)
    notebook.execute("app.circuit_tab.shown = 'graph'; app.tab = 'picker'; scored()")
    pair, tab = "type(app.chooser.pair)", "type(app.circuit_tab)"
    mutants = [
        Mutant(
            "drawn while written",
            drawn_while_written,
            f"keep = {pair}._show_strip; {pair}._show_strip = lambda self, answers=None: None",
            f"{pair}._show_strip = keep",
        ),
        Mutant("used", used, f"keep = {pair}.use; {pair}.use = lambda self: None", f"{pair}.use = keep"),
        Mutant(
            "another mode",
            left_and_come_back,
            "kept = app.chooser._pair_callbacks[:]; app.chooser._pair_callbacks.clear()",
            "app.chooser._pair_callbacks[:] = kept",
        ),
        Mutant(
            "the graph is shown",
            graph_in_sight,
            f"app.circuit_tab.shown = 'maps'; keep = {tab}._show; {tab}._show = lambda self: None",
            f"{tab}._show = keep; app.circuit_tab._show()",
        ),
        Mutant("head tips", head_tips, ("this.model.set(\"hover\", name);", "")),
        Mutant(
            "edit these", to_a_fact, "kept = app.graph._go_callbacks[:]; app.graph._go_callbacks.clear()",
            "app.graph._go_callbacks[:] = kept",
        ),
    ]  # fmt: skip
    assert survivors(page, notebook, mutants, "graph/graph.js", ["app.graph.view"], ".gv-box") == []
