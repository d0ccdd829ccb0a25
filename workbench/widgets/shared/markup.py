"""The few pieces of HTML that panels share, as strings: alerts, tables, token strips, bars and line charts (SVG).

Texts from a model, a file or a user are untrusted. Every function takes raw text and escapes it exactly once, where it
enters the markup, so a token such as ``<img src=x onerror=...>`` is shown and never run. No script, no request, no
numbers of its own: the functions only lay out what they are given.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from workbench.plots.style import number, visible

STYLE = f"<style>{files('workbench').joinpath('widgets/static/panels.css').read_text(encoding='utf-8')}</style>"
"""For one ``ipywidgets.HTML`` in each panel; the same rules twice on a page do no harm."""

Point = tuple[float, float | None]
Kind = Literal["error", "info", "done"]
_DASHES = ("", "7 4", "2 4", "9 3 2 3")


@dataclass(frozen=True)
class Markup:
    """HTML that was made here and is not escaped again.

    Args:
        html: The markup.
    """

    html: str


@dataclass(frozen=True)
class Progress:
    """How far something is.

    Args:
        words: Raw text beside the bar.
        done: Of ``total``; None where it is not known how far it is: the bar then only moves.
        total: All there is to do.
        note: Raw text before the bar.
    """

    words: str
    done: int | None = None
    total: int = 1
    note: str = ""


@dataclass(frozen=True)
class Message:
    """What an alert says.

    Args:
        words: Raw text.
        kind: ``"error"``, ``"info"`` or ``"done"``.
    """

    words: str
    kind: Kind = "info"


def text(value: object) -> str:
    """Any value as escaped text, for element content and quoted attributes; lone surrogates and NUL become U+FFFD.
    A ``Markup`` stays as it is."""
    if isinstance(value, Markup):
        return value.html
    clean = str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return html.escape(clean, quote=True)


def block(*parts: str) -> str:
    """Join markup in the element that carries the panels' style."""
    return f'<div class="wb">{"".join(parts)}</div>'


def title(value: object, note: object = "") -> str:
    """A heading with a line below it."""
    below = f'<p class="wb-muted">{text(note)}</p>' if note else ""
    return block(f'<div class="wb-title" role="heading" aria-level="3">{text(value)}</div>{below}')


def panel_title(value: object, note: object = "") -> str:
    """The heading of a panel, with the style of all that follows in it."""
    return STYLE + title(value, note)


def alert(message: object, kind: Kind = "error") -> str:
    """A message that screen readers announce: ``role="alert"`` for an error, else ``role="status"``. Nothing for
    None and for the empty text."""
    if message is None or not str(message):
        return ""
    words = {"error": "Error", "info": "Note", "done": "Done"}
    role = "alert" if kind == "error" else "status"
    return block(f'<div class="wb-alert wb-alert-{kind}" role="{role}"><b>{words[kind]}:</b> {text(message)}</div>')


def tag(value: object) -> Markup:
    """A small label in a frame, such as an answer's class."""
    return Markup(f'<span class="wb-tag">{text(value)}</span>')


def tagged(label: object, value: object) -> Markup:
    """A text behind its label."""
    return Markup(f"{tag(label).html}{text(value)}")


