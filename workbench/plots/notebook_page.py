"""A notebook as one HTML file that needs no network.

nbconvert's own HTML export loads require.js, MathJax and the widgets' code from other hosts, and leaves out plotly's
figures where no network is. Here every widget is the picture (PNG) stored with it, plotly.js is embedded once where
the notebook has figures, and no other script is left: a content security policy, with the hash of each script, keeps
whatever text is in an output from running or from asking for anything.

Formulas stay as they are written (``$x^2$``), as MathJax would have to come from a network.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from plotly.offline import get_plotlyjs

from workbench.files.atomic import write_bytes
from workbench.plots.page import FIGURES_CONFIG, FIGURES_SCRIPT, content_policy, figure_element, json_element

WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"
NEED_SCRIPTS = (WIDGET, "application/javascript", "text/vnd.mermaid")
_ACTIVE = "script, link, base, iframe, object, embed, meta[http-equiv]"
_STYLE = """<style>.plot { background: #ffffff; min-height: 200px; } figure { margin: 0; }
.scroll { overflow-x: auto; } figcaption { font-size: 0.875em; }</style>"""


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
    notebook = Path(notebook)
    out = notebook.with_suffix(".html") if out is None else Path(out)
    content = read_notebook(notebook)
    if out.resolve() == notebook.resolve():
        raise ValueError(f"{out} is the notebook itself; choose another file for the HTML, such as one in .html.")
    content.metadata.pop("widgets", None)  # with it, nbconvert takes the widgets' code from a network
    figures, words = make_static(content)
    resources: Any = {"metadata": {"name": notebook.stem, "path": str(notebook.parent)}}
    page, _ = HTMLExporter(embed_images=True).from_notebook_node(content, resources)
    return write_bytes(out, _closed(page, figures, words).encode("utf-8", "replace"))


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook in the format 4. Raises FileNotFoundError, or ValueError where the file is not a notebook."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; give the path of a notebook (.ipynb).")
    try:
        text = path.read_text(encoding="utf-8")
        if not {"nbformat", "metadata"} <= set(json.loads(text)):
            raise ValueError("it has no nbformat and metadata")
        content = nbformat.reads(text, as_version=4)
        nbformat.validate(content)
    except (ValueError, TypeError, AttributeError, nbformat.ValidationError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a notebook that can be read ({reason}); give an .ipynb file.") from error
    return content


def make_static(content: nbformat.NotebookNode) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Leave of each output what can be shown without a network.

    Returns:
        plotly's figures, in order; and what each PNG is in words (its output's plain text), by its base64.
    """
    figures: list[dict[str, Any]] = []
    words: dict[str, str] = {}
    for cell in content.cells:
        for output in cell.get("outputs", ()):
            if "data" not in output:
                continue
            data = output.data
            figure = data.get(PLOTLY)
            if figure is not None:
                figures.append({"data": figure.get("data", []), "layout": dict(figure.get("layout", {}))})
                name = f"figure-{len(figures)}"
                output.data = nbformat.from_dict({"text/html": figure_element(figures[-1]["layout"], name, name)})
                continue
            dropped = [data.pop(kind) for kind in NEED_SCRIPTS if kind in data]
            if dropped and not data:
                data["text/plain"] = "Not shown here: this output has no picture. Run the notebook to see it."
            if "image/png" in data and "text/plain" in data:
                words["".join(data["image/png"].split())] = data["text/plain"]
    return figures, words


def _closed(page: str, figures: list[dict[str, Any]], words: dict[str, str]) -> str:
    """The page without anything that runs or is fetched, with the figures and the policy that allows only their
    scripts."""
    soup = BeautifulSoup(page, features="html.parser")
    for element in soup.select(_ACTIVE):
        element.decompose()
    for picture in soup.select("img"):
        source = str(picture.get("src", ""))
        if source.startswith("data:"):
            del picture["srcset"]
            encoded = "".join(source.partition(",")[2].split())
            picture["alt"] = words.get(encoded, str(picture.get("alt", "")))
        else:
            picture.replace_with(f"[a picture that is not in the notebook: {source}]")
    scripts = [get_plotlyjs(), FIGURES_SCRIPT] if figures else []
    policy = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(content_policy(scripts))}">'
    before, head, after = str(soup).partition("<head>")
    start, body, end = after.rpartition("</body>")
    parts = [json_element(f"figure-{i}-data", figure) for i, figure in enumerate(figures, 1)]
    parts += [json_element("plot-config", FIGURES_CONFIG)] if figures else []
    parts += [f"<script>{script}</script>" for script in scripts]
    return "\n".join((before + head, policy, _STYLE + start, *parts, body + end))
