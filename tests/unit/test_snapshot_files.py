"""Maps, graphs and panels as files: SVG, PDF, PNG and HTML, with their labels, whole, and without a network."""

from __future__ import annotations

import re
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from ipywidgets import HTML, Tab
from PIL import Image

from tests.helpers.pdf_text import pages, paper, text_of
from tests.unit.test_circuit_graph import graph
from tests.unit.test_saved_widgets import Small
from workbench.plots import browser_print, svg_file
from workbench.widgets.grid.bar_list import BarList
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.shared.snapshot import Snapshot

EVIL = "<b>&\"' var(--wb-ink) light-dark(a, b)\x0b"
COLUMNS = (" The", " capital", f" {EVIL}", " is", "a token that is longer than most of them", "end")
TITLE = "Restored share of the logit difference by layer and position, residual stream, mean over five facts, of France"


def grid() -> HeatGrid:
    rows = [f"L{i}" for i in range(5)]
    values = np.linspace(-1.0, 1.0, 30).reshape(5, 6)
    values[0, 0] = np.nan
    one = HeatGrid(values, rows=rows, cols=COLUMNS, title=TITLE, unit="logits", row_title="layer", col_title="position")
    one.selected = [[1, 2]]
    return one


def words_of(svg: str) -> list[str]:
    """What is drawn as text; it is XML, so it parses or fails."""
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_map_is_an_svg_file_with_all_its_labels(tmp_path: Path) -> None:
    svg = grid().snapshot().save(tmp_path / "new" / "map.SVG").read_text(encoding="utf-8")
    words = words_of(svg)
    joined = " ".join(words)
    for label in ("L0", "L4", "capital", "layer", "position", "logits", "1 cell selected", "hatched: no value"):
        assert label in joined, label
    assert TITLE in joined, "a title that is wider than the map takes several lines"
    assert max(map(len, words)) < 80
    assert "a token that is longer than most of them" in joined
    assert joined.count("var(--wb-ink) light-dark(a, b)") == 2, "what a label and the note say stays"
    styles = re.findall(r'style="([^"]*)"|<style>([^<]*)</style>', svg)
    assert len(styles) > 25 and not [
        s for pair in styles for s in pair if "var(" in s or "light-dark" in s or ":is(" in s
    ]
    assert "<script" not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert "\x0b" not in svg


def test_every_class_that_is_drawn_has_its_style_in_the_file() -> None:
    for shown in (grid().snapshot(), graph().view.snapshot()):
        used = set(re.findall(r'class="([\w -]+)"', shown.svg))
        names = {name for each in used for name in each.split()} - {"wb-map", "wb-graph", "wbm-word", "wbg-row"}
        assert names and not {name for name in names if f".{name}" not in svg_file.file_style()}


def test_colours_are_those_of_the_light_theme() -> None:
    assert svg_file.light_colours()["--wb-ink"] == "#1a1a1a" and svg_file.light_colours()["--wb-paper"] == "#ffffff"
    assert svg_file.plain_colours("fill: light-dark(#b2182b, #e0785f)") == "fill: #b2182b"
    assert svg_file.plain_colours("fill: light-dark(rgb(1, 2, 3), #e0785f); x: var(--jp-no, 4px)") == (
        "fill: rgb(1, 2, 3); x: 4px"
    )
    assert svg_file.plain_colours("stroke: var(--wb-muted)") == "stroke: #505050"


def test_a_graph_and_a_panel_with_maps_are_svg_files_too(tmp_path: Path) -> None:
    one = graph()
    drawn = words_of(one.view.snapshot().save(tmp_path / "graph.svg").read_text(encoding="utf-8"))
    assert {"logits", "embed"} <= set(drawn) and any("Solid and red" in words for words in drawn)
    words = words_of(Small().snapshot().save(tmp_path / "panel.svg").read_text(encoding="utf-8"))
    assert "Heads" in words and "L7" in words and "H1" in words and "P 0.937" not in words


def test_what_shows_no_map_has_no_svg_and_says_what_to_do(tmp_path: Path) -> None:
    bars = BarList([("L1H2", 0.5)], title="Heads")
    with pytest.raises(ValueError, match=r"shows no map and no graph, so there is no SVG of it\. Write \.html"):
        bars.snapshot().save(tmp_path / "bars.svg")
    assert list(tmp_path.iterdir()) == []
    assert "L1H2" in bars.snapshot().save(tmp_path / "bars.html").read_text(encoding="utf-8")


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"A snapshot is written as \.html, \.svg, \.pdf, \.png, got 'map\.gif'"):
        grid().snapshot().save(tmp_path / "map.gif")


