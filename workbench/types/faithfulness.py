"""How faithful a circuit is: the metric with everything else ablated, with itself ablated, and without each part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from workbench.types.circuit import Circuit
from workbench.types.intervals import mean_over
from workbench.types.report import Rate
from workbench.types.selection import Selection

if TYPE_CHECKING:
    import pandas as pd

CircuitAblation = Literal["swap", "mean", "zero", "noise"]
"""What stands in for what is ablated: the corrupted run's outputs, their means over items, 0, or those of a run with
noise on the embeddings."""
IN_WORDS: dict[str, str] = {
    "swap": "the corrupted run's outputs",
    "mean": "mean outputs over the items",
    "zero": "zeros",
    "noise": "the outputs of a run with noise",
}


def share_of(parts: Sequence[float], whole: Sequence[float], items: Sequence[str], seed: int = 0) -> Rate:
    """The sum of parts as a share of the sum of wholes, with an interval over items.

    The share is the mean over items of ``share + (part - share * whole) / mean whole``, which is linear in the items,
    so that the bootstrap of ``mean_over`` is that of a ratio of means to first order.
    """
    of = sum(whole) / len(whole)
    share = sum(parts) / len(parts) / of
    moved = [(part - share * one) / of for part, one in zip(parts, whole, strict=True)]
    return mean_share(share, moved, items, seed=seed)


def mean_share(
    share: float, moved: Sequence[float], items: Sequence[str], *, least: float = -math.inf, seed: int = 0
) -> Rate:
    """A share with an interval over items.

    Args:
        share: The share.
        moved: By how much each item moves it, to first order; their mean is 0.
        items: Ids of the items.
        least: The least value that there can be.
        seed: Of the bootstrap.
    """
    if max(moved) - min(moved) < 1e-9:  # one item, or items that do not differ: nothing says how far others would be
        return Rate(share, len(moved), math.nan, math.nan, "bootstrap", len(set(items)))
    values: dict[str, list[float]] = {}
    for item, more in zip(items, moved, strict=True):
        values.setdefault(item, []).append(share + more)
    rate = mean_over(values, seed=seed)
    return replace(rate, value=share, low=max(rate.low, least))


@dataclass(frozen=True, kw_only=True, repr=False)
class Faithfulness:
    """How much of a metric a circuit carries, against a model with everything ablated.

    Every share is of what the ablation of everything takes away: the metric of the whole model minus that with
    everything ablated, both means over items. So 1 is the whole model and 0 is none of it, and a share may be above 1.

    Args:
        part: The circuit (its edges are kept, all others ablated) or the selection (its outputs are kept, those of all
            other heads and MLPs ablated; the embedding stays).
        ablation: What stands in for what is ablated.
        metric: What is measured.
        items: Ids of the items.
        clean: The metric of the whole model, of each item.
        empty: With everything ablated.
        alone: With everything but the part ablated.
        without: With the part ablated, and nothing else.
        lacking: Of each component of the part, by its name: as ``alone``, with that component ablated too.
        base_fingerprint: Of the model.

    Example:
        >>> edges = wb.edges(model, fact, pool=facts)
        >>> faithful = wb.faithfulness(model, fact, edges.top(150), pool=facts)
        >>> faithful.ablation, round(faithful.recovery.value, 2), sorted(faithful.minimality)[:2]
        ('swap', 1.16, ['L0H0', 'L0H1'])
    """

    part: Circuit | Selection
    ablation: CircuitAblation
    metric: str
    items: tuple[str, ...]
    clean: tuple[float, ...]
    empty: tuple[float, ...]
    alone: tuple[float, ...]
    without: tuple[float, ...]
    lacking: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    base_fingerprint: str | None = None

    def __repr__(self) -> str:
        return f"Faithfulness({self.words})"

    def _share(self, more: Sequence[float], less: Sequence[float]) -> Rate:
        whole = [a - b for a, b in zip(self.clean, self.empty, strict=True)]
        return share_of([a - b for a, b in zip(more, less, strict=True)], whole, self.items)

    @property
    def recovery(self) -> Rate:
        """The share of the metric that is there with everything else ablated; 1 is as the whole model."""
        return self._share(self.alone, self.empty)

    @property
    def completeness(self) -> Rate:
        """The share that goes when the part is ablated and nothing else; at 1 nothing is left outside it."""
        return self._share(self.clean, self.without)

    @property
    def minimality(self) -> dict[str, Rate]:
        """Of each component, the share of recovery that goes when it is left out; at 0 it is not needed."""
        return {name: self._share(self.alone, values) for name, values in self.lacking.items()}

    @property
    def words(self) -> str:
        """The finding in a sentence, with the ablation named."""
        size = f"{len(self.part)} {'edges' if isinstance(self.part, Circuit) else 'components'}"
        return (
            f"{size}, by {self.ablation} ablation ({IN_WORDS[self.ablation]}): recovery {_rate(self.recovery)}, "
            f"completeness {_rate(self.completeness)}, n = {len(set(self.items))} of {self.metric}"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a number: ``what``, ``component``, ``value``, ``low``, ``high``, ``n``, ``ablation``."""
        import pandas as pd

        rates = [("recovery", "", self.recovery), ("completeness", "", self.completeness)]
        rates += [("minimality", name, rate) for name, rate in self.minimality.items()]
        return pd.DataFrame(
            [
                {"what": what, "component": name, "value": rate.value, "low": rate.low, "high": rate.high}
                | {"n": rate.n, "ablation": self.ablation}
                for what, name, rate in rates
            ]
        )


def _rate(rate: Rate) -> str:
    return f"{rate.value:.2f}" + (f" [{rate.low:.2f}, {rate.high:.2f}]" if rate.has_interval else "")
