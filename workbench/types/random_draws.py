"""Random selections like a given one, the controls for it: as many components of each kind, from elsewhere."""

from __future__ import annotations

import random
from typing import Literal

from workbench.types.selection import Component, Kind, ModelShape, Selection, all_components

Where = Literal["same-layers", "anywhere", "one-layer"]


def draw_like(selection: Selection, shape: ModelShape, seed: int, where: Where, exclude_self: bool) -> Selection:
    """What ``Selection.random_like`` draws. Arguments as there."""
    rng = random.Random(seed)
    for c in selection:
        c.check(shape)
    if where == "one-layer":
        return _of_one_layer(selection, shape, rng)
    wanted: dict[tuple[Kind, int | None], int] = {}
    for c in selection:
        key = (c.kind, c.layer if where == "same-layers" else None)
        wanted[key] = wanted.get(key, 0) + 1
    drawn: list[Component] = []
    for (kind, layer), n in wanted.items():
        layers = range(shape.n_layers) if layer is None else (layer,)
        every = (c for at in layers for c in all_components(shape, kind, at))
        free = [c for c in every if not (exclude_self and c in selection)]
        if len(free) < n:
            place = "the model" if layer is None else f"layer {layer}"
            raise ValueError(
                f"Cannot draw {n} other components of kind {kind!r} from {place}: "
                f"only {len(free)} are left. Use where='anywhere' or exclude_self=False."
            )
        drawn += rng.sample(free, n)
    return Selection(drawn).sorted()


def _of_one_layer(selection: Selection, shape: ModelShape, rng: random.Random) -> Selection:
    """As many of each kind, all from one layer that has none of them."""
    counts: dict[Kind, int] = {}
    for c in selection:
        counts[c.kind] = counts.get(c.kind, 0) + 1
    others = [layer for layer in range(shape.n_layers) if all(c.layer != layer for c in selection)]
    free = [at for at in others if all(len(all_components(shape, kind, at)) >= n for kind, n in counts.items())]
    if not free:
        raise ValueError(
            f"Cannot draw {', '.join(f'{n} of kind {kind!r}' for kind, n in counts.items())} from one other layer: "
            "none has as many. Use where='anywhere'."
        )
    layer = rng.choice(free)
    drawn = [c for kind, n in counts.items() for c in rng.sample(all_components(shape, kind, layer), n)]
    return Selection(drawn).sorted()
