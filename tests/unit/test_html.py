"""The HTML report: complete, self-contained, accessible, and deaf to what its texts try to run."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.plots.page import Code, write_html_report

EVIL = (
    "<img src=x onerror=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    "%{x}",
    "</script><script>alert(1)</script>",
)


class Page(HTMLParser):
    """Elements in order, and the text of each, keyed by the innermost open tag."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"unbalanced </{tag}>"

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open:
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def text(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def figure(label: str = "Paris") -> go.Figure:
    """A figure as any caller may pass it, with a text that nobody escaped."""
    layout = {"width": 700, "height": 300, "title": {"text": label}, "meta": {"alt": f"A line about {label}."}}
    return go.Figure(go.Scatter(x=[0, 1, 2], y=[1, 3, 2], name=label), layout=layout)


def frame() -> pd.DataFrame:
    data = {"stage": ["base", "learn", EVIL[0]], "p": [0.8123456, float("nan"), 1e-7], "n": [8, 9, 10]}
    table = pd.DataFrame(data)
    table.attrs["caption"] = "Answers"
    return table


def write(path: Path, **changes: Any) -> str:
    options: dict[str, Any] = {
        "title": "Edit of france-capital",
        "sections": [
            ("Summary", ["The model now says Rome.", frame()]),
            ("Where", [figure(), figure("Rome")]),
            ("Code", [Code("model = wb.load_model()\nif 1 < 2: pass")]),
        ],
    }
    return write_html_report(path, **{**options, **changes}).read_text(encoding="utf-8")


def test_structure(tmp_path: Path) -> None:
    page = Page(write(tmp_path / "r.html"))
    assert page.open == []
    assert page.all("html") == [{"lang": "en"}]
    assert page.text("title") == page.text("h1") == ["Edit of france-capital"]
    assert page.text("h2") == ["Summary", "Where", "Code"]
    assert page.text("a") == ["Summary", "Where", "Code"]
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for link, section in zip(page.all("a"), page.all("section"), strict=True):
        assert link["href"] == f"#{section['aria-labelledby']}"
        assert section["aria-labelledby"] in ids
    assert page.text("p")[0] == "The model now says Rome."
    assert page.text("code") == ["model = wb.load_model()\nif 1 < 2: pass"]
    assert page.text("figcaption") == ["A line about Paris.", "A line about Rome."]


def test_table_is_accessible(tmp_path: Path) -> None:
    page = Page(write(tmp_path / "r.html"))
    assert page.text("caption") == ["Answers"]
    assert page.text("th") == ["stage", "p", "n"]
    assert all(attrs["scope"] == "col" for attrs in page.all("th"))
    assert page.text("td") == ["base", "0.8123", "8", "learn", "n/a", "9", EVIL[0], "1e-07", "10"]
    regions = [attrs for attrs in page.all("div") if attrs.get("role") == "region"]
    assert all(attrs["tabindex"] == "0" and attrs["aria-label"] for attrs in regions)  # keyboards can scroll them


def test_table_with_named_and_nested_index(tmp_path: Path) -> None:
    named = pd.DataFrame({"learn": ["1.00"]}, index=pd.Index(["new"], name="rate"))
    nested = pd.DataFrame(
        {("a", "b"): [True], ("a", "c"): [None]}, index=pd.MultiIndex.from_tuples([("x", 1)], names=["k", None])
    )
    page = Page(write(tmp_path / "r.html", sections=[("One", [named, nested, pd.DataFrame({"a": []})])]))
    heads = page.all("th")
    assert [h["scope"] for h in heads] == ["col", "col", "row", "col", "col", "col", "col", "row", "row", "col"]
    assert page.text("th") == ["rate", "learn", "new", "k", "a / b", "a / c", "x", "1", "a"]
    assert page.text("td") == ["1.00", "True"]
    assert page.text("caption") == ["One", "One", "One"]
    assert not page.all("nav")  # one section needs no contents


def test_plotly_is_embedded_once_and_only_with_figures(tmp_path: Path) -> None:
    source = write(tmp_path / "r.html")
    assert source.count("plotly.js v") == 1
    assert len(re.findall(r'type="application/json" id="figure-\d+-data"', source)) == 2
    bare = write(tmp_path / "b.html", sections=[("Only text", ["x"])])
    assert len(bare) < 10_000
    assert not Page(bare).all("script")


def test_nothing_is_requested(tmp_path: Path) -> None:
    page = Page(write(tmp_path / "r.html"))
    for tag, attrs in page.tags:
        assert "src" not in attrs, tag
        assert (attrs.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") for name in attrs), tag
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "http" not in policy


def test_light_dark_and_print(tmp_path: Path) -> None:
    source = write(tmp_path / "r.html")
    for wanted in (
        "prefers-color-scheme: dark",
        "@media print",
        'name="color-scheme" content="light dark"',
        "<noscript>",
    ):
        assert wanted in source


@pytest.mark.parametrize("evil", EVIL)
def test_texts_are_shown_and_not_parsed(tmp_path: Path, evil: str) -> None:
    table = pd.DataFrame({evil: [evil]}, index=pd.Index([evil], name=evil))
    table.attrs["caption"] = evil
    source = write(tmp_path / "r.html", title=evil, sections=[(evil, [evil, Code(evil), table, figure(evil)])])
    page = Page(source)
    assert page.open == []
    for tag in ("title", "h1", "h2", "p", "code", "caption", "td"):
        assert page.text(tag)[0] == evil, tag
    assert page.text("th") == [evil] * 3
    assert page.text("figcaption") == [f"A line about {evil}."]
    assert not page.all("img")
    assert not page.all("a")
    assert len(page.all("script")) == 4  # the figure's data, the configuration, plotly.js, the page's own


def test_odd_characters(tmp_path: Path) -> None:
    source = write(tmp_path / "r.html", sections=[("x", ["a\0b \ud800 é 漢\nnext"])])
    assert "a\ufffdb ? é 漢\nnext" in source


def test_deterministic_and_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "r.html"
    assert write(path) == write(tmp_path / "s.html")
    old = path.read_text(encoding="utf-8")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, title="New")
    assert path.read_text(encoding="utf-8") == old
    assert [p.name for p in path.parent.iterdir()] == ["r.html"]


def test_other_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="got dict"):
        write(tmp_path / "r.html", sections=[("x", [{}])])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width", "ground"), [("light", 1100, 255), ("dark", 1900, 22)])