@pytest.mark.parametrize("kind", [".html", ".png"])
def test_html_and_png_need_no_browser(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser_print, "find_browser", None)
    one = grid()
    content = one.snapshot().save(tmp_path / f"map{kind}").read_bytes()
    if kind == ".png":
        assert content == one.to_png() and Image.open(BytesIO(content)).width > 300
    else:
        assert content.startswith(b"<!DOCTYPE html>") and b"default-src 'none'; script-src 'none'" in content


def test_without_a_browser_pdf_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "map.pdf"
    path.write_text("the old one")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no browser"))
    with pytest.raises(RuntimeError, match=r'needed to write pdf files and was not found.*"apt install chromium"'):
        grid().snapshot().save(path)
    from choreographer.browsers.chromium import Chromium

    monkeypatch.setattr(Chromium, "find_browser", lambda **_: None)
    with pytest.raises(RuntimeError, match=r"or write an \.html file instead"):
        grid().snapshot().save(path)
    assert path.read_text() == "the old one"


def test_a_browser_that_hangs_or_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **options: Any) -> None:
        asked.append(command)
        assert options["timeout"] == browser_print.MOST_SECONDS
        raise subprocess.TimeoutExpired(command, 60)

    monkeypatch.setattr(browser_print, "find_browser", lambda: "chromium")
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(RuntimeError, match=r"has not answered for 60 s\. Write an \.html file instead"):
        grid().snapshot().save(tmp_path / "map.pdf")
    assert "--host-resolver-rules=MAP * ~NOTFOUND" in asked[0], "nothing is fetched"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)  # it ends, and has written nothing
    with pytest.raises(RuntimeError, match="FileNotFoundError"):
        grid().snapshot().save(tmp_path / "map.pdf")


@pytest.mark.browser
def test_a_map_is_a_pdf_of_one_page_of_its_size_with_real_text(tmp_path: Path) -> None:
    shown = grid().snapshot()
    content = shown.save(tmp_path / "map.pdf").read_bytes()
    assert content.startswith(b"%PDF-") and pages(content) == 1
    assert paper(content) == pytest.approx(svg_file.size_of(shown.svg), abs=2)
    text = text_of(content)
    for label in (TITLE, "L0", "L4", "capital", "atokenthatislongerthanmostofthem", "position", "layer", "logits"):
        assert label.replace(" ", "") in text, label


@pytest.mark.browser
def test_a_panel_is_a_pdf_with_all_that_it_shows_unfolded(tmp_path: Path) -> None:
    panel = Small()
    (tab,) = (w for w in panel.children if isinstance(w, Tab))
    tab.children[0].children = [
        *tab.children[0].children,
        HTML("<details><summary>More</summary><p>what was folded</p></details>"),
    ]
    content = panel.snapshot().save(tmp_path / "panel.pdf").read_bytes()
    assert content.startswith(b"%PDF-") and paper(content) == pytest.approx((1122.5, 793.7), abs=2)
    text = text_of(content)
    for words in ("P 0.937", "Heads", "L7", "H1", "Strength", "what was folded"):
        assert words.replace(" ", "") in text, words


@pytest.mark.browser
def test_no_text_of_a_drawing_is_cut(browser: Any, tmp_path: Path) -> None:
    for shown in (grid().snapshot(), graph(count=30).view.snapshot(), Small().snapshot()):
        path = shown.save(tmp_path / "drawn.svg")
        width, height = svg_file.size_of(shown.svg)
        page = browser.new_page()
        page.goto(path.as_uri())
        boxes = page.evaluate(
            "() => [...document.querySelectorAll('text')].map(t => { const b = t.getBoundingClientRect();"
            " return [t.textContent, b.left, b.top, b.right, b.bottom]; })"
        )
        page.close()
        assert len(boxes) > 5
        cut = [box for box in boxes if box[1] < 0 or box[2] < 0 or box[3] > width + 0.5 or box[4] > height + 0.5]
        assert not cut, f"{shown}: {cut}"


def test_a_snapshot_is_of_what_was_shown_then() -> None:
    one = grid()
    shown: Snapshot = one.snapshot()
    one.selected = []
    assert "1 cell selected" in shown.svg and "1 cell selected" not in one.snapshot().svg
