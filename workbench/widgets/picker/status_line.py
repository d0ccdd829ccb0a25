"""StatusLine: what is being computed, how far and for how long, with a button that cancels it."""

from __future__ import annotations

from collections.abc import Callable

from ipywidgets import HTML, HBox

from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.markup import Progress


class StatusLine(HBox):
    """A line that is empty while nothing goes on. It keeps its height: what is below must not move under the pointer.

    Args:
        on_cancel: Called when it is to stop.
    """

    def __init__(self, on_cancel: Callable[[], object]) -> None:
        self.words = ""
        """What it says; empty where nothing goes on."""
        self._bar = HTML()
        self._cancel = layout.quiet_button("Cancel", icon="stop", tooltip="Stop computing; what is there stays")
        self._cancel.on_click(lambda _: on_cancel())
        super().__init__([self._cancel, self._bar], layout={"align_items": "center", "min_height": "32px"})
        self.show(None)

    def show(self, progress: Progress | None) -> None:
        """Show how far something is; None: nothing goes on."""
        self.words = "" if progress is None else progress.words
        self._bar.value = "" if progress is None else markup.progress(progress.done, progress.total, self.words)
        self.layout.visibility = "visible" if progress is not None else "hidden"
