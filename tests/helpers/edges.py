"""Edges of tiny models by plain hooks on the plain model: the slow reference, which knows five families by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tests.helpers.families import model_of
from tests.helpers.tiny_facts import capitals
from tests.helpers.traces import hooked
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.types import Component
from workbench.types.edge_graph import EMBEDDING, LOGITS, Node

FACTS = capitals()
FRANCE, SPAIN = FACTS[0], FACTS[2]


@dataclass(frozen=True)
class Names:
    """Where a family's parts are: names within a layer, and the entries of each reader in its projection."""

    layers: str
    attn_norm: str
    mlp_norm: str
    projections: dict[str, str]
    out: str
    mlp: str
    attn_added: str
    mlp_added: str
    last_norm: str
    entries: Callable[[str, int, Any], slice]
    post_norm: str = ""
    parallel: bool = False


def _apart(kind: str, i: int, shape: Any) -> slice:
    return slice(i * shape.d_head, (i + 1) * shape.d_head)


def _fused(kind: str, i: int, shape: Any) -> slice:
    start = "QKV".index(kind) * shape.n_heads * shape.d_head + i * shape.d_head
    return slice(start, start + shape.d_head)


def _interleaved(kind: str, i: int, shape: Any) -> slice:
    start = (3 * i + "QKV".index(kind)) * shape.d_head
    return slice(start, start + shape.d_head)


_LLAMA: dict[str, Any] = {
    "layers": "model.layers",
    "attn_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "projections": {kind: f"self_attn.{kind.lower()}_proj" for kind in "QKV"},
    "out": "self_attn.o_proj",
    "mlp": "mlp",
    "attn_added": "self_attn",
    "mlp_added": "mlp",
    "last_norm": "model.norm",
    "entries": _apart,
}
NAMES: dict[str, Names] = {
    "llama": Names(**_LLAMA),
    "granite": Names(**_LLAMA),
    "gemma 2": replace(
        Names(**_LLAMA),
        mlp_norm="pre_feedforward_layernorm",
        post_norm="post_attention_layernorm",
        attn_added="post_attention_layernorm",
        mlp_added="post_feedforward_layernorm",
    ),
    "gpt2": Names(
        "transformer.h", "ln_1", "ln_2", dict.fromkeys("QKV", "attn.c_attn"), "attn.c_proj", "mlp", "attn", "mlp",
        "transformer.ln_f", _fused,
    ),
    "gpt-neox": Names(
        "gpt_neox.layers", "input_layernorm", "post_attention_layernorm",
        dict.fromkeys("QKV", "attention.query_key_value"), "attention.dense", "mlp", "attention", "mlp",
        "gpt_neox.final_layer_norm", _interleaved, parallel=True,
    ),
}  # fmt: skip
"""By the name of a tiny model of ``tests.helpers.families``."""


class Plain:
    """The clean and the swapped cloze of a fact, and edges between them, one pass each with plain hooks."""

    def __init__(self, name: str) -> None:
        self.model: LoadedModel = model_of(name, double=True)
        self.hf, self.names, self.shape = self.model.hf, NAMES[name], self.model.shape
        self.scale = float(getattr(self.hf.config, "residual_multiplier", None) or 1.0)
        prompt, spain = (traced_prompt(self.model, fact, form="cloze") for fact in (FRANCE, SPAIN))
        self.clean, self.corrupted = prompt.token_ids, spain.token_ids
        self.answer, self.other = prompt.answer_id, spain.answer_id

    def at(self, layer: int, module: str) -> str:
        return f"{self.names.layers}.{layer}.{module}"

    def run(self, ids: Any, hooks: dict[str, tuple[bool, Callable[[Tensor], Tensor]]]) -> float:
        """The answer's logit minus the other's, with plain hooks."""
        with torch.no_grad(), hooked(self.hf, hooks):
            logits = self.hf(torch.tensor([list(ids)])).logits[0, -1].double()
        return float(logits[self.answer] - logits[self.other])

    def state(self, module: str, on_input: bool, ids: Any) -> Tensor:
        """What a module is given, or gives, [tokens, width]."""
        kept: list[Tensor] = []

        def keep(value: Tensor) -> Tensor:
            kept.append(value.detach().clone())
            return value

        self.run(ids, {module: (on_input, keep)})
        return kept[0][0]

    def write(self, sender: Node, ids: Any) -> Tensor:
        """What a sender adds to the residual stream, [tokens, d_model], up to what is the same in both runs."""
        if sender == EMBEDDING:
            return self.state(self.at(0, "")[:-1], True, ids)
        assert isinstance(sender, Component)
        if sender.kind == "MLP":
            return self.scale * self.state(self.at(sender.layer, self.names.mlp_added), False, ids)
        module = self.hf.get_submodule(self.at(sender.layer, self.names.out))
        z = self.state(self.at(sender.layer, self.names.out), True, ids)
        alone, width = torch.zeros_like(z), self.shape.d_head
        span = slice((sender.index or 0) * width, ((sender.index or 0) + 1) * width)
        alone[:, span] = z[:, span]
        with torch.no_grad():
            part = module(alone) - module(torch.zeros_like(z))
            if self.names.post_norm:  # Gemma 2's norm at the scale of the whole
                norm = self.hf.get_submodule(self.at(sender.layer, self.names.post_norm))
                whole = module(z)
                part = part / (whole.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt() * (1 + norm.weight)
        return self.scale * part

    def difference(self, sender: Node) -> Tensor:
        """Corrupted minus clean write."""
        return self.write(sender, self.corrupted) - self.write(sender, self.clean)

    def edge(self, sender: Node, receiver: Node) -> float:
        """The metric's change in the clean run where the receiver alone reads the corrupted write."""
        return self.run(self.clean, self.reading(receiver, self.difference(sender))) - self.run(self.clean, {})

    def reading(self, receiver: Node, more: Tensor) -> dict[str, tuple[bool, Callable[[Tensor], Tensor]]]:
        """Hooks that let a receiver read something more."""
        if receiver == LOGITS:
            return {self.names.last_norm: (True, lambda x: x + more)}
        assert isinstance(receiver, Component)
        layer = receiver.layer
        part = self.names.mlp_norm if receiver.kind == "MLP" else self.names.attn_norm
        norm = self.hf.get_submodule(self.at(layer, part))
        x = self.state(self.at(layer, part), True, self.clean)
        with torch.no_grad():
            normed = norm(x + more)
        if receiver.kind == "MLP":
            return {self.at(layer, self.names.mlp): (True, lambda _: normed[None])}
        name = self.at(layer, self.names.projections[receiver.kind])
        with torch.no_grad():
            projected = self.hf.get_submodule(name)(normed)
        span = self.names.entries(receiver.kind, receiver.index or 0, self.shape)

        def put(value: Tensor) -> Tensor:
            value = value.clone()
            value[0, :, span] = projected[:, span]
            return value

        return {name: (False, put)}
