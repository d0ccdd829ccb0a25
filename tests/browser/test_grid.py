"""HeatGrid in a real JupyterLab: each test asserts what the user sees and what Python holds."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import Notebook, settled_box
from workbench.plots.style import short_number
from workbench.widgets.shared.javascript import STATIC

pytestmark = pytest.mark.browser

Run = Callable[..., Notebook]

GRID = """
import numpy as np
from workbench.widgets.grid.grid import HeatGrid
values = np.random.default_rng(0).normal(size=(30, 9))
values[3, 4] = np.nan
calls = []
grid = HeatGrid(values, rows=[f"L{i}" for i in range(30)], cols=range(9), title="Heads", col_title="Head",
                unit="logits", groups=[0, 3, 6], group_name="KV", kind="head")
grid.on_pick(calls.append)
grid
"""
LARGE = """
import numpy as np
from workbench.widgets.grid.grid import HeatGrid
grid = HeatGrid(np.random.default_rng(0).normal(size=(80, 512)), rows=range(80), cols=range(512), title="Large")
grid
"""
SHAPES = {"grid": (30, 9), "large": (80, 512)}
# What is drawn where the dot of a selected cell goes: the colour of a pixel of the canvas over the picture.
DOT = """([r, c, rows, cols]) => {
  const cells = document.querySelector('.hg-cells'), marks = document.querySelector('.hg-marks');
  const w = cells.offsetWidth / cols, h = cells.offsetHeight / rows;
  const radius = Math.min(4, Math.max(1.5, Math.min(w, h) / 5));
  const x = cells.offsetLeft + (c + 1) * w - radius - 3, y = cells.offsetTop + r * h + radius + 3;
  const [red, green, blue, alpha] = marks.getContext('2d').getImageData(Math.round(x), Math.round(y), 1, 1).data;
  return alpha === 0 ? 'none' : red + green + blue < 384 ? 'dark' : 'light';
}"""


def cells(page: Page) -> Locator:
    return page.locator(".hg-cells").first


def point(page: Page, row: int, col: int, shape: tuple[int, int] = (30, 9)) -> tuple[float, float]:
    """The middle of a cell on the page."""
    box = settled_box(cells(page))
    return box["x"] + (col + 0.5) * box["width"] / shape[1], box["y"] + (row + 0.5) * box["height"] / shape[0]


def click(page: Page, row: int, col: int, shape: tuple[int, int] = (30, 9)) -> None:
    page.mouse.click(*point(page, row, col, shape))


def drag(page: Page, first: tuple[int, int], last: tuple[int, int], shape: tuple[int, int] = (30, 9)) -> None:
    page.mouse.move(*point(page, *first, shape))
    page.mouse.down()
    page.mouse.move(*point(page, *last, shape), steps=4)
    page.mouse.up()


def sees(page: Page, text: str) -> None:
    """The line below the map."""
    expect(page.locator(".hg-status").first).to_have_text(text)


def dot(page: Page, row: int, col: int) -> str:
    return page.evaluate(DOT, [row, col, 30, 9])


def sees_dot(page: Page, row: int, col: int, shade: str) -> None:
    """Wait for a dot: a page that was just opened may write before it draws."""
    page.wait_for_function(f"([at, shade]) => ({DOT})(at) === shade", arg=[[row, col, 30, 9], shade])


NAN = " · hatched: no value"


def test_click_selects_and_clears_a_cell(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(GRID)
    sees(page, f"0 heads selected{NAN}")
    assert dot(page, 5, 2) == "none"
    click(page, 5, 2)
    sees(page, f"1 head selected{NAN}")
    assert dot(page, 5, 2) == "dark"
    assert notebook.ask("grid.selected") == [[5, 2]]
    assert notebook.ask("calls") == [[[5, 2]]]
    assert notebook.ask("grid.cursor") == [5, 2]
    click(page, 5, 2)
    sees(page, f"0 heads selected{NAN}")
    assert dot(page, 5, 2) == "none"
    assert notebook.ask("grid.selected") == []
    click(page, 3, 4)  # no value: cannot be added
    page.wait_for_timeout(300)  # time for a message that must not come
    assert notebook.ask("[grid.selected, len(calls)]") == [[], 2]


def test_python_sets_the_selection_and_the_values(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(GRID)
    notebook.execute("grid.selected = [(7, 1), (2, 8)]")
    sees(page, f"2 heads selected{NAN}")
    assert dot(page, 7, 1) == dot(page, 2, 8) == "dark"
    notebook.execute("grid.set_values(np.zeros((30, 9)), grid.limit)")
    sees(page, "2 heads selected")
    assert notebook.ask("calls") == []
    page.mouse.move(*point(page, 4, 4))
    expect(page.locator(".hg-tip-value")).to_have_text("0 logits")


def test_shift_drag_adds_a_box_and_with_alt_removes_one(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(GRID)
    click(page, 20, 8)
    page.keyboard.down("Shift")
    drag(page, (2, 3), (4, 5))
    page.keyboard.up("Shift")
    sees(page, f"9 heads selected{NAN}")  # eight of nine in the box have a value
    box = [[r, c] for r in (2, 3, 4) for c in (3, 4, 5) if (r, c) != (3, 4)]
    assert notebook.ask("grid.selected") == [*box, [20, 8]]
    assert dot(page, 2, 3) == dot(page, 4, 5) == "dark"
    page.keyboard.down("Shift")
    page.keyboard.down("Alt")
    drag(page, (4, 8), (3, 0))
    page.keyboard.up("Alt")
    page.keyboard.up("Shift")
    sees(page, f"4 heads selected{NAN}")
    assert notebook.ask("grid.selected") == [[2, 3], [2, 4], [2, 5], [20, 8]]
    assert notebook.ask("len(calls)") == 3


def test_escape_drops_a_box_in_progress(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(GRID)
    page.keyboard.down("Shift")
    page.mouse.move(*point(page, 2, 2))
    page.mouse.down()
    page.mouse.move(*point(page, 5, 5), steps=3)
    sees(page, f"0 heads selected · box of 4 × 4{NAN}")
    page.keyboard.press("Escape")
    page.mouse.up()
    page.keyboard.up("Shift")
    sees(page, f"0 heads selected{NAN}")
    assert notebook.ask("[grid.selected, calls]") == [[], []]


def test_everything_by_keyboard(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(GRID)
    cells(page).focus()
    n_cells = page.locator(".jp-Notebook .jp-Cell").count()

    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)

    press("ArrowDown", "ArrowDown", "ArrowRight", "Space")
    sees(page, f"1 head selected{NAN}")
    assert notebook.ask("[grid.cursor, grid.selected]") == [[2, 1], [[2, 1]]]
    expect(page.locator(".hg-tip-name")).to_have_text("L2, Head 1")
    press("Enter")
    sees(page, f"0 heads selected{NAN}")
    press("Home", "Shift+ArrowDown", "Shift+ArrowRight")
    sees(page, f"0 heads selected · box of 2 × 2{NAN}")
    press("Space")
    sees(page, f"4 heads selected{NAN}")
    assert notebook.ask("grid.selected") == [[2, 0], [2, 1], [3, 0], [3, 1]]
    press("Delete")
    sees(page, f"3 heads selected{NAN}")
    press("Control+End", "Space")
    sees(page, f"4 heads selected{NAN}")
    assert notebook.ask("[grid.cursor, grid.selected[-1]]") == [[29, 8], [29, 8]]
    press("Shift+ArrowUp", "Escape", "Control+Home")
    notebook.wait_for("grid.cursor", [0, 0])
    assert notebook.ask("len(grid.selected)") == 4
    press("Control+a")
    sees(page, f"269 heads selected{NAN}")
    assert notebook.ask("[len(grid.selected), [3, 4] in grid.selected]") == [269, False]
    press("a", "b")  # in JupyterLab: insert a cell above, below
    assert page.locator(".jp-Notebook .jp-Cell").count() == n_cells
    assert notebook.ask("grid.error") is None


def test_tooltip_says_what_python_knows_about_the_cell(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(
        GRID,
        """
