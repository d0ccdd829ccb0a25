"""MeasureRow: the one measure of all maps, chosen in a row of controls: corruption, metric, scale and trace site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ipywidgets import ToggleButtons, VBox

from workbench.plots.colours import ScaleMode
from workbench.widgets.shared import layout
from workbench.widgets.shared.controls import Dropdown
from workbench.widgets.shared.measure import MEASURES, Measure

TIPS = (
    "How much of the corrupted answer comes back: 0 as corrupted, 1 as clean",
    "The answer's logit minus the other token's",
    "Of the answer's first token",
)


class MeasureRow(VBox):
    """Controls for a ``Measure``, beside others.

    Args:
        measure: The first one.
        on_change: Called with the measure after it was chosen by hand, never after ``show``.
        on_scale: Called with the mode of the colour scale that was chosen, see ``HeatGrid``.
        others: Controls further to the right.
    """

    def __init__(
        self,
        measure: Measure,
        on_change: Callable[[Measure], object],
        on_scale: Callable[[ScaleMode], object],
        *others: Any,
    ) -> None:
        self._showing = False
        self._on_change = on_change
        self._corruption = ToggleButtons(
            options=[("Swap", "swap"), ("Noise", "noise")],
            description="Corrupt by",
            tooltips=[
                "Another subject at every place where the fact's stands in the prompt; noise where none fits",
                "Noise on the subject's tokens, at every place where it stands",
            ],
            style={"button_width": "70px"},
        )
        self._metric = ToggleButtons(
            options=[(label, name) for name, label in MEASURES.items()],
            description="Metric",
            tooltips=list(TIPS),
            style={"button_width": "126px"},
        )
        self._scale = Dropdown(
            description="Scale",
            options=[("linear", "linear"), ("symmetric log", "symlog"), ("clipped", "clip")],
            tooltip="Of the colours: symmetric log tells small values apart, clipped ends at the 99th percentile",
        )
        self.show(measure)
        self._scale.observe(lambda change: on_scale(change["new"]), names="value")
        for control in (self._corruption, self._metric):
            control.observe(lambda _: self._changed(), names="value")
        super().__init__([layout.fields(self._corruption, self._metric, self._scale, *others)])

    @property
    def measure(self) -> Measure:
        """What the controls say."""
        return Measure(cast(Any, self._metric.value), cast(Any, self._corruption.value))

    def show(self, measure: Measure, *, own_corruption: bool = False) -> None:
        """Show a measure that was chosen elsewhere.

        Args:
            measure: The measure.
            own_corruption: Whether what is shown brings its corruption, as contrasts do: none is chosen then.
        """
        layout.show(self._corruption, not own_corruption)
        self._showing = True
        try:
            self._corruption.value, self._metric.value = measure.corruption, measure.name
        finally:
            self._showing = False

    def _changed(self) -> None:
        if not self._showing:
            self._on_change(self.measure)
