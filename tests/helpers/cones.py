"""Cones of restorations on tiny models, and the same cells by plain forward passes of the whole text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tests.helpers.tiny import N_VOCAB, loaded, random_edit, tiny_gpt2, tiny_llama, tiny_phi3, tiny_qwen2
from workbench.editing.applied import applied
from workbench.models.layerwise import Layerwise
from workbench.models.load import LoadedModel
from workbench.tracing.restoration import Restoration
from workbench.tracing.restore import effects

N_LAYERS = 4
HEADS = 6


def eager() -> Any:
    hf = tiny_llama(n_layers=N_LAYERS)
    hf.set_attn_implementation("eager")
    return hf


MAKERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tiny_llama(bias=True, n_layers=N_LAYERS),
    "as many groups as heads": lambda: tiny_llama(n_layers=N_LAYERS, num_key_value_heads=6),
    "one group": lambda: tiny_llama(n_layers=N_LAYERS, num_key_value_heads=1),
    "gpt2": lambda: tiny_gpt2(n_layers=N_LAYERS, n_head=HEADS, n_embd=48),
    "gpt2, scaled by layer": lambda: tiny_gpt2(
        n_layers=N_LAYERS, n_head=HEADS, n_embd=48, scale_attn_by_inverse_layer_idx=True
    ),
    "phi3": lambda: tiny_phi3(n_layers=N_LAYERS),
    "phi3, windowed": lambda: tiny_phi3(n_layers=N_LAYERS, sliding_window=3),
    "qwen2, windowed": lambda: tiny_qwen2(n_layers=N_LAYERS),
    "eager": eager,
}


@lru_cache
def made(family: str, edited: bool = False) -> LoadedModel:
    """In double precision, so that a difference is a mistake."""
    hf = MAKERS[family]()
    hf.double()
    model = loaded(hf, name=family)
    if edited:
        return applied(model, random_edit(model)).__enter__()
    return model


# The slow reference: the whole text through the plain model, one cell and one sample at a time


def slow(model: LoadedModel, clean: Tensor, corrupted: Tensor, start: int, cell: Restoration) -> Tensor:
    """Last-position logits [samples, d_vocab]; ``clean`` and ``corrupted`` are whole texts of token embeddings."""
    at = slice(start, None) if cell.position is None else slice(start + cell.position, start + cell.position + 1)
    sites = ("k", "v") if cell.site == "kv" else (cell.site,)
    restored = [(site, layer) for site in sites for layer in cell.layers]
    above = range(cell.layers.start, model.shape.n_layers)
    inside = {"mlp": ("mlp", "post"), "attn": ("attn", "z", "q", "k", "v", "kv"), None: ()}[cell.severed]
    severed = [(cell.severed, at) for at in above if cell.severed and not (cell.site in inside and at in cell.layers)]
    kept = [states(model, clean, restored), {}]

    def put(place: Any, value: Tensor) -> Tensor:
        value, source = value.clone(), kept[place not in restored][place]
        entries = part(model, place[0], cell.head) if place in restored else None
        if entries is None:
            value[:, at] = source[:, at]
        else:
            value[:, at, entries] = source[:, at][..., entries]
        return value

    out: list[Tensor] = []
    for row in corrupted:
        kept[1] = states(model, row[None], severed)
        changes = {place: (lambda value, at=place: put(at, value)) for place in [*restored, *severed]}
        out.append(run(model, row[None], changes))
    return torch.cat(out)


def part(model: LoadedModel, site: Any, index: int | None) -> Tensor | None:
    """The entries of a head, a group or a neuron in a site's states."""
    if index is None or site in ("resid", "attn", "mlp"):
        return None
    width = 1 if site == "post" else model.shape.d_head
    return model.architecture.gate_module(0, site).places(range(index * width, (index + 1) * width))


def states(model: LoadedModel, embeddings: Tensor, places: list[Any]) -> dict[Any, Tensor]:
    """States of some places in a plain run."""
    kept: dict[Any, Tensor] = {}

    def keep(place: Any, value: Tensor) -> Tensor:
        kept[place] = value.clone()
        return value

    run(model, embeddings, {place: (lambda value, at=place: keep(at, value)) for place in places})
    return kept


