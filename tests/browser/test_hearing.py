"""A widget whose module loads for longer than anywidget waits hears Python all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Notebook
from tests.browser.test_grid import GRID, NAN, click, sees

pytestmark = pytest.mark.browser

Run = Callable[..., Notebook]

# anywidget gives up after two seconds.
SLOW = GRID.replace(
    "grid = HeatGrid(",
    """class Slow(HeatGrid):
    _esm = "await new Promise((done) => setTimeout(done, 2500));" + HeatGrid._esm
grid = Slow(""",
)


def test_clicks_on_a_widget_that_loaded_slowly_are_answered(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(SLOW)
    click(page, 5, 2)
    notebook.wait_for("grid.selected", [[5, 2]])
    sees(page, f"1 head selected{NAN}")
