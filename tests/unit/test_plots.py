"""Each figure shows the numbers that it is given and marks what it must."""

from __future__ import annotations

import math

import pytest
import torch

from tests.helpers.results import PROBABILITIES, TOKENS, edit, head_map, layer_map, neuron_map, prompt, report, trace
from workbench import plots
from workbench.editing.methods.table import Recipe


def test_results_plot_themselves() -> None:
    assert trace().plot(zlim=0.5).to_json() == plots.effect_figure(trace(), zlim=0.5).to_json()
    assert edit().plot().to_json() == plots.history_figure(edit()).to_json()
    assert report().plot().to_json() == plots.rates_figure(report()).to_json()


# --- effect maps ------------------------------------------------------------------------------------------------------


def test_trace_shows_the_values() -> None:
    effect = trace()
    figure = plots.effect_figure(effect)
    (heat,) = figure.data
    assert torch.tensor(heat.z).equal(effect.values)
    assert list(heat.x) == list(range(7))
    assert list(heat.y) == [0, 1, 2]
    axis = figure.layout.coloraxis
    assert heat.coloraxis == "coloraxis"
    assert -axis.cmin == axis.cmax == pytest.approx(effect.values.abs().max().item())
    assert axis.cmid == 0
    assert axis.colorscale[5] == (0.5, "#ffffff")
    assert axis.colorbar.title.text == "effect on probability"
    assert figure.layout.yaxis.range[0] < figure.layout.yaxis.range[1]  # layer 0 at the bottom
    assert list(figure.layout.yaxis.ticktext) == ["L0", "L1", "L2"]


def test_trace_labels_keep_equal_tokens_apart_and_show_white_space() -> None:
    axis = plots.effect_figure(trace()).layout.xaxis
    assert list(axis.tickvals) == list(range(7))
    assert list(axis.ticktext) == ["The", "·capital", "·of", "·of", "<b>·France *</b>", "⏎", "·is"]


def test_trace_marks_the_subject_with_a_bracket_per_run() -> None:
    figure = plots.effect_figure(trace(subject=(1, 2, 5)))
    brackets = [s for s in figure.layout.shapes if s.type == "path"]
    assert [s.path.split()[1] for s in brackets] == ["0.5", "4.5"]
    assert [s.path.split()[7] for s in brackets] == ["2.5", "5.5"]
    assert [a.text for a in figure.layout.annotations] == ["subject", "subject"]
    assert [a.x for a in figure.layout.annotations] == [1.5, 5.0]
    assert "bracket: subject" in figure.layout.title.subtitle.text


def test_trace_says_baselines_and_hover() -> None:
    figure = plots.effect_figure(trace())
    assert "clean 0.812, corrupted 0.034" in figure.layout.title.subtitle.text
    assert "n = 10" in figure.layout.title.subtitle.text
    (heat,) = figure.data
    assert list(heat.customdata[2][4]) == ["L2", "·France (subject)", "0.0130", "4"]
    for place in ("%{customdata[0]}", "%{customdata[1]}", "%{customdata[2]}", "%{customdata[3]}", "%{z"):
        assert place in heat.hovertemplate
    (alone,) = plots.effect_figure(trace(stderr=None, n=1)).data
    assert alone.customdata[0][0][2] == "none, n = 1"


def test_trace_of_roles_keeps_their_names() -> None:
    roles = ("before", "first subject token", "last subject token", "last")
    figure = plots.effect_figure(trace(roles, (), prompts=(prompt(TOKENS, (4,)), prompt(TOKENS, (4,)))))
    assert list(figure.layout.xaxis.ticktext) == [
        "before",
        "<b>first subject token *</b>",
        "<b>last subject token *</b>",
        "last",
    ]
    assert figure.layout.xaxis.title.text == "Position (role)"


def test_limit_missing_and_zero_values() -> None:
    figure = plots.effect_figure(trace(), zlim=0.05)
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-0.05, 0.05)
    assert "Scale cut" in figure.layout.title.subtitle.text
    values = trace().values.clone()
    values[0, 0], values[1, 1] = math.nan, math.inf
    holes = plots.effect_figure(trace(values=values))
    assert holes.data[0].z[0][0] is None
    assert holes.data[0].z[1][1] is None
    assert holes.layout.coloraxis.cmax == pytest.approx(0.15)
    assert "Grey: no value" in holes.layout.title.subtitle.text
    assert "NaN" not in holes.to_json()
    zero = plots.effect_figure(trace(values=torch.zeros(3, 7)))
    assert (zero.layout.coloraxis.cmin, zero.layout.coloraxis.cmax) == (-1, 1)


