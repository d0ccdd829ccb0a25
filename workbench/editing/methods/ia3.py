"""IA3 unlearn-then-learn: gates on the selected components, fitted stage by stage.

Method: unlearn-then-learn with IA3 (arXiv 2508.07075), on PEFT's IA3 layers. Deviations: a KL term on the base model's
own greedy answers to a retain set; gradient masks, so that gates outside the selection stay exactly 1; the later
stage's gates multiply the earlier one's as two live adapters, which equals merging the first; by default the
learned answers begin as the base model's own do, and only what takes the old answer's place counts (and the token after
it, where the base would run on into the word); in the end the edit is drawn back to what it takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, TypeVar, get_args

import torch
from torch import Tensor, nn

from workbench.editing.selector import MORE_NEURONS, SELECTOR, default_selection, selection_facts
from workbench.editing.task import Movable, Task, movable, retain_set
from workbench.editing.training.draw_back import drawn_back
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.learned import LearnedLevel
from workbench.editing.training.loop import NonFiniteLoss, Training
from workbench.editing.training.optimisers import Adam, NaturalGradient, Optimiser
from workbench.editing.training.sensitivity import FisherMeasurement
from workbench.editing.training.trainable import Trainable
from workbench.models.deltas.gates import inject_gates
from workbench.models.deltas.gates import write as write_gates
from workbench.models.provenance import provenance
from workbench.models.views import shared_view
from workbench.types import (
    Edit,
    EditStage,
    Fact,
    FactSet,
    GateDelta,
    OtherFit,
    Selection,
    Site,
    StageName,
    TrainedRecipe,
    stages_delta,
)
from workbench.types.cancelling import check_cancel
from workbench.types.recipe import Check, is_probability
from workbench.types.recipe import Optimiser as OptimiserName


@dataclass(frozen=True, kw_only=True)
class IA3(TrainedRecipe):
    """The settings of an IA3 edit. They are frozen and validated; ``Recipe.named`` gives the four built-in ones.

    Each stage trains its own IA3 gates, starting from 1, on top of the stages before it. See ``TrainedRecipe`` for the
    loss and the settings that other methods share.

    Without a selection, the default selector ``gain-over-fisher`` chooses the neurons (see ``default_selection``):
    those whose gates move the new answer most for what they cost other answers, which is not a localisation. Where they
    do not teach the facts (``Edit.shortfall``), and the recipe's steps were not changed, a second fit is made with
    ``MORE_NEURONS`` of them (at most half of the model's) and twice the steps of the last stage; it takes up to twice
    as long as the first. Of the two the one is returned that taught more; ``Edit.first_fit`` or ``Edit.second_fit``
    tells of the other. A number as the selection gives so many neurons, and one fit.

    Args:
        optimiser: ``"natural"`` (see ``workbench.editing.training.optimisers``) or ``"adam"``, as in the paper.
        learning_rate: Length of a natural-gradient step in the norm of the Fisher information, or AdamW's rate.
        draw_back: In the end all stages together are drawn back towards the base, as by the strength of an edit, as far
            as the wanted answer of the last one keeps this probability (as for ``early_stop``): what is taught with
            more than it takes costs other answers. An edit that has not reached it, and with None every one, stays.
        max_gate: Gates are kept within [2 - max_gate, max_gate] after each step; None leaves them free.
        seed: Order of the batches. Two runs with one seed on one machine agree exactly.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: arXiv 2508.07075; IA3: Liu et al. 2022 (2205.05638).

    Example:
        >>> recipe = wb.recipes.IA3(steps=(8, 24), contexts=False)
        >>> recipe.stages, recipe.stage_steps
        (('unlearn', 'learn'), (8, 24))
        >>> edit = wb.rewrite(model, fact, 20, recipe=recipe, pool=facts)  # the selector's best 20 neurons
        >>> edit.scope, edit.delta().words()
        ('20 components', '20 gates moved')
    """

    method: ClassVar[str] = "ia3"
    without_selection: ClassVar[str] = "Default: gain over Fisher information"
    selects: ClassVar[bool] = True
    takes_number: ClassVar[bool] = True
    trains: ClassVar[str] = "gates"

    name: str = "unlearn-then-learn"
    average: int = 12
    optimiser: OptimiserName = "natural"
    draw_back: float | None = 0.9
    max_gate: float | None = None

    def __post_init__(self) -> None:
        if self.optimiser not in get_args(OptimiserName):
            raise ValueError(f"optimiser must be one of {get_args(OptimiserName)}, got {self.optimiser!r}.")
        super().__post_init__()

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "draw_back", is_probability(self.draw_back), "None or in (0, 1]"
        yield "max_gate", self.max_gate is None or self.max_gate > 1, "None or more than 1"

    @property
    def uses_fisher(self) -> bool:
        """See ``TrainedRecipe``."""
        return self.optimiser == "natural"

    @property
    def least_learned(self) -> float | None:
        """The probability (as for ``early_stop``) that the last stage must reach for an edit to count as learned: the
        hinge, beyond which no row pushes, or ``draw_back``, if that is lower. None where learning is not looked at (no
        drawing back, a last stage that forgets)."""
        if self.draw_back is None or self.forgets(self.stages[-1]):
            return None
        return min(self.draw_back, self.hinge or 1.0)


DEFAULT = IA3()

RECIPES: dict[str, IA3] = {
    "unlearn-then-learn": DEFAULT,
    "learn-only": replace(DEFAULT, name="learn-only", stages=("learn",), steps=sum(DEFAULT.stage_steps)),
    "unlearn-only": replace(DEFAULT, name="unlearn-only", stages=("unlearn",), steps=sum(DEFAULT.stage_steps)),
    # arXiv 2508.07075: learning rate 5e-5, 50 epochs over 20 questions at batch 1, no retain term, short answers.
    "paper": IA3(
        name="paper",
        answers="short",
        contexts=False,
        optimiser="adam",
        steps=1000,
        learning_rate=5e-5,
        warmup=0,
        average=0,
        batch_size=1,
        retain_weight=0.0,
        retain_size=0,
        hinge=None,
        draw_back=None,
    ),
}
"""By name: the default, tuned on dev facts only (``benchmarks/tune.py``); one stage with as many steps in total; the
first stage alone; the paper's settings."""


R = TypeVar("R", bound=TrainedRecipe)


def harder(recipe: R) -> R:
    """The same with twice the steps in its last stage, for facts that are not learned."""
    *before, last = recipe.stage_steps
    return replace(recipe, steps=(*before, 2 * last))


def changes_steps(recipe: IA3) -> bool:
    """Whether a recipe has other steps than the built-in one of its name (than the default, where there is none)."""
    return recipe.steps not in (None, RECIPES.get(recipe.name, DEFAULT).steps)


def plan_ia3(task: Task) -> Movable:
    """What would move; where nothing is selected, the selector runs."""
    if isinstance(task.selection, Selection):
        return movable(task, gates=True)
    asked: dict[str, Any] = {"pool": task.pool, "seed": task.recipe.seed, "progress": task.progress}
    return movable(task, default_selection(task.model, task.facts, k=task.selection, **asked), SELECTOR, gates=True)


def make_ia3(task: Task) -> Edit:
    """Fit gates for a task, once more and harder where the default selection did not teach the facts."""
    recipe, model = task.recipe, task.model
    assert isinstance(recipe, IA3)
    began = time.perf_counter()
    retained = retain_set(model, task.facts, task.retain, recipe, task.pool, task.progress, task.cancel)
    spared: Sequence[Fact] | FactSet = ()
    if not isinstance(task.selection, Selection):
        asked: dict[str, Any] = {"seed": recipe.seed, "progress": task.progress, "cancel": task.cancel}
        spared = selection_facts(model, task.facts, pool=task.pool, **asked)
    rows = FitRows(model, task.facts, recipe, retain=retained, selection_facts=spared, cancel=task.cancel)
    edit = _fit_once(task, recipe, task.selection, rows, began)
    more = min(MORE_NEURONS, model.shape.n_layers * model.shape.d_mlp // 2)
    if task.selection is not None or edit.shortfall is None or changes_steps(recipe) or more <= len(edit.selection):
        return edit
    again = time.perf_counter()
    return better(edit, lambda: _fit_once(task, harder(recipe), more, rows, again, "Once more, harder"))


def better(first: Edit, again: Callable[[], Edit]) -> Edit:
    """The one of two fits that taught more; it tells of the other."""
    try:
        second = again()
    except NonFiniteLoss as error:
        return replace(first, second_fit=OtherFit(error=str(error)))
    if (second.learned or 0) < (first.learned or 0):
        return replace(first, second_fit=_as_other(second))
    return replace(second, first_fit=_as_other(first))


def _as_other(edit: Edit) -> OtherFit:
    recipe, seconds = edit.recipe, edit.provenance["settings"]
    assert isinstance(recipe, IA3)
    return OtherFit(
        neurons=len(edit.selection),
        steps=recipe.steps,
        learned=edit.learned,
        seconds_to_select=seconds["seconds_to_select"],
        seconds_to_fit=seconds["seconds_to_fit"],
    )


def _fit_once(
    task: Task,
    recipe: IA3,
    wanted: Selection | int | None,
    rows: FitRows,
    began: float,
    title: str = "Rewriting",
) -> Edit:
    """Select, if nothing is selected yet, and fit."""
    model, given = task.model, isinstance(wanted, Selection)
    check_cancel(task.cancel)
    if isinstance(wanted, Selection):
        chosen = wanted
    else:
        size: dict[str, Any] = {} if wanted is None else {"k": wanted}
        chosen = default_selection(model, task.facts, rows=rows, progress=task.progress, **size)
    check_cancel(task.cancel)
    selected_at = time.perf_counter()
    entries = chosen.entries(model)
    fisher = rows.fisher(entries) if recipe.uses_fisher else None
    lowest = min(layer for layer, _ in entries)
    training = Training(rows, recipe, lowest, fisher=fisher, on_step=task.on_step, cancel=task.cancel)
    fit = _Fit(training, recipe, chosen, fisher)

    def edit_of(stages: tuple[EditStage, ...]) -> Edit:
        return Edit(
            stages=stages,
            selection=chosen,
            selector="given" if given else SELECTOR,
            recipe=recipe,
            facts=task.facts,
            retain_ids=rows.retain_ids,
            selection_ids=() if given else rows.selection_ids,
            fisher_ids=rows.fisher_ids,
            history=tuple(training.history),
            base_fingerprint=model.fingerprint,
            base_name=model.name,
            modules=model.architecture.describe(fit.entries),
            learned=fit.learned,
            reached=dict(training.reached),
            strength=fit.strength,
            provenance=provenance(
                model,
                retain_rows=training.n_retain,
                lowest_layer=training.start,
                seconds_to_select=round(selected_at - began, 1),
                seconds_to_fit=round(time.perf_counter() - selected_at, 1),
            ),
        )

    stop = task.stop
    stops = None if stop is None else lambda stages: stop(edit_of(stages))
    return edit_of(fit.run(title if task.progress else None, stops))


class _Fit:
    """The gates of one fit; all that it changes lives here and on a structure copy of the model.

    Args:
        training: The rows and the loop.
        recipe: The settings.
        selection: What may move.
        fisher: Of those gates, for the natural gradient; None for AdamW.
    """

    def __init__(self, training: Training, recipe: IA3, selection: Selection, fisher: FisherMeasurement | None) -> None:
        self._fisher = fisher
        self.training, self.model, self.recipe = training, training.model, recipe
        self.entries = selection.entries(self.model)
        self.strength = 1.0
        self.learned: float | None = None
        self._view = shared_view(self.model.hf)

    def run(self, title: str | None, stop: Callable[[tuple[EditStage, ...]], bool] | None) -> tuple[EditStage, ...]:
        """Fit every stage and return them; the last one only until ``stop`` says so."""
        from tqdm.auto import tqdm

        stages: list[EditStage] = []
        recipe = self.recipe
        with torch.enable_grad(), tqdm(total=sum(recipe.stage_steps), desc=title, disable=title is None) as bar:
            for stage, steps in zip(recipe.stages, recipe.stage_steps, strict=True):
                ones: dict[tuple[int, Site], Tensor] = {
                    (at, site): torch.ones(self.model.shape.site_size(site)) for at, site in self.entries
                }
                parameters = inject_gates(self._view, self.model.architecture, GateDelta(ones), adapter=stage)
                trainable = Trainable(
                    view=self._view,
                    parameters=parameters,
                    optimiser=self._optimiser(parameters),
                    rate=recipe.learning_rate,
                    after_backward=partial(_mask, parameters, self._masks(parameters)),
                    after_step=partial(self._clamp, parameters),
                    at_end=partial(self._draw_back, parameters, stages) if stage == recipe.stages[-1] else None,
                )

                def stop_here(done: int, name: StageName = stage, live: Any = parameters) -> bool:
                    return stop is not None and stop((*stages, EditStage(name, self._delta(live))))

                ask = stop_here if stop and stage == recipe.stages[-1] else None
                done = self.training.stage(stage, steps, trainable, bar, ask)
                bar.update(steps - done)  # an early stop
                stages.append(EditStage(stage, self._delta(parameters)))
        return tuple(stages)

    def _masks(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """1.0 at selected entries of each IA3 vector, else 0.0, in the vector's shape."""
        picked: dict[tuple[int, Site], Tensor] = {}
        for (layer, site), indices in self.entries.items():
            picked[layer, site] = torch.zeros(self.model.shape.site_size(site))
            picked[layer, site][list(indices)] = 1.0
        spread = self.model.architecture.vectors(GateDelta(picked), fill=0.0)
        return {name: spread[name].reshape(p.shape).to(p.device) for name, p in parameters.items()}

    def _delta(self, parameters: Mapping[str, nn.Parameter]) -> GateDelta:
        gates: dict[tuple[int, Site], Tensor] = {}
        for layer, site in self.entries:
            place = self.model.architecture.gate_module(layer, site)
            gates[layer, site] = parameters[place.module].detach().flatten()[place.index]
        return GateDelta(gates)

    def _optimiser(self, parameters: Mapping[str, nn.Parameter]) -> Optimiser:
        if self._fisher is None:
            return Adam(parameters)
        places: list[tuple[nn.Parameter, Tensor]] = []
        for (layer, site), indices in self.entries.items():
            place = self.model.architecture.gate_module(layer, site)
            places.append((parameters[place.module], place.places(indices)))
        return NaturalGradient(places, self._fisher.of(self.entries))

    def _draw_back(
        self, parameters: Mapping[str, nn.Parameter], earlier: Sequence[EditStage], level: LearnedLevel
    ) -> None:
        """Give the last stage's gates the values at which the product of all stages is drawn back to the least strength
        that keeps ``level`` at the recipe's ``draw_back``; they stay where it is not reached (``Edit.shortfall``)."""
        wanted = self.recipe.draw_back
        if wanted is None:
            return
        before = stages_delta(earlier)
        assert isinstance(before, GateDelta)
        whole = before * self._delta(parameters)

        def turn(strength: float) -> None:
            write_gates(parameters, self.model.architecture, whole.scaled(strength) / before)
            self._clamp(parameters)

        self.learned, self.strength = drawn_back(level, wanted, turn, cancel=self.training.cancel)

    def _clamp(self, parameters: Mapping[str, nn.Parameter]) -> None:
        if self.recipe.max_gate is not None:
            with torch.no_grad():
                for p in parameters.values():
                    p.clamp_(2 - self.recipe.max_gate, self.recipe.max_gate)


def _mask(parameters: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """An exact zero gradient keeps every update at exactly zero."""
    for name, p in parameters.items():
        assert p.grad is not None
        p.grad.mul_(masks[name])
