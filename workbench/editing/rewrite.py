"""Rewriting facts: fit IA3 gates on the selected components, stage by stage.

Method: unlearn-then-learn with IA3 (arXiv 2508.07075), on PEFT's IA3 layers. Deviations: a KL term on the base model's
own greedy answers to a retain set; gradient masks, so that gates outside the selection stay exactly 1; the later
stage's gates multiply the earlier one's as two live adapters, which equals merging the first; by default the
learned answers begin as the base model's own do, and only what takes the old answer's place counts (and the token after
it, where the base would run on into the word); in the end the edit is drawn back to what it takes.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn

from workbench.editing.recipes import changes_steps, harder
from workbench.editing.retain import default_retain
from workbench.editing.selector import MORE_NEURONS, SELECTOR, check_number, default_selection, selection_facts
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.learned import LearnedLevel
from workbench.editing.training.loop import NonFiniteLoss, Training
from workbench.editing.training.optimisers import Adam, NaturalGradient, Optimiser
from workbench.editing.training.sensitivity import FisherMeasurement
from workbench.editing.training.trainable import Trainable
from workbench.language.prompts import check_first_tokens
from workbench.models.families import inject_gates, shared_view, write_gates
from workbench.models.load import LoadedModel
from workbench.models.provenance import provenance
from workbench.types import Edit, EditStage, Fact, FactSet, GateDelta, Recipe, Selection, Site, StageName, Step
from workbench.types.cancelling import CancelFlag, Cancelled, check_cancel

HALVINGS = 5
"""Of the strengths between the base and the edit, to find the one that it is drawn back to."""

__all__ = ["CancelFlag", "Cancelled", "NonFiniteLoss", "check_selection", "retain_set", "rewrite"]


def rewrite(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    selection: Selection | str | int | None = None,
    *,
    recipe: Recipe | str | None = None,
    retain: FactSet | Sequence[Fact] | None = None,
    pool: FactSet | None = None,
    on_step: Callable[[Step], Any] | None = None,
    cancel: CancelFlag | None = None,
    stop: Callable[[Edit], bool] | None = None,
    progress: bool = True,
) -> Edit:
    """Fit an edit that makes the model answer the facts' targets, moving gates of the selected components only.

    Args:
        model: A base model; it is not changed.
        fact: One fact, or several that are rewritten together.
        selection: What may move, as a ``Selection`` or text. None: the default selector ``neurons-by-contrast`` (see
            ``default_selection``): those whose gates move the new answer most for what they cost other answers. Where
            they do not teach the facts (``Edit.shortfall``), and the recipe's steps were not changed, a second fit is
            made with ``MORE_NEURONS`` of them (at most half of the model's) and twice the steps of the last stage; it
            takes up to twice as long as the first. A number: so many of them, and one fit.
        recipe: A ``Recipe``, the name of a built-in one (``"unlearn-then-learn"``, ``"learn-only"``,
            ``"unlearn-only"``, ``"paper"``), or None for the first. ``"paper"`` has the paper's settings, not its
            modules: give those as the selection (``benchmarks/paper.py`` does).
        retain: Facts whose answers are held in place by the KL term; None: ``default_retain``. Never evaluated.
        pool: Where the default retain set and the selector's controls come from; the bundled facts by default.
        on_step: Called with each ``Step``; a second fit begins at the first stage's step 0 again. Returning False
            cancels.
        cancel: Checked before each step; when set, the fit ends with ``Cancelled``.
        stop: Called after each step of the last stage with the edit as it is then (its last ``Step`` is the one just
            made); True ends the fit there. ``compare`` reads every arm with it at the same mark.
        progress: Show a progress bar.

    Returns:
        The edit, with one stage per stage of the recipe. Of two fits it is the one that taught more (the first, if the
        second's loss became NaN or infinite): its ``recipe`` and ``selection`` are those that it was made with, and
        ``provenance["settings"]`` tells of the other (``"first_fit"`` or ``"second_fit"``).

    Raises:
        ValueError: An empty selection, one of another type, a number that is out of range, a component that the model
            lacks, an edited model, answer and target with the same first token, a retain set that holds an edited fact,
            or one that is missing though the recipe needs it.
        Cancelled: ``cancel`` was set or ``on_step`` returned False.
        NonFiniteLoss: The loss became NaN or infinite.
        KeyboardInterrupt: Ctrl-C; as after every error, nothing is half-applied: gates live on a copy's adapters.
    """
    facts = [fact] if isinstance(fact, Fact) else list(fact)
    recipe = Recipe.named(recipe) if isinstance(recipe, str) else recipe or Recipe()
    if model.applied:
        raise ValueError(f"{model.name!r} carries an edit already. Rewrite its base (model.base), then apply both.")
    if not facts:
        raise ValueError("rewrite needs at least one fact, got none.")
    for one in facts:
        check_first_tokens(model, one)
    chosen = Selection(selection) if isinstance(selection, str) else selection
    if isinstance(chosen, Selection):
        check_selection(model, chosen)
    elif isinstance(chosen, int):
        check_number(model, chosen)
    elif chosen is not None:
        raise ValueError(
            f"selection must be a Selection, its text, a number of neurons, or None, got {type(chosen).__name__}."
        )
    began = time.perf_counter()
    kept = retain_set(model, facts, retain, recipe, pool, progress)
    spared: Sequence[Fact] | FactSet = ()
    if not isinstance(chosen, Selection):
        spared = selection_facts(model, facts, pool=pool, seed=recipe.seed, progress=progress)
    rows = FitRows(model, facts, recipe, retain=kept, selection_facts=spared)

    def once(chosen: Selection | int | None, recipe: Recipe, began: float, title: str = "Rewriting") -> Edit:
        given = isinstance(chosen, Selection)
        check_cancel(cancel)
        if not isinstance(chosen, Selection):
            size: dict[str, Any] = {} if chosen is None else {"k": chosen}
            chosen = default_selection(model, facts, rows=rows, progress=progress, **size)
        check_cancel(cancel)
        selected_at = time.perf_counter()
        entries = chosen.entries(model)
        fisher = rows.fisher(entries) if recipe.optimiser == "natural" else None
        start = min(layer for layer, _ in entries)
        training = Training(rows, recipe, start, fisher=fisher, on_step=on_step, cancel=cancel)
        fit = _Fit(training, chosen, fisher)

        def edit_of(stages: tuple[EditStage, ...]) -> Edit:
            return Edit(
                stages=stages,
                selection=chosen,
                selector="given" if given else SELECTOR,
                recipe=recipe,
                facts=tuple(facts),
                retain_ids=tuple(f.id for f in kept),
                history=tuple(training.history),
                base_fingerprint=model.fingerprint,
                base_name=model.name,
                provenance=provenance(
                    model,
                    retain_rows=training.n_retain,
                    lowest_layer=training.start,
                    learned=fit.learned,
                    drawn_back_to=fit.strength,
                    seconds_to_select=round(selected_at - began, 1),
                    seconds_to_fit=round(time.perf_counter() - selected_at, 1),
                )
                | {"modules": model.architecture.describe(fit.entries)},
            )

        def stops(stages: tuple[EditStage, ...]) -> bool:
            return stop is not None and stop(edit_of(stages))

        return edit_of(fit.run(title if progress else None, None if stop is None else stops))

    edit = once(chosen, recipe, began)
    more = min(MORE_NEURONS, model.shape.n_layers * model.shape.d_mlp // 2)
    if chosen is not None or edit.shortfall is None or changes_steps(recipe) or more <= len(edit.selection):
        return edit
    return _better(edit, partial(once, more, harder(recipe), time.perf_counter(), "Once more, harder"))


def _better(first: Edit, again: Callable[[], Edit]) -> Edit:
    """The one of two fits that taught more; its provenance tells of the other."""
    try:
        second = again()
    except NonFiniteLoss as error:
        first.provenance["settings"]["second_fit"] = {"error": str(error)}
        return first
    settings = [one.provenance["settings"] for one in (first, second)]
    told = [
        {"neurons": len(one.selection), "steps": one.recipe.steps}
        | {name: own[name] for name in ("learned", "seconds_to_select", "seconds_to_fit")}
        for one, own in zip((first, second), settings, strict=True)
    ]
    if (settings[1]["learned"] or 0) < settings[0]["learned"]:
        settings[0]["second_fit"] = told[1]
        return first
    settings[1]["first_fit"] = told[0]
    return second


def check_selection(model: LoadedModel, selection: Selection) -> None:
    """Raise a ValueError for an empty selection, or a component that the model lacks."""
    if not len(selection):
        raise ValueError("The selection is empty, so nothing could move. Pick components, or pass selection=None.")
    for layer, site in selection.entries(model):
        model.architecture.gate_module(layer, site)


def retain_set(
    model: LoadedModel,
    facts: Sequence[Fact],
    retain: FactSet | Sequence[Fact] | None,
    recipe: Recipe,
    pool: FactSet | None,
    progress: bool,
) -> FactSet:
    """The facts to hold in place: those given, checked against the edited ones, or the default retain set."""
    if retain is None:
        size = recipe.retain_size if recipe.uses_retain else 0
        return default_retain(model, facts, pool=pool, size=size, seed=recipe.seed, progress=progress)
    kept = retain if isinstance(retain, FactSet) else FactSet(retain, name="retain set")
    clash = [f.id for f in kept if any(f.overlaps(one) for one in facts)]
    if clash:
        raise ValueError(
            f"The retain set overlaps what is trained and evaluated: {clash}. Leave these facts out of retain=."
        )
    return kept


class _Fit:
    """The gates of one run of ``rewrite``; all that it changes lives here and on a structure copy of the model.

    Args:
        training: The rows and the loop.
        selection: What may move.
        fisher: Of those gates, for the natural gradient; None for AdamW.
    """

    def __init__(self, training: Training, selection: Selection, fisher: FisherMeasurement | None) -> None:
        self._fisher = fisher
        self.training, self.model, self.recipe = training, training.model, training.recipe
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
            gates[layer, site] = parameters[place.module].detach().flatten()[place.span]
        return GateDelta(gates)

    def _optimiser(self, parameters: Mapping[str, nn.Parameter]) -> Optimiser:
        if self._fisher is None:
            return Adam(parameters)
        places: list[tuple[nn.Parameter, Tensor]] = []
        for (layer, site), indices in self.entries.items():
            place = self.model.architecture.gate_module(layer, site)
            places.append((parameters[place.module], torch.tensor(indices) + place.span.start))
        return NaturalGradient(places, self._fisher.of(self.entries))

    def _draw_back(
        self, parameters: Mapping[str, nn.Parameter], earlier: Sequence[EditStage], level: LearnedLevel
    ) -> None:
        """Give the last stage's gates the values at which the product of all stages is drawn back to the least strength
        that keeps ``level`` at the recipe's ``draw_back``; they stay where it is not reached (``Edit.shortfall``)."""
        wanted = self.recipe.draw_back
        if wanted is None:
            return
        self.learned = level.measured()
        if self.learned < wanted:
            return
        before = reduce(operator.mul, (stage.delta for stage in earlier), GateDelta({}))
        whole = before * self._delta(parameters)

        def turn(strength: float) -> None:
            write_gates(parameters, self.model.architecture, whole.scaled(strength) / before)
            self._clamp(parameters)

        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            check_cancel(self.training.cancel, "while the edit was drawn back")
            middle = (low + high) / 2
            turn(middle)
            low, high = (low, middle) if level.reaches(wanted) else (middle, high)
        turn(high)
        self.strength = high

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
