"""MapMenus: which map a comparison shows and how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, get_args

import ipywidgets
from traitlets import TraitError

from workbench.types import Fact, Form
from workbench.types.effect import Corruption
from workbench.widgets.compare.wanted import Wanted
from workbench.widgets.shared import layout
from workbench.widgets.shared.controls import Dropdown, StrictControl
from workbench.widgets.shared.measure import MEASURES, Measure, MeasureName
from workbench.widgets.shared.sync import WholeMessages

SITES = (("Residual stream", "resid"), ("MLPs", "mlp"), ("Attention", "attn"), ("Heads", "head"))
TOKENS = (("Old answer", "answer"), ("New answer", "target"))


class Switch(StrictControl, ipywidgets.ToggleButtons):
    """One of a few options, all in sight."""

    def check(self, state: dict[str, Any]) -> None:
        """Before ipywidgets repeats the message to every browser."""
        if "index" in state:
            index, n = state["index"], len(self._options_labels)
            if type(index) is not int or not 0 <= index < n:
                raise TraitError(f"index must be an integer from 0 to {n - 1}.")


class StageMenu(WholeMessages, Dropdown):
    """A menu whose options a job's thread and the kernel's both change."""


class MapMenus:
    """The switch and the menus; whoever shows them lays out ``widget``.

    Args:
        on_choice: Called without arguments after one of them was changed, unless it was by ``set``.
        on_measure: Called the same way when it was the measure.
    """

    def __init__(self, on_choice: Callable[[], object], on_measure: Callable[[], object]) -> None:
        self.site = Switch(description="Map", options=SITES, style={"button_width": "auto"})
        self.token = Dropdown(description="Traced", options=TOKENS)
        self._name = Dropdown(description="Measure", options=[(words, name) for name, words in MEASURES.items()])
        self._corruption = Dropdown(description="Corruption", options=get_args(Corruption)[::-1])
        self.widget = layout.fields(self.site, self.token, self._name, self._corruption)
        self.partner: Fact | None = None
        self.form: Form | None = None
        self._setting = False
        self._on_choice, self._on_measure = on_choice, on_measure
        for menu in (self.site, self.token):
            menu.observe(lambda _: self._changed(False), names="value")
        for menu in (self._name, self._corruption):
            menu.observe(lambda _: self._changed(True), names="value")

    @property
    def measure(self) -> Measure:
        """The metric and the corruption. Setting it calls nobody."""
        return Measure(cast(MeasureName, self._name.value), cast(Corruption, self._corruption.value))

    @measure.setter
    def measure(self, measure: Measure) -> None:
        self._setting = True
        try:
            self._name.value, self._corruption.value = measure.name, measure.corruption
        finally:
            self._setting = False

    def wanted(self, fact: Fact, stage: str, strength: float) -> Wanted:
        """What the menus say, of a fact after a stage at a strength."""
        token, site = str(self.token.value), str(self.site.value)
        return Wanted(fact, site, stage, strength, token, self.measure, self.partner, self.form)

    def _changed(self, measure: bool) -> None:
        if self._setting:
            return
        self._on_choice()
        if measure:
            self._on_measure()
