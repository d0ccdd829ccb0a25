"""How a mutation check goes: an interaction's assertions hold, its handler is broken, and they must not hold any more.

What lives in our JavaScript is broken there: a widget whose source is set is drawn anew. What lives in Python (buttons,
the selection's history) is broken in the kernel. One page a widget, so that this costs seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Error, Page, expect

from tests.browser.conftest import Notebook

STATIC = Path(__file__).parents[2] / "workbench" / "widgets" / "static"
SHORT, LONG = 700, 20_000  # milliseconds until an assertion gives up: of a mutant, of the real thing
USUAL = 5000  # of the other tests


@dataclass(frozen=True)
class Mutant:
    """A broken handler.

    Args:
        name: What is broken.
        check: The interaction with its assertions, from a clean start.
        breaks: Python for the kernel, or ``(before, after)`` of a line in the widget's JavaScript.
        mends: Python that takes back what ``breaks`` did there.
    """

    name: str
    check: Callable[[Page, Notebook], None]
    breaks: str | tuple[str, str]
    mends: str = ""


@contextmanager
def patience(page: Page, notebook: Notebook, milliseconds: int) -> Iterator[None]:
    """Give up after so long, whatever is waited for."""
    before = notebook.patience
    notebook.patience = milliseconds / 1000
    expect.set_options(timeout=milliseconds)
    page.set_default_timeout(milliseconds)
    try:
        yield
    finally:
        notebook.patience = before
        expect.set_options(timeout=USUAL)
        page.set_default_timeout(LONG)


def survivors(
    page: Page, notebook: Notebook, mutants: list[Mutant], script: str, widgets: list[str], drawn: str
) -> list[str]:
    """The mutants that no assertion noticed. Every check must hold before its handler is broken.

    Args:
        page, notebook: The page.
        mutants: What to break.
        script: The widget's JavaScript.
        widgets: Python for each of the widgets that have it.
        drawn: CSS selector of the element that a widget draws.
    """
    source, found = (STATIC / script).read_text(encoding="utf-8"), []
    shown = source

    def draw(wanted: str) -> None:
        nonlocal shown
        if wanted != shown:
            tag = "drawn => document.querySelectorAll(drawn).forEach(one => { one.dataset.stale = 1; })"
            page.evaluate(tag, drawn)
            notebook.execute(f"for one in ({', '.join(widgets)},):\n    one._esm = {wanted!r}")
            anew = "([drawn, n]) => document.querySelectorAll(`${drawn}:not([data-stale])`).length >= n"
            page.wait_for_function(anew, arg=[drawn, len(widgets)])
            shown = wanted

    for mutant in mutants:
        draw(source)
        with patience(page, notebook, LONG):
            mutant.check(page, notebook)
        if isinstance(mutant.breaks, tuple):
            before, after = mutant.breaks
            assert source.count(before) == 1, f"{mutant.name}: {before!r} is {source.count(before)} times in {script}"
            draw(source.replace(before, after))
        else:
            notebook.execute(mutant.breaks)
        try:
            with patience(page, notebook, SHORT):
                mutant.check(page, notebook)
            found.append(mutant.name)
        except (AssertionError, Error):  # Error: a control that cannot be used
            pass
        finally:
            for key in ("Shift", "Alt"):
                page.keyboard.up(key)
            page.mouse.up()
            notebook.execute(mutant.mends)
    return found
