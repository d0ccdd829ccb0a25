"""What all figures share: escaping, colours, the white card, titles.

plotly reads a subset of HTML in every label, title and hover text (``<b>``, ``<br>``, ``<a href>``), replaces
``%{name}`` in titles and hover templates, and typesets ``$...$`` where a page has MathJax. Token and answer texts are
untrusted, so each goes through ``escape`` exactly once, at the place where it enters a figure.

Colours: positive red and negative blue (the scale RdBu of `colours`), and the qualitative palette of Okabe and Ito
(2008) for lines, always together with another dash, marker or pattern.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from workbench.plots.colours import colour_scale

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
INK, MUTED, GRID, MISSING = "#1a1a1a", "#505050", "#d9d9d9", "#dcdcdc"
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#aa4499", "#5f5f5f"
_SCALE = colour_scale("RdBu")
DIVERGING: tuple[str, ...] = _SCALE.stops
COLORSCALE: list[list[Any]] = _SCALE.plotly
POSITIVE, NEGATIVE = DIVERGING[-2], DIVERGING[1]
DASHES: tuple[str, ...] = ("solid", "dash", "dot", "dashdot")
MARKERS: tuple[str, ...] = ("circle", "square", "diamond", "triangle-up")
PATTERNS: tuple[str, ...] = ("", "/", "x", ".")
_TITLE_LINE, _SUBTITLE_LINE = 21, 16


def escape(text: object) -> str:
    """A text that plotly shows literally, wherever it is used: tags, ``%{...}`` templates and ``$...$`` are inert.

    Args:
        text: Anything; ``str`` is applied.

    Returns:
        The text with ``& < > $ "`` and the percent sign of ``%{`` as character references. Newlines become spaces.
    """
    out = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")
    return out.replace("$", "&#36;").replace("%{", "&#37;{").replace("\r", " ").replace("\n", " ")


def visible(text: object, limit: int | None = None) -> str:
    """A token or answer with its white space and invisible characters made visible. Not escaped.

    Outer spaces become ``·``, newlines ``⏎``, tabs ``⇥``, other characters without a glyph (direction marks, control
    codes) their escape code, the empty text ``∅``.

    Args:
        text: The text.
        limit: Cut to this many characters, with an ellipsis.
    """
    raw = str(text)
    if not raw:
        return "∅"
    core = raw.strip(" ")
    lead, trail = (len(raw) - len(raw.lstrip(" ")), len(raw) - len(raw.rstrip(" "))) if core else (len(raw), 0)
    names = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
    core = "".join(names.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()) for c in core)
    out = "·" * lead + core + "·" * trail
    return out if limit is None or len(out) <= limit else out[: limit - 1] + "…"


def finite(values: Any) -> Any:
    """Nested lists of numbers with None for what is not finite (JSON has no NaN)."""
    if isinstance(values, list):
        return [finite(v) for v in values]
    return float(values) if values is not None and math.isfinite(values) else None


def number(value: float | None, digits: int = 3) -> str:
    """A number for text: fixed digits, scientific when tiny or huge, ``n/a`` when there is none."""
    if value is None or not math.isfinite(value):
        return "n/a"
    small = value != 0 and abs(value) < 0.5 * 10**-digits
    return f"{value:.1e}" if small or abs(value) >= 1e5 else f"{value:.{digits}f}"


def interval(low: float, high: float, fallback: str) -> str:
    """A 95% interval for text, and where there are no bounds what is said instead."""
    return f"[{number(low)}, {number(high)}]" if math.isfinite(low) and math.isfinite(high) else fallback


def short_number(value: float | None, *, digits: int = 3, share: bool = False) -> str:
    """A number as panels write it: so many significant digits, no exponent from 0.001 to 100,000.

    Args:
        value: None and what is not finite show as ``n/a``.
        digits: Significant ones.
        share: It is a probability or a rate: below 0.001 it is ``<0.001``, and between 0.999 and 1 ``>0.999``.

    Returns:
        The text; a minus sign is U+2212.
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    if share and 0 < value < 0.001:
        return "<0.001"
    if share and 0.999 < value < 1:
        return ">0.999"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e5:
        words = f"{value:.{digits - 1}e}"
    else:
        words = f"{value:.{max(0, digits - 1 - math.floor(math.log10(size)))}f}"
        words = words.rstrip("0").rstrip(".") if "." in words else words
    return words.replace("-", "−", 1) if value < 0 else words


