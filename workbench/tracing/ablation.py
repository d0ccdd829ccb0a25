"""Looking at single heads: where one attends, and what the answer loses without some components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.language.prompts import traced_prompt
from workbench.models.engine import Change, HookSite, Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.corruption import Setup
from workbench.tracing.metric import Metric, check_metric
from workbench.types import Ablation, Component, Fact, Form, Selection, TracedPrompt

if TYPE_CHECKING:
    import pandas as pd


def ablate(
    model: LoadedModel,
    fact: Fact,
    selection: Selection | str,
    *,
    metric: Metric = "logit_diff",
    form: Form | None = None,
) -> Ablation:
    """Measure a metric with the outputs of some heads, MLPs or neurons set to zero at all positions. It checks whether
    the model needs them.

    Args:
        model: A base or edited model; it is not changed.
        fact: The fact.
        selection: Query heads, MLPs or neurons (components with entries at the sites ``z`` and ``post`` only).
        metric: ``"logit_diff"`` (answer minus target) or ``"probability"`` of the answer.
        form: As in ``causal_trace``.

    Returns:
        The metric at the last position, without and with the ablation, in units of the metric.

    Raises:
        ValueError: An empty selection, or a component that is not an output (a key-value group, say).

    Example:
        >>> ablation = wb.ablate(model, fact, "L0MLP")
        >>> round(ablation.clean, 1), round(ablation.ablated, 1), round(ablation.effect, 1)
        (14.0, 0.7, 13.3)
    """
    check_metric(metric)
    chosen = Selection(selection) if isinstance(selection, str) else selection
    if not len(chosen):
        raise ValueError("The selection is empty: there is nothing to ablate.")
    for component in chosen:
        if component.kind in ("K", "V", "KV"):
            component.require_head(model.shape)
        if component.kind not in ("H", "MLP", "N"):
            raise ValueError(
                f"{component} cannot be ablated here: choose heads (L23H4), MLPs (L13MLP) or neurons (L13N207)."
            )
    prompt = traced_prompt(model, fact, form=form)
    with torch.no_grad(), pooled_engine(Resumable, model) as engine:
        resid = engine.embed(torch.tensor([prompt.token_ids]))
        setup = Setup(prompt, 0, resid, resid, metric)
        changes: dict[tuple[HookSite, int], Change] = {
            (site, layer): _zero(list(indices)) for (layer, site), indices in chosen.entries(model).items()
        }
        clean, ablated = setup.measure(engine.run(resid)), setup.measure(engine.run(resid, changes=changes))
    return Ablation(selection=chosen, metric=metric, clean=float(clean), ablated=float(ablated), prompt=prompt)


def _zero(indices: list[int]) -> Change:
    def zero(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., indices] = 0
        return value

    return zero


def attention_patterns(model: LoadedModel, fact: Fact, *, form: Form | None = None) -> tuple[Tensor, TracedPrompt]:
    """Read the attention weights of every query head on the traced text, in one forward pass.

    Args:
        model: A base or edited model; it is not changed.
        fact: The fact.
        form: As in ``causal_trace``.

    Returns:
        Weights [layer, head, query, key] on the CPU, each row summing to 1; and the traced text.

    Raises:
        ValueError: As ``causal_trace``: the base model does not say the fact's answer.

    Example:
        >>> weights, prompt = wb.attention_patterns(model, fact, form="cloze")
        >>> tuple(weights.shape), len(prompt.tokens)
        ((3, 6, 5, 5), 5)
    """
    return _patterns(model, fact, form, range(model.shape.n_layers))


def _patterns(model: LoadedModel, fact: Fact, form: Form | None, layers: Sequence[int]) -> tuple[Tensor, TracedPrompt]:
    """``attention_patterns`` of some layers."""
    prompt = traced_prompt(model, fact, form=form)
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in layers]
    with torch.no_grad():
        ids = torch.tensor([prompt.token_ids], device=model.device)
        _, cache = model.bridge.run_with_cache(ids, names_filter=set(names).__contains__)
    return torch.stack([cache[name][0].float().cpu() for name in names]), prompt


def attention_pattern(
    model: LoadedModel, fact: Fact, head: Component | str, *, form: Form | None = None
) -> pd.DataFrame:
    """Read the attention weights of one query head on the traced text.

    Args:
        model: A base or edited model; it is not changed.
        fact: The fact.
        head: A query head, such as ``"L23H4"``.
        form: As in ``causal_trace``.

    Returns:
        Weights [query, key], both labelled ``"position token"``; each row sums to 1.

    Raises:
        ValueError: The component is not a query head. A key-value group is shared by several (GQA); the message names
            them.

    Example:
        >>> pattern = wb.attention_pattern(model, fact, "L1H3", form="cloze")
        >>> pattern.shape, pattern.loc["3  France"].idxmax()  # where the head looks from " France"
        ((5, 5), '0 The')
    """
    import pandas as pd

    component = Component.parse(head)
    index = component.require_head(model.shape)
    weights, prompt = _patterns(model, fact, form, [component.layer])
    labels = [f"{i} {token}" for i, token in enumerate(prompt.tokens)]
    return pd.DataFrame(weights[0, index].numpy(), index=labels, columns=labels)
