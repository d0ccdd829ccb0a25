"""What a hand does with maps and with the ranked list in a real JupyterLab: what is seen, and what Python hears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Notebook
from tests.browser.test_grid import click, drag, point

pytestmark = pytest.mark.browser

Run = Callable[..., Notebook]

# Two maps of one size and a list; whoever owns them hears what is done.
MAPS = """
import numpy as np
from ipywidgets import HBox, VBox
from workbench.widgets.grid.bar_list import BarList
from workbench.widgets.grid.grid import HeatGrid
values = np.zeros((30, 9))
values[23, 4], values[29, 1], values[23, 5] = 16.4, 2.41, 1.65
def made(shown, **options):
    return HeatGrid(shown, rows=[f"L{i}" for i in range(30)], height=300, unit="logits", naming="{row}{col}", **options)
grid = made(values, cols=[f"H{i}" for i in range(9)], title="Heads", kind="head", groups=[0, 3, 6], group_name="KV")
column = made(values[:, :1], cols=["MLP"], title="MLPs", kind="MLP")
bars = BarList([(f"L{i}H{i % 9}", 30.0 - i) for i in range(30)], title="Strongest heads", kind="head", height=200)
heard = []
for widget in (grid, column, bars):
    def pinned(item, widget=widget):
        heard.append(item)
        widget.pinned = [item]
    widget.on_pin(pinned)
    widget.on_undo(lambda: heard.append("undo"))
    widget.on_redo(lambda: heard.append("redo"))
for widget, width in ((grid, 420), (column, 190), (bars, 300)):
    widget.layout.flex = f"0 0 {width}px"
HBox([grid, column, bars]).add_class("wb-panel")
"""
PIXEL = """([map, canvas, r, c, x, y]) => {
  const root = document.querySelectorAll('.hg-root')[map];
  const cells = root.querySelector('.hg-cells'), picture = root.querySelector(canvas);
  const [rows, cols] = map === 0 ? [30, 9] : [30, 1];
  const left = cells.offsetLeft + (c + x) * cells.offsetWidth / cols;
  const top = cells.offsetTop + (r + y) * cells.offsetHeight / rows;
  return [...picture.getContext('2d').getImageData(Math.round(left), Math.round(top), 1, 1).data];
}"""


def pixel(page: Page, row: int, col: int, *, map: int = 0, canvas: str = ".hg-picture", at: Any = (0.5, 0.5)) -> Any:
    """Red, green, blue and alpha of a cell's middle, or of another place in it."""
    return page.evaluate(PIXEL, [map, canvas, row, col, *at])


def apart(one: list[int], other: list[int]) -> int:
    """How far two colours are from each other: the sum over channels."""
    return sum(abs(a - b) for a, b in zip(one[:3], other[:3], strict=True))


def held_drag(page: Page, key: str, first: tuple[int, int], last: tuple[int, int]) -> None:
    page.keyboard.down(key)
    drag(page, first, last)
    page.keyboard.up(key)


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("option", name=f"{name}, ")


def boxes_by_dragging(page: Page, notebook: Notebook) -> None:
    notebook.execute("grid.selected = []")
    expect(page.locator(".hg-status").first).to_have_text("0 heads selected")
    drag(page, (2, 3), (3, 5))
    notebook.wait_for("grid.selected", [[r, c] for r in (2, 3) for c in (3, 4, 5)])
    expect(page.locator(".hg-status").first).to_have_text("6 heads selected")
    held_drag(page, "Alt", (3, 4), (4, 6))
    notebook.wait_for("grid.selected", [[2, 3], [2, 4], [2, 5], [3, 3]])
    held_drag(page, "Control", (2, 5), (2, 4))
    notebook.wait_for("grid.selected", [[2, 3], [3, 3]])


