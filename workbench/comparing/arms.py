"""The arms of a comparison: a table with one record each, of what it trains and how that is planned and fitted.

An arm is added by one row of ``ARMS``: tables keep its words, so that figures, verdicts and pages follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Literal

from workbench.editing.applied import Dial, applied
from workbench.editing.methods.table import IA3, FullFineTuning, LoRA, Recipe
from workbench.editing.rewrite import rewrite
from workbench.editing.selector import paper_selection
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact, FactSet, Selection, TrainedRecipe, all_components
from workbench.types.arms import Trained
from workbench.types.selection import INDEXED, Kind

ArmName = Literal["selected", "random-layers", "random-anywhere", "all", "one-stage", "none", "full", "lora", "paper"]
BOTH_RANDOM = "random"
"""Stands for both kinds of random selection."""


class NotPossible(Exception):
    """An arm cannot be run here; the message is the reason, for the table's notes."""


@dataclass(frozen=True)
class Plan:
    """One run of an arm.

    Args:
        arm, seed: The arm's name, and the seed of a random draw.
        selection: What may move; None for no edit.
        recipe: The recipe, whose type says what moves.
    """

    arm: str
    seed: int | None
    selection: Selection | None
    recipe: TrainedRecipe


@dataclass(frozen=True, kw_only=True)
class Planning:
    """What arms are planned from.

    Args:
        model: The base model.
        selection: The located components.
        recipe: The comparison's recipe.
        draws: Seeds of the random draws.
        by_name: Arms that were asked for by name: what is not possible of them is an error.
        notes: What is worth a note is added.
    """

    model: LoadedModel
    selection: Selection
    recipe: Recipe
    draws: Sequence[int]
    by_name: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What all arms of a fact are fitted with.

    Args:
        model, fact: The base model and the fact.
        retain: Facts held in place.
        spared: Facts whose answers chose the selection.
        options: ``on_step``, ``cancel`` and ``progress``, as ``rewrite`` takes them.
    """

    model: LoadedModel
    fact: Fact
    retain: FactSet
    spared: FactSet
    options: dict[str, Any]


Stop = Callable[[int, Callable[[], LoadedModel]], bool]
"""Whether an arm is to be read after so many steps of its last stage, given what makes its model as it is then."""
Fitted = tuple[Callable[[], Any], int]
"""Opens the fitted model for the length of a ``with`` block; and how many gates or weights were trained."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm.

    Args:
        name: By which it is asked for.
        words: In tables and figures.
        plan: Its runs: selection and recipe of each. May raise ``NotPossible``.
        fit: Fits a run; None: no edit.
        unit: What is trained.
        path: Whether it takes steps, along which it is read. One without is evaluated as it is.
        locate: Finds another selection for each fact, given model, fact, pool and progress.
        spread: Looked at as often in all as the others, not as densely, for it has a recipe of its own.
    """

    name: str
    words: str
    plan: Callable[[Planning], list[Plan]]
    fit: Callable[[Fitting, Plan, Stop | None], Fitted] | None
    unit: Trained = "gates"
    path: bool = True
    locate: Callable[[LoadedModel, Fact, FactSet | None, bool], Selection] | None = None
    spread: bool = False


def as_selected(name: str) -> Callable[[Planning], list[Plan]]:
    """The selection with the comparison's recipe."""
    return lambda planning: [Plan(name, None, planning.selection, planning.recipe)]


def nothing(planning: Planning) -> list[Plan]:
    """No selection."""
    return [Plan("none", None, None, planning.recipe)]


def random_draws(name: str, where: Literal["same-layers", "anywhere"]) -> Callable[[Planning], list[Plan]]:
    """As many other components of each kind, several draws of them.

    A kind with one component a layer cannot be drawn from the same layers: those stay in every draw.
    """

    def plan(planning: Planning) -> list[Plan]:
        selection = planning.selection
        fixed = Selection([c for c in selection if c.kind not in INDEXED]) if where == "same-layers" else Selection()
        try:
            # Where nothing is left to draw, all of it is tried: the error says why that is not possible.
            free = selection - fixed or selection
            drawn = [free.random_like(planning.model, seed=seed, where=where) | fixed for seed in planning.draws]
        except ValueError as error:
            if name in planning.by_name:
                raise
            raise NotPossible(str(error)) from error
        if fixed:
            planning.notes.append(f"{name}: {fixed} stay in every draw, as their layers have one of that kind.")
        return [Plan(name, seed, other, planning.recipe) for seed, other in zip(planning.draws, drawn, strict=True)]

    return plan


def everything(planning: Planning) -> list[Plan]:
    """Every component of the selection's kinds."""
    return [Plan("all", None, everything_like(planning.model, planning.selection), planning.recipe)]


def everything_like(model: LoadedModel, selection: Selection) -> Selection:
    """Every component of the selection's kinds; all neurons of a layer are written as its MLP, which is the same."""
    kinds: dict[Kind, None] = dict.fromkeys("MLP" if c.kind == "N" else c.kind for c in selection)
    components = [c for kind in kinds for c in all_components(model, kind)]
    return Selection(components)


def learn_alone(planning: Planning) -> list[Plan]:
    """The learn stage only, with as many steps in total."""
    recipe = planning.recipe
    if recipe.stages == ("learn",):
        raise NotPossible(f"the recipe {recipe.name!r} has one stage already.")
    name, steps = f"{recipe.name}: one stage", sum(recipe.stage_steps)
    alone = replace(recipe, name=name, stages=("learn",), steps=steps, objective="cross-entropy")
    return [Plan("one-stage", None, planning.selection, alone)]


