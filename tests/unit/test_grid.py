"""HeatGrid without a browser: what Python accepts, what it answers, and the picture.

Messages go through the comm exactly as JupyterLab sends them; what Python sends is recorded where it leaves the widget.
"""

from __future__ import annotations

import base64
import math
import threading
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from traitlets import TraitError

from tests.helpers.pictures import decode
from tests.helpers.wire import enter
from tests.helpers.wire import message as send
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.grid.png import heat_map_png, step
from workbench.widgets.shared.pixels import text_mask

VALUES = np.array([[0.0, 1.0, -2.0], [0.5, math.nan, 2.0]])


def make(values: Any = VALUES, **options: Any) -> HeatGrid:
    n_rows, n_cols = values.shape
    labels: dict[str, Any] = {"rows": range(n_rows), "cols": range(n_cols)}
    return HeatGrid(values, **labels | options)


def message(grid: HeatGrid, state: dict[str, Any]) -> None:
    """What JupyterLab sends when the browser has changed traits."""
    enter(grid, **state)


def record(grid: HeatGrid) -> list[dict[str, Any]]:
    """The states that Python sends from now on, bytes among them."""
    sent: list[dict[str, Any]] = []

    def send(data: dict[str, Any], buffers: Any = None) -> None:
        if data["method"] == "update":
            paths = [path[0] for path in data["buffer_paths"]]
            sent.append(data["state"] | dict(zip(paths, buffers or [], strict=True)))

    told: Any = grid
    told._send = send
    return sent


# ------------------------------------------------------------------ values and labels


