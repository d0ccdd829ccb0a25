"""The README's animated picture: a fact is traced, clicked, ablated, edited and compared in a real JupyterLab.

The browser is headless Chromium.

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

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import FloatRect, Locator, ViewportSize, expect

from benchmarks.screenshots import opened
from tests.browser.conftest import Notebook
from tests.browser.test_picker import point
from tests.browser.test_workbench import button, fill, go_to, panel
from workbench.files.atomic import write_bytes

SIZE: ViewportSize = {"width": 1180, "height": 2400}  # so high that nothing has to be scrolled
HEIGHT, LINE, SPACE = 840, 54, 10
"""Pixels of a frame, of the line above within it, and of white below that. A frame is as wide as the panel."""
COLOURS = 255
MOST_BYTES = 1_000_000
CELL = """import workbench as wb

app = wb.Workbench(wb.load_model())
app"""
Place = tuple[float, float]
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
  const place = { left: box.x + 'px', top: box.y + 'px', width: box.width + 'px' };
  add({ ...place, height: box.line + box.space + 'px', background: 'white' }, '');
  add({ ...place, height: box.line + 'px', padding: '0 16px', background: '#12324f', color: 'white',
    font: '600 23px sans-serif', lineHeight: box.line + 'px' }, words);
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
        notebook: It shows a workbench, ``app``.
    """

    def __init__(self, notebook: Notebook) -> None:
        self.page, self.notebook = notebook.page, notebook
        self.frames: list[Frame] = []

    def shoot(self, words: str, seconds: float, *, top: Locator | None = None, pointer: Place | None = None) -> None:
        """Take one frame.

        Args:
            words: The line above.
            seconds: How long the frame is seen.
            top: What comes below the line; the panel by default.
            pointer: Where the ring is, on the page.
        """
        whole = box_of(panel(self.page))
        y = round(box_of(top or panel(self.page))["y"]) - SPACE - LINE
        frame = {"x": round(whole["x"]), "y": y, "width": round(whole["width"])}
        self.page.evaluate(DECORATE, [words, frame | {"line": LINE, "space": SPACE}, pointer])
        self.page.wait_for_timeout(400)  # what was clicked is painted
        clip = FloatRect(**frame, height=HEIGHT)
        self.frames.append(Frame(self.page.screenshot(clip=clip), seconds))
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


def box_of(what: Locator) -> FloatRect:
    """Where something is on the page."""
    box = what.bounding_box()
    assert box is not None, "it is not in sight"
    return box


def beside_its_words(control: Locator) -> Place:
    """Where the ring of a button is: on its right, so that its words can be read."""
    box = box_of(control)
    return box["x"] + 0.88 * box["width"], box["y"] + box["height"] / 2


def play(film: Film) -> None:
    """From the fact to the comparison."""
    expect(panel(film.page).get_by_text(re.compile("^Traced token:"))).to_be_visible(timeout=120_000)
    film.shoot("One cell. Choose a fact: the capital of France is Paris.", 1.8)
    click(film)
    edit(film)
    compare(film)


def click(film: Film) -> None:
    """The maps, a click on each of the heads, and what the answer is without them."""
    page = film.page
    button(page, r"Where does it live\?").click()
    film.wait("app.picker.maps and not app.picker.status")
    top = panel(page).get_by_text(re.compile("^Recovery of")).locator("visible=true")
    film.shoot("Where is it? A causal trace, heads, MLPs, and what they say in a sentence.", 2.4, top=top)
    for name, (layer, head) in PICKED.items():
        place = point(page, "Heads", layer, head)
        page.mouse.click(*place)
        film.wait(f"{name!r} in app.selection")
        page.mouse.move(5, 5)  # the tooltip goes
        film.shoot(f"Click components: {name}", 1.0, top=top, pointer=place)
    ablate = button(page, "Ablate selection")
    ablate.scroll_into_view_if_needed()
    ablate.click()
    film.wait("app.picker.ablation.result is not None and app.picker.ablation.result.controls")
    film.shoot("Ablate them: what the answer loses, beside random heads.", 2.6, top=ablate)


