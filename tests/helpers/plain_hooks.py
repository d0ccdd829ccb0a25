"""Effects of states of a tiny model that knows capitals, measured with plain hooks on the plain model."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tests.helpers.tiny_facts import MAKERS, capitals, knowing
from tests.helpers.traces import hooked
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel

FACTS = capitals()
FRANCE, ITALY, SPAIN = FACTS[0], FACTS[1], FACTS[2]
SITES = {  # inputs of the attention output and MLP output projections, outputs of the MLP and the attention
    "llama": {"z": "self_attn.o_proj", "post": "mlp.down_proj", "mlp": "mlp", "attn": "self_attn"},
    "gpt2": {"z": "attn.c_proj", "post": "mlp.c_proj", "mlp": "mlp", "attn": "attn"},
}
SITES["phi3"] = SITES["llama"]


@lru_cache
def tiny(family: str = "llama") -> LoadedModel:
    """In double precision, so that finite differences are exact enough."""
    model = knowing(MAKERS[family](), FACTS)
    model.hf.double()
    return model


@lru_cache
def single(family: str = "llama") -> LoadedModel:
    return knowing(MAKERS[family](), FACTS)


class Plain:
    """The clean and the swapped text on the plain model, with states replaced by plain hooks."""

    def __init__(self, model: LoadedModel, family: str) -> None:
        self.hf, self.family, self.shape = model.hf, family, model.shape
        self.layers = model.architecture.family.layers
        prompt = traced_prompt(model, FRANCE, form="cloze")
        spain = traced_prompt(model, SPAIN, form="cloze")
        self.clean, self.corrupted = prompt.token_ids, spain.token_ids
        self.answer, self.other = prompt.answer_id, spain.answer_id

    def run(self, ids: Any, changes: dict[tuple[str, int], Callable[[Tensor], Tensor]]) -> float:
        """Answer minus the partner's answer, with states changed by (site, layer)."""
        with torch.no_grad():
            return float(self.difference(ids, changes))

    def difference(self, ids: Any, changes: dict[tuple[str, int], Callable[[Tensor], Tensor]]) -> Tensor:
        names = {f"{self.layers}.{layer}.{SITES[self.family][site]}": (site, c) for (site, layer), c in changes.items()}
        with hooked(self.hf, {name: (site not in ("mlp", "attn"), change) for name, (site, change) in names.items()}):
            logits = self.hf(torch.tensor([ids])).logits[0, -1].double()
        return logits[self.answer] - logits[self.other]

    def state(self, site: str, layer: int, ids: Any) -> Tensor:
        kept: list[Tensor] = []

        def keep(value: Tensor) -> Tensor:
            kept.append(value.detach().clone())
            return value

        self.run(ids, {(site, layer): keep})
        return kept[0]

    def moved(self, site: str, layer: int, entries: slice, by: Any) -> Any:
        """The corrupted run with some entries moved towards their clean values, at all positions."""
        clean, corrupted = self.state(site, layer, self.clean), self.state(site, layer, self.corrupted)

        def change(value: Tensor) -> Tensor:
            value = value.clone()
            value[..., entries] += by * (clean - corrupted)[..., entries]
            return value

        return self.difference(self.corrupted, {(site, layer): change})

    def slope(self, site: str, layer: int, entries: slice) -> float:
        """The derivative of ``moved`` at 0: a finite difference, or autograd on the one number ``by`` for the families
        whose norms round to single precision."""
        if self.family == "gpt2":
            up, down = (self.moved(site, layer, entries, by) for by in (1e-5, -1e-5))
            return float(up - down) / 2e-5
        by = torch.zeros((), dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.moved(site, layer, entries, by), by)
        return float(gradient)


def head(index: int, width: int) -> slice:
    return slice(index * width, (index + 1) * width)
