"""The edges of the comparison in a real JupyterLab: scored by a press, read as a table, stopped, in both themes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Notebook
from tests.browser.mutants import Mutant, survivors
from tests.browser.test_workbench import button, cut, press, violations

pytestmark = pytest.mark.browser

Run = Callable[..., Notebook]

SHOTS = os.environ.get("WORKBENCH_SHOTS", "")
"""A folder for screenshots; empty: none."""
VIEW = """
import workbench as wb
from tests.helpers.panels import FACTS, tiny
from tests.helpers.tiny_facts import edit_of, some_gates
from workbench.widgets.compare import edges_run
from workbench.widgets.compare.edges_run import EdgesRun
model = tiny()
edit = edit_of(model, some_gates(model, (1, "post")), some_gates(model, (0, "z"), seed=1))
view = wb.CompareView(model, edit, pool=FACTS)
real_score = edges_run.compute_edges
def waiting(*given, cancel, **options):
    from workbench.types.cancelling import check_cancel
    while not cancel.wait(0.02):
        pass
    check_cancel(cancel, "after 1 of 3 maps of edges")
view
"""
AFRESH = """
view.edges.job and view.edges.cancel()
view.edges.busy or (view.edges._all.clear(), view.edges.follow())
view.edges.controls["Changes"].value = ""
view.stage, view.strength = "learn", 1.0
"""


def start(notebook: Notebook) -> None:
    """Nothing is scored."""
    notebook.execute("view.edges.cancel()")
    notebook.wait_for("view.edges.busy", False)
    notebook.execute(AFRESH)


def table(page: Page) -> Locator:
    return page.get_by_role("region", name="Edges that changed, the largest change first (logits)")


def scored(page: Page, notebook: Notebook) -> None:
    """A press scores the edges; the table has Python's changes, with what happened in a word."""
    start(notebook)
    expect(page.get_by_text("The edges are not scored yet with these choices.")).to_be_visible()
    expect(table(page)).to_have_count(0)
    press(page, "Compare edges")
    expect(table(page)).to_be_visible()
    shown = "[[str(c.edge), c.kind, c.before > c.after] for c in view.edges.result.changes[:30]]"
    rows = table(page).locator("tbody tr")
    expect(rows).to_have_count(30)
    for i, (edge, kind, fell) in enumerate(notebook.ask(shown)[:6]):
        expect(rows.nth(i).locator("th")).to_have_text(edge)
        expect(rows.nth(i).locator("td").last).to_have_text(kind)
        expect(rows.nth(i).locator("td").nth(2)).to_have_text(re.compile("^−" if fell else r"^\+"))


def by_keyboard(page: Page, notebook: Notebook) -> None:
    """From the button on, Tab leads to the menu, the table and what the words mean."""
    start(notebook)
    button(page, "Compare edges").focus()
    page.keyboard.press("Enter")
    expect(table(page)).to_be_visible()
    expect(button(page, "Compare edges")).to_be_enabled()
    button(page, "Compare edges").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Changes", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    expect(table(page)).to_be_focused()
    page.keyboard.press("Tab")
    fold = page.get_by_text("What the words mean")
    expect(fold).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Among the largest before, not after, and its score shrank in size.")).to_be_visible()


def one_kind(page: Page, notebook: Notebook) -> None:
    start(notebook)
    press(page, "Compare edges")
    expect(table(page)).to_be_visible()
    kind, n = notebook.ask(
        "min((item for item in view.edges.result.counts.items() if item[1]), key=lambda item: item[1])"
    )
    assert n < 30
    page.get_by_label("Changes", exact=True).select_option(kind.capitalize())
    rows = table(page).locator("tbody tr")
    expect(rows).to_have_count(n)
    expect(rows.locator("td:last-child")).to_have_text([kind] * n)


