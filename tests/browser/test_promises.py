"""Few clicks lead from the opened cell to a running edit, and from a fact to the ablation of its strongest head.

On a tiny model, so that the maps take no time; every click that the page sees is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Notebook
from tests.browser.mutants import LONG, SHORT, patience
from tests.browser.test_workbench import WAITING_FIT, go_to, panel, press, sees

pytestmark = [pytest.mark.browser]

Run = Callable[..., Notebook]
MOST = 3  # clicks
CELL = """from tests.helpers.panels import FACTS, QUICK, tiny
import workbench as wb
app = wb.Workbench(tiny(), FACTS, fact="france-capital", autosave=False)
app.editor.recipe = QUICK
app"""
COUNT = """() => {
  window.counting?.abort();
  window.counting = new AbortController();
  window.clicks = 0;
  const count = (event) => { window.clicks += event.isTrusted ? 1 : 0; };
  window.addEventListener('click', count, { capture: true, signal: window.counting.signal });
}"""


@contextmanager
def at_most_three_clicks(page: Page) -> Iterator[None]:
    """Counts the clicks of a person, wherever in the page."""
    page.evaluate(COUNT)
    yield
    clicks = page.evaluate("() => window.clicks")
    assert 0 < clicks <= MOST, f"{clicks} clicks"


def to_the_ablation(page: Page, notebook: Notebook) -> None:
    """From the fact to what the answer loses without its strongest head."""
    press(page, "Where does it live\\?")
    notebook.execute("app.picker.job and app.picker.job.wait()")  # no estimates any more
    head = panel(page).locator(".bl-row").locator("visible=true").first
    expect(head).to_have_attribute("aria-selected", "false")
    name = head.locator(".bl-name").inner_text()
    head.click()
    notebook.wait_for("str(app.selection)", name)
    press(page, "Ablate selection")
    sees(page, f"Without {name}: ", notebook.patience)


def test_three_clicks_to_the_ablation_of_the_strongest_head(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(CELL)
    with at_most_three_clicks(page), patience(page, notebook, LONG):
        to_the_ablation(page, notebook)
    values = notebook.ask("app.maps['heads'].values.abs().tolist()")
    best, layer, number = max((value, i, j) for i, row in enumerate(values) for j, value in enumerate(row))
    assert best > 0 and notebook.ask("str(app.picker.ablation.result.selection)") == f"L{layer}H{number}"
    notebook.execute("app.selection = ''\napp.tab = 'chooser'\napp.chooser._go_callbacks.clear()")
    with patience(page, notebook, SHORT), pytest.raises(AssertionError):
        to_the_ablation(page, notebook)  # a button that leads nowhere is noticed


def test_three_clicks_to_a_running_edit(run_notebook: Run, page: Page) -> None:
    """With nothing picked: the default is one click away, and said."""
    notebook = run_notebook(CELL)
    notebook.execute(WAITING_FIT)
    with at_most_three_clicks(page), patience(page, notebook, LONG):
        go_to(page, "3 Edit")
        press(page, "Use the default")
        press(page, "Run")
        expect(panel(page).locator(".widget-tab .wb-step-now").locator("visible=true")).to_have_count(1)
        notebook.wait_for("[app.editor.running, app.editor.selection]", [True, None])
    notebook.execute("app.editor.cancel()")
    notebook.wait_for("[app.editor.running, app.editor.job.state]", [False, "cancelled"])
