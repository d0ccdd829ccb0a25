"""A notebook as HTML: pictures for widgets, plotly's figures drawn, nothing fetched, nothing from an output run."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from workbench import cli
from workbench.plots.notebook_page import PLOTLY, WIDGET, export_notebook
from workbench.widgets.grid.grid import HeatGrid

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
EVIL = "<img src=x onerror=alert(1)>"
FETCHES = (
    '<script src="https://example.org/x.js"></script><iframe src="https://example.org/"></iframe>'
    '<link rel="stylesheet" href="https://example.org/x.css"><meta http-equiv="refresh" content="0;url=https://e.org">'
    '<img src="https://example.org/x.png" alt="far"><base href="https://example.org/"><b>kept</b>'
)


def output(**data: Any) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", data={name.replace("__", "/"): value for name, value in data.items()})


def write(folder: Path, *outputs: nbformat.NotebookNode, text: str = "A note", **metadata: Any) -> Path:
    cell = nbformat.v4.new_code_cell("1", outputs=list(outputs), execution_count=1)
    cells = [nbformat.v4.new_markdown_cell(text), cell]
    path = folder / "n.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def shown(widget: HeatGrid) -> nbformat.NotebookNode:
    """The output that a notebook keeps of a widget."""
    bundle = widget._repr_mimebundle_()
    assert bundle is not None
    data = {name: value for name, value in bundle[0].items()}
    return nbformat.v4.new_output("display_data", data=data)


def grid() -> HeatGrid:
    return HeatGrid(np.arange(6.0).reshape(2, 3), rows=["L0", "L1"], cols=["a", "b", "c"])


def page(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), features="html.parser")


def state_of(widget: HeatGrid) -> dict[str, Any]:
    kind = "application/vnd.jupyter.widget-state+json"
    return {kind: {"version_major": 2, "version_minor": 0, "state": {widget.model_id: {"state": {}}}}}


def test_nbconvert_shows_the_picture_of_a_widget_whose_state_was_not_saved(tmp_path: Path) -> None:
    widget = grid()
    source = HTMLExporter().from_filename(str(write(tmp_path, shown(widget))))[0]
    (picture,) = BeautifulSoup(source, features="html.parser").select(".jp-OutputArea-output img")
    assert base64.b64decode(str(picture["src"]).partition("base64,")[2]) == widget.to_png()


def test_a_widget_is_its_picture_also_where_its_state_was_saved(tmp_path: Path) -> None:
    widget = grid()
    source = write(tmp_path, shown(widget), widgets=state_of(widget))
    before = source.read_bytes()
    path = export_notebook(source)
    assert path == tmp_path / "n.html"
    (picture,) = page(path).select("img")
    assert base64.b64decode(str(picture["src"]).removeprefix("data:image/png;base64,")) == widget.to_png()
    assert picture["alt"] == "HeatGrid(2 x 3, 0 selected)"
    assert not page(path).select("script")
    assert source.read_bytes() == before


def test_a_widget_without_a_picture_is_its_text(tmp_path: Path) -> None:
    view = {"model_id": "abc", "version_major": 2, "version_minor": 0}
    only_view, with_text = nbformat.v4.new_output("display_data", data={WIDGET: view}), output(text__plain="100%")
    with_text.data[WIDGET] = view
    texts = [
        one.get_text().strip() for one in page(export_notebook(write(tmp_path, only_view, with_text))).select("pre")
    ]
    assert "100%" in texts
    assert any(text.startswith("Not shown here") for text in texts)


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_the_committed_notebooks_name_no_other_host_to_load_from(name: str, tmp_path: Path) -> None:
    path = export_notebook(NOTEBOOKS / f"{name}.ipynb", tmp_path / "x.html")
    saved = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    kept = [one.data for cell in saved.cells for one in cell.get("outputs", ()) if "data" in one]
    soup = page(path)
    assert not soup.select("[src^=http], link, iframe, script[src]")
    assert [str(i["src"])[:15] for i in soup.select("img")] == ["data:image/png;"] * sum("image/png" in d for d in kept)
    n_figures = sum(PLOTLY in data for data in kept)
    assert len(soup.select(".plot")) == n_figures
    assert len(soup.select("script:not([type])")) == (2 if n_figures else 0)
    (policy,) = soup.select("meta[http-equiv]")
    assert str(policy["content"]).startswith("default-src 'none'; script-src 'sha256-" if n_figures else "default-src")
    assert "http" not in str(policy["content"])


def test_what_would_fetch_or_run_is_left_out(tmp_path: Path) -> None:
    javascript = nbformat.v4.new_output(
        "display_data", data={"application/javascript": "alert(1)", "text/plain": "a figure"}
    )
    source = write(
        tmp_path, output(text__html=FETCHES), javascript, text=f"{FETCHES}\n\n![far](https://example.org/y.png)"
    )
    path = export_notebook(source)
    soup = page(path)
    assert not soup.select("script, iframe, link, base, img")
    assert len(soup.select("meta[http-equiv]")) == 1
    assert [b.text for b in soup.select("b")] == ["kept", "kept"]
    assert "a picture that is not in the notebook: https://example.org/y.png" in soup.text
    assert "a figure" in soup.text


def test_texts_are_shown_and_not_parsed(tmp_path: Path) -> None:
    figure = go.Figure(go.Scatter(x=[0], y=[1], name=EVIL), layout={"meta": {"alt": f"{EVIL} </script>"}})
    outputs = [
        nbformat.v4.new_output("stream", name="stdout", text=EVIL),
        output(text__plain=EVIL),
        nbformat.v4.new_output("display_data", data={PLOTLY: json.loads(figure.to_json() or "")}),
    ]
    source = write(tmp_path, *outputs, title=EVIL)
    path = export_notebook(source)
    soup = page(path)
    assert not soup.select("img, [onerror]")
    assert soup.text.count(EVIL) == 4  # the title, two outputs, the caption
    (data,) = soup.select("#figure-1-data")
    assert json.loads(data.text)["data"][0]["name"] == EVIL
    assert len(soup.select("script:not([type])")) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; give the path of a notebook"),
        (b"# a script", "is not a notebook that can be read"),
        (b"[1, 2]", "is not a notebook that can be read"),
        (b"3", "is not a notebook that can be read"),
        (b'{"a": 1}', "is not a notebook that can be read"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{}]}', "is not a notebook that can be read"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 3}', "is not a notebook that can be read"),
        (b'{"nbformat": "x", "metadata": {}}', "is not a notebook that can be read"),
        (b"\xff\xfe\x00", "is not a notebook that can be read"),
    ],
)
def test_what_is_no_notebook_is_said_in_one_line(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "n.ipynb"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["export", str(path)]) == 1
    error = capsys.readouterr().err
    assert f"{path} {message}" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "n.html").exists()


def test_the_command_writes_where_it_is_told_and_never_over_the_notebook(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path)
    before = source.read_bytes()
    assert cli.main(["export", str(source), "--out", str(tmp_path / "deep" / "y.html")]) == 0
    assert "y.html" in capsys.readouterr().out
    assert "A note" in page(tmp_path / "deep" / "y.html").text
    assert cli.main(["export", str(source), "--out", str(source)]) == 1
    assert "is the notebook itself" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path)]) == 1
    assert "is a folder" in capsys.readouterr().err
    assert source.read_bytes() == before


@pytest.mark.browser
@pytest.mark.parametrize(("name", "pictures", "figures"), [("03_click_a_circuit", 4, 0), ("01_quickstart", 1, 5)])
def test_in_a_browser(tmp_path: Path, browser: Any, name: str, pictures: int, figures: int) -> None:
    path = export_notebook(NOTEBOOKS / f"{name}.ipynb", tmp_path / "x.html")
    wrong: list[str] = []
    requests: list[str] = []
    tab = browser.new_page(viewport={"width": 1100, "height": 900})
    tab.on("request", lambda r: requests.append(r.url))
    tab.on("pageerror", lambda e: wrong.append(str(e)))
    tab.on("console", lambda m: wrong.append(m.text))
    tab.goto(path.as_uri())
    for i in range(1, figures + 1):
        tab.locator(f"#figure-{i} .xtick").first.wait_for(state="attached")
    sizes = tab.evaluate("[...document.images].map((one) => Math.min(one.naturalWidth, one.clientWidth))")
    wide, room = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    tab.close()
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert wrong == []
    assert len(sizes) == pictures
    assert min(sizes) > 100
    assert wide == room  # no sideways scrolling of the page
