"""Which modules a closed form writes, and which of their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.editing.solved.spots import SITES, Place, module_name
from workbench.editing.solved.window import TRACED_FACTS, traced_window
from workbench.editing.task import Task
from workbench.language.prompts import AnswerNotSaid
from workbench.models.load import LoadedModel
from workbench.tracing.causal import causal_trace
from workbench.types import Component, Fact, Selection
from workbench.types.covariance import OutputModule
from workbench.types.roles import LAST_SUBJECT_TOKEN

WITHOUT_COLUMNS = ("Q", "K", "V", "KV", "GATEUP")
"""Kinds of components that are no inputs of an output projection."""
Columns = Mapping[Place, tuple[int, ...] | None]


@dataclass(frozen=True)
class Chosen:
    """What is written.

    Args:
        columns: By module, the columns; None for all.
        selection: The same as components.
        selector: How it came about.
    """

    columns: dict[Place, tuple[int, ...] | None]
    selection: Selection
    selector: str

    @property
    def places(self) -> list[Place]:
        """The modules."""
        return list(self.columns)


def chosen_places(
    task: Task,
    *,
    layers: Sequence[int] | None,
    window: int,
    module: OutputModule = "mlp",
    most: int | None = None,
) -> Chosen:
    """The modules and columns that a task's selection means, or those of layers that are given or traced.

    Args:
        task: What is asked.
        layers: The layers, where nothing is selected; None: those that the causal trace chooses.
        window: How many layers the trace chooses.
        module: Which module of those layers.
        most: Most modules that the method writes: of a larger selection those with the most columns, the highest first.

    Raises:
        ValueError: A number of neurons, a selection without output columns, or a layer that the model lacks.
    """
    model, selection = task.model, task.selection
    if isinstance(selection, int):
        raise ValueError(
            f"A closed form has no selector of its own, so a number of neurons ({selection}) selects nothing. Give a "
            "Selection, or None for whole modules of the layers that the causal trace chooses."
        )
    if selection is not None:
        return _of_selection(model, selection, most)
    if layers is None:
        first, how = traced_window(model, task.facts, min(window, model.shape.n_layers), module)
        layers = range(first, first + min(window, model.shape.n_layers))
        layers = layers[-1:] if most == 1 else layers  # what the layers below have gathered is there
    else:
        how = "layers of the recipe"
    columns: dict[Place, tuple[int, ...] | None] = {Place(layer, module): None for layer in sorted(set(layers))}
    for place in columns:
        module_name(model.architecture, place)  # whether the model has it
    kind = "MLP" if module == "mlp" else "ATTN"
    return Chosen(columns, Selection([Component(place.layer, kind) for place in columns]), how)


def _of_selection(model: LoadedModel, selection: Selection, most: int | None) -> Chosen:
    without = [str(c) for c in selection if c.kind in WITHOUT_COLUMNS]
    if without:
        raise ValueError(
            f"{', '.join(without[:5])} {'has' if len(without) == 1 else 'have'} no columns of an output projection, "
            "which is what a closed form writes. Select heads (L9H4), neurons (L9N207), MLPs or attention layers."
        )
    found: dict[Place, tuple[int, ...] | None] = {}
    sizes: dict[Place, int] = {}
    modules: dict[str, OutputModule] = {site: module for module, site in SITES.items()}
    for (layer, site), entries in selection.entries(model).items():
        if site in modules:
            place = Place(layer, modules[site])
            sizes[place] = len(entries)
            found[place] = None if len(entries) == model.shape.site_size(site) else tuple(entries)
    places = sorted(found, key=lambda place: (-sizes[place], -place.layer))[:most]
    kept = {place: found[place] for place in found if place in places}
    if len(kept) == len(found):
        return Chosen(kept, selection, "given")
    inside = Selection(c for c in selection if any(Place(c.layer, m) in kept for m in _modules_of(c)))
    return Chosen(kept, inside, f"given, of which {len(kept)} of {len(found)} modules")


def _modules_of(component: Component) -> tuple[OutputModule, ...]:
    return ("attn",) if component.kind in ("H", "ATTN") else ("mlp",)


def subject_effects(
    model: LoadedModel, facts: Sequence[Fact], site: OutputModule, *, samples: int = 4, progress: bool = True
) -> list[Tensor]:
    """What restoring each layer's attention or MLP at the subject's last tokens brings back, of each fact whose answer
    the model says: [mentions, layers] float64.

    Args:
        model: The base model.
        facts: The first few are traced.
        site: Attention or MLP.
        samples: Noise samples.
        progress: Show a progress bar.
    """
    found: list[Tensor] = []
    for fact in facts[:TRACED_FACTS]:
        try:
            traced = causal_trace(model, fact, site, samples=samples, progress=progress)
        except AnswerNotSaid:
            continue
        roles = [role for role in traced.roles if role.startswith(LAST_SUBJECT_TOKEN)]
        found.append(torch.stack([traced.at(role=role).double() for role in roles]))
    return found
