"""How the edits of a stack overlap: keys that two of them read, gates and weights that both move, and norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from workbench.models.deltas import changed_weights, fold
from workbench.models.deltas.reading import moved_gates, read_directions
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.types import Delta
from workbench.types.stack import NormRow, OverlapRow, StackOverlaps


def overlaps_of(base: LoadedModel, names: Sequence[str], deltas: Mapping[int, Delta]) -> StackOverlaps:
    """Compare every two edits of a stack, and measure the weights after each.

    Args:
        base: The base model.
        names: Of all edits of the stack.
        deltas: What those that are on add, at their strength, by their place in the stack.
    """
    rows: list[OverlapRow] = []
    keys = {i: read_directions(delta) for i, delta in deltas.items()}
    gates = {i: moved_gates(delta) for i, delta in deltas.items()}
    weights = {i: _matrices(base, delta) for i, delta in deltas.items()}
    for first, second in combinations(deltas, 2):
        pair: dict[str, Any] = {"first": first, "second": second}
        for layer, module in keys[first].keys() & keys[second].keys():
            cosine, shared, of = shared_directions(keys[first][layer, module], keys[second][layer, module])
            rows.append(
                OverlapRow(**pair, kind="keys", place=f"L{layer} {module}", cosine=cosine, shared=shared, of=of)
            )
        for layer, site in gates[first].keys() & gates[second].keys():
            cosine, shared, of = shared_entries(gates[first][layer, site], gates[second][layer, site])
            rows.append(OverlapRow(**pair, kind="gates", place=f"L{layer} {site}", cosine=cosine, shared=shared, of=of))
        for name in weights[first].keys() & weights[second].keys():
            mine, other = (_change(base, weights[i], name) for i in (first, second))
            cosine, shared, of = shared_entries(mine, other)
            place = place_of(base, name)
            rows.append(OverlapRow(**pair, kind="weights", place=place, cosine=cosine, shared=shared, of=of))
    kinds = ("keys", "gates", "weights")
    rows.sort(key=lambda r: (r.first, r.second, kinds.index(r.kind), -r.shared / max(r.of, 1), -r.shared, r.place))
    return StackOverlaps(
        names=tuple(names), rows=tuple(row for row in rows if row.shared), norms=tuple(_norms(base, deltas))
    )


def shared_directions(first: Tensor, second: Tensor) -> tuple[float, float, int]:
    """Compare two spaces of directions.

    Args:
        first, second: Rows [n, d] and [m, d], none of them 0; they need not be independent.

    Returns:
        The largest absolute cosine of a row of one and a row of the other; the sum of squared cosines of the principal
        angles (how many dimensions of the smaller space lie in the other one); the smaller space's dimension.

    Source: Björck & Golub 1973, "Numerical methods for computing angles between linear subspaces".
    """
    one, other = (torch.nn.functional.normalize(rows.double(), dim=1) for rows in (first, second))
    spaces = [_basis(one), _basis(other)]
    angles = torch.linalg.svdvals(spaces[0] @ spaces[1].T)
    cosine = min(float((one @ other.T).abs().max()), 1.0)
    return cosine, float(angles.square().sum()), min(len(space) for space in spaces)


def shared_entries(first: Tensor, second: Tensor) -> tuple[float, int, int]:
    """Compare two moves of the same numbers.

    Args:
        first, second: How far each number is moved; of one shape.

    Returns:
        The cosine of both; how many numbers both move; how many the one that moves fewer moves.
    """
    one, other = first.double().flatten(), second.double().flatten()
    sizes = float(one.norm() * other.norm())
    counts = [int((x != 0).sum()) for x in (one, other)]
    return float(one @ other) / sizes if sizes else 0.0, int(((one != 0) & (other != 0)).sum()), min(counts)


def _basis(rows: Tensor) -> Tensor:
    """An orthonormal basis of the rows' span, [rank, d]."""
    _, sizes, right = torch.linalg.svd(rows, full_matrices=False)
    return right[sizes > 1e-9 * sizes[0]]


def place_of(base: LoadedModel, name: str) -> str:
    """A weight's place in words: ``"L13 mlp.down_proj"``; outside the layers its full name."""
    prefix = f"{base.architecture.family.layers}."
    short = name.removesuffix(".weight")
    if not short.startswith(prefix):
        return short
    layer, _, module = short.removeprefix(prefix).partition(".")
    return f"L{layer} {module}"


def _matrices(base: LoadedModel, delta: Delta) -> dict[str, Tensor]:
    """The weight matrices that a delta changes, as they are with it."""
    view = shared_view(base.hf)
    fold(view, base.architecture, delta)
    return {name: view.get_parameter(name).detach() for name in changed_weights(base.architecture, delta)}


def _change(base: LoadedModel, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return weights[name].float() - base.hf.get_parameter(name).detach().float()


def _norms(base: LoadedModel, deltas: Mapping[int, Delta]) -> list[NormRow]:
    """The weights' change after each edit, over all matrices that any of them changes."""
    names = list(dict.fromkeys(n for delta in deltas.values() for n in changed_weights(base.architecture, delta)))
    plain = {name: base.hf.get_parameter(name).detach().double() for name in names}
    squares = {name: float(weight.square().sum()) for name, weight in plain.items()}
    total, rows = sum(squares.values()), []
    joined: Delta | None = None
    for i, delta in deltas.items():
        joined = delta if joined is None else joined.then(delta)
        weights = _matrices(base, joined)
        moved = {name: float((weights[name].double() - plain[name]).square().sum()) for name in weights}
        shares = {name: (value / squares[name]) ** 0.5 for name, value in moved.items() if squares[name]}
        if not shares:
            continue
        place = max(shares, key=shares.__getitem__)
        now = sum(float(weights[n].double().square().sum()) if n in weights else squares[n] for n in names)
        rows.append(
            NormRow(
                layer=i,
                change=(sum(moved.values()) / total) ** 0.5,
                norm=(now / total) ** 0.5,
                place=place_of(base, place),
                largest=shares[place],
            )
        )
    return rows
