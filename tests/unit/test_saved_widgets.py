"""Panels drawn from the state that a notebook keeps, without a kernel; a state may come from anybody."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bs4 import BeautifulSoup
from ipywidgets import HTML, Box, Checkbox, Dropdown, IntText, Tab, Text, VBox

from tests.helpers.saved import anywidget, heat_grid, record, ref, state
from workbench.plots.saved_widgets import SavedWidgets, of_notebook
from workbench.plots.widget_html import MOST_WIDGETS, WidgetPage
from workbench.widgets.compare.slider import Slider
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.shared.connection import Connection
from workbench.widgets.shared.panel import Panel
from workbench.widgets.shared.snapshot import Snapshot

EVIL = "</style></script><img src=x onerror=alert(1)>"


def drawn(first: str = "root", /, **records: Any) -> BeautifulSoup:
    return BeautifulSoup(WidgetPage(SavedWidgets(state(**records))).draw(first), features="html.parser")


def texts(soup: BeautifulSoup, selector: str) -> list[str]:
    return [element.get_text(" ", strip=True) for element in soup.select(selector)]


def test_boxes_in_boxes_keep_their_order() -> None:
    soup = drawn(
        root=record("VBox", children=[ref("a"), ref("row"), ref("d")], _dom_classes=["wb-panel", "x y", "wb-<b>"]),
        row=record("HBox", children=[ref("b"), ref("c")]),
        **{name: record("Label", value=f"text {name}") for name in "abcd"},
    )
    assert texts(soup, ".wbs-text") == ["text a", "text b", "text c", "text d"]
    (column,) = soup.select(".wb-saved > div")
    assert column["class"] == ["wbs-box", "wb-panel"]
    (row,) = soup.select(".wbs-box .wbs-box")
    assert "row wrap" in str(row["style"])


def test_every_tab_is_a_section_with_its_title() -> None:
    soup = drawn(
        root=record("Tab", children=[ref("a"), ref("b"), ref("c")], titles=["1 Fact", "2 <b>"], selected_index=1),
        **{name: record("Label", value=name) for name in "abc"},
    )
    assert texts(soup, "h2") == ["1 Fact", "2 <b>", "Part 3"]
    assert texts(soup, "section .wbs-text") == ["a", "b", "c"]
    names = [section["aria-labelledby"] for section in soup.select("section")]
    assert names == [heading["id"] for heading in soup.select("h2")] and len(set(names)) == 3


def test_titles_as_ipywidgets_7_saved_them() -> None:
    soup = drawn(
        root=record("Accordion", "1.5.0", children=[ref("a")], _titles={"0": "Old", "x": "no"}),
        a=record("Label", "1.5.0", value="a"),
    )
    assert texts(soup, "h2") == ["Old"]


def test_of_a_stack_only_the_one_in_sight() -> None:
    parts = {name: record("Label", value=name) for name in "ab"}
    assert texts(drawn(root=record("Stack", children=[ref("a"), ref("b")], selected_index=1), **parts), "span") == ["b"]
    for index in (None, 7, "1", -1):
        assert not drawn(root=record("Stack", children=[ref("a")], selected_index=index), **parts).text


def test_what_is_hidden_is_left_out() -> None:
    soup = drawn(
        root=record("VBox", children=[ref(name) for name in "abcd"]),
        a=record("Label", value="seen", layout=ref("la")),
        b=record("Label", value="gone", layout=ref("lb")),
        c=record("VBox", children=[ref("e")], layout=ref("lc")),
        d=record("Label", value="no layout", layout=ref("missing")),
        e=record("Label", value="inside"),
        la=record("Layout", display="flex", width="320px"),
        lb=record("Layout", display="none"),
        lc=record("Layout", visibility="hidden"),
    )
    assert texts(soup, ".wbs-text") == ["seen", "no layout"]
    (part,) = soup.select(".wbs-part")
    assert part["style"] == "display: flex; width: 320px"


def test_a_layout_can_load_nothing_and_cover_nothing() -> None:
    soup = drawn(
        root=record("Label", value="x", layout=ref("l")),
        l=record("Layout", width='1px; background: url(x)"><script>', position="fixed", flex="1 1 100px", top="0"),
    )
    (part,) = soup.select(".wbs-part")
    assert part.attrs == {"class": ["wbs-part"], "style": "flex: 1 1 100px"}


@pytest.mark.parametrize("name", ["HTML", "HTMLMath", "Label", "Text", "Textarea", "Button", "Dropdown", "Odd"])
def test_texts_are_shown_or_cleaned_and_never_run(name: str) -> None:
    fields: dict[str, Any] = {key: EVIL for key in ("value", "description", "placeholder", "tooltip", "title", "alt")}
    fields |= {"_options_labels": [EVIL], "index": 0, "description": f"{EVIL} ×"}
    soup = drawn(root=record("VBox", children=[ref("a")], titles=[EVIL]), a=record(name, **fields))
    assert not soup.select("img, script, style, [onerror]")
    assert "alert(1)" in soup.text or name.startswith("HTML")


def test_injection_into_every_text_of_a_map_and_of_a_list() -> None:
    words = {key: EVIL for key in ("title", "row_title", "col_title", "unit", "kind", "alt")}
    rows, cols = [EVIL, "b"], [EVIL, "d", EVIL]
    grid = heat_grid(
        [[1, np.nan, 0], [0, 0, -1]], rows=rows, cols=cols, selected=[[0, 0]], marked=[0], groups=[1], **words
    )
    listed = anywidget("BarList", names=[EVIL], values=[1.0], notes=[EVIL], selected=[EVIL], title=EVIL, unit=EVIL)
    named = heat_grid([[1.0]], descriptions=[[EVIL]], rows=[EVIL], cols=[EVIL])
    soup = drawn(root=record("VBox", children=[ref("g"), ref("l"), ref("n")]), g=grid, l=listed, n=named)
    assert not soup.select("img, script, style, [onerror]")
    assert len(soup.select("svg")) == 2 and len(soup.select("table")) == 1
    assert soup.text.count("alert(1)") > 8


def test_a_long_list_is_cut_to_what_was_seen_and_picked() -> None:
    names = [f"L0N{i}" for i in range(1200)]
    values = [float(1200 - i) for i in range(1200)]
    listed = anywidget("BarList", names=names, values=values, selected=["L0N900"], list_height=100.0, limit=1200.0)
    soup = drawn(root=listed)
    assert texts(soup, "tbody th") == ["L0N0", "L0N1", "L0N2", "L0N3", "✓ L0N900"]
    assert texts(soup, "tbody .wbs-number") == ["1200", "1199", "1198", "1197", "300"]
    assert texts(soup, "tfoot td") == ["and 1,195 more"]
    whole = drawn(root=anywidget("BarList", names=names, values=values, list_height=0.0))
    assert len(texts(whole, "tbody th")) == 1200 and not whole.select("tfoot")
    short = drawn(root=anywidget("BarList", names=names[:4], values=values[:4], list_height=100.0))
    assert len(texts(short, "tbody th")) == 4 and not short.select("tfoot")


def test_a_circle_a_missing_child_and_a_foreign_reference_end() -> None:
    soup = drawn(
        root=record("VBox", children=[ref("a"), ref("root"), ref("gone"), 3, None, {"x": 1}]),
        a=record("HBox", children=[ref("b"), ref("root")]),
        b=record("Label", value="end"),
    )
    assert texts(soup, ".wbs-text") == ["end"]
    assert not drawn(root=record("VBox", children=[ref("root")])).text
    assert not drawn(root=record("VBox", children="abc")).text


def test_boxes_that_double_at_every_level_end() -> None:
    levels = {f"b{i}": record("VBox", children=[ref(f"b{i + 1}")] * 2) for i in range(40)}
    soup = drawn("b0", **levels, b40=record("Label", value="x"))
    assert 0 < len(soup.select(".wbs-text")) < MOST_WIDGETS
    assert texts(soup, ".wbs-none") == [f"Only the first {MOST_WIDGETS} parts are shown."]


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {"version_major": 1, "state": {"root": record("Label", value="x")}},
        {"version_major": 3, "state": {"root": record("Label", value="x")}},
        {"state": {"root": record("Label", value="x")}},
        {"version_major": 2, "state": []},
        {"version_major": 2, "state": {"root": 3}},
        {"version_major": 2, "state": {"root": {"model_name": "LabelModel", "state": "x"}}},
        {"version_major": 2, "state": {"root": {"model_name": 3, "state": {"value": 1}}}},
        {"version_major": 2, "state": {"root": record("VBox", children=[1], layout=3, _dom_classes=7)}},
        {"version_major": 2, "state": {"root": {**record("Label"), "buffers": [3, {"path": 1}, {"data": "?"}]}}},
    ],
)
def test_a_state_that_is_none_draws_nothing(broken: Any) -> None:
    page = WidgetPage(SavedWidgets(broken))
    assert "x" not in BeautifulSoup(page.draw("root"), features="html.parser").text
    assert WidgetPage(of_notebook({"widgets": broken})).draw("root") == ""


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2, 3]},
        {"shape": [0, 0]},
        {"shape": [-1, -2]},
        {"shape": "ab"},
        {"shape": [1, 2, 1]},
        {"rows": ["a", "b"]},
        {"rows": None},
        {"cols": "ab", "rows": 3},
    ],
)
def test_a_map_that_is_none_says_what_it_is_called(change: dict[str, Any]) -> None:
    soup = drawn(root=heat_grid([[1.0, 2.0]], title="Heads", **change))
    assert not soup.select("svg") and texts(soup, ".wbs-note") == ["Heads"]


def test_a_map_whose_rest_is_odd_is_drawn_without_it() -> None:
    odd: dict[str, Any] = {
        "limit": float("inf"), "groups": [9, "x"], "marked": [-1, True], "selected": [[5, 5], [0, 1], "ab", [0, True]],
        "descriptions": [["only one"]], "colours": {"low": 3, "light": ["red"], "dark": []}, "cell_width": 1e9,
        "cell_height": "2px", "title": 3, "unit": None,
    }  # fmt: skip
    soup = drawn(root=heat_grid([[1.0, np.inf]], **odd))
    assert len(soup.select("svg rect title")) == 2
    assert len(soup.select(".wbm-picked")) == 1
    assert soup.select("svg rect title")[1].text == "L0, H1: no value"


def test_fields_are_their_label_and_value() -> None:
    fields = {
        "text": record("Text", description="Folder", value="my-session"),
        "lines": record("Textarea", description="Prompt", value="one\ntwo"),
        "empty": record("Text", description="Search", value=""),
        "menu": record("Dropdown", description="Corrupt by", _options_labels=["swap", "noise"], index=1),
        "none": record("Dropdown", description="None", _options_labels=["swap"]),
        "wrong": record("Select", description="Wrong", _options_labels=["swap"], index=5),
        "several": record("SelectMultiple", description="Probes", _options_labels=["a", "b", "c"], index=[0, 2]),
        "off": record("Checkbox", description="Off"),  # JupyterLab saves no defaults
        "on": record("Checkbox", description="On", value=True),
        "zero": record("IntText", description="Seed"),
        "rate": record("FloatText", description="Rate", value=0.03),
        "slider": anywidget("Slider", description="Strength", value=0.3),
        "default": anywidget("Slider", description="Whole", value=1),
        "secret": record("Password", description="Key", value="hunter2"),
        "range": record("IntRangeSlider", description="Layers", value=[2, 5]),
        "run": record("Button", description="Run"),
        "chip": record("Button", description="L23H4 ×"),
        "tool": record("ToggleButton", description="Code", value=True),
    }
    soup = drawn(root=record("VBox", children=[ref(name) for name in fields]), **fields)
    assert texts(soup, ".wbs-field") == [
        "Folder my-session", "Prompt one\ntwo", "Corrupt by noise", "Probes a, c", "Off ☐", "On ☑", "Seed 0",
        "Rate 0.03", "Strength 0.30", "Whole 1.00", "Key ••••••••", "Layers 2 to 5",
    ]  # fmt: skip
    assert texts(soup, ".wbs-chip") == ["L23H4"]
    assert not soup.select("button, input, select, textarea")
    assert "Run" not in soup.text and "hunter2" not in soup.text


def test_kinds_that_nobody_knows() -> None:
    soup = drawn(
        root=record("TwoByTwoLayout", children=[ref("a"), ref("b"), ref("c")]),
        a=record("Fancy", "9.0.0", description="Beta", value=3.5),
        b=anywidget("Newer", title="Attention", alt="Attention of L23H4"),
        c=record("Label", "9.0.0", value="newer, and known"),
    )
    assert texts(soup, ".wbs-note") == ["Beta: 3.5", "Attention: Attention of L23H4"]
    assert texts(soup, ".wbs-text") == ["newer, and known"]


def test_bars_that_are_finished_are_gone() -> None:
    def bar(**fields: Any) -> dict[str, Any]:
        parts = {
            "h": record("HTML", value="Loading: "),
            "p": record("FloatProgress", **fields),
            "t": record("HTML", value="1/3"),
        }
        return {"root": record("HBox", children=[ref(name) for name in parts]), **parts}

    for fields in ({"value": 3.0, "max": 3.0}, {"value": 1.0, "max": 3.0}):
        page = WidgetPage(SavedWidgets(state(**bar(**fields))))
        assert page.is_progress_bar("root") and not page.is_progress_bar("h") and not page.is_progress_bar("gone")
    (going,) = drawn(**bar(value=1.0, max=3.0)).select("progress")
    assert going["value"] == "1" and going["max"] == "3"
    assert not drawn(**bar(value=3.0, max=3.0)).select("progress")
    assert not drawn(**bar(value=1.0, max=3.0, bar_style="danger")).select("progress")


def test_what_was_printed_into_a_widget() -> None:
    outputs = [
        {"output_type": "stream", "text": "a <b>"},
        {"output_type": "display_data", "data": {"text/html": f"<i>fine</i>{EVIL}", "text/plain": "no"}},
        {"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "l"}}},
        3,
    ]
    soup = drawn(root=record("Output", outputs=outputs), l=record("Label", value="inside"))
    assert texts(soup, "pre") == ["a <b>"] and texts(soup, "i") == ["fine"] and texts(soup, ".wbs-text") == ["inside"]
    assert not soup.select("img")


class Small(Panel):
    def __init__(self) -> None:
        super().__init__()
        self.grid = HeatGrid([[1.5, -0.5]], rows=["L7"], cols=["H0", "H1"], title="Heads", unit="logits")
        self.grid.selected = [[0, 0]]
        self.menu = Dropdown(description="Site", options=["resid", "mlp"], value="mlp")
        inside = VBox(
            [HTML("<b>P 0.937</b>"), self.menu, Checkbox(description="Tick"), IntText(5, description="Steps")]
        )
        hidden = Text("not to be seen", layout={"display": "none"})
        self._lay_out(Tab([inside, Box([self.grid, Slider("Strength", value=0.25), hidden])], titles=["A", "B"]))

    def _picture(self) -> bytes:
        return self.grid.to_png()

    def __repr__(self) -> str:
        return "Small()"


def test_a_snapshot_is_the_whole_panel_and_stays_as_it_was() -> None:
    panel = Small()
    snapshot = panel.snapshot()
    panel.menu.value, panel.grid.selected = "resid", []
    soup = BeautifulSoup(snapshot.html, features="html.parser")
    assert texts(soup, "h2") == ["A", "B"] and texts(soup, "b") == ["P 0.937"]
    assert texts(soup, ".wbs-field") == ["Site mlp", "Tick ☐", "Steps 5", "Strength 0.25"]
    assert [t.text for t in soup.select("svg rect title")] == ["L7, H0: 1.5 logits", "L7, H1: −0.5 logits"]
    assert len(soup.select(".wbm-picked")) == 1 and "not to be seen" not in soup.text
    assert "resid" in panel.snapshot().html
    bundle = snapshot._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/png"} and snapshot.html in bundle["text/html"]
    assert repr(snapshot) == "Snapshot of Small()" and isinstance(snapshot, Snapshot)


def test_a_saved_snapshot_is_a_page_that_loads_nothing(tmp_path: Any) -> None:
    path = Small().snapshot().save(tmp_path / "deep" / "panel.html")
    page = BeautifulSoup(path.read_text(encoding="utf-8"), features="html.parser")
    assert page.title is not None and page.title.text == "Small()"
    (policy,) = page.select("meta[http-equiv]")
    assert str(policy["content"]).startswith("default-src 'none'; script-src 'none'")
    assert not page.select("script, link, img, [src], [href]")
    assert texts(page, "figcaption") == ["Heads"]


def test_what_says_that_no_kernel_listens_is_not_saved_as_if_it_were_so() -> None:
    assert not WidgetPage(SavedWidgets(state(root=anywidget("Connection")))).draw("root")
    assert not Snapshot(Connection(), b"").html


def test_in_a_grid_what_shows_nothing_keeps_its_place_and_what_is_hidden_has_none() -> None:
    soup = drawn(
        root=record("GridBox", children=[ref("a"), ref("run"), ref("b"), ref("gone"), ref("c")], layout=ref("l")),
        run=record("Button", description="Run"),
        gone=record("Label", value="gone", layout=ref("h")),
        l=record("Layout", grid_template_columns="190px 1fr"),
        h=record("Layout", display="none"),
        **{name: record("Label", value=name) for name in "abc"},
    )
    (grid,) = soup.select(".wbs-box")
    assert grid["style"] == "display: grid; grid-template-columns: 190px 1fr"
    assert [cell.text for cell in grid.find_all(True, recursive=False)] == ["a", "", "b", "c"]
