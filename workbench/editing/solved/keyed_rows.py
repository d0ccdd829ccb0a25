"""The rows V of a keyed update: at which modules and places it opens, all that is decided before U is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.editing.covariance import covariances
from workbench.editing.solved.choose import Chosen, chosen_places
from workbench.editing.solved.closing import Closing, at_the_answer, closing_contexts, in_the_reply, retained_contexts
from workbench.editing.solved.openings import Opening, openings
from workbench.editing.solved.places import Context, training_contexts
from workbench.editing.solved.rivals import rival_contexts
from workbench.editing.solved.spots import Place, name_within
from workbench.editing.task import Task, retain_set
from workbench.facts.known import pool_or_bundled
from workbench.facts.retained import retain_pool, retainable
from workbench.models import LoadedModel
from workbench.types import Fact, Selection
from workbench.types.covariance import Covariance
from workbench.types.write import Write

if TYPE_CHECKING:
    from workbench.editing.methods.keyed import Keyed

WINDOW = (5 / 30, 9 / 30)
"""The layers of the subject's place, as shares of the depth: 5 to 9 of the bundled model's 30."""
ANSWER_WINDOW = (20 / 30, 24 / 30)
"""The layers of the answer's place, likewise: 20 to 24."""


@dataclass(frozen=True, kw_only=True)
class FixedRows:
    """What a keyed update has before anything is trained.

    Args:
        openings: V of every module, those of the subject's place first.
        n_subject: How many of them are of the subject's place.
        measured: The covariance of each module.
        selection, selector: As in ``Edit``.
        taught: The contexts of each stage.
        retained: The facts that are held in place.
        spare: All facts that could be.
        closing, rivals: What the update is closed for, and other subjects with the same answer.
        seconds: That all but the covariances took.
        seconds_for_covariance: That these took.
    """

    openings: tuple[Opening, ...]
    n_subject: int
    measured: Mapping[Place, Covariance]
    selection: Selection
    selector: str
    taught: Sequence[Sequence[Context]]
    retained: Sequence[Fact]
    spare: Sequence[Fact]
    closing: Closing
    rivals: Sequence[Context]
    seconds: float
    seconds_for_covariance: float

    def writes(self, model: LoadedModel, stage: str) -> tuple[Write, ...]:
        """What is known of each module's update before it is trained: not its norm."""
        return tuple(known_write(model, opening, self.measured[opening.place], stage) for opening in self.openings)


def fixed_rows(task: Task, recipe: Keyed) -> FixedRows:
    """Solve for V of a keyed update.

    Args:
        task: What is asked.
        recipe: Its recipe.
    """
    model = task.model
    chosen = _chosen(task, recipe)
    began = time.perf_counter()
    measured = _covariances(task, recipe, chosen)
    measuring, began = time.perf_counter() - began, time.perf_counter()
    retained = retain_set(model, task.facts, task.retain, recipe, task.pool, task.progress, task.cancel)
    pool = retain_pool(pool_or_bundled(task.pool))
    spare = list(retainable(model, task.facts, pool, progress=False, cancel=task.cancel))  # C read their answers
    closing = _closing(task, recipe)
    rivals = rival_contexts(model, task.facts, spare, recipe.rivals, seed=recipe.seed, cancel=task.cancel)
    taught = [
        training_contexts(model, task.facts, stage, recipe, clozes=False, cancel=task.cancel) for stage in recipe.stages
    ]
    return FixedRows(
        openings=tuple(_openings(task, recipe, chosen, measured, taught[-1], retained, closing, rivals)),
        n_subject=len(chosen.subject),
        measured=measured,
        selection=chosen.selection,
        selector=chosen.selector,
        taught=taught,
        retained=retained,
        spare=spare,
        closing=closing,
        rivals=rivals,
        seconds=time.perf_counter() - began,
        seconds_for_covariance=measuring,
    )


def known_write(model: LoadedModel, opening: Opening, covariance: Covariance, stage: str) -> Write:
    """What is known of a module's update before U is."""
    return Write(
        layer=opening.place.layer,
        module=opening.place.module,
        name=name_within(model.architecture, opening.place),
        stage=stage,
        columns=opening.columns,
        keys=len(opening.rows),
        rank=len(opening.rows),
        denominator=float(opening.denominators.abs().min()),
        relative_norm=math.nan,
        stable_rank=math.nan,
        tokens=covariance.tokens,
        covariance_rank=covariance.rank,
        condition=covariance.condition,
    )


def window(n_layers: int, share: tuple[float, float]) -> tuple[int, ...]:
    """Layers from one share of the depth to another, both included; at least one."""
    first, last = (min(round(part * n_layers), n_layers - 1) for part in share)
    return tuple(range(first, last + 1))


@dataclass(frozen=True)
class _Chosen:
    """What is written at each place.

    Args:
        subject, answer: By module, the columns; None for all.
        selection, selector: As in ``Edit``.
    """

    subject: Mapping[Place, tuple[int, ...] | None]
    answer: Mapping[Place, tuple[int, ...] | None]
    selection: Selection
    selector: str


def _chosen(task: Task, recipe: Keyed) -> _Chosen:
    """The modules of both places."""
    n_layers = task.model.shape.n_layers

    def of(layers: tuple[int, ...] | None, share: tuple[float, float]) -> Chosen:
        return chosen_places(task, layers=layers or window(n_layers, share), window=1)

    subject = of(recipe.layers, WINDOW) if "subject" in recipe.places else None
    answer = of(recipe.answer_layers, ANSWER_WINDOW) if "answer" in recipe.places else None
    every = [one for one in (subject, answer) if one is not None]
    selection = Selection(dict.fromkeys(component for one in every for component in one.selection))
    return _Chosen(
        {} if subject is None else subject.columns,
        {} if answer is None else answer.columns,
        selection,
        every[0].selector,
    )


def _closing(task: Task, recipe: Keyed) -> Closing:
    if not recipe.close:
        return Closing()
    pool = pool_or_bundled(task.pool)
    options = {"wordings": recipe.closing_wordings, "leave_out": recipe.leave_out, "seed": recipe.seed}
    return closing_contexts(task.model, task.facts, pool, **options, cancel=task.cancel)


def _covariances(task: Task, recipe: Keyed, chosen: _Chosen) -> Mapping[Place, Covariance]:
    return covariances(
        task.model,
        list(dict.fromkeys([*chosen.subject, *chosen.answer])),
        pool=task.pool,
        max_tokens=recipe.covariance_tokens,
        min_tokens=recipe.min_tokens,
        progress=task.progress,
        cancel=task.cancel,
    )


def _openings(
    task: Task,
    recipe: Keyed,
    chosen: _Chosen,
    measured: Mapping[Place, Covariance],
    taught: Sequence[Context],
    retained: Sequence[Fact],
    closing: Closing,
    rivals: Sequence[Context],
) -> list[Opening]:
    """V of every module at its places."""
    model = task.model
    others = retained_contexts(model, retained, task.cancel)
    options: dict[str, Any] = {"sparing": recipe.sparing, "force": recipe.force, "cancel": task.cancel}
    found: list[Opening] = []
    if chosen.subject:
        found += openings(model, chosen.subject, measured, taught, retained=others, closed=closing.contexts, **options)
    if chosen.answer:
        own, groups = at_the_answer(taught)
        found += openings(
            model,
            chosen.answer,
            measured,
            own,
            groups=groups,
            retained=in_the_reply(others),
            closed=in_the_reply(closing.contexts),
            rivals=at_the_answer(rivals)[0],
            **options,
        )
    return found
