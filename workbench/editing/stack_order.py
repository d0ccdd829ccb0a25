"""Where in a stack an edit that was made on top of others may be, and whether it acts on what it was made on."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.models.load import LoadedModel
from workbench.types.earlier import fingerprint_with
from workbench.types.stack import StackLayer


def fingerprint_of(base: LoadedModel, layers: Sequence[StackLayer]) -> str:
    """The fingerprint of a base with those of some edits that are on."""
    on = [layer.key for layer in layers if layer.on]
    return fingerprint_with(base.fingerprint, on) if on else base.fingerprint


def on_another_model(base: LoadedModel, layers: Sequence[StackLayer]) -> dict[int, str]:
    """By place, why an edit acts on another model than the one that it was made on; those of the base act on any."""
    out: dict[int, str] = {}
    for i, layer in enumerate(layers):
        edit, reasons = layer.edit, list[str]()
        if edit.base_fingerprint in (base.fingerprint, fingerprint_of(base, layers[:i])):
            continue
        below = {x.edit.id: x for x in layers[:i] if x.on}
        for one in edit.earlier:
            name = ", ".join(one.facts)
            if one.id not in below:
                reasons.append(f"{layer.name} was made on top of {name}, and acts without it here")
            elif below[one.id].key != one.key:
                reasons.append(f"{layer.name} was made on top of {name} at strength {one.strength:g} ({one.stage!r})")
        extra = [x.name for id, x in below.items() if id not in {one.id for one in edit.earlier}]
        if extra:
            reasons.append(f"{layer.name} was made without {', '.join(extra)} below it")
        reasons = reasons or [f"{layer.name} was made on top of the same edits in another order"]
        out[i] = f"{'; '.join(reasons)}: what it was measured to do is not what it does here."
    return out


def misplaced(layers: Sequence[StackLayer]) -> dict[tuple[str, str], str]:
    """By the ids of both, why an edit may not stand above or below another one, whatever is off at the moment."""
    out: dict[tuple[str, str], str] = {}
    for i, layer in enumerate(layers):
        earlier = [one.id for one in layer.edit.earlier]
        if not earlier:
            continue
        for other in layers[i + 1 :]:
            if other.edit.id in earlier:
                key = layer.edit.id, other.edit.id
                out[key] = f"{layer.name} was made on top of {other.name}, so it must stay above it"
        for other in layers[:i]:
            if other.edit.id not in earlier:
                key = layer.edit.id, other.edit.id
                out[key] = f"{layer.name} was made without {other.name} below it"
    return out
