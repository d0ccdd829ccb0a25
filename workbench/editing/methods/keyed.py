"""Keyed updates: a fixed key decides where an update opens, training decides what it writes there.

W += U V on the MLP's output projection of a few layers. V is solved for, once: it opens by 1 at the mean key of the
subject's last token under the edited relation, and hardly at ordinary text, at subjects of retained facts, and at the
same subject under other relations. U is trained from zero like every trained method.

Source: ours. The key is ROME's (2202.05262), the training that of the other recipes; no paper has this combination.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch

from workbench.editing.selector import default_selection, selection_facts
from workbench.editing.solved import formulas
from workbench.editing.solved.closing import (
    apart,
    rows_held,
)
from workbench.editing.solved.keyed_rows import FixedRows, fixed_rows, known_write
from workbench.editing.solved.openings import Opening, Sparing
from workbench.editing.solved.places import about_contexts
from workbench.editing.solved.spots import module_name, name_within, weight_of
from workbench.editing.task import Task
from workbench.editing.training.factors import TrainedFactors
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.weights import fit_factors
from workbench.models import LoadedModel
from workbench.types import Edit, Fact, FactSet, LowRankDelta, Site, StageName, TrainedRecipe
from workbench.types.recipe import Check, is_probability
from workbench.types.setting import Setting
from workbench.types.write import Write

PlaceName = Literal["subject", "answer"]


@dataclass(frozen=True, kw_only=True)
class Keyed(TrainedRecipe):
    """The settings of a keyed update, on the same rows and with the same loss as the other trained methods.

    Without a selection the MLPs' output projections of a window of layers are written, whole; with one, the output
    projections of its heads and MLPs, and of those the selected columns alone: V is exactly 0 in all others. A selected
    module is written at both places. The stages move the same U.

    Beside retained facts the KL holds the base's own beginnings of the taught replies, what it says to questions about
    the subject in general, and the closing questions.

    Args:
        layers: Those of the subject's place, where nothing is selected; None for layers 5 to 9 of 30, scaled with the
            depth.
        close: Close the update for other questions about the same subject: their keys are added to what V spares.
        leave_out: So many of the kindred relations, drawn by seed, are not closed; an evaluation then tells whether the
            edit spares what it was not closed for (``Edit.closed_relations``).
        closing_wordings: Questions of each relation that is closed, never the one with which facts are evaluated.
        rivals: So many retainable facts of the same relation with the same old answer, at most, are spared at the
            answer's place, where their keys look like the fact's own. It keeps more such facts, and costs new answers:
            docs/results/levers.md.
        rival_weight, closing_weight, protect, ridge, spread: See ``workbench.editing.solved.openings.Sparing``.
        places: Where the update opens: at the ``"subject"``'s last token, at the ``"answer"``'s place (the tokens after
            which the reply gives the answer, a row of V for each), or at both. The key at the subject is that of the
            subject and what was asked before it; in wordings in which the relation follows ("Egypt's capital") it
            cannot know the relation. At the answer's place both are known.
        answer_layers: Those of the answer's place, where nothing is selected; None for layers 20 to 24 of 30.
        gates: So many gates of the default selector's neurons are trained beside U; 0 for none. One stage only.
        gate_rate: Length of their natural-gradient steps.
        covariance_tokens, min_tokens: As in ``wb.covariance``.
        draw_back: As in ``wb.recipes.IA3``, by the strength of U.
        reserve: So many times the strength that ``draw_back`` finds is kept, at most all: in wordings that were not
            trained the update opens by less than 1.
        force: Open even where the selected columns hardly see the subject.
        stages: By default ``"learn"`` alone.
        learning_rate: AdamW's, in units of |h| / sqrt(d_model), where h is the residual stream after the layer.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: see the module. ``benchmarks/levers.py`` measures its settings beside others on dev facts.

    Example:
        >>> recipe = wb.recipes.Keyed(layers=(1,), places=("subject",), steps=2, min_tokens=1, force=True)
        >>> edit = wb.rewrite(model, fact, recipe=recipe, pool=facts)
        >>> edit.stage_names, edit.delta().words()
        (('learn',), 'rank 1 added to 1 module')
    """

    method: ClassVar[str] = "keyed"
    without_selection: ClassVar[str] = "MLP outputs of a window of layers"
    trains: ClassVar[str] = "low-rank updates behind a fixed key"
    most_rate: ClassVar[float] = 1e30  # in units of each module's U
    panel_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            name="closing_weight",
            tip="How firmly the edit is closed for other questions about the same subject; 0 leaves it open",
            low=0,
            high=1e6,
        ),
        *TrainedRecipe.panel_settings,
    )

    name: str = "keyed"
    stages: tuple[StageName, ...] = ("learn",)
    steps: int | tuple[int, ...] | None = 16
    learning_rate: float = 0.015
    average: int = 5
    hinge: float | None = 0.98
    retain_weight: float = 1.0
    retain_size: int = 40
    retain_batch_size: int = 6
    layers: tuple[int, ...] | None = None
    close: bool = True
    leave_out: int = 1
    closing_wordings: int = 3
    closing_weight: float = 30.0
    protect: float = 10.0
    ridge: float = 1e-3
    spread: float = 0.0
    places: tuple[PlaceName, ...] = ("subject", "answer")
    answer_layers: tuple[int, ...] | None = None
    gates: int = 0
    gate_rate: float = 0.03
    covariance_tokens: int = 30_000
    min_tokens: int | None = None
    draw_back: float | None = 0.97
    reserve: float = 1.4
    rivals: int = 0
    rival_weight: float = 30.0
    force: bool = False

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        for name in ("layers", "answer_layers"):
            layers = getattr(self, name)
            yield name, layers is None or (len(layers) > 0 and min(layers) >= 0), "None, or layers from 0"
        yield "places", bool(self.places) and set(self.places) <= {"subject", "answer"}, "'subject', 'answer' or both"
        for name in ("ridge", "protect", "closing_weight", "rival_weight", "spread"):
            value = getattr(self, name)
            yield name, math.isfinite(value) and value >= 0, "0 or more"
        for name in ("leave_out", "closing_wordings", "gates", "rivals"):
            yield name, getattr(self, name) >= 0, "0 or more"
        yield "gates", self.gates == 0 or len(self.stages) == 1, "0 where there are two stages"
        yield "gate_rate", math.isfinite(self.gate_rate) and self.gate_rate > 0, "a positive number"
        yield "covariance_tokens", self.covariance_tokens >= 1, "1 or more"
        yield "draw_back", is_probability(self.draw_back), "None or in (0, 1]"
        yield "reserve", math.isfinite(self.reserve) and self.reserve >= 1, "1 or more"

    @property
    def least_learned(self) -> float | None:
        """See ``wb.recipes.IA3``."""
        if self.draw_back is None or self.forgets(self.stages[-1]):
            return None
        return min(self.draw_back, self.hinge or 1.0)

    @property
    def uses_retain(self) -> bool:
        """See ``TrainedRecipe``; what V spares needs their keys, whatever U is held by."""
        return super().uses_retain or self.protect > 0

    @property
    def fits_retained(self) -> bool:
        """See ``TrainedRecipe``."""
        return super().uses_retain

    @property
    def sparing(self) -> Sparing:
        """What the openings spare."""
        closing = self.closing_weight if self.close else 0.0
        weights = {"closing": closing, "rival": self.rival_weight}
        return Sparing(ridge=self.ridge, protect=self.protect, spread=self.spread, **weights)


def make_keyed(task: Task) -> Edit:
    """Train a keyed update for a task."""
    recipe, model = task.recipe, task.model
    assert isinstance(recipe, Keyed)
    fixed = fixed_rows(task, recipe)
    began = time.perf_counter() - fixed.seconds
    about = apart(model, task.facts, about_contexts(model, task.facts, cancel=task.cancel))
    taught = [context for of_stage in fixed.taught for context in of_stage]
    beside = rows_held(taught, [*about, *fixed.closing.contexts, *fixed.rivals])
    spared: Sequence[Fact] | FactSet = ()
    if recipe.gates:
        spared = selection_facts(model, task.facts, pool=task.pool, seed=recipe.seed, progress=task.progress)
    rows = FitRows(
        model,
        task.facts,
        recipe,
        retain=fixed.retained,
        selection_facts=spared,
        beside=beside if recipe.fits_retained else (),
        cancel=task.cancel,
    )
    gates = _gates(task, recipe, rows)
    trained = TrainedFactors(
        model,
        _start(model, fixed.openings),
        _units(model, fixed.openings),
        gates=gates,
        fisher=rows.fisher(gates).of(gates) if gates else None,
        gate_factor=recipe.gate_rate / recipe.learning_rate,
    )

    def about_edit() -> dict[str, Any]:
        return {
            "selection": fixed.selection,
            "selector": fixed.selector,
            "selection_ids": rows.selection_ids,
            "fisher_ids": tuple(fact.id for fact in fixed.spare),
            "closed_relations": fixed.closing.relations,
            "modules": model.architecture.describe(gates),
            "writes": tuple(_write(model, opening, fixed, trained, recipe.stages[-1]) for opening in fixed.openings),
        }

    notes = {"seconds_for_covariance": round(fixed.seconds_for_covariance, 1)}
    ending: dict[str, Any] = {"draw_back": recipe.draw_back, "reserve": recipe.reserve}
    return fit_factors(task, trained, rows, about_edit, **ending, began=began, notes=notes)


def _start(model: LoadedModel, found: Sequence[Opening]) -> LowRankDelta:
    """V of every module, with U = 0."""
    out = LowRankDelta({})
    for opening in found:
        name = module_name(model.architecture, opening.place)
        u = torch.zeros(len(weight_of(model.hf, name)), len(opening.rows))
        key = opening.place.layer, name_within(model.architecture, opening.place)
        joined = out.then(LowRankDelta({key: (u, opening.rows.float())}))
        assert isinstance(joined, LowRankDelta)
        out = joined
    return out


def _units(model: LoadedModel, found: Sequence[Opening]) -> dict[tuple[int, str], float]:
    """|h| / sqrt(d_model) at every module."""
    width = math.sqrt(model.shape.d_model)
    return {(o.place.layer, name_within(model.architecture, o.place)): o.size / width for o in found}


def _gates(task: Task, recipe: Keyed, rows: FitRows) -> dict[tuple[int, Site], tuple[int, ...]]:
    """The gates that are trained beside U."""
    if not recipe.gates:
        return {}
    picked = default_selection(task.model, task.facts, rows=rows, k=recipe.gates, progress=task.progress)
    return {key: tuple(index) for key, index in picked.entries(task.model).items()}


def _write(model: LoadedModel, opening: Opening, fixed: FixedRows, trained: TrainedFactors, stage: str) -> Write:
    """What is written into one module, in numbers."""
    known = known_write(model, opening, fixed.measured[opening.place], stage)
    u, v = trained.factors((known.layer, known.name))
    weight = weight_of(model.hf, module_name(model.architecture, opening.place))
    return replace(
        known,
        rank=u.shape[1],
        relative_norm=formulas.norm((u.double(), v.double())) / float(weight.norm()),
        stable_rank=formulas.stable_rank((u.double(), v.double())),
    )
