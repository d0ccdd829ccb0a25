"""A notebook as HTML: pictures for widgets, plotly's figures drawn, nothing fetched, nothing from an output run."""

from __future__ import annotations

import base64
import json
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from ipywidgets import HTML, FloatProgress, HBox, Label, Text, VBox, Widget
from ipywidgets.embed import dependency_state
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbconvert.exporters import get_exporter

from workbench import cli
from workbench.plots.notebook_page import PLOTLY, WIDGET, export_notebook
from workbench.plots.saved_widgets import of_notebook
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.shared import markup

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


def view_of(widget: Widget) -> nbformat.NotebookNode:
    """The output that shows a widget without a picture."""
    view = {"model_id": widget.model_id, "version_major": 2, "version_minor": 0}
    return nbformat.v4.new_output("display_data", data={WIDGET: view})


def state_of(widget: Widget) -> dict[str, Any]:
    """A notebook's metadata with the state of a widget and of all that is in it."""
    kind = "application/vnd.jupyter.widget-state+json"
    live = {"version_major": 2, "version_minor": 0, "state": dependency_state([widget], drop_defaults=False)}
    return {kind: json.loads(json.dumps(live))}


def progress_bar() -> Widget:
    """As tqdm makes it."""
    return HBox([HTML("Loading weights: "), FloatProgress(3, max=3), HTML(" 3/3")])


def test_nbconvert_shows_the_picture_of_a_widget_whose_state_was_not_saved(tmp_path: Path) -> None:
    widget = grid()
    source = HTMLExporter().from_filename(str(write(tmp_path, shown(widget))))[0]
    (picture,) = BeautifulSoup(source, features="html.parser").select(".jp-OutputArea-output img")
    assert base64.b64decode(str(picture["src"]).partition("base64,")[2]) == widget.to_png()


def test_a_widget_whose_state_was_saved_is_drawn_as_it_was_then(tmp_path: Path) -> None:
    widget = grid()
    output = shown(widget)
    widget.selected = [[1, 2]]  # clicked afterwards
    source = write(tmp_path, output, widgets=state_of(widget))
    before = source.read_bytes()
    path = export_notebook(source)
    assert path == tmp_path / "n.html"
    soup = page(path)
    assert not soup.select("img, script")
    (svg,) = soup.select("svg.wb-map")
    assert str(svg["aria-label"]).endswith("1 cell selected: L1, c")
    assert [t.text for t in svg.select("rect title")][-1] == "L1, c: 5"
    assert "saved without the state" not in soup.text
    assert source.read_bytes() == before


def test_a_widget_whose_state_was_not_saved_is_its_picture_and_the_page_says_so(tmp_path: Path) -> None:
    widget, other = grid(), grid()
    path = export_notebook(write(tmp_path, shown(widget), widgets=state_of(other)))
    (picture,) = page(path).select("img")
    assert base64.b64decode(str(picture["src"]).removeprefix("data:image/png;base64,")) == widget.to_png()
    assert picture["alt"] == "HeatGrid(2 x 3, 0 selected)"
    (note,) = page(path).select(".wbs-stored")
    assert "saved without the state of its widgets" in note.text
    assert not page(path).select("script, svg")


def test_progress_bars_are_left_out_with_and_without_their_state(tmp_path: Path) -> None:
    bar = progress_bar()
    view = {"model_id": bar.model_id, "version_major": 2, "version_minor": 0}
    outputs = [
        nbformat.v4.new_output("display_data", data={WIDGET: view, "text/plain": text})
        for text in ("Loading weights:   0%|          | 0/272 [00:00<?, ?it/s]", "HBox(children=(...))")
    ]
    soup = page(export_notebook(write(tmp_path, *outputs, widgets=state_of(bar))))
    assert "Loading" not in soup.text and "HBox" not in soup.text
    soup = page(export_notebook(write(tmp_path, *outputs)))
    assert "Loading" not in soup.text and "HBox" in soup.text


def test_the_style_is_there_once_and_the_state_not_at_all(tmp_path: Path) -> None:
    widget = grid()
    path = export_notebook(write(tmp_path, shown(widget), shown(widget), widgets=state_of(widget)))
    text = path.read_text(encoding="utf-8")
    assert text.count(".wb-saved h2.wbs-tab {") == 1
    assert "_esm" not in text and "IPY_MODEL" not in text and "render({ model, el })" not in text
    ids = [element["id"] for element in page(path).select("[id]")]
    assert len(ids) == len(set(ids))
    assert "wb-saved" not in export_notebook(write(tmp_path)).read_text(encoding="utf-8")


