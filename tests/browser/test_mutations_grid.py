"""The assertions about gestures, scales, tooltips and the ranked list can fail: see mutants.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.browser import test_grid_gestures as hand
from tests.browser.conftest import Notebook
from tests.browser.mutants import Mutant, survivors
from tests.browser.test_grid_gestures import MAPS

pytestmark = pytest.mark.browser

Run = Callable[..., Notebook]

BEGINS = (
    "if (this.holds(event) && this.press.drags && this.far(event) && !same(cell, this.press.cell)) "
    "return this.begin(event);"
)
TAKES_BACK = (
    'actions.takeBack(letter === "y" || event.shiftKey); // also where nobody listens: the notebook\'s undo is of cells'
)
PLACE = (
    'const place = (value) => (mode === "symlog" ? bend(clamp(value / end, -1, 1)) : clamp(value / end, -1, 1));',
    "const place = (value) => clamp(value / end, -1, 1);",
)
VERB = 'words.push(`A click ${selected ? "deselects" : "selects"} ${what || "it"}`);'
PRESS_P = '} else if (letter === "p" && !command && !event.altKey) {'
SPACE = 'else if (key === " " || (key === "Enter" && !event.shiftKey && !command)) {'


def test_the_maps_assertions_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(MAPS)
    far = "return Math.hypot(event.clientX - this.press.x, event.clientY - this.press.y) >= FAR;"
    strong = "if (cursor && focused) drawCursor(ctx, cursor, layout, theme, thick === 2 ? 0 : 2);"
    mutants = [
        Mutant("a drag draws a box", hand.boxes_by_dragging, (BEGINS, "")),
        Mutant(
            "with Alt or Ctrl it removes",
            hand.boxes_by_dragging,
            ("const remove = event.altKey || event.ctrlKey || event.metaKey;", "const remove = false;"),
        ),
        Mutant("a shaking hand clicks", hand.shaking_clicks, (far, "return true;")),
        Mutant("undo", hand.undone_by_keys, (TAKES_BACK, "")),
        Mutant("redo", hand.undone_by_keys, (TAKES_BACK, "actions.takeBack(false);")),
        Mutant(
            "double click",
            hand.pinned_by_hand,
            ('on("dblclick", (event) => actions.pin(this.cellAt(event).cell));', ""),
        ),
        Mutant("P", hand.pinned_by_hand, (PRESS_P, "} else if (false) {")),
        Mutant("symmetric log", hand.told_apart, PLACE),
        Mutant("what a click does", hand.read_in_the_tip, (VERB, "words.push(`A click selects it`);")),
        Mutant("one cursor", hand.strong_in_one_map_only, (strong, strong.replace(" && focused", ""))),
    ]
    assert survivors(page, notebook, mutants, "grid/grid.js", ["grid", "column"], ".hg-cells") == []


def test_the_lists_assertions_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(MAPS)
    mutants = [
        Mutant("click", hand.listed, ("else this.toggle(name);", "")),
        Mutant("second click", hand.listed, ("if (!shown.delete(name)) shown.add(name);", "shown.add(name);")),
        Mutant("Space", hand.listed, (SPACE, 'else if (key === "Enter") {')),
        Mutant("P", hand.listed, ('} else if (key === "p" && !command && !event.altKey) view.pin(cursor);', "}")),
    ]
    assert survivors(page, notebook, mutants, "bars/bars.js", ["bars"], ".bl-list") == []