def shaking_clicks(page: Page, notebook: Notebook) -> None:
    """A press that moves two pixels over the border of a cell is a click on the cell where it began."""
    notebook.execute("grid.selected = []")
    expect(page.locator(".hg-status").first).to_have_text("0 heads selected")
    x, y = point(page, 10, 3)
    box = page.locator(".hg-cells").first.bounding_box()
    assert box is not None
    edge = x + box["width"] / 18
    page.mouse.move(edge - 1, y)
    page.mouse.down()
    page.mouse.move(edge + 1, y)
    page.mouse.up()
    notebook.wait_for("grid.selected", [[10, 3]])


def undone_by_keys(page: Page, notebook: Notebook) -> None:
    notebook.execute("heard.clear()")
    page.locator(".hg-cells").first.focus()
    for keys in ("Control+z", "Control+Shift+Z", "Control+y", "Meta+z"):
        page.keyboard.press(keys)
    notebook.wait_for("heard", ["undo", "redo", "redo", "undo"])


def pinned_by_hand(page: Page, notebook: Notebook) -> None:
    notebook.execute("heard.clear(); grid.selected = grid.pinned = column.pinned = []")
    page.mouse.dblclick(*point(page, 23, 4))
    notebook.wait_for("[heard, grid.pinned, grid.selected]", [[[23, 4]], [[23, 4]], []])
    page.keyboard.press("ArrowRight")
    page.keyboard.press("p")
    notebook.wait_for("[heard, grid.pinned]", [[[23, 4], [23, 5]], [[23, 5]]])
    page.locator(".hg-names").nth(1).click(position={"x": 12, "y": 5})
    notebook.wait_for("column.pinned", [[0, 0]])


def told_apart(page: Page, notebook: Notebook) -> None:
    notebook.execute("grid.scale_mode = 'symlog'")
    page.wait_for_function(f"() => ({PIXEL})([0, '.hg-picture', 23, 5, 0.5, 0.5])[2] < 190")
    first, second, third, zero = (pixel(page, *cell) for cell in ((23, 4), (29, 1), (23, 5), (0, 0)))
    assert apart(third, zero) > 150 and apart(third, second) > 25 and apart(first, second) > 150
    page.mouse.move(*point(page, 23, 5))
    expect(page.locator(".hg-tip-value").first).to_have_text("1.65 logits")
    page.mouse.move(2, 2)
    notebook.execute("grid.scale_mode = 'linear'")
    page.wait_for_function(f"() => ({PIXEL})([0, '.hg-picture', 23, 5, 0.5, 0.5])[2] > 200")


def read_in_the_tip(page: Page, notebook: Notebook) -> None:
    notebook.execute("grid.selected = [(29, 1)]")
    page.mouse.move(*point(page, 29, 1))
    tip = page.locator(".hg-tip").first
    expect(tip.locator(".hg-tip-head")).to_have_text("L29H1: 2.41 logits")
    expect(tip.locator(".hg-tip-acts")).to_have_text("A click deselects it, a double click or P pins it")
    notebook.execute("grid.selected = []")
    expect(tip.locator(".hg-tip-acts")).to_have_text("A click selects it, a double click or P pins it")
    page.mouse.move(2, 2)


def strong_in_one_map_only(page: Page, notebook: Notebook) -> None:
    notebook.execute("grid.selected = column.selected = []; grid.cursor = [5, 2]; column.cursor = [5, 0]")
    page.locator(".hg-cells").first.focus()
    marked = f"(map) => ({PIXEL})([map, '.hg-marks', 5, map ? 0 : 2, 0.02, 0.5])[3] > 0"
    page.wait_for_function(f"() => ({marked})(0) && !({marked})(1)")
    page.locator(".hg-cells").nth(1).focus()
    page.wait_for_function(f"() => !({marked})(0) && ({marked})(1)")


