"""Heat maps as figures on a symmetric log and on a clipped scale: other colours, the same values on hover."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers.results import head_map, layer_map, neuron_map, trace
from workbench import plots
from workbench.plots.colours import ColourAxis, clip_limit


def values_of(effect: object) -> np.ndarray:
    return effect.values.numpy()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("make", [trace, head_map])
def test_a_symmetric_log_colours_by_place_and_hover_has_the_value(make: object) -> None:
    effect = make()  # pyright: ignore[reportCallIssue]
    figure = plots.effect_figure(effect, scale="symlog")
    (heat,), axis = figure.data, figure.layout.coloraxis
    limit = float(np.nanmax(np.abs(values_of(effect))))
    np.testing.assert_allclose(np.array(heat.z, dtype=float), ColourAxis("symlog", limit).place(values_of(effect)))
    assert (axis.cmin, axis.cmax) == (-1.0, 1.0) and len(axis.colorbar.ticktext) == 5
    assert axis.colorbar.ticktext[2] == "0" and list(axis.colorbar.tickvals) == sorted(axis.colorbar.tickvals)
    assert "%{z" not in heat.hovertemplate and "<b>%{customdata[4]}</b>" in heat.hovertemplate
    assert [[cell[4] for cell in row] for row in heat.customdata] == [
        [f"{v:.4f}" for v in row] for row in values_of(effect)
    ]
    assert "symmetric log, linear up to ±" in figure.layout.title.subtitle.text


def test_a_clipped_scale_ends_at_the_percentile_and_says_so() -> None:
    effect = trace()
    limit = float(effect.values.abs().max())
    end = clip_limit(effect.values.numpy(), limit)
    assert end < limit
    figure = plots.effect_figure(effect, scale="clip")
    (heat,), axis = figure.data, figure.layout.coloraxis
    assert torch.tensor(heat.z).equal(effect.values) and axis.cmax == -axis.cmin == pytest.approx(end)
    assert axis.colorbar.ticktext[0].startswith("≤−") and axis.colorbar.ticktext[2].startswith("≥")
    assert "99th percentile" in figure.layout.title.subtitle.text


def test_the_linear_scale_is_as_it_was_and_a_limit_goes_with_each() -> None:
    assert plots.effect_figure(trace(), scale="linear").to_json() == plots.effect_figure(trace()).to_json()
    figure = plots.effect_figure(trace(), scale="symlog", zlim=2.0)
    assert figure.layout.coloraxis.colorbar.ticktext[-1] == "2" and np.abs(np.array(figure.data[0].z)).max() < 1


def test_other_scales_and_bars_are_refused() -> None:
    with pytest.raises(ValueError, match="one of"):
        plots.effect_figure(trace(), scale="log")  # pyright: ignore[reportArgumentType]
    for effect in (layer_map(), neuron_map()):
        with pytest.raises(ValueError, match="scale='symlog' is for the colours of heat maps"):
            effect.plot(scale="symlog")
