"""A panel as plain HTML, from the state of its widgets: all its tabs, texts, maps and fields, and no script.

A widget is drawn by the function of its name in ``DRAWN``; what is in no row and has children is a box of them. Buttons
do nothing on a page without a kernel and are left out, as is what the panel hides.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from html import escape
from importlib.resources import files
from itertools import count
from typing import Any

from workbench.plots.clean_html import clean_html, is_plain
from workbench.plots.graph_svg import graph_of, graph_svg
from workbench.plots.map_svg import heat_map_svg
from workbench.plots.page import page_head
from workbench.plots.saved_fields import FIELDS, field_words
from workbench.plots.saved_map import heat_map_of
from workbench.plots.saved_widgets import SavedWidget, SavedWidgets
from workbench.plots.style import short_number

MOST_WIDGETS = 20_000
"""In one panel; boxes in boxes that name each other again and again would have no end."""
DEEPEST = 60
_LAYOUT = (
    *(
        "display",
        "flex",
        "flex_flow",
        "width",
        "min_width",
        "max_width",
        "align_items",
        "align_self",
        "justify_content",
    ),
    *("order", "grid_template_columns", "grid_gap", "grid_column", "grid_row"),
)
_LEFT_OUT = frozenset(
    ("Button", "ToggleButton", "Connection", "FileUpload", "Play", "Layout", "Controller", "Audio", "Video", "Link")
)
_FINISHED = ("success", "danger")
_LIST_ROW = 22  # pixels of a row of a ranked list, as in static/bars/bars.css


class WidgetPage:
    """Draws the widgets of one notebook, or of one snapshot, for one page.

    Args:
        widgets: Their state.

    Example:
        >>> label = {"model_name": "LabelModel", "state": {"value": "Paris <3"}}
        >>> page = WidgetPage(SavedWidgets({"version_major": 2, "state": {"a1": label}}))
        >>> page.draw("IPY_MODEL_a1")
        '<div class="wb-panel wb-saved"><span class="wbs-text">Paris &lt;3</span></div>'
        >>> page.draw("b2")
        ''
    """

    def __init__(self, widgets: SavedWidgets) -> None:
        self._widgets = widgets
        self._numbers = count(1)
        self._open: list[str] = []
        self._left = 0
        self.drawn = 0

    def draw(self, reference: Any) -> str:
        """The widget of this id, with all that is in it; empty where there is nothing to show."""
        self._left, self._open = MOST_WIDGETS, []
        inside = self.part(reference)
        if self._left <= 0:
            inside += f'<p class="wbs-none">Only the first {MOST_WIDGETS} parts are shown.</p>'
        self.drawn += bool(inside)
        return f'<div class="wb-panel wb-saved">{inside}</div>' if inside else ""

    def has(self, reference: Any) -> bool:
        """Whether the state of this widget is there."""
        return self._widgets.find(reference) is not None

    def is_progress_bar(self, reference: Any) -> bool:
        """Whether it is a bar of tqdm: says nothing once it is finished, or its kernel is gone."""
        widget = self._widgets.find(reference)
        if widget is None or widget.name != "HBox":
            return False
        names = [one.name for child in widget.listed("children") if (one := self._widgets.find(child)) is not None]
        return len(names) == 3 and names[1] in ("FloatProgress", "IntProgress")

    def part(self, reference: Any) -> str:
        """A widget within another one: empty where it is hidden, missing, or within itself."""
        widget = self._widgets.find(reference)
        if widget is None or widget.id in self._open or len(self._open) >= DEEPEST or self._left <= 0:
            return ""
        self._left -= 1
        layout = self._layout(widget)
        if layout is None or widget.name in _LEFT_OUT:
            return self.chip(widget) if widget.name == "Button" and layout is not None else ""
        self._open.append(widget.id)
        try:
            inside = DRAWN.get(widget.name, _other)(self, widget)
        finally:
            self._open.pop()
        boxed = _is_box(widget) and DRAWN.get(widget.name, _box) in (_box, _grid)
        if not inside or not (boxed or layout):
            return inside
        style = f' style="{escape(layout, quote=True)}"' if layout else ""
        return f'<div class="{_classes(widget) if boxed else "wbs-part"}"{style}>{inside}</div>'

    def in_sight(self, reference: Any) -> bool:
        """Whether a widget is there and not hidden, even if there is nothing to draw of it."""
        widget = self._widgets.find(reference)
        return widget is not None and self._layout(widget) is not None

    def parts(self, references: Iterable[Any]) -> str:
        """Several widgets, one after the other."""
        return "".join(self.part(reference) for reference in references)

    def number(self) -> int:
        """Another one at every call, for ids."""
        return next(self._numbers)

    def clean(self, markup: str) -> str:
        """Markup from a widget that can neither run nor load anything."""
        return clean_html(markup, f"w{self.number()}-")

    def chip(self, button: SavedWidget) -> str:
        """A button that takes something away names what is there: a component of the selection."""
        words = button.text("description")
        return f'<span class="wbs-chip">{escape(words[:-1].strip())}</span>' if words.endswith(("×", "✕")) else ""

    def _layout(self, widget: SavedWidget) -> str | None:
        """The style that a widget's layout asks for; None where it is not shown."""
        layout = self._widgets.find(widget.fields.get("layout"))
        if layout is None:
            return _direction(widget, "")
        if layout.text("display") == "none" or layout.text("visibility") == "hidden":
            return None
        kept = [(name, layout.text(name)) for name in _LAYOUT if is_plain(layout.text(name))]
        return _direction(widget, "; ".join(f"{name.replace('_', '-')}: {value}" for name, value in kept))


