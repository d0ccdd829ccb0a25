"""Measure: what the maps of a session show, the same in every tab."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from workbench.tracing.metric import METRICS, MetricName
from workbench.types.effect import Corruption

MeasureName = Literal["recovery", "logit_diff", "probability"]
MEASURES: dict[MeasureName, str] = {
    "recovery": "Recovery",
    "logit_diff": "Logit difference",
    "probability": "Probability",
}
"""The labels of the menu, in its order."""
NOISE_SAMPLES = 4
"""Of every map that is corrupted by noise: with other samples a map would have other baselines than its neighbours."""
RECOVERY = "recovery of the logit difference: 0 corrupted, 1 clean"


@dataclass(frozen=True)
class Measure:
    """One metric and one corruption.

    Args:
        name: ``"recovery"`` (the logit difference, 0 as in the corrupted run and 1 as in the clean one),
            ``"logit_diff"`` or ``"probability"``.
        corruption: ``"swap"`` or ``"noise"``.

    Raises:
        ValueError: An unknown name or corruption.

    Example:
        >>> from workbench.widgets.shared.measure import Measure
        >>> Measure().metric, Measure().normalise, Measure("probability", "noise").normalise
        ('logit_diff', True, False)
    """

    name: MeasureName = "recovery"
    corruption: Corruption = "swap"

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("name", self.name, get_args(MeasureName)),
            ("corruption", self.corruption, get_args(Corruption)),
        ):
            if value not in allowed:
                raise ValueError(f"{what} must be one of {list(allowed)}, got {value!r}.")

    @property
    def metric(self) -> MetricName:
        """What the tracing functions measure."""
        return "probability" if self.name == "probability" else "logit_diff"

    @property
    def normalise(self) -> bool:
        """Whether they divide by the difference of the clean and the corrupted run."""
        return self.name == "recovery"

    @property
    def words(self) -> str:
        """The measure in words, for a heading."""
        return RECOVERY if self.normalise else METRICS[self.metric].words.title
