"""The colours of figures, PNG pictures and maps come from one table, and RdBu's are what they always were."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from plotly.colors import sequential

from tests.helpers.pictures import decode
from workbench.plots import DIVERGING
from workbench.plots.colours import COLOUR_SCALES, ColourScale, colour_scale
from workbench.plots.style import COLORSCALE, NEGATIVE, POSITIVE
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.grid.png import heat_map_png

NAMES = [scale.name for scale in COLOUR_SCALES]
RDBU = colour_scale("RdBu")
PIXELS = "0db1e648500bdb32fd15fd0c61d1b0bfe99e74c715d3e6136ad6768798a6a797"


def test_rdbu_is_the_same_for_plotly() -> None:
    assert (
        COLORSCALE
        == RDBU.plotly
        == [
            [0.0, "#053061"],
            [0.1, "#2166ac"],
            [0.2, "#4393c3"],
            [0.3, "#92c5de"],
            [0.4, "#d1e5f0"],
            [0.5, "#ffffff"],
            [0.6, "#fddbc7"],
            [0.7, "#f4a582"],
            [0.8, "#d6604d"],
            [0.9, "#b2182b"],
            [1.0, "#67001f"],
        ]
    )
    assert tuple(color for _, color in COLORSCALE) == DIVERGING
    assert (NEGATIVE, POSITIVE) == ("#2166ac", "#b2182b")


def test_rdbu_is_the_same_in_a_picture() -> None:
    """The hash of the pixels that were drawn when png.py had its own colours."""
    values = np.linspace(-1.2, 1.2, 60).reshape(6, 10).astype(np.float32)
    values[2, 3] = np.nan
    png = heat_map_png(
        values,
        rows=list("abcdef"),
        cols=[f"t{i}" for i in range(10)],
        title="T",
        row_title="Layer",
        col_title="Token",
        unit="logits",
        limit=1.0,
        groups=[0, 5],
        marked=[2],
        selected=[[1, 2]],
    )
    assert hashlib.sha256(decode(png).tobytes()).hexdigest() == PIXELS


def test_viridis_is_matplotlibs() -> None:
    assert list(colour_scale("viridis").stops) == sequential.Viridis


@pytest.mark.parametrize("name", NAMES)
def test_every_scale_reaches_its_ends_everywhere(name: str) -> None:
    scale = colour_scale(name)
    first, last = ([int(color[at : at + 2], 16) for at in (1, 3, 5)] for color in (scale.stops[0], scale.stops[-1]))
    values = np.array([[scale.low, 0, 1.0, 7.0, np.nan]])
    rgb = scale.rgb(values)
    assert rgb.shape == (1, 5, 3)
    assert rgb[0, 0].tolist() == first
    assert rgb[0, 2].tolist() == rgb[0, 3].tolist() == last
    assert (rgb[0, 1] == rgb[0, 4]).all()
    grid = HeatGrid(values[:, :4], rows=["a"], cols=range(4), scale=name, limit=1)
    assert grid.colours == scale.browser
    image = decode(grid.to_png())
    assert (image == last).all(axis=-1).any()
    assert scale.plotly[0][1] == scale.stops[0]
    assert [place for place, _ in scale.plotly] == sorted({place for place, _ in scale.plotly})


def test_a_sequential_scale_begins_at_zero() -> None:
    scale = colour_scale("viridis")
    assert (scale.low, scale.rgb(np.array(0.5)).tolist()) == (0.0, [34, 144, 140])  # between #26828e and #1f9e89
    with pytest.raises(ValueError, match=r"2 values are below zero, down to -2, .* 'viridis' begins"):
        HeatGrid([[-1.0, -2.0, 3.0]], rows="a", cols="xyz", scale="viridis")
    grid = HeatGrid([[0.0, 0.5, np.nan]], rows="a", cols="xyz", scale="viridis")
    with pytest.raises(ValueError, match="1 values are below zero"):
        grid.set_values([[0.0, -0.5, 1.0]])
    assert grid.values[0, 1] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stops": ("#000000", "red")}, r'"#rrggbb" in lower case, not \'red\''),
        (
            {"stops": ("#000000", "#ffffff")},
            "diverging colour scale 'x' needs an odd number of stops, at least 3, not 2",
        ),
        ({"stops": ("#000000",), "kind": "sequential"}, "needs at least 2 stops, not 1"),
        ({"dark": ("#000000", "#ffffff")}, "has 3 stops, but 2 dark"),
    ],
)
def test_a_wrong_scale_is_refused(options: dict[str, Any], message: str) -> None:
    given = {"name": "x", "kind": "diverging", "stops": ("#000000", "#111111", "#222222"), **options}
    with pytest.raises(ValueError, match=message):
        ColourScale(**given)


def test_names_are_unique_and_others_are_refused() -> None:
    assert len(set(NAMES)) == len(NAMES)
    with pytest.raises(ValueError, match=r"no colour scale 'Viridis'; there are 'RdBu', 'viridis'\. Did you mean"):
        HeatGrid([[1.0]], rows="a", cols="b", scale="Viridis")
