"""RunMark: the line above results that says of which run they are, and what was changed since."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ipywidgets import HTML

from workbench.widgets.shared import markup


class RunMark(HTML):
    """A line such as "Run: 2,000 default neurons, 10 + 26 steps, 14:02", empty without a run.

    When the settings now differ from those of the run, it says so and names what differs.

    Args:
        named: What a run is called.
    """

    def __init__(self, named: str = "Run") -> None:
        super().__init__()
        self._named = named
        self.words = ""
        """The line as plain text."""
        self.changes: tuple[str, ...] = ()
        """What differs now, in words."""
        self._title = self._after = ""
        self._settings: dict[str, Any] = {}

    def show(self, title: str, settings: Mapping[str, Any], *, at: str | None = None) -> None:
        """Name the run whose results are shown.

        Args:
            title: Its settings in a line.
            settings: The same by name, to compare with those of later; ``str`` gives their words.
            at: When it was; None for now, the empty text where it is not known.
        """
        when = time.strftime("%H:%M") if at is None else at
        self._title = ", ".join(part for part in (title, when) if part)
        self._settings, self._after, self.changes = dict(settings), "", ()
        self._draw()

    def clear(self) -> None:
        """Nothing is shown any more."""
        self._title, self._settings, self._after, self.changes = "", {}, "", ()
        self._draw()

    def compare(self, now: Mapping[str, Any]) -> None:
        """Say which settings differ now from those of the run."""
        names = dict.fromkeys((*self._settings, *now)) if self._title and self._settings else {}
        changes = [_difference(name, self._settings.get(name), now.get(name)) for name in names]
        if (differ := tuple(filter(None, changes))) != self.changes:
            self.changes = differ
            self._draw()

    def after(self, state: str) -> None:
        """A later run ended without a result of its own, so that these are kept."""
        how = "failed" if state == "failed" else "was cancelled"
        self._after = f"The run after it {how}: these results are kept."
        self._draw()

    def _draw(self) -> None:
        if not self._title:
            self.words = self.value = ""
            return
        changed = f"settings changed since this run: {'; '.join(self.changes)}" if self.changes else ""
        self.words = " ".join(part for part in (f"{self._named}: {self._title}.", self._after, changed) if part)
        badge = f'<span class="wb-changed" role="status">{markup.text(changed)}</span>' if changed else ""
        after = f" {markup.text(self._after)}" if self._after else ""
        line = f"<b>{markup.text(self._named)}:</b> {markup.text(self._title)}.{after}"
        self.value = markup.block(f'<p class="wb-run">{line} {badge}</p>')


def _difference(name: str, before: Any, now: Any) -> str:
    """A setting that differs, in words; empty if it does not."""
    if before == now:
        return ""
    was, is_now = ("none" if value in (None, "") else str(value) for value in (before, now))
    return f"{name} {is_now}, was {was}" if was != is_now else f"{name} {is_now}, was another choice"
