"""TopKControls: the largest cells of a map, by their number or by a threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from ipywidgets import Button, FloatText, HBox, IntText

from workbench.widgets.picker.maps import MAPS, TITLES, MapName
from workbench.widgets.shared.controls import Dropdown

_STYLE = {"description_width": "initial"}


class TopKControls(HBox):
    """Controls that select from a map.

    Args:
        top: Called with a map's name and k.
        above: Called with a map's name and a threshold.
    """

    def __init__(self, top: Callable[[MapName, int], object], above: Callable[[MapName, float], object]) -> None:
        self.map = Dropdown(
            description="Select from", options=[(TITLES[m], m) for m in MAPS], style=_STYLE, layout={"width": "270px"}
        )
        self.k = IntText(12, description="top k", style=_STYLE, layout={"width": "120px"})
        self.threshold = FloatText(0.1, description="at least", style=_STYLE, layout={"width": "140px"}, step=0.1)
        self.top = Button(description="Select top k", tooltip="The k largest effects of the map, and nothing else")
        self.above = Button(
            description="Select above", tooltip="All effects of at least this size in the map, and nothing else"
        )
        self.top.on_click(lambda _: top(self.name, self.k.value))
        self.above.on_click(lambda _: above(self.name, self.threshold.value))
        super().__init__(
            [self.map, self.k, self.top, self.threshold, self.above],
            layout={"flex_flow": "row wrap", "align_items": "center"},
        )

    @property
    def name(self) -> MapName:
        """The map that is chosen."""
        return cast(MapName, self.map.value)
