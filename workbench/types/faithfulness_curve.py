"""Faithfulness curves: how much of a metric the first edges or nodes of a ranking carry, by their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from workbench.types.faithfulness import IN_WORDS, CircuitAblation, mean_share, share_of
from workbench.types.report import Rate

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Shares of all edges or nodes: those of MIB but for 1, at which every curve is 1."""
RANDOM = "random"
"""Begins the names of random rankings."""
CurveUnit = Literal["edge", "node"]


@dataclass(frozen=True, kw_only=True, repr=False)
class FaithfulnessCurve:
    """Recovery by the first edges or nodes of one or several rankings, beside random ones of the same number.

    Args:
        sizes: Shares of all edges, or of all nodes.
        counts: How many these are.
        ablation: What all other edges carry, or what all other nodes put out.
        metric: What is measured.
        items: Ids of the items.
        clean, empty: The metric of the whole model, and with everything ablated, of each item.
        alone: By ranking, for each size, of each item: with everything but these ablated.
        unit: ``"edge"`` or ``"node"``.
        parts: What all of them are, in words: ``"edges"``, ``"heads and MLPs"``, ``"heads and neurons"``, or ``"heads,
            MLPs and neurons"`` where the MLPs of some layers are taken apart.
        base_fingerprint: Of the model.

    Example:
        >>> edges = wb.edges(model, fact, pool=facts)
        >>> curve = wb.faithfulness_curve(model, fact, edges, sizes=(0.1, 0.5), random=2, pool=facts)
        >>> list(curve.alone), curve.counts, sorted(curve.cpr) == ["eap-ig", "random"]
        (['eap-ig', 'random 0', 'random 1'], (30, 152), True)
    """

    sizes: tuple[float, ...]
    counts: tuple[int, ...]
    ablation: CircuitAblation
    metric: str
    items: tuple[str, ...]
    clean: tuple[float, ...]
    empty: tuple[float, ...]
    alone: Mapping[str, tuple[tuple[float, ...], ...]]
    unit: CurveUnit = "edge"
    parts: str = "edges"
    base_fingerprint: str | None = None

    def __repr__(self) -> str:
        return f"FaithfulnessCurve({self.words})"

    @property
    def _whole(self) -> list[float]:
        return [clean - empty for clean, empty in zip(self.clean, self.empty, strict=True)]

    def recovery(self, ranking: str) -> tuple[Rate, ...]:
        """The recovery at each size, with intervals over items; of ``"random"`` the mean over draws.

        Raises:
            KeyError: There is no such ranking.

        Example:
            >>> edges = wb.edges(model, fact, pool=facts)
            >>> curve = wb.faithfulness_curve(model, fact, edges, sizes=(0.1, 0.5), random=1, pool=facts)
            >>> [rate.n for rate in curve.recovery("eap-ig")]
            [1, 1]
        """
        return tuple(self._share(values) for values in self._values(ranking))

    def _values(self, ranking: str) -> list[list[float]]:
        """By size, of each item: the metric minus that with everything ablated; of random ones the mean over draws."""
        names = [name for name in self.alone if name.startswith(RANDOM)] if ranking == RANDOM else [ranking]
        if not names or names[0] not in self.alone:
            raise KeyError(f"The curve has no ranking {ranking!r}; it has {self.rankings}.")
        found: list[list[float]] = []
        for size in range(len(self.sizes)):
            draws = [self.alone[name][size] for name in names]
            means = [sum(of_item) / len(draws) for of_item in zip(*draws, strict=True)]
            found.append([mean - empty for mean, empty in zip(means, self.empty, strict=True)])
        return found

    def _share(self, parts: Sequence[float]) -> Rate:
        return share_of(parts, self._whole, self.items)

    @property
    def rankings(self) -> tuple[str, ...]:
        """Names of the rankings; all random draws are one."""
        return tuple(dict.fromkeys(RANDOM if name.startswith(RANDOM) else name for name in self.alone))

    @property
    def cpr(self) -> dict[str, Rate]:
        """By ranking, the area under its curve (MIB's circuit performance ratio, larger is better): trapezoids over the
        share that is kept, from the smallest size to all, where recovery is 1. About 1 for a ranking whose smallest
        circuit is as good as the model."""
        found: dict[str, Rate] = {}
        for ranking in self.rankings:
            points = [*zip(self.sizes, self._values(ranking), strict=True), (1.0, self._whole)]
            areas = [0.0] * len(self.items)
            for (left, low), (right, high) in pairwise(points):
                areas = [a + (right - left) * (x + y) / 2 for a, x, y in zip(areas, low, high, strict=True)]
            found[ranking] = self._share(areas)
        return found

    @property
    def cmd(self) -> dict[str, float]:
        """By ranking, the area between its curve and 1 (MIB's circuit-model distance, 0 is best), as ``cpr``, of the
        absolute distance of the mean recovery."""
        return {name: rate.value for name, rate in self.cmd_rates.items()}

    @property
    def cmd_rates(self) -> dict[str, Rate]:
        """``cmd`` with intervals over items, to first order: at a recovery that may be 1 they are too narrow on the
        side of 0, below which they do not go.

        Example:
            >>> edges = wb.edges(model, fact, pool=facts)
            >>> curve = wb.faithfulness_curve(model, fact, edges, sizes=(0.1, 0.5), random=1, pool=facts)
            >>> curve.cmd_rates["eap-ig"].value == curve.cmd["eap-ig"], curve.cmd_rates["eap-ig"].has_interval
            (True, False)
        """
        found: dict[str, Rate] = {}
        widths = [right - left for left, right in pairwise((*self.sizes, 1.0))]
        weights = [(a + b) / 2 for a, b in zip([0.0, *widths], [*widths, 0.0], strict=True)][:-1]
        whole = sum(self._whole) / len(self.items)
        for ranking in self.rankings:
            shares = [sum(parts) / len(parts) / whole for parts in self._values(ranking)]
            area = sum(weight * abs(1 - share) for weight, share in zip(weights, shares, strict=True))
            moved = [0.0] * len(self.items)  # what each item moves the area by, times the mean whole
            for weight, share, parts in zip(weights, shares, self._values(ranking), strict=True):
                signed = weight if share > 1 else -weight
                moved = [m + signed * (p - share * w) for m, p, w in zip(moved, parts, self._whole, strict=True)]
            found[ranking] = mean_share(area, [m / whole for m in moved], self.items, least=0.0)
        return found

    @property
    def words(self) -> str:
        """The finding in a sentence, with the ablation named."""
        cmd = self.cmd
        areas = "; ".join(f"{name}: CPR {rate.value:.2f}, CMD {cmd[name]:.2f}" for name, rate in self.cpr.items())
        how = f"by {self.ablation} ablation ({IN_WORDS[self.ablation]})"
        what = f"of {self.parts}, n = {len(self.items)} of {self.metric}"
        return f"{how}, {what}: {areas}"

    def plot(self, **options: Any) -> go.Figure:
        """Draw the curves as a plotly figure (see ``workbench.plots.faithfulness_figure``).

        Example:
            >>> edges = wb.edges(model, fact, pool=facts)
            >>> curve = wb.faithfulness_curve(model, fact, edges, sizes=(0.1, 0.5), random=1, pool=facts)
            >>> [line.name for line in curve.plot().data]
            ['eap-ig', 'random']
        """
        from workbench.plots import faithfulness_figure

        return faithfulness_figure(self, **options)

    def to_frame(self) -> pd.DataFrame:
        """One row a ranking and size: ``ranking``, ``size`` (a share of all), ``edges`` or ``nodes`` (how many),
        ``recovery``, ``low``, ``high``, ``n``, ``ablation``."""
        import pandas as pd

        rows: list[dict[str, object]] = []
        for ranking in self.rankings:
            for size, count, rate in zip(self.sizes, self.counts, self.recovery(ranking), strict=True):
                row = {"ranking": ranking, "size": size, f"{self.unit}s": count, "recovery": rate.value}
                rows.append({**row, "low": rate.low, "high": rate.high, "n": rate.n, "ablation": self.ablation})
        return pd.DataFrame(rows)
