"""A stack of edits: what pairs of them share, how far the weights move, and what each edit broke."""

from __future__ import annotations

import plotly.graph_objects as go

from workbench.plots.style import BLUE, GREEN, GREY, INK, MISSING, MONO, ORANGE, card, escape, number, visible
from workbench.types.stack import StackAnswer, StackAnswers, StackOverlaps

PLACES = 12
"""Of a pair of edits, at most so many places are drawn: those with the largest share."""


def overlaps_figure(found: StackOverlaps, *, title: str | None = None) -> go.Figure:
    """What each pair of edits shares at the places where it shares most, and the weights' change after each edit.

    Args:
        found: The overlaps.
        title: Another title.

    Returns:
        Bars of shares (0 to 1), one a place; under them the change of the weights after each edit.
    """
    rows = found.largest(PLACES)
    labels = [f"{found.names[r.first]} / {found.names[r.second]}: {r.place}, {r.kind}" for r in rows]
    names = [escape(visible(found.names[row.layer], 24)) for row in found.norms]
    shares = [row.shared / row.of if row.of else 0.0 for row in rows]
    figure = go.Figure(
        go.Bar(
            x=shares[::-1],
            y=list(range(len(rows))),
            orientation="h",
            marker={"color": BLUE},
            showlegend=False,
            customdata=[
                [escape(label), number(r.shared), r.of, number(r.cosine)]
                for label, r in zip(labels[::-1], rows[::-1], strict=True)
            ],
            hovertemplate="%{customdata[0]}<br><b>%{customdata[1]}</b> of %{customdata[2]}, cosine %{customdata[3]}"
            "<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=list(range(len(found.norms))),
            y=[row.change for row in found.norms],
            xaxis="x2",
            yaxis="y2",
            mode="lines+markers",
            line={"color": ORANGE},
            showlegend=False,
            customdata=[
                [after, escape(row.place), number(row.largest)] for after, row in zip(names, found.norms, strict=True)
            ],
            hovertemplate="after <b>%{customdata[0]}</b>: %{y:.4f}<br>most at %{customdata[1]} (%{customdata[2]})"
            "<extra></extra>",
        )
    )
    card(
        figure,
        title=title or "What the edits of the stack share",
        notes=["bars: share of the smaller edit; below: |W' - W| / |W| of all changed weights after each edit"],
        alt=f"Overlaps of {len(found.names)} edits. {' '.join(found.words.splitlines())}",
        width=860,
        plot_height=max(300, 24 * len(rows) + 190),
        left=330,
        bottom=60,
    )
    figure.update_layout(
        xaxis={"domain": [0, 1], "anchor": "y", "range": [0, 1.02], "title": "share"},
        yaxis={
            "domain": [0.5, 1],
            "tickmode": "array",
            "tickvals": list(range(len(rows))),
            "ticktext": [escape(visible(label, 52)) for label in labels[::-1]],
            "tickfont": {"size": 11},
        },
        xaxis2={
            "domain": [0, 1],
            "anchor": "y2",
            "title": "after the edit",
            "tickmode": "array",
            "tickvals": list(range(len(names))),
            "ticktext": names,
        },
        yaxis2={"domain": [0, 0.32], "anchor": "x2", "title": "change", "rangemode": "tozero"},
    )
    return figure


def broken_figure(found: StackAnswers, *, title: str | None = None) -> go.Figure:
    """The answer to each fact's question after each edit, by whether it is as it should be.

    Args:
        found: The answers.
        title: Another title.

    Returns:
        One row a fact, one column for the base and for each edit that is on, with the answer's class in each cell.
    """
    after = list(dict.fromkeys((row.after, row.edit) for row in found.rows))
    columns = ["base", *(f"after {found.names[edit]}" for _, edit in after[1:])]
    cells: dict[tuple[str, int], StackAnswer] = {(row.fact_id, row.after): row for row in found.rows}
    facts = list(found.facts)[::-1]
    levels = {None: 0, False: 1, True: 2}
    grid = [[cells[fact, n] for n, _ in after] for fact in facts]
    figure = go.Figure(
        go.Heatmap(
            z=[[levels[cell.holds] for cell in row] for row in grid],
            x=list(range(len(columns))),
            y=list(range(len(facts))),
            zmin=0,
            zmax=2,
            colorscale=[[0, MISSING], [0.34, MISSING], [0.34, ORANGE], [0.67, ORANGE], [0.67, GREEN], [1, GREEN]],
            showscale=False,
            xgap=2,
            ygap=2,
            text=[[_mark(cell) for cell in row] for row in grid],
            texttemplate="%{text}",
            textfont={"color": INK, "family": MONO, "size": 11},
            customdata=[[escape(visible(cell.text, 120)) for cell in row] for row in grid],
            hovertemplate="%{text}<br>%{customdata}<extra></extra>",
        )
    )
    card(
        figure,
        title=title or "What each edit broke",
        notes=["green: as it should be; orange with ✗: broken; grey: it never was as it should be"],
        alt=f"Answers after each edit. {' '.join(found.words.splitlines())}",
        width=max(520, 130 * len(columns) + 240),
        plot_height=max(90, 30 * len(facts)),
        left=190,
        bottom=90,
    )
    ticks = {"tickmode": "array", "showgrid": False, "zeroline": False}
    figure.update_xaxes(
        **ticks, tickvals=list(range(len(columns))), ticktext=[escape(visible(name, 24)) for name in columns]
    )
    figure.update_yaxes(
        **ticks, tickvals=list(range(len(facts))), ticktext=[escape(visible(fact, 26)) for fact in facts], color=GREY
    )
    return figure


def _mark(cell: StackAnswer) -> str:
    return f"✗ {cell.label}" if cell.holds is False else cell.label
