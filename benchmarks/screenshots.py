"""Pictures of the panels for the README: a real JupyterLab in headless Chromium, light and dark.

python -m benchmarks.screenshots [folder]

Needs Chromium and the bundled model; takes some minutes. Writes ``docs/images/panel-*.png``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from playwright.sync_api import FloatRect, ViewportSize, sync_playwright

from tests.browser.conftest import Notebook, serve
from tests.conftest import CHROMIUM, CHROMIUM_ARGS
from workbench.widgets.app_tabs import TABS

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
SIZE: ViewportSize = {"width": 1500, "height": 1400}
MOST_BYTES = 1_500_000
# All maps, four heads and an MLP picked and ablated, then the default edit.
CELL = """import workbench as wb

model = wb.load_model()
app = wb.Workbench(model, fact="france-capital")
app.picker.compute().wait()
app.picker.top("heads", 4)
app.picker.selection = app.picker.selection | wb.Selection("L13MLP")
app.picker.ablation.run("zero").wait()
app.editor.controls["Use the default"].click()
app.editor.run().wait()
app.comparison.strength = 0.75
app.comparison.compare().wait()
app.comparison.ask("What is the capital of France?").wait()
app.probing.probes = ("lens", "context", "strength")
app.probing.run().wait()
app"""


def main(folder: Path) -> None:
    """Write the pictures, and say how large they are together."""
    with opened(CELL, SIZE) as notebook:
        pictures = take(notebook, folder)
    total = sum(path.stat().st_size for path in pictures)
    print(f"{len(pictures)} pictures, {total / 1000:.0f} kB")
    if total > MOST_BYTES:
        raise SystemExit(f"Too large together: at most {MOST_BYTES / 1000:.0f} kB.")


@contextmanager
def opened(cell: str, size: ViewportSize) -> Iterator[Notebook]:
    """A notebook of one cell in a JupyterLab of its own, opened in headless Chromium, not yet run.

    Args:
        cell: Its code.
        size: Of the page, pixels.
    """
    with tempfile.TemporaryDirectory() as temporary:
        home, notebooks = Path(temporary, "home"), Path(temporary, "notebooks")
        home.mkdir()
        notebooks.mkdir()
        content = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell)],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        nbformat.write(content, notebooks / "workbench.ipynb")
        with serve(home, notebooks) as lab, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGS)
            page = browser.new_page(viewport=size)
            page.set_default_timeout(1_200_000)
            notebook = Notebook(page, lab, "workbench.ipynb")
            notebook.open()
            notebook.command("application:toggle-left-area")
            yield notebook
            browser.close()


def take(notebook: Notebook, folder: Path) -> list[Path]:
    """Run the notebook once and photograph each tab in each theme."""
    notebook.run_all()
    page = notebook.page
    panel, pictures = page.locator(".wb-panel").first, []
    for theme, full_name in THEMES.items():
        notebook.theme(full_name)
        for tab in TABS:
            outer = next((one for one in TABS if one.name == tab.within), tab)
            page.get_by_role("tab", name=outer.title).click()
            if tab.within:
                page.get_by_role("button", name=tab.title, exact=True).click()
            page.wait_for_timeout(1500)  # the maps are drawn
            panel.scroll_into_view_if_needed()
            box = panel.bounding_box()
            assert box is not None
            # What fits on a screen: the texts of an evaluation go on for pages.
            clip: FloatRect = {**box, "height": min(box["height"], 1150.0)}
            path = folder / f"panel-{tab.picture}-{theme}.png"
            page.screenshot(path=path, clip=clip)
            pictures.append(path)
            print(path)
    return pictures


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
