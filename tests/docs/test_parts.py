"""What the site makes from the checkout: the table of files, help texts, flowcharts, links, notebooks and markers."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup
from mkdocs.exceptions import PluginError

from docsite import flowchart, hooks, links, notebooks
from docsite.cli_help import cli_help
from docsite.file_table import FLOORS, PACKAGE, file_table, first_sentence
from workbench.cli import _parser

CHART = 'flowchart RL\n  a["a/<br>first & only"]\n  b["b"] --> a\n  %% a note\n  c["c"] --> a & b\n'


def test_the_table_of_files_has_every_file_and_what_it_is() -> None:
    table = file_table()
    sources = [path for suffix in ("py", "js") for path in PACKAGE.rglob(f"*.{suffix}")]
    names = [path.relative_to(PACKAGE).as_posix() for path in sources if path.name != "__init__.py"]
    assert len(names) > 150
    parts = dict(re.findall(r"^\*\*`(\w+)/`\*\*:(.*?)(?=^\*\*|^Beside)", table, re.MULTILINE | re.DOTALL))
    loose = table.partition("Beside the folders:")[2]
    folders = {name: name.partition("/") for name in names}
    missing = [
        name
        for name, (top, _, rest) in folders.items()
        if f"| `{rest or top}` | " not in (parts[top] if rest else loose)
    ]
    assert missing == []
    assert (
        "| `intervals.py` | Rates with honest intervals, and the small formulas of the editing literature. |" in table
    )
    assert "| `grid/` | One clickable heat map. |" in table
    assert "| `static/grid/layout.js` | Where everything on a map's canvas is, in pixels. |" in table


def package(folder: Path, **files: str) -> Path:
    for floor in FLOORS:
        (folder / floor).mkdir()
        (folder / floor / "__init__.py").write_text('"""A floor."""\n')
    (folder / "cli.py").write_text('"""The command line: much | more. And this is left out."""\n')
    for name, text in files.items():
        (folder / name.replace("__", "/").replace("_dot_", ".")).write_text(text)
    return folder


def test_a_file_that_does_not_say_what_it_is_ends_the_build(tmp_path: Path) -> None:
    folder = package(tmp_path, types__a_dot_js="// One. Two.\n//\n// Three.\nx;\n")
    assert "| `cli.py` | The command line: much \\| more. |" in file_table(folder)
    assert "| `a.js` | One. |" in file_table(folder)
    (folder / "types/b.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"types/b\.py says nothing at its top"):
        file_table(folder)
    (folder / "types/b.py").unlink()
    (folder / "attic").mkdir()
    (folder / "attic/__init__.py").write_text('"""Old."""\n')
    with pytest.raises(ValueError, match=r"attic.*its place in FLOORS"):
        file_table(folder)


def test_a_first_sentence_ends_at_its_period(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text('"""A model in 4 bits, e.g. a .gguf of v1.2,\nconverted. Then more.\n\nAnd more."""\n')
    assert first_sentence(path) == "A model in 4 bits, e.g. a .gguf of v1.2, converted."


def test_the_help_of_every_command_is_what_the_parser_says() -> None:
    text = cli_help()
    for name in ("facts", "demo", "export", "lab"):
        assert f"## workbench {name}\n" in text
    assert "--fact FACT" in text
    assert _parser().format_help().splitlines()[0][:20] in text
    assert "\x1b" not in text


def test_a_flowchart_is_drawn_from_the_top_down() -> None:
    drawn = BeautifulSoup(flowchart.svg(CHART, "Parts"), features="html.parser")
    lines = [text.get_text("|") for text in drawn.select("text")]
    assert lines == ["a/|first & only", "b", "c"]
    boxes = [{name: float(str(box[name])) for name in ("x", "y", "width")} for box in drawn.select("rect")]
    tops = dict(zip(lines, (box["y"] for box in boxes), strict=True))
    assert tops["c"] < tops["b"] < tops["a/|first & only"]
    assert len(drawn.select(".flow-arrow")) == 3
    assert drawn.svg is not None
    width = float(str(drawn.svg["width"]))
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sequenceDiagram\n a->>b: x", "only flowcharts are drawn, and this begins"),
        ("", "only flowcharts are drawn"),
        ('flowchart TB\n a{"x"} --> b', "is not drawn; write name"),
        ("flowchart TB\n a --> b\n b --> a", "point at each other in a circle"),
    ],
)
def test_what_is_not_drawn_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        flowchart.svg(text, "x")


@pytest.mark.parametrize(
    ("home", "page", "link", "there"),
    [
        ("", "development/contributing.md", "[a](docs/development/architecture.md#x)", "[a](architecture.md#x)"),
        ("", "development/changelog.md", "[a](docs/results/speed.md)", "[a](../results/speed.md)"),
        ("", "development/changelog.md", "[a](CONTRIBUTING.md)", "[a](contributing.md)"),
        (
            "docs/results",
            "results/a.md",
            "[n](../../notebooks/06_the_paper.ipynb)",
            "[n](../tutorials/06_the_paper.ipynb)",
        ),
        ("docs/results", "results/a.md", "[n](speed.md)", "[n](speed.md)"),
        ("docs/results", "results/a.md", "[n](../../benchmarks/arms.py) x", "n x"),
        ("docs/results", "results/a.md", "![n](../images/rates.png)", "![n](../images/rates.png)"),
        ("", "index.md", '![n](docs/images/rates.png "t")', '![n](images/rates.png "t")'),
        ("", "index.md", "[`x`](benchmarks/)", "`x`"),
        ("", "index.md", "[o](https://example.org/a) [p](#here)", "[o](https://example.org/a) [p](#here)"),
        ("", "index.md", "`[a](gone.md)`\n\n```\n[b](gone.md)\n```\n", "`[a](gone.md)`\n\n```\n[b](gone.md)\n```\n"),
    ],
)
def test_links_lead_to_pages_of_the_site(home: str, page: str, link: str, there: str) -> None:
    assert links.rewritten(link, home, page) == there


def test_a_link_to_nothing_is_refused() -> None:
    with pytest.raises(links.DeadLink, match=r"a link to benchmarks/gone\.py, which is not there"):
        links.rewritten("[a](../benchmarks/gone.py)", "docs", "index.md")


def notebook(folder: Path, *outputs: dict[str, object], count: int | None = 1) -> Path:
    made = [nbformat.v4.new_output("display_data", data=data) for data in outputs]
    cells = [nbformat.v4.new_markdown_cell("# A title\n\nWords of\nit.\n\nMore."), nbformat.v4.new_code_cell("1 + 1")]
    cells[1].outputs, cells[1].execution_count = made, count
    path = folder / "n.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"widgets": {}}), path)
    return path


def test_a_notebook_is_made_static(tmp_path: Path) -> None:
    widget = "application/vnd.jupyter.widget-view+json"
    figure = {"data": [{"type": "bar", "y": [1, 2]}], "layout": {"width": 500}}
    path = notebook(
        tmp_path,
        {widget: {}, "text/plain": "Tracing:   0%|          | 0/30"},
        {widget: {}, "image/png": "AAAA", "text/plain": "Grid(2 x 3)"},
        {"application/vnd.plotly.v1+json": figure},
    )
    prepared = notebooks.prepare(path, tmp_path / "copies")
    copy = nbformat.read(prepared.path, as_version=4)
    picture, drawn = copy.cells[1].outputs
    assert set(picture.data) == {"image/png", "text/plain"}
    assert 'id="figure-1"' in drawn.data["text/html"]
    assert prepared.figures == [figure]
    assert prepared.words == {"AAAA": "Grid(2 x 3)"}
    assert "widgets" not in copy.metadata


def test_a_notebook_that_was_not_executed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"n\.ipynb has cells that were not executed"):
        notebooks.prepare(notebook(tmp_path, count=None), tmp_path / "copies")


def test_nothing_on_a_notebooks_page_is_fetched_from_elsewhere(tmp_path: Path) -> None:
    prepared = notebooks.Prepared(tmp_path / "n.ipynb", [{"data": [], "layout": {}}], {"AAAA": "words"})
    page = (
        '<script src="https://e.org/a.js"></script><style>x</style><link href="https://e.org/a.css">'
        '<div class="highlight-ipynb hl-python"><pre><span></span><span class="n">a</span></pre></div>'
        '<img src="data:image/png;base64,AA\nAA"><img src="https://e.org/a.png"><a href="../CHANGELOG.md">log</a>'
    )
    made = notebooks.cleaned(page, prepared, lambda target: f"to {target}", lambda name: f"../{name}")
    soup = BeautifulSoup(made, features="html.parser")
    assert [s.get("src") for s in soup.select("script") if s.get("src")] == [
        f"../{notebooks.PLOTLY}",
        f"../{notebooks.FIGURES}",
    ]
    assert not soup.select("style, link")
    assert [picture["alt"] for picture in soup.select("img")] == ["words"]
    assert "a picture that is not in the notebook: https://e.org/a.png" in made
    assert str(soup.select_one(".highlight > pre > code > .n")) == '<span class="n">a</span>'
    assert [anchor["href"] for anchor in soup.select("a")] == ["to ../CHANGELOG.md"]


def put(text: str, uri: str = "development/a.md") -> str:
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri=uri, generated_by=None))
    nothing: Any = None
    return hooks.on_page_markdown(text, page, nothing, nothing)


def test_markers_are_replaced() -> None:
    assert "| `cli.py` | The command line" in put("# A\n\n<!-- generated: files -->\n")
    assert "# Changelog" in put("<!-- include: CHANGELOG.md -->")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!-- generated: weather -->", "docs/development/a.md: there is nothing to generate as 'weather'"),
        ("<!-- include: NOTHING.md -->", "there is no NOTHING.md to include"),
        ("[a](../../gone.py)", "a link to gone.py, which is not there"),
    ],
)
def test_a_marker_for_nothing_ends_the_build(text: str, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        put(text)
