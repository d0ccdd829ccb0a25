"""A notebook as one HTML file that needs no network: what was on screen when it was saved.

nbconvert's own HTML export loads require.js, MathJax and the widgets' code from other hosts, and leaves out plotly's
figures where no network is. Here every panel is drawn from the saved state of its widgets (``widget_html``); where the
notebook has none, it is the picture (PNG) stored with it, and the page says so. plotly.js is embedded once where the
notebook has figures, and no other script is left: a content security policy, with the hash of each script, keeps
whatever text is in an output from running or from asking for anything.

``workbench export`` and ``jupyter nbconvert --to workbench`` write the same page. Formulas stay as they are written
(``$x^2$``), as MathJax would have to come from a network.
"""

from __future__ import annotations

import codecs
import html
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from plotly.offline import get_plotlyjs

from workbench.files.atomic import write_bytes
from workbench.files.paths import user_path
from workbench.plots.page import FIGURES_CONFIG, FIGURES_SCRIPT, content_policy, figure_element, json_element
from workbench.plots.saved_widgets import of_notebook
from workbench.plots.widget_html import WidgetPage, panel_style

WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"
NEED_SCRIPTS = (WIDGET, "application/javascript", "text/vnd.mermaid")
_LOST = "application/x-lost"
"""The kind of a picture that a cell shows and does not hold."""
_HTML_PICTURE = re.compile(r"""(<img\b[^>]*?\bsrc=["']?)attachment:([^"'>\s]+)""")
"""nbconvert knows attachments in Markdown alone, JupyterLab in HTML too."""
_ACTIVE = "script, link, base, iframe, object, embed, meta[http-equiv]"
_STYLE = """.plot { background: #ffffff; min-height: 200px; } figure { margin: 0; } .scroll { overflow-x: auto; }
figcaption { font-size: 0.875em; } :root { color-scheme: light dark; }
.wbs-stored { margin: 8px 0 2px; font: 12px/1.45 sans-serif; color: var(--jp-content-font-color2); }
.jp-InputPrompt.jp-InputPrompt, .jp-OutputPrompt.jp-OutputPrompt { color: var(--jp-content-font-color2); opacity: 1; }
@media (prefers-color-scheme: dark) { .jp-OutputArea-output img { background: #ffffff; }
  .highlight .ow { color: #d9b3ff; } }"""
_STORED = (
    "Drawn when its cell ran: the notebook was saved without the state of its widgets, so what was clicked "
    "afterwards is missing."
)
_TQDM = re.compile(r"(.*:\s+)?\d+%\|.*\| \d+/\d+ \[.*|.*\d+it \[[\d:]+, .*")


def export_notebook(notebook: str | Path, out: str | Path | None = None) -> Path:
    """Write a notebook, as it was saved, as one HTML file that asks for nothing else.

    Args:
        notebook: The ``.ipynb`` file. It is not run and not changed.
        out: The file to write; None: beside the notebook, with ``.html``. An existing one is replaced only once the
            new one is complete.

    Returns:
        The path of the HTML file.

    Raises:
        FileNotFoundError: There is no such notebook.
        ValueError: The file is not a notebook, or ``out`` is the notebook itself.
        OSError: A file cannot be read or written.
    """
    notebook = user_path(notebook)
    out = notebook.with_suffix(".html") if out is None else user_path(out)
    content = read_notebook(notebook)
    if out.resolve() == notebook.resolve():
        raise ValueError(f"{out} is the notebook itself; choose another file for the HTML, such as one in .html.")
    resources: Any = {"metadata": {"name": notebook.stem, "path": str(notebook.parent)}}
    page, _ = WorkbenchExporter().from_notebook_node(content, resources)
    return write_bytes(out, page.encode("utf-8", "replace"))


