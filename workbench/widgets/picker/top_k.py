"""TopKControls: the largest cells of a map, by number or by a threshold, beside what is picked or in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast, get_args

from ipywidgets import FloatText, HBox, IntText, ToggleButtons

from workbench.tracing.causal import TraceSite
from workbench.types.roles import LAST_SUBJECT_TOKEN, LAST_TOKEN
from workbench.widgets.picker.maps import MAPS, TITLES, MapName
from workbench.widgets.shared.controls import Dropdown
from workbench.widgets.shared.layout import fields, quiet_button, show

TRACES = get_args(TraceSite)
"""The maps that have tokens."""
_ROLES: list[tuple[str, str | None]] = [(role, role) for role in (LAST_SUBJECT_TOKEN, LAST_TOKEN)]
"""Where a trace may be read."""


class TopKControls(HBox):
    """Controls that select from a map.

    Args:
        top: Called with a map's name, k, whether to add to what is picked, and the role that a trace is read at.
        above: Called with a map's name, a threshold, whether to add, and the role.
    """

    def __init__(
        self,
        top: Callable[[MapName, int, bool, str | None], object],
        above: Callable[[MapName, float, bool, str | None], object],
    ) -> None:
        self.map = Dropdown(description="Select from", options=[(TITLES[m], m) for m in MAPS])
        self.role = Dropdown(description="at the", options=_ROLES)
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
        self.top.on_click(lambda _: top(self.name, self.k.value, self.adds, self.at))
        self.above.on_click(lambda _: above(self.name, self.threshold.value, self.adds, self.at))
        self.map.observe(lambda _: self._offer_roles(), names="value")
        self._offer_roles()
        super().__init__([fields(self.map, self.role, self.how, self.k, self.top, self.threshold, self.above)])

    def _offer_roles(self) -> None:
        """Of a trace only; a residual one is never read at all tokens at once."""
        options = _ROLES if self.name == "resid" else [("any token", None), *_ROLES]
        self.role.options = options
        self.role.value = options[0][1]
        show(self.role, self.name in TRACES)

    @property
    def at(self) -> str | None:
        """The role that the map is read at; None for all tokens, and for a map without tokens."""
        return self.role.value if self.name in TRACES else None

    @property
    def name(self) -> MapName:
        """The map that is chosen."""
        return cast(MapName, self.map.value)

    @property
    def adds(self) -> bool:
        """Whether what is picked stays."""
        return bool(self.how.value)
