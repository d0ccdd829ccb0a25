"""Widgets of one class hold their JavaScript once: on the page, in the kernel and in a saved notebook."""

from __future__ import annotations

import json
from typing import Any

from ipywidgets import VBox
from ipywidgets.embed import dependency_state

from workbench.widgets.grid.bar_list import BarList
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.shared.javascript import read_module
from workbench.widgets.shared.module import ModuleText, SharedModule


def grid() -> HeatGrid:
    return HeatGrid([[0.0, 1.0]], rows=["a"], cols=["x", "y"])


def held(widget: Any) -> dict[str, Any]:
    """What a notebook holds of a widget and what it refers to."""
    return dependency_state([widget], drop_defaults=False)


def test_many_maps_hold_their_javascript_once() -> None:
    maps = [grid() for _ in range(6)]
    bars = BarList()
    assert len({one._module for one in maps}) == 1 and bars._module is not maps[0]._module
    assert maps[0]._module.text == read_module("grid/grid.js") and bars._module.text == read_module("bars/bars.js")
    state = held(VBox([*maps, bars]))
    texts = [one["state"]["text"] for one in state.values() if one["model_name"] == "WidgetModel"]
    assert sorted(texts) == sorted([read_module("grid/grid.js"), read_module("bars/bars.js")])
    refers = {one["state"]["_module"] for one in state.values() if "_module" in one["state"]}
    assert refers == {f"IPY_MODEL_{maps[0]._module.model_id}", f"IPY_MODEL_{bars._module.model_id}"}
    assert all(id.removeprefix("IPY_MODEL_") in state for id in refers), "and it is saved beside them"
    one, six = (len(json.dumps(held(VBox(maps[:n])))) for n in (1, 6))
    assert six - one < 5 * 8_000, "the text alone has 57,000 characters"


def test_a_text_that_was_closed_is_made_anew() -> None:
    before = grid()._module
    before.close()
    after = grid()._module
    assert after is not before and after.comm is not None and after.text == before.text
    assert grid()._module is after


def test_subclasses_share_the_text_of_their_class() -> None:
    class Other(HeatGrid):
        pass

    other = Other([[0.0, 1.0]], rows=["a"], cols=["x", "y"])
    assert other._module is grid()._module and issubclass(Other, SharedModule)
    assert "characters" in repr(other._module) and isinstance(other._module, ModuleText)


def test_the_browser_cannot_set_it() -> None:
    one = grid()
    before = one._module
    one.set_state({"_module": f"IPY_MODEL_{BarList()._module.model_id}"})
    assert one._module is before and one.error is not None