def stopped(page: Page, notebook: Notebook) -> None:
    """While edges are scored the page stays usable: the slider moves, and Stop ends it."""
    start(notebook)
    notebook.execute("edges_run.compute_edges = waiting")
    try:
        press(page, "Compare edges")
        expect(button(page, "Stop edges")).to_be_visible()
        page.get_by_role("slider", name="Strength").press("Home")
        notebook.wait_for("[view.strength, view.edges.busy]", [0.0, True])
        page.get_by_role("slider", name="Strength").press("End")
        press(page, "Stop edges")
        expect(page.get_by_text("Cancelled after 1 of 3 maps of edges")).to_be_visible()
        assert notebook.ask("[view.edges.job.state, view.edges.busy]") == ["cancelled", False]
        expect(button(page, "Stop edges")).to_have_count(0)
    finally:
        notebook.execute("edges_run.compute_edges = real_score")


def followed(page: Page, notebook: Notebook) -> None:
    """Another stage has no edges yet; the one that was scored shows them when it comes back."""
    start(notebook)
    press(page, "Compare edges")
    expect(table(page)).to_be_visible()
    after = page.get_by_label("After", exact=True)
    after.select_option("unlearn")
    expect(table(page)).to_have_count(0)
    expect(page.get_by_text("Edges before and after: unlearn at strength 1.00")).to_be_visible()
    after.select_option("learn")
    expect(table(page)).to_be_visible()
    expect(page.get_by_text("Edges before and after: learn at strength 1.00")).to_be_visible()


def test_edges_before_and_after(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(VIEW)
    for check in (scored, by_keyboard, one_kind, stopped, followed):
        check(page, notebook)
    assert "changes = wb.compare_edges(model, edit, traced, stage='learn'" in notebook.ask("view.code")
    for width in (1100, 1400):
        page.set_viewport_size({"width": width, "height": 1000})
        for theme in ("JupyterLab Dark", "JupyterLab Light"):
            notebook.theme(theme)
            table(page).scroll_into_view_if_needed()
            assert not violations(page) and not cut(page), (theme, width)
            if SHOTS:
                page.get_by_role("heading", name="Edges before and after").scroll_into_view_if_needed()
                page.screenshot(path=f"{SHOTS}/edges-{theme.split()[-1]}-{width}.png")


def test_the_assertions_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(VIEW)
    real = "from workbench.widgets.compare import edges_run as it; "
    mutants = [
        Mutant("the button", scored, "EdgesRun.run = lambda self: None", "del EdgesRun.run"),
        Mutant(
            "the order of the rows",
            scored,
            f"{real}keep = it.EdgesCompared; it_rows = it.markup.table; "
            "it.markup.table = lambda head, rows, *more: it_rows(head, list(rows)[::-1], *more)",
            "it.markup.table = it_rows",
        ),
        Mutant(
            "what happened",
            scored,
            f"{real}real_tag = it.markup.tag; it.markup.tag = lambda words: real_tag('changed')",
            "it.markup.tag = real_tag",
        ),
        Mutant(
            "a table that keys reach",
            by_keyboard,
            f"{real}it_rows = it.markup.table; "
            "it.markup.table = lambda *given: it_rows(*given).replace('tabindex=\"0\"', '')",
            "it.markup.table = it_rows",
        ),
        Mutant("the menu of kinds", one_kind, "view.edges._show_table = lambda: None", "del view.edges._show_table"),
        Mutant("Stop", stopped, "view.edges.cancel = lambda: None", "del view.edges.cancel; view.edges.cancel()"),
        Mutant("the stage", followed, "view.edges.follow = lambda: None", "del view.edges.follow"),
        Mutant(
            "a page that is never blocked",
            stopped,
            "EdgesRun._order_real = EdgesRun._order\n"
            "def blocking(self):\n    import time; time.sleep(3); return self._order_real()\n"
            "EdgesRun._order = blocking",
            "EdgesRun._order = EdgesRun._order_real",
        ),
    ]
    assert survivors(page, notebook, mutants, "slider.js", ["view.controls['Strength']"], ".wb-slider") == []
