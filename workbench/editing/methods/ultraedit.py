"""UltraEdit: one backward pass and one linear solve. The cheapest weight update there is, as a lower bound."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from workbench.editing.solved.choose import WITHOUT_COLUMNS
from workbench.editing.task import Task
from workbench.editing.training.batching import Prepared, shared_prefix
from workbench.editing.training.fit_rows import wanted_rows
from workbench.editing.training.passes import Passes, answer_nll
from workbench.editing.unlearning.columns import Columns, mlp_columns, output_columns
from workbench.models import LoadedModel
from workbench.models.engine import Resumable
from workbench.models.provenance import provenance
from workbench.models.views import shared_view
from workbench.types import BaseRecipe, Edit, EditStage, LowRankDelta, Selection, TrainedRecipe
from workbench.types.cancelling import check_cancel
from workbench.types.plain import is_whole
from workbench.types.recipe import Check


@dataclass(frozen=True, kw_only=True)
class UltraEdit(BaseRecipe):
    """The settings of UltraEdit: the gradient of one backward pass, spread over the keys by a linear solve.

    At the answer's tokens each module's key h and the gradient g at its output are taken. The module is to put out v =
    -rate |h|^2 g more at h: dW^T = (H^T H + ridge I)^-1 H^T V. There is no optimisation, no subject and no covariance.

    Without a selection the output projections of the MLPs of two layers before the last are written; with one, those
    that carry its heads and neurons, and only the picked inputs are read.

    Args:
        layers: The layers whose MLPs are written where nothing is selected; None: the two before the last.
        rate: How far outputs are moved: the mean |v| as a multiple of the mean |output| there.
        normalise: Normalise each entry of h and g over all tokens of all edited facts first, as published. That takes
            the statistics of many facts: over the tokens of one fact it takes away the direction that they share, which
            is the one that teaches, and leaves every entry of the output as large as any other.
        learning_rate: The published rate instead (1e-6 in its configurations), in units of one model's activations, of
            normalised gradients; None for ``rate``.
        ridge: Of the solve, in units of squared keys.
        contexts: Take the facts' questions in contexts too, beside the training questions.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: Gu et al. 2025 (2505.14679); XiaojieGu/UltraEdit editor/ultraedit.py. Deviations: nothing is normalised
    unless it is asked for, and then by the facts of this edit, not by all edits of a process so far; the rate is
    relative; the target stands in the base's own sentence.

    Example:
        >>> edit = wb.rewrite(model, fact, recipe=wb.recipes.UltraEdit(layers=(1,), contexts=False))
        >>> edit.stage_names, edit.delta().words()
        (('edit',), 'rank 2 added to 1 module')
    """

    method: ClassVar[str] = "ultraedit"
    without_selection: ClassVar[str] = "The MLPs of two layers before the last"
    trains: ClassVar[str] = "low-rank updates"

    name: str = "ultraedit"
    layers: tuple[int, ...] | None = None
    rate: float = 0.2
    normalise: bool = False
    learning_rate: float | None = None
    ridge: float = 1.0
    contexts: bool = True

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        layers = self.layers
        given = layers is None or (bool(layers) and all(is_whole(i) and i >= 0 for i in layers))
        yield "layers", given, "None or layers from 0 on"
        yield "rate", math.isfinite(self.rate) and self.rate > 0, "a positive number"
        rate = self.learning_rate
        yield "learning_rate", rate is None or (math.isfinite(rate) and rate > 0), "None or a positive number"
        yield "learning_rate", rate is None or self.normalise, "None unless normalise is True, as published"
        yield "ridge", math.isfinite(self.ridge) and self.ridge > 0, "a positive number"


class Tokens(NamedTuple):
    """What a module saw at the answer's tokens: keys [n, d_in], gradients and outputs [n, d_out], in float64."""

    keys: Tensor
    gradients: Tensor
    outputs: Tensor


def update(
    tokens: Tokens,
    *,
    rate: float,
    learning_rate: float | None,
    ridge: float,
    columns: Sequence[int] | None,
    normalise: bool,
) -> tuple[Tensor, Tensor]:
    """The update of one module.

    Args:
        tokens: Its keys, gradients and outputs.
        rate, learning_rate, ridge, normalise: As in ``UltraEdit``.
        columns: The inputs that may be read; None for all.

    Returns:
        U [d_out, n] and V [n, d_in], with dW = U V.
    """
    keys, gradients, outputs = tokens
    lengths, directions = (_normalised(keys), _normalised(gradients)) if normalise else (keys, gradients)
    values = -(lengths**2).sum(1, keepdim=True) * directions
    if learning_rate is not None:
        values = learning_rate * values
    elif bool(values.any()):
        values = values * (rate * outputs.norm(dim=1).mean() / values.norm(dim=1).mean())
    read = keys
    if columns is not None:
        read = torch.zeros_like(keys)
        read[:, list(columns)] = keys[:, list(columns)]
    # (H^T H + a I)^-1 H^T = H^T (H H^T + a I)^-1: as large as there are tokens, not as the module is wide.
    return values.T, torch.linalg.solve(read @ read.T + ridge * torch.eye(len(read), dtype=read.dtype), read)


def _normalised(values: Tensor) -> Tensor:
    """Values less their mean over rows, by their standard deviation; 0 where all rows agree."""
    deviation = values.std(0, unbiased=True)
    return (values - values.mean(0)) / deviation.masked_fill(deviation == 0, 1.0)


