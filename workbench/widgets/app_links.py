"""What the panels of a Workbench tell each other: one measure, the partner and form of a fact, and where to go next.

Each link is one small function; the Workbench calls them when the panels are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.types import Component
from workbench.types.run import Run
from workbench.widgets.picker.captions import measure_of
from workbench.widgets.picker.side_panel import values_in


def link_measure(panel: Any, panels: Callable[[], Mapping[str, Any]]) -> None:
    """Let the circuit and the comparison show one measure, whichever of them it is chosen in."""
    if hasattr(panel, "on_measure"):
        panel.on_measure(lambda *_: share(panel, panels(), "measure"))


class FactSetting:
    """What the circuit was last told of the form and the swap partner that were chosen with the fact.

    Only what has changed is passed on: a partner that the circuit chose by itself stays.
    """

    def __init__(self, chooser: Any, picker: Any) -> None:
        self._chooser, self._picker = chooser, picker
        self._told = self._now

    @property
    def _now(self) -> tuple[Any, Any]:
        return self._chooser.partner, self._chooser.form

    def follow(self) -> None:
        """Pass on what has changed."""
        (partner, form), (partner_before, form_before) = self._now, self._told
        self._told = partner, form
        if form != form_before:
            _give(self._chooser, self._picker, "form")
        if partner != partner_before:
            _give(self._chooser, self._picker, "partner")


class Question:
    """Lets the graph show what the maps show, measured in the same way, also when that changes.

    Args:
        picker: The maps.
        graph: The graph.
        in_sight: Whether somebody looks at the graph: its edges are scored then.
    """

    def __init__(self, picker: Any, graph: Any, in_sight: Callable[[], bool]) -> None:
        self._picker, self._graph, self._in_sight = picker, graph, in_sight
        picker.on_progress(lambda: self.share() and self._score())

    def share(self) -> bool:
        """Pass on what has changed. Returns whether anything has."""
        picker, graph = self._picker, self._graph
        setting = {"corruption": picker.corrupted_by, "form": picker.form, "partner": picker.partner}
        differs = graph.contrast != picker.fact or graph.setting_differs(**setting)
        if differs:
            graph.show(picker.fact, selected=graph.circuit, **setting)
        return differs

    def look(self) -> None:
        """The graph may have come into sight."""
        if self._in_sight():
            self.share()
            self._graph.score()

    def _score(self) -> None:
        if self._in_sight():
            self._graph.score()


def link_values(picker: Any, runs: Callable[[], Sequence[Run]]) -> None:
    """Let the circuit say beside a pinned component what it does in the maps of other facts' runs."""
    picker.other_values = lambda component: values_of_runs(picker, runs(), component)


def values_of_runs(picker: Any, runs: Sequence[Run], component: Component) -> dict[str, float]:
    """A component's effects in the newest run of each fact that is not shown, by map and subject.

    Only maps of the measure that is shown count: other numbers cannot be put beside these.
    """
    shown = picker.fact if isinstance(picker.fact, list) else [picker.fact]
    found: dict[str, float] = {}
    for run in runs:
        if run.fact in shown:
            continue
        alike = {
            name: effect for name, effect in run.maps.items() if measure_of(effect, picker.measure) == picker.measure
        }
        found |= {f"{title}, for {run.fact.subject}": value for title, value, _ in values_in(component, alike)}
    return found


def share(panel: Any, panels: Mapping[str, Any], *names: str) -> None:
    """Give what a panel measures with to the others that have it too."""
    for other in panels.values():
        if other is not panel:
            _give(panel, other, *names)


def link_ways(panel: Any, go: Callable[[str], object]) -> None:
    """Let the buttons of a panel that lead on open the tab that they name."""
    if hasattr(panel, "on_go"):
        panel.on_go(lambda _, where: go(where))


def _give(giver: Any, taker: Any, *names: str) -> None:
    """Set attributes that both have, where they differ: setting one may compute something."""
    for name in names:
        if hasattr(giver, name) and hasattr(taker, name) and getattr(taker, name) != getattr(giver, name):
            setattr(taker, name, getattr(giver, name))