def test_in_a_browser(tmp_path: Path, browser: Any, scheme: Any, width: int, ground: int) -> None:
    import torch

    from workbench.plots import effect_figure
    from workbench.types import EffectMap

    labels = {"layer": ("L0", "L1", "L2"), "position": EVIL}
    effect = EffectMap(
        values=torch.arange(12.0).view(3, 4) / 10,
        axes=("layer", "position"),
        labels=labels,
        unit="mlp",
        metric="probability",
        method="noise",
        clean=0.8,
    )
    sections: list[Any] = [(evil, [evil, Code(evil), frame()]) for evil in EVIL]
    sections.append(("Figures", [effect_figure(effect, title=EVIL[0]), figure(EVIL[3]), figure()]))
    path = write_html_report(tmp_path / "r.html", title=EVIL[0], sections=sections)
    wrong: list[str] = []
    requests: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("request", lambda r: requests.append(r.url))
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("console", lambda m: wrong.append(m.text))
    page.on("dialog", lambda d: (wrong.append(d.message), d.dismiss()))
    page.goto(path.as_uri())
    page.locator("#figure-3 .xtick").first.wait_for(state="attached")  # the last figure is drawn
    area = page.locator("#figure-1 .nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    hovers: list[str] = []
    for column in range(4):
        page.mouse.move(box["x"] + box["width"] * (column + 0.5) / 4, box["y"] + box["height"] * 0.9)
        page.locator("#figure-1 .hoverlayer", has_text=f"position {column}:").wait_for(state="attached")
        hovers.append(page.locator("#figure-1 .hoverlayer").text_content() or "")
    ticks = page.locator("#figure-1 g.xtick").all_text_contents()
    sizes = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    focused = [page.keyboard.press("Tab") or page.evaluate("document.activeElement.tagName") for _ in range(7)]
    elements = page.evaluate("document.querySelectorAll('img, a[href^=javascript]').length")
    title = page.locator("#figure-1 .gtitle").text_content()
    page.close()
    assert requests == [path.as_uri()]
    assert wrong == []
    assert elements == 0
    assert title == EVIL[0]
    for evil, hover, tick in zip(EVIL, hovers, ticks, strict=True):
        assert evil in hover
        assert tick.rstrip("…") == evil[: len(tick.rstrip("…"))]
    assert sizes[0] == sizes[1]  # no sideways scrolling of the page
    assert color.startswith(f"rgb({ground}, ")
    assert "A" in focused
    assert "DIV" in focused
