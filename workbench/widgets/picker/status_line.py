"""StatusLine: what is being computed, how far and for how long, with a button that cancels it."""

from __future__ import annotations

import time
from collections.abc import Callable

from ipywidgets import HTML, HBox

from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.markup import Progress

SECONDS_BETWEEN_DRAWINGS = 0.2


class StatusLine(HBox):
    """A line that is there only while something goes on.

    Args:
        on_cancel: Called when it is to stop.
    """

    def __init__(self, on_cancel: Callable[[], object]) -> None:
        self.words = ""
        """What it says; empty where nothing goes on."""
        self._drawn_at = float("-inf")
        self._shown = ""
        self._bar = HTML()
        self._cancel = layout.quiet_button("Cancel", icon="stop", tooltip="Stop computing; what is there stays")
        self._cancel.on_click(lambda _: on_cancel())
        super().__init__([self._cancel, self._bar], layout={"align_items": "center"})
        self.show(None)

    def show(self, progress: Progress | None, *, key: str = "") -> None:
        """Show how far something is; None: nothing goes on.

        Args:
            progress: In words and numbers.
            key: What goes on: news of the same come at most five times a second.
        """
        words = "" if progress is None else progress.words
        now = time.perf_counter()
        if progress is not None and key and key == self._shown and now - self._drawn_at < SECONDS_BETWEEN_DRAWINGS:
            return
        self._shown, self._drawn_at, self.words = key, now, words
        self._bar.value = "" if progress is None else markup.progress(progress.done, progress.total, words)
        layout.show(self, progress is not None)
