"""Flowcharts of Mermaid's text as static SVG, so that a page needs no script and no other host to show one.

Only what the docs use: ``flowchart`` in any direction, nodes ``name["a label<br>of lines"]``, and arrows between names
(``a --> b & c``). Layers by the longest path, order within a layer by the mean place of the neighbours (Sugiyama,
Tagawa and Toda 1981). Arrows that skip layers get a place of their own in each. Drawn from top to bottom whatever the
direction says, which also fits a narrow screen; colours are those of the page.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from pymdownx.superfences import SuperFencesException

LINE, PAD, GAP, RISE = 18, 12, 22, 40
"""Pixels: a line of text, around a label, between neighbours, between layers."""
CHAR = 7.3
"""Width of a character at 13 px, on average."""

NAME = ' class="flow-name"'

_NODE = r"([\w.-]+)(?:\[\"([^\"]*)\"\])?"
_STATEMENT = re.compile(rf"{_NODE}(?:\s*-->\s*([\w.-]+(?:\s*&\s*[\w.-]+)*))?")


@dataclass
class Chart:
    """What a chart says: labels by name, and arrows from a name to a name."""

    labels: dict[str, str] = field(default_factory=dict)
    arrows: list[tuple[str, str]] = field(default_factory=list)


def parse(text: str) -> Chart:
    """Read a flowchart.

    Args:
        text: Mermaid's text.

    Raises:
        ValueError: A line that is not of the part of Mermaid that is drawn here, or arrows in a circle.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("%%")]
    if not lines or not re.fullmatch(r"(flowchart|graph) (TB|TD|BT|LR|RL)", lines[0]):
        raise ValueError(f"only flowcharts are drawn, and this begins {lines[:1]}; begin with 'flowchart TB'.")
    chart = Chart()
    for line in lines[1:]:
        match = _STATEMENT.fullmatch(line)
        if match is None:
            raise ValueError(f'{line!r} is not drawn; write name["label"], or name["label"] --> other & another.')
        name, label, targets = match.groups()
        chart.labels[name] = label or chart.labels.get(name, name)
        for target in re.split(r"\s*&\s*", targets or ""):
            if target:
                chart.labels.setdefault(target, target)
                chart.arrows.append((name, target))
    return chart


def layers_of(chart: Chart) -> list[list[str]]:
    """Names by layer, those that nothing points at first; each arrow leads to a later layer.

    Raises:
        ValueError: Arrows in a circle.
    """
    depth: dict[str, int] = {}
    remaining = dict.fromkeys(chart.labels)
    while remaining:
        ready = [n for n in remaining if all(a not in remaining for a, b in chart.arrows if b == n)]
        if not ready:
            raise ValueError(f"these point at each other in a circle: {list(remaining)}.")
        for name in ready:
            depth[name] = max((depth[a] + 1 for a, b in chart.arrows if b == name), default=0)
        for name in ready:
            del remaining[name]
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in chart.labels:  # as low as its followers allow, so that arrows are short
        after = [depth[b] for a, b in chart.arrows if a == name]
        layers[min(after) - 1 if after else depth[name]].append(name)
    return layers


def svg(text: str, title: str) -> str:
    """A flowchart as one element, without blank lines.

    Args:
        text: Mermaid's text.
        title: What it is, for screen readers.

    Raises:
        ValueError: As for ``parse``.
    """
    chart = parse(text)
    layers, paths = _with_bends(chart, layers_of(chart))
    _order(layers, [pair for path in paths for pair in pairwise(path)])
    boxes, width, height = _place(chart, layers)
    _straighten(boxes, layers, paths)
    parts = [_arrow([boxes[name] for name in path]) for path in paths]
    parts += [_node(chart.labels[name], boxes[name]) for name in chart.labels]
    described = f'role="img" aria-label="{html.escape(title)}"'
    marker = (
        '<defs><marker id="flow-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path class="flow-head" d="M0 0 8 4 0 8z"/></marker></defs>'
    )
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" {described}>{marker}{"".join(parts)}</svg>'


@dataclass(frozen=True)
class Box:
    """Where a node, or a bend of an arrow, is: its middle, and its size in pixels."""

    x: float
    y: float
    width: float
    height: float