def as_the_paper(planning: Planning) -> list[Plan]:
    """The paper's recipe; its modules are located later, for each fact."""
    recipe = Recipe.named("paper", seed=planning.recipe.seed)
    assert isinstance(recipe, TrainedRecipe)
    return [Plan("paper", None, planning.selection, recipe)]


def fit_plan(fitting: Fitting, plan: Plan, stop: Stop | None) -> Fitted:
    """``rewrite`` with the plan's recipe on its selection."""
    model = fitting.model

    def stops(edit: Edit) -> bool:
        return stop is not None and stop(edit.history[-1].step + 1, lambda: Dial(model, edit).at(1.0))

    edit = rewrite(
        model,
        fitting.fact,
        plan.selection,
        recipe=plan.recipe,
        retain=fitting.retain,
        stop=None if stop is None else stops,
        **fitting.options,
    )
    return partial(applied, model, edit), n_trained(model, edit)


def n_trained(model: LoadedModel, edit: Edit) -> int:
    """How many gates were selected, or how many weights the first stage owns (later ones move the same)."""
    if isinstance(edit.recipe, IA3):
        return edit.selection.n_parameters(model)
    return sum(tensor.numel() for tensor in edit.stages[0].delta.tensors().values())


def all_weights(planning: Planning) -> list[Plan]:
    """Full fine-tuning of all layers, whatever is selected, with the rows, the loss and the steps of the recipe."""
    return [Plan("full", None, None, FullFineTuning(**shared_settings(planning.recipe)))]


def low_rank(planning: Planning) -> list[Plan]:
    """A LoRA of rank 1 on modules that carry the selection, of about as many weights as it has gates."""
    budget = planning.selection.n_parameters(planning.model)
    settings = shared_settings(planning.recipe)
    return [Plan("lora", None, planning.selection, LoRA(**settings, restrict=False, budget=budget))]


def shared_settings(recipe: TrainedRecipe) -> dict[str, Any]:
    """What a recipe of another trained method takes over. Not the learning rate: gates have another scale."""
    own = {"name", "learning_rate"}
    return {f.name: getattr(recipe, f.name) for f in fields(TrainedRecipe) if f.name not in own}


def papers_modules(model: LoadedModel, fact: Fact, pool: FactSet | None, progress: bool) -> Selection:
    """The modules that the paper trains.

    Raises:
        NotPossible: They cannot be located.
    """
    try:
        return paper_selection(model, fact, pool=pool, progress=progress)
    except ValueError as error:
        raise NotPossible(f"its modules are located by attribution. {error}") from error


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(name="selected", words="the selection", plan=as_selected("selected"), fit=fit_plan),
        Arm(
            name="random-layers",
            words="random, same layers",
            plan=random_draws("random-layers", "same-layers"),
            fit=fit_plan,
        ),
        Arm(
            name="random-anywhere",
            words="random, anywhere",
            plan=random_draws("random-anywhere", "anywhere"),
            fit=fit_plan,
        ),
        Arm(name="all", words="everything of these kinds", plan=everything, fit=fit_plan),
        Arm(name="one-stage", words="the selection, one stage", plan=learn_alone, fit=fit_plan),
        Arm(name="none", words="no edit", plan=nothing, fit=None),
        Arm(
            name="full",
            words="full fine-tuning",
            plan=all_weights,
            fit=fit_plan,
            unit="weights",
        ),
        Arm(name="lora", words="LoRA of its size", plan=low_rank, fit=fit_plan, unit="weights"),
        Arm(
            name="paper",
            words="the paper's recipe",
            plan=as_the_paper,
            fit=fit_plan,
            locate=papers_modules,
            spread=True,
        ),
    )
}


def expanded(arms: Sequence[str]) -> list[str]:
    """The arms with ``"random"`` as both of its kinds."""
    both = [name for name in ARMS if name.startswith(f"{BOTH_RANDOM}-")]
    return [name for arm in arms for name in (both if arm == BOTH_RANDOM else (arm,))]


def plan_arms(
    model: LoadedModel, selection: Selection, arms: Sequence[str], recipe: Recipe, draws: Sequence[int]
) -> tuple[list[Plan], list[str]]:
    """The arms to run, in order, and notes on those that are not possible.

    Raises:
        ValueError: A kind of random selection that was asked for by name cannot be drawn.
    """
    planning = Planning(model=model, selection=selection, recipe=recipe, draws=draws, by_name=arms)
    plans: list[Plan] = []
    for name in expanded(arms):
        try:
            plans += ARMS[name].plan(planning)
        except NotPossible as why:
            planning.notes.append(_not_run(name, why))
    return plans, planning.notes


def located(
    model: LoadedModel, fact: Fact, plans: Sequence[Plan], notes: list[str], pool: FactSet | None, progress: bool
) -> list[Plan]:
    """The plans with the components that an arm locates itself; without it, and with a note, where it cannot."""
    out: list[Plan] = []
    for plan in plans:
        locate = ARMS[plan.arm].locate
        try:
            out.append(plan if locate is None else replace(plan, selection=locate(model, fact, pool, progress)))
        except NotPossible as why:
            notes.append(_not_run(plan.arm, why))
    return out


def _not_run(name: str, why: NotPossible) -> str:
    return f"{name} was not run{':' if str(why)[:1].islower() else '.'} {why}"
