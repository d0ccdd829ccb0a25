"""Writing updates layer by layer, on a view: the lower ones are in place when the next is solved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from workbench.editing.solved import formulas
from workbench.editing.solved.formulas import Factors
from workbench.editing.solved.keys import PreparedContexts
from workbench.editing.solved.spots import Place, Spot, key_spot, module_name, name_within, weight_of
from workbench.models.deltas import fold
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.types import Delta, LowRankDelta
from workbench.types.covariance import Covariance
from workbench.types.write import Write


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be solved for one module.

    Args:
        place: The module.
        keys: K, [d_in, n] float64.
        residuals: R, what the module's outputs at these keys lack, [d_out, n] float64.
        weights: Of each key, [n]; they sum to 1 over the keys of a fact.
        facts: Of each key, which fact it is of, [n].
    """

    place: Place
    keys: Tensor
    residuals: Tensor
    weights: Tensor
    facts: Tensor


@dataclass(frozen=True, eq=False)
class Solved:
    """An update, with what its ``Write`` says of it.

    Args:
        factors: U [d_out, r], V [r, d_in].
        denominators: k^T C^-1 k of the keys, in the columns that are written, [facts].
        columns: Those; None for all.
        covariance: C, where it was measured.
    """

    factors: Factors
    denominators: Tensor
    columns: tuple[int, ...] | None = None
    covariance: Covariance | None = None


Solve = Callable[[Problem], Solved]


@dataclass
class Writer:
    """Puts updates on a view of a model, one after the other. Nothing of the model itself is written.

    Args:
        model: The base model.
        before: What is on the view already: the delta of an earlier stage.
        stage: The stage's name, for the records.

    Attributes:
        view: The view, with all updates so far.
        writes: What was written.
    """

    model: LoadedModel
    before: Delta | None = None
    stage: str = "edit"
    view: Any = field(init=False)
    writes: list[Write] = field(init=False, default_factory=list[Write])

    def __post_init__(self) -> None:
        self.view = shared_view(self.model.hf)
        self._factors: dict[tuple[int, str], Factors] = {}
        if self.before is not None:
            fold(self.view, self.model.architecture, self.before)

    @property
    def delta(self) -> LowRankDelta:
        """All updates so far."""
        return LowRankDelta({key: (u.float(), v.float()) for key, (u, v) in self._factors.items()})

    def write(self, place: Place, solved: Solved, *, keys: int = 1, residual_before: float | None = None) -> None:
        """Add an update to a module of the view.

        Args:
            place: The module.
            solved: The update.
            keys: How many keys it was solved for.
            residual_before: See ``Write``.

        Raises:
            ArithmeticError: The update is not finite.
        """
        architecture = self.model.architecture
        name = name_within(architecture, place)
        u, v = solved.factors
        if not (bool(u.isfinite().all()) and bool(v.isfinite().all())):
            raise ArithmeticError(
                f"The update of layer {place.layer} {name} is not finite; the model is as it was. Raise ridge, or "
                "select more columns."
            )
        key = place.layer, name
        fold(self.view, architecture, LowRankDelta({key: (u.float(), v.float())}))
        if key in self._factors:
            before_u, before_v = self._factors[key]
            self._factors[key] = torch.cat([before_u, u], 1), torch.cat([before_v, v])
        else:
            self._factors[key] = u, v
        measured = solved.covariance
        weight = weight_of(self.model.hf, module_name(architecture, place))
        self.writes.append(
            Write(
                layer=place.layer,
                module=place.module,
                name=name,
                stage=self.stage,
                columns=solved.columns,
                keys=keys,
                rank=u.shape[1],
                denominator=float(solved.denominators.abs().min()),
                relative_norm=formulas.norm(solved.factors) / float(weight.norm()),
                stable_rank=formulas.stable_rank(solved.factors),
                tokens=None if measured is None else measured.tokens,
                covariance_rank=None if measured is None else measured.rank,
                condition=None if measured is None else measured.condition,
                residual_before=residual_before,
            )
        )

    def leaves(self, residual: float) -> None:
        """Say of the last update what its keys lack after it."""
        self.writes[-1] = replace(self.writes[-1], residual_after=residual)