def edit(film: Film) -> None:
    """Run the default edit, to the end of its evaluation."""
    page = film.page
    go_to(page, "3 Edit")
    button(page, "Use the default").click()
    run = button(page, "Run")
    film.shoot(
        "Run: unlearn Paris, learn Rome, in the default's neurons or in what is picked.",
        1.8,
        pointer=beside_its_words(run),
    )
    run.click()
    film.wait("__import__('re').match(r'learn (1[2-9]|2[0-9]) of', app.editor.status)", minutes=15)
    film.shoot("It runs in the background.", 1.5)
    film.wait("app.editor.job.state == 'done'", minutes=30)
    film.shoot("What did it do? A verdict, the answers, and what else changed.", 3.0)


def compare(film: Film) -> None:
    """Maps before and after, the slider, and one question to both."""
    page = film.page
    go_to(page, "4 Compare")
    film.wait("app.comparison.job is not None and app.comparison.job.state == 'done'")
    film.shoot("Compare: the same map before and after.", 2.0)
    slider = panel(page).get_by_role("slider", name="Strength")
    for strength in (0.0, 0.5, 1.0):
        slider.fill(str(strength))
        film.wait(f"app.comparison.strength == {strength}")
        page.wait_for_timeout(1500)
        box = box_of(slider)
        handle = box["x"] + 8 + strength * (box["width"] - 16), box["y"] + box["height"] / 2
        film.shoot(f"Turn the edit's strength: {strength:g}", 1.3, pointer=handle)
    fill(page, "Ask", "What is the capital of France?")
    ask = button(page, "Ask both")
    ask.click()
    film.wait("app.comparison.asking.state == 'done'")
    film.shoot("Ask the base and the edited model, at this strength.", 3.0, pointer=beside_its_words(ask))


def join(frames: Sequence[Frame]) -> bytes:
    """The frames as a GIF that begins again at its end, in one palette for all.

    Args:
        frames: Pictures of one size.

    Raises:
        ValueError: Their sizes differ: what is not in sight is not in a picture.
    """
    pictures = [Image.open(io.BytesIO(frame.png)).convert("RGB") for frame in frames]
    if len(sizes := {picture.size for picture in pictures}) != 1:
        raise ValueError(f"All frames must have one size, got {sorted(sizes)}: make the page higher.")
    pixels = np.stack([np.asarray(picture) for picture in pictures])
    palette, indices = in_few_colours(pixels.reshape(-1, 3))
    first, *others = (Image.fromarray(picture, "P") for picture in indices.reshape(pixels.shape[:3]))
    for picture in (first, *others):
        picture.putpalette(palette.tobytes())
    out = io.BytesIO()
    durations = [round(1000 * frame.seconds) for frame in frames]
    first.save(out, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False)
    return out.getvalue()


def in_few_colours(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A palette, and the place in it of each pixel's nearest colour.

    The most frequent colours are in it as they are, so that white stays white and a line does not flicker; the rest are
    means of all others.

    Args:
        pixels: [n, 3].

    Returns:
        The palette [colours, 3] and places [n].
    """
    colours, place, count = np.unique(pixels @ np.array([65536, 256, 1]), return_inverse=True, return_counts=True)
    colours = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8)
    order = np.argsort(-count, kind="stable")
    palette, rare = colours[order[: COLOURS // 2]], colours[order[COLOURS // 2 :]]
    if len(rare):
        means = Image.fromarray(rare[None]).quantize(COLOURS - len(palette), dither=Image.Dither.NONE)
        palette = np.concatenate([palette, np.array(means.getpalette(), dtype=np.uint8).reshape(-1, 3)])[:COLOURS]
    nearest = [np.abs(palette.astype(int) - colour).sum(1).argmin() for colour in colours.astype(int)]
    return palette, np.array(nearest, dtype=np.uint8)[place.reshape(-1)]


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
