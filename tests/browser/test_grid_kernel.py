"""HeatGrid in a real JupyterLab when the kernel is busy, restarted or gone, and when the page is loaded again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Notebook
from tests.browser.test_grid import GRID, NAN, click, dot, sees, sees_dot

pytestmark = pytest.mark.browser

Run = Callable[..., Notebook]


def test_while_the_kernel_is_busy_a_pick_is_pending(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(GRID, "import time")
    page.evaluate(
        """(path) => { [...jupyterapp.shell.widgets('main')].find((one) => one.context && one.context.path === path)
        .context.sessionContext.session.kernel.requestExecute({ code: 'time.sleep(4)', store_history: false }); }""",
        notebook.path,
    )
    click(page, 5, 2)
    click(page, 6, 2)
    sees(page, f"2 heads selected · 2 waiting for Python{NAN}")
    assert dot(page, 5, 2) == "light"  # a ring
    expect(page.locator(".hg-banner")).to_contain_text("Kernel busy or not connected")
    sees(page, f"2 heads selected{NAN}")
    expect(page.locator(".hg-banner")).to_be_hidden()
    assert dot(page, 5, 2) == "dark"
    assert notebook.ask("grid.selected") == [[5, 2], [6, 2]]


def test_after_a_kernel_restart_it_says_not_connected(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(GRID)
    click(page, 5, 2)
    sees(page, f"1 head selected{NAN}")
    expect(page.locator(".hg-badge")).to_be_hidden()
    notebook.restart_kernel()
    expect(page.locator(".hg-badge")).to_be_visible()
    click(page, 7, 7)
    expect(page.locator(".hg-banner")).to_contain_text("not connected")
    sees(page, f"2 heads selected · 1 waiting for Python{NAN}")
    assert dot(page, 5, 2) == "dark"
    assert dot(page, 7, 7) == "light"
    assert notebook.ask("'grid' in globals()") is False


def test_a_reopened_notebook_shows_what_python_had(run_notebook: Run, page: Page, context: Any) -> None:
    first = run_notebook(GRID)
    click(page, 5, 2)
    sees(page, f"1 head selected{NAN}")
    first.save()
    notebook = first.reopened(context)
    again = notebook.page
    sees(again, f"1 head selected{NAN}")
    sees_dot(again, 5, 2, "dark")
    expect(again.locator(".hg-badge")).to_be_visible()
    click(again, 8, 1)
    expect(again.locator(".hg-banner")).to_be_visible(timeout=1000)  # at once, not after 1.5 s
    sees(again, f"2 heads selected · 1 waiting for Python{NAN}")
    notebook.run_all()
    sees(again, f"0 heads selected{NAN}")
    expect(again.locator(".hg-badge")).to_be_hidden()
    assert notebook.ask("grid.selected") == []
    click(again, 8, 1)
    sees(again, f"1 head selected{NAN}")
    assert notebook.ask("grid.selected") == [[8, 1]]


def test_a_reloaded_page_goes_on_with_the_same_kernel(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(GRID)
    click(page, 5, 2)
    sees(page, f"1 head selected{NAN}")
    notebook.save()
    notebook.open()
    sees(page, f"1 head selected{NAN}")
    expect(page.locator(".hg-badge")).to_be_hidden()
    click(page, 6, 6)
    sees(page, f"2 heads selected{NAN}")
    assert notebook.ask("grid.selected") == [[5, 2], [6, 6]]
