"""What the suite of families compares with: the plain model, run from its first layer on with plain hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tests.helpers.traces import hooked
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.types import Fact, Site, TracedPrompt

Change = Callable[[Tensor], Tensor]
Place = tuple[str, int]
"""A site (``"resid"``, ``"attn"``, ``"mlp"`` or a gate site) and a layer."""


class Plain:
    """One fact's text on the plain HF model, one pass at a time, one text a pass.

    Args:
        model: The model.
        fact: The fact; its cloze is the text.
        prompt: The traced text and tokens; by default the fact's own.
    """

    def __init__(self, model: LoadedModel, fact: Fact, prompt: TracedPrompt | None = None) -> None:
        self.model, self.hf = model, model.hf
        self.prompt = prompt or traced_prompt(model, fact, form="cloze")
        self.ids = torch.tensor([self.prompt.token_ids])

    def module(self, site: str, layer: int) -> tuple[str, bool]:
        """The module of a site, and whether it is its input."""
        family = self.model.architecture.family
        path = f"{family.layers}.{layer}"
        wholes = {"resid": (path, True), "attn": (f"{path}.{family.attention}", False)}
        wholes["mlp"] = (f"{path}.{family.mlp}", False)
        if site in wholes:
            return wholes[site]
        gate: Any = site
        place = self.model.architecture.gate_module(layer, gate)
        return place.module, place.on_input

    def logits(
        self, changes: Mapping[Place, Change] | None = None, *, ids: Tensor | None = None, start: Tensor | None = None
    ) -> Tensor:
        """Logits of the last position, [d_vocab].

        Args:
            changes: From states [tokens, width] to others, by place.
            ids: The text [1, tokens]; by default the fact's.
            start: The residual stream that enters layer 0 instead, [tokens, d_model].
        """
        every: dict[Place, list[Change]] = {}
        if start is not None:
            every["resid", 0] = [lambda _: start]
        for place, change in (changes or {}).items():
            every.setdefault(place, []).append(change)
        hooks: dict[str, tuple[bool, Change]] = {}
        for (site, layer), functions in every.items():
            name, on_input = self.module(site, layer)
            assert name not in hooks, f"two places on {name}"
            hooks[name] = on_input, _on_rows(functions)
        with hooked(self.hf, hooks):
            return self.hf(self.ids if ids is None else ids).logits[0, -1]

    def states(self, *places: Place, ids: Tensor | None = None, start: Tensor | None = None) -> dict[Place, Tensor]:
        """States [tokens, width] by place, in one pass for each."""
        out: dict[Place, Tensor] = {}
        for place in places:

            def keep(value: Tensor, at: Place = place) -> Tensor:
                out[at] = value.detach().clone()
                return value

            with torch.no_grad():
                self.logits({place: keep}, ids=ids, start=start)
        return out

    def difference(self, logits: Tensor) -> Tensor:
        """The answer's logit minus the other's."""
        return logits[self.prompt.answer_id] - logits[self.prompt.other_id]


def _on_rows(functions: list[Change]) -> Change:
    """Functions of [tokens, width], one after the other, for whatever shape a module has them in."""

    def change(value: Tensor) -> Tensor:
        rows = value.reshape(-1, value.shape[-1])
        for function in functions:
            rows = function(rows)
        return rows.reshape(value.shape)

    return change


def sites_of(model: LoadedModel) -> tuple[Site, ...]:
    """The gate sites that a model has."""
    return tuple(site for sites in model.architecture.family.modules.values() for site in sites)