def listed(page: Page, notebook: Notebook) -> None:
    notebook.execute("bars.selected = []; bars.pinned = []; bars.cursor = None; heard.clear()")
    status = page.locator(".bl-status")
    expect(status).to_have_text("0 of 30 heads selected")
    row(page, "L2H2").click()
    notebook.wait_for("bars.selected", ["L2H2"])
    expect(row(page, "L2H2")).to_have_attribute("aria-selected", "true")
    for key in ("ArrowDown", "Space", "ArrowUp", "ArrowUp", "Enter", "p"):
        page.keyboard.press(key)
    notebook.wait_for("[bars.selected, bars.pinned, heard]", [["L1H1", "L2H2", "L3H3"], ["L1H1"], ["L1H1"]])
    expect(status).to_have_text("3 of 30 heads selected")
    row(page, "L2H2").click()
    notebook.wait_for("bars.selected", ["L1H1", "L3H3"])
    page.keyboard.press("Control+z")
    notebook.wait_for("heard", ["L1H1", "undo"])


def test_a_drag_a_shaking_hand_and_a_finger(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(MAPS)
    boxes_by_dragging(page, notebook)
    shaking_clicks(page, notebook)
    notebook.execute("grid.selected = []")
    # Escape drops the box; what the hand does until it lets go is nothing any more.
    page.mouse.move(*point(page, 2, 2))
    page.mouse.down()
    page.mouse.move(*point(page, 5, 5), steps=3)
    expect(page.locator(".hg-status").first).to_have_text("0 heads selected · box of 4 × 4")
    expect(page.locator(".hg-cells").first).to_have_css("cursor", "copy")
    page.keyboard.press("Escape")
    page.mouse.move(*point(page, 7, 7), steps=3)
    page.mouse.up()
    # A finger that drags scrolls: no box, and no click where it ends.
    page.locator(".hg-cells").first.evaluate(
        """(cells) => {
          const area = cells.getBoundingClientRect();
          const fire = (type, at) => cells.dispatchEvent(new PointerEvent(type, { pointerType: 'touch', pointerId: 7,
            bubbles: true, button: 0, clientX: area.left + area.width / 2, clientY: area.top + area.height * at }));
          fire('pointerdown', 0.2), fire('pointermove', 0.4), fire('pointermove', 0.6), fire('pointerup', 0.6);
        }"""
    )
    expect(page.locator(".hg-cells").first).to_have_css("touch-action", "pan-x pan-y")
    click(page, 20, 8)
    notebook.wait_for("grid.selected", [[20, 8]])
    notebook.execute("grid.selectable = False")
    drag(page, (2, 3), (3, 5))
    page.wait_for_timeout(200)  # time for a message that must not come
    assert notebook.ask("[grid.selected, grid.error]") == [[[20, 8]], None]
    expect(page.locator(".hg-cells").first).to_have_css("cursor", "default")


def test_undo_pins_scales_tips_and_cursors(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook("first = 1", MAPS)
    undone_by_keys(page, notebook)
    pinned_by_hand(page, notebook)
    flag = pixel(page, 23, 5, canvas=".hg-marks", at=(0.06, 0.15))
    assert flag[3] > 0 and flag[2] > flag[0]  # the page's blue
    told_apart(page, notebook)
    notebook.execute("grid.scale_mode = 'clip'")  # two of 270 magnitudes are above the 99th percentile: zero
    page.wait_for_timeout(100)
    assert apart(pixel(page, 23, 4), pixel(page, 29, 1)) > 150
    read_in_the_tip(page, notebook)
    strong_in_one_map_only(page, notebook)
    cell = page.locator(".hg-root").first.get_by_role("gridcell", include_hidden=True)
    expect(cell).to_have_text("L5H2 (KV0): 0 logits")
    assert page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length") == 2


def test_the_tip_leaves_the_next_map_free(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(
        MAPS,
        """
weights = [.4, .2, .1, .1, .1, .06, .04]
tokens = ["<|im_start|>", " Japan", "\\n", "\\u202eabc", "a", "b", "c"]
def tell(change):
    if change["new"]:
        grid.show_tip(change["new"], "Attends:", {"tokens": tokens, "weights": weights}, picks="x")
grid.observe(tell, "hover")
""",
    )
    for cell in ((2, 8), (15, 8), (28, 5)):
        page.mouse.move(*point(page, *cell))
        tip = page.locator(".hg-tip").first
        expect(tip.locator(".hg-tip-acts")).to_contain_text("A click selects x, ")
        shown, others = tip.bounding_box(), page.locator(".hg-cells, .bl-list").all()
        assert shown is not None
        for other in others[1:]:
            taken = other.bounding_box()
            assert taken is not None
            beside = shown["x"] + shown["width"] <= taken["x"] or taken["x"] + taken["width"] <= shown["x"]
            over = shown["y"] + shown["height"] <= taken["y"] or taken["y"] + taken["height"] <= shown["y"]
            assert beside or over, cell
    names = page.locator(".hg-tip .hg-token")
    expect(names).to_have_text(["<|im_start|>", "·Japan", "⏎", "\\u202eabc", "a"])
    expect(page.locator(".hg-tip").first).to_contain_text("and 2 more tokens")
    assert notebook.ask("grid.error") is None


def test_a_dark_page_without_jupyterlabs_attribute(run_notebook: Run, page: Page) -> None:
    run_notebook(MAPS)
    light = pixel(page, 0, 0)
    page.emulate_media(color_scheme="dark")
    page.evaluate("() => document.body.removeAttribute('data-jp-theme-light')")
    try:
        page.wait_for_function(f"() => ({PIXEL})([0, '.hg-picture', 0, 0, 0.5, 0.5])[0] < 60")
        expect(page.locator(".hg-root").first).to_have_css("background-color", "rgb(30, 30, 30)")
        expect(page.locator(".bl-root")).to_have_css("background-color", "rgb(30, 30, 30)")
        expect(page.locator(".bl-root")).to_have_css("color", "rgb(230, 230, 230)")
    finally:
        page.evaluate("() => { document.body.dataset.jpThemeLight = 'true'; }")
        page.emulate_media(color_scheme="light")
    page.wait_for_function(f"() => ({PIXEL})([0, '.hg-picture', 0, 0, 0.5, 0.5])[0] > 200")
    assert pixel(page, 0, 0) == light


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_the_ranked_list(run_notebook: Run, page: Page, theme: str) -> None:
    notebook = run_notebook(MAPS)
    notebook.theme(theme)
    listed(page, notebook)
    # It scrolls inside, and the page stays where it is.
    places = "() => [...document.querySelectorAll('.jp-WindowedPanel-outer')].map((node) => node.scrollTop)"
    before = page.evaluate(places)
    page.keyboard.press("End")
    notebook.wait_for("bars.cursor", "L29H2")
    assert page.locator(".bl-list").evaluate("(list) => list.scrollTop") > 100
    assert page.evaluate(places) == before
    expect(row(page, "L29H2")).to_be_in_viewport()
    row(page, "L28H1").hover()
    notebook.wait_for("bars.hover", "L28H1")
    row(page, "L28H1").locator(".bl-pin").click()
    notebook.wait_for("[bars.pinned, 'L28H1' in bars.selected]", [["L28H1"], False])
    notebook.execute("bars.set_rows([('L1H1', 2.0), ('<b>L5H5</b>', -1.0)], title='Others')")
    expect(page.get_by_role("listbox", name="Others").get_by_role("option")).to_have_count(2)
    expect(page.locator(".bl-name")).to_have_text(["L1H1", "<b>L5H5</b>"])
    expect(page.locator(".bl-value")).to_have_text(["2", "−1"])
    checked = Axe().run(page, context=".bl-root")
    assert checked.violations_count == 0, checked.generate_report()
    notebook.execute("bars.selectable = False")
    row(page, "<b>L5H5</b>").click(force=True)  # which is announced as disabled
    page.wait_for_timeout(200)  # time for a message that must not come
    assert notebook.ask("[bars.selected, bars.error]") == [["L1H1"], None]
