"""The maps and graphs of a snapshot as one SVG file: real text, no script, no network, light colours written out.

On a page the drawings are styled by variables of the theme. Programs that read SVG files (Inkscape, LaTeX, word
processors) know neither these nor ``light-dark()``, so here every colour stands as itself.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

FONT, LINE = 12, 17
"""Of titles and notes, pixels."""
_ADVANCE = 7.4  # pixels that a character of a title takes at most, on average
_MARGIN, _GAP = 12, 24
_LEAST = 420
"""A narrow map is made so wide, for its title and notes."""
_FIGURE = re.compile(r'<figure class="wbs-map">(.*?)</figure>', re.DOTALL)
_SVG = re.compile(r'<svg class="(?:wb-map|wb-graph)".*?</svg>', re.DOTALL)
_SIZE = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
_TITLE = re.compile(r'<figcaption class="wbs-head">(.*?)</figcaption>', re.DOTALL)
_NOTE = re.compile(r'<p class="wbs-note">(.*?)</p>', re.DOTALL)
_VARIABLE = re.compile(r"var\((--[\w-]+)(?:,\s*([^()]*))?\)")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Drawing:
    """A map or a graph.

    Args:
        svg: The element, styled by variables.
        width, height: In pixels.
        title: Above it.
        notes: Below it.
    """

    svg: str
    width: float
    height: float
    title: str = ""
    notes: tuple[str, ...] = ()


def drawings_of(markup: str) -> list[Drawing]:
    """The maps and graphs of a page that ``WidgetPage`` drew, in order."""
    out: list[Drawing] = []
    for figure in _FIGURE.findall(markup):
        svg = _SVG.search(figure)
        size = _SIZE.search(svg[0]) if svg else None
        if svg is None or size is None:
            continue
        beside = figure[: svg.start()] + figure[svg.end() :]
        title = _TITLE.search(beside)
        notes = tuple(html.unescape(note) for note in _NOTE.findall(beside))
        out.append(Drawing(svg[0], float(size[1]), float(size[2]), html.unescape(title[1]) if title else "", notes))
    return out


def svg_file(drawings: Sequence[Drawing]) -> str:
    """Put drawings below each other into one SVG document, each with its title and notes.

    Args:
        drawings: At least one.

    Returns:
        The document, on white.
    """
    width = max(_LEAST, *(one.width for one in drawings))
    wrap = max(20, int(width / _ADVANCE))
    parts: list[str] = []
    y = float(_MARGIN)
    for one in drawings:
        for line in textwrap.wrap(one.title, wrap):
            y += LINE
            parts.append(_line(y, line, "wbf-title"))
        y += 6
        placed = f'<svg x="{_MARGIN}" y="{y:.0f}" overflow="visible" '
        parts.append(_plain(one.svg).replace("<svg ", placed, 1))
        y += one.height
        for note in one.notes:
            for line in textwrap.wrap(note, wrap):
                y += LINE
                parts.append(_line(y, line, "wbf-note"))
        y += _GAP
    whole, tall = width + 2 * _MARGIN, y - _GAP + _MARGIN
    return _NO_XML.sub(
        "\ufffd",
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:.0f} {tall:.0f}" width="{whole:.0f}" '
        f'height="{tall:.0f}" font-family="{FAMILY}"><style>{file_style()}</style>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n',
    )


def size_of(document: str) -> tuple[float, float]:
    """Width and height of an SVG document, in pixels."""
    found = _SIZE.search(document)
    assert found is not None  # svg_file wrote it
    return float(found[1]), float(found[2])


def _line(y: float, words: str, kind: str) -> str:
    return f'<text x="{_MARGIN}" y="{y:.0f}" class="{kind}">{html.escape(words)}</text>'


FAMILY = "system-ui, 'DejaVu Sans', Arial, sans-serif"


@cache
def file_style() -> str:
    """The style of maps and graphs on pages, with the light theme's colours in the place of variables."""
    css = files("workbench").joinpath("widgets/static/saved.css").read_text(encoding="utf-8")
    rules = [line for line in css.splitlines() if line.startswith((".wb-map", ".wb-graph"))]
    own = "text { font-variant-ligatures: none !important; }\n"  # a search finds words as they are written
    own += f".wbf-title {{ font: 600 {FONT}px {FAMILY}; fill: var(--wb-ink); }}\n"
    own += f".wbf-note {{ font: {FONT - 1}px {FAMILY}; fill: var(--wb-muted); }}"
    return plain_colours("\n".join([*rules, own]))


def plain_colours(css: str) -> str:
    """CSS with every variable and ``light-dark()`` as the light theme's own colour."""
    known = light_colours()
    css = _VARIABLE.sub(lambda found: known.get(found[1]) or (found[2] or "inherit").strip(), css)
    return re.sub(r"light-dark\(\s*((?:[^(),]|\([^()]*\))+?)\s*,(?:[^()]|\([^()]*\))*\)", r"\1", css)


def _plain(svg: str) -> str:
    """A drawing whose styles say colours; its texts stay, whatever they read like."""
    return re.sub(r' style="([^"]*)"', lambda found: f' style="{plain_colours(found[1])}"', svg)


@cache
def light_colours() -> dict[str, str]:
    """The variables of panels as they are in the light theme, without those of JupyterLab."""
    css = files("workbench").joinpath("widgets/static/panels.css").read_text(encoding="utf-8")
    given = dict(reversed(re.findall(r"(--wb-[\w-]+):\s*([^;]+);", css)))  # the first of each is the light one
    return {name: _VARIABLE.sub(lambda found: found[2] or "inherit", value) for name, value in given.items()}
