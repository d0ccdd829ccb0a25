"""BarList without a browser: its order, what Python accepts, what it answers."""

from __future__ import annotations

import base64
import math
from typing import Any

import pytest
from traitlets import TraitError

from tests.helpers.wire import enter, message
from workbench.widgets.grid.bar_list import BarList, BarRow

ROWS = [("L29H1", 2.41), ("L23H4", 16.4), BarRow("L23H5", -3.5, "the last token attends to ·is"), ("L0MLP", 1.65)]


def press(widget: Any, **content: Any) -> None:
    message(widget, {"method": "custom", "content": content})


def test_rows_are_ranked_and_the_longest_bar_is_the_largest_magnitude() -> None:
    bars = BarList(ROWS, title="Strongest", unit="logits")
    assert bars.names == ["L23H4", "L23H5", "L29H1", "L0MLP"]
    assert bars.rows[1] == BarRow("L23H5", -3.5, "the last token attends to ·is")
    assert (bars.limit, bars.alt) == (16.4, "Strongest, logits")
    assert BarList(ROWS, order="value").names == ["L23H4", "L29H1", "L0MLP", "L23H5"]
    assert BarList(ROWS, order="given", limit=20).names == [row[0] for row in ROWS]
    assert (BarList().names, BarList().limit, BarList([("a", 0)]).limit) == ([], 1, 1)
    assert BarList([("b", 1), ("a", -1), ("c", 2)]).names == ["c", "b", "a"]  # a tie stays in its order
    assert BarList([("\u202e a", 1)]).names == ["\\u202e a"]


@pytest.mark.parametrize(
    ("rows", "options", "text"),
    [
        ([("a", 1), ("a", 2)], {}, "'a' is there twice"),
        ([("a", math.nan)], {}, "value of 'a' is not finite"),
        ([("a", math.inf)], {}, "not finite"),
        ([("a", 1)], {"limit": 0}, "limit must be positive"),
        ([("a", 1)], {"order": "names"}, "order must be one of .*'magnitude'"),
    ],
)
def test_wrong_rows_are_refused(rows: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        BarList(rows, **options)


def test_a_pick_is_taken_answered_and_passed_on() -> None:
    bars = BarList(ROWS)
    calls: list[list[str]] = []
    bars.on_pick(calls.append)
    enter(bars, picked=["L0MLP", "L23H4"], seq=1, cursor="L0MLP")
    assert bars.selected == ["L23H4", "L0MLP"]  # in the order of the list
    assert (bars.ack, bars.cursor, calls) == (1, "L0MLP", [["L23H4", "L0MLP"]])
    bars.selected = {"L29H1"}
    assert (bars.selected, len(calls)) == (["L29H1"], 1)


BAD: list[Any] = ["L23H4", ["L1H1"], ["L0MLP", "L0MLP"], [None], [3], [["L0MLP"]], None, {"a": 1}, ["L0MLP"] * 9]


@pytest.mark.parametrize("names", BAD, ids=str)
def test_a_bad_pick_changes_nothing_and_is_answered(names: Any) -> None:
    bars = BarList(ROWS)
    enter(bars, picked=names, seq=4)
    assert (bars.selected, bars.ack) == ([], 4)
    assert isinstance(bars.error, TraitError) and bars.problem
    enter(bars, picked=["L0MLP"], seq=5)
    assert (bars.selected, bars.error, bars.problem) == (["L0MLP"], None, "")


@pytest.mark.parametrize("state", [{"names": []}, {"values": [1.0]}, {"cursor": "L1H1"}, {"hover": 3}, {"pinned": []}])
def test_other_bad_traits_change_nothing(state: dict[str, Any]) -> None:
    bars = BarList(ROWS)
    (name,) = state
    before = getattr(bars, name)
    enter(bars, **state)
    assert getattr(bars, name) == before and isinstance(bars.error, TraitError)


def test_other_rows_keep_what_is_still_there_or_mark_what_is_said() -> None:
    bars = BarList(ROWS)
    bars.selected, bars.cursor, bars.pinned = ["L0MLP", "L29H1"], "L0MLP", ["L29H1"]
    bars.set_rows([("L29H1", 1.0), ("L2H0", 4.0)], title="Now", unit="recovery")
    assert (bars.selected, bars.cursor, bars.pinned) == (["L29H1"], None, ["L29H1"])
    assert (bars.alt, bars.limit) == ("Now, recovery", 4.0)
    bars.set_rows(ROWS, selected=["L23H4", "L9H9"])
    assert bars.selected == ["L23H4"]
    with pytest.raises(ValueError, match="twice"):
        bars.set_rows([("a", 1), ("a", 2)])
    assert bars.names[0] == "L23H4"


def test_a_list_that_cannot_be_picked_refuses_the_browser_not_python() -> None:
    bars = BarList(ROWS, selectable=False)
    enter(bars, picked=["L0MLP"], seq=1)
    assert (bars.selected, bars.ack) == ([], 1)
    bars.mark(["L0MLP"])
    assert bars.selected == ["L0MLP"]


def test_pins_undo_and_redo_reach_python() -> None:
    bars = BarList(ROWS)
    press(bars, event="undo")  # nobody listens
    assert not bars.pinnable and bars.error is None
    heard: list[Any] = []
    bars.on_pin(heard.append)
    bars.on_undo(lambda: heard.append("undo"))
    bars.on_redo(lambda: heard.append("redo"))
    for content in ({"event": "pin", "item": "L0MLP"}, {"event": "undo"}, {"event": "redo"}):
        press(bars, **content)
    assert heard == ["L0MLP", "undo", "redo"] and bars.pinnable
    assert bars.pinned == []  # Python says what is
    for bad in ({"event": "pin", "item": "L9H9"}, {"event": "pin"}, {"event": "pin", "item": ["L0MLP"]}):
        press(bars, **bad)
        assert isinstance(bars.error, TraitError)
        bars.error = None
    press(bars, event="close")
    assert len(heard) == 3


def test_mimebundle_carries_a_picture_and_a_fixed_text() -> None:
    bars = BarList(ROWS)
    bundle = bars._repr_mimebundle_()
    assert bundle is not None
    data = bundle[0]
    assert data["text/plain"] == "BarList(4 components, 0 selected)"
    assert base64.b64decode(data["image/png"]) == bars.to_png()
