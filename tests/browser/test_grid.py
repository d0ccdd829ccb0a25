"""HeatGrid in a real JupyterLab: each test asserts what the user sees and what Python holds."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import Notebook, settled_box
from workbench.plots.colours import COLOUR_SCALES, ColourAxis, colour_scale
from workbench.plots.style import short_number
from workbench.widgets.shared.javascript import STATIC, read_module

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
    first.shut_down_kernel()
    page.close()
    again = context.new_page()
    notebook = Notebook(again, first.lab, first.path)
    notebook.open()
    sees(again, f"1 head selected{NAN}")
    assert dot(again, 5, 2) == "dark"
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


@pytest.mark.parametrize("shape", [(30, 1), (30, 40), (1, 200), (80, 512)])
@pytest.mark.parametrize("width", [1100, 1900])
def test_every_shape_fits_the_page(run_notebook: Run, page: Page, shape: tuple[int, int], width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    notebook = run_notebook(
        f"""
import numpy as np
from workbench.widgets.grid.grid import HeatGrid
rows, cols = {shape}
labels = range(cols) if cols > 100 else [f" token number {{i}}" for i in range(cols)]
grid = HeatGrid(np.linspace(-1, 1, rows * cols).reshape(rows, cols), rows=range(rows), cols=labels, col_title="Column")
grid
"""
    )
    # Not cut, once it has followed the width of the page.
    fits = (
        "() => { const one = document.querySelector('.hg-scroll'); return one && one.scrollWidth <= one.clientWidth; }"
    )
    page.wait_for_function(fits)
    # Labels end before the edges of the picture.
    assert page.locator(".hg-picture").evaluate(
        """(canvas) => {
          const { width, height } = canvas, ctx = canvas.getContext('2d');
          const sides = [[0, 0, width, 1], [0, height - 1, width, 1], [0, 0, 1, height], [width - 1, 0, 1, height]];
          return sides.every((side) => ctx.getImageData(...side).data.every((value) => value === 0));
        }"""
    ), "a label is cut"
    last = shape[0] - 1, shape[1] - 1
    click(page, *last, shape)
    sees(page, "1 cell selected")
    assert notebook.ask("grid.selected") == [list(last)]


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


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_themes_and_accessibility(run_notebook: Run, page: Page, theme: str) -> None:
    notebook = run_notebook(GRID)
    click(page, 5, 2)
    sees(page, f"1 head selected{NAN}")
    notebook.theme(theme)
    ground = "light" if "Light" in theme else "dark"
    page.wait_for_function(
        """(ground) => {
          const canvas = document.querySelector('.hg-picture'), cells = document.querySelector('.hg-cells');
          const bar = canvas.getContext('2d').getImageData(cells.offsetLeft + 90, 8, 1, 1).data;  // at zero
          const sum = bar[0] + bar[1] + bar[2];
          return ground === 'light' ? sum > 700 : sum < 150;
        }""",
        arg=ground,
    )
    page.mouse.move(*point(page, 6, 3))
    expect(page.locator(".hg-tip")).to_be_visible()
    notebook.execute("grid.problem = 'A problem, shown'")
    expect(page.locator(".hg-problem")).to_be_visible()
    expect(page.get_by_role("grid", name="Heads: 30 x 9, Layer by Head")).to_be_visible()
    assert notebook.ask("grid.selected") == [[5, 2]]
    checked = Axe().run(page, context=".hg-root")
    assert checked.violations_count == 0, checked.generate_report()


def test_a_token_is_shown_and_never_run(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(
        """
import numpy as np
from workbench.widgets.grid.grid import HeatGrid
bad = "<img src=x onerror=alert(1)>"
grid = HeatGrid(np.ones((2, 3)), rows=[bad, "b"], cols=["a", bad, "c"], title=bad, row_title=bad, col_title=bad,
                unit=bad, kind=bad, marked=[1])
