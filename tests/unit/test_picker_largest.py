"""The largest effects of a map, by number or threshold: beside what is picked or in its place, as the code says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.mistyped import mistyped
from tests.helpers.panels import control, own
from tests.helpers.pickers import consistent, fresh, names, ready
from tests.helpers.wire import click, enter
from workbench.types import Selection
from workbench.widgets.picker.maps import MAPS, MapName


@pytest.mark.parametrize("name", MAPS)
def test_top_and_threshold_are_those_of_the_map(name: MapName) -> None:
    shown, effect = fresh(), ready()[name]
    enter(control(shown, "Select from"), index=MAPS.index(name))
    enter(control(shown, "top k"), value=2)
    enter(control(shown, "to what is picked"), index=1)  # in its place
    click(control(shown, "Select top k"))
    role = "last subject token" if name == "resid" else None  # what the menu offers first
    said = f", role={role!r}" if role else ""
    assert list(shown.selection) == list(effect.top(2, role=role))
    assert shown.code.endswith(f".top(2{said})\n")
    consistent(shown)
    threshold = float(effect.at(role=role).max()) * 0.5
    enter(control(shown, "at least"), value=threshold)
    click(control(shown, "Select above"))
    assert list(shown.selection) == list(effect.above(threshold, role=role)) and len(shown.selection)
    assert f".above({threshold!r}{said})\n" in shown.code
    click(shown.bar.chips[0])  # no longer what the call gives
    assert ".above(" not in shown.code
    consistent(shown)


def test_a_trace_is_read_at_the_token_of_the_menu() -> None:
    shown, effect = fresh(), ready()["mlp"]
    enter(control(shown, "Select from"), index=MAPS.index("mlp"))
    menu = control(shown, "at the")
    assert menu._options_labels == ("any token", "last subject token", "last token") and menu.layout.display is None
    enter(menu, index=2)
    enter(control(shown, "to what is picked"), index=1)
    enter(control(shown, "top k"), value=1)
    click(control(shown, "Select top k"))
    assert list(shown.selection) == list(effect.top(1, role="last token"))
    assert shown.code.endswith(".top(1, role='last token')\n")
    enter(control(shown, "Select from"), index=MAPS.index("resid"))
    assert menu._options_labels == ("last subject token", "last token")
    enter(control(shown, "Select from"), index=MAPS.index("heads"))
    assert menu.layout.display == "none"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("top k", 0, "k must be a whole number from 1 to"),
        ("top k", -3, "k must be"),
        ("top k", 10**9, "k must be"),
        ("at least", float("nan"), "threshold must be a finite number"),
        ("at least", float("inf"), "threshold must be a finite number"),
        ("at least", 1e6, "the largest is"),
    ],
)
def test_bad_numbers_are_shown_and_change_nothing(name: str, value: Any, words: str) -> None:
    shown = fresh()
    shown.selection = "L1H2"
    control(shown, name).value = value
    button = control(shown, "Select top k" if name == "top k" else "Select above")
    click(button)
    assert isinstance(shown.error, ValueError) and words in str(shown.error)
    assert 'role="alert"' in own(shown) and words in shown.message
    assert names(shown.selection) == "L1H2" and shown.heads.selected == [[1, 2]]
    control(shown, "top k").value, control(shown, "at least").value = 1, float(ready()["heads"].values.max())
    click(button)
    assert shown.error is None and shown.message == ""
    consistent(shown)


def test_what_is_chosen_comes_to_what_is_picked_or_takes_its_place() -> None:
    shown, maps = fresh(), ready()
    shown.selection = "L2H5"
    for name, k in (("heads", 2), ("mlps", 1)):
        enter(control(shown, "Select from"), index=MAPS.index(name))
        enter(control(shown, "top k"), value=k)
        click(control(shown, "Select top k"))
    assert list(shown.selection) == list(Selection("L2H5") | maps["heads"].top(2) | maps["mlps"].top(1))
    assert shown.code.endswith("selection = wb.Selection('L2H5') | heads.top(2) | mlps.top(1)\n")
    consistent(shown)
    enter(control(shown, "to what is picked"), index=1)
    click(control(shown, "Select top k"))
    assert list(shown.selection) == list(maps["mlps"].top(1)) and shown.code.endswith("selection = mlps.top(1)\n")
    shown.top("heads", 1, add=True)
    click(shown.bar.chips[0])
    assert ".top(" not in shown.code, "no longer what the calls give"
    consistent(shown)


def test_a_map_that_is_not_there_says_so() -> None:
    shown = fresh({"heads": ready()["heads"]})
    with pytest.raises(ValueError, match="not computed yet"):
        shown.top("mlps", 1)
    enter(control(shown, "Select from"), index=MAPS.index("attn"))
    click(control(shown, "Select top k"))
    assert "choose its trace site above" in shown.message
    with pytest.raises(ValueError, match="Unknown map"):
        shown.compute(mistyped("head"))
    assert shown.mlps.title == "MLPs: not computed"