Draw = Callable[[WidgetPage, SavedWidget], str]


def _is_box(widget: SavedWidget) -> bool:
    return isinstance(widget.fields.get("children"), list)


def _direction(widget: SavedWidget, style: str) -> str:
    """What ipywidgets says by a class: whether a box is a row."""
    said = {"HBox": "flex-flow: row wrap", "Box": "flex-flow: row wrap", "GridBox": "display: grid"}.get(
        widget.name, ""
    )
    return "; ".join(filter(None, (said, style)))


def _classes(widget: SavedWidget) -> str:
    """The box's class, and the panels' own, which their style knows."""
    given = [name for name in widget.listed("_dom_classes") if isinstance(name, str)]
    return " ".join(["wbs-box", *(name for name in given if re.fullmatch(r"wb-[a-z0-9-]+", name))])


def _box(page: WidgetPage, widget: SavedWidget) -> str:
    return page.parts(widget.listed("children"))


def _grid(page: WidgetPage, widget: SavedWidget) -> str:
    """What shows nothing keeps its place, or all that comes after it would move."""
    shown = [child for child in widget.listed("children") if page.in_sight(child)]
    return "".join(page.part(child) or '<span class="wbs-place"></span>' for child in shown)


def _tabs(page: WidgetPage, widget: SavedWidget) -> str:
    """All of them below each other, each with its title."""
    children, titles = widget.listed("children"), _titles(widget)
    sections: list[str] = []
    for i, child in enumerate(children):
        if inside := page.part(child):
            name = f"wbs-{page.number()}"
            title = f'<h2 class="wbs-tab" id="{name}">{escape(titles.get(i, f"Part {i + 1}"))}</h2>'
            sections.append(f'<section aria-labelledby="{name}">{title}{inside}</section>')
    return "".join(sections)


def _titles(widget: SavedWidget) -> dict[int, str]:
    """``titles`` is a list; before ipywidgets 8, ``_titles`` was a dict by the place in words."""
    old = widget.fields.get("_titles")
    if isinstance(old, dict):
        return {int(i): str(title) for i, title in old.items() if str(i).isdecimal()}
    return {i: str(title) for i, title in enumerate(widget.listed("titles"))}


