"""Notebooks as they come: pictures attached to cells, lost ones, names of any letters, and marks of byte order."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
import pytest
from bs4 import BeautifulSoup

from workbench import cli
from workbench.plots.notebook_page import export_notebook

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def notebook(text: str, *names: str, kind: str = "markdown") -> nbformat.NotebookNode:
    """A notebook of one cell with attachments of these names."""
    make = nbformat.v4.new_raw_cell if kind == "raw" else nbformat.v4.new_markdown_cell
    cell = make(text, attachments={name: {"image/png": PNG} for name in names})
    return nbformat.v4.new_notebook(cells=[cell])


def page_of(content: nbformat.NotebookNode, folder: Path) -> BeautifulSoup:
    path = folder / "n.ipynb"
    nbformat.write(content, path)
    return BeautifulSoup(export_notebook(path).read_text(encoding="utf-8"), features="html.parser")


def pictures(page: BeautifulSoup) -> list[str]:
    return [str(picture["src"]) for picture in page.select("img")]


@pytest.mark.parametrize("name", ["x.png", "grün.png", "图.png", "a b.png", "50%.png"])
@pytest.mark.parametrize("written", ["as it is", "percent-encoded", "decomposed"])
def test_an_attached_picture(name: str, written: str, tmp_path: Path) -> None:
    import unicodedata

    as_written = {"as it is": name, "percent-encoded": quote(name), "decomposed": unicodedata.normalize("NFD", name)}
    source = as_written[written].replace(" ", "%20")
    page = page_of(notebook(f"![what it shows](attachment:{source})", name), tmp_path)
    assert pictures(page) == [f"data:image/png;base64,{PNG}"]
    assert page.select("img")[0]["alt"] == "what it shows"


def test_a_lost_attachment_leaves_a_note(tmp_path: Path) -> None:
    """As a cell that was split leaves it: its picture stays with the other half."""
    page = page_of(notebook("before ![the map](attachment:x.png) after ![](attachment:y.png)", "other.png"), tmp_path)
    assert pictures(page) == []
    words = page.get_text()
    assert "before [a picture that the notebook has lost: the map] after" in words
    assert "[a picture that the notebook has lost: no description]" in words


def test_an_attached_picture_in_html(tmp_path: Path) -> None:
    page = page_of(notebook('So <img width="9" src="attachment:gr%C3%BCn.png" alt="a map">.', "grün.png"), tmp_path)
    assert pictures(page) == [f"data:image/png;base64,{PNG}"]


def test_a_lost_attachment_in_html_and_a_cell_without_any(tmp_path: Path) -> None:
    content = notebook('<img src="attachment:x.png" alt="a map"> `attachment:x.png` stays')
    del content.cells[0]["attachments"]
    page = page_of(content, tmp_path)
    assert pictures(page) == []
    assert "lost: a map]" in page.get_text() and "attachment:x.png stays" in page.get_text()


def test_the_command_writes_a_page_of_such_a_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nbformat.write(notebook("![x](attachment:x.png)"), tmp_path / "n.ipynb")
    before = (tmp_path / "n.ipynb").read_bytes()
    assert cli.main(["export", str(tmp_path / "n.ipynb")]) == 0
    assert (tmp_path / "n.html").is_file() and (tmp_path / "n.ipynb").read_bytes() == before


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
    ],
)
def test_a_notebook_with_a_mark_of_byte_order(encoding: str, mark: bytes, tmp_path: Path) -> None:
    text: Any = nbformat.writes(notebook("grün"))
    (tmp_path / "n.ipynb").write_bytes(mark + text.encode(encoding))
    assert "grün" in export_notebook(tmp_path / "n.ipynb").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\xef\xbb\xbf", b"\xff\xff", b"\xef\xbb\xbf[]"])
def test_what_is_no_notebook_behind_a_mark(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "n.ipynb").write_bytes(content)
    with pytest.raises(ValueError, match=r"n\.ipynb is not a notebook that can be read"):
        export_notebook(tmp_path / "n.ipynb")
