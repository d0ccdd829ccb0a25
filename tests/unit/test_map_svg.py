"""A map as SVG: cells, colours in both themes, labels, marks; numbers as in the browser."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from bs4 import BeautifulSoup, Tag

from workbench.plots.colours import colour_scale
from workbench.plots.map_svg import HeatMap, heat_map_svg
from workbench.plots.saved_map import heat_map_of
from workbench.widgets.grid.grid import HeatGrid


def grid(values: np.ndarray, **options: object) -> HeatMap:
    """The map of a widget's traits."""
    n_rows, n_cols = values.shape
    given = {"rows": [f"L{r}" for r in range(n_rows)], "cols": [f"H{c}" for c in range(n_cols)], **options}
    widget = HeatGrid(values, **given)
    heat = heat_map_of({name: getattr(widget, name) for name in widget.keys})
    assert heat is not None
    return heat


def svg(heat: HeatMap) -> BeautifulSoup:
    return BeautifulSoup(heat_map_svg(heat, "m"), features="html.parser")


def cells(soup: BeautifulSoup) -> list[Tag]:
    return [cell for cell in soup.select("rect") if cell.select("title")]


def test_each_cell_has_its_colour_its_name_and_its_value() -> None:
    soup = svg(grid(np.array([[2.0, 0.0, -2.0], [1.0, np.nan, 0.25]]), unit="logits", limit=2.0, col_title="Head"))
    assert [cell.text for cell in cells(soup)] == [
        "L0, H0: 2 logits", "L0, H1: 0 logits", "L0, H2: −2 logits",
        "L1, H0: 1 logits", "L1, H1: no value", "L1, H2: 0.25 logits",
    ]  # fmt: skip
    scale = colour_scale("RdBu")
    first, zero, last = cells(soup)[:3]
    assert (first["fill"], last["fill"]) == (scale.stops[-1], scale.stops[0])
    assert first["style"] == f"fill: light-dark({scale.stops[-1]}, {scale.dark[-1]})"
    # Of 256 levels none is exactly the middle of an odd scale.
    assert all(int(str(zero["fill"])[at : at + 2], 16) > 250 for at in (1, 3, 5))
    (none,) = soup.select("rect.wbm-none")
    assert none.text.endswith("no value")
    (hatched,) = soup.select('rect[fill="url(#m-h)"]')
    assert hatched["width"] == f"{3 * 32:.1f}"
    assert not svg(grid(np.zeros((2, 3)))).select('rect[fill^="url("]')


def test_labels_bar_marks_and_words() -> None:
    heat = grid(
        np.array([[4.0, 1.0, 0.0], [1.0, 2.0, 0.0]]), row_title="Layer", col_title="Token", marked=[1], groups=[0, 2],
        title="Trace", unit="P", scale="viridis", cols=["a", "·Paris", "."],
    )  # fmt: skip
    heat = HeatMap(**{**vars(heat), "selected": [(1, 1)]})
    soup = svg(heat)
    words = [text.text for text in soup.select("text")]
    assert words[:4] == ["0", "2", "4", "P"]  # the colour bar of a scale that begins at zero
    assert words[4:] == ["L0", "L1", "Layer", "a", "★·Paris", ".", "Token"]
    assert len(soup.select(".wbm-picked")) == len(soup.select(".wbm-dot")) == 1
    assert len(soup.select(".wbm-ink")) == 2  # one group, one marked column
    root = soup.svg
    assert root is not None and root["role"] == "img"
    assert root["aria-label"] == "Trace: 2 x 3, Layer by Token. 1 cell selected: L1, ·Paris"


def test_words_stand_in_the_cells_that_have_a_value_cut_and_isolated() -> None:
    widget = HeatGrid([[0.0, 1.0], [np.nan, 0.5]], rows="ab", cols="xy", scale="viridis")
    widget.set_values(widget.values, limit=1.0, words=[["·Paris", "a" * 40], ["no", "<b>אב"]])
    heat = heat_map_of({name: getattr(widget, name) for name in widget.keys})
    assert heat is not None
    drawn = svg(heat).select("text.wbm-word")
    assert [word.text for word in drawn] == ["\u2068·Paris\u2069", f"\u2068{'a' * 11}…\u2069", "\u2068<b>אב\u2069"]
    assert [str(word["style"]) for word in drawn][:2] == [f"fill: light-dark({c}, {c})" for c in ("#fff", "#000")]
    assert len(svg(grid(np.ones((2, 2)))).select("text.wbm-word")) == 0


def test_whole_rows_are_counted_as_what_they_are() -> None:
    heat = grid(np.ones((4, 3)), title="Trace")
    rows = HeatMap(**{**vars(heat), "row_unit": "layer", "selected": [(r, c) for r in (1, 3) for c in range(3)]})
    assert rows.status == "2 layers selected, at all positions: L1, L3"


@pytest.mark.parametrize("shape", [(30, 9), (30, 1), (1, 60), (4, 15), (80, 40)])
def test_everything_is_inside_the_picture_and_labels_do_not_touch(shape: tuple[int, int]) -> None:
    heat = grid(
        np.ones(shape), row_title="Layer", col_title="Head", unit="logits", cols=[f"·token{c}" for c in range(shape[1])]
    )
    soup = svg(heat)
    root = soup.svg
    assert root is not None
    width, height = float(str(root["width"])), float(str(root["height"]))
    for text in soup.select("text"):
        x, y, reach = float(str(text["x"])), float(str(text["y"])), 6.3 * len(text.text)
        start = {"start": x, "middle": x - reach / 2, "end": x - reach}[str(text["text-anchor"])]
        if "rotate" not in str(text.get("transform", "")):
            assert start >= -1 and start + reach <= width + 1, text
        assert 0 <= y <= height, text
    rows = [float(str(t["y"])) for t in soup.select("text") if re.fullmatch(r"L\d+", t.text)]
    assert all(b - a >= 13 for a, b in pairwise(rows))


def test_a_large_map_is_one_path_for_each_colour() -> None:
    values = np.arange(80 * 100, dtype=float).reshape(80, 100) % 7
    values[3, 4] = np.nan
    source = heat_map_svg(grid(values), "m")
    paths = BeautifulSoup(source, features="html.parser").select("path[fill]")
    assert len(paths) == 7
    assert sum(str(path["d"]).count("M") for path in paths) == 80 * 100 - 1
    assert len(source) < 400_000


def test_a_symmetric_log_shows_what_is_small_and_a_cell_is_named_as_in_the_browser() -> None:
    values = np.array([[16.0, 1.0], [-16.0, 0.0]])
    options = {"naming": "{row}{col}", "group_name": "KV", "groups": [0, 1], "col_title": "Head"}
    linear, log = (grid(values, scale_mode=mode, **options) for mode in ("linear", "symlog"))
    assert linear.name(0, 1) == "L0H1" and log.status == ""
    pale, strong = (int(str(cells(svg(heat))[1]["fill"])[3:5], 16) for heat in (linear, log))
    assert pale > 230 > strong  # green in a red
    assert [t.text for t in svg(linear).select("text")][:3] == ["−16", "0", "16"]
    assert len([t for t in svg(log).select("text") if t.text.lstrip("−").isdecimal()]) == 5
    assert [t.text for t in svg(linear).select("text") if t.text.startswith("KV")] == ["KV0", "KV1"]
    assert grid(np.ones((2, 3)), naming="{row} at {col}", cols=["0", "1", "2"], col_title="Token").name(1, 2) == (
        "L1 at Token 2"
    )
