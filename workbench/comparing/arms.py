"""The arms of a comparison: a table with one record each, of what it trains and how that is planned and fitted.

An arm is added by one row of ``ARMS``: tables keep its words, so that figures, verdicts and pages follow. Every recipe
is an arm besides (``workbench.comparing.method_arms``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from workbench.editing.applied import Dial
from workbench.editing.methods.table import FullFineTuning, LoRA, Recipe
from workbench.editing.retain import default_retain
from workbench.editing.rewrite import rewrite
from workbench.editing.selector import paper_selection
from workbench.language.prompt_text import context_tokens
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Edit, Fact, FactSet, Selection, TrainedRecipe, all_components
from workbench.types.arms import Trained
from workbench.types.random_draws import Where
from workbench.types.selection import INDEXED, Kind

ArmName = Literal[
    "selected",
    "random-layers",
    "random-anywhere",
    "all",
    "one-stage",
    "other-relations",
    "none",
    "full",
    "lora",
    "paper",
]
BOTH_RANDOM = "random"
"""Stands for both kinds of random selection."""


class NotPossible(Exception):
    """An arm cannot be run here; the message is the reason, for the table's notes."""


@dataclass(frozen=True)
class Plan:
    """One run of an arm.

    Args:
        arm, seed: The arm's name, and the seed of a random draw.
        selection: What may move; None for no edit, and where the method chooses.
        recipe: The recipe, whose type says what moves.
        beside: The arm whose selection this is a random one of; it is drawn once that arm has run, and ``selection`` is
            None until then.
    """

    arm: str
    seed: int | None
    selection: Selection | None
    recipe: BaseRecipe
    beside: str | None = None


@dataclass(frozen=True, kw_only=True)
class Planning:
    """What arms are planned from.

    Args:
        model: The base model.
        selection: The located components.
        recipe: The comparison's recipe.
        draws: Seeds of the random draws.
        by_name: Arms that were asked for by name: what is not possible of them is an error.
        given: Whether the selection was given; else the default selector's.
        notes: What is worth a note is added.
    """

    model: LoadedModel
    selection: Selection
    recipe: Recipe
    draws: Sequence[int]
    by_name: Sequence[str] = ()
    given: bool = True
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What all arms of a fact are fitted with.

    Args:
        model, fact: The base model and the fact.
        retain: Facts held in place.
        spared: Facts whose answers chose the selection.
        pool: As in ``rewrite``.
        options: ``on_step``, ``cancel`` and ``progress``, as ``rewrite`` takes them.
    """

    model: LoadedModel
    fact: Fact
    retain: FactSet
    spared: FactSet
    pool: FactSet | None
    options: dict[str, Any]


Stop = Callable[[int, Callable[[], LoadedModel]], bool]
"""Whether an arm is to be read after so many steps of its last stage, given what makes its model as it is then."""


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
        beside: The arm that this one is a random control of, where that is not ``"selected"``.
        is_method: Whether it is a recipe by itself. What that refuses is noted, and the other arms go on.
    """

    name: str
    words: str
    plan: Callable[[Planning], list[Plan]]
    fit: Callable[[Fitting, Plan, Stop | None], Edit] | None
    unit: Trained = "gates"
    path: bool = True
    locate: Callable[[LoadedModel, Fact, FactSet | None, bool], Selection] | None = None
    spread: bool = False
    beside: str | None = None
    is_method: bool = False


def as_selected(name: str) -> Callable[[Planning], list[Plan]]:
    """The selection with the comparison's recipe."""
    return lambda planning: [Plan(name, None, planning.selection, planning.recipe)]


def nothing(planning: Planning) -> list[Plan]:
    """No selection."""
    return [Plan("none", None, None, planning.recipe)]


def random_draws(name: str, where: Where) -> Callable[[Planning], list[Plan]]:
    """As many other components of each kind, several draws of them."""

    def plan(planning: Planning) -> list[Plan]:
        selection = planning.selection
        try:
            drawn = [drawn_like(planning.model, selection, where, seed) for seed in planning.draws]
        except ValueError as error:
            if name in planning.by_name:
                raise
            raise NotPossible(str(error)) from error
        planning.notes.extend(stays(name, selection, where))
        return [Plan(name, seed, other, planning.recipe) for seed, other in zip(planning.draws, drawn, strict=True)]

    return plan


