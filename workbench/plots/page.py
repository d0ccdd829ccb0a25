"""A report as one HTML file: offline, light and dark, keyboard readable, printable.

The page loads nothing: plotly.js is embedded once, and a content security policy allows only the page's own scripts (by
hash), so that no text from a model or a file can run or fetch anything, even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from workbench.files.atomic import write_bytes
from workbench.plots.export import CONFIG


@dataclass(frozen=True)
class Code:
    """A text shown as it is, in a fixed-width font.

    Args:
        text: The text.
    """

    text: str


Item = str | go.Figure | pd.DataFrame | Code
Section = tuple[str, Sequence[Item]]

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1a1a1a; --muted: #555555; --line: #c9c9c9; --soft: #f3f4f6;
  --link: #0b57a4; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e8e8e8; --muted: #a9adb3; --line: #454a52;
  --soft: #22262c; --link: #8ab8f0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", Arial, sans-serif; }
header, nav, main { max-width: 1280px; margin: 0 auto; padding: 0 24px; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 32px 0 12px; }
h2 { font-size: 1.3rem; margin: 40px 0 12px; padding-top: 12px; border-top: 1px solid var(--line); }
h1, h2, p, caption, td, th, figcaption, nav a { overflow-wrap: anywhere; }
p { max-width: 80ch; margin: 0 0 12px; white-space: pre-line; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 20px; list-style: none; padding: 0; margin: 0; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.scroll { overflow-x: auto; max-width: 100%; margin: 0 0 20px; }
.scroll.frame { border: 1px solid var(--line); border-radius: 6px; }
figure { margin: 0 0 24px; }
figure .scroll { margin: 0; }
.plot { background: #ffffff; min-height: 200px; }
figcaption { color: var(--muted); font-size: 0.875rem; max-width: 100ch; margin-top: 6px; }
table { border-collapse: collapse; font-size: 0.9375rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 0 0 8px; }
th, td { padding: 5px 14px 5px 8px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  white-space: pre-wrap; min-width: 4.5em; max-width: 60ch; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; }
tbody tr:nth-child(even) { background: var(--soft); }
.number { text-align: right; }
pre { margin: 0; padding: 12px 14px; background: var(--soft); font: 14px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo,
  Consolas, monospace; }
@media print {
  :root { color-scheme: light; --paper: #ffffff; --ink: #000000; --muted: #444444; --line: #bbbbbb; --soft: #f3f4f6; }
  body { font-size: 11pt; }
  nav { display: none; }
  header, main { max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  figure, tr, pre { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""

FIGURES_SCRIPT = """
(function () {
  "use strict";
  var plots = Array.prototype.slice.call(document.querySelectorAll(".plot"));
  var config = JSON.parse(document.getElementById("plot-config").textContent);
  var printing = false;
  function natural(plot) { return Number(plot.dataset.width); }
  function fit(plot) {
    var room = plot.parentElement.clientWidth;
    var least = printing ? 0 : Number(plot.dataset.least || 0.6);
    return Math.round(Math.max(Math.min(natural(plot), printing ? 680 : room), natural(plot) * least));
  }
  function resize() {
    plots.forEach(function (plot) {
      if (plot.data && plot.layout.width !== fit(plot)) { Plotly.relayout(plot, { width: fit(plot) }); }
    });
  }
  plots.forEach(function (plot) {
    var data = JSON.parse(document.getElementById(plot.id + "-data").textContent);
    data.layout.width = fit(plot);
    Plotly.newPlot(plot, data.data, data.layout, config);
  });
  window.addEventListener("resize", resize);
  window.addEventListener("beforeprint", function () { printing = true; resize(); });
  window.addEventListener("afterprint", function () { printing = false; resize(); });
}());
"""

FIGURES_CONFIG = {**CONFIG, "responsive": False}  # the script fits the width itself


def write_html_report(path: str | Path, *, title: str, sections: Iterable[Section]) -> Path:
    """Write a self-contained HTML report.

    Args:
        path: The file. An existing one is replaced only once the new one is complete.
        title: Plain text.
        sections: Pairs of a heading and its items: ``str`` (a paragraph of plain text), ``go.Figure`` (with its
            ``layout.meta["alt"]`` as the caption), ``pandas.DataFrame`` (a table; ``frame.attrs["caption"]`` or the
            heading is its caption, an unnamed 0-to-n index is left out), or ``Code``.

    Returns:
        The path.

    Raises:
        TypeError: An item of another type.
        OSError: The file cannot be written.
    """
    bodies: list[str] = []
    links: list[str] = []
    figures: list[go.Figure] = []
    for number, (heading, items) in enumerate(sections, 1):
        parts = [_item(item, heading, figures) for item in items]
        bodies.append(
            f'<section aria-labelledby="section-{number}">\n<h2 id="section-{number}">{_text(heading)}</h2>\n'
            + "\n".join(parts)
            + "\n</section>"
        )
        links.append(f'<li><a href="#section-{number}">{_text(heading)}</a></li>')
    scripts = [get_plotlyjs(), FIGURES_SCRIPT] if figures else []
    contents = f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>' if len(links) > 1 else ""
    page = f"""{page_head(title, _STYLE, scripts)}
