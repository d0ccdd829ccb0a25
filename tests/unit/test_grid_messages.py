"""What the browser asks of a HeatGrid, what Python answers, and that both hold the same cells in the end.

Messages go through the comm exactly as JupyterLab sends them; what Python sends is recorded where it leaves the widget.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traitlets import TraitError

from tests.helpers.wire import enter
from tests.helpers.wire import message as send
from tests.unit.test_grid import make, record
from workbench.widgets.grid.grid import HeatGrid


def message(grid: HeatGrid, state: dict[str, Any]) -> None:
    """What JupyterLab sends when the browser has changed traits."""
    enter(grid, **state)


BAD_CELLS: list[Any] = [
    [[2, 0]],
    [[0, 3]],
    [[-1, 0]],
    [[0, 0], [0, 0]],
    [[0.0, 1.0]],
    [[True, False]],
    [["0", "1"]],
    [[0]],
    [[0, 1, 2]],
    [[0, None]],
    [None],
    [0, 1],
    [[[0, 1]]],
    "0,1",
    {"row": 0},
    5,
    None,
    [[10**400, 0]],
    [[0, 0]] * 100_000,
    [[i, 0] for i in range(7)],
]


def test_selection_from_python_is_sorted_and_checked() -> None:
    grid = make()
    calls: list[Any] = []
    grid.on_pick(calls.append)
    grid.selected = [(1, 2), (0, 1), (np.int64(1), 0)]
    assert grid.selected == [[0, 1], [1, 0], [1, 2]]
    assert repr(grid) == "HeatGrid(2 x 3, 3 selected)"
    grid.selected = {(1, 1)}  # no value, but it is Python's to say
    for bad in BAD_CELLS:
        with pytest.raises(TraitError):
            grid.selected = bad
    assert grid.selected == [[1, 1]]
    with pytest.raises(TraitError, match=r"Cell \[2, 0\] is outside this map of 2 x 3"):
        grid.cursor = (2, 0)
    assert calls == []


def test_a_pick_is_taken_answered_and_passed_on() -> None:
    grid = make()
    calls: list[Any] = []
    grid.on_pick(calls.append)
    sent = record(grid)
    message(grid, {"picked": [[1, 2], [0, 1]], "seq": 1, "cursor": [0, 1]})
    assert grid.selected == [[0, 1], [1, 2]]
    assert grid.cursor == [0, 1]
    assert calls == [[(0, 1), (1, 2)]]
    assert {"selected": [[0, 1], [1, 2]], "ack": 1} in sent  # together
    message(grid, {"picked": [[0, 1], [1, 2]], "seq": 2})
    assert (grid.ack, len(calls)) == (2, 1)  # answered; nothing changed
    message(grid, {"selected": [], "seq": 3})  # another client may write the selection itself
    assert (grid.selected, grid.ack, calls[1:]) == ([], 3, [[]])
    assert all("seq" not in state and "picked" not in state for state in sent)


@pytest.mark.parametrize("cells", BAD_CELLS, ids=lambda cells: repr(cells)[:30])
@pytest.mark.parametrize("name", ["picked", "selected"])
def test_a_bad_pick_changes_nothing_and_is_answered(name: str, cells: Any) -> None:
    grid = make()
    grid.selected = [(1, 1)]
    calls: list[Any] = []
    grid.on_pick(calls.append)
    sent = record(grid)
    message(grid, {name: cells, "seq": 7})
    assert grid.selected == [[1, 1]]
    assert isinstance(grid.error, TraitError)
    assert len(grid.problem) < 200
    assert grid.ack == 7
    assert calls == []
    if name == "selected":  # the browser is set back
        assert sent[-1] == {"selected": [[1, 1]]}
    message(grid, {"picked": [[0, 0]], "seq": 8})
    assert (grid.selected, grid.error, grid.problem) == ([[0, 0]], None, "")


@pytest.mark.parametrize("seq", [0, -1, 1.5, "1", True, 2**53 + 1, [1]])
def test_a_bad_number_is_refused(seq: Any) -> None:
    grid = make()
    message(grid, {"picked": [[0, 0]], "seq": seq})
    assert (grid.selected, grid.ack) == ([], 0)
    assert "seq must be" in grid.problem


@pytest.mark.parametrize(
    "state",
    [
        {"cursor": [5, 5]},
        {"cursor": "x"},
        {"hover": [0, -1]},
        {"hover": [[0, 0]]},
        {"hover": 10**400},
        {"data": ""},
        {"shape": [1000, 1000]},
        {"rows": ["x"] * 1000},
        {"ack": 99},
        {"limit": -1.0},
        {"selectable": False},
        {"_esm": "export default {}"},
    ],
    ids=str,
)
def test_other_bad_traits_are_refused_and_set_back(state: dict[str, Any]) -> None:
    grid = make()
    (name,) = state
    before = getattr(grid, name)
    sent = record(grid)
    message(grid, state)
    assert getattr(grid, name) == before
    assert isinstance(grid.error, TraitError)
    assert set(sent[-1]) == {name}


def test_a_disabled_map_is_not_picked() -> None:
    grid = make(selectable=False)
    message(grid, {"picked": [[0, 0]], "seq": 1})
    assert (grid.selected, grid.ack) == ([], 1)
    grid.selectable, grid.disabled = True, True
    message(grid, {"picked": [[0, 0]], "seq": 2})
    assert (grid.selected, grid.ack) == ([], 2)
    grid.selected = [(1, 0)]  # Python may
    assert grid.selected == [[1, 0]]


def test_errors_of_callbacks_are_kept_and_the_pick_stands() -> None:
    grid = make()
    calls: list[Any] = []

    def fails(cells: Any) -> None:
        raise RuntimeError("no")

    grid.on_pick(fails)
    grid.on_pick(calls.append)
    message(grid, {"picked": [[0, 0]], "seq": 1})
    assert (grid.selected, grid.ack, calls) == ([[0, 0]], 1, [[(0, 0)]])
    assert isinstance(grid.error, RuntimeError)
    assert grid.problem == "RuntimeError: no"


def test_a_callback_may_change_the_selection() -> None:
    grid = make()
    grid.on_pick(lambda cells: setattr(grid, "selected", cells[:1]))
    sent = record(grid)
    message(grid, {"picked": [[0, 0], [0, 1]], "seq": 1})
    assert grid.selected == [[0, 0]]
    assert sent[-1] == {"selected": [[0, 0]]}


def test_a_tip_belongs_to_the_cell_under_the_pointer() -> None:
    grid = make()
    grid.observe(lambda change: change["new"] and setattr(grid, "tip", "the same text"), "hover")
    for cell in ([0, 1], [1, 2]):
        sent = record(grid)
        message(grid, {"hover": cell})
        assert (grid.hover, grid.tip, grid.tip_for) == (cell, "the same text", cell)
        assert any(state.get("tip_for") == cell for state in sent)
    message(grid, {"hover": None})
    assert (grid.tip, grid.tip_for, grid.pattern) == ("", None, None)
    grid.unobserve_all("hover")
    message(grid, {"hover": [0, 0]})
    grid.show_tip((1, 1), "too late: the pointer has moved on")
    assert grid.tip == ""
    grid.show_tip((0, 0), "here", {"tokens": ["a"], "weights": [1.0]})
    assert (grid.tip, grid.tip_for, grid.pattern) == ("here", [0, 0], {"tokens": ["a"], "weights": [1.0]})


def test_a_tip_says_what_a_click_picks_until_the_pointer_moves() -> None:
    grid = make()
    message(grid, {"hover": [0, 1]})
    grid.show_tip((0, 1), "", picks="L0ATTN L0MLP")
    assert (grid.tip_picks, grid.tip_for) == ("L0ATTN L0MLP", [0, 1])
    message(grid, {"hover": [1, 2]})
    assert (grid.tip_picks, grid.tip_for) == ("", None)
    grid.show_tip((1, 2), "text", picks=None)
    assert grid.tip_picks is None


def test_pins_undo_and_redo_reach_python() -> None:
    grid = make()
    heard: list[Any] = []

    def press(**content: Any) -> None:
        send(grid, {"method": "custom", "content": content})

    press(event="undo")  # nobody listens
    grid.on_undo(lambda: heard.append("undo"))
    grid.on_redo(lambda: heard.append("redo"))
    assert not grid.pinnable
    grid.on_pin(heard.append)
    assert grid.pinnable
    for content in ({"event": "pin", "item": [1, 2]}, {"event": "undo"}, {"event": "redo"}):
        press(**content)
    assert (heard, grid.error, grid.pinned, grid.selected) == ([(1, 2), "undo", "redo"], None, [], [])
    for item in ([2, 0], None, "x", [[0, 0]]):
        press(event="pin", item=item)
        assert isinstance(grid.error, TraitError)
        grid.error = None
    grid.on_undo(lambda: 1 / 0)
    press(event="undo")
    assert (heard[3:], grid.problem) == (["undo"], "ZeroDivisionError: division by zero")


def test_what_is_pinned_is_pythons_and_must_be_there() -> None:
    grid = make()
    grid.pinned = [(1, 2), (0, 0)]
    assert grid.pinned == [[0, 0], [1, 2]]
    message(grid, {"pinned": []})
    assert grid.pinned == [[0, 0], [1, 2]] and isinstance(grid.error, TraitError)
    with pytest.raises(TraitError, match=r"outside this map of 2 x 3"):
        grid.pinned = [(2, 0)]
    grid.set_values(np.ones((1, 2)), rows="a", cols="xy")
    assert grid.pinned == [[0, 0]]


class Browser:
    """static/grid/picks.js as far as the protocol goes: what it keeps, sends and shows."""

    def __init__(self, grid: HeatGrid) -> None:
        self.state = {"selected": [], "ack": 0, "picked": [], "seq": 0}
        self.to_python: deque[dict[str, Any]] = deque()
        self.from_python: deque[dict[str, Any]] = deque()
        self.grid = grid

        def send(data: dict[str, Any], buffers: Any = None) -> None:
            if data["method"] == "update":
                self.from_python.append(data["state"])

        told: Any = grid
        told._send = send

    @property
    def pending(self) -> bool:
        return self.state["seq"] > self.state["ack"]

    def shown(self) -> list[list[int]]:
        return self.state["picked"] if self.pending else self.state["selected"]

    def pick(self, cells: set[tuple[int, int]]) -> None:
        self.state["picked"] = [list(cell) for cell in sorted(cells)]
        self.state["seq"] = max(self.state["seq"], self.state["ack"]) + 1
        self.to_python.append({"picked": self.state["picked"], "seq": self.state["seq"]})

    def python_reads(self) -> None:
        if self.to_python:
            message(self.grid, self.to_python.popleft())

    def reads(self) -> None:
        if self.from_python:
            self.state |= {k: v for k, v in self.from_python.popleft().items() if k in self.state}


CELL = st.tuples(st.integers(0, 3), st.integers(0, 5))
ACTION = st.one_of(
    st.tuples(st.just("toggle"), CELL),
    st.tuples(st.just("add"), CELL, CELL),
    st.tuples(st.just("remove"), CELL, CELL),
    st.tuples(st.just("all")),
    st.tuples(st.just("bad"), st.sampled_from(BAD_CELLS[:18])),
    st.tuples(st.just("python"), st.sets(CELL, max_size=5)),
    st.tuples(st.just("values"), st.booleans()),
    st.tuples(st.just("python reads")),
    st.tuples(st.just("browser reads")),
)


@settings(max_examples=500)
@given(st.lists(ACTION, max_size=30), st.booleans())
def test_browser_and_python_agree_after_any_interaction(actions: list[Any], trims: bool) -> None:
    """In whatever order messages arrive: after the last, both have the same cells; none looks accepted before."""
    grid = make(np.zeros((4, 6)))
    if trims:  # a callback that changes what was picked
        grid.on_pick(lambda cells: setattr(grid, "selected", cells[-3:]))
    browser = Browser(grid)
    held_by_python: list[list[list[int]]] = [[]]
    grid.observe(lambda change: held_by_python.append(change["new"]), "selected")
    for name, *given_ in actions:
        shown = {(r, c) for r, c in browser.shown()}
        if name == "toggle":
            browser.pick(shown ^ {given_[0]})
        elif name in ("add", "remove"):
            (r0, c0), (r1, c1) = given_
            box = {(r, c) for r in range(min(r0, r1), max(r0, r1) + 1) for c in range(min(c0, c1), max(c0, c1) + 1)}
            browser.pick(shown | box if name == "add" else shown - box)
        elif name == "all":
            browser.pick({(r, c) for r in range(4) for c in range(6)})
        elif name == "bad":
            browser.pick(set())
            browser.state["picked"] = browser.to_python[-1]["picked"] = given_[0]
            # The next click would be built on this; a browser that breaks its own state is not asked to repair it.
            while browser.to_python:
                browser.python_reads()
            while browser.from_python:
                browser.reads()
        elif name == "python":
            grid.selected = given_[0]
        elif name == "values":
            grid.set_values(np.ones((4, 6)) * (1 if given_[0] else 2))
        elif name == "python reads":
            browser.python_reads()
        else:
            browser.reads()
        if not browser.pending:
            assert browser.shown() in held_by_python
    while browser.to_python or browser.from_python:
        browser.python_reads()
        browser.reads()
    assert not browser.pending
    assert browser.shown() == grid.selected
    assert grid.selected == sorted(grid.selected)