def ordered(places: Sequence[Place]) -> list[Place]:
    """Modules in the order in which a pass meets them: by layer, attention before the MLP."""
    return sorted(places, key=lambda place: (place.layer, place.module == "mlp"))


def weights_of(facts: Tensor) -> Tensor:
    """The same weight for all keys of a fact, 1 together, [n] float64."""
    return 1.0 / facts.bincount().double()[facts]


def spread(
    writer: Writer,
    prepared: PreparedContexts,
    goal: Tensor,
    places: Sequence[Place],
    solve: Solve,
    *,
    shares: Sequence[float] | None = None,
) -> None:
    """Write a change of the residual stream into several modules, from the lowest up; what is still lacking is measured
    again before each.

    Args:
        writer: Takes the updates.
        prepared: Contexts made ready at the lowest layer, on the view as it was before.
        goal: z, the wanted residual stream after the highest layer, at every occurrence of the subjects: [n, d_model].
        places: The modules, ``ordered``.
        solve: Gives a module's update.
        shares: What share of what is lacking each module takes on; by default one of as many as are left.

    Source: MEMIT (2210.07229), section 4.3.
    """
    model = writer.model
    after = Spot("resid", max(place.layer for place in places))
    facts = prepared.facts
    for i, place in enumerate(places):
        out = Spot(place.module, place.layer)
        states = prepared.read([key_spot(place), out, after], view=writer.view)
        lacking = goal - states[after]
        if i:
            writer.leaves(float(lacking.norm(dim=1).mean()))
        share = 1 / (len(places) - i) if shares is None else shares[i]
        wanted = raw_change(model, place, states[out], lacking * share)
        problem = Problem(place, states[key_spot(place)].T, wanted.T, weights_of(facts), facts)
        before = float(lacking.norm(dim=1).mean())
        writer.write(place, solve(problem), keys=len(facts), residual_before=before)
    lacking = goal - prepared.read([after], view=writer.view)[after]
    writer.leaves(float(lacking.norm(dim=1).mean()))


def raw_change(model: LoadedModel, place: Place, out: Tensor, change: Tensor) -> Tensor:
    """What an output projection has to give out besides, so that the residual stream changes as wanted.

    In most families that is the change itself; Granite multiplies what it adds. Where a norm follows (Gemma 2, OLMo 2),
    what is added has the direction that it is wanted in; its size is the norm's.

    Args:
        model: The base model.
        place: The module.
        out: What it gives out now, [n, d_model].
        change: Of the residual stream, [n, d_model].
    """
    traits = model.architecture.traits
    change = change / traits.residual_scale
    if not traits.post_norms:
        return change
    family = model.architecture.family
    name = family.mlp if place.module == "mlp" else family.attention
    norm = model.runner.get_submodule(f"{family.layers}.{place.layer}.{name}")
    with torch.no_grad():
        given = out.to(model.device, model.dtype)
        added = norm(given).to("cpu", torch.float64)
        gain = norm(torch.ones_like(given[:1])).to("cpu", torch.float64)
    wanted = (added + change) / torch.where(gain.abs() < 1e-6, torch.full_like(gain, 1e-6), gain)
    size = out.norm(dim=1, keepdim=True) / wanted.norm(dim=1, keepdim=True)
    return wanted * size - out


def covariance_terms(
    covariances: Mapping[Place, Covariance],
    spared: Sequence[tuple[Mapping[Place, Tensor], float]],
    *,
    ridge: float,
) -> dict[Place, Tensor]:
    """A = C + ridge * mean diagonal + sum of weight * E[k k^T] over kinds of keys, of each module, [d_in, d_in]
    float64.

    Args:
        covariances: C.
        spared: Kinds of keys that are to be spared, [n, d_in] by module, each with its weight; none where a module is
            missing or n is 0.
        ridge: As a share of C's mean diagonal.
    """
    out: dict[Place, Tensor] = {}
    for place, measured in covariances.items():
        values = measured.values.clone()
        values.diagonal().add_(ridge * float(measured.values.diagonal().mean()))
        for of_kind, weight in spared:
            keys = of_kind.get(place)
            if keys is not None and len(keys) and weight:
                values += weight * (keys.T @ keys) / len(keys)
        out[place] = values
    return out
