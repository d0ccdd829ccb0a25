"""The course of an edit's fit: loss, KL and answer probabilities by step."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from workbench.plots.style import (
    BLUE,
    DASHES,
    GREEN,
    INK,
    MARKERS,
    ORANGE,
    PURPLE,
    card,
    escape,
    finite,
    number,
    visible,
)
from workbench.types import Edit, TrainedRecipe
from workbench.types.history import updates_before, updates_by_stage

_DOMAINS = ((0.0, 0.40), (0.46, 0.68), (0.74, 1.0))  # probabilities, KL, loss: from the bottom
_HEIGHT = 520


def history_figure(edit: Edit) -> go.Figure:
    """Loss, retain KL and answer probabilities by step, stages one after the other on one axis.

    Args:
        edit: The edit. Steps are counted through its stages; the value at step s is that of the model after s updates.
            Where a stage ends and the next begins there are two, on the rows of each.

    Returns:
        Three panels over a shared step axis; where a stage begins, a line names both stages. A probability that was not
        measured at a step is bridged by a line without a marker.
    """
    steps = edit.history
    x = updates_before(steps)
    figure = go.Figure()
    _add_lines(figure, edit, x)
    starts = [i for i in range(1, len(steps)) if steps[i].stage != steps[i - 1].stage]
    ran = ", ".join(f"{name} {n} steps" for name, n in updates_by_stage(steps).items()) or "no steps recorded"
    last = f"; last loss {number(steps[-1].loss)}, KL {number(steps[-1].kl)}" if steps else ""
    card(
        figure,
        title=f"Fit of {', '.join(f.id for f in edit.facts[:3])}{' ...' if len(edit.facts) > 3 else ''}",
        notes=[
            f"recipe {edit.recipe.name}: {ran}; {edit.scope} ({edit.selector})",
            f"base model {edit.base_name}; measured before each update and at the end of each stage",
        ],
        alt=f"Training curves of loss, KL and answer probabilities: {ran}{last}.",
        width=820,
        plot_height=_HEIGHT,
        left=90,
        right=150,
        bottom=60,
        above=20,
    )
    figure.update_layout(**_axes(edit, max([1, *x])))
    for start in starts:
        figure.add_shape(
            type="line",
            xref="x",
            yref="paper",
            x0=x[start],
            x1=x[start],
            y0=0,
            y1=1,
            line={"color": INK, "width": 1.5, "dash": "dash"},
            name=f"start of {steps[start].stage}",
        )
        figure.add_annotation(
            x=x[start],
            xref="x",
            y=1,
            yref="paper",
            yanchor="bottom",
            showarrow=False,
            text=f"{escape(steps[start - 1].stage)} ◂ ▸ {escape(steps[start].stage)}",
            font={"size": 12, "color": INK},
        )
    return figure


def _add_lines(figure: go.Figure, edit: Edit, x: list[int]) -> None:
    """Draw loss, KL and the answers' probabilities over the steps ``x``."""
    steps, answers = edit.history, _answer_names(edit)
    lines = [
        ([s.loss for s in steps], "y3", "fact loss", PURPLE),
        ([s.kl for s in steps], "y2", "KL to the base model", GREEN),
        ([s.p_old for s in steps], "y", answers[0], BLUE),
        ([s.p_new for s in steps], "y", answers[1], ORANGE),
        ([s.p_refusal for s in steps], "y", answers[2], GREEN),
    ]
    stages = [[s.stage, str(s.step)] for s in steps]
    for i, (values, axis, name, color) in enumerate(lines):
        style = max(0, i - 2)
        figure.add_trace(
            go.Scatter(
                x=x,
                y=finite(values),
                name=name,
                xaxis="x",
                yaxis=axis,
                mode="lines+markers",
                connectgaps=True,
                line={"color": color, "width": 2, "dash": DASHES[style]},
                showlegend=axis == "y",
                marker={"symbol": MARKERS[style], "size": 6, "maxdisplayed": 40},
                customdata=stages,
                hovertemplate=f"{name}: <b>%{{y:.4f}}</b><br>step %{{x}} (%{{customdata[0]}} "
                "%{customdata[1]})<extra></extra>",
            )
        )


def _axes(edit: Edit, last: int) -> dict[str, Any]:
    """Three panels over one axis of steps, which ends at ``last``."""
    bottom, middle, top = _DOMAINS
    no_kl = not (isinstance(edit.recipe, TrainedRecipe) and edit.recipe.retain_weight)
    title = {"standoff": 10}
    return dict(
        xaxis={
            "title": "Optimiser step",
            "range": [-0.5, last + 0.5],
            "anchor": "y",
            "showgrid": False,
            "tickformat": "d",
        },
        yaxis={"domain": bottom, "range": [-0.04, 1.04], "title": {"text": "probability", **title}},
        yaxis2={
            "domain": middle,
            "rangemode": "tozero",
            "showline": True,
            "gridcolor": "#d9d9d9",
            "automargin": True,
            "title": {"text": "KL (nats<br>per token)" if not no_kl else "KL (no<br>retain term)", **title},
        },
        yaxis3={
            "domain": top,
            "rangemode": "tozero",
            "showline": True,
            "gridcolor": "#d9d9d9",
            "automargin": True,
            "title": {"text": "fact loss<br>(nats per token)", **title},
        },
        legend={"x": 1.02, "y": bottom[1], "xanchor": "left", "yanchor": "top", "title": {"text": "P(answer)"}},
        hovermode="closest",
    )


def _answer_names(edit: Edit) -> tuple[str, str, str]:
    """Legend entries for old, new and refusal; escaped."""
    if len(edit.facts) != 1:
        return "old answer", "new answer", "refusal"
    fact = edit.facts[0]
    return (
        f"old: {escape(visible(fact.answer, 12))}",
        f"new: {escape(visible(fact.target, 12))}",
        "refusal",
    )
