"""The published procedures of ROME and MEMIT, done plainly: a readable reference, and the same numbers sooner.

With ``cut=False`` every pass is a pass of the whole model over whole texts, padded to one batch, with hooks: all
rewriting prompts of a fact and its KL prompt in one forward, as the authors' programs do it. Nothing is resumed, shared
or cut. With ``cut=True`` the same is computed by passes that skip what does not change. What differs from the authors'
programs is said where it does: plain text begins as the tokenizer begins it, solves are in float64, the edit is written
as factors, and nothing is taken from or left in a global.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.editing.solved.cut_passes import CutPasses, CutReader
from workbench.editing.solved.published_target import (
    MEMIT_TARGET,
    ROME_TARGET,
    Factors,
    PublishedTarget,
    Texts,
    WholePasses,
    adding,
    changing,
    projection,
    target_vector,
    texts_of,
)
from workbench.editing.solved.spots import Place
from workbench.editing.solved.write import raw_change
from workbench.models.engine import input_hook
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.types import Fact


@dataclass(frozen=True, eq=False)
class Published:
    """What a published procedure found.

    Args:
        factors: By layer, U and V.
        keys: By layer, the keys that the update was solved for, [d_in, n]; ROME's are the mean and the bare one.
        residuals: What was lacking at the bare prompts before the first write, [d_out, facts].
    """

    factors: Factors
    keys: Mapping[int, Tensor]
    residuals: Tensor


BeforeStep = Callable[[int, float, float], None]


def optimised(
    model: LoadedModel,
    fact: Fact,
    contexts: Sequence[str],
    layer: int,
    *,
    residual: bool,
    settings: PublishedTarget,
    cut: bool = False,
    before_step: BeforeStep | None = None,
) -> tuple[Tensor, Tensor]:
    """The state at the bare prompt's subject and the vector to add to it (``target_vector``), both [d_model].

    Args:
        model: The model.
        fact: The fact.
        contexts: Texts with ``{}`` where the prompt stands; the first is the bare one, ``"{}"``.
        layer: Where the vector is added.
        residual: To the residual stream after the layer (MEMIT), or to the output of its MLP's output projection
            (ROME).
        settings: The settings.
        cut: Compute only what the vector changes.
        before_step: As in ``target_vector``.

    Raises:
        ValueError: The last layer, or one that the model lacks.
    """
    if not 0 <= layer < model.shape.n_layers - 1:
        raise ValueError(
            f"The target vector cannot be put at layer {layer}: what is there at the subject must be read by a later "
            f"layer at the answer, so the layers are 0 to {model.shape.n_layers - 2}."
        )
    texts = texts_of(model, fact, contexts, target=True, kl=True)
    passes = (CutPasses if cut else WholePasses)(model, texts, layer, residual=residual)
    return target_vector(model, texts, passes, settings, before_step)


class WholeReader:
    """Reads keys and states of a fact's texts by passes of the whole model.

    Args:
        model: The model.
        texts: ``texts_of`` the fact without its target; the first is the bare prompt.
    """

    def __init__(self, model: LoadedModel, texts: Texts) -> None:
        self._model, self._texts, self._ids = model, texts, texts.padded(model)

    def keys(self, layer: int, written: Factors) -> Tensor:
        """What the MLP's output projection of a layer reads at the subject's last token of each text.

        Args:
            layer: The layer.
            written: What lower layers have been given.

        Returns:
            [texts, d_in] in float64.
        """
        name, view = projection(self._model, layer), shared_view(self._model.runner)
        seen: list[Tensor] = []
        handle = view.get_submodule(name).register_forward_pre_hook(input_hook(_keeping(seen)))
        try:
            self._pass(view, written)
        finally:
            handle.remove()
        whole = seen[-1].view(*self._ids.shape, -1)
        return whole[torch.arange(len(whole)), torch.tensor(self._texts.subject)].double().cpu()

    def after(self, layer: int, written: Factors) -> Tensor:
        """The residual stream after a layer at the subject's last token of the bare prompt, [d_model] in float64."""
        return self._seen(layer, written, residual=True)

    def output(self, layer: int, written: Factors) -> Tensor:
        """What the MLP's output projection of a layer puts out there, [d_model] in float64."""
        return self._seen(layer, written, residual=False)

    def _seen(self, layer: int, written: Factors, *, residual: bool) -> Tensor:
        view, seen = shared_view(self._model.runner), list[Tensor]()
        with changing(self._model, view, layer, _keeping(seen), residual=residual):
            self._pass(view, written)
        return seen[-1].view(*self._ids.shape, -1)[0, self._texts.subject[0]].double().cpu()

    @torch.no_grad()
    def _pass(self, view: Any, written: Factors) -> None:
        with adding(self._model, view, written):
            view(input_ids=self._ids, use_cache=False)