def drawn_like(model: LoadedModel, selection: Selection, where: Where, seed: int) -> Selection:
    """One draw of as many other components of each kind. A kind with one component a layer cannot be drawn from the
    same layers: those stay.

    Raises:
        ValueError: Nothing, or too little, is left to draw.
    """
    fixed = _fixed(selection, where)
    # Where nothing is left to draw, all of it is tried: the error says why that is not possible.
    return (selection - fixed or selection).random_like(model, seed=seed, where=where) | fixed


def stays(name: str, selection: Selection, where: Where) -> list[str]:
    """A note on what is in every draw, if anything is."""
    fixed = _fixed(selection, where)
    return [f"{name}: {fixed} stay in every draw, as their layers have one of that kind."] if fixed else []


def _fixed(selection: Selection, where: Where) -> Selection:
    return Selection([c for c in selection if c.kind not in INDEXED]) if where == "same-layers" else Selection()


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


def fit_plan(fitting: Fitting, plan: Plan, stop: Stop | None) -> Edit:
    """``rewrite`` with the plan's recipe on its selection."""
    model = fitting.model

    def stops(edit: Edit) -> bool:
        return stop is not None and stop(edit.history[-1].step + 1, lambda: Dial(model, edit).at(1.0))

    return rewrite(
        model,
        fitting.fact,
        plan.selection,
        recipe=plan.recipe,
        retain=fitting.retain,
        pool=fitting.pool,
        stop=None if stop is None else stops,
        **fitting.options,
    )


def fit_on_other_relations(fitting: Fitting, plan: Plan, stop: Stop | None) -> Edit:
    """``fit_plan`` with as many retained facts, none of them of the edited fact's relation.

    Raises:
        NotPossible: There are none of another relation.
    """
    given: dict[str, Any] = {"pool": fitting.pool, "size": len(fitting.retain), "seed": plan.recipe.seed}
    try:
        retain = default_retain(fitting.model, [fitting.fact], own_relation=False, progress=False, **given)
    except ValueError as error:
        raise NotPossible(str(error)) from error
    return fit_plan(replace(fitting, retain=retain), plan, stop)


def n_trained(model: LoadedModel, edit: Edit) -> int:
    """How many gates were selected, how many tokens a context takes, or how many weights the first stage owns (later
    ones move the same)."""
    if edit.recipe.trains == "gates":
        return edit.selection.n_parameters(model)
    texts = edit.delta().context
    if texts:
        return sum(context_tokens(model, text, edit.facts[0].question) for text in texts)
    return sum(t.numel() for t in edit.stages[0].delta.tensors().values() if t.is_floating_point())


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
        Arm(
            name="other-relations",
            words="the selection, own relation not retained",
            plan=as_selected("other-relations"),
            fit=fit_on_other_relations,
        ),
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
    model: LoadedModel,
    selection: Selection,
    arms: Sequence[str],
    recipe: Recipe,
    draws: Sequence[int],
    *,
    among: Mapping[str, Arm] | None = None,
    by_name: Sequence[str] | None = None,
    given: bool = True,
) -> tuple[list[Plan], list[str]]:
    """The arms to run, in order, and notes on those that are not possible.

    Args:
        model, selection, recipe, draws, given: See ``Planning``.
        arms: By name.
        among: All that there are; None for ``ARMS``.
        by_name: See ``Planning``; None for ``arms``.

    Raises:
        ValueError: A kind of random selection that was asked for by name cannot be drawn.
    """
    options: dict[str, Any] = {"by_name": arms if by_name is None else by_name, "given": given}
    planning = Planning(model=model, selection=selection, recipe=recipe, draws=draws, **options)
    plans: list[Plan] = []
    for name in expanded(arms):
        try:
            plans += (ARMS if among is None else among)[name].plan(planning)
        except NotPossible as why:
            planning.notes.append(not_run(name, why))
    return plans, planning.notes


def located(
    model: LoadedModel,
    fact: Fact,
    plans: Sequence[Plan],
    notes: list[str],
    pool: FactSet | None,
    progress: bool,
    among: Mapping[str, Arm],
) -> list[Plan]:
    """The plans with the components that an arm locates itself; without it, and with a note, where it cannot."""
    out: list[Plan] = []
    for plan in plans:
        locate = among[plan.arm].locate
        try:
            out.append(plan if locate is None else replace(plan, selection=locate(model, fact, pool, progress)))
        except NotPossible as why:
            notes.append(not_run(plan.arm, why))
    return out


def not_run(name: str, why: Exception) -> str:
    """A note on an arm that was left out."""
    return f"{name} was not run{':' if str(why)[:1].islower() else '.'} {why}"
