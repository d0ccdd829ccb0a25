"""What the panels of a Workbench tell each other: one measure, the partner and form of a fact, and where to go next.

Each link is one small function; the Workbench calls them when the panels are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def link_measure(picker: Any, panels: Callable[[], Mapping[str, Any]]) -> None:
    """Compare shows what the maps of the circuit show."""
    if hasattr(picker, "on_measure"):
        picker.on_measure(lambda *_: share_measure(panels()))


def share_measure(panels: Mapping[str, Any]) -> None:
    """Give the comparison the circuit's measure."""
    picker: Any = panels.get("picker")
    view: Any = panels.get("comparison")
    if hasattr(picker, "measure") and hasattr(view, "measure") and view.measure != picker.measure:
        view.measure = picker.measure


def share_fact(chooser: Any, picker: Any) -> None:
    """Give the circuit the swap partner and the form that were chosen with the fact."""
    for name in ("partner", "form"):
        if hasattr(chooser, name) and hasattr(picker, name) and getattr(picker, name) != getattr(chooser, name):
            setattr(picker, name, getattr(chooser, name))


def link_ways(panels: Mapping[str, Any], go: Callable[[str], object]) -> None:
    """Let the buttons of the panels that lead on open the tab that they name."""
    for panel in panels.values():
        if hasattr(panel, "on_go"):
            panel.on_go(lambda _, where: go(where))