def table(headers: Sequence[object], rows: Iterable[Sequence[object]], caption: object = "") -> str:
    """A table whose first column heads its rows. Wide ones scroll, by keyboard too.

    Args:
        headers: One per column.
        rows: Cells as raw text or ``Markup``.
        caption: Above the table; also its accessible name.
    """
    head = "".join(f'<th scope="col">{text(h)}</th>' for h in headers)
    body = "".join(
        "<tr>"
        + "".join(f'<th scope="row">{text(c)}</th>' if not i else f"<td>{text(c)}</td>" for i, c in enumerate(row))
        + "</tr>"
        for row in rows
    )
    above = f"<caption>{text(caption)}</caption>" if caption else ""
    return block(
        f'<div class="wb-scroll" tabindex="0" role="region" aria-label="{text(caption or "Table")}"><table>{above}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def tokens(texts: Sequence[str], subject: Collection[int] = (), traced: int | None = None) -> str:
    """A strip of tokens as they are split, white space made visible.

    Args:
        texts: The tokens.
        subject: Positions of the subject's tokens (bold, underlined).
        traced: Position of the traced token (dashed frame).
    """
    items: list[str] = []
    for i, token in enumerate(texts):
        marks = ["subject"] * (i in subject) + ["traced"] * (i == traced)
        classes = f' class="{" ".join("wb-" + m for m in marks)}"' if marks else ""
        said = f"token {i}{''.join(', ' + m for m in marks)}"
        items.append(f'<li{classes} title="{said}">{text(visible(token))}</li>')
    key = '<span class="wb-key">Bold, underlined: subject.</span>' * bool(subject)
    key += '<span class="wb-key">Dashed frame: traced token.</span>' * (traced is not None)
    return block(
        f'<ul class="wb-tokens" aria-label="{len(texts)} tokens">{"".join(items)}</ul><p class="wb-muted">{key}</p>'
    )


def code(source: str, summary: object = "Code", *, opened: bool = False) -> str:
    """Python in a collapsible read-only area, ``opened`` or not."""
    return block(
        f"<details{' open' * opened}><summary>{text(summary)}</summary>"
        f'<pre tabindex="0"><code>{text(source)}</code></pre></details>'
    )


def progress(done: int | None, total: int, note: object) -> str:
    """A progress bar with words beside it.

    Args:
        done: Of ``total``; None where it is not known how far it is: the bar then only moves.
        total: All there is to do.
        note: The words.
    """
    value = "" if done is None else f' value="{int(done)}"'
    return block(f'<progress max="{max(1, int(total))}"{value} aria-label="Progress"></progress>{text(note)}')


def charts(*figures: str) -> str:
    """Charts side by side, wrapping when there is no room."""
    return block(f'<div class="wb-charts">{"".join(figures)}</div>')


def bars(values: Mapping[str, float | None], heading: str = "", *, limit: float = 1.0) -> str:
    """Horizontal bars with their values, for probabilities.

    Args:
        values: By raw label; None or NaN shows as n/a.
        heading: Above the bars; also the accessible name.
        limit: Value of a full bar.
    """
    labels = {name: visible(name, 34) for name in values}
    left = 12 + 7.0 * max((len(x) for x in labels.values()), default=0)
    width, row, top = left + 250, 22, 24 if heading else 4
    parts: list[str] = []
    for i, (name, value) in enumerate(values.items()):
        y = top + i * row
        known = value is not None and math.isfinite(value)
        length = 180 * min(1.0, max(0.0, value / limit)) if known and value is not None else 0.0
        parts.append(
            f"<g><title>{text(name)}: {number(value)}</title>"
            f'<text x="{left - 8:.0f}" y="{y + 14}" text-anchor="end">{text(labels[name])}</text>'
            f'<rect class="wb-bar wb-s{i % 4}" x="{left:.0f}" y="{y + 3}" width="{length:.1f}" height="14"/>'
            f'<text x="{left + length + 6:.0f}" y="{y + 14}">{number(value)}</text></g>'
        )
    said = "; ".join(f"{name}: {number(value)}" for name, value in values.items())
    return _svg(width, top + row * len(values) + 4, parts, heading, said)


def line_chart(
    lines: Mapping[str, Sequence[Point]],
    heading: str,
    *,
    x_label: str = "step",
    x_max: float = 1.0,
    y_max: float | None = None,
    borders: Mapping[float, str] | None = None,
) -> str:
    """Lines over steps, from 0 on both axes, each labelled at its end with its last value.

    Args:
        lines: By raw label, (x, y) points; None or NaN as y leaves the point out and the line bridges it.
        heading: What is drawn, with its unit.
        x_label: Of the horizontal axis.
        x_max: End of the horizontal axis; further points extend it.
        y_max: End of the vertical axis; None: from the data.
        borders: By x, what begins there (a dashed vertical line).
    """
    kept = {n: [(x, y) for x, y in points if y is not None and math.isfinite(y)] for n, points in lines.items()}
    xs = [x for points in kept.values() for x, _ in points]
    x_end = max(1.0, x_max, *xs)
    y_end = y_max or _round_up(max((y for points in kept.values() for _, y in points), default=1.0))
    labels = {n: f"{visible(n, 22)} {points[-1][1]:.3g}" for n, points in kept.items() if points}
    left, top, w, h = 56.0, 40.0, 300.0, 150.0
    width = left + w + 22 + 6.6 * max([18, *map(len, labels.values())])

    def at(x: float, y: float) -> tuple[float, float]:
        return left + w * x / x_end, top + h * (1 - min(max(y, 0.0), y_end) / y_end)

    parts: list[str] = []
    for share in (0.0, 0.5, 1.0):
        _, y = at(0, y_end * share)
        parts.append(f'<line class="wb-grid" x1="{left}" x2="{left + w}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{y_end * share:g}</text>')
    for x_tick in (0, x_end / 2, x_end) if x_end % 2 == 0 else (0, x_end):
        x, _ = at(x_tick, 0)
        parts.append(f'<text x="{x:.1f}" y="{top + h + 16}" text-anchor="middle">{x_tick:g}</text>')
    parts.append(f'<path class="wb-axis" d="M{left} {top}V{top + h}H{left + w}"/>')
    parts.append(f'<text x="{left + w / 2}" y="{top + h + 32}" text-anchor="middle">{text(x_label)}</text>')
    for x_border, name in (borders or {}).items():
        x, _ = at(x_border, 0)
        parts.append(f'<line class="wb-border" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{top + h}"/>')
        parts.append(f'<text x="{x + 3:.1f}" y="{top - 8}">{text(visible(name, 24))}</text>')
    ends = _spread([at(*kept[n][-1])[1] for n in labels], 15.0, top + h + 4)
    for i, (n, points) in enumerate(kept.items()):
        if not points:
            continue
        places = [at(x, y) for x, y in points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        marked = places[:: max(1, -(-len(places) // 12))]
        marks = "".join(_mark(i, x, y) for x, y in marked) + _mark(i, *places[-1])
        dash = f' stroke-dasharray="{_DASHES[i % 4]}"' if i % 4 else ""
        y = ends[list(labels).index(n)]
        parts.append(
            f'<g class="wb-series wb-s{i % 4}"><title>{text(n)}</title><path d="{path}"{dash}/>{marks}'
            f"{_mark(i, left + w + 10, y)}</g>"
            f'<text x="{left + w + 18}" y="{y + 4:.1f}">{text(labels[n])}</text>'
        )
    said = "; ".join(
        f"{n}: last {number(points[-1][1])}" if points else f"{n}: no value yet" for n, points in kept.items()
    )
    return _svg(width, top + h + 40, parts, heading, said)


def _svg(width: float, height: float, parts: Sequence[str], heading: str, said: str) -> str:
    label = text(f"{heading}. {said}" if heading else said)
    head = f'<text class="wb-head" x="4" y="16">{text(heading)}</text>' if heading else ""
    return block(
        f'<figure><svg viewBox="0 0 {width:.0f} {height:.0f}" style="max-width: {1.25 * width:.0f}px" role="img" '
        f'aria-label="{label}">{head}{"".join(parts)}</svg></figure>'
    )


def _mark(i: int, x: float, y: float) -> str:
    """Circle, square, diamond or triangle."""
    shape = i % 4
    if shape == 0:
        return f'<circle class="wb-mark" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'
    offsets = {1: "-3 -3h6v6h-6z", 2: "0 -4.2l4.2 4.2l-4.2 4.2l-4.2 -4.2z", 3: "0 -4l4 7h-8z"}[shape]
    return f'<path class="wb-mark" d="M{x:.1f} {y:.1f}m{offsets}"/>'


def _spread(wanted: Sequence[float], gap: float, lowest: float) -> list[float]:
    """Vertical places for labels, near the wanted ones, at least ``gap`` apart and none below ``lowest``."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = list(wanted)
    for before, i in zip([None, *order], order, strict=False):
        if before is not None:
            placed[i] = max(placed[i], placed[before] + gap)
    limit = lowest
    for i in reversed(order):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - gap
    return placed


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 6, 8, 10 times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(float(f"{m * power:.3g}") for m in (1, 2, 4, 6, 8, 10) if m * power >= value * (1 - 1e-9))