def test_values_labels_and_repr() -> None:
    grid = make(torch.tensor(VALUES, requires_grad=True), title="Heads", col_title="Head", limit=3)
    np.testing.assert_array_equal(grid.values, VALUES.astype("float32"))
    assert grid.shape == [2, 3]
    assert grid.data == VALUES.astype("<f4").tobytes()
    assert grid.rows == ["0", "1"]
    assert grid.limit == 3
    assert grid.alt == "Heads: 2 x 3, Layer by Head"
    assert repr(grid) == "HeatGrid(2 x 3, 0 selected)"
    assert make().limit == 2  # the largest magnitude, without what has no value
    assert make(np.zeros((2, 3))).limit == 1
    assert make(np.full((2, 3), np.nan)).limit == 1
    assert make(cols=["a\nb", "\t", "c"]).cols == ["a⏎b", "⇥", "c"]
    assert make(torch.ones(2, 3, dtype=torch.bfloat16)).limit == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"values": np.zeros(3), "rows": "ab", "cols": "abc"}, r"rows x columns and not empty, not of shape \(3,\)"),
        ({"values": np.zeros((0, 3)), "rows": "", "cols": "abc"}, "not empty"),
        ({"values": np.array([[1.0, np.inf]]), "rows": "a", "cols": "ab"}, "1 infinite numbers; use NaN"),
        ({"values": VALUES, "rows": "a", "cols": "abc"}, r"rows has 1 labels, but values of shape \(2, 3\) need 2"),
        ({"values": VALUES, "rows": "ab", "cols": "ab"}, "cols has 2 labels"),
        ({"values": VALUES, "rows": "ab", "cols": "abc", "limit": 0}, "limit must be positive"),
        ({"values": VALUES, "rows": "ab", "cols": "abc", "limit": math.nan}, "limit must be positive"),
        (
            {"values": VALUES, "rows": "ab", "cols": "abc", "groups": [3]},
            r"groups names columns \[3\], allowed are 0 to 2",
        ),
        ({"values": VALUES, "rows": "ab", "cols": "abc", "marked": [-1]}, "marked names columns"),
        ({"values": VALUES, "rows": "ab", "cols": "abc", "descriptions": [["a"]]}, "2 rows of 3 texts"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        HeatGrid(options.pop("values"), **options)


def test_set_values_redraws_in_one_message_and_keeps_what_still_exists() -> None:
    grid = make(title="T", marked=[2], groups=[1])
    grid.selected, grid.cursor = [(0, 2), (1, 0)], (1, 2)
    calls: list[Any] = []
    grid.on_pick(calls.append)
    sent = record(grid)
    grid.set_values(np.ones((2, 3)))
    assert [set(state) for state in sent] == [{"data", "limit", "clip"}]
    assert (grid.selected, grid.cursor, grid.marked, grid.groups) == ([[0, 2], [1, 0]], [1, 2], [2], [1])
    grid.set_values(np.ones((4, 2)), 5, rows="abcd", cols="xy")
    assert len(sent) == 2
    assert (grid.selected, grid.cursor, grid.marked, grid.limit) == ([[1, 0]], None, [], 5)
    assert grid.alt == "T: 4 x 2, Layer"
    with pytest.raises(ValueError, match="rows has 4 labels"):
        grid.set_values(np.ones((3, 2)))
    assert grid.shape == [4, 2]
    assert calls == []


# ------------------------------------------------------------------ selection from Python


def test_words_are_of_the_values_and_go_with_them() -> None:
    grid = make()
    grid.set_values(VALUES, words=[["a", "b\n", "c"], ["d", "e", "f"]])
    assert grid.words == [["a", "b⏎", "c"], ["d", "e", "f"]]
    for wrong in ([["a"]], [["a", "b", "c"]], [["a", "b", "c"], ["d"]]):
        with pytest.raises(ValueError, match="words must be 2 rows of 3 texts"):
            grid.set_values(VALUES, words=wrong)
    assert grid.words[0][0] == "a", "nothing has changed"
    grid.set_values(VALUES)
    assert grid.words == []


class Interrupted(HeatGrid):
    """A grid whose first message takes long: ``meanwhile`` happens while it is sent."""

    def __init__(self) -> None:
        super().__init__([[0.0]], rows=["L0"], cols=["H0"])
        self.meanwhile: Any = None
        self.sent: list[set[str]] = []

    def send_state(self, key: Any = None) -> None:
        if hasattr(self, "sent"):
            self.sent.append({key} if isinstance(key, str) else set(key or ()))
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile is not None:
                meanwhile()
        super().send_state(key)


def test_what_another_thread_changes_while_a_message_is_sent_is_sent_too() -> None:
    grid, begun, sent = Interrupted(), threading.Event(), threading.Event()

    def change() -> None:
        with grid.hold_sync():
            grid.title = "11 of 30"
            begun.set()
            assert sent.wait(10)

    thread = threading.Thread(target=change)

    def start() -> None:
        thread.start()
        assert begun.wait(10)

    grid.meanwhile = start
    with grid.hold_sync():
        grid.unit = "logits"
    sent.set()
    thread.join(10)
    assert any("unit" in one for one in grid.sent) and any("title" in one for one in grid.sent)


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


# ------------------------------------------------------------------ messages from the browser

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


def test_the_words_for_screen_readers_follow_the_map() -> None:
    """In whatever order title, axes and size change."""
    grid = make(title="Trace", col_title="Token")
    with grid.hold_sync():
        grid.title, grid.col_title = "Trace (swap)", "Token, from the subject on"
        grid.set_values(np.ones((4, 2)), rows="abcd", cols="xy")
    assert grid.alt == "Trace (swap): 4 x 2, Layer by Token, from the subject on"
    grid.alt = "Mine"
    grid.set_values(np.ones((1, 2)), rows="a", cols="xy")
    grid.title = "Another"
    assert grid.alt == "Mine"
    given = make(alt="")
    given.title = "T"
    assert given.alt == ""


def test_labels_with_no_glyph_are_their_code() -> None:
    assert make(cols=["\u202eabc", "a\u2069", "שלום"]).cols == ["\\u202eabc", "a\\u2069", "שלום"]


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


# ------------------------------------------------------------------ the picture


def where(image: np.ndarray, color: Any) -> np.ndarray:
    return np.argwhere((image == np.asarray(color)).all(axis=-1))


def test_png_shows_the_values_as_colours() -> None:
    image = decode(heat_map_png(np.array([[-1.0, 0.0, 1.0], [1.0, np.nan, 0.0]]), rows="ab", cols="xyz"))
    lowest, highest = (5, 48, 97), (103, 0, 31)
    # Cells are 28 x 20: one of the lowest value, two of the highest, apart from the ends of the colour bar.
    top = where(image, lowest)[0]
    cell = image[top[0] : top[0] + 20, top[1] : top[1] + 28]
    assert (cell == lowest).all()
    third = image[top[0] : top[0] + 20, top[1] + 56 : top[1] + 84]
    assert (third == highest).all()
    assert (image[top[0] + 20 : top[0] + 40, top[1] : top[1] + 28] == highest).all()
    middle = image[top[0] + 20 : top[0] + 40, top[1] + 28 : top[1] + 56]
    colors = {tuple(int(i) for i in pixel) for pixel in middle.reshape(-1, 3)}
    assert colors == {(255, 255, 255), (150, 150, 150)}  # hatched


def test_png_marks_what_is_selected() -> None:
    grid = make(np.zeros((2, 3)))
    plain = decode(grid.to_png()).astype(int)
    grid.selected = [(1, 2)]
    marked = decode(grid.to_png()).astype(int)
    rows, cols = np.nonzero(np.abs(plain - marked).sum(axis=-1))
    assert (rows.max() - rows.min() + 1, cols.max() - cols.min() + 1) == (20, 28)  # within one cell


@pytest.mark.parametrize("shape", [(30, 9), (30, 1), (30, 40), (80, 512), (1, 200), (1, 1)])
def test_png_of_every_shape_has_its_labels(shape: tuple[int, int]) -> None:
    grid = make(
        np.zeros(shape),
        title="A title",
        col_title="Column",
        unit="logits",
        cols=[f"token {i}" for i in range(shape[1])],
    )
    image = decode(grid.to_png())
    assert image.shape[0] < 1200
    assert image.shape[1] < 1200
    # Nothing touches the border, so nothing was cut there.
    for line in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert (line == 255).all()


def test_png_text() -> None:
    assert text_mask("").shape == (14, 0)
    assert text_mask("ab").shape == (14, 24)
    assert (text_mask("é") == text_mask("e")).all()
    assert (text_mask("漢") == text_mask("語")).all()  # a box
    assert not (text_mask("漢") == text_mask("e")).all()
    bar = text_mask("|")[::2, ::2]
    assert bar.tolist() == [[False, False, True, False, False, False]] * 7
    assert len({text_mask(chr(i)).tobytes() for i in range(33, 127)}) == 94  # every printable character looks different


def test_png_of_hostile_labels() -> None:
    bad = "<img src=x onerror=alert(1)>" * 50
    assert decode(make(rows=[bad, ""], cols=[bad, "\0", "\U0001f600"], title="x").to_png()).shape[1] < 2000


def test_label_steps() -> None:
    assert [step(18, size) for size in (20, 18, 9, 4, 2, 1, 0.5)] == [1, 1, 2, 5, 10, 20, 50]


def test_mimebundle_carries_a_picture_and_a_fixed_text() -> None:
    grid = make()
    bundle = grid._repr_mimebundle_()
    assert bundle is not None
    data, _ = bundle
    assert data["text/plain"] == "HeatGrid(2 x 3, 0 selected)"
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == grid.model_id
    assert base64.b64decode(data["image/png"]) == grid.to_png()
    assert grid.snapshot().data == grid.to_png()
