"""What a component writes, read off by the output embeddings: direct logit attribution to all tokens.

The output is taken as it is added to the residual stream at the traced position, divided by the scale that the final
norm has there, and put through the norm's gain and the output embeddings. So the values are exactly what the component
adds to the logits itself; what later layers make of its output is not in them. The sum over all components, with the
embeddings and the norm's bias, is the model's logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.language.prompts import traced_prompt
from workbench.language.tokens import token_text
from workbench.models.load import LoadedModel
from workbench.tracing.dla import output_weight, through_norm
from workbench.tracing.next_tokens import check_k
from workbench.types import Component, Fact, Form, TokenLogit, TracedPrompt, Writes
from workbench.types.torch_settings import own_torch_settings

_HOOKS = {"H": "attn.hook_z", "N": "mlp.hook_post", "MLP": "hook_mlp_out", "ATTN": "hook_attn_out"}


@own_torch_settings()
def writes(
    model: LoadedModel, component: Component | str, *, fact: Fact | None = None, form: Form | None = None, k: int = 10
) -> Writes:
    """Find the tokens whose logits a component's output raises and lowers most, by itself.

    Args:
        model: A base or edited model; it is not changed.
        component: A query head, a neuron, an MLP or an attention layer.
        fact: With it, the output is that at the last position of its traced text, and values are logits. Without, a
            neuron's output weight is read for an activation of 1, without the final norm's scale: only ranks and
            proportions of these values mean something, and a negative activation turns them round.
        form: As in ``causal_trace``; only with a fact.
        k: How many tokens of each side.

    Returns:
        The tokens with what is added to their logits, minus the mean over all tokens, which changes no probability.

    Raises:
        ValueError: No fact for a component other than a neuron (what it writes depends on the text), a key-value group
            or another component without an output of its own, or as ``causal_trace``.

    Example:
        >>> writes = wb.writes(model, "L0H4", fact=fact, k=3)
        >>> writes.component, writes.raised[0].token, round(writes.raised[0].value, 1)
        (L0H4, 'Paris', 1.1)
    """
    chosen = Component.parse(component)
    if chosen.kind in ("K", "V", "KV"):
        chosen.require_head(model.shape)
    chosen.check(model.shape)
    if chosen.kind not in _HOOKS:
        raise ValueError(f"{chosen} has no output of its own: choose a head (L23H4), a neuron, an MLP or L9ATTN.")
    check_k(model, k)
    if fact is None:
        if chosen.kind != "N":
            raise ValueError(
                f"What {chosen} writes depends on the text: give a fact=. Only a neuron (L13N207) writes one direction."
            )
        if form is not None:
            raise ValueError("form= is the form of a fact's text; give fact= too, or leave it out.")
        vector = output_weight(model.bridge, chosen.layer, model.shape.d_mlp)[chosen.index or 0]
        return _read(model, chosen, vector, vector.new_ones(()), k)
    prompt = traced_prompt(model, fact, form=form)
    vector, scale, activation = _output(model, chosen, prompt)
    return _read(model, chosen, vector, scale, k, prompt, activation)


def _output(model: LoadedModel, component: Component, prompt: TracedPrompt) -> tuple[Tensor, Tensor, float | None]:
    """What a component adds to the residual stream at the last position [d_model], the final norm's scale there, and a
    neuron's activation."""
    bridge, hook = model.bridge, f"blocks.{component.layer}.{_HOOKS[component.kind]}"
    with torch.no_grad():
        ids = torch.tensor([prompt.token_ids], device=model.device)
        _, cache = bridge.run_with_cache(ids, names_filter={hook, "ln_final.hook_scale"}.__contains__)
        state, scale = cache[hook][0, -1].float(), cache["ln_final.hook_scale"][0, -1].float()
        index = component.index or 0
        if component.kind == "H":
            weights = bridge.blocks[component.layer].attn.W_O.detach().float()
            return state.reshape(model.shape.n_heads, -1)[index] @ weights[index], scale, None
        if component.kind == "N":
            weights = output_weight(bridge, component.layer, model.shape.d_mlp)
            return state[index] * weights[index], scale, float(state[index])
        return state, scale, None


def _read(
    model: LoadedModel,
    component: Component,
    vector: Tensor,
    scale: Tensor,
    k: int,
    prompt: TracedPrompt | None = None,
    activation: float | None = None,
) -> Writes:
    """The tokens that a vector in the residual stream raises and lowers most."""
    with torch.no_grad():
        logits = through_norm(model.bridge, vector) / scale @ model.bridge.W_U.detach().float()
        logits = logits - logits.mean()
    size = min(k, logits.shape[-1])
    up, down = logits.topk(size), logits.topk(size, largest=False)

    def tokens(ids: Tensor, values: Tensor) -> tuple[TokenLogit, ...]:
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        return tuple(TokenLogit(token_text(model, token), token, value) for token, value in pairs)

    return Writes(
        component=component,
        raised=tokens(up.indices, up.values),
        lowered=tokens(down.indices, down.values),
        prompt=prompt,
        activation=activation,
    )