def _stack(page: WidgetPage, widget: SavedWidget) -> str:
    """The one that is in sight."""
    index, children = widget.fields.get("selected_index", 0), widget.listed("children")
    return page.part(children[index]) if isinstance(index, int) and 0 <= index < len(children) else ""


def _markup(page: WidgetPage, widget: SavedWidget) -> str:
    inside = page.clean(widget.text("value"))
    label = widget.text("description")
    return (f'<span class="wbs-label">{escape(label)}</span> ' if label else "") + inside


def _label(page: WidgetPage, widget: SavedWidget) -> str:
    return f'<span class="wbs-text">{escape(widget.text("value"))}</span>' if widget.text("value") else ""


def _heat_map(page: WidgetPage, widget: SavedWidget) -> str:
    heat = heat_map_of(dict(widget.fields))
    if heat is None:
        return _other(page, widget)
    title = f'<figcaption class="wbs-head">{escape(heat.title)}</figcaption>' if heat.title else ""
    status = f'<p class="wbs-note">{escape(heat.status)}</p>' if heat.status else ""
    return f'<figure class="wbs-map">{title}{heat_map_svg(heat, f"map-{page.number()}")}{status}</figure>'


def _graph(page: WidgetPage, widget: SavedWidget) -> str:
    graph = graph_of(dict(widget.fields))
    if graph is None or not graph.edges:
        return _other(page, widget)
    title = f'<figcaption class="wbs-head">{escape(graph.title)}</figcaption>' if graph.title else ""
    drawn = graph_svg(graph, f"graph-{page.number()}")
    key = "Solid and red: the metric rises where the edge alone is corrupted. Dashed and blue: it falls."
    return f'<figure class="wbs-map">{title}{drawn}<p class="wbs-note">{escape(graph.status)}. {key}</p></figure>'


def _bar_list(page: WidgetPage, widget: SavedWidget) -> str:
    """A table of names, values and bars: those that the list showed without scrolling, and all that are picked."""
    picked, limit = set(map(str, widget.listed("selected"))), widget.number("limit", 1.0) or 1.0
    pairs = zip(map(str, widget.listed("names")), widget.listed("values"), strict=False)
    listed = [(name, value) for name, value in pairs if isinstance(value, int | float)]
    height = widget.number("list_height")
    seen = max(1, int(height / _LIST_ROW)) if height > 0 else len(listed)
    shown = [row for i, row in enumerate(listed) if i < seen or row[0] in picked]
    rows = [
        f'<tr><th scope="row">{"✓ " if name in picked else ""}{escape(name)}</th>'
        f'<td class="wbs-number">{escape(short_number(value))}</td><td><span class="wbs-bar" style="width: '
        f'{120 * min(1.0, abs(value / limit)):.0f}px"></span></td></tr>'
        for name, value in shown
    ]
    if not rows:
        return ""
    more = len(listed) - len(shown)
    rest = f'<tfoot><tr><td colspan="3">and {more:,} more</td></tr></tfoot>' if more else ""
    caption = escape(widget.text("title") or widget.text("alt"))
    unit = escape(widget.text("unit")) or "Value"
    heads = ("Name", unit, '<span class="wbs-hidden">Bar</span>')
    head = "".join(f'<th scope="col">{words}</th>' for words in heads)
    return (
        f'<table class="wbs-list"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody>{rest}</table>"
    )


def _progress(page: WidgetPage, widget: SavedWidget) -> str:
    """How far something was; nothing once it is finished."""
    value, most = widget.number("value"), widget.number("max", 100.0)
    if value >= most or widget.text("bar_style") in _FINISHED:
        return ""
    return f'<progress max="{most:g}" value="{value:g}" aria-label="Progress"></progress>'