def test_long_chat_prompt_stays_readable() -> None:
    figure = plots.effect_figure(trace(tuple(f" token{i}" for i in range(45)), (30, 31), layers=30))
    margins = figure.layout.margin
    column = (figure.layout.width - margins.l - margins.r) / 45
    row = (figure.layout.height - margins.t - margins.b) / 30
    assert column >= figure.layout.xaxis.tickfont.size + 2
    assert row >= 12
    assert figure.layout.xaxis.tickangle == -90
    assert len(figure.layout.xaxis.ticktext) == 45
    assert figure.layout.width <= 1200


def test_head_grid_with_groups() -> None:
    effect = head_map()
    figure = plots.effect_figure(effect, group_size=3)
    assert torch.tensor(figure.data[0].z).equal(effect.values)
    assert list(figure.layout.xaxis.ticktext) == [f"H{i}" for i in range(6)]
    assert [s.x0 for s in figure.layout.shapes] == [2.5]
    assert [a.text for a in figure.layout.annotations] == ["KV0", "KV1"]
    assert figure.layout.coloraxis.colorbar.title.text == "effect on logit difference (logits)"
    assert "no corruption" in figure.layout.title.subtitle.text
    assert not plots.effect_figure(effect).layout.shapes


def test_layer_bars_with_error_bars() -> None:
    figure = plots.effect_figure(layer_map())
    (bars,) = figure.data
    assert list(bars.y) == [0.5, -0.25, 1.0, 0.0]
    assert list(bars.error_y.array) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert bars.marker.color[0] != bars.marker.color[1]
    assert list(figure.layout.xaxis.ticktext) == ["L0", "L1", "L2", "L3"]
    assert plots.effect_figure(layer_map(stderr=False)).data[0].error_y.visible is False


def test_neuron_ranking() -> None:
    (bars,) = plots.effect_figure(neuron_map(), n_neurons=3).data
    figure = plots.effect_figure(neuron_map(), n_neurons=3)
    assert list(bars.x) == pytest.approx([-0.7, 0.5, 0.9])
    assert list(figure.layout.yaxis.ticktext) == ["L2N3", "L5N0", "L13N7"]  # the last is drawn at the top
    assert bars.marker.color[1] == bars.marker.color[2] != bars.marker.color[0]
    assert "3 largest of 126" in figure.layout.title.subtitle.text


def test_effect_figure_refuses_bad_options() -> None:
    with pytest.raises(ValueError, match="zlim must be a positive number"):
        plots.effect_figure(trace(), zlim=0.0)
    with pytest.raises(ValueError, match="n_neurons must be"):
        plots.effect_figure(neuron_map(), n_neurons=0)
    with pytest.raises(ValueError, match="group_size must divide"):
        plots.effect_figure(head_map(), group_size=4)
    with pytest.raises(ValueError, match=r"No figure for a map with the axes \('position',\)"):
        plots.effect_figure(trace(values=torch.zeros(7), axes=("position",), stderr=None))


# --- the fit ----------------------------------------------------------------------------------------------------------


def test_history_counts_steps_through_the_stages() -> None:
    figure = plots.history_figure(edit())
    loss, kl, old, new, refusal = figure.data
    assert list(loss.x) == [0, 1, 2, 2, 3], "updates so far: the first stage made two, the second one"
    assert list(loss.y) == [4.0, 3.0, 2.0, 5.0, 4.0]
    assert list(kl.y) == pytest.approx([0.0, 0.1, 0.2, 0.5, 0.5])
    assert list(old.y) == pytest.approx([0.8, None, 0.2, None, None])
    assert list(new.y) == [None, None, None, 0.0, 0.4]
    assert all(t.connectgaps for t in figure.data)
    assert [t.name for t in (old, new, refusal)] == ["old: Paris", "new: Rome", "refusal"]
    assert len({t.line.dash for t in (old, new, refusal)}) == 3
    assert len({t.marker.symbol for t in (old, new, refusal)}) == 3
    assert {t.xaxis for t in figure.data} == {"x"}
    assert (loss.yaxis, kl.yaxis, old.yaxis) == ("y3", "y2", "y")


def test_history_marks_the_stage_boundary() -> None:
    figure = plots.history_figure(edit())
    (line,) = figure.layout.shapes
    assert (line.x0, line.x1, line.y0, line.y1, line.yref) == (2, 2, 0, 1, "paper")
    (label,) = figure.layout.annotations
    assert label.x == 2
    assert label.text.startswith("unlearn")
    assert label.text.endswith("learn")


