"""Causal traces of tiny models that know capitals, and the same traces by a slow loop over plain hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tests.helpers.tiny import tiny_gpt2, tiny_llama, tiny_phi3
from tests.helpers.tiny_facts import capitals, knowing
from workbench.models.load import LoadedModel
from workbench.tracing.causal import causal_trace
from workbench.types import EffectMap, TracedPrompt

FACTS = capitals()
FRANCE, ITALY, SPAIN = FACTS[0], FACTS[1], FACTS[2]
MAKERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tiny_llama(tied=False, bias=True, n_layers=4),
    "gpt2": lambda: tiny_gpt2(tie_word_embeddings=False, n_layers=4),
    "phi3": lambda: tiny_phi3(n_layers=4),
}


@lru_cache
def tiny(family: str = "llama") -> LoadedModel:
    return knowing(MAKERS[family](), FACTS)


def trace(model: LoadedModel, fact: Any = FRANCE, site: Any = "resid", **options: Any) -> EffectMap:
    given: dict[str, Any] = {"pool": FACTS, "progress": False, **options}
    return causal_trace(model, fact, site, **given)


# The slow reference: plain hooks on the plain model, one cell and one sample at a time, from the first token on


@contextmanager
def hooked(hf: Any, changes: dict[str, tuple[bool, Callable[[Tensor], Tensor]]]) -> Iterator[None]:
    """Change module inputs (True) or outputs (False) for the length of a block."""
    handles = []
    for name, (on_input, change) in changes.items():
        module = hf.get_submodule(name)
        if on_input:
            handles.append(module.register_forward_pre_hook(lambda m, args, c=change: (c(args[0]), *args[1:])))
        else:
            handles.append(
                module.register_forward_hook(
                    lambda m, args, out, c=change: (c(out[0]), *out[1:]) if isinstance(out, tuple) else c(out)
                )
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def place(model: LoadedModel, site: str, layer: int) -> tuple[str, bool]:
    """The module of a site, and whether it is its input."""
    family = model.architecture.family
    path = f"{family.layers}.{layer}"
    return {
        "resid": (path, True),
        "attn": (f"{path}.{family.attention}", False),
        "mlp": (f"{path}.{family.mlp}", False),
    }[site]


def measure(logits: Tensor, prompt: TracedPrompt, metric: str) -> float:
    last = logits[0, -1].float()
    if metric == "probability":
        return float(last.softmax(-1)[prompt.answer_id])
    return float(last[prompt.answer_id] - last[prompt.other_id])


class SlowTrace:
    """A causal trace as the paper describes it."""

    def __init__(self, model: LoadedModel, prompt: TracedPrompt, corrupted: list[Tensor], metric: str) -> None:
        """``corrupted``: token embeddings [1, tokens, d_model] of every corrupted run."""
        self.model, self.prompt, self.corrupted, self.metric = model, prompt, corrupted, metric
        self.ids = torch.tensor([prompt.token_ids])
        self.clean: dict[tuple[str, int], Tensor] = {}
        changes = {}
        for site in ("resid", "attn", "mlp"):
            for layer in range(model.shape.n_layers):
                name, on_input = place(model, site, layer)
                if site == "resid":
                    changes[name] = (on_input, self._keep((site, layer)))
        with torch.no_grad(), hooked(model.hf, changes):
            self.clean_value = measure(model.hf(self.ids).logits, prompt, metric)
        outputs = {
            place(model, site, layer)[0]: (False, self._keep((site, layer)))
            for site in ("attn", "mlp")
            for layer in range(model.shape.n_layers)
        }
        with torch.no_grad(), hooked(model.hf, outputs):
            model.hf(self.ids)
        self.baselines = [self._run(c, {}) for c in corrupted]

    def _keep(self, key: tuple[str, int]) -> Callable[[Tensor], Tensor]:
        def keep(value: Tensor) -> Tensor:
            self.clean[key] = value.clone()
            return value

        return keep

    def _run(self, embeddings: Tensor, changes: dict[str, tuple[bool, Callable[[Tensor], Tensor]]]) -> float:
        with torch.no_grad(), hooked(self.model.hf, changes):
            return measure(self.model.hf(inputs_embeds=embeddings).logits, self.prompt, self.metric)

    def cell(self, site: str, layer: int, position: int, window: int = 1) -> float:
        """Mean indirect effect of one cell; a window of an even width reaches one layer further down."""
        n = self.model.shape.n_layers
        below = window // 2
        layers = [at for at in range(layer - below, layer - below + window) if 0 <= at < n]

        def restore(at: int) -> Callable[[Tensor], Tensor]:
            def change(value: Tensor) -> Tensor:
                value = value.clone()
                value[0, position] = self.clean[site, at][0, position]
                return value

            return change

        changes = {}
        for at in layers:
            name, on_input = place(self.model, site, at)
            changes[name] = (on_input, restore(at))
        effects = [self._run(c, changes) - b for c, b in zip(self.corrupted, self.baselines, strict=True)]
        return sum(effects) / len(effects)

    def all_cells(self, site: str, window: int = 1) -> Tensor:
        return torch.tensor(
            [
                [self.cell(site, layer, position, window) for position in range(len(self.prompt.token_ids))]
                for layer in range(self.model.shape.n_layers)
            ]
        )


def noisy(model: LoadedModel, prompt: TracedPrompt, where: Any, samples: int, noise: float, seed: int) -> list[Tensor]:
    """Token embeddings with noise on some positions, of ``noise`` times the standard deviation of the subject's states
    that enter layer 0."""
    table = model.hf.get_input_embeddings().weight
    sigma = noise * entering(model, prompt.token_ids)[list(prompt.subject)].std().item()
    draw = torch.randn(samples, len(where), table.shape[1], generator=torch.Generator().manual_seed(seed)) * sigma
    clean = table[torch.tensor([prompt.token_ids])].detach()
    out = []
    for sample in draw:
        one = clean.clone()
        one[0, list(where)] += sample
        out.append(one)
    return out


def embedded(model: LoadedModel, ids: Any) -> Tensor:
    return model.hf.get_input_embeddings().weight[torch.tensor([list(ids)])].detach()


def entering(model: LoadedModel, ids: Any) -> Tensor:
    """What enters layer 0 of the plain model, [tokens, d_model]."""
    caught: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        caught.append(value)
        return value

    with torch.no_grad(), hooked(model.hf, {f"{model.architecture.family.layers}.0": (True, keep)}):
        model.hf(torch.tensor([list(ids)]))
    return caught[0][0]
