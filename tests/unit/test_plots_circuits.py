"""Figures of edges and of faithfulness curves."""

from __future__ import annotations

import pytest
import torch

import workbench as wb
from workbench import plots

SENDERS = ("embedding", "L0H0", "L0MLP")
RECEIVERS = ("L0Q0", "L0MLP", "logits")
NAN = float("nan")


def edge_map(stderr: torch.Tensor | None = None) -> wb.EdgeMap:
    return wb.EdgeMap(
        values=torch.tensor([[0.5, NAN, NAN], [-2.0, 0.1, NAN], [0.0, 1.0, -3.0]]),
        senders=SENDERS,
        receivers=RECEIVERS,
        metric="logit_diff",
        method="eap-ig",
        clean=5.0,
        corrupted=-1.0,
        stderr=stderr,
        n=1 if stderr is None else 4,
    )


def curve() -> wb.FaithfulnessCurve:
    alone = {"<b>mine": ((3.0, 1.0), (6.0, 4.0)), "random 0": ((1.0, -1.0), (2.0, 0.5))}
    return wb.FaithfulnessCurve(
        sizes=(0.2, 0.5), counts=(2, 5), ablation="mean", metric="logit_diff", items=("a", "b"), clean=(5.0, 3.0),
        empty=(1.0, -1.0), alone=alone,
    )  # fmt: skip


def test_the_largest_edges_are_bars_with_the_largest_at_the_top() -> None:
    (bars,) = plots.edges_figure(edge_map(), k=3).data
    assert list(bars.x) == [1.0, -2.0, -3.0]
    figure = edge_map(torch.ones(3, 3)).plot(k=3)
    assert list(figure.layout.yaxis.ticktext) == ["L0H0 -&gt; logits", "embedding -&gt; L0MLP", "L0MLP -&gt; logits"]
    assert figure.data[0].error_x.visible
    assert "L0MLP -> logits" in figure.layout.meta["alt"]
    assert not bars.error_x.visible
    for k in (0, 2.5):
        with pytest.raises(ValueError, match="k must be a whole number"):
            edge_map().plot(k=k)


def test_curves_are_lines_and_random_ones_dotted() -> None:
    figure = curve().plot()
    ours, by_chance = figure.data
    assert (list(ours.x), list(ours.y)) == ([0.2, 0.5], [0.5, 1.25])
    assert ours.name == "&lt;b&gt;mine"
    assert by_chance.line.dash != ours.line.dash
    assert "mean ablation" in figure.layout.title.subtitle.text
    assert "CPR" in figure.layout.meta["alt"]
