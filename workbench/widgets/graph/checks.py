"""What a graph can be of: the checks behind ``CircuitGraph``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.models.load import LoadedModel
from workbench.types import Circuit, Component, Contrast, EdgeGraph, EdgeMap, Fact
from workbench.types.circuit import Edge
from workbench.types.plain import is_whole
from workbench.widgets.picker.picker import CircuitPicker

MOST_DRAWN = 300
"""More lines than that say nothing, and a browser takes long over them."""


def check_picker(model: LoadedModel, picker: CircuitPicker) -> None:
    """Raise a ValueError for a picker of another model."""
    if picker.model.fingerprint != model.fingerprint:
        raise ValueError("The picker is of another model, where L0H0 is another head: give one of this model.")


def is_part(name: str) -> bool:
    """Whether a node is a head or an MLP, which a selection can hold."""
    return name not in ("embedding", "logits") and Component.parse(name).kind in ("H", "MLP")


def is_scored(scores: EdgeMap, edge: Edge) -> bool:
    """Whether a map has the score of an edge."""
    try:
        return scores[edge] is not None
    except KeyError:
        return False


def title_of(items: Sequence[Fact | Contrast]) -> str:
    """What the edges are scored on, in a few words."""
    return items[0].id + (f" and {len(items) - 1} more" if len(items) > 1 else "")


def heading_of(items: Sequence[Fact | Contrast], measure: Mapping[str, Any], taken: Fact | None) -> str:
    """What the edges are scored on, and how: the corruption, the partner and the form.

    Args:
        items: Facts or contrasts.
        measure: ``"corruption"``, ``"form"`` and ``"partner"``, of facts.
        taken: The partner where none was given; None where it is not chosen yet.
    """
    first, partner = items[0], measure["partner"] or taken
    if isinstance(first, Contrast):
        how = "noise on the clean prompt" if first.corruption == "noise" else "against the corrupted prompt"
    elif measure["corruption"] == "noise":
        how = "noise on the subject"
    else:
        how = "swap" if partner is None else f"swap with {partner.subject}"
    form = f", as {measure['form']}" if isinstance(first, Fact) and measure["form"] else ""
    return f"{title_of(items)}; {how}{form}"


def check_count(count: Any) -> None:
    """Raise a ValueError for what is no number of edges that can be drawn."""
    if isinstance(count, bool) or not is_whole(count) or not 1 <= count <= MOST_DRAWN:
        raise ValueError(f"count must be a number of edges from 1 to {MOST_DRAWN}, got {count!r}.")


def checked_circuit(model: LoadedModel, circuit: Circuit | None) -> Circuit | None:
    """The circuit. Raises a ValueError for an empty one, and for one of another model."""
    if circuit is None:
        return None
    if not len(circuit):
        raise ValueError("circuit= is empty: there is no edge to draw. Leave it out for the largest of all edges.")
    circuit.check(model)
    return circuit


def check_map(model: LoadedModel, scores: EdgeMap) -> None:
    """Raise a ValueError for a map of another model."""
    graph = EdgeGraph.of(model)
    same = (scores.senders, scores.receivers) == (tuple(map(str, graph.senders)), tuple(map(str, graph.receivers)))
    if not same or scores.base_fingerprint not in (None, model.fingerprint):
        raise ValueError(
            "edges= is the map of another model, whose heads are others. Score the edges of this one: "
            "wb.edges(model, contrast)."
        )
