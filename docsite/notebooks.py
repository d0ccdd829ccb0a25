"""Executed notebooks as pages of the site: mkdocs-jupyter renders them, and nothing on them asks another host.

Before: of each output only what can be shown without a kernel and a network (a widget is its picture, as in
``workbench export``). After: the scripts and styles that nbconvert adds are taken out, plotly's figures get their
numbers and the site's own copy of plotly.js, and code looks like code on the other pages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup, Tag

from workbench.plots.notebook_page import WIDGET, make_static, read_notebook
from workbench.plots.page import FIGURES_CONFIG, json_element

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PLOTLY, FIGURES = "assets/plotly.min.js", "assets/figures.js"
"""The scripts of a page with figures, from the top of the site on."""
LEAST = "0.75"
"""Of a figure's own width that it keeps on a narrow screen, where it then scrolls: less would cut its title."""
_REMOVED = (
    "script, style, link, base, iframe, object, embed, meta",  # what runs or is fetched
    ".zeroclipboard-container, .clipboard-copy-txt, .anchor-link, .jp-Collapser, .jp-InputPrompt, .jp-OutputPrompt",
)


@dataclass(frozen=True)
class Prepared:
    """A notebook that can be rendered without a network.

    Args:
        path: The changed copy.
        figures: plotly's figures, in order.
        words: What each PNG is in words, by its base64.
    """

    path: Path
    figures: list[dict[str, Any]]
    words: dict[str, str]


def prepare(notebook: Path, folder: Path) -> Prepared:
    """Write a copy of a notebook with outputs that need no kernel and no network.

    Args:
        notebook: The ``.ipynb`` file; it is not changed.
        folder: Where the copy goes.

    Raises:
        ValueError: The file is not a notebook, or has a cell of code that was not executed.
    """
    content = read_notebook(notebook)
    cells = [cell for cell in content.cells if cell.cell_type == "code" and cell.source.strip()]
    if any(cell.execution_count is None for cell in cells):
        raise ValueError(f"{notebook.name} has cells that were not executed; execute it before the site shows it.")
    content.metadata.pop("widgets", None)
    for cell in cells:
        cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
    figures, words = make_static(content)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / notebook.name
    nbformat.write(content, path)
    return Prepared(path, figures, words)


def _is_progress(output: nbformat.NotebookNode) -> bool:
    """Whether an output is a progress bar: a widget that says nothing once its kernel is gone."""
    data = output.get("data", {})
    return WIDGET in data and "image/png" not in data and "%|" in data.get("text/plain", "")


def cleaned(page: str, prepared: Prepared, link: Callable[[str], str], asset: Callable[[str], str]) -> str:
    """What mkdocs-jupyter made of a notebook, without anything that is fetched from elsewhere.

    Args:
        page: Its HTML.
        prepared: The notebook.
        link: From a relative link of the notebook to the site's.
        asset: From a file of the site, from its top on, to what this page calls it.
    """
    soup = BeautifulSoup(page, features="html.parser")
    for element in soup.select(", ".join(_REMOVED)):
        element.decompose()
    for code in soup.select(".highlight-ipynb"):
        code["class"] = "highlight"
        pre = code.select_one("pre")
        if pre is not None:
            inner = soup.new_tag("code")
            inner.extend(list(pre.children))
            pre.append(inner)
    for plot in soup.select(".plot"):
        plot["data-least"] = LEAST
    for picture in soup.select("img"):
        _describe(picture, prepared.words)
    for anchor in soup.select("a[href]"):
        anchor["href"] = link(str(anchor["href"]))
    for table in soup.select("table"):
        table.attrs.clear()  # the theme styles plain tables, and lets them scroll
    for cell in soup.select(".jp-Cell-inputWrapper[tabindex]"):
        del cell["tabindex"]
    if title := soup.select_one("h1"):
        title.insert_after(_file_line(soup, prepared.path.name))
    parts = [str(soup)]
    if prepared.figures:
        parts += [json_element(f"figure-{i}-data", figure) for i, figure in enumerate(prepared.figures, 1)]
        parts.append(json_element("plot-config", FIGURES_CONFIG))
        parts += [f'<script src="{asset(name)}"></script>' for name in (PLOTLY, FIGURES)]
    return "\n".join(parts)


def _file_line(soup: BeautifulSoup, name: str) -> Tag:
    """The line that offers the notebook itself."""
    line = soup.new_tag("p", attrs={"class": "notebook-file"})
    anchor = soup.new_tag("a", attrs={"href": name, "download": ""})
    anchor.string = name
    line.extend(["An executed notebook: ", anchor])
    return line


def _describe(picture: Tag, words: dict[str, str]) -> None:
    source = str(picture.get("src", ""))
    if source.startswith("data:"):
        encoded = "".join(source.partition(",")[2].split())
        picture["alt"] = words.get(encoded, str(picture.get("alt", "")))
    else:
        picture.replace_with(f"[a picture that is not in the notebook: {source}]")
