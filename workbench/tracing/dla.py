"""Direct logit attribution: what each component writes into the residual stream, onto the answer direction.

Uses TransformerLens' bridge for activations, output weights and the final norm. TransformerLens' own tool needs
compatibility mode, a second copy of the weights; here the final norm's gain is folded into the answer direction.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from workbench.models.load import LoadedModel
from workbench.types import TracedPrompt


def _directions(bridge: Any, prompt: TracedPrompt, scale: Tensor) -> Tensor:
    """The residual direction of the answer (minus the other token, if any) through the final norm, [d_model]."""
    unembed = bridge.W_U.detach().float()
    direction = unembed[:, prompt.answer_id]
    if prompt.other_id is not None:
        direction = direction - unembed[:, prompt.other_id]
    direction = direction * _gain(bridge)
    if _centres(bridge):
        direction = direction - direction.mean()
    return direction / scale


def _gain(bridge: Any) -> Tensor:
    """What the final norm multiplies each entry by, [d_model]."""
    gain = bridge.ln_final.weight.detach().float()
    return gain + 1 if getattr(bridge.cfg, "rmsnorm_uses_offset", False) else gain


def _centres(bridge: Any) -> bool:
    """Whether the final norm is a LayerNorm, which also subtracts the mean."""
    return not getattr(bridge.cfg, "uses_rms_norm", False)


def through_norm(bridge: Any, vector: Tensor) -> Tensor:
    """A part of the last residual stream [d_model] through the final norm, but for its scale and bias."""
    return (vector - vector.mean() if _centres(bridge) else vector) * _gain(bridge)


def head_outputs(model: LoadedModel, prompt: TracedPrompt, layer: int) -> tuple[Tensor, Tensor]:
    """What each head of a layer writes at each position, and the layer's whole attention output.

    The sum over heads (plus the output projection's bias, if any) equals the attention output; of an edited model, with
    its edited weights.

    Returns:
        ([position, head, d_model], [position, d_model])
    """
    bridge = model.bridge
    names = (f"blocks.{layer}.attn.hook_z", f"blocks.{layer}.hook_attn_out")
    with torch.no_grad():
        ids = torch.tensor([prompt.token_ids], device=model.device)
        _, cache = bridge.run_with_cache(ids, names_filter=lambda name: name in names)
        z = cache[names[0]][0]
        z = z.reshape(z.shape[0], model.shape.n_heads, -1)
        weights = bridge.blocks[layer].attn.W_O.detach()  # [head, d_head, d_model]
        return torch.einsum("phd,hdm->phm", z, weights), cache[names[1]][0]


def direct_effects(
    model: LoadedModel, prompt: TracedPrompt, unit: Literal["head", "mlp", "neuron", "attn"]
) -> tuple[Tensor, float]:
    """Direct effects at the last position [layer, ...] in logits, and the whole logit difference."""
    bridge, shape = model.bridge, model.shape
    hook = {"head": "attn.hook_z", "mlp": "hook_mlp_out", "neuron": "mlp.hook_post", "attn": "hook_attn_out"}[unit]
    names = {f"blocks.{layer}.{hook}" for layer in range(shape.n_layers)} | {"ln_final.hook_scale"}
    with torch.no_grad():
        ids = torch.tensor([prompt.token_ids], device=model.device)
        logits, cache = bridge.run_with_cache(ids, names_filter=lambda name: name in names)
        direction = _directions(bridge, prompt, cache["ln_final.hook_scale"][0, -1].float())
        rows = []
        for layer in range(shape.n_layers):
            state = cache[f"blocks.{layer}.{hook}"][0, -1].float()
            if unit in ("mlp", "attn"):
                rows.append(state @ direction)
            elif unit == "head":
                weights = bridge.blocks[layer].attn.W_O.detach().float()
                rows.append(torch.einsum("hd,hdm,m->h", state.reshape(shape.n_heads, -1), weights, direction))
            else:
                weights = output_weight(bridge, layer, shape.d_mlp)
                rows.append(state * (weights @ direction))
        last = logits[0, -1].float()
        total = last[prompt.answer_id] - (last[prompt.other_id] if prompt.other_id is not None else 0.0)
    return torch.stack(rows).cpu(), float(total)


def output_weight(bridge: Any, layer: int, d_mlp: int) -> Tensor:
    """The MLP output projection as [d_mlp, d_model]."""
    weight = bridge.blocks[layer].mlp.W_out.detach().float()
    return weight if weight.shape[0] == d_mlp else weight.T
