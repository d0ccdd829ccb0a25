"""The Python that repeats what was clicked in a CircuitPicker."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from workbench.types import Component, EffectMap, Selection
from workbench.widgets.picker.maps import MAPS, MapName, Sources
from workbench.widgets.shared.code import selection_code


@dataclass(frozen=True)
class Choice:
    """A selection that was made from maps at once.

    Args:
        names: The maps.
        expression: The Python that makes it, such as ``heads.top(12)`` or ``heads.top(3) | mlps.top(1)``.
        components: What it gave.
    """

    names: frozenset[str]
    expression: str
    components: tuple[Component, ...]

    def code(self, selection: Selection) -> str | None:
        """The expression, where it gives this selection; else None."""
        return self.expression if self.components == tuple(selection) else None


def choose(name: MapName, call: str, chosen: Selection, *, add_to: Selection, before: Choice | None) -> Choice:
    """A choice from a map, added to what is selected already.

    Args:
        name: The map.
        call: Its method with the arguments, such as ``top(12)``.
        chosen: What that gives.
        add_to: What is selected; empty where the choice takes its place.
        before: The choice that made it, if one did.
    """
    made = f"{variable(name)}.{call}"
    if not len(add_to):
        return Choice(frozenset((name,)), made, tuple(chosen))
    known = before.code(add_to) if before is not None else None
    names = before.names if before is not None and known is not None else frozenset[str]()
    first = known or f"wb.Selection({selection_code(add_to)})"
    return Choice(names | {name}, f"{first} | {made}", tuple(add_to | chosen))


def variable(name: str) -> str:
    """What a map is called in the code."""
    return f"trace_{name}" if name in ("resid", "mlp", "attn") else name


def maps_code(sources: Sources, maps: Mapping[str, EffectMap], saved: Collection[str] = ()) -> str:
    """Lines that make the maps that are shown.

    Args:
        sources: What they were made of.
        maps: By name.
        saved: Those that ``session.maps`` holds: they are read from there.
    """
    lines = [sources.measure_code()] if set(maps) - set(saved) else []
    for name in MAPS:
        if (effect := maps.get(name)) is not None:
            made = sources.expression(name, exact=effect.method == "patching")
            lines.append(f"{variable(name)} = {f'session.maps[{name!r}]' if name in saved else made}\n")
    return "".join(lines)


def choice_code(selection: Selection, choice: Choice | None) -> str:
    """The line that makes the selection: the call that chose it, else its components."""
    made = choice.code(selection) if choice is not None else None
    return f"selection = {made or f'wb.Selection({selection_code(selection)})'}\n"