def _image(page: WidgetPage, widget: SavedWidget) -> str:
    data, kind = widget.fields.get("value"), widget.text("format") or "png"
    if not isinstance(data, bytes):
        return ""
    return page.clean(f'<img src="data:image/{escape(kind)};base64,{b64encode(data).decode()}" alt="A picture">')


def _output(page: WidgetPage, widget: SavedWidget) -> str:
    """What was printed and displayed into it."""
    parts: list[str] = []
    for output in widget.listed("outputs"):
        if not isinstance(output, dict):
            continue
        data = output.get("data")
        data = data if isinstance(data, dict) else {}
        view = data.get("application/vnd.jupyter.widget-view+json")
        text, markup = output.get("text", data.get("text/plain")), data.get("text/html")
        if isinstance(view, dict) and page.has(view.get("model_id")):
            parts.append(page.part(view.get("model_id")))
        elif isinstance(markup, str | list):
            parts.append(page.clean("".join(map(str, markup))))
        elif isinstance(text, str | list):
            parts.append(f'<pre tabindex="0">{escape("".join(map(str, text)))}</pre>')
    return "".join(parts)


def _field(page: WidgetPage, widget: SavedWidget) -> str:
    """A control as its label and its value."""
    label, value = field_words(widget)
    if not value:
        return ""
    if "\n" in value:
        shown = f'<pre class="wbs-value" tabindex="0">{escape(value)}</pre>'
    else:
        shown = f'<span class="wbs-value">{escape(value)}</span>'
    name = f'<span class="wbs-label">{escape(label)}</span> ' if label else ""
    return f'<div class="wbs-field">{name}{shown}</div>'


def _code(page: WidgetPage, widget: SavedWidget) -> str:
    source, summary = widget.text("source"), widget.text("summary") or "Code"
    if not source:
        return ""
    opened = " open" * (widget.fields.get("opened") is True)
    code = f'<pre tabindex="0"><code>{escape(source)}</code></pre>'
    return f'<div class="wb"><details{opened}><summary>{escape(summary)}</summary>{code}</details></div>'


def _other(page: WidgetPage, widget: SavedWidget) -> str:
    """A kind that has no row: its children, or what it says of itself."""
    if _is_box(widget):
        return _box(page, widget)
    said = [widget.text(name) for name in ("title", "description", "alt") if widget.text(name)]
    value = widget.fields.get("value")
    said += [str(value)] if isinstance(value, str | int | float) and not isinstance(value, bool) else []
    return f'<p class="wbs-note">{escape(": ".join(dict.fromkeys(said)))}</p>' if said else ""


DRAWN: dict[str, Draw] = {
    **{name: _box for name in ("Box", "VBox", "HBox")},
    "GridBox": _grid,
    "Tab": _tabs,
    "Accordion": _tabs,
    "Stack": _stack,
    "HTML": _markup,
    "HTMLMath": _markup,
    "Label": _label,
    "HeatGrid": _heat_map,
    "BarList": _bar_list,
    "GraphView": _graph,
    "CodeBlock": _code,
    "FloatProgress": _progress,
    "IntProgress": _progress,
    "Image": _image,
    "Output": _output,
    **{name: _field for name in FIELDS},
}
"""How each kind of widget is drawn. An anywidget is looked up by the name of its class."""


def panel_style() -> str:
    """CSS for what ``WidgetPage`` draws, in both themes."""
    folder = files("workbench").joinpath("widgets/static")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in ("panels.css", "saved.css"))


def whole_page(title: str, body: str) -> str:
    """One HTML page that loads nothing, light or dark as its reader prefers.

    Args:
        title: Raw text.
        body: Of ``WidgetPage.draw``.
    """
    style = (
        f":root {{ color-scheme: light dark; }} body {{ margin: 16px; }}\n{panel_style()}\n"
        "@media (prefers-color-scheme: dark) { body { background: #1c1c1c; } }"
    )
    return f"""{page_head(title, style)}
<body><main><h1 class="wbs-hidden">{escape(title)}</h1>{body}</main></body>
</html>
"""
