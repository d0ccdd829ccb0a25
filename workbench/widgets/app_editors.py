"""Editors: the edit panel on screen, and the one whose edit runs while another fact or run is on screen.

An edit belongs to the panel that runs it, and that panel to its fact. So another fact needs another panel: there are
two at most, since one edit runs at a time. The panel that runs is never told of another fact; it may go out of sight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from workbench.types import EffectMap, Fact, Selection
from workbench.widgets.edit.panel import EditPanel


@dataclass(frozen=True)
class Picks:
    """What was picked and which maps were there, when a panel went out of sight."""

    selection: Selection
    maps: Mapping[str, EffectMap]


class Editors:
    """The edit panels of a Workbench.

    Args:
        first: The one on screen.
        make: Makes another one.
        ended: Called as ``EditPanel.on_done`` of each.
        stopped: Called before that with each whose edit failed or was cancelled out of sight.
    """

    def __init__(
        self,
        first: EditPanel,
        make: Callable[[], EditPanel],
        ended: Callable[[EditPanel], object],
        stopped: Callable[[EditPanel], object],
    ) -> None:
        self._make, self._ended, self._stopped = make, ended, stopped
        self._panels: list[EditPanel] = []
        self._left: dict[EditPanel, Picks] = {}
        self._busy = False
        self._listeners: list[Callable[[], object]] = []
        self.shown = self._take(first)

    @property
    def running(self) -> EditPanel | None:
        """The panel whose edit runs, or has just ended and is not yet a run."""
        return next((p for p in self._panels if p.busy or (p.job is not None and not p.job.settled)), None)

    @property
    def busy(self) -> bool:
        """Whether an edit runs, on screen or not."""
        return any(panel.busy for panel in self._panels)

    @property
    def status(self) -> str:
        """How far the edit is that runs; where another fact is on screen, of which fact it is; empty without one."""
        panel = next((panel for panel in self._panels if panel.busy), None)
        if panel is None:
            return ""
        return panel.status if panel is self.shown else f"{panel.subject}, {panel.status}"

    def running_of(self, fact: Fact) -> EditPanel | None:
        """The panel whose edit of this fact runs."""
        running = self.running
        return running if running is not None and running.fact == fact else None

    def on_status(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` as ``RunPanel.on_status`` of all panels."""
        self._listeners.append(callback)

    def still(self) -> AbstractContextManager[object]:
        """As long as it is held, the edit that runs does not end: what is on screen can change meanwhile."""
        running = self.running
        return nullcontext() if running is None else running.still()

    def show(self, panel: EditPanel | None, circuit: Picks) -> EditPanel:
        """Put a panel on screen.

        Args:
            panel: One of these; None for one in which no edit runs.
            circuit: What is on screen now: it belongs to the edit that runs, if that goes out of sight.

        Returns:
            The panel.
        """
        running, before = self.running, self.shown
        chosen = panel if panel is not None else self._free(running)
        if chosen is not before and before is running:
            self._left[before] = circuit
        if chosen is not before:
            self.shown = chosen
            chosen.refresh()
            self._tell()
        return chosen

    def circuit_of(self, panel: EditPanel) -> Picks | None:
        """What was picked and shown for an edit that went out of sight; None if it did not."""
        return self._left.get(panel)

    def _free(self, running: EditPanel | None) -> EditPanel:
        if self.shown is not running:
            return self.shown
        free = next((panel for panel in self._panels if panel is not running), None)
        if free is None:
            free = self._take(self._make())
        free.settings.set_like(self.shown.settings)
        return free

    def _take(self, panel: EditPanel) -> EditPanel:
        self._panels.append(panel)
        panel.elsewhere = lambda: self._why_not(panel)
        panel.on_end(self._left_undone)
        panel.on_done(self._ended)
        panel.on_status(lambda: self._told(panel))
        return panel

    def _left_undone(self, panel: EditPanel) -> None:
        if panel is not self.shown and panel.job is not None and panel.job.state != "done":
            self._stopped(panel)

    def _why_not(self, panel: EditPanel) -> str:
        other = next((p for p in self._panels if p is not panel and p.busy), None)
        if other is None:
            return ""
        return f"An edit of {other.subject} is running, and one runs at a time: wait for it, or cancel it above."

    def _told(self, panel: EditPanel) -> None:
        """From the panel's thread, perhaps with its lock: only the panel on screen is looked at again, and never from
        itself, so that no two threads wait for each other."""
        if self.busy != self._busy:
            self._busy = self.busy
            if self._busy:
                self._left.pop(panel, None)
            if panel is not self.shown:
                self.shown.refresh()
        self._tell()

    def _tell(self) -> None:
        for callback in self._listeners:
            callback()
