"""Where in a stack an edit that was made on top of others may be, and whether it acts on what it was made on."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.models.load import LoadedModel
from workbench.types.earlier import fingerprint_with
from workbench.types.stack import StackLayer


def fingerprint_of(base: LoadedModel, layers: Sequence[StackLayer]) -> str:
    """The fingerprint of a base with those of some edits that act."""
    acting = [layer.key for layer in layers if layer.acts]
    return fingerprint_with(base.fingerprint, acting) if acting else base.fingerprint


def on_another_model(base: LoadedModel, layers: Sequence[StackLayer]) -> dict[int, str]:
    """By place, why an edit acts on another model than the one that it was made on; those of the base act on any."""
    out: dict[int, str] = {}
    for i, layer in enumerate(layers):
        edit, reasons = layer.edit, list[str]()
        if edit.base_fingerprint in (base.fingerprint, fingerprint_of(base, layers[:i])):
            continue
        below = [x for x in layers[:i] if x.acts]
        for one in edit.earlier:
            name = ", ".join(one.facts)
            alike = [x for x in below if x.edit.id == one.id]
            if not alike:
                reasons.append(f"{layer.name} was made on top of {name}, and acts without it here")
                continue
            same = next((x for x in alike if x.key == one.key), None)
            if same is None:
                reasons.append(f"{layer.name} was made on top of {name} at strength {one.strength:g} ({one.stage!r})")
            below.remove(same or alike[0])
        extra = [x.name for x in below]
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
        under = [x.edit.id for x in layers[:i]]
        for other in layers[i + 1 :]:
            if under.count(other.edit.id) < earlier.count(other.edit.id):
                key = layer.edit.id, other.edit.id
                out[key] = f"{layer.name} was made on top of {other.name}, so it must stay above it"
        for other in layers[:i]:
            if under.count(other.edit.id) > (times := earlier.count(other.edit.id)):
                key = layer.edit.id, other.edit.id
                out[key] = f"{layer.name} was made without {'another ' if times else ''}{other.name} below it"
    return out
