"""The Python that repeats what was clicked in a CircuitPicker."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from workbench.types import Component, EffectMap, Selection
from workbench.widgets.picker.maps import MAPS, MapName, Sources
from workbench.widgets.shared.code import selection_code


@dataclass(frozen=True)
class Choice:
    """A selection that was made from a map at once.

    Args:
        name: The map.
        call: The method with its arguments, such as ``top(12)``.
        components: What it gave.
    """

    name: MapName
    call: str
    components: tuple[Component, ...]

    def code(self, selection: Selection) -> str | None:
        """The call that gives a selection; None where it gave another one."""
        return f"{variable(self.name)}.{self.call}" if self.components == tuple(selection) else None


def variable(name: str) -> str:
    """What a map is called in the code."""
    return name if name in ("heads", "mlps", "neurons") else f"trace_{name}"


def maps_code(sources: Sources, maps: Mapping[str, EffectMap], saved: Collection[str] = ()) -> str:
    """Lines that make the maps that are shown.

    Args:
        sources: What they were made of.
        maps: By name.
        saved: Those that ``session.maps`` holds: they are read from there.
    """
    lines = [sources.partner_code()]
    for name in MAPS:
        if (effect := maps.get(name)) is not None:
            made = sources.expression(name, exact=effect.method == "patching")
            lines.append(f"{variable(name)} = {f'session.maps[{name!r}]' if name in saved else made}\n")
    return "".join(lines)


def choice_code(selection: Selection, choice: Choice | None) -> str:
    """The line that makes the selection: the call that chose it, else its components."""
    made = choice.code(selection) if choice is not None else None
    return f"selection = {made or f'wb.Selection({selection_code(selection)})'}\n"
