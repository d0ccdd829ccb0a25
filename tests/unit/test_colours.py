"""The colours of figures, PNG pictures and maps come from one table, and RdBu's are what they always were."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from plotly.colors import sequential
from traitlets import TraitError

from tests.helpers.pictures import decode
from workbench.plots import DIVERGING
from workbench.plots.colours import COLOUR_SCALES, ColourAxis, ColourScale, clip_limit, colour_scale
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


# ------------------------------------------------------------------ where a value lies on a scale

HEADS = np.array([[16.4, 2.41, 1.65, 0.0, -1.65, np.nan]])


def test_a_symmetric_log_tells_small_values_apart() -> None:
    axis = ColourAxis("symlog", 16.4)
    # log(1 + 30 |v| / limit) / log 31, by hand: log 5.4085 = 1.6880, log 4.0183 = 1.3909, log 31 = 3.4340
    np.testing.assert_allclose(axis.place(HEADS)[0, :5], [1, 0.4915, 0.4050, 0, -0.4050], atol=1e-4)
    assert np.isnan(axis.place(HEADS)[0, 5])
    colours = RDBU.rgb(axis.place(HEADS)).astype(int)[0]
    assert np.abs(colours[1] - colours[2]).sum() > 25 and np.abs(colours[2] - colours[3]).sum() > 150
    linear = RDBU.rgb(ColourAxis("linear", 16.4).place(HEADS)).astype(int)[0]
    assert np.abs(linear[2] - linear[3]).sum() < 50  # what it is for


def test_a_clipped_axis_ends_at_a_magnitude_that_is_there() -> None:
    values = np.concatenate([np.full(297, -0.5), [16.4, -9.0, 8.0]])[None]
    assert clip_limit(values, 16.4) == 0.5
    assert clip_limit(values, 0.25) == 0.25  # at most the limit
    assert clip_limit(np.zeros((2, 3)), 1.0) == 1.0
    assert clip_limit(np.full((2, 3), np.nan), 1.0) == 1.0
    axis = ColourAxis("clip", 16.4, 0.5)
    assert axis.place(np.array([16.4, -9.0, 0.25])).tolist() == [1, -1, 0.5]
    assert (axis.end, axis.cut, ColourAxis("linear", 16.4, 0.5).cut) == (0.5, True, False)


@pytest.mark.parametrize("mode", ["linear", "symlog", "clip"])
@pytest.mark.parametrize("low", [-1.0, 0.0])
@pytest.mark.parametrize("limit", [1e-6, 0.03, 1.0, 16.4, 12345.0])
def test_ticks_stand_where_their_values_are(mode: Any, low: float, limit: float) -> None:
    axis = ColourAxis(mode, limit, limit / 7)
    places, values = (np.array(each) for each in zip(*axis.ticks(low), strict=True))
    np.testing.assert_allclose(axis.place(values), places, atol=1e-12)
    assert (places[0], places[-1]) == (low, 1) and values[-1] == axis.end
    assert (np.diff(places) > 0.2).all()  # room for the numbers
    if mode == "symlog":
        assert f"{values[-2]:.0e}"[0] in "125" and values[-2] == pytest.approx(float(f"{values[-2]:.0e}"))


def test_a_map_and_its_picture_have_the_mode() -> None:
    grid = HeatGrid(HEADS[:, :5], rows="a", cols=range(5), scale_mode="symlog")
    third = RDBU.rgb(ColourAxis("symlog", 16.4).place(np.array([1.65])))[0]
    assert (decode(grid.to_png()) == third).all(axis=-1).sum() > 200
    grid.scale_mode = "linear"
    assert (decode(grid.to_png()) == third).all(axis=-1).sum() < 200
    grid.scale_mode = "clip"
    assert grid.clip == pytest.approx(2.41)  # of five magnitudes the fourth
    with pytest.raises(TraitError, match=r"one of \['linear', 'symlog', 'clip'\], not 'log'"):
        grid.scale_mode = "log"
    with pytest.raises(ValueError, match="not 'log'"):
        HeatGrid([[1.0]], rows="a", cols="b", scale_mode="log")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="not 'log'"):
        ColourAxis("log")  # pyright: ignore[reportArgumentType]
    assert grid.scale_mode == "clip"
