"""Edge maps: what each edge of a model carries of the difference between two runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from workbench.types.circuit import Circuit, Edge
from workbench.types.effect import Corruption
from workbench.types.metric_words import KNOWN_WORDS, MetricWords
from workbench.types.plain import is_whole

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

EdgeMethod = Literal["eap", "eap-ig", "patching"]
Order = Literal["abs", "lowest", "highest"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EdgeMap:
    """A score for each edge of a model: by how much the metric of the clean run changes where this edge alone carries
    the corrupted run's write (exactly, or to first order). It lies on the CPU.

    An edge on which the answer rests has a negative score: with the corrupted write the metric falls.

    Args:
        values: Scores in units of ``metric``, [receivers, senders]; NaN where there is no edge, or it was not measured.
        senders: Names of the senders, ``"embedding"`` first, then heads and MLPs.
        receivers: Names of the receivers: queries (``"L9Q4"``), keys and values of groups, MLPs, ``"logits"``.
        metric: What is measured.
        method: ``"eap"``, ``"eap-ig"`` or ``"patching"``.
        steps: Of ``"eap-ig"``; None for the others.
        clean, corrupted: The metric of the two runs, means over items.
        stderr: Standard error over items, as ``values``; None for one item.
        n: How many items (facts or contrasts) the scores are means of.
        corruption: ``"swap"`` or ``"noise"``.
        words: What figures call the metric; None for a known one.
        base_fingerprint: Of the model.
        provenance: Model name, versions, settings and time. Nothing is decided by it.

    Example:
        >>> edges = wb.edges(model, fact, pool=facts)
        >>> edges
        EdgeMap(eap-ig, 304 edges, logit_diff, clean ..., corrupted ..., largest ...)
        >>> edges.top(2).base_fingerprint == model.fingerprint
        True
    """

    values: Tensor
    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    metric: str
    method: EdgeMethod
    clean: float
    corrupted: float
    steps: int | None = None
    stderr: Tensor | None = None
    n: int = 1
    corruption: Corruption | None = None
    words: MetricWords | None = None
    base_fingerprint: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if tuple(self.values.shape) != (len(self.receivers), len(self.senders)):
            raise ValueError(
                f"values of shape {tuple(self.values.shape)} do not fit {len(self.receivers)} receivers and "
                f"{len(self.senders)} senders."
            )
        for name in ("values", "stderr"):
            tensor = getattr(self, name)
            if tensor is not None:
                object.__setattr__(self, name, tensor.detach().to("cpu", torch.float32))

    def __repr__(self) -> str:
        places, scores = self._flat()
        largest = f", largest {self._edge(int(places[scores.abs().argmax()]))}" if len(scores) else ""
        return (
            f"EdgeMap({self.method}, {len(scores)} edges, {self.metric}, clean {self.clean:.3f}, "
            f"corrupted {self.corrupted:.3f}{largest})"
        )

    def __getitem__(self, edge: Edge | str) -> float:
        """The score of an elementary edge.

        Raises:
            KeyError: The map has no such edge: a receiver is a query, a group's key or value, an MLP or the logits.
        """
        wanted = Edge.parse(edge)
        sender, receiver = str(wanted.sender), str(wanted.receiver)
        value = float("nan")
        if sender in self.senders and receiver in self.receivers:
            value = float(self.values[self.receivers.index(receiver), self.senders.index(sender)])
        if value != value:
            raise KeyError(
                f"The map has no score of {wanted}. Its receivers are queries, keys and values (L9Q4, L9K1, L9V1), "
                "MLPs and logits; of method='patching' only the chosen edges are measured."
            )
        return value

    @property
    def n_edges(self) -> int:
        """How many edges have a score."""
        return int((~self.values.isnan()).sum())

    @property
    def metric_words(self) -> MetricWords:
        """What figures call the metric."""
        known = KNOWN_WORDS.get(self.metric) or MetricWords(name=self.metric, title=self.metric, unit=self.metric)
        return self.words or known

    def top(self, k: float, *, by: Order = "abs") -> Circuit:
        """The edges with the largest scores, as a circuit, the largest first.

        Args:
            k: How many edges; or, below 1, which share of all.
            by: ``"abs"`` by size; ``"lowest"`` those that the answer rests on most; ``"highest"`` those that hold it
                back.

        Raises:
            ValueError: ``k`` is not within the map's edges.

        Example:
            >>> edges = wb.edges(model, fact, pool=facts)
            >>> len(edges.top(5)), len(edges.top(0.1)), edges.top(5) == edges.top(9) & edges.top(5)
            (5, 30, True)
        """
        if by not in get_args(Order):
            raise ValueError(f"by must be one of {get_args(Order)}, got {by!r}.")
        places, scores = self._flat()
        count = k if is_whole(k) else int(k * len(scores)) if 0 < k < 1 else -1
        if isinstance(k, bool) or not 1 <= count <= len(scores):
            raise ValueError(
                f"k must be a number of edges from 1 to {len(scores)}, or a share between 0 and 1 that makes at least "
                f"one, got {k!r}."
            )
        key = {"abs": scores.abs(), "lowest": -scores, "highest": scores}[by]
        order = key.argsort(descending=True, stable=True)[:count]
        return Circuit((self._edge(int(i)) for i in places[order]), base_fingerprint=self.base_fingerprint)

    def _flat(self) -> tuple[Tensor, Tensor]:
        """The flat places of the scores, and the scores."""
        flat = self.values.flatten()
        places = (~flat.isnan()).nonzero()[:, 0]
        return places, flat[places]

    def _edge(self, place: int) -> Edge:
        receiver, sender = divmod(place, len(self.senders))
        return Edge.parse(f"{self.senders[sender]} -> {self.receivers[receiver]}")

    def to_frame(self) -> pd.DataFrame:
        """One row an edge, the largest first: ``edge``, ``sender``, ``receiver``, ``score``, ``stderr`` (NaN if not
        known), ``n``."""
        import pandas as pd

        places, scores = self._flat()
        order = scores.abs().argsort(descending=True, stable=True)
        places, scores = places[order], scores[order]
        pairs = [divmod(int(place), len(self.senders)) for place in places]
        sender, receiver = [self.senders[i] for _, i in pairs], [self.receivers[i] for i, _ in pairs]
        data: dict[str, Any] = {
            "edge": [f"{a} -> {b}" for a, b in zip(sender, receiver, strict=True)],
            "sender": sender,
            "receiver": receiver,
            "score": scores.numpy(),
            "stderr": float("nan") if self.stderr is None else self.stderr.flatten()[places].numpy(),
            "n": self.n,
        }
        return pd.DataFrame(data)

    def plot(self, **options: Any) -> go.Figure:
        """Draw the largest edges as a plotly figure (see ``workbench.plots.edges_figure``).

        Example:
            >>> figure = wb.edges(model, fact, pool=facts).plot(k=5)
            >>> figure.layout.title.text, len(figure.data[0].x)
            ('Edges (eap-ig)', 5)
        """
        from workbench.plots import edges_figure

        return edges_figure(self, **options)

    def save(self, path: str | Path) -> Path:
        """Write the map to one ``.safetensors`` file, atomically. Returns the path."""
        from workbench.files.edge_maps import save_edge_map

        return save_edge_map(self, path)

    @staticmethod
    def load(path: str | Path) -> EdgeMap:
        """Read a map written by ``save``.

        Raises:
            ValueError: The file is damaged or of another kind or version.

        Example:
            >>> edges = wb.edges(model, fact, pool=facts)
            >>> wb.EdgeMap.load(edges.save("edges.safetensors")).top(4) == edges.top(4)
            True
        """
        from workbench.files.edge_maps import load_edge_map

        return load_edge_map(path)