def _keeping(seen: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def keep(state: Tensor) -> Tensor:
        seen.append(state)
        return state

    return keep


def _reader(
    model: LoadedModel, fact: Fact, contexts: Sequence[str], lowest: int, *, cut: bool
) -> WholeReader | CutReader:
    texts = texts_of(model, fact, contexts, target=False, kl=False)
    return CutReader(model, texts, lowest) if cut else WholeReader(model, texts)


def published_rome(
    model: LoadedModel,
    fact: Fact,
    layer: int,
    covariance: Tensor,
    contexts: Sequence[str],
    *,
    settings: PublishedTarget = ROME_TARGET,
    columns: Sequence[int] | None = None,
    cut: bool = False,
    before_step: BeforeStep | None = None,
) -> Published:
    """ROME as it was published: the mean key chooses the direction, the bare key the amount.

    Args:
        model, fact, layer: What is edited, and where.
        covariance: E[k k^T] of the keys of that layer, [d_in, d_in].
        contexts: ``"{}"``, then the sampled ones.
        settings: Of the target vector.
        columns: The inputs that may be read; None for all.
        cut: As in ``optimised``.
        before_step: As in ``target_vector``.

    Returns:
        U [d_out, 1], V [1, d_in] and the mean and the bare key: after the edit the projection gives the bare key the
        target vector exactly.

    Source: Meng et al. 2022 (2202.05262), equation 2; kmeng01/rome rome/rome_main.py.
    """
    _, vector = optimised(
        model, fact, contexts, layer, residual=False, settings=settings, cut=cut, before_step=before_step
    )
    keys = _reader(model, fact, contexts, layer, cut=cut).keys(layer, {})
    mean, bare, index = keys.mean(0), keys[0], _index(columns, len(covariance))
    direction = torch.linalg.solve(covariance.double()[index][:, index], mean[index])
    u = torch.zeros_like(mean)
    u[index] = direction / direction.norm()
    factors = (vector.double().cpu() / (bare @ u))[:, None], u[None]
    return Published({layer: factors}, {layer: torch.stack([mean, bare], 1)}, vector.double().cpu()[:, None])


def published_memit(
    model: LoadedModel,
    facts: Sequence[Fact],
    layers: Sequence[int],
    covariances: Mapping[int, Tensor],
    contexts: Sequence[str],
    *,
    covariance_weight: float | None = None,
    leverage: float = 30.0,
    settings: PublishedTarget = MEMIT_TARGET,
    columns: Mapping[int, Sequence[int] | None] | None = None,
    cut: bool = False,
    before_step: BeforeStep | None = None,
) -> Published:
    """MEMIT as it was published: targets after the last layer, spread over the layers from the lowest up.

    Args:
        model, facts: What is edited.
        layers: The layers, ascending.
        covariances: E[k k^T] by layer, [d_in, d_in].
        contexts: ``"{}"``, then the sampled ones; in the mean key the bare one weighs one half.
        covariance_weight: lambda, in units of keys; None: the keys' mean k^T C^-1 k, divided by ``leverage``.
        leverage: See ``covariance_weight``.
        settings: Of the target vectors.
        columns: By layer, the inputs that may be read; None for all, of a layer or of all layers.
        cut: As in ``optimised``.
        before_step: As in ``target_vector``.

    Returns:
        U [d_out, facts] and V [facts, d_in] by layer, with the keys.

    Source: Meng et al. 2023 (2210.07229), algorithm 1; kmeng01/memit memit/memit_main.py. Where a family multiplies or
    normalises what a sublayer adds, the module is asked for what then adds up (``write.raw_change``).
    """
    last, wanted = layers[-1], list[Tensor]()
    options: dict[str, Any] = {"residual": True, "settings": settings, "cut": cut, "before_step": before_step}
    for fact in facts:
        start, vector = optimised(model, fact, contexts, last, **options)
        wanted.append((start + vector).double().cpu())
    readers = [_reader(model, fact, contexts, layers[0], cut=cut) for fact in facts]
    written: Factors = {}
    read: dict[int, Tensor] = {}
    residuals = torch.empty(0)
    for i, layer in enumerate(layers):
        per_fact = [reader.keys(layer, written) for reader in readers]
        keys = torch.stack([x[0] / 2 + (x[1:] if len(x) > 1 else x).mean(0) / 2 for x in per_fact], 1)
        now = torch.stack([reader.after(last, written) for reader in readers], 1)
        lacking = torch.stack(wanted, 1) - now
        index = _index(None if columns is None else columns[layer], len(keys))
        spared, part = covariances[layer].double()[index][:, index], keys[index]
        weight = covariance_weight
        if weight is None:
            weight = float((part * torch.linalg.solve(spared, part)).sum(0).mean()) / leverage
        v = torch.zeros_like(keys)
        v[index] = torch.linalg.solve(weight * spared + part @ part.T, part)
        output = torch.stack([reader.output(layer, written) for reader in readers])
        wanted_here = raw_change(model, Place(layer, "mlp"), output, lacking.T / (len(layers) - i))
        written[layer] = wanted_here.T, v.T.contiguous()
        read[layer], residuals = keys, residuals if i else lacking
    return Published(written, read, residuals)


def _index(columns: Sequence[int] | None, d_in: int) -> Tensor:
    return torch.arange(d_in) if columns is None else torch.tensor(list(columns), dtype=torch.long)
