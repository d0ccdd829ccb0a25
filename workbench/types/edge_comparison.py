"""Edges before and after an edit: both maps, and a record of every large edge that changed, with its kind.

An edge is large in a map where it is among the map's ``k`` largest scores by size. What happened to an edge that is
large before or after (each kind takes what those before it leave):

* ``"new"``: it is large after and was not before, and its score has grown in size;
* ``"gone"``: it was large before and is not any more, and its score has shrunk in size;
* ``"turned"``: its score has the other sign;
* ``"weakened"``: its score has shrunk in size;
* ``"strengthened"``: its score has grown in size.

An edge that only rises or falls in rank since others changed is none of these. One whose score is the same has no
record.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from workbench.types.circuit import Circuit, Edge
from workbench.types.edge_map import EdgeMap
from workbench.types.plain import is_whole

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

ChangeKind = Literal["new", "gone", "turned", "weakened", "strengthened"]
CHANGE_KINDS: tuple[ChangeKind, ...] = get_args(ChangeKind)
"""What can happen to an edge, in the order in which the kinds are given."""
SAME = ("senders", "receivers", "metric", "method", "steps", "corruption", "n")
"""Of two maps whose difference means something."""


@dataclass(frozen=True, kw_only=True)
class EdgeChange:
    """What an edit did to one edge.

    Args:
        edge: The edge.
        kind: See the module's docstring.
        before, after: Its scores, in units of the metric.
        rank_before, rank_after: Its places by the size of the score, 1 for the largest.
        stderr: Standard error of the change over facts or contrasts; None for one of them.
    """

    edge: Edge
    kind: ChangeKind
    before: float
    after: float
    rank_before: int
    rank_after: int
    stderr: float | None = None

    @property
    def change(self) -> float:
        """After minus before."""
        return self.after - self.before


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EdgeComparison:
    """Scores of all edges before and after an edit, and the large edges that changed.

    Args:
        before, after: Of the same edges, on the same items, in units of the same metric.
        k: An edge among so many largest is large.
        stage: The edit's stages up to this one.
        strength: Of the edit in the map after it.
        edit_id: Of the edit.
        items: Ids of the facts or contrasts.
        stderr: Standard error of after minus before over items, [receivers, senders]; None for one item.
        control: The largest change of any edge with the edit at strength 0, which is nothing but the base: 0 but for
            rounding (some processors round by where numbers lie in memory) where all changes are the edit's. None where
            it was not measured.

    Raises:
        ValueError: The maps differ in what was measured or in which edges have a score, or ``k`` is not a whole number
            from 1 to their number of edges.

    Example:
        >>> changes = wb.compare_edges(model, edit, k=20, pool=facts)
        >>> changes
        EdgeComparison(learn, 20 largest of 304 edges: ...)
        >>> changes.control < 1e-4
        True
        >>> changes.to_frame().columns[:5].tolist()
        ['edge', 'kind', 'before', 'after', 'change']
    """

    before: EdgeMap
    after: EdgeMap
    k: int
    stage: str
    strength: float = 1.0
    edit_id: str = ""
    items: tuple[str, ...] = ()
    stderr: Tensor | None = None
    control: float | None = None

    def __post_init__(self) -> None:
        for name in SAME:
            first, second = getattr(self.before, name), getattr(self.after, name)
            if first != second:
                raise ValueError(f"The maps differ in {name} ({first!r:.60} and {second!r:.60}); compare equal ones.")
        if not torch.equal(self.before.values.isnan(), self.after.values.isnan()):
            raise ValueError("The maps have scores of different edges; give both the same chosen=.")
        check_k(self.k, self.before.n_edges)

    def __repr__(self) -> str:
        counts = self.counts
        found = ", ".join(f"{counts[kind]} {kind}" for kind in CHANGE_KINDS if counts[kind]) or "no change"
        return f"EdgeComparison({self.stage}, {self.k} largest of {self.before.n_edges} edges: {found})"

    @property
    def difference(self) -> Tensor:
        """After minus before, [receivers, senders]; NaN where there is no edge."""
        return self.after.values - self.before.values

    @cached_property
    def changes(self) -> tuple[EdgeChange, ...]:
        """A record of each large edge that changed, the largest change first."""
        before, after = self.before.values.flatten(), self.after.values.flatten()
        places = (~before.isnan()).nonzero()[:, 0]
        ranks = [_ranks(scores[places].abs()) for scores in (before, after)]
        found: list[EdgeChange] = []
        for place, first, second in zip(map(int, places), *ranks, strict=True):
            if min(first, second) > self.k:
                continue
            one, other = float(before[place]), float(after[place])
            kind = _kind(one, other, first <= self.k, second <= self.k)
            if kind is not None:
                receiver, sender = divmod(place, len(self.before.senders))
                edge = Edge.parse(f"{self.before.senders[sender]} -> {self.before.receivers[receiver]}")
                error = None if self.stderr is None else float(self.stderr[receiver, sender])
                found.append(
                    EdgeChange(
                        edge=edge, kind=kind, before=one, after=other, rank_before=first, rank_after=second,
                        stderr=error,
                    )
                )  # fmt: skip
        return tuple(sorted(found, key=lambda one: -abs(one.change)))

    def of(self, *kinds: ChangeKind) -> tuple[EdgeChange, ...]:
        """The records of some kinds, the largest change first.

        Raises:
            ValueError: There is no such kind.

        Example:
            >>> changes = wb.compare_edges(model, edit, k=20, pool=facts)
            >>> {change.kind for change in changes.of("weakened", "gone")} <= {"weakened", "gone"}
            True
        """
        if unknown := [kind for kind in kinds if kind not in CHANGE_KINDS]:
            raise ValueError(f"A kind of change is one of {CHANGE_KINDS}, got {unknown[0]!r}.")
        return tuple(change for change in self.changes if change.kind in kinds)

    def circuit(self, *kinds: ChangeKind) -> Circuit:
        """The edges of some kinds (of all kinds where none is given) as a circuit, the largest change first.

        Raises:
            ValueError: There is no such kind.

        Example:
            >>> changes = wb.compare_edges(model, edit, k=20, pool=facts)
            >>> exact = wb.compare_edges(model, edit, method="patching", chosen=changes.circuit(), pool=facts)
            >>> exact.before.n_edges == len(changes.changes)
            True
        """
        chosen = self.of(*(kinds or CHANGE_KINDS))
        return Circuit((change.edge for change in chosen), base_fingerprint=self.before.base_fingerprint)

    @property
    def counts(self) -> dict[ChangeKind, int]:
        """How many edges there are of each kind."""
        found = Counter(change.kind for change in self.changes)
        return {kind: found[kind] for kind in CHANGE_KINDS}

    @property
    def words(self) -> str:
        """What the edit did, in a sentence or two, with the control."""
        metric = self.before.metric_words.title
        counts = ", ".join(f"{n} {kind}" for kind, n in self.counts.items())
        same = (
            "" if self.control is None else f" Control: the same edit at strength 0 changes {_at_most(self.control)}."
        )
        return (
            f"Of the {self.k} largest of {self.before.n_edges} edges before and after the edit: {counts}. Clean run: "
            f"{metric} {self.before.clean:.3g} before, {self.after.clean:.3g} after; corrupted run: "
            f"{self.before.corrupted:.3g} before, {self.after.corrupted:.3g} after.{same}"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row an edge that changed, the largest change first: ``edge``, ``kind``, ``before``, ``after``,
        ``change``, ``stderr`` (of the change; NaN if not known), ``rank_before``, ``rank_after``, ``n``."""
        import pandas as pd

        changes = self.changes
        columns: dict[str, list[Any]] = {
            "edge": [str(one.edge) for one in changes],
            **{name: [getattr(one, name) for one in changes] for name in ("kind", "before", "after", "change")},
            "stderr": [float("nan") if one.stderr is None else one.stderr for one in changes],
            **{name: [getattr(one, name) for one in changes] for name in ("rank_before", "rank_after")},
            "n": [self.before.n] * len(changes),
        }
        return pd.DataFrame(columns)

    def plot(self, **options: Any) -> go.Figure:
        """Draw the largest changes as a plotly figure (see ``workbench.plots.edge_changes_figure``).

        Example:
            >>> figure = wb.compare_edges(model, edit, k=20, pool=facts).plot(k=5)
            >>> [trace.name for trace in figure.data if trace.name]
            ['before', 'after']
        """
        from workbench.plots import edge_changes_figure

        return edge_changes_figure(self, **options)

    def save(self, path: str | Path) -> Path:
        """Write both maps and what was compared to one ``.safetensors`` file, atomically. Returns the path."""
        from workbench.files.edge_comparisons import save_edge_comparison

        return save_edge_comparison(self, path)

    @staticmethod
    def load(path: str | Path) -> EdgeComparison:
        """Read a comparison written by ``save``.

        Raises:
            ValueError: The file is damaged or of another kind or version.

        Example:
            >>> changes = wb.compare_edges(model, edit, k=20, pool=facts)
            >>> wb.EdgeComparison.load(changes.save("changes.safetensors")).changes == changes.changes
            True
        """
        from workbench.files.edge_comparisons import load_edge_comparison

        return load_edge_comparison(path)