def describe(change):
    if change["new"]:
        grid.show_tip(change["new"], "<b>same</b> text", {"tokens": ["The", " <i>cat"], "weights": [0.25, 0.75]})
grid.observe(describe, "hover")
""",
    )
    for row, col in ((6, 6), (9, 2)):
        page.mouse.move(*point(page, row, col))
        expect(page.locator(".hg-tip-name")).to_have_text(f"L{row}, Head {col}")
        expect(page.locator(".hg-tip-value")).to_have_text(
            f"{short_number(notebook.ask(f'float(values[{row}, {col}])'))} logits"
        )
        expect(page.locator(".hg-tip-text")).to_have_text("<b>same</b> text")
        expect(page.locator(".hg-bars span")).to_have_text(["The", "0.25", "·<i>cat", "0.75"])
        assert notebook.ask("grid.hover") == [row, col]
    page.mouse.move(2, 2)
    expect(page.locator(".hg-tip")).to_be_hidden()
    notebook.wait_for("grid.hover", None)


def test_cursors_can_be_linked(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(
        GRID,
        "import traitlets\nother = HeatGrid(-values, rows=range(30), cols=range(9))\n"
        "link = traitlets.link((grid, 'cursor'), (other, 'cursor'))\nother",
    )
    click(page, 4, 4)
    notebook.wait_for("other.cursor", [4, 4])
    expect(page.locator(".hg-root").nth(1).get_by_role("gridcell", include_hidden=True)).to_contain_text("Layer 4, 4: ")
    notebook.execute("other.cursor = (6, 1)")
    expect(page.get_by_role("gridcell", include_hidden=True).first).to_contain_text("L6, Head 1 (")


def test_a_refused_pick_is_explained_and_taken_back(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(GRID)
    notebook.execute("grid.observe(lambda change: 1 / 0, 'selected')")
    click(page, 5, 2)
    expect(page.locator(".hg-problem")).to_have_text("ZeroDivisionError: division by zero")
    assert notebook.ask("repr(grid.error)") == "ZeroDivisionError('division by zero')"
    notebook.execute("grid.unobserve_all('selected'); grid.selected = []; grid.selectable = False")
    click(page, 6, 2)
    assert notebook.ask("grid.selected") == []
    notebook.execute("grid.selectable = True")
    click(page, 6, 2)
    sees(page, f"1 head selected{NAN}")
    expect(page.locator(".hg-problem")).to_be_hidden()


def test_each_source_is_a_module_by_itself(run_notebook: Run, page: Page) -> None:
    """Not joined: the browser itself follows the imports, and a name that a file forgot to import is an error."""
    notebook = run_notebook(GRID)
    read: set[str] = set()

    def answer(route: Route) -> None:
        read.add(name := route.request.url.partition("/sources/")[2])
        route.fulfill(path=STATIC / name, content_type="text/javascript")

    page.route(f"{notebook.lab.url}/sources/**", answer)
    source = f'export {{ default }} from "{notebook.lab.url}/sources/grid/grid.js";'
    page.evaluate("document.querySelector('.hg-cells').dataset.stale = 1")
    notebook.execute(f"grid._esm = {source!r}")
    expect(page.locator(".hg-cells:not([data-stale])")).to_have_count(1)
    page.mouse.move(*point(page, 6, 6))
    expect(page.locator(".hg-tip-name")).to_have_text("L6, Head 6")
    click(page, 5, 2)
    sees(page, f"1 head selected{NAN}")
    page.keyboard.down("Shift")
    drag(page, (7, 1), (8, 2))
    page.keyboard.up("Shift")
    sees(page, f"5 heads selected{NAN}")
    page.keyboard.press("Delete")
    page.keyboard.press("Escape")
    sees(page, f"4 heads selected{NAN}")
    assert read == {
        *(path.relative_to(STATIC).as_posix() for path in STATIC.glob("grid/*.js")),
        "kernel.js",
        "hearing.js",
        "theme.js",
    }


def test_how_fast_a_click_is(run_notebook: Run, page: Page, record_property: Callable[[str, object], None]) -> None:
    """From the button's release to the picture with Python's answer; the goal is 100 ms, the guard is loose."""
    notebook = run_notebook(LARGE)
    page.evaluate(
        """() => {
          const status = document.querySelector('.hg-status');
          window.times = [];
          let start = null;
          document.addEventListener('pointerup', () => (start = performance.now()), true);
          new MutationObserver(() => {
            if (start === null || status.textContent.includes('waiting')) return;
            window.times.push(performance.now() - start);
            start = null;
          }).observe(status, { childList: true, characterData: true, subtree: true });
        }"""
    )
    for i in range(15):
        page.mouse.move(*point(page, 5 * i, 30 * i + 3, SHAPES["large"]))
        page.wait_for_timeout(150)  # as a person does
        click(page, 5 * i, 30 * i + 3, SHAPES["large"])
        sees(page, f"{i + 1} cell{'s' if i else ''} selected")
    clicks = page.evaluate("window.times.splice(0)")
    page.keyboard.down("Shift")
    drag(page, (10, 100), (69, 199), SHAPES["large"])
    page.keyboard.up("Shift")
    notebook.wait_for("sum(10 <= r <= 69 and 100 <= c <= 199 for r, c in grid.selected)", 6000)
    expect(page.locator(".hg-status")).not_to_contain_text("waiting")
    (box,) = page.evaluate("window.times")
    median = statistics.median(clicks)
    print(f"\n80 x 512: a click {median:.0f} ms (median of {len(clicks)}), 6000 cells in one drag {box:.0f} ms")
    record_property("click_ms", median)
    record_property("drag_of_6000_ms", box)
    assert len(clicks) == 15
    assert median < 400
    assert box < 1200