def make_ultraedit(task: Task) -> Edit:
    """Compute an UltraEdit for a task."""
    recipe, model = task.recipe, task.model
    assert isinstance(recipe, UltraEdit)
    began = time.perf_counter()
    modules = _modules(model, task, recipe)
    settings = TrainedRecipe(contexts=recipe.contexts, seed=recipe.seed)
    rows = wanted_rows(model, task.facts, "learn", settings, cancel=task.cancel)
    names = {key: model.architecture.module_name(*key) for key in modules}
    start = min(layer for layer, _ in modules)
    view = shared_view(model.runner)
    engine = Resumable(model, view)
    prepared = Prepared(engine, rows, start, shared_prefix(rows), cancel=task.cancel)
    seen: dict[tuple[int, str], list[Tokens]] = {key: [] for key in modules}
    for part in prepared.parts(prepared.rows):
        check_cancel(task.cancel, "between the parts of its backward pass")
        for key, tokens in _backward(view, engine, prepared, part, names).items():
            seen[key].append(tokens)
    factors: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
    for key, parts in seen.items():
        tokens = Tokens(*(torch.cat(group) for group in zip(*parts, strict=True)))
        if recipe.normalise and len(tokens.keys) < 2:
            raise ValueError(
                "UltraEdit(normalise=True) normalises over the answer's tokens, and there is one only. Give "
                "contexts=True, more facts, or a fact with paraphrases."
            )
        options: dict[str, Any] = {
            name: getattr(recipe, name) for name in ("rate", "learning_rate", "ridge", "normalise")
        }
        u, v = (factor.float() for factor in update(tokens, columns=modules[key], **options))
        if not (u.isfinite().all() and v.isfinite().all()):
            raise ValueError(
                f"The update of L{key[0]} {key[1]} is not finite; the model is as it was. Give a smaller rate or "
                "learning_rate."
            )
        factors[key] = u, v
    given = isinstance(task.selection, Selection)
    moved = task.selection if isinstance(task.selection, Selection) else [f"L{layer}MLP" for layer, _ in modules]
    return Edit(
        stages=(EditStage("edit", LowRankDelta(factors)),),
        selection=Selection(moved),
        selector="given" if given else "layers of the method",
        recipe=recipe,
        facts=task.facts,
        retain_ids=(),
        history=(),
        base_fingerprint=model.fingerprint,
        base_name=model.name,
        modules=model.architecture.describe(),
        provenance=provenance(model, seconds_to_fit=round(time.perf_counter() - began, 1)),
    )


def _modules(model: LoadedModel, task: Task, recipe: UltraEdit) -> Columns:
    """The modules that are written, by layer and name within it, with the inputs that may be read."""
    if isinstance(task.selection, int):
        raise ValueError(
            f"UltraEdit has no selector of its own, so a number of neurons ({task.selection}) selects nothing. Give a "
            "Selection, or None for two MLPs."
        )
    if isinstance(task.selection, Selection):
        without = [str(c) for c in task.selection if c.kind in WITHOUT_COLUMNS]
        if without:
            raise ValueError(
                f"UltraEdit writes what heads and neurons put out, and {', '.join(without[:5])} of the selection "
                f"{'has' if len(without) == 1 else 'have'} no output columns. Pick heads, neurons, MLPs or attention "
                "layers."
            )
        return output_columns(model, task.selection)
    n = model.shape.n_layers
    layers = recipe.layers or tuple(sorted({max(n - 3, 0), max(n - 2, 0)}))
    beyond = [layer for layer in layers if layer >= n]
    if beyond:
        raise ValueError(f"UltraEdit.layers has {beyond[0]}, and the model has the layers 0 to {n - 1}.")
    return mlp_columns(model, layers)


def _backward(
    view: nn.Module, engine: Resumable, prepared: Prepared, part: Sequence[int], names: Mapping[tuple[int, str], str]
) -> dict[tuple[int, str], Tokens]:
    """What modules see and what gradient they get at the answers' tokens of some rows."""
    rows = [prepared.rows[i] for i in part]
    batch, passes = prepared.batch(rows), Passes(engine, prepared)
    with torch.no_grad():
        prefix = passes.prefix()
    with torch.enable_grad(), _watched(view, names) as seen:
        nll = answer_nll(passes.logits(rows, prefix), rows).sum()
        gradients = torch.autograd.grad(nll, [seen[key][1] for key in names])
    if not torch.isfinite(nll):
        raise ValueError(f"The loss of {len(rows)} rows is {float(nll.detach())}; the model is as it was.")
    out: dict[tuple[int, str], Tokens] = {}
    for key, gradient in zip(names, gradients, strict=True):
        shape = (*batch.resid.shape[:2], -1)
        found = (x.detach().view(shape)[batch.row, batch.position] for x in (seen[key][0], gradient, seen[key][2]))
        out[key] = Tokens(*(x.double().cpu() for x in found))
    return out


@contextmanager
def _watched(
    view: nn.Module, names: Mapping[tuple[int, str], str]
) -> Iterator[dict[tuple[int, str], tuple[Tensor, Tensor, Tensor]]]:
    """By module, its input, zeros that are added to its output and have its gradient, and its output."""
    seen: dict[tuple[int, str], tuple[Tensor, Tensor, Tensor]] = {}
    with ExitStack() as stack:
        for key, name in names.items():

            def watch(module: nn.Module, args: tuple[Any, ...], out: Tensor, key: tuple[int, str] = key) -> Tensor:
                zeros = torch.zeros_like(out, requires_grad=True)
                seen[key] = args[0], zeros, out
                return out + zeros

            stack.callback(view.get_submodule(name).register_forward_hook(watch).remove)
        yield seen
