"""IntAttn-Edit: attention and MLP modules share the change, by what a causal trace says that each contributes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, get_args

import torch

from workbench.editing.methods.memit import MEMIT, solve_memit
from workbench.editing.solved.choose import Chosen, chosen_places, subject_effects
from workbench.editing.solved.keys import PreparedContexts
from workbench.editing.solved.solving import Solving
from workbench.editing.solved.spots import Place, Spot, key_spot, module_name
from workbench.editing.solved.write import Problem, Writer, ordered, weights_of
from workbench.editing.task import Task
from workbench.models.load import LoadedModel
from workbench.types import Component, Edit, Fact, Selection
from workbench.types.covariance import OutputModule
from workbench.types.recipe import Check

Targets = Literal["residual", "joint"]
UNTRACED = 0.5
"""The balance where the model does not say the fact's answer, so that nothing can be traced."""


@dataclass(frozen=True, kw_only=True)
class IntAttnEdit(MEMIT):
    """The settings of IntAttn-Edit: as ``MEMIT``, with attention's output projections beside the MLPs' of each layer.

    **A reconstruction**: the paper has no public code, and its abstract leaves open how the balance divides the update.
    Here it divides the change R of the residual stream: in each layer attention takes ``balance`` times the layer's
    share of R, the MLP the rest. Each has its own keys and covariance; attention is written first, then the MLP's keys
    are read again, and R is measured again after every module. ``balance=0`` is MEMIT, 1 writes attention only.

    With a selection, the layers in which only one of both is picked give it the whole share.

    Args:
        balance: Attention's share, from 0 to 1. None: measured, as c_attn / (c_attn + c_mlp), where c is the sum over
            the written layers of the average effect of restoring the module at the subject's last token, or 0 where it
            is negative. Where the model does not say the answer: 0.5. The edit's ``selector`` has it in words.
        targets: ``"residual"``: one target in the residual stream after the highest layer. ``"joint"``, after PMET: a
            vector at the output of each of the highest layer's two modules, optimised together; a module takes on
            what its own target lacks, by the root of the number of layers left. Then ``balance`` is not used, but 0
            writes the MLPs only, as PMET does.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: Xie et al. 2025 (2510.27400), from its abstract; joint targets: Li et al. 2023 (2308.08742), EasyEdit
    easyeditor/models/pmet.

    Example:
        >>> recipe = wb.recipes.IntAttnEdit(layers=(0, 1), steps=3, covariance="identity", balance=0.5)
        >>> edit = wb.rewrite(model, fact, recipe=recipe, pool=facts)
        >>> edit.delta().words(), [write.module for write in edit.writes]
        ('rank 1 added to 4 modules', ['attn', 'mlp', 'attn', 'mlp'])
    """

    method: ClassVar[str] = "int-attn"
    without_selection: ClassVar[str] = "Attention and MLPs that a trace chooses"

    name: str = "int-attn"
    balance: float | None = None
    targets: Targets = "residual"

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "balance", self.balance is None or 0 <= self.balance <= 1, "None or from 0 to 1"
        yield "targets", self.targets in get_args(Targets), f"one of {get_args(Targets)}"
        yield "published", not self.published, "False: IntAttn-Edit has no public code"
        joint = self.targets == "joint" and self.balance not in (None, 0)
        yield "balance", not joint, "None or 0 with targets='joint', which have no balance"


def make_int_attn(task: Task) -> Edit:
    """Solve IntAttn-Edit for a task."""
    recipe = task.recipe
    assert isinstance(recipe, IntAttnEdit)
    chosen, balance = chosen_modules(task, recipe)
    if recipe.targets == "joint":
        return Solving(task, chosen).run(_joint)
    return Solving(task, chosen).run(partial(_balanced, balance))


