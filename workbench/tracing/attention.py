"""Where heads attend: their weights on the traced text of a fact or a contrast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor

from workbench.language.contrasts import clean_run
from workbench.models.load import LoadedModel
from workbench.tracing.bridge_runs import FwdHook, bridge_of, checked_hooks, run_of
from workbench.tracing.corruption import one_form
from workbench.tracing.roles import by_role
from workbench.types import Component, Contrast, Fact, Form, TracedPrompt
from workbench.types.attention import AttentionMeans
from workbench.types.cell_intervals import mean_and_error
from workbench.types.contrast import Traced, as_traced
from workbench.types.roles import role_of, roles_of
from workbench.types.torch_settings import own_torch_settings

if TYPE_CHECKING:
    import pandas as pd


@overload
def attention_patterns(
    model: LoadedModel, fact: Fact | Contrast, *, form: Form | None = None, fwd_hooks: Sequence[FwdHook] = ()
) -> tuple[Tensor, TracedPrompt]: ...


@overload
def attention_patterns(
    model: LoadedModel,
    fact: Sequence[Fact] | Sequence[Contrast],
    *,
    form: Form | None = None,
    fwd_hooks: Sequence[FwdHook] = (),
) -> AttentionMeans: ...


@own_torch_settings()
def attention_patterns(
    model: LoadedModel, fact: Traced, *, form: Form | None = None, fwd_hooks: Sequence[FwdHook] = ()
) -> tuple[Tensor, TracedPrompt] | AttentionMeans:
    """Read the attention weights of every query head on the traced text, in one forward pass a text.

    Args:
        model: A base or edited model; it is not changed.
        fact: A fact, or a contrast, whose clean run is read; or several.
        form: Of facts, as in ``causal_trace``.
        fwd_hooks: Hooks of your own, part of the pass, as there.

    Returns:
        Weights [layer, head, query, key] on the CPU, each row summing to 1; and the traced text. For several their
        means between named positions (``AttentionMeans``).

    Raises:
        ValueError: As ``causal_trace``: the base model does not say the fact's answer, or a contrast does not fit the
            model.

    Example:
        >>> weights, prompt = wb.attention_patterns(model, fact, form="cloze")
        >>> tuple(weights.shape), len(prompt.tokens)
        ((3, 6, 5, 5), 5)
    """
    layers = range(model.shape.n_layers)
    if isinstance(fact, Fact | Contrast):
        return _patterns(model, *clean_run(model, fact, form, sequences=True), layers, fwd_hooks)
    return _means(model, fact, form, layers, fwd_hooks)


def _means(
    model: LoadedModel,
    traced: Sequence[Fact] | Sequence[Contrast],
    form: Form | None,
    layers: Sequence[int],
    fwd_hooks: Sequence[FwdHook],
) -> AttentionMeans:
    """Means of some layers over several texts, by role."""
    given = as_traced(traced, "attention_patterns")
    form = one_form(model, given, form, "answer")
    runs = [clean_run(model, one, form, sequences=True) for one in given]
    prompts = [prompt for prompt, _ in runs]
    roles = roles_of(prompts)
    found: list[Tensor] = []
    for prompt, states in runs:
        weights, _ = _patterns(model, prompt, states, layers, fwd_hooks)
        sizes = torch.tensor([float(sum(role_of(prompt, i) == r for i in range(len(prompt.tokens)))) for r in roles])
        to_roles = (by_role(weights, prompt, roles) * sizes).nan_to_num()  # sums over keys
        found.append(by_role(to_roles.transpose(-1, -2), prompt, roles).transpose(-1, -2))
    mean, error = mean_and_error(torch.stack(found))
    return AttentionMeans(weights=mean, stderr=error, roles=roles, layers=layers, prompts=tuple(prompts))


def _patterns(
    model: LoadedModel,
    prompt: TracedPrompt,
    states: Tensor | None,
    layers: Sequence[int],
    fwd_hooks: Sequence[FwdHook],
) -> tuple[Tensor, TracedPrompt]:
    """``attention_patterns`` of some layers on a run."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in layers]
    bridge = bridge_of(model)
    ids, hooks = run_of(prompt, states)
    with torch.no_grad(), bridge.hooks(fwd_hooks=[*hooks, *checked_hooks(bridge, fwd_hooks)]):
        _, cache = bridge.run_with_cache(ids.to(model.device), names_filter=set(names).__contains__)
    return torch.stack([cache[name][0].float().cpu() for name in names]), prompt


@own_torch_settings()
def attention_pattern(
    model: LoadedModel,
    fact: Traced,
    head: Component | str,
    *,
    form: Form | None = None,
    fwd_hooks: Sequence[FwdHook] = (),
) -> pd.DataFrame:
    """Read the attention weights of one query head on the traced text.

    Args:
        model: A base or edited model; it is not changed.
        fact: A fact, or a contrast, whose clean run is read; or several.
        head: A query head, such as ``"L23H4"``.
        form: Of facts, as in ``causal_trace``.
        fwd_hooks: Hooks of your own, part of the pass, as there.

    Returns:
        Weights [query, key], both labelled ``"position token"``; each row sums to 1. For several the means between
        named positions, and in ``attrs["stderr"]`` their standard errors (``AttentionMeans``).

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
    if not isinstance(fact, Fact | Contrast):
        means = _means(model, fact, form, [component.layer], fwd_hooks)
        frame = means.to_frame(str(component))
        if means.stderr is not None:
            frame.attrs["stderr"] = pd.DataFrame(means.stderr[0, index].numpy(), index=means.roles, columns=means.roles)
        return frame
    run = clean_run(model, fact, form, sequences=True)
    weights, prompt = _patterns(model, *run, [component.layer], fwd_hooks)
    labels = [f"{i} {token}" for i, token in enumerate(prompt.tokens)]
    return pd.DataFrame(weights[0, index].numpy(), index=labels, columns=labels)