bars = {"tokens": [bad], "weights": [1]}
grid.observe(lambda change: change["new"] and grid.show_tip(change["new"], bad, bars), "hover")
grid
"""
    )
    bad = "<img src=x onerror=alert(1)>"
    expect(page.locator(".hg-title")).to_have_text(bad)
    page.mouse.move(*point(page, 0, 1, (2, 3)))
    expect(page.locator(".hg-tip-name")).to_have_text(f"{bad}, {bad}")
    expect(page.locator(".hg-tip-text")).to_have_text(bad)
    click(page, 0, 1, (2, 3))
    sees(page, f"1 {bad} selected")
    assert notebook.ask("grid.selected") == [[0, 1]]
    assert page.locator(".hg-root img").count() == 0  # a dialog or a request for x would fail the test as well


# What the map's colour function gave for both grounds when it had its own colours, before plots/colours.py.
SCALED = [-2, -1, -0.95, -0.73, -0.5, -0.1, -0.031, 0, 0.031, 0.05, 0.25, 0.5, 0.7, 0.85, 0.999, 1, 3]
RDBU = {
    "light": "053061 053061 0c3e74 2d76b4 6bacd1 e8f2f8 f8fbfd ffffff fff9f6 fff6f1 fbceb6 e58368 c43c3c 9f1228 67001f"
    " 67001f 67001f",
    "dark": "c6e2f2 c6e2f2 b9dbed 76b4d5 3781b7 1f3145 20272f 202326 292426 2f2526 702f29 c24f41 e58368 f6b394 fcdccb"
    " fcdccb fcdccb",
}


def test_the_colours_in_the_browser_are_the_tables(page: Page) -> None:
    module = read_module("grid/colours.js") + "\nexport { ramp };"
    colours = """async ([module, values, stops, low]) => {
      const { ramp } = await import(URL.createObjectURL(new Blob([module], { type: 'text/javascript' })));
      return values.map(ramp(stops, low));
    }"""
    scale = colour_scale("RdBu").browser
    for ground, expected in RDBU.items():
        rgba = page.evaluate(colours, [module, SCALED, scale[ground], scale["low"]])
        assert " ".join(bytes(color[:3]).hex() for color in rgba) == expected
        assert {color[3] for color in rgba} == {255}
    for scale in COLOUR_SCALES:  # as in the PNG, up to the rounding of halves
        values = [scale.low + i * (1 - scale.low) / 40 for i in range(41)]
        rgba = page.evaluate(colours, [module, values, scale.browser["light"], scale.low])
        assert np.abs(np.array(rgba)[:, :3] - scale.rgb(np.array(values)).astype(int)).max() <= 1


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_a_value_is_in_the_same_place_in_the_browser(page: Page, low: float) -> None:
    module = read_module("grid/colours.js") + "\nexport { axisOf };"
    places = """async ([module, values, axis, low]) => {
      const { axisOf } = await import(URL.createObjectURL(new Blob([module], { type: 'text/javascript' })));
      const { place, ticks, cut } = axisOf(axis, low);
      return { places: values.map(place), ticks, cut };
    }"""
    values = [low * 20, low, -0.1 * low, 0, 0.004, 0.5, 1.65, 2.41, 16.4, 20]
    for mode, limit, clip in (
        ("linear", 16.4, 2.0),
        ("symlog", 16.4, 2.0),
        ("symlog", 0.03, 0.01),
        ("clip", 16.4, 2.0),
    ):
        axis = ColourAxis(mode, limit, clip)  # pyright: ignore[reportArgumentType]
        shown = page.evaluate(places, [module, values, {"mode": mode, "limit": limit, "clip": clip}, low])
        np.testing.assert_allclose(shown["places"], axis.place(np.array(values)), atol=1e-12)
        np.testing.assert_allclose(shown["ticks"], axis.ticks(low), atol=1e-12)
        assert shown["cut"] is axis.cut is (mode == "clip")


def test_a_sequential_scale_begins_at_zero(run_notebook: Run, page: Page) -> None:
    run_notebook(
        """