def chosen_modules(task: Task, recipe: IntAttnEdit) -> tuple[Chosen, float]:
    """The modules that are written, and the balance.

    Raises:
        ValueError: As ``chosen_places``; a balance that leaves nothing of the selection.
    """
    balance, how = recipe.balance, ""
    first: OutputModule = "attn" if balance == 1 else "mlp"
    chosen = chosen_places(task, layers=recipe.layers, window=recipe.window, module=first)
    columns = dict(chosen.columns)
    given = task.selection is not None
    if not given and balance not in (0, 1):
        columns |= {Place(place.layer, "attn"): None for place in columns}
        for place in columns:
            module_name(task.model.architecture, place)  # whether the model has it
    both = len({place.module for place in columns}) == 2
    if balance is None:
        if both and recipe.targets == "residual":
            layers = sorted({place.layer for place in columns})
            balance, how = measured_balance(task.model, task.facts, layers, progress=task.progress)
        else:
            balance = UNTRACED
    unwritten = {0.0: "attn", 1.0: "mlp"}.get(balance)
    columns = {place: columns[place] for place in ordered(list(columns)) if place.module != unwritten}
    if not columns:
        raise ValueError(
            f"balance={balance:g} writes {'MLPs' if unwritten == 'attn' else 'attention'} only, and the selection "
            f"{task.selection} has none. Give another balance, or select other components."
        )
    kinds = {"mlp": ("MLP", "N"), "attn": ("ATTN", "H")}
    selection = (
        Selection(c for c in chosen.selection if unwritten is None or c.kind not in kinds[unwritten])
        if given
        else Selection(Component(place.layer, "MLP" if place.module == "mlp" else "ATTN") for place in columns)
    )
    return Chosen(columns, selection, f"{chosen.selector}{how}"), balance


def measured_balance(
    model: LoadedModel, facts: Sequence[Fact], layers: Sequence[int], *, progress: bool = True
) -> tuple[float, str]:
    """Attention's share of what restoring modules at the subject's last token brings back.

    Args:
        model: The base model.
        facts: Some of them are traced.
        layers: The layers that count.
        progress: Show a progress bar.

    Returns:
        The balance, and how it came about in words.
    """
    parts: dict[str, float] = {}
    for site in ("attn", "mlp"):
        effects = subject_effects(model, facts, site, progress=progress)
        if not effects:
            return UNTRACED, f"; balance {UNTRACED:g} (the model does not say the answer, so nothing can be traced)"
        mean = torch.stack([effect.sum(0) for effect in effects]).mean(0)
        parts[site] = float(mean[list(layers)].clamp(min=0).sum())
    total = parts["attn"] + parts["mlp"]
    if not total:
        return UNTRACED, f"; balance {UNTRACED:g} (no module brings the answer back)"
    balance = parts["attn"] / total
    return balance, f"; balance {balance:.2f} (causal trace)"


def shares_of(places: Sequence[Place], balance: float) -> list[float]:
    """What share of what is lacking each module takes on, where that is measured again before each.

    A layer is to move R by one of as many parts as there are layers left: attention by ``balance`` of it, so that after
    it the MLP's rest is a larger share of what then is lacking.

    Args:
        places: The modules, ``ordered``.
        balance: Attention's share in the layers that have both.
    """
    layers = sorted({place.layer for place in places})
    shares: list[float] = []
    for place in places:
        part = 1 / (len(layers) - layers.index(place.layer))
        if sum(other.layer == place.layer for other in places) == 2:
            taken = balance * part
            part = taken if place.module == "attn" else (part - taken) / (1 - taken)
        shares.append(part)
    return shares


def _balanced(balance: float, solving: Solving, stage: str, writer: Writer) -> None:
    places = ordered(solving.chosen.places)
    solving.spread(stage, writer, partial(solve_memit, solving), shares_of(places, balance))


def _joint(solving: Solving, stage: str, writer: Writer) -> None:
    """Every module works towards the target of its kind at the highest layer."""
    places = ordered(solving.chosen.places)
    layers = sorted({place.layer for place in places})
    spots = {module: Spot(module, layers[-1]) for module in ("attn", "mlp")}
    contexts = solving.contexts(stage)
    prepared = PreparedContexts(solving.model, contexts, layers[0], view=writer.view, cancel=solving.task.cancel)
    found = [
        solving.target(i, contexts, [*spots.values()], stage=stage, view=writer.view)
        for i in range(len(solving.task.facts))
    ]
    now = prepared.read([*spots.values()], view=writer.view)
    goals = {
        module: now[spot] + torch.stack([target.vectors[spot] for target in found])[prepared.facts]
        for module, spot in spots.items()
    }
    for place in places:
        spot = spots[place.module]
        states = prepared.read([key_spot(place), spot], view=writer.view)
        lacking = goals[place.module] - states[spot]
        wanted = lacking / math.sqrt(len(layers) - layers.index(place.layer))
        facts = prepared.facts
        problem = Problem(place, states[key_spot(place)].T, wanted.T, weights_of(facts), facts)
        before = float(lacking.norm(dim=1).mean())
        writer.write(place, solve_memit(solving, problem), keys=len(facts), residual_before=before)
        after = goals[place.module] - prepared.read([spot], view=writer.view)[spot]
        writer.leaves(float(after.norm(dim=1).mean()))
