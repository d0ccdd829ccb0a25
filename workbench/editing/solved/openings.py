"""Openings: the rows V of a keyed update, fixed before anything is trained.

A row opens by V.k at a key k, and the update U V moves a module's output by so much of U. It opens by exactly 1 at the
mean key of its fact, and as little as can be at everything in A: ordinary text, subjects of retained facts, where the
update is closed the same subject under other relations, and other subjects with the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.editing.solved.formulas import Metric, VanishingDenominator, check_denominators, check_independent
from workbench.editing.solved.keys import PreparedContexts, mean_by_fact
from workbench.editing.solved.places import Context
from workbench.editing.solved.spots import Place, Spot, key_spot, where_of
from workbench.editing.solved.write import covariance_terms
from workbench.models.load import LoadedModel
from workbench.types.cancelling import CancelFlag
from workbench.types.covariance import Covariance

MOST_OFF = 1e-6
"""How far an opening may be from 1 at its own key and from 0 at the others'."""
MORE_COLUMNS = "Select more components (or None for whole modules), or edit fewer facts at once."


@dataclass(frozen=True, kw_only=True)
class Sparing:
    """How much an opening spares.

    Args:
        ridge: Added to C's diagonal, as a share of its mean.
        protect: Weight of E[k0 k0^T], keys of retained facts.
        closing: Weight of the keys of the same subject under other relations.
        rival: Weight of the keys of other subjects with the same answer.
        spread: Weight of the scatter of the fact's own keys around their mean: what differs between wordings is not
            used, so that an opening is alike in all of them.
    """

    ridge: float = 1e-3
    protect: float = 10.0
    closing: float = 30.0
    rival: float = 30.0
    spread: float = 0.0


@dataclass(frozen=True, eq=False)
class Opening:
    """The rows of one module.

    Args:
        place: The module.
        rows: V, [groups, d_in] float64; exactly 0 in columns that may not be read.
        denominators: k^T A^-1 k of each group's mean key, [groups].
        size: The mean length of the residual stream after the layer, at the keys.
        columns: What may be read; None for all.
    """

    place: Place
    rows: Tensor
    denominators: Tensor
    size: float
    columns: tuple[int, ...] | None = None


def dual_rows(metric: Metric, keys: Tensor, *, force: bool = False, where: str = "") -> Tensor:
    """The rows V [n, d_in] that open by 1 at their own key and by 0 at the others', and least by A:
    V = (K^T A^-1 K)^-1 K^T A^-1. For one key A^-1 k, scaled to V.k = 1.

    Args:
        metric: A, on the selected columns.
        keys: K, [d_in, n].
        force: Take keys that are so nearly dependent that the rows open by more than ``MOST_OFF`` beside it.
        where: The module, for the message.

    Raises:
        VanishingDenominator: Keys of which one follows from the others, in the columns that may be read.
    """
    lengths = metric.leverage(keys).sqrt()  # of one length, so that short keys do not count as dependent ones
    alike = keys.double() / lengths
    gram = metric.gram(alike)
    check_independent(gram, MORE_COLUMNS, where)
    rows = metric.wide(torch.linalg.solve(gram, metric.solve(alike).T)) / lengths[:, None]
    off = float((rows @ keys.double() - torch.eye(len(rows), dtype=torch.float64)).abs().max())
    if not (force or off <= MOST_OFF):
        raise VanishingDenominator(
            f"The {len(rows)} keys{where and f' at {where}'} are nearly dependent: a row that is to open for one alone "
            f"is off by {off:.2g}. {MORE_COLUMNS}"
        )
    return rows


def openings(
    model: LoadedModel,
    columns: Mapping[Place, tuple[int, ...] | None],
    covariances: Mapping[Place, Covariance],
    own: Sequence[Context],
    *,
    retained: Sequence[Context],
    closed: Sequence[Context],
    sparing: Sparing,
    rivals: Sequence[Context] = (),
    groups: Tensor | None = None,
    force: bool = False,
    cancel: CancelFlag | None = None,
) -> list[Opening]:
    """The openings of some modules.

    Args:
        model: The base model.
        columns: By module, which inputs may be read; None for all.
        covariances: C of each module.
        own: The facts' contexts, with the places at which the update is to open.
        retained: Contexts of retained facts, with places at which it is not to.
        closed: Contexts of the same subjects under other relations, likewise.
        sparing: The weights of A.
        rivals: Contexts of other subjects with the same answer, likewise.
        groups: Of each place of ``own``, which row opens there, [places]; None: that of the context's fact.
        force: Open even where the columns hardly see the key.
        cancel: As in ``rewrite``.

    Raises:
        VanishingDenominator: A key that the columns do not see, or keys of which one follows from the others.
        SingularCovariance: A cannot be inverted.
    """
    places = list(columns)
    lowest = min(place.layer for place in places)
    mine = PreparedContexts(model, own, lowest, cancel=cancel)
    after = [Spot("resid", place.layer) for place in places]
    states = mine.read([*map(key_spot, places), *after])
    groups = mine.facts if groups is None else groups
    kinds = ((retained, sparing.protect), (closed, sparing.closing), (rivals, sparing.rival))
    spared = [(_keys(model, contexts, places, lowest, cancel), weight) for contexts, weight in kinds]
    terms = covariance_terms(covariances, spared, ridge=sparing.ridge)
    found: list[Opening] = []
    for place, resid in zip(places, after, strict=True):
        keys = states[key_spot(place)]
        means = mean_by_fact(keys, groups)
        values = terms[place]
        if sparing.spread:
            scatter = keys - means[groups]
            values = values + sparing.spread * scatter.T @ scatter / len(scatter)
        where = where_of(model, place)
        metric = Metric(values, columns[place], where=where)
        denominators = metric.leverage(means.T)
        check_denominators(denominators, metric.size, n_columns=metric.size, force=force, where=where)
        size = float(states[resid].norm(dim=1).mean())
        rows = dual_rows(metric, means.T, force=force, where=where)
        found.append(Opening(place, rows, denominators, size, columns[place]))
    return found


def opened(model: LoadedModel, found: Sequence[Opening], contexts: Sequence[Context]) -> dict[Place, Tensor]:
    """By how much openings open at the places of some contexts: by module, V.k, [places, groups].

    Args:
        model: The base model.
        found: The openings.
        contexts: Texts with places.
    """
    places = [opening.place for opening in found]
    keys = _keys(model, contexts, places, min(place.layer for place in places), None)
    return {opening.place: keys[opening.place] @ opening.rows.T for opening in found}


def _keys(
    model: LoadedModel,
    contexts: Sequence[Context],
    places: Sequence[Place],
    lowest: int,
    cancel: CancelFlag | None,
) -> dict[Place, Tensor]:
    """Keys of contexts by module, [n, d_in]; empty where there are none."""
    if not contexts:
        return {}
    prepared = PreparedContexts(model, contexts, lowest, cancel=cancel)
    states = prepared.read([key_spot(place) for place in places])
    return {place: states[key_spot(place)] for place in places}