class WorkbenchExporter(HTMLExporter):
    """What ``jupyter nbconvert --to workbench`` writes, and JupyterLab's menu "Save and Export Notebook As"."""

    export_from_notebook = "HTML with panels"

    def from_notebook_node(self, nb: Any, resources: Any = None, **kwargs: Any) -> tuple[str, Any]:
        """The page of a notebook, and nbconvert's resources. The notebook that was given is not changed."""
        content: Any = nbformat.from_dict(json.loads(json.dumps(nb)))
        widgets = WidgetPage(of_notebook(content.metadata))
        content.metadata.pop("widgets", None)  # with it, nbconvert takes the widgets' code from a network
        figures, words = make_static(content, widgets)
        self.embed_images = True
        page, resources = super().from_notebook_node(content, resources, **kwargs)
        return _closed(page, figures, words, drawn=bool(widgets.drawn)), resources


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook in the format 4. Raises FileNotFoundError, or ValueError where the file is not a notebook."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; give the path of a notebook (.ipynb).")
    try:
        text = _text_of(path)
        if not {"nbformat", "metadata"} <= set(json.loads(text)):
            raise ValueError("it has no nbformat and metadata")
        content = nbformat.reads(text, as_version=4)
        nbformat.validate(content)
    except (ValueError, TypeError, AttributeError, nbformat.ValidationError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a notebook that can be read ({reason}); give an .ipynb file.") from error
    return content


def _text_of(path: Path) -> str:
    """A file's text: UTF-8, or what the mark at its beginning says (some editors and shells write one)."""
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig")


class _Attachments(nbformat.NotebookNode):
    """The pictures attached to a cell, by names as they are written in its text: percent-encoded or not, composed or
    not. One that is not there is given as of a kind of its own, at which nbconvert does not stop."""

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> Any:
        plain = {_plain_name(key): key for key in self.keys()}
        key = plain.get(_plain_name(name))
        return {_LOST: ""} if key is None else super().__getitem__(key)

    def in_html(self, source: str) -> str:
        """A cell's text with the pictures that its HTML shows in the place of their names."""

        def shown(found: re.Match[str]) -> str:
            kind, content = next(iter(self[found[2]].items()), (_LOST, ""))
            return f"{found[1]}data:{kind};base64,{content}"

        return _HTML_PICTURE.sub(shown, source)


def _plain_name(name: str) -> str:
    return unicodedata.normalize("NFC", unquote(name))


def make_static(
    content: nbformat.NotebookNode, widgets: WidgetPage | None = None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Leave of each output what can be shown without a network, and nothing of progress bars.

    Args:
        content: The notebook; its outputs are changed.
        widgets: Draws those whose state was saved. None: all are their stored pictures.

    Returns:
        plotly's figures, in order; and what each PNG is in words (its output's plain text), by its base64.
    """
    figures: list[dict[str, Any]] = []
    words: dict[str, str] = {}
    for cell in content.cells:
        if cell.cell_type != "code":
            cell.attachments = attached = _Attachments(cell.get("attachments", {}))
            cell.source = attached.in_html(cell.source)
        if "outputs" in cell:
            cell.outputs = [one for output in cell.outputs for one in _static(output, widgets, figures)]
            for data in (output.data for output in cell.outputs if "data" in output):
                if "image/png" in data and "text/plain" in data:
                    words["".join(data["image/png"].split())] = data["text/plain"]
    return figures, words


def _static(output: Any, widgets: WidgetPage | None, figures: list[dict[str, Any]]) -> list[Any]:
    """What is shown in the place of an output; a figure is added to those that are there."""
    data = output.get("data", {})
    figure, view = data.get(PLOTLY), data.get(WIDGET)
    if isinstance(figure, dict):
        figures.append({"data": figure.get("data", []), "layout": dict(figure.get("layout", {}))})
        name = f"figure-{len(figures)}"
        output.data = nbformat.from_dict({"text/html": figure_element(figures[-1]["layout"], name, name)})
        return [output]
    model = view.get("model_id") if isinstance(view, dict) else None
    if view is not None and (_TQDM.fullmatch(str(data.get("text/plain", "")).strip())):
        return []
    if widgets is not None and widgets.has(model):
        panel = "" if widgets.is_progress_bar(model) else widgets.draw(model)
        output.data = nbformat.from_dict({"text/html": panel})
        return [output] if panel else []
    dropped = [data.pop(kind) for kind in NEED_SCRIPTS if kind in data]
    if dropped and not data:
        data["text/plain"] = "Not shown here: this output has no picture. Run the notebook to see it."
    if widgets is not None and view is not None and "image/png" in data:
        note = f'<p class="wbs-stored">{_STORED}</p>'
        return [nbformat.v4.new_output("display_data", data={"text/html": note}), output]
    return [output]


def _dark_colours() -> str:
    """JupyterLab's dark colours, for readers who prefer them; nbconvert has a file of them and uses only one theme."""
    paths = WorkbenchExporter().template_paths
    found = (Path(path, "static", "theme-dark.css") for path in paths)
    text = next((path.read_text(encoding="utf-8") for path in found if path.is_file()), "")
    return f"@media (prefers-color-scheme: dark) {{ {text} }}" if text else ""


def _closed(page: str, figures: list[dict[str, Any]], words: dict[str, str], *, drawn: bool) -> str:
    """The page without anything that runs or is fetched, with the figures and the policy that allows only their
    scripts, and with the panels' style where one is drawn."""
    soup = BeautifulSoup(page, features="html.parser")
    for element in soup.select(_ACTIVE):
        element.decompose()
    for picture in soup.select("img"):
        source = str(picture.get("src", ""))
        if source.startswith(f"data:{_LOST}"):
            words_for_it = str(picture.get("alt", "")).strip() or "no description"
            picture.replace_with(f"[a picture that the notebook has lost: {words_for_it}]")
        elif source.startswith("data:"):
            del picture["srcset"]
            encoded = "".join(source.partition(",")[2].split())
            picture["alt"] = words.get(encoded, str(picture.get("alt", "")))
        else:
            picture.replace_with(f"[a picture that is not in the notebook: {source}]")
    _order_headings(soup)
    _tell_apart(soup)
    for body in soup.select("body"):
        del body["data-jp-theme-light"]  # the reader's preference says it
    scripts = [get_plotlyjs(), FIGURES_SCRIPT] if figures else []
    styles = [_dark_colours(), _STYLE, *([panel_style()] if drawn else [])]
    policy = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(content_policy(scripts))}">'
    before, head, after = str(soup).partition("<head>")
    start, body, end = after.rpartition("</body>")
    parts = [json_element(f"figure-{i}-data", figure) for i, figure in enumerate(figures, 1)]
    parts += [json_element("plot-config", FIGURES_CONFIG)] if figures else []
    parts += [f"<script>{script}</script>" for script in scripts]
    # Behind all other styles: a dark colour of the page replaces a light one.
    style = "".join(f"<style>{text}</style>" for text in styles)
    start = start.replace("</head>", f"{style}</head>", 1)
    return "\n".join((before + head, policy, start, *parts, body + end))


def _tell_apart(soup: BeautifulSoup) -> None:
    """Number regions of the same name, such as the tables of a panel that is shown twice."""
    seen: Counter[str] = Counter()
    for region in soup.select("[role=region][aria-label]"):
        name = str(region["aria-label"])
        seen[name] += 1
        if seen[name] > 1:
            region["aria-label"] = f"{name} ({seen[name]})"


def _order_headings(soup: BeautifulSoup) -> None:
    """Let no heading of a panel leave out a level: it may stand below any heading of the notebook."""
    level = 0
    for heading in soup.select("h1, h2, h3, h4, h5, h6, [role=heading]"):
        if heading.get("role") == "heading":
            asked = str(heading.get("aria-level", ""))
            level = min(int(asked) if asked.isdecimal() else 2, level + 1)
            heading["aria-level"] = str(level)
        else:
            level = int(heading.name[1])
