"""Rewriting facts: the one door to all editing methods. The type of the recipe chooses the method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from workbench.editing.applied import carried
from workbench.editing.methods.table import DEFAULT, METHODS, named_recipe
from workbench.editing.selector import check_number
from workbench.editing.task import Task, check_batch, check_selection
from workbench.language.prompts import check_first_tokens
from workbench.language.template import check_no_thought
from workbench.models import LoadedModel
from workbench.models.folded import folded
from workbench.tracing.self_check import require
from workbench.types import BaseRecipe, Edit, Fact, FactSet, Selection, Step
from workbench.types.cancelling import CancelFlag
from workbench.types.fact import as_facts
from workbench.types.plain import is_whole
from workbench.types.torch_settings import own_torch_settings


def checked(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    selection: Selection | str | int | None,
    recipe: BaseRecipe | str | None,
) -> tuple[list[Fact], Selection | int | None, BaseRecipe]:
    """The facts, the selection and the recipe of an edit that can be asked for.

    Raises:
        ValueError, TypeError: As ``rewrite``.
    """
    facts = as_facts(fact)
    settings = DEFAULT if recipe is None else named_recipe(recipe) if isinstance(recipe, str) else recipe
    if not isinstance(settings, BaseRecipe) or settings.method not in METHODS:
        raise TypeError(
            f"recipe must be a recipe, the name of one, or None, got {type(recipe).__name__}. Recipes are "
            f"{[method.recipe.__name__ for method in METHODS.values()]} in wb.recipes."
        )
    if model.edited and not model.applied:
        raise ValueError(f"{model.name!r} was changed without an edit. Rewrite its base (model.base).")
    if not facts:
        raise ValueError("rewrite needs at least one fact, got none.")
    check_batch(facts)
    check_no_thought(model)
    for edited in facts:
        check_first_tokens(model, edited)
    chosen = selection if selection is None or is_whole(selection) else Selection.read(selection)
    check_selection(model, chosen)
    if chosen is None and settings.selects:
        check_number(model, 1)  # a mixture of experts has no neurons to choose
    require(model, "gate", "resume")
    return facts, chosen, settings


@own_torch_settings()
def rewrite(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    selection: Selection | str | int | None = None,
    *,
    recipe: BaseRecipe | str | None = None,
    retain: FactSet | Sequence[Fact] | None = None,
    pool: FactSet | None = None,
    on_step: Callable[[Step], Any] | None = None,
    cancel: CancelFlag | None = None,
    stop: Callable[[Edit], bool] | None = None,
    progress: bool = True,
) -> Edit:
    """Make an edit after which the model answers the facts' targets, changing the selected components only.

    On an edited model this is sequential editing. The edit is made on top of those that the model carries: its base is
    the model with them (``Edit.base_fingerprint``), ``Edit.earlier`` names them, and it fits nowhere else. The fit runs
    on the edited weights. What it holds in place, and what the selector and the optimiser measure (retained answers,
    gains, Fisher information), are the edited model's own. Retained facts are chosen among those that the base knows,
    as for any edit of it; what an earlier edit rewrites is left out, and so is what the edited model no longer answers.

    Args:
        model: A base model, or one that carries edits (``wb.applied``, ``EditStack.model``); it is not changed.
        fact: One fact, or several that are rewritten together.
        selection: What may move, as a ``Selection`` or text. None: what the method moves by itself; a number: so many
            neurons of its own choice. See the recipe's class for both (``wb.recipes.IA3``: the default selector;
            ``wb.recipes.LoRA``: all linear modules of all layers).
        recipe: A recipe, whose type chooses the method; or the name of a built-in one (``wb.recipes.RECIPES``, such as
            ``"recommended"``, ``"memit"`` or ``"unlearn-only"``); None for ``"unlearn-then-learn"``. ``"paper"`` has
            the paper's settings, not its modules: give those as the selection (``benchmarks/paper.py`` does).
        retain: Facts whose answers are held in place, where the recipe holds any; None: ``default_retain``. Never
            evaluated.
        pool: Where the default retain set and the selector's controls come from; the bundled facts by default.
        on_step: Called with each ``Step`` of a method that takes steps; a second fit begins at the first stage's step 0
            again. Returning False cancels.
        cancel: Looked at before each step, and in the preparation between its batches; when set, the fit ends with
            ``Cancelled``.
        stop: Called after each step of the last stage with the edit as it is then (its last ``Step`` is the one just
            made); True ends the fit there. ``compare`` reads every arm with it at the same mark.
        progress: Show a progress bar.

    Returns:
        The edit, with one stage per stage of the recipe.

    Raises:
        ValueError: An empty selection, one of another type, a number that is out of range, a component that the model
            lacks, a model that was changed without an edit, two targets for one subject and relation or for one text, a
            fact that came twice, answer and target with the same first token, a retain set that holds an edited fact,
            or one that is missing though the recipe needs it; a recipe's name that does not exist.
        TypeError: A recipe of a type that no method has.
        Cancelled: ``cancel`` was set or ``on_step`` returned False.
        NonFiniteLoss: The loss became NaN or infinite.
        KeyboardInterrupt: Ctrl-C; as after every error, nothing is half-applied: what moves lives on a copy.

    Example:
        >>> recipe = wb.Recipe(steps=(8, 24), contexts=False)
        >>> edit = wb.rewrite(model, fact, "L1ATTN L1MLP L2ATTN L2MLP", recipe=recipe, pool=facts)
        >>> edit.scope, edit.delta().words()
        ('4 components', '368 gates moved')
        >>> with wb.applied(model, edit) as edited:
        ...     print(wb.ask(model, fact.question), "->", wb.ask(edited, fact.question))
        Paris -> Rome
        >>> with wb.applied(model, edit) as edited:
        ...     second = wb.rewrite(edited, facts["japan-capital"], "L1MLP L2MLP", recipe=recipe, pool=facts)
        >>> [one.facts for one in second.earlier], second.base_fingerprint == edit.fingerprint_on_top
        ([('france-capital',)], True)
    """
    facts, chosen, settings = checked(model, fact, selection, recipe)
    earlier = carried(model)
    task = task_of(
        model,
        facts,
        chosen,
        settings,
        retain=retain,
        pool=pool,
        on_step=on_step,
        cancel=cancel,
        stop=None if stop is None else lambda edit: stop(replace(edit, earlier=earlier)),
        progress=progress,
    )
    return replace(METHODS[settings.method].make(task), earlier=earlier)


def task_of(
    model: LoadedModel, facts: Sequence[Fact], selection: Selection | int | None, recipe: BaseRecipe, **options: Any
) -> Task:
    """The task of an edit whose arguments were checked; of an edited model the edits are written in, so that its base
    is one model.

    Args:
        model, facts, selection, recipe: As ``checked`` gives them.
        options: Others of ``rewrite``.
    """
    base = folded(model) if carried(model) else model
    return Task(model=base, facts=tuple(facts), selection=selection, recipe=recipe, **options)
