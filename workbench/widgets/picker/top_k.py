"""TopKControls: the largest cells of a map, by number or by a threshold, beside what is picked or in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from ipywidgets import FloatText, HBox, IntText, ToggleButtons

from workbench.widgets.picker.maps import MAPS, TITLES, MapName
from workbench.widgets.shared.controls import Dropdown
from workbench.widgets.shared.layout import fields, quiet_button


class TopKControls(HBox):
    """Controls that select from a map.

    Args:
        top: Called with a map's name, k and whether to add to what is picked.
        above: Called with a map's name, a threshold and whether to add.
    """

    def __init__(
        self, top: Callable[[MapName, int, bool], object], above: Callable[[MapName, float, bool], object]
    ) -> None:
        self.map = Dropdown(description="Select from", options=[(TITLES[m], m) for m in MAPS])
        self.k = IntText(12, description="top k", layout={"width": "72px"})
        self.threshold = FloatText(0.1, description="at least", layout={"width": "84px"}, step=0.1)
        self.top = quiet_button("Select top k", tooltip="The k largest effects of the map")
        self.above = quiet_button("Select above", tooltip="All effects of at least this size in the map")
        self.how = ToggleButtons(
            description="to what is picked",
            options=[("Add", True), ("Replace", False)],
            tooltips=["They come to what is picked", "They take the place of what is picked"],
            style={"button_width": "80px"},
        )
        self.top.on_click(lambda _: top(self.name, self.k.value, self.adds))
        self.above.on_click(lambda _: above(self.name, self.threshold.value, self.adds))
        super().__init__([fields(self.map, self.how, self.k, self.top, self.threshold, self.above)])

    @property
    def name(self) -> MapName:
        """The map that is chosen."""
        return cast(MapName, self.map.value)

    @property
    def adds(self) -> bool:
        """Whether what is picked stays."""
        return bool(self.how.value)