<body>
<header><h1>{_text(title)}</h1></header>
{contents}
<main>
{"".join(body + chr(10) for body in bodies)}</main>
{json_element("plot-config", FIGURES_CONFIG) if figures else ""}
{"".join(f"<script>{script}</script>{chr(10)}" for script in scripts)}</body>
</html>
"""
    return write_bytes(path, page.encode())


def _text(text: object) -> str:
    """Escaped for element content and attribute values; lone surrogates and NUL become U+FFFD."""
    clean = str(text).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return html.escape(clean, quote=True)


def page_head(title: object, style: str, scripts: Sequence[str] = ()) -> str:
    """A page up to its body: nothing is requested, and only these scripts run.

    Args:
        title: Raw text.
        style: CSS.
        scripts: Their sources.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{content_policy(scripts)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_text(title)}</title>
<style>{style}</style>
</head>"""


def content_policy(scripts: Sequence[str]) -> str:
    """The content security policy of a page: no requests, and only these scripts."""
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{d}'" for d in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def json_element(name: str, value: Any) -> str:
    """JSON inside the page; a ``</script>`` in a text cannot end the element."""
    text = value if isinstance(value, str) else json.dumps(value)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _item(item: Item, heading: str, figures: list[go.Figure]) -> str:
    if isinstance(item, str):
        return f"<p>{_text(item)}</p>"
    if isinstance(item, Code):
        label = f'tabindex="0" role="region" aria-label="Code: {_text(heading)}"'
        return f'<div class="scroll frame" {label}><pre><code>{_text(item.text)}</code></pre></div>'
    if isinstance(item, pd.DataFrame):
        return _table(item, str(item.attrs.get("caption", heading)))
    if isinstance(item, go.Figure):
        figures.append(item)
        return _figure(item, f"figure-{len(figures)}", heading)
    raise TypeError(f"A report holds str, plotly figures, pandas DataFrames and Code, got {type(item).__name__}.")


def _figure(figure: go.Figure, name: str, heading: str) -> str:
    element = figure_element(figure.to_dict()["layout"], name, heading)
    return f"{element}\n{json_element(name + '-data', figure.to_json())}"


def figure_element(layout: dict[str, Any], name: str, heading: str) -> str:
    """Where ``FIGURES_SCRIPT`` draws a figure; the page also needs its JSON, as ``json_element(name + "-data", ...)``.

    Args:
        layout: Of the figure, for its width and ``meta["alt"]``.
        name: The element's id.
        heading: What it is, for screen readers.
    """
    meta = layout.get("meta")
    alt = str(meta["alt"]) if isinstance(meta, dict) and "alt" in meta else ""
    size = f'data-width="{int(layout.get("width") or 900)}"'
    caption = f"<figcaption>{_text(alt)}</figcaption>" if alt else ""
    return (
        f'<figure aria-label="{_text(alt or heading)}"><div class="scroll frame" tabindex="0" role="region" '
        f'aria-label="Figure: {_text(heading)}"><div class="plot" id="{name}" {size}></div></div>{caption}'
        f"<noscript><p>This figure needs JavaScript.</p></noscript></figure>"
    )


def _table(frame: pd.DataFrame, caption: str) -> str:
    """A table with a caption, column heads and, where the index says something, row heads."""
    plain = isinstance(frame.index, pd.RangeIndex) and frame.index.name is None
    levels = [] if plain else ["" if n is None else n for n in frame.index.names]
    numeric = [pd.api.types.is_numeric_dtype(t) and not pd.api.types.is_bool_dtype(t) for t in frame.dtypes]
    head = [f'<th scope="col">{_text(n)}</th>' for n in levels]
    for column, right in zip(frame.columns, numeric, strict=True):
        name = " / ".join(map(str, column)) if isinstance(column, tuple) else column
        head.append(f'<th scope="col"{_side(right)}>{_text(name)}</th>')
    rows: list[str] = []
    for index, values in zip(frame.index, frame.itertuples(index=False, name=None), strict=True):
        keys = () if plain else index if isinstance(index, tuple) else (index,)
        cells = [f'<th scope="row">{_text(_cell(k))}</th>' for k in keys]
        cells += [f"<td{_side(right)}>{_text(_cell(v))}</td>" for v, right in zip(values, numeric, strict=True)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table: {_text(caption)}"><table>'
        f"<caption>{_text(caption)}</caption>\n<thead><tr>{''.join(head)}</tr></thead>\n<tbody>\n"
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )


def _side(right: bool) -> str:
    return ' class="number"' if right else ""


def _cell(value: object) -> str:
    """A cell's text: floats with four significant digits, ``n/a`` for NaN, empty for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        if math.isnan(value):
            return "n/a"
        return f"{value:.4g}"
    return "n/a" if value is pd.NA or value is pd.NaT else str(value)
