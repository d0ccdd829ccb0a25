"""Forward passes in which single readers are given another input than the residual stream.

A reader's input is the residual stream plus a difference. Only its own queries, keys, values or MLP are computed of it;
everything else reads what it reads, and everything after follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.circuits.wiring import READ_SITES, Part, Place, Wired
from workbench.models.engine import Change, HookSite, KeysValues
from workbench.types import Site


@dataclass(frozen=True)
class Given:
    """What some readers of a part of a layer are given beside the residual stream.

    Attributes:
        readers: Their places among the part's readers (queries, keys, values; 0 for an MLP or the logits).
        rows: For each of them, which rows of the pass, as an index.
        differences: For each of them, what is added, [its rows, tokens, d_model].
    """

    readers: Sequence[int]
    rows: Sequence[Any]
    differences: Sequence[Tensor]


Provider = Callable[[Part | None, int], Given | None]
"""From a part and its layer (None for the logits) to what its readers are given; None where all read what there is. It
is asked when the part is about to read."""


@contextmanager
def rewired(wired: Wired, shape: torch.Size, places: Sequence[Place], provide: Provider, final: bool) -> Iterator[None]:
    """Give readers other inputs in every pass within the block.

    Args:
        wired: The model.
        shape: Rows and tokens of the passes, [rows, tokens, ...].
        places: Which parts of which layers are asked about.
        provide: What they are given.
        final: Whether the logits are asked about.
    """
    normed: dict[Place, tuple[Given, list[Tensor]] | None] = {}

    def see(place: Place, x: Tensor) -> None:
        if place not in wanted:
            return
        given = provide(*place)
        normed[place] = None if given is None else (given, _normed(wired, place, x, given))

    def last(state: Tensor) -> Tensor:
        given = provide(None, wired.n_layers)
        if given is None:
            return state
        state = state.clone()
        for rows, difference in zip(given.rows, given.differences, strict=True):
            state[rows] = state[rows] + difference.to(state)
        return state

    wanted = set(places)
    with ExitStack() as stack:
        stack.enter_context(wired.on_inputs(see, shape))
        for place in wanted:
            for name, module in wired.consumers(*place).items():
                if place[0] == "attn":
                    hook = _projecting(wired, place[1], name, normed)
                    stack.callback(module.register_forward_hook(hook).remove)
                else:
                    stack.callback(module.register_forward_pre_hook(_entering(place, shape, normed)).remove)
        if final:
            stack.enter_context(wired.on_final(last))
        yield


def _normed(wired: Wired, place: Place, x: Tensor, given: Given) -> list[Tensor]:
    """What each reader's projection is given: the norm of its own input."""
    norm: Any = wired.norm_before(*place)
    found: list[Tensor] = []
    for rows, difference in zip(given.rows, given.differences, strict=True):
        state = x[rows] + difference.to(x)
        found.append(state if norm is None else norm.forward(state))  # past the hooks that watch it
    return found


def _projecting(
    wired: Wired, layer: int, name: str, normed: Mapping[Place, tuple[Given, list[Tensor]] | None]
) -> Callable[..., Any]:
    """A hook that puts the readers' own queries, keys or values into a projection's output."""
    maps = {site: of for site, of in wired.projections(layer).items() if wired.site_module(layer, site) == name}
    first = _first_readers(wired)

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        found = normed.get(("attn", layer))
        if found is None:
            return output
        output, (given, states) = output.clone(), found
        for reader, rows, state in zip(given.readers, given.rows, states, strict=True):
            site: Site = next(s for s in reversed(READ_SITES) if reader >= first[s])
            if site not in maps:
                continue
            of, at = maps[site], reader - first[site]
            part = output[rows]
            part[..., of.index[at]] = state @ of.weight[at].to(state.dtype) + of.bias[at].to(state.dtype)
            output[rows] = part
        return output

    return hook


def _first_readers(wired: Wired) -> dict[Site, int]:
    """Where a layer's queries, keys and values begin among its readers."""
    shape = wired.graph.shape
    return {"q": 0, "k": shape.n_heads, "v": shape.n_heads + shape.n_kv_heads}


def _entering(
    place: Place, shape: torch.Size, normed: Mapping[Place, tuple[Given, list[Tensor]] | None]
) -> Callable[..., Any]:
    """A hook that puts the MLP's own input in the place of what it is given."""

    def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        found = normed.get(place)
        if found is None:
            return None
        given, states = found
        entering = args[0].reshape(*shape[:2], -1).clone()
        for rows, state in zip(given.rows, states, strict=True):
            entering[rows] = state
        return (entering.view(args[0].shape), *args[1:])

    return hook


def run_rewired(
    wired: Wired,
    resid: Tensor,
    layer: int,
    part: Part,
    given: Given,
    *,
    prefix: KeysValues | None = None,
    changes: Mapping[tuple[HookSite, int], Change] | None = None,
) -> Tensor:
    """Logits of the last position [rows, d_vocab] where readers of one part of one layer have other inputs.

    Args:
        wired: The model.
        resid: The residual stream entering that layer, [rows, tokens, d_model].
        layer, part: Where the readers are.
        given: What they are given.
        prefix: Keys and values of the tokens before.
        changes: Functions that replace states on the way, by (site, layer).
    """
    with rewired(wired, resid.shape, [(part, layer)], lambda *_: given, False):
        return wired.run(resid, start=layer, prefix=prefix, changes=changes)
