"""Pickers of a tiny model that knows capitals: their maps, picks in them, and whether all parts of one agree."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import workbench as wb
from tests.helpers.panels import control
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, knowing
from tests.helpers.wire import enter
from workbench.models.load import LoadedModel
from workbench.types import Component, EffectMap
from workbench.widgets.picker.maps import MAPS, Sources
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.picker.selection_bar import CHIPS

FACTS = capitals()
FRANCE = FACTS[0]


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), FACTS)


@lru_cache
def ready() -> dict[str, EffectMap]:
    """Real maps, computed once."""
    made = Sources(tiny(), (FRANCE,), pool=FACTS)
    return {name: made.compute(name) for name in MAPS}


def fresh(maps: dict[str, EffectMap] | None = None, **options: Any) -> CircuitPicker:
    """A picker with maps that are there at once."""
    shown = CircuitPicker(tiny(), FRANCE, **{"pool": FACTS, "compute": False, **options})
    shown.show(FRANCE, ready() if maps is None else maps)
    return shown


def pick(grid: Any, *cells: list[int]) -> None:
    """The browser asks for these cells to be selected, with the cursor on the last one."""
    enter(grid, picked=sorted(cells), seq=grid.ack + 1, **({"cursor": cells[-1]} if cells else {}))


def names(selection: object) -> str:
    return str(selection)


def consistent(shown: CircuitPicker) -> None:
    """Every grid marks exactly what `.selection` holds, and the bar, the chips and the code say the same."""
    chosen = set(shown.selection)
    assert list(shown.selection) == list(shown.bar.selection)
    assert [c.description[:-2] for c in shown.bar.chips if c.layout.display != "none"] == [
        str(c) for c in list(shown.selection)[:CHIPS]
    ]
    assert {(0, i, j) for i, j in shown.heads.selected} == {(0, c.layer, c.index) for c in chosen if c.kind == "H"}
    assert {i for i, _ in shown.mlps.selected} == {c.layer for c in chosen if c.kind == "MLP"}
    needed = {"resid": ("ATTN", "MLP"), "mlp": ("MLP",), "attn": ("ATTN",)}[control(shown, "Trace site").value]
    rows = {row for row in range(tiny().shape.n_layers) if all(Component(row, kind) in chosen for kind in needed)}
    assert shown.trace.selected == [[row, i] for row in sorted(rows) for i in range(shown.trace.shape[1])]
    assert set(shown.ranked.bars.selected) == {str(c) for c in chosen} & set(shown.ranked.bars.names)
    assert eval(shown.code.rsplit("selection = ", 1)[1], {"wb": wb, **_variables(shown)}) == shown.selection


def _variables(shown: CircuitPicker) -> dict[str, EffectMap]:
    return {f"trace_{n}" if n in ("resid", "mlp", "attn") else n: m for n, m in shown.maps.items()}
