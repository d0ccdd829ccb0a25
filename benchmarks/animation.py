"""The README's animated picture: a fact is clicked, edited and compared in a real JupyterLab in headless Chromium.

    python -m benchmarks.animation [FILE]

Every step is done on the page, with mouse and keyboard, as a reader would do it, and photographed when its result is
there. What is waited for is left out. Added to the page are the line above, which says what is done, and a ring where
the pointer is. Needs Chromium and the bundled model; takes some minutes. Writes ``docs/images/workbench.gif``.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, ViewportSize, expect

from benchmarks.screenshots import opened
from tests.browser.conftest import Notebook
from tests.browser.test_picker import point
from tests.browser.test_workbench import button, fill, go_to, panel
from workbench.files.atomic import write_bytes

SIZE: ViewportSize = {"width": 1180, "height": 1500}  # so high that nothing has to be scrolled
HEIGHT, LINE = 690, 54
"""Pixels of a frame, and of the line above within it. A frame is as wide as the panel."""
COLOURS = 255
MOST_BYTES = 1_000_000
CELL = """import workbench as wb

app = wb.Workbench(wb.load_model(), fact="france-capital")
app"""
PICKED = {"L23H4": (23, 4), "L29H1": (29, 1), "L23H1": (23, 1), "L23H0": (23, 0)}
DECORATE = """([words, box, pointer]) => {
  document.querySelectorAll('.film').forEach((one) => one.remove());
  const add = (style, text) => {
    const one = document.body.appendChild(document.createElement('div'));
    one.className = 'film';
    one.textContent = text;
    const fixed = { position: 'fixed', zIndex: 100000, pointerEvents: 'none', boxSizing: 'border-box' };
    Object.assign(one.style, fixed, style);
  };
  add({ left: box.x + 'px', top: box.y + 'px', width: box.width + 'px', height: box.line + 'px', padding: '0 16px',
    background: '#12324f', color: 'white', font: '600 23px sans-serif', lineHeight: box.line + 'px' }, words);
  if (pointer) add({ left: pointer[0] - 17 + 'px', top: pointer[1] - 17 + 'px', width: '34px', height: '34px',
    border: '4px solid #d9480f', borderRadius: '50%' }, '');
}"""


@dataclass(frozen=True)
class Frame:
    """One picture of the film.

    Args:
        png: The picture.
        seconds: How long it is seen.
    """

    png: bytes
    seconds: float


class Film:
    """Photographs the workbench in a notebook.

    Args:
        notebook: It shows a workbench.
    """

    def __init__(self, notebook: Notebook) -> None:
        self.page, self.notebook = notebook.page, notebook
        self.frames: list[Frame] = []

    def shoot(
        self,
        words: str,
        seconds: float,
        *,
        top: Locator | None = None,
        pointer: Locator | tuple[float, float] | None = None,
    ) -> None:
        """Take one frame.

        Args:
            words: The line above.
            seconds: How long the frame is seen.
            top: What comes below the line; the panel by default.
            pointer: Where the ring is: the middle of a control, or a place on the page.
        """
        whole, first = (one.bounding_box() for one in (panel(self.page), top or panel(self.page)))
        assert whole is not None
        assert first is not None
        if isinstance(pointer, Locator):
            box = pointer.bounding_box()
            assert box is not None
            pointer = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        frame = {"x": round(whole["x"]), "y": round(first["y"]) - LINE, "width": round(whole["width"]), "line": LINE}
        self.page.evaluate(DECORATE, [words, frame, pointer])
        self.page.wait_for_timeout(400)  # what was clicked is painted
        clip = {"x": frame["x"], "y": frame["y"], "width": frame["width"], "height": HEIGHT}
        self.frames.append(Frame(self.page.screenshot(clip=clip), seconds))  # type: ignore[arg-type]
        print(f"{len(self.frames)}: {words}", flush=True)

    def wait(self, expression: str, minutes: float = 10) -> None:
        """Wait until an expression is true in the kernel.

        Raises:
            TimeoutError: It is not by then.
        """
        for _ in range(round(120 * minutes)):
            if self.notebook.ask(f"bool({expression})"):
                return
            self.page.wait_for_timeout(500)
        raise TimeoutError(f"{expression} is not true after {minutes:g} minutes.")


def play(film: Film) -> None:
    """From the fact to the comparison."""
    page = film.page
    film.shoot("One cell. Choose a fact: the capital of France is Paris.", 1.8)
    go_to(page, "2 Circuit")
    film.wait("app.picker.maps and not app.picker.status")
    film.shoot("Where is it? A causal trace, heads and MLPs, measured.", 2.0)
    for name, (layer, head) in PICKED.items():
        place = point(page, "Heads", layer, head)
        page.mouse.click(*place)
        film.wait(f"{name!r} in app.picker.selection")
        page.mouse.move(5, 5)  # the tooltip goes
        film.shoot(f"Click what may change: {name}", 1.0, pointer=place)
    edit(film)
    compare(film)


def edit(film: Film) -> None:
    """Run what was picked, to the end of its evaluation."""
    page = film.page
    go_to(page, "3 Edit")
    run = button(page, "Run")
    film.shoot("Run: unlearn Paris, learn Rome, and move nothing else.", 1.8, pointer=run)
    run.click()
    film.wait("app.editor.status.startswith('learn: step 1')")
    film.shoot("It runs in the background, and can be cancelled.", 1.2)
    film.wait("app.editor.job.state == 'done'")
    film.shoot("What it did: rates with intervals, on questions never trained.", 3.0)


def compare(film: Film) -> None:
    """Maps before and after, the slider, and one question to all."""
    page = film.page
    go_to(page, "4 Compare")
    panel(page).get_by_label("Map", exact=True).select_option(label="Attention heads")
    button(page, "Compare").click()
    film.wait("app.comparison.job.state == 'done'")
    film.shoot("Compare: the same maps before and after.", 2.0)
    slider = panel(page).get_by_role("slider", name="Strength")
    bars = panel(page).locator("svg[aria-label^='P(answer) after learn']")
    for strength in (0.0, 0.5, 1.0):
        slider.fill(str(strength))
        expect(bars).to_have_attribute("aria-label", re.compile(f"strength {strength:.2f}"))
        film.shoot(f"Turn its strength: {strength:g}", 1.3, top=slider)
    fill(page, "Ask", "What is the capital of France?")
    ask = button(page, "Ask all")
    ask.click()
    film.wait("app.comparison.asking.state == 'done'")
    film.shoot("Ask the base and the edited model.", 3.0, top=slider, pointer=ask)


def join(frames: Sequence[Frame]) -> bytes:
    """The frames as a GIF that begins again at its end, in one palette for all.

    Args:
        frames: Pictures of one size.
    """
    pictures = [Image.open(io.BytesIO(frame.png)).convert("RGB") for frame in frames]
    width, height = pictures[0].size
    everything = Image.new("RGB", (width, height * len(pictures)))
    for place, picture in enumerate(pictures):
        everything.paste(picture, (0, height * place))
    palette = everything.quantize(COLOURS, dither=Image.Dither.NONE)
    first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    out = io.BytesIO()
    durations = [round(1000 * frame.seconds) for frame in frames]
    first.save(out, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False)
    return out.getvalue()


def main(file: Path) -> None:
    """Play, join, write, and say how large it is."""
    with opened(CELL, SIZE) as notebook:
        notebook.run_all()
        film = Film(notebook)
        play(film)
    content = join(film.frames)
    print(f"{len(film.frames)} frames, {sum(f.seconds for f in film.frames):.0f} s, {len(content) / 1000:.0f} kB")
    if len(content) > MOST_BYTES:
        raise SystemExit(f"Too large: at most {MOST_BYTES / 1000:.0f} kB.")
    write_bytes(file, content)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/workbench.gif"))
