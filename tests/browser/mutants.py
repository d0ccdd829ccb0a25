"""How a mutation check goes: an interaction's assertions hold, its handler is broken, and they must not hold any more.

What lives in our JavaScript is broken there, in one line of its joined modules: a widget whose source is set is drawn
anew. What lives in Python (buttons, the selection's history) is broken in the kernel. One page a widget, so that this
costs seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from playwright.sync_api import Error, Page, expect

from tests.browser.conftest import USUAL, Notebook
from workbench.widgets.shared.javascript import read_module

SHORT, LONG = 700, 20_000  # milliseconds until an assertion gives up: of a mutant, of the real thing


@dataclass(frozen=True)
class Mutant:
    """A broken handler.

    Args:
        name: What is broken.
        check: The interaction with its assertions, from a clean start.
        breaks: Python for the kernel, or a line of the widget's JavaScript and what it becomes, see `with_line`.
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


def with_line(source: str, line: str, becomes: str) -> str:
    """JavaScript in which one line is another. Indentation does not count, and the line must be there exactly once."""
    lines = source.split("\n")
    places = [i for i, text in enumerate(lines) if text.strip() == line]
    assert len(places) == 1, f"the JavaScript has the line {line!r} {len(places)} times"
    lines[places[0]] = becomes
    return "\n".join(lines)


def survivors(
    page: Page, notebook: Notebook, mutants: list[Mutant], script: str, widgets: list[str], drawn: str
) -> list[str]:
    """The mutants that no assertion noticed. Every check must hold before its handler is broken.

    Args:
        page, notebook: The page.
        mutants: What to break.
        script: The entry point of the widget's JavaScript, such as ``"grid/grid.js"``.
        widgets: Python for each of the widgets that have it.
        drawn: CSS selector of the element that a widget draws.
    """
    source, unnoticed = read_module(script), []
    shown = source

    def draw(wanted: str) -> None:
        nonlocal shown
        if wanted != shown:
            tag = "drawn => document.querySelectorAll(drawn).forEach(node => { node.dataset.stale = 1; })"
            page.evaluate(tag, drawn)
            notebook.execute(f"for widget in ({', '.join(widgets)},):\n    widget._esm = {wanted!r}")
            anew = "([drawn, n]) => document.querySelectorAll(`${drawn}:not([data-stale])`).length >= n"
            page.wait_for_function(anew, arg=[drawn, len(widgets)])
            shown = wanted

    for mutant in mutants:
        draw(source)
        with patience(page, notebook, LONG):
            mutant.check(page, notebook)
        if isinstance(mutant.breaks, tuple):
            draw(with_line(source, *mutant.breaks))
        else:
            notebook.execute(mutant.breaks)
        try:
            with patience(page, notebook, SHORT):
                mutant.check(page, notebook)
            unnoticed.append(mutant.name)
        except (AssertionError, Error):  # Error: a control that cannot be used
            pass
        finally:
            for key in ("Shift", "Alt"):
                page.keyboard.up(key)
            page.mouse.up()
            notebook.execute(mutant.mends)
    return unnoticed
