"""A widget as it is now, as plain HTML with real text: shown in a cell, it stays in the notebook without a kernel."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipywidgets import Widget
from ipywidgets.embed import dependency_state

from workbench.files.atomic import write_bytes
from workbench.files.paths import user_path
from workbench.plots.browser_print import pdf_of, pdf_of_svg
from workbench.plots.saved_widgets import SavedWidgets
from workbench.plots.svg_file import drawings_of, size_of, svg_file
from workbench.plots.widget_html import WidgetPage, panel_style, whole_page
from workbench.widgets.shared.markup import text

# Viewers that leave out `<style>` and `<svg>` (notebooks that are not trusted, GitHub) show the picture in their place.
_HIDE = "<style>.wbs-instead { display: none; }</style>"

# Light, as paper is; what is wider than the paper is made smaller, and nothing scrolls on paper.
_PAPER = """
@page { size: A4 landscape; margin: 12mm; }
:root { color-scheme: light; }
.wb-saved * { font-variant-ligatures: none !important; }
.wb-saved { overflow: visible; }
.wb-saved svg, .wb-saved img { max-width: 100%; height: auto; }
.wb-saved pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.wb-saved figure, .wb-saved tr { break-inside: avoid; }
"""


class Snapshot:
    """What a panel or a map shows: all its tabs, texts, tables and maps, without anything that can be clicked.

    The last line of a cell shows it. Nothing in it changes any more, and it needs neither a kernel nor a script.

    Args:
        widget: It is drawn at once.
        picture: The PNG for viewers that draw no HTML.
    """

    def __init__(self, widget: Widget, picture: bytes) -> None:
        live = dependency_state([widget], drop_defaults=False)
        state = {"version_major": 2, "state": json.loads(json.dumps(live, default=str))}  # as a notebook keeps it
        self._words = repr(widget)
        self.data = picture
        self._alone = not hasattr(widget, "children")
        self.html = WidgetPage(SavedWidgets(state)).draw(widget.model_id)

    def save(self, path: str | Path) -> Path:
        """Write it as a file, in the format of its suffix, without a network.

        Args:
            path: ``.html``: one page that loads nothing, light or dark as its reader prefers. ``.svg``: its maps and
                graphs below each other, with their titles and real text. ``.pdf``: of a map or a graph that drawing, of
                a panel the page. ``.png``: the picture that viewers without HTML show. An existing file is replaced
                only once the new one is complete.

        Raises:
            ValueError: Another suffix, or an SVG of what has no map or graph.
            RuntimeError: A PDF where no Chrome or Chromium is found or starts; the message says how to get one.
            OSError: The file cannot be written.
        """
        path = user_path(path)
        kind = path.suffix.lower()
        if kind not in _CONTENT:
            raise ValueError(f"A snapshot is written as {', '.join(_CONTENT)}, got {path.name!r}.")
        return write_bytes(path, _CONTENT[kind](self))

    @property
    def page(self) -> str:
        """The whole HTML page."""
        return whole_page(self._words, self.html)

    @property
    def svg(self) -> str:
        """Its maps and graphs as one SVG document.

        Raises:
            ValueError: It shows none.
        """
        drawn = drawings_of(self.html)
        if not drawn:
            raise ValueError(
                f"{self._words} shows no map and no graph, so there is no SVG of it. Write .html, .pdf or .png, or "
                "write a figure with workbench.plots.write_image."
            )
        return svg_file(drawn)

    @property
    def pdf(self) -> bytes:
        """Of a map or a graph alone its drawing, on one page of its size; of a panel the page, on A4.

        Raises:
            RuntimeError: No browser.
        """
        if self._alone and drawings_of(self.html):
            return pdf_of_svg(self.svg, *size_of(self.svg))
        unfolded = self.page.replace("<details>", "<details open>")  # on paper nothing is unfolded
        return pdf_of(unfolded.replace("</style>", f"{_PAPER}</style>", 1))

    def __repr__(self) -> str:
        return f"Snapshot of {self._words}"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        encoded = b64encode(self.data).decode("ascii")
        instead = f'<img class="wbs-instead" alt="{text(self._words)}" src="data:image/png;base64,{encoded}">'
        shown = f"<style>{panel_style()}</style>{_HIDE}{instead}{self.html}"
        return {"text/plain": repr(self), "text/html": shown, "image/png": encoded}


_CONTENT: dict[str, Callable[[Snapshot], bytes]] = {
    ".html": lambda one: one.page.encode("utf-8", "replace"),
    ".svg": lambda one: one.svg.encode(),
    ".pdf": lambda one: one.pdf,
    ".png": lambda one: one.data,
}
"""What a file of each suffix holds."""