def check_k(k: Any, most: int | None = None) -> None:
    """Raise a ValueError where ``k`` is not a number of edges.

    Args:
        k: What is given.
        most: How many edges there are, where that is known.
    """
    if isinstance(k, bool) or not is_whole(k) or k < 1 or (most is not None and k > most):
        bound = "from 1" if most is None else f"from 1 to {most}, the edges with a score"
        raise ValueError(
            f"k must be a whole number of edges {bound}, got {k!r}. Leave it out for 100, or all of fewer."
        )


def _at_most(change: float) -> str:
    return f"edges by up to {change:.2g}" if change else "no edge"


def _ranks(sizes: Tensor) -> list[int]:
    """The place of each by size, 1 for the largest; of equal ones the first comes first, as in ``EdgeMap.top``."""
    order = sizes.argsort(descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(1, len(order) + 1)
    return [int(rank) for rank in ranks]


def _kind(before: float, after: float, was_large: bool, is_large: bool) -> ChangeKind | None:
    """What happened to an edge, see the module's docstring; None where its score is the same."""
    grown = abs(after) - abs(before)
    if is_large and not was_large and grown > 0:
        return "new"
    if was_large and not is_large and grown < 0:
        return "gone"
    if before * after < 0:
        return "turned"
    if grown:
        return "weakened" if grown < 0 else "strengthened"
    return None
