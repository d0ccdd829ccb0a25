"""A widget as it is now, as plain HTML with real text: shown in a cell, it stays in the notebook without a kernel."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

from ipywidgets import Widget
from ipywidgets.embed import dependency_state

from workbench.files.atomic import write_bytes
from workbench.plots.saved_widgets import SavedWidgets
from workbench.plots.widget_html import WidgetPage, panel_style, whole_page
from workbench.widgets.shared.markup import text

# Viewers that leave out `<style>` and `<svg>` (notebooks that are not trusted, GitHub) show the picture in their place.
_HIDE = "<style>.wbs-instead { display: none; }</style>"


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
        self.html = WidgetPage(SavedWidgets(state)).draw(widget.model_id)

    def save(self, path: str | Path) -> Path:
        """Write it as one HTML file that loads nothing, light or dark as its reader prefers.

        Args:
            path: An existing file is replaced only once the new one is complete.

        Raises:
            OSError: The file cannot be written.
        """
        return write_bytes(path, whole_page(self._words, self.html).encode("utf-8", "replace"))

    def __repr__(self) -> str:
        return f"Snapshot of {self._words}"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        encoded = b64encode(self.data).decode("ascii")
        instead = f'<img class="wbs-instead" alt="{text(self._words)}" src="data:image/png;base64,{encoded}">'
        shown = f"<style>{panel_style()}</style>{_HIDE}{instead}{self.html}"
        return {"text/plain": repr(self), "text/html": shown, "image/png": encoded}