def test_what_a_state_holds_is_text_and_never_runs(tmp_path: Path) -> None:
    panel = VBox([HTML(f"<b>kept</b>{FETCHES}{EVIL}"), Label(EVIL), Text(EVIL, description=EVIL)])
    soup = page(export_notebook(write(tmp_path, view_of(panel), widgets=state_of(panel))))
    assert not soup.select("script, iframe, link, base, img, [onerror]")
    assert soup.text.count(EVIL) == 3


def test_headings_leave_out_no_level_and_regions_have_names_of_their_own(tmp_path: Path) -> None:
    table = markup.table(["a"], [["b"]], "Rates")
    panel = VBox([HTML(markup.title("Edit")), HTML(table), HTML(table)])
    soup = page(export_notebook(write(tmp_path, view_of(panel), text="# A title", widgets=state_of(panel))))
    (heading,) = soup.select("[role=heading]")
    assert heading["aria-level"] == "2"
    assert [one["aria-label"] for one in soup.select("[role=region]")] == ["Rates", "Rates (2)"]


def test_nbconvert_writes_the_same_page_by_name(tmp_path: Path) -> None:
    widget = grid()
    source = write(tmp_path, shown(widget), widgets=state_of(widget))
    declared = tomllib.loads((NOTEBOOKS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    name = declared["project"]["entry-points"]["nbconvert.exporters"]["workbench"].replace(":", ".")
    exporter = get_exporter(name)
    assert exporter.export_from_notebook  # JupyterLab's menu lists those that have one
    text, resources = exporter().from_filename(str(source))
    assert text == export_notebook(source).read_text(encoding="utf-8")
    assert resources["output_extension"] == ".html"


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
    has_state = of_notebook(saved.metadata).find
    drawn = [data for data in kept if WIDGET in data and has_state(data[WIDGET]["model_id"]) and "image/png" in data]
    soup = page(path)
    assert not soup.select("[src^=http], link, iframe, script[src]")
    n_pictures = sum("image/png" in data for data in kept) - len(drawn)
    assert [str(i["src"])[:15] for i in soup.select("img")] == ["data:image/png;"] * n_pictures
    assert len(soup.select(".wb-saved")) == len(drawn)
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
@pytest.mark.parametrize(
    ("name", "pictures", "maps", "figures"), [("03_click_a_circuit", 0, 6, 0), ("01_quickstart", 0, 3, 5)]
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(
    tmp_path: Path, browser: Any, name: str, pictures: int, maps: int, figures: int, scheme: Any
) -> None:
    path = export_notebook(NOTEBOOKS / f"{name}.ipynb", tmp_path / "x.html")
    wrong: list[str] = []
    requests: list[str] = []
    tab = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme=scheme)
    tab.on("request", lambda r: requests.append(r.url))
    tab.on("pageerror", lambda e: wrong.append(str(e)))
    tab.on("console", lambda m: wrong.append(m.text))
    tab.goto(path.as_uri())
    for i in range(1, figures + 1):
        tab.locator(f"#figure-{i} .xtick").first.wait_for(state="attached")
    sizes = tab.evaluate("[...document.images].map((one) => Math.min(one.naturalWidth, one.clientWidth))")
    wide, room = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    svgs = tab.evaluate("[...document.querySelectorAll('svg.wb-map')].map((one) => one.clientWidth)")
    violations = Axe().run(tab, context=".wb-saved") if maps else None
    tab.close()
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert wrong == []
    assert len(sizes) == pictures and len(svgs) == maps
    assert min([*sizes, *svgs]) > 60
    assert violations is None or violations.violations_count == 0, violations.generate_report()
    assert wide == room  # no sideways scrolling of the page


def test_a_notebook_that_was_run_without_a_browser_keeps_its_panels_too(tmp_path: Path) -> None:
    lines = [
        "from workbench.widgets.grid.grid import HeatGrid",
        "grid = HeatGrid([[1.5, -0.5]], rows=['L7'], cols=['H0', 'H1'], title='Heads')",
        "display(grid)",
        "grid.selected = [[0, 1]]",
    ]
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(lines))])
    NotebookClient(
        content, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    source = tmp_path / "run.ipynb"
    nbformat.write(content, source)
    (drawn,) = page(export_notebook(source)).select("svg.wb-map")
    assert [t.text for t in drawn.select("rect title")] == ["L7, H0: 1.5", "L7, H1: −0.5"]
    assert str(drawn["aria-label"]).endswith("1 cell selected: L7, H1")
