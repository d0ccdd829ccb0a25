"""What an edit of a few gates is compared with: full fine-tuning, and a small LoRA.

Same rows, same loss, same loop as ``rewrite`` (``workbench.editing.training.loop``); only what moves differs. The
result is a view of the model for an evaluation, not an edit: it is neither saved nor exactly removable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal, get_args

import torch
from torch import nn

from workbench.editing.recipes import Recipe
from workbench.editing.task import check_selection
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.loop import Training
from workbench.editing.training.optimisers import Adam
from workbench.editing.training.trainable import Trainable
from workbench.language.prompts import check_first_tokens
from workbench.models.deltas.low_rank import inject_lora
from workbench.models.load import LoadedModel
from workbench.models.views import own_layer_weights, shared_view
from workbench.types import Fact, FactSet, Selection, Step
from workbench.types.cancelling import CancelFlag, check_cancel

Baseline = Literal["full", "lora"]
RATES: dict[Baseline, float] = {"full": 2e-5, "lora": 3e-2}
"""AdamW's learning rates, chosen on dev facts (``benchmarks/baseline_rates.py``): a usual one for full fine-tuning;
a LoRA this small learns nothing in as few steps at a usual 1e-3."""
LORA_RANK = 1


@dataclass(frozen=True, eq=False)
class Tuned:
    """A tuned view of a model.

    Args:
        model: The view as a model; it holds the moved weights and shares all others with its base.
        trained: How many parameters moved.
        rank: Of a LoRA; None for full fine-tuning.
        history: One ``Step`` per optimiser step, and one at the end of each stage.
    """

    model: LoadedModel
    trained: int
    rank: int | None
    history: tuple[Step, ...]


def tune(
    model: LoadedModel,
    fact: Fact | Sequence[Fact],
    selection: Selection,
    method: Baseline,
    *,
    recipe: Recipe,
    retain: FactSet,
    stop: Callable[[Tuned], bool] | None = None,
    on_step: Callable[[Step], Any] | None = None,
    cancel: CancelFlag | None = None,
    progress: bool = True,
) -> Tuned:
    """Teach a fact by moving weights instead of gates, with AdamW at ``RATES``; the stages move the same weights.

    Args:
        model: A base model; it is not changed.
        fact: One fact, or several that are taught together.
        selection: The edit that this is compared with. ``"full"`` moves the weights of all layers, whatever is selected
            (not the embeddings and the last norm); ``"lora"`` puts a LoRA of rank 1 on modules that carry its gates.
        method: ``"full"`` or ``"lora"``. A module's LoRA has inputs + outputs weights, more than it can have gates. So
            only some modules get one, those with the most gates first: as many as come nearest to the selection's
            number of gates, but at least one.
        recipe: Of the edit: its stages, rows, loss and steps. Its optimiser and learning rate are for gates and not
            used; AdamW moves in steps of about its rate from the first on, so it needs no other.
        retain: Facts whose answers the KL term holds in place.
        stop: Called after each step of the last stage with the view as it is then; True ends it there.
        on_step, cancel, progress: As in ``rewrite``.

    Raises:
        ValueError: An unknown method, an edited model, an empty selection, or a component that the model lacks.
        Cancelled, NonFiniteLoss: As ``rewrite``.
    """
    if method not in get_args(Baseline):
        raise ValueError(f"method must be one of {get_args(Baseline)}, got {method!r}.")
    if model.edited:
        raise ValueError(f"{model.name!r} is edited already. Tune its base (model.base).")
    facts = [fact] if isinstance(fact, Fact) else list(fact)
    for one in facts:
        check_first_tokens(model, one)
    check_selection(model, selection)
    check_cancel(cancel)
    recipe = replace(recipe, optimiser="adam", max_gate=None)  # gates are bounded around 1; weights are not
    lowest = 0 if method == "full" else min(layer for layer, _ in selection.entries(model))
    rows = FitRows(model, facts, recipe, retain=retain)
    training = Training(rows, recipe, lowest, on_step=on_step, cancel=cancel)
    view, parameters, rank = _prepare(model, selection, method, recipe.seed)
    tuned = LoadedModel(view, model.tokenizer, name=model.name, architecture=model.architecture, base=model)
    trained = sum(p.numel() for p in parameters.values())

    from tqdm.auto import tqdm

    with torch.enable_grad(), tqdm(total=sum(recipe.stage_steps), desc="Tuning", disable=not progress) as bar:
        for stage, steps in zip(recipe.stages, recipe.stage_steps, strict=True):
            trainable = Trainable(view=view, parameters=parameters, optimiser=Adam(parameters), rate=RATES[method])
            ask = stop if stage == recipe.stages[-1] else None
            done = training.stage(
                stage,
                steps,
                trainable,
                bar,
                None if ask is None else lambda _, ask=ask: ask(Tuned(tuned, trained, rank, tuple(training.history))),
            )
            bar.update(steps - done)
    return Tuned(tuned, trained, rank, tuple(training.history))


def _prepare(
    model: LoadedModel, selection: Selection, method: Baseline, seed: int
) -> tuple[nn.Module, dict[str, nn.Parameter], int | None]:
    """A view with weights of its own, those weights by name, and the LoRA's rank."""
    view = shared_view(model.hf)
    if method == "full":
        return view, own_layer_weights(view, model.architecture, range(model.shape.n_layers)), None
    gates: dict[str, int] = {}
    for (layer, site), index in selection.entries(model).items():
        name = model.architecture.gate_module(layer, site).module
        gates[name] = gates.get(name, 0) + len(index)
    names = sorted(gates, key=lambda name: -gates[name])
    modules: list[Any] = [view.get_submodule(name) for name in names]
    sizes = [*accumulate(sum(module.weight.shape) for module in modules)]  # A is [1, inputs], B is [outputs, 1]
    wanted = selection.n_parameters(model)
    nearest = min(range(len(sizes)), key=lambda i: abs(sizes[i] - wanted))
    inject_lora(view, model.architecture, dict.fromkeys(names[: nearest + 1], LORA_RANK), "default", seed)
    return view, {name: p for name, p in view.named_parameters() if "lora_" in name}, LORA_RANK
