"""What a HeatGrid draws in JupyterLab: every shape, both themes, colours, words in cells, and text that is no code."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Notebook
from tests.browser.test_grid import GRID, NAN, cells, click, point, sees
from workbench.plots.colours import COLOUR_SCALES, ColourAxis, colour_scale
from workbench.widgets.shared.javascript import read_module

pytestmark = pytest.mark.browser

Run = Callable[..., Notebook]


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