def test_history_without_steps_or_retain_term() -> None:
    empty = edit(recipe=Recipe(retain_weight=0))
    object.__setattr__(empty, "history", ())
    figure = plots.history_figure(empty)
    assert all(len(t.x) == 0 for t in figure.data)
    assert not figure.layout.shapes
    assert "no steps recorded" in figure.layout.title.subtitle.text
    assert "no<br>retain term" in figure.layout.yaxis2.title.text


# --- stages side by side ----------------------------------------------------------------------------------------------


def test_rates_with_intervals() -> None:
    figure = plots.rates_figure(report())
    base, learn = figure.data
    assert (base.name, learn.name) == ("base", "learn")
    assert list(base.y) == [0.0, 1.0]
    assert list(learn.y) == [1.0, 0.75, 0.9, -0.01, 0.0]
    assert [c[0] for c in learn.customdata] == ["new", "forget", "control", "gibberish", "bleed"]
    assert list(learn.error_y.array) == pytest.approx([0.0, 0.15, 0.05, 0.03, 0.1])
    assert list(learn.error_y.arrayminus) == pytest.approx([0.3, 0.35, 0.1, 0.02, 0.0])
    assert [round(x) for x in learn.x] == [0, 1, 2, 4, 5]
    assert base.marker.symbol != learn.marker.symbol
    low, high = figure.layout.yaxis.range
    assert low < -0.03
    assert high > 1


def test_rates_names_what_is_left_out() -> None:
    figure = plots.rates_figure(report())
    assert "Not shown, no value: neighbour; forget, gibberish, bleed (base)." in figure.layout.title.subtitle.text
    ticks = list(figure.layout.xaxis.ticktext)
    assert ticks[0].endswith("n = 8")
    assert ticks[3].endswith("n = 0")


def test_probabilities_by_stage_and_answer() -> None:
    figure = plots.probabilities_figure(PROBABILITIES)
    assert [t.name for t in figure.data] == ["before", "unlearn", "learn"]
    assert list(figure.data[0].y) == [0.8, 0.01, None]
    assert list(figure.data[2].y) == [0.0, 0.96, 0.02]
    assert list(figure.data[1].text) == ["0.020", "0.030", "0.900"]
    assert list(figure.layout.xaxis.ticktext) == ["old: Paris", "new: Rome", "refusal"]
    assert len({t.marker.pattern.shape for t in figure.data}) == 3


def test_probabilities_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="empty"):
        plots.probabilities_figure({"before": {}})
    with pytest.raises(ValueError, match=r"'old' at 'before' is 1\.5"):
        plots.probabilities_figure({"before": {"old": 1.5}})


@pytest.mark.parametrize("n", [7, 45])
def test_difference(n: int) -> None:
    tokens = tuple(f" t{i}" for i in range(n))
    before = trace(tokens, (2, 3))
    after = trace(tokens, (2, 3), values=before.values * 0.5, clean=0.4)
    figure = plots.difference_figure(before, after)
    one, two, three = figure.data
    assert torch.tensor(one.z).equal(before.values)
    assert torch.tensor(two.z).equal(after.values)
    assert torch.tensor(three.z).allclose(after.values - before.values)
    assert (one.coloraxis, two.coloraxis, three.coloraxis) == ("coloraxis", "coloraxis", "coloraxis2")
    for axis, limit in ((figure.layout.coloraxis, before.values), (figure.layout.coloraxis2, before.values / 2)):
        assert -axis.cmin == axis.cmax == pytest.approx(limit.abs().max().item())
    assert len([s for s in figure.layout.shapes if s.type == "path"]) == 3
    stacked = figure.layout.xaxis.domain == figure.layout.xaxis3.domain
    assert stacked == (n > 24)
    assert figure.layout.width <= 1300


def test_difference_refuses_maps_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="differ in labels"):
        plots.difference_figure(trace(), trace(("a", *TOKENS[1:])))
    with pytest.raises(ValueError, match="differ in metric"):
        plots.difference_figure(trace(), trace(metric="logit_diff"))
    with pytest.raises(ValueError, match="axes"):
        plots.difference_figure(layer_map(), layer_map())


def test_difference_of_equal_maps_says_so() -> None:
    assert "equal in every cell" in plots.difference_figure(trace(), trace()).layout.title.subtitle.text
