"""Labels of a colour bar never touch, whatever its scale and its width; ink on a colour can be read."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from workbench.plots.colour_bar import GAP, ink_on, tick_labels
from workbench.plots.colours import COLOUR_SCALES, ColourAxis, ScaleMode
from workbench.plots.map_svg import HeatMap, heat_map_svg

PX = 6.3


def measure(text: str) -> float:
    return PX * len(text)


@given(
    mode=st.sampled_from(["linear", "symlog", "clip"]),
    limit=st.floats(1e-6, 1e6),
    part=st.floats(0.01, 1),
    low=st.sampled_from([-1.0, 0.0]),
    width=st.floats(140, 400),
)
def test_no_two_labels_touch_and_the_ends_are_there(
    mode: ScaleMode, limit: float, part: float, low: float, width: float
) -> None:
    labels = tick_labels(ColourAxis(mode, limit, clip=limit * part), low, width, measure)
    assert all(x + measure(text) + GAP <= after for (x, text), (after, _) in pairwise(labels))
    assert labels[0][0] == 0 and labels[-1][0] + measure(labels[-1][1]) == pytest.approx(width)


def test_what_has_room_is_written() -> None:
    symlog = ColourAxis("symlog", 16.4)
    assert [text for _, text in tick_labels(symlog, -1.0, 400, measure)] == ["−16.4", "−2", "0", "2", "16.4"]
    assert [text for _, text in tick_labels(symlog, -1.0, 100, measure)] == ["−16.4", "0", "16.4"]
    assert [text for _, text in tick_labels(ColourAxis("clip", 16.4, 2.0), -1.0, 200, measure)] == ["≤−2", "0", "≥2"]


@pytest.mark.parametrize("columns", [1, 4, 9, 40])
def test_a_drawn_bar_has_no_label_over_another(columns: int) -> None:
    heat = HeatMap(np.full((2, columns), 0.5), ["L0", "L1"], [""] * columns, axis=ColourAxis("symlog", 16.4))
    texts = [
        t for t in BeautifulSoup(heat_map_svg(heat, "m"), features="html.parser").select("text") if t["y"] == "28.0"
    ]
    places = [(float(str(t["x"])), measure(t.text)) for t in texts]
    assert len(places) >= 3 and all(x + size < after for (x, size), (after, _) in pairwise(places))


def test_ink_can_be_read_on_every_colour_of_every_scale() -> None:
    def light(rgb: np.ndarray) -> float:
        part = rgb / 255
        return float(
            np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    for scale in COLOUR_SCALES:
        for rgb in scale.rgb(np.linspace(scale.low, 1, 50)).astype(float):
            ink = 0.0 if ink_on(rgb) == "#000" else 1.0
            high, low = max(light(rgb), ink), min(light(rgb), ink)
            assert (high + 0.05) / (low + 0.05) >= 4.5
    assert (ink_on(np.array([255, 255, 255])), ink_on(np.array([0, 0, 0]))) == ("#000", "#fff")
