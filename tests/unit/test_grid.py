"""HeatGrid without a browser: what it takes as values, labels and words, that it sends them, and its picture."""

from __future__ import annotations

import base64
import math
import threading
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.pictures import decode
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.grid.png import heat_map_png, step
from workbench.widgets.shared.pixels import text_mask

VALUES = np.array([[0.0, 1.0, -2.0], [0.5, math.nan, 2.0]])


def make(values: Any = VALUES, **options: Any) -> HeatGrid:
    n_rows, n_cols = values.shape
    labels: dict[str, Any] = {"rows": range(n_rows), "cols": range(n_cols)}
    return HeatGrid(values, **labels | options)


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
