"""How long a click takes in a real browser, until the picture shows that Python has it.

    python -m benchmarks.clicks

Needs Chromium and the bundled model. A real JupyterLab in headless Chromium; each time is taken in the page, from the
event to the first frame after the change that Python answered with. On a busy machine the times say nothing: the load
is written beside them. Prints a Markdown table and writes ``benchmarks/results/clicks.json``.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import Locator, Page, expect, sync_playwright

from benchmarks.lib.code import code_of
from tests.browser.conftest import Lab, Notebook, serve
from tests.conftest import CHROMIUM, CHROMIUM_ARGS

CLICKS, DRAGS, HOVERS, STEPS = 30, 10, 30, 20
PAUSE = 200  # milliseconds between two actions, as a person makes
ROWS, COLS, BOX = 80, 512, (60, 100)
LARGE = f"""import numpy as np
from workbench.widgets.grid.grid import HeatGrid

values = np.random.default_rng(0).normal(size=({ROWS}, {COLS}))
grid = HeatGrid(values, rows=range({ROWS}), cols=range({COLS}), title="Large")
grid"""
MODEL = """import torch

import workbench as wb
from workbench.types import EditStage, GateDelta

model = wb.load_model()
fact = wb.load_facts()["france-capital"]"""
PICKER = """picker = wb.CircuitPicker(model, fact, compute=False)
picker.compute("heads", "mlps").wait()
picker"""
# An edit by hand, which shuts one head and, in the lowest layer of a default edit, a neuron: a step of the slider costs
# what it costs with a fitted one.
COMPARISON = """gate, neurons = torch.ones(model.shape.site_size("z")), torch.ones(model.shape.d_mlp)
gate[4 * 64 : 5 * 64], neurons[0] = 0.0, 0.0
edit = wb.Edit(
    stages=(EditStage("learn", GateDelta({(23, "z"): gate, (0, "post"): neurons})),),
    selection=wb.Selection("L23H4 L0N0"),
    selector="given",
    recipe=wb.Recipe(stages=("learn",)),
    facts=(fact,),
    retain_ids=(),
    history=(),
    base_fingerprint=model.fingerprint,
    base_name=model.name,
)
view = wb.CompareView(model, edit)
view"""
# Times from an event to the first frame that shows something else than at the event. `SHOWN` reads it; null: not yet.
WATCH = """([event, rootSelector]) => {
  const root = document.querySelector(rootSelector), shown = SHOWN;
  window.times = [];
  let start = null, before = null;
  document.addEventListener(event, () => ([start, before] = [performance.now(), shown(root)]), true);
  new MutationObserver(() => {
    if (start === null) return;
    const now = shown(root);
    if (now === null || now === before) return;
    const began = start;
    start = null;
    requestAnimationFrame(() => window.times.push(performance.now() - began));
  }).observe(root, { childList: true, characterData: true, attributes: true, subtree: true });
}"""
ANSWERED = r"""(root) => {
  const text = root.querySelector('.hg-status').textContent;
  return /waiting|box/.test(text) ? null : text;
}"""
COUNTED = r"""(root) => {
  const count = root.innerText.match(/(\d+) components?, |Nothing selected/);
  return /waiting/.test(root.innerText) || !count ? null : count[0];
}"""
PATTERN = """(root) => {
  const tip = root.querySelector('.hg-tip:not([hidden])');
  return tip && tip.querySelector('.hg-bars') ? tip.querySelector('.hg-tip-name').textContent : null;
}"""
REDRAWN = """(root) => {
  const label = root.querySelector("svg[aria-label^='P(whole answer)']").getAttribute('aria-label');
  const strength = root.querySelector('.wb-slider output').textContent;
  return label.includes(`strength ${strength}.`) ? label : null;
}"""


@dataclass(frozen=True)
class Timing:
    """One kind of action.

    Args:
        what: In words.
        goal: Median, milliseconds.
        times: Each one, milliseconds.
    """

    what: str
    goal: int
    times: list[float]

    def row(self) -> str:
        """A row of the Markdown table."""
        low, median, high = statistics.quantiles(self.times, n=4)
        met = "yes" if median <= self.goal else "no"
        return f"| {self.what} | {self.goal} | {median:.0f} [{low:.0f}, {high:.0f}] | {len(self.times)} | {met} |"


def main() -> None:
    """Measure, print, write."""
    load, code = os.getloadavg(), code_of(__file__, without=())
    with tempfile.TemporaryDirectory() as temporary:
        home, folder = Path(temporary, "home"), Path(temporary, "notebooks")
        home.mkdir()
        folder.mkdir()
        with serve(home, folder) as lab, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGS)
            version = browser.version
            timings: list[Timing] = []
            for name, cells, measure in (
                ("large", [LARGE], on_a_large_map),
                ("picker", [MODEL, PICKER], in_the_picker),
                ("slider", [MODEL, COMPARISON], with_the_slider),
            ):
                page = browser.new_page(viewport={"width": 1100, "height": 900})
                timings += measure(page, opened(page, lab, name, cells))
                page.close()
            browser.close()
    print("| from the event to the picture | goal (ms) | median [quartiles] (ms) | n | met |\n|---|---|---|---|---|")
    for timing in timings:
        print(timing.row())
    machine = {"cores": os.cpu_count(), "load before": load, "load after": os.getloadavg()}
    print(f"\nChromium {version}, {machine['cores']} cores, load {load[0]:.1f} before, {os.getloadavg()[0]:.1f} after.")
    out = Path("benchmarks/results/clicks.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    data = {"code": code.to_dict(), "machine": machine | {"processor": platform.processor(), "chromium": version}}
    out.write_text(json.dumps(data | {"timings": [asdict(t) for t in timings]}, indent=1))


def opened(page: Page, lab: Lab, name: str, cells: list[str]) -> Notebook:
    """A notebook with these cells, run."""
    written = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(written, lab.folder / f"{name}.ipynb")
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    notebook = Notebook(page, lab, f"{name}.ipynb")
    notebook.open()
    notebook.run_all()
    return notebook


def watched(page: Page, event: str, root: str, shown: str) -> Callable[[int], list[float]]:
    """Take times from now on. Returns what waits for so many of them and gives them."""
    page.evaluate(WATCH.replace("SHOWN", shown), [event, root])

    def times(n: int) -> list[float]:
        page.wait_for_function("(n) => window.times.length >= n", arg=n)
        return page.evaluate("window.times.splice(0)")

    return times


def point(cells: Locator, row: int, col: int, rows: int, cols: int) -> tuple[float, float]:
    """The middle of a cell on the page."""
    cells.scroll_into_view_if_needed()
    box = cells.bounding_box()
    assert box is not None
    return box["x"] + (col + 0.5) * box["width"] / cols, box["y"] + (row + 0.5) * box["height"] / rows


def on_a_large_map(page: Page, notebook: Notebook) -> list[Timing]:
    """Clicks, and boxes of 6,000 cells, on 80 x 512 cells."""
    cells, times = page.locator(".hg-cells").first, watched(page, "pointerup", ".hg-root", ANSWERED)
    clicks: list[float] = []
    for i in range(CLICKS):
        page.mouse.move(*point(cells, 2 * i, 16 * i + 3, ROWS, COLS))
        page.wait_for_timeout(PAUSE)
        page.mouse.down()
        page.mouse.up()
        clicks += times(1)
    assert notebook.ask("len(grid.selected)") == CLICKS
    drags: list[float] = []
    for i in range(DRAGS):
        notebook.execute("grid.selected = []")
        page.wait_for_timeout(PAUSE)
        page.keyboard.down("Shift")
        page.mouse.move(*point(cells, i, 30 * i, ROWS, COLS))
        page.mouse.down()
        page.mouse.move(*point(cells, i + BOX[0] - 1, 30 * i + BOX[1] - 1, ROWS, COLS), steps=4)
        page.mouse.up()
        page.keyboard.up("Shift")
        drags += times(1)
        assert notebook.ask("len(grid.selected)") == BOX[0] * BOX[1]
    return [
        Timing(f"click, {ROWS} x {COLS} map", 100, clicks),
        Timing(f"{BOX[0] * BOX[1]:,} cells in one drag", 300, drags),
    ]


def in_the_picker(page: Page, notebook: Notebook) -> list[Timing]:
    """Clicks on heads until the size of the selection is shown, and attention patterns on hover."""
    rows, cols = notebook.ask("[model.shape.n_layers, model.shape.n_heads]")
    cells, times = (
        page.locator(".hg-root").nth(1).locator(".hg-cells"),
        watched(page, "pointerup", ".wb-panel", COUNTED),
    )
    clicks: list[float] = []
    for i in range(CLICKS):
        page.mouse.move(*point(cells, i, (4 * i) % cols, rows, cols))
        page.wait_for_timeout(PAUSE)
        page.mouse.down()
        page.mouse.up()
        clicks += times(1)
    assert notebook.ask("len(picker.selection)") == CLICKS
    page.mouse.move(*point(cells, 0, 0, rows, cols))
    expect(page.locator(".hg-bars")).to_be_visible()  # the patterns of all heads are there now
    times = watched(page, "pointermove", ".wb-panel", PATTERN)
    hovers: list[float] = []
    for i in range(HOVERS):
        page.wait_for_timeout(PAUSE)
        page.mouse.move(*point(cells, i, (2 * i + 1) % cols, rows, cols))
        hovers += times(1)
    return [Timing("click, head map of the picker", 100, clicks), Timing("attention pattern on hover", 150, hovers)]


def with_the_slider(page: Page, notebook: Notebook) -> list[Timing]:
    """Steps of the strength slider until the probabilities are those of the new strength."""
    slider = page.get_by_role("slider", name="Strength")
    expect(page.locator(".hg-root").first).to_be_visible(timeout=180_000)  # the maps that the view makes by itself
    assert not notebook.ask("view.busy")
    slider.focus()
    times = watched(page, "keydown", ".wb-panel", REDRAWN)
    steps: list[float] = []
    for _ in range(STEPS):
        page.wait_for_timeout(PAUSE)
        slider.press("ArrowLeft")
        steps += times(1)
    assert abs(notebook.ask("view.strength") - (1 - 0.05 * STEPS)) < 1e-6
    return [Timing("step of the strength slider", 250, steps)]


if __name__ == "__main__":
    main()
