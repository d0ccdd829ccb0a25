"""Figures show the numbers they are given, mark what they must, and never run a text."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from workbench import plots
from workbench.types import (
    Edit,
    EditStage,
    EffectMap,
    EvalReport,
    Fact,
    GateDelta,
    Rate,
    Recipe,
    Selection,
    Step,
    TracedPrompt,
)

EVIL = (
    "<img src=x onerror=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    "%{x}",
    "</script><script>alert(1)</script>",
    "$\\alpha$",
    "&lt;b&gt;",
)
TOKENS = ("The", " capital", " of", " of", " France", "\n", " is")
FACT = Fact(
    subject="France",
    prompt="The capital of France is",
    question="What is the capital of France?",
    answer="Paris",
    target="Rome",
    id="france-capital",
)


def prompt(tokens: tuple[str, ...], subject: tuple[int, ...]) -> TracedPrompt:
    return TracedPrompt(
        fact_id="france-capital",
        form="cloze",
        text="".join(tokens),
        prefix="",
        token_ids=tuple(range(len(tokens))),
        tokens=tokens,
        subject=subject,
        answer_id=3,
        answer_token=" Paris",
    )


def trace(
    tokens: tuple[str, ...] = TOKENS, subject: tuple[int, ...] = (4,), layers: int = 3, **changes: Any
) -> EffectMap:
    values = torch.arange(layers * len(tokens), dtype=torch.float32).view(layers, -1) / 100 - 0.05
    options: dict[str, Any] = {
        "values": values,
        "axes": ("layer", "position"),
        "labels": {"layer": tuple(f"L{i}" for i in range(layers)), "position": tokens},
        "unit": "resid",
        "metric": "probability",
        "method": "noise",
        "clean": 0.812,
        "corrupted": 0.034,
        "stderr": values.abs() / 10,
        "n": 10,
        "prompts": (prompt(tokens, subject),),
    }
    return EffectMap(**{**options, **changes})


def head_map() -> EffectMap:
    values = torch.linspace(-2, 1, 5 * 6).view(5, 6)
    labels = {"layer": tuple(f"L{i}" for i in range(5)), "head": tuple(f"H{i}" for i in range(6))}
    return EffectMap(
        values=values,
        axes=("layer", "head"),
        labels=labels,
        unit="head",
        metric="logit_diff",
        method="attribution",
        clean=4.2,
    )


def layer_map(stderr: bool = True) -> EffectMap:
    values = torch.tensor([0.5, -0.25, 1.0, 0.0])
    return EffectMap(
        values=values,
        axes=("layer",),
        labels={"layer": ("L0", "L1", "L2", "L3")},
        unit="mlp",
        metric="logit_diff",
        method="patching",
        clean=4.2,
        stderr=torch.tensor([0.1, 0.2, 0.3, 0.4]) if stderr else None,
        n=12 if stderr else 1,
    )


def neuron_map() -> EffectMap:
    values = torch.zeros(14, 9)
    values[13, 7], values[2, 3], values[5, 0], values[0, 8] = 0.9, -0.7, 0.5, -0.2
    labels = {"layer": tuple(f"L{i}" for i in range(14)), "neuron": tuple(f"N{i}" for i in range(9))}
    return EffectMap(
        values=values,
        axes=("layer", "neuron"),
        labels=labels,
        unit="neuron",
        metric="probability",
        method="attribution - controls",
        clean=0.8,
    )


def edit(fact: Fact = FACT, recipe: Recipe | None = None) -> Edit:
    history = [
        Step(stage="unlearn", step=i, loss=4.0 - i, kl=0.1 * i, p_old=0.8 - 0.3 * i if i != 1 else None)
        for i in range(3)
    ]
    history += [Step(stage="learn", step=i, loss=5.0 - i, kl=0.5, p_new=0.4 * i, p_refusal=0.9) for i in range(2)]
    delta = GateDelta({(1, "post"): torch.ones(4)})
    return Edit(
        stages=(EditStage("unlearn", delta), EditStage("learn", delta)),
        selection=Selection("L1MLP"),
        selector="given",
        recipe=recipe or Recipe(),
        facts=(fact,),
        retain_ids=(),
        history=tuple(history),
        base_fingerprint="f" * 64,
        base_name="micro",
    )


def report() -> EvalReport:
    def rate(value: float, low: float, high: float, n: int = 8) -> Rate:
        return Rate(value, n, low, high, "wilson")

    nothing = Rate(math.nan, 0, math.nan, math.nan, "wilson", 0)
    base = {"new": rate(0.0, 0.0, 0.3), "control": rate(1.0, 0.9, 1.0, 44), "neighbour": nothing}
    learn = {
        "new": rate(1.0, 0.7, 1.0),
        "forget": rate(0.75, 0.4, 0.9),
        "control": rate(0.9, 0.8, 0.95, 44),
        "neighbour": nothing,
        "gibberish": rate(-0.01, -0.03, 0.02, 100),
        "bleed": rate(0.0, 0.0, 0.1, 44),
    }
    rates = {"base": base, "learn": learn}
    return EvalReport(rows=(), rates=rates, facts=("france-capital",), stages=("base", "learn"))


PROBABILITIES = {
    "before": {"old: Paris": 0.8, "new: Rome": 0.01},
    "unlearn": {"old: Paris": 0.02, "new: Rome": 0.03, "refusal": 0.9},
    "learn": {"old: Paris": 0.0, "new: Rome": 0.96, "refusal": 0.02},
}


def all_figures() -> dict[str, Any]:
    return {
        "trace": plots.effect_figure(trace()),
        "evil": plots.effect_figure(trace(EVIL, (1,))),
        "heads": plots.effect_figure(head_map(), group_size=3),
        "layers": plots.effect_figure(layer_map()),
        "neurons": plots.effect_figure(neuron_map(), n_neurons=4),
        "history": plots.history_figure(edit()),
        "rates": plots.rates_figure(report()),
        "probabilities": plots.probabilities_figure(PROBABILITIES),
        "difference": plots.difference_figure(trace(), trace(clean=0.5)),
    }


def texts(figure: Any) -> list[str]:
    """Every string in a figure, except the plain description that plotly never draws."""
    content = figure.to_dict()
    content["layout"].pop("meta")
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            for v in value.values():
                walk(v)
        elif isinstance(value, (list, tuple)):
            for v in value:
                walk(v)

    walk(content)
    return found


# --- escaping ---------------------------------------------------------------------------------------------------------


def test_escape() -> None:
    assert plots.escape('<b a="1">&amp;</b>') == "&lt;b a=&#34;1&#34;&gt;&amp;amp;&lt;/b&gt;"
    assert plots.escape("%{x} 5% $a$ \n") == "&#37;{x} 5% &#36;a&#36;  "


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" of", "·of"),
        ("\n", "⏎"),
        ("\r\n\t", "␍⏎⇥"),
        ("   ", "···"),
        ("", "∅"),
        ("New York ", "New York·"),
        ("\u202eab", "\\u202eab"),
        ("é漢", "é漢"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert plots.visible(text) == shown


def test_visible_cuts_to_the_limit() -> None:
    assert plots.visible("abcdefgh", 5) == "abcd…"


@pytest.mark.parametrize("evil", [*EVIL, "<b>x</b>"])
def test_no_untrusted_text_reaches_a_figure_unescaped(evil: str) -> None:
    fact = Fact(subject="s", prompt="s", question="q", answer=evil, target="t", id=evil)
    bad = report()
    bad = EvalReport(rows=(), rates={evil: bad.rates["learn"]}, facts=(evil,), stages=(evil,))
    figures = [
        plots.effect_figure(trace((evil, " " + evil), (1,)), title=evil),
        plots.effect_figure(trace(metric=evil)),
        plots.history_figure(edit(fact)),
        plots.rates_figure(bad),
        plots.probabilities_figure({evil: {evil: 0.5}}),
        plots.difference_figure(trace((evil, "b")), trace((evil, "b"))),
    ]
    for figure in figures:
        for text in texts(figure):
            assert "<img" not in text
            assert "<a " not in text
            assert "<script" not in text
            assert "$" not in text
            assert "<b>x" not in text
            if "%{x}" in text:  # plotly's own place holder, in the templates written here
                assert "step %{x}" in text or "effect <b>%{x" in text
        assert any(plots.escape(evil)[:12] in text for text in texts(figure))


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
    assert list(loss.x) == [0, 1, 2, 3, 4]
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
    assert (line.x0, line.x1, line.y0, line.y1, line.yref) == (2.5, 2.5, 0, 1, "paper")
    (label,) = figure.layout.annotations
    assert label.x == 2.5
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


# --- all --------------------------------------------------------------------------------------------------------------


def test_figures_are_deterministic_and_described() -> None:
    first, second = all_figures(), all_figures()
    for name, figure in first.items():
        assert figure.to_json() == second[name].to_json(), name
        assert len(figure.layout.meta["alt"]) > 30
        assert figure.layout.paper_bgcolor == "#ffffff"
        assert figure.layout.font.color == "#1a1a1a"
        assert '"uid"' not in figure.to_json()
        json.loads(figure.to_json(), parse_constant=pytest.fail)  # no NaN, no Infinity


def test_results_plot_themselves() -> None:
    assert trace().plot(zlim=0.5).to_json() == plots.effect_figure(trace(), zlim=0.5).to_json()
    assert edit().plot().to_json() == plots.history_figure(edit()).to_json()
    assert report().plot().to_json() == plots.rates_figure(report()).to_json()


def test_plotting_changes_nothing() -> None:
    effect = trace()
    before = effect.values.clone()
    plots.difference_figure(effect, effect)
    plots.effect_figure(effect)
    assert effect.values.equal(before)


# --- files ------------------------------------------------------------------------------------------------------------


def test_write_html_is_self_contained_and_deterministic(tmp_path: Path) -> None:
    figure = plots.effect_figure(trace(EVIL, (0,)))
    one = plots.write_image(figure, tmp_path / "new" / "a.html").read_text()
    two = plots.write_image(figure, tmp_path / "b.HTML").read_text()
    assert one == two
    assert 'src="http' not in one
    assert "</script><script>alert(1)" not in one
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.HTML", "new"]


@pytest.mark.browser
@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<svg")])
def test_write_images(tmp_path: Path, name: str, start: bytes) -> None:
    path = plots.write_image(plots.effect_figure(trace()), tmp_path / name)
    assert path.read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_write_image_refuses_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png, \.svg or \.html, got 'a\.gif'"):
        plots.write_image(plots.effect_figure(trace()), tmp_path / "a.gif")


def test_write_image_without_kaleido(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(RuntimeError, match="pip install kaleido"):
        plots.write_image(plots.effect_figure(trace()), tmp_path / "a.png")


def test_write_image_without_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    def missing(*args: Any, **kwargs: Any) -> bytes:
        assert kwargs["kopts"] == {"mathjax": False}  # else it is fetched from a content server
        raise ChromeNotFoundError

    monkeypatch.setattr(kaleido, "calc_fig_sync", missing)
    with pytest.raises(RuntimeError, match="Chromium is needed to write svg files"):
        plots.write_image(plots.effect_figure(trace()), tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.html"
    path.write_text("old")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        plots.write_bytes(path, b"new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]