def run(model: LoadedModel, embeddings: Tensor, changes: dict[Any, Callable[[Tensor], Tensor]]) -> Tensor:
    """Logits of the last position with states changed by (site, layer)."""
    names, handles = model.architecture.family, list[Any]()
    layers: Any = model.hf.get_submodule(names.layers)
    for (site, layer), change in changes.items():
        if site == "resid":
            module, on_input = layers[layer], True
        elif site in ("attn", "mlp"):
            module = layers[layer].get_submodule(names.attention if site == "attn" else names.mlp)
            on_input = False
        else:
            module = model.hf.get_submodule(model.architecture.gate_module(layer, site).module)
            on_input = site in ("z", "post")
        if on_input:
            handles.append(module.register_forward_pre_hook(lambda m, args, c=change: (c(args[0]), *args[1:])))
        else:
            hook: Any = lambda m, args, out, c=change: (c(out[0]), *out[1:]) if isinstance(out, tuple) else c(out)  # noqa: E731
            handles.append(module.register_forward_hook(hook))
    try:
        return model.hf(inputs_embeds=embeddings).logits[:, -1]
    finally:
        for handle in handles:
            handle.remove()


def texts(model: LoadedModel, tokens: int, start: int, samples: int) -> tuple[Tensor, Tensor]:
    """Token embeddings of a clean text [1, tokens, d_model], and of corrupted ones that differ from ``start`` on."""
    generator = torch.Generator().manual_seed(tokens * 100 + start)
    ids = torch.randint(5, N_VOCAB, (1, tokens), generator=generator)
    clean = model.base.hf.get_input_embeddings()(ids).detach()
    corrupted = clean.repeat(samples, 1, 1)
    corrupted[:, start : start + 2] += torch.randn(corrupted[:, start : start + 2].shape, generator=generator)
    return clean, corrupted


def mixed(logits: Tensor) -> Tensor:
    """One number a row that depends on every logit."""
    return logits.double() @ torch.randn(N_VOCAB, generator=torch.Generator().manual_seed(1)).double()


def found(
    model: LoadedModel, clean: Tensor, corrupted: Tensor, start: int, cells: list[Restoration], rows: Any
) -> Tensor:
    """The mixed logits [cells, samples] by ``effects``."""
    engine = Layerwise(model)
    # What enters layer 0 is the embeddings and, in GPT-2, the learned positions.
    table = model.hf.get_submodule("transformer.wpe").weight[: clean.shape[1]] if "gpt2" in model.name else 0.0
    inside, outside = (clean + table)[:, start:], (corrupted + table)[:, start:]
    with torch.no_grad():
        prefix = None
        if start:
            prefix = [(k[:, :, :start], v[:, :, :start]) for k, v in engine.record_inputs(clean + table).keys_values]
        sites: Any = tuple(dict.fromkeys(site for c in cells for site in c.sites))
        recording = engine.record(inside, sites, prefix=prefix)
        out = torch.full((len(cells), len(corrupted)), torch.nan, dtype=torch.float64)
        for part in effects(engine, recording, outside, prefix, cells, mixed, max_rows=rows):
            out[part.cells, part.samples] = part.effects + part.baseline
    return out


def check_cells(model: LoadedModel, problem: Any) -> None:
    """Every cell's measure is that of plain forward passes."""
    tokens, start, samples, cells, rows = problem
    groups = {site: model.shape.n_kv_heads for site in ("k", "v", "kv")}
    cells = [c if c.head is None else replace(c, head=c.head % groups.get(c.site, c.head + 1)) for c in cells]
    clean, corrupted = texts(model, tokens, start, samples)
    measured = found(model, clean, corrupted, start, cells, rows)
    for i, cell in enumerate(cells):
        with torch.no_grad():
            expected = mixed(slow(model, clean, corrupted, start, cell))
        # transformers' eager attention takes its softmax in single precision
        near = 1e-4 if model.hf.config._attn_implementation == "eager" else 1e-9
        torch.testing.assert_close(measured[i], expected, atol=near, rtol=near)
