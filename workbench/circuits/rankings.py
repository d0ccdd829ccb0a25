"""Rankings of edges or of nodes, and the order that each of them gives: places, the first ones first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from workbench.circuits.ablations import Edges, Level, Nodes
from workbench.circuits.all_nodes import AllNodes
from workbench.circuits.wiring import Wired
from workbench.models.load import LoadedModel
from workbench.tracing.ranking import ranked
from workbench.types import Circuit, Component, EdgeGraph, EdgeMap, EffectMap, Selection
from workbench.types.edge_map import Order
from workbench.types.faithfulness_curve import RANDOM, CurveUnit
from workbench.types.plain import is_mapping

Scores = Mapping[str, float] | Mapping[Component, float]
EdgeRanking = EdgeMap | Circuit
NodeRanking = Selection | EffectMap | Mapping[Any, EffectMap] | Scores
Ranking = EdgeRanking | NodeRanking | str
_NODE_UNITS = ("head", "mlp", "neuron", "attn")


@dataclass(frozen=True)
class Ranked:
    """Rankings of one unit, in the order of all edges or nodes.

    Attributes:
        unit, parts: As in ``FaithfulnessCurve``.
        every: The places of all edges or nodes.
        orders: Places by ranking, the first ones first.
        nodes: All nodes, for rankings of them.
    """

    unit: CurveUnit
    parts: str
    every: Tensor
    orders: dict[str, Tensor]
    nodes: AllNodes | None = None

    @classmethod
    def of(cls, model: LoadedModel, rankings: Ranking | Mapping[str, Ranking], by: Order) -> Ranked:
        """Bring rankings into orders.

        Raises:
            ValueError: There is none, edges beside nodes, a name of random ones, a ranking of another model, or one
                that does not rank.
            TypeError: Something is no ranking.
        """
        named = _named(rankings)
        if any(name.startswith(RANDOM) for name in named):
            name = next(name for name in named if name.startswith(RANDOM))
            raise ValueError(f"A ranking cannot be called {name!r}: random ones are made here. Give it another name.")
        of_edges = {name: one for name, one in named.items() if isinstance(one, EdgeMap | Circuit)}
        if of_edges and len(of_edges) < len(named):
            other = next(name for name in named if name not in of_edges)
            raise ValueError(
                f"{next(iter(of_edges))!r} ranks edges and {other!r} ranks nodes, and a share of the one is none of "
                "the other. Measure two curves."
            )
        if of_edges:
            graph = EdgeGraph.of(model)
            orders = {name: _edge_order(model, graph, one, by) for name, one in of_edges.items()}
            return cls("edge", "edges", graph.mask.flatten().nonzero()[:, 0], orders)
        chosen = {name: _selection(model, name, one, by) for name, one in named.items()}
        nodes = AllNodes.of(model.shape, chosen.values())
        orders = {name: nodes.order(one) for name, one in chosen.items()}
        return cls("node", nodes.words, torch.arange(nodes.count), orders, nodes)

    def level(self, wired: Wired) -> Level:
        """How their ablation is measured."""
        level: Any = Edges(wired) if self.nodes is None else Nodes(wired, self.nodes)
        return level

    def check(self, sizes: Sequence[float], counts: Sequence[int]) -> None:
        """Raise a ValueError where a ranking has fewer places than the largest size takes."""
        for name, order in self.orders.items():
            if len(order) < counts[-1]:
                fitting = tuple(size for size, count in zip(sizes, counts, strict=True) if count <= len(order))
                whole = "a map of all edges" if self.unit == "edge" else "a ranking of all nodes"
                raise ValueError(
                    f"The ranking {name!r} has {len(order)} of all {len(self.every)} {self.parts}, and the largest "
                    f"size takes {counts[-1]}. Give smaller sizes (of these sizes={fitting} fit), or {whole}."
                )


def _named(rankings: Ranking | Mapping[str, Ranking]) -> dict[str, Any]:
    """Rankings by name; of a single one it is made here."""
    if is_mapping(rankings) and not _are_scores(rankings):
        named = {str(name): _read(one) for name, one in rankings.items()}
    else:
        one = _read(rankings)
        kind = "scores" if isinstance(one, Mapping) else type(one).__name__.lower()
        named = {str(getattr(one, "method", kind)): one}
    if not named:
        raise ValueError("rankings= is empty: give an EdgeMap, a Circuit, a Selection, an EffectMap or scores.")
    return named


def _read(ranking: object) -> Any:
    """A ranking, or its text."""
    if isinstance(ranking, str):
        return _read(Circuit(ranking) if "->" in ranking else Selection(ranking))
    maps = is_mapping(ranking) and bool(ranking) and all(isinstance(one, EffectMap) for one in ranking.values())
    if isinstance(ranking, Circuit | Selection) and not ranking:
        raise ValueError(
            f"A ranking is empty ({type(ranking).__name__}()): there is nothing to rank. Give its edges or components "
            "in order, or leave it out."
        )
    if isinstance(ranking, EdgeMap | Circuit | Selection | EffectMap) or maps or _are_scores(ranking):
        return ranking
    raise TypeError(
        f"{type(ranking).__name__} is no ranking. Give an EdgeMap or a Circuit for edges; for nodes a Selection in "
        "order, an EffectMap, EffectMaps by unit as wb.attribute gives them, or scores {'L23H4': 0.7, ...}; or a dict "
        "of these by name."
    )


def _are_scores(ranking: object) -> bool:
    return is_mapping(ranking) and bool(ranking) and all(isinstance(value, int | float) for value in ranking.values())


def _edge_order(model: LoadedModel, graph: EdgeGraph, ranking: EdgeRanking, by: Order) -> Tensor:
    """Flat places of edges [receivers x senders], the first ones first."""
    circuit = ranking.top(ranking.n_edges, by=by) if isinstance(ranking, EdgeMap) else ranking
    circuit.check(model)
    rows, columns = graph.receiver_index, graph.sender_index
    places = [rows[e.receiver] * len(graph.senders) + columns[e.sender] for e in circuit.edges_in(graph)]
    return torch.tensor(places, dtype=torch.long)


def _selection(model: LoadedModel, name: str, ranking: Any, by: Order) -> Selection:
    """The components of a ranking, the first ones first."""
    if isinstance(ranking, Selection):
        return ranking
    if _are_scores(ranking):
        return _of_scores(name, ranking, by)
    maps = [ranking] if isinstance(ranking, EffectMap) else list(cast("Mapping[Any, EffectMap]", ranking).values())
    for effects in maps:
        _check_map(model, name, effects)
    every = sum(effects.values.numel() for effects in maps)
    found = ranked(maps, k=every, by="abs" if by == "abs" else "value")
    return Selection(one.component for one in (reversed(found) if by == "lowest" else found))


def _of_scores(name: str, scores: Mapping[Any, float], by: Order) -> Selection:
    bad = {str(key): value for key, value in scores.items() if not math.isfinite(value)}
    if bad:
        raise ValueError(f"The scores {name!r} must be finite, got {bad}. Leave out what was not measured.")
    keys = {"abs": abs, "highest": lambda x: x, "lowest": lambda x: -x}
    return Selection(sorted(scores, key=lambda key: keys[by](scores[key]), reverse=True))


def _check_map(model: LoadedModel, name: str, effects: EffectMap) -> None:
    """Raise a ValueError for a map of another model, or one whose cells are no nodes."""
    if "position" in effects.axes:
        raise ValueError(
            f"The map {name!r} has positions, and a node counts at all of them. Give what stands out at a token in "
            "order, such as trace.top(20, role='last subject token'), or a map of wb.attribute."
        )
    if effects.unit not in _NODE_UNITS:
        raise ValueError(
            f"The map {name!r} is of {effects.unit!r}, which writes nothing by itself; maps that rank nodes are of "
            f"{_NODE_UNITS}."
        )
    marks = {model.fingerprint, getattr(getattr(model, "base", None), "fingerprint", None)}
    if effects.base_fingerprint is not None and effects.base_fingerprint not in marks:
        raise ValueError(
            f"The map {name!r} is of another model (fingerprint {effects.base_fingerprint[:12]}, this one has "
            f"{model.fingerprint[:12]}), where L0H0 is another head. Make it again on this model."
        )
