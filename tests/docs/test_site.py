"""The built site: each of its pages has what it is for."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import griffe
import pytest
from bs4 import BeautifulSoup, Tag

from docsite import api
from docsite.file_table import PACKAGE
from docsite.links import ROOT
from docsite.notebooks import FIGURES, NOTEBOOKS, PLOTLY


@cache
def page(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), features="html.parser")


ENTRIES = {
    one.path: one
    for listed in api.entries().values()
    for one in listed
    if one.path.count(".") == 1 or one.path.startswith("workbench.recipes.")
}
"""The names of ``wb`` and ``wb.recipes``."""


@cache
def entry_of(site: Path, path: str) -> Tag:
    """The entry of a name, with its members."""
    found = page(site / f"reference/api/{ENTRIES[path].home}.html").find(id=path)
    assert isinstance(found, Tag), f"{path} has no entry"
    entry = found.find_parent(class_="doc-object")
    assert isinstance(entry, Tag)
    return entry


def sections(entry: Tag) -> set[str]:
    """The parts of an entry's own docstring: ``"Parameters"``, ``"Raises"``, ..."""
    own = entry.select_one(".doc-contents")
    assert own is not None
    titles = [title for title in own.select(".doc-section-title") if title.find_parent(class_="doc-children") is None]
    return {title.get_text().strip().rstrip(":") for title in titles}


@pytest.mark.parametrize("path", [path for path, one in ENTRIES.items() if one.kind in ("function", "class")])
def test_a_public_name_has_all_that_its_docstring_says(site: Path, path: str) -> None:
    thing = api.package()[path.removeprefix("workbench.")].final_target
    entry = entry_of(site, path)
    found = sections(entry)
    signature = entry.select_one(".doc-signature")
    assert signature is not None
    assert re.search(rf"\b{thing.name}\b", signature.get_text())
    assert entry.select_one("details.mkdocstrings-source pre") is not None, "no source"
    example = [part for part in entry.select("pre") if ">>>" in part.get_text()]
    assert example, "no example"
    wanted = {section.kind.value for section in thing.docstring.parse("google")} if thing.docstring else set()
    names = {"parameters": "Parameters", "returns": "Returns", "yields": "Yields", "raises": "Raises"}
    assert {names[kind] for kind in wanted if kind in names} <= found
    if isinstance(thing, griffe.Function):
        documented = {p.name for p in thing.parameters if p.name != "self"}
        assert documented and "Parameters" in found, "its arguments are not said"
        assert found & {"Returns", "Yields"}, "what comes back is not said"


def test_the_index_of_the_reference_links_every_public_name(site: Path) -> None:
    links = {
        str(anchor["href"]).partition("#")[2] for anchor in page(site / "reference/api/index.html").select("a[href]")
    }
    assert set(ENTRIES) <= links


def test_the_architecture_page_has_every_file_and_its_picture(site: Path) -> None:
    shown = page(site / "development/architecture.html")
    names = [code.get_text() for code in shown.select("td:first-child code")]
    sources = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    assert {"/".join(path.parts[1:]) or path.name for path in sources} <= set(names)
    assert len(names) >= len(sources)
    assert len(shown.select(".flowchart svg .flow-node")) > 10


def test_pages_of_the_checkout_and_the_command_line_are_there(site: Path) -> None:
    newest = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    headings = [heading.get_text().rstrip("¶") for heading in page(site / "development/changelog.html").select("h2")]
    assert newest is not None
    assert headings[0] == newest[1]
    assert "Where a new thing goes" in page(site / "development/contributing.html").get_text()
    assert "usage: workbench demo" in page(site / "reference/cli.html").get_text()


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebooks_page_has_its_figures_and_pictures_and_no_progress_bars(site: Path, notebook: Path) -> None:
    text = notebook.read_text(encoding="utf-8")
    shown = page(site / f"tutorials/{notebook.stem}.html")
    figures = text.count('"application/vnd.plotly.v1+json"')
    scripts = [str(script["src"]) for script in shown.select(".md-content script[src]")]
    assert len(shown.select(".plot")) == len(shown.select("script[type='application/json'][id^=figure-]")) == figures
    assert scripts == ([f"../{PLOTLY}", f"../{FIGURES}"] if figures else [])
    assert len(shown.select("img[src^='data:image/png']")) == text.count('"image/png"')
    assert all(picture.get("alt") for picture in shown.select("img[src^='data:image/png']"))
    assert "0%|" not in shown.get_text()
    assert shown.select(".highlight pre code .n")
    assert (site / f"tutorials/{notebook.name}").is_file(), "the notebook itself can be loaded"


def test_the_gallery_has_every_notebook(site: Path) -> None:
    links = {str(anchor["href"]) for anchor in page(site / "tutorials/index.html").select(".md-content a[href]")}
    assert {f"{path.stem}.html" for path in NOTEBOOKS.glob("*.ipynb")} <= links


def test_every_page_follows_the_system_and_can_be_toggled(site: Path) -> None:
    for path in sorted(site.rglob("*.html")):
        media = [str(one.get("data-md-color-media")) for one in page(path).select("input[data-md-color-media]")]
        assert media == ["(prefers-color-scheme)", "(prefers-color-scheme: light)", "(prefers-color-scheme: dark)"]
