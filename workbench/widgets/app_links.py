"""What the panels of a Workbench tell each other: one measure, the partner and form of a fact, and where to go next.

Each link is one small function; the Workbench calls them when the panels are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def link_measure(panel: Any, panels: Callable[[], Mapping[str, Any]]) -> None:
    """Let the circuit and the comparison show one measure, whichever of them it is chosen in."""
    if hasattr(panel, "on_measure"):
        panel.on_measure(lambda *_: share_measure(panel, panels()))


def share_measure(panel: Any, panels: Mapping[str, Any]) -> None:
    """Give a panel's measure to the others that have one."""
    for other in panels.values():
        if other is not panel:
            _share("measure", panel, other)


def share_fact(chooser: Any, panels: Mapping[str, Any]) -> None:
    """Give the swap partner and the form that were chosen with the fact to the panels that have them."""
    for panel in panels.values():
        if panel is not chooser:
            _share("partner", chooser, panel)
            _share("form", chooser, panel)


def _share(name: str, giver: Any, taker: Any) -> None:
    """Set an attribute that both have, where it differs: setting it may compute something."""
    if hasattr(giver, name) and hasattr(taker, name) and getattr(taker, name) != getattr(giver, name):
        setattr(taker, name, getattr(giver, name))


def link_ways(panel: Any, go: Callable[[str], object]) -> None:
    """Let the buttons of a panel that lead on open the tab that they name."""
    if hasattr(panel, "on_go"):
        panel.on_go(lambda _, where: go(where))
