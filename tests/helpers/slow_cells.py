"""A trace's cells by plain hooks on the plain model, one cell and one sample at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.helpers.family_plain import Change, Place, Plain
from workbench.models.load import LoadedModel
from workbench.tracing.cell_effects import TraceSite, window_of
from workbench.tracing.setup import Setup
from workbench.types import Fact

INSIDE: dict[Any, tuple[str, ...]] = {"mlp": ("mlp",), "attn": ("attn", "z", "q", "k", "v")}


def slow_trace(
    model: LoadedModel, fact: Fact, setup: Setup, site: TraceSite, window: int = 1, severed: str | None = None
) -> Tensor:
    """A map [layer, position], or [layer, head, position]: the logit difference with a cell restored, minus that of
    the corrupted run.

    Args:
        model, fact: What is traced.
        setup: The corrupted embeddings above all.
        site, window, severed: As in ``causal_trace``.
    """
    plain, shape = Plain(model, fact, setup.prompt), model.shape
    n = shape.n_layers
    parts = {"z": shape.n_heads, "q": shape.n_heads, "k": shape.n_kv_heads, "v": shape.n_kv_heads}.get(site)
    whole = [torch.cat([setup.clean[0, : setup.start], corrupted]) for corrupted in setup.corrupted]
    clean = plain.states(*((site, layer) for layer in range(n)))
    frozen = [plain.states(*((severed, at) for at in range(n)), start=start) if severed else {} for start in whole]
    out = torch.zeros(n, 1 if parts is None else parts, len(setup.prompt.token_ids))
    with torch.no_grad():
        baselines = [plain.difference(plain.logits(start=start)) for start in whole]
        for layer in range(n):
            restored = [(site, at) for at in window_of(layer, window, n)]
            stays = [at for at in range(restored[0][1], n) if severed and not _inside(severed, restored, at)]
            for part in range(out.shape[1]):
                entries = None if parts is None else _entries(model, site, part)
                for position in range(setup.start, out.shape[2]):
                    effects: list[Tensor] = []
                    for start, baseline, corrupted in zip(whole, baselines, frozen, strict=True):
                        changes: dict[Place, Change] = {
                            place: putting(clean[place], position, entries) for place in restored
                        }
                        for at in stays:
                            changes[str(severed), at] = putting(corrupted[str(severed), at], position)
                        effects.append(plain.difference(plain.logits(changes, start=start)) - baseline)
                    out[layer, part, position] = torch.stack(effects).mean()
    return out[:, 0] if parts is None else out


def _inside(severed: str, restored: list[Place], layer: int) -> bool:
    """Whether what is restored in a layer lies in the module that would be severed there."""
    return any(at == layer and site in INSIDE[severed] for site, at in restored)


def _entries(model: LoadedModel, site: Any, part: int) -> Tensor:
    width = model.shape.d_head
    return model.architecture.gate_module(0, site).places(range(part * width, (part + 1) * width))


def putting(clean: Tensor, position: int, entries: Tensor | None = None) -> Change:
    """Put a state [tokens, width], or some entries of it, at one position."""

    def put(value: Tensor) -> Tensor:
        value = value.clone()
        if entries is None:
            value[position] = clean[position]
        else:
            value[position, entries] = clean[position, entries]
        return value

    return put