from workbench.widgets.grid.grid import HeatGrid
grid = HeatGrid([[0.0, 0.25, 1.0]], rows=["a"], cols="xyz", limit=1, scale="viridis", selectable=False)
grid
"""
    )
    pixel = """([from, c]) => {
      const canvas = document.querySelector('.hg-picture'), cells = document.querySelector('.hg-cells');
      const x = cells.offsetLeft + (c + 0.5) * (cells.offsetWidth / 3), y = cells.offsetTop + cells.offsetHeight / 2;
      const at = from === 'bar' ? [cells.offsetLeft, 8] : [x, y];
      return [...canvas.getContext('2d').getImageData(...at, 1, 1).data].slice(0, 3);
    }"""
    cells(page).wait_for()
    scale = colour_scale("viridis")
    shown = [page.evaluate(pixel, ["cell", c]) for c in range(3)]
    assert np.abs(np.array(shown) - scale.rgb(np.array([0.0, 0.25, 1.0])).astype(int)).max() <= 1
    assert page.evaluate(pixel, ["bar", 0]) == scale.rgb(np.array(0.0)).tolist()


WORDS = """
from workbench.widgets.grid.grid import HeatGrid
grid = HeatGrid([[0.0, 0.5, 1.0]], rows=["a"], cols="xyz", limit=1, scale="viridis", title="Words")
grid.cell_height = 16
grid.set_values([[0.0, 0.5, 1.0]], limit=1, words=[["·Paris", "אבגד", "word" * 20]])
grid
"""
# In each of three cells the darkest and the lightest pixel, and whether the pixels at its edges have the cell's colour.
INK = """() => {
  const canvas = document.querySelector('.hg-picture'), cells = document.querySelector('.hg-cells');
  const ratio = canvas.width / canvas.offsetWidth, w = cells.offsetWidth / 3, h = cells.offsetHeight;
  return [0, 1, 2].map((c) => {
    const at = (x, y, wide, high) => [...canvas.getContext('2d').getImageData(
      Math.round(x * ratio), Math.round(y * ratio), Math.round(wide * ratio), Math.round(high * ratio)).data];
    const sums = (data) => data.filter((_, i) => i % 4 < 3)
      .reduce((all, v, i) => (i % 3 ? (all[all.length - 1] += v) : all.push(v), all), []);
    const left = cells.offsetLeft + c * w, top = cells.offsetTop;
    const inside = sums(at(left + 3, top + 2, w - 6, h - 4));
    const edges = [...sums(at(left + 1, top + 2, 1, h - 4)), ...sums(at(left + w - 2, top + 2, 1, h - 4))];
    return { dark: Math.min(...inside), light: Math.max(...inside), edge: Math.max(...edges) - Math.min(...edges) };
  });
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_in_cells_can_be_read_and_stay_in_them(run_notebook: Run, page: Page, theme: str) -> None:
    notebook = run_notebook(WORDS)
    if theme == "dark":
        notebook.theme("JupyterLab Dark")
    cells(page).wait_for()
    page.wait_for_timeout(300)
    first, _, last = page.evaluate(INK)
    assert first["light"] > 600 and last["dark"] < 120, "white on violet, black on yellow"
    assert all(cell["edge"] <= 12 for cell in page.evaluate(INK)), "no word leaves its cell"
    page.mouse.move(*point(page, 0, 1, (1, 3)))
    expect(page.get_by_role("gridcell", include_hidden=True)).to_contain_text("0")


def test_a_word_is_cut_after_a_whole_character(page: Page) -> None:
    module = read_module("grid/words.js") + "\nexport { cutTo };"
    cut = """async ([module, words, most]) => {
      const { cutTo } = await import(URL.createObjectURL(new Blob([module], { type: 'text/javascript' })));
      return words.map((word) => cutTo(word, (text) => text.length <= most));
    }"""
    words = ["Paris", "Parisian", "👩‍👩‍👧", "e\u0301e\u0301e\u0301e\u0301"]
    assert page.evaluate(cut, [module, words, 5]) == ["Paris", "Pari…", "", "e\u0301e\u0301…"]


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
