"""Control arms: does it matter which components an edit trains?

The test is stated before it is run. The same fact is edited on the selection, on random selections with as many
components of each kind, on everything, and so on; all arms share rows, loss, retain set, controls and held-out
questions. Each is read at the first step at which validation accuracy reaches the threshold (``validation.py``), and
those that never reach it are counted apart. The outcomes are control retention and the KL to the base on controls.
Either sign is a finding: Hase et al. (2301.04213) found that locating does not tell where to edit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from workbench.comparing.arms import (
    ArmName,
    plan_arms,
)
from workbench.comparing.method_arms import lineup
from workbench.comparing.runs import Comparison
from workbench.comparing.validation import THRESHOLD
from workbench.editing.methods.table import Recipe
from workbench.editing.task import check_selection, retain_set
from workbench.evaluation.answering import Answering, check_answering
from workbench.language.prompts import check_first_tokens
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Fact, FactSet, Selection, Step
from workbench.types.arms import ArmRow, ArmTable, join_tables
from workbench.types.cancelling import CancelFlag, check_cancel
from workbench.types.fact import as_facts, check_once
from workbench.types.torch_settings import own_torch_settings

Asked = Literal[ArmName, "random"]
LEAST_DRAWS = 3
READ_EVERY = 2


@own_torch_settings()
def compare(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    selection: Selection | str | None = None,
    *,
    arms: Sequence[Asked | str | BaseRecipe] | Asked | str | BaseRecipe = (
        "selected",
        "random",
        "all",
        "one-stage",
        "none",
    ),
    recipe: Recipe | str | None = None,
    retain: FactSet | Sequence[Fact] | None = None,
    pool: FactSet | None = None,
    controls: FactSet | Sequence[Fact] | None = None,
    max_controls: int | None = None,
    seeds: int | Sequence[int] = LEAST_DRAWS,
    random_beside: bool = True,
    threshold: float = THRESHOLD,
    read_every: int = READ_EVERY,
    answering: Answering | None = None,
    on_arm: Callable[[ArmRow], Any] | None = None,
    on_step: Callable[[Step], Any] | None = None,
    cancel: CancelFlag | None = None,
    progress: bool = True,
    seed: int = 0,
) -> ArmTable:
    """Edit a fact in several ways, read each where it has just taught the fact, and compare what else changed.

    Args:
        model: A base model; it is not changed.
        fact: One fact, or several that are edited and compared one by one, and aggregated by fact.
        selection: The located components. None: the default selector, for each fact.
        arms: Which, each once:
            ``"selected"``: the selection; ``"random-layers"``: as many other components of each kind from the same
            layers; ``"random-anywhere"``: from all layers; ``"random"``: both. A kind with one component a layer, such
            as a whole MLP, cannot be drawn from the same layers: those stay in every draw, or, with nothing else to
            draw, the arm is left out; ``notes`` says so. ``"all"``: every component of these kinds;
            ``"one-stage"``: the selection, learn stage only, with as many steps in total; ``"other-relations"``: the
            selection, with as many retained facts, none of the fact's own relation; ``"none"``: no edit;
            ``"full"``: fine-tuning of the weights of all layers (not of embeddings and last norm); ``"lora"``: a LoRA
            of about as many weights as the selection has gates (``wb.recipes``); ``"paper"``: the
            recipe of arXiv 2508.07075 on the modules that it trains (``paper_selection``), 2000 steps.
            Any method besides: a recipe of ``wb.recipes``, or the name of a built-in one (``"memit"``; a name above is
            that arm), on the selection that is given, else on what the method chooses.
        recipe: For all arms but ``"paper"`` and the methods; its ``early_stop``, ``average`` and ``draw_back`` are off:
            every arm is read, and evaluated, as it is after one step. It must end with the learn stage.
        retain: Facts held in place, in all arms; None: ``default_retain``.
        pool, controls, max_controls: As in ``evaluate``.
        seeds: Random draws of each kind: a number, or the seeds; at least three.
        random_beside: Beside each method, the same recipe on as many random components as its edit moved, of both kinds
            (``"memit: random-layers"``; of a method that moves one module, from one other layer for anywhere); none
            beside a context, or where the whole model moves.
        threshold: Share of the validation questions with the new answer at which an arm is read.
        read_every: Look after so many steps of the learn stage, and after its last. ``"paper"`` is looked at as often
            in all as the others, not as densely; ``notes`` says how often.
        answering: Keeps the base's answers between calls.
        on_arm: Called with each finished row; returning False cancels.
        on_step: Called with each step of every fit; returning False cancels.
        cancel: Checked before each step and each arm.
        progress: Show a progress bar.
        seed: Of the draw of controls. Batches are drawn by the recipe's seed; the table's bootstrap has its own.

    Returns:
        A row for each fact and arm (a random arm has one for each draw), with every evaluated text. A method that
        trains is read as the other arms are, without its ``early_stop``, ``average`` and ``draw_back``; one that takes
        no steps, or teaches no new answer, as it is. What a method refuses is not run, and in ``notes``.

    Raises:
        ValueError: Unknown or repeated arms, fewer than three seeds, an empty selection, components that the model
            lacks or that cannot be drawn, an edited model, a recipe without the learn stage at its end, what
            ``rewrite`` and ``evaluate`` refuse, or no arm that could be run.
        Cancelled: ``cancel`` was set, or a callback returned False; finished rows were given to ``on_arm``.
        NonFiniteLoss: The loss of an arm became NaN or infinite.

    Known deviations: the selection is fitted once, random ones once per draw, all with the recipe's seed.

    Example:
        >>> arms, recipe = ("selected", "one-stage", "none"), wb.Recipe(steps=(8, 24), contexts=False)
        >>> table = wb.compare(model, fact, "L1ATTN L1MLP L2ATTN L2MLP", arms=arms, recipe=recipe, pool=facts)
        >>> for arm in table.arms:
        ...     print(arm, table.rate(arm, "new"))
        selected 1.00 [0.21, 1.00] (n=1)
        one-stage 1.00 [0.21, 1.00] (n=1)
        none 0.00 [0.00, 0.79] (n=1)
    """
    facts = as_facts(fact)
    asked = Recipe.named(recipe) if isinstance(recipe, str) else recipe or Recipe()
    if not isinstance(asked, Recipe):
        raise ValueError(
            f"recipe= is the IA3 recipe that the arms take rows, loss and steps from, got a {type(asked).__name__}. "
            f"Give that as an arm: arms=('selected', {type(asked).__name__}(...))."
        )
    chosen = None if selection is None else Selection.read(selection)
    draws = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    listed: list[Any] = [arms] if isinstance(arms, str | BaseRecipe) else list(arms)
    found = lineup(listed, last_steps=asked.stage_steps[-1], random_beside=random_beside)
    _check(model, facts, asked, draws, threshold, read_every)
    names = [one for one in listed if isinstance(one, str)]
    if chosen is not None:
        check_selection(model, chosen)
        plan_arms(model, chosen, list(found), asked, draws, among=found, by_name=names)  # are the draws possible?
    recipe = replace(asked, early_stop=None, average=0, draw_back=None)
    if answering is not None:
        check_answering(answering, model)
    comparison = Comparison(
        model=model,
        arms=found,
        by_name=names,
        recipe=recipe,
        draws=draws,
        pool=pool,
        threshold=threshold,
        read_every=read_every,
        answering=answering or Answering(model),
        evaluation={"controls": controls, "pool": pool, "max_controls": max_controls, "seed": seed},
        options={"on_step": on_step, "cancel": cancel, "progress": False},
        progress=progress,
    )
    tables: list[ArmTable] = []

    from tqdm.auto import tqdm

    with tqdm(desc="Comparing", total=None, disable=not progress, unit="arm") as bar:
        for edited in facts:
            check_cancel(cancel, f"before {edited.id!r}")
            kept = retain_set(model, [edited], retain, recipe, pool, progress)
            tables.append(comparison.of(edited, kept, chosen, on_arm, bar))
    table = join_tables(tables)
    if not table.rows:
        raise ValueError(f"No arm could be run. {' '.join(table.notes)}")
    return table


def _check(
    model: LoadedModel,
    facts: Sequence[Fact],
    recipe: Recipe,
    draws: Sequence[int],
    threshold: float,
    read_every: int,
) -> None:
    """Everything that can be refused before the first fit."""
    if model.edited:
        raise ValueError(f"{model.name!r} carries an edit already. Compare arms on its base (model.base).")
    if not facts:
        raise ValueError("compare needs at least one fact, got none.")
    check_once(facts)
    for fact in facts:
        check_first_tokens(model, fact)
    if len(draws) < LEAST_DRAWS or len(set(draws)) != len(draws):
        raise ValueError(
            f"seeds must be at least {LEAST_DRAWS} different draws (one draw may be a lucky one), got {list(draws)}."
        )
    if recipe.stages[-1] != "learn":
        raise ValueError(
            f"Arms are read in the learn stage, but the recipe {recipe.name!r} has the stages {recipe.stages}."
        )
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold!r}.")
    if read_every < 1:
        raise ValueError(f"read_every must be 1 or more, got {read_every!r}.")