def card(
    figure: go.Figure,
    *,
    title: str,
    notes: Iterable[str],
    alt: str,
    width: int,
    plot_height: int,
    bottom: int = 60,
    left: int = 70,
    right: int = 30,
    above: int = 10,
) -> go.Figure:
    """Give a figure its title, notes, fonts, size and white ground.

    Args:
        figure: Changed in place.
        title: Raw text.
        notes: Raw texts below the title, each on a line of its own (wrapped).
        alt: The figure in words, raw text.
        width: Of the figure, pixels.
        plot_height: Height of the plotting area, pixels.
        bottom, left, right: Margins, pixels.
        above: Room between the notes and the plotting area, pixels.
    """
    title_lines = textwrap.wrap(title, max(20, min(72, int((width - 40) / 8.6)))) or [""]
    note_lines = [line for note in notes for line in textwrap.wrap(note, max(30, min(100, int((width - 40) / 6.3))))]
    top = 16 + _TITLE_LINE * len(title_lines) + _SUBTITLE_LINE * len(note_lines) + 8 + above
    heading: dict[str, Any] = {
        "text": "<br>".join(map(escape, title_lines)),
        "font": {"size": 16, "color": INK, "weight": 600},
        "x": 0,
        "xref": "container",
        "xanchor": "left",
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "pad": {"l": 16, "t": 14},
    }
    if note_lines:
        heading["subtitle"] = {"text": "<br>".join(map(escape, note_lines)), "font": {"size": 12, "color": MUTED}}
    figure.update_layout(
        template="none",
        title=heading,
        font={"family": FONT, "size": 12, "color": INK},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        width=width,
        height=top + plot_height + bottom,
        margin={"l": left, "r": right, "t": top, "b": bottom, "pad": 0, "autoexpand": True},
        hoverlabel={
            "font": {"family": FONT, "size": 12, "color": INK},
            "bgcolor": "#ffffff",
            "bordercolor": INK,
            "align": "left",
            "namelength": -1,
        },
        legend={"font": {"size": 12, "color": INK}, "bgcolor": "rgba(255,255,255,0.85)"},
        meta={"alt": alt},
    )
    figure.update_xaxes(automargin=True, zeroline=False, gridcolor=GRID, linecolor=INK, tickcolor=INK, showline=True)
    figure.update_yaxes(automargin=True, zeroline=False, gridcolor=GRID, linecolor=INK, tickcolor=INK, showline=True)
    return figure


def whiskers(low: Sequence[float], value: Sequence[float], high: Sequence[float], color: str) -> dict[str, Any]:
    """Error bars of intervals, for ``error_x`` and ``error_y``; an end that is not finite is not drawn."""

    def length(span: float) -> float:
        return max(0.0, span) if math.isfinite(span) else 0.0

    return {
        "type": "data",
        "symmetric": False,
        "array": [length(h - v) for h, v in zip(high, value, strict=True)],
        "arrayminus": [length(v - x) for v, x in zip(value, low, strict=True)],
        "color": color,
        "thickness": 2,
        "width": 5,
    }


def head_of_column(figure: go.Figure, x: float, text: str) -> None:
    """Put a line of markup above a column of subplots that begins at ``x``, a share of the figure's width."""
    figure.add_annotation(
        x=x,
        xref="paper",
        xanchor="left",
        y=1,
        yref="paper",
        yanchor="bottom",
        yshift=4,
        showarrow=False,
        text=text,
        font={"size": 12, "color": INK},
    )


def runs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """First and last index of each contiguous run: ``[3, 4, 7]`` gives ``[(3, 4), (7, 7)]``."""
    out: list[tuple[int, int]] = []
    for i in sorted(set(indices)):
        if out and i == out[-1][1] + 1:
            out[-1] = (out[-1][0], i)
        else:
            out.append((i, i))
    return out