def _with_bends(chart: Chart, layers: list[list[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """The layers with a place in each for arrows that pass, and the names along each arrow."""
    layers = [list(layer) for layer in layers]
    at = {name: i for i, layer in enumerate(layers) for name in layer}
    paths = []
    for number, (start, end) in enumerate(chart.arrows):
        bends = [f"\0{number} {i}" for i in range(at[start] + 1, at[end])]
        for i, bend in enumerate(bends, at[start] + 1):
            layers[i].append(bend)
        paths.append([start, *bends, end])
    return layers, paths


def _order(layers: list[list[str]], steps: list[tuple[str, str]]) -> None:
    """Sort each layer by the mean place of what it is joined to, down and up again."""
    for sweep in range(8):
        down = sweep % 2 == 0
        for before, layer in pairwise(layers if down else reversed(layers)):
            place = {name: i / max(1, len(before) - 1) if len(before) > 1 else 0.5 for i, name in enumerate(before)}
            joined = {name: [place[a if down else b] for a, b in steps if (b if down else a) == name] for name in layer}
            middle = {name: sum(at) / len(at) if (at := joined[name]) else 0.5 for name in layer}
            layer.sort(key=middle.__getitem__)


def _place(chart: Chart, layers: list[list[str]]) -> tuple[dict[str, Box], float, float]:
    """A box for every name and bend; the width and height of the whole."""

    def size(name: str) -> tuple[float, float]:
        if name not in chart.labels:
            return 10, 0
        lines = _lines(chart.labels[name])
        return max(map(len, lines)) * CHAR + 2 * PAD, len(lines) * LINE + PAD

    widths = [sum(size(name)[0] for name in layer) + GAP * (len(layer) - 1) for layer in layers]
    whole = max(widths) + 2
    boxes: dict[str, Box] = {}
    top = 1.0
    for layer, width in zip(layers, widths, strict=True):
        height = max(size(name)[1] for name in layer)
        x = (whole - width) / 2
        for name in layer:
            own, tall = size(name)
            boxes[name] = Box(x + own / 2, top + height / 2, own, tall or height)
            x += own + GAP
        top += height + RISE
    return boxes, whole, top - RISE + 1


def _straighten(boxes: dict[str, Box], layers: list[list[str]], paths: list[list[str]]) -> None:
    """Move the bends of each arrow towards a straight line, as far as what lies beside them leaves room."""
    between = {path[i]: (path[i - 1], path[i + 1]) for path in paths for i in range(1, len(path) - 1)}
    for _ in range(40):
        for layer in layers:
            for i, name in enumerate(layer):
                if name in between:
                    before, after = between[name]
                    wanted = (boxes[before].x + boxes[after].x) / 2
                    left = boxes[layer[i - 1]] if i else None
                    right = boxes[layer[i + 1]] if i + 1 < len(layer) else None
                    low = left.x + left.width / 2 + GAP if left else wanted
                    high = right.x - right.width / 2 - GAP if right else max(wanted, low)
                    boxes[name] = replace(boxes[name], x=min(max(wanted, low), max(low, high)))


def _lines(label: str) -> list[str]:
    return re.split(r"<br ?/?>", label)


def _arrow(path: list[Box]) -> str:
    """A curve down to the first bend, a line through the others, a curve to the end."""
    start, *bends, end = path
    words = [f"M{start.x:.1f} {start.y + start.height / 2:.1f}"]
    at = (start.x, start.y + start.height / 2)
    for i, box in enumerate((*bends, end)):
        top = box.y - box.height / 2
        if i in (0, len(bends)):
            half = (top - at[1]) / 2
            words.append(f"C{at[0]:.1f} {at[1] + half:.1f} {box.x:.1f} {top - half:.1f} {box.x:.1f} {top:.1f}")
        else:
            words.append(f"L{box.x:.1f} {top:.1f}")
        at = (box.x, top)
        if i == len(bends) - 1:
            at = (box.x, box.y + box.height / 2)
            words.append(f"L{at[0]:.1f} {at[1]:.1f}")
    return f'<path class="flow-arrow" d="{"".join(words)}" marker-end="url(#flow-head)"/>'


def _node(label: str, box: Box) -> str:
    lines = _lines(label)
    first = box.y - (len(lines) - 1) * LINE / 2
    spans = "".join(
        f'<tspan x="{box.x:.1f}" y="{first + i * LINE:.1f}"{NAME if i == 0 else ""}>{_text(line)}</tspan>'
        for i, line in enumerate(lines)
    )
    corner = f'x="{box.x - box.width / 2:.1f}" y="{box.y - box.height / 2:.1f}"'
    return (
        f'<rect class="flow-node" {corner} width="{box.width:.1f}" height="{box.height:.1f}" rx="5"/>'
        f'<text class="flow-text">{spans}</text>'
    )


def _text(line: str) -> str:
    return html.escape(line, quote=False)


def fence(source: str, language: str, css_class: str, options: dict[str, Any], md: Any, **more: Any) -> str:
    """What ``pymdownx.superfences`` puts in the place of a fence of Mermaid's text.

    Raises:
        SuperFencesException: The text is not drawn; the build ends.
    """
    try:
        drawn = svg(source, str(options.get("title") or "Flowchart"))
    except ValueError as error:
        raise SuperFencesException(f"A flowchart of the docs: {error}") from error
    return f'<div class="flowchart" tabindex="0" role="region" aria-label="Flowchart">{drawn}</div>'
