"""Foreign HTML: what shows something stays, what runs, loads or covers the page goes."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup

from workbench.plots.clean_html import ATTRIBUTES, DROPPED, ELEMENTS, clean_html, clean_style, is_plain
from workbench.widgets.shared import charts, markup

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '<img src="https://example.org/x.png" alt="">',
    '<img src="data:image/svg+xml;base64,AAAA">',
    "<svg onload=alert(1)><script>alert(1)</script></svg>",
    '<svg><use href="https://example.org/x.svg#a"/><image href="https://example.org/x.png"/></svg>',
    "<svg><foreignObject><iframe src='https://example.org'></iframe></foreignObject></svg>",
    '<svg><a xlink:href="javascript:alert(1)"><text>x</text></a></svg>',
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<svg><animate attributeName=href values=javascript:alert(1) /></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table></mtext></math>",
    '<a href="javascript:alert(1)" ping="https://example.org">x</a>',
    '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    '<object data="https://example.org"></object><embed src="https://example.org">',
    '<link rel="stylesheet" href="https://example.org/x.css"><meta http-equiv="refresh" content="0;url=https://e.org">',
    '<base href="https://example.org/"><form action="https://example.org"><input autofocus onfocus=alert(1)></form>',
    "<style>@import url(https://example.org/x.css);</style>",
    '<p style="background: url(https://example.org/x.png)">x</p>',
    "<p style=\"background-image: image-set('https://example.org/x.png' 1x)\">x</p>",
    '<p style="width: expression(alert(1)); behavior: url(x.htc)">x</p>',
    '<p style="color: red; background: u\\72l(https://example.org/x.png)">x</p>',
    '<rect fill="url(https://example.org/x.svg#a)"></rect>',
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<img src=x onerror=alert(1)>]]>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></p></noscript>",
    "<textarea><img title='</textarea><img src=x onerror=alert(1)>'></textarea>",
    "<title><img src=x onerror=alert(1)></title>",
    "<video src='https://example.org' onerror=alert(1)></video><audio src='https://example.org'></audio>",
    "<div onclick=alert(1) onmouseover=alert(1) contenteditable autofocus>x</div>",
    "<svg><set attributeName=onmouseover to=alert(1)></set></svg>",
    '<td background="https://example.org/x.png">x</td>',
    '<p id="x" formaction="https://example.org" srcset="https://example.org 1x">x</p>',
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_runs_or_loads_is_left(attack: str) -> None:
    cleaned = clean_html(f"<p>before {attack} after</p>")
    soup = BeautifulSoup(cleaned, features="html.parser")
    for element in soup.find_all(True):
        assert element.name in ELEMENTS and element.name not in DROPPED
        assert all(name in {*ATTRIBUTES, "style", "id"} or name.startswith("aria-") for name in element.attrs)
        assert not [name for name in element.attrs if name.startswith("on") or name in ("href", "src", "srcset")]
    written = cleaned.lower()
    assert not any(word in written for word in ("example.org", "javascript:", "url(", "<img", "<script", "expression"))
    assert "before" in soup.text and (attack.startswith(("<!--", "<noscript", "<textarea")) or "after" in soup.text)
    assert clean_html(cleaned) == cleaned


def test_what_panels_write_stays_as_it_is() -> None:
    written = [
        markup.table(["a", "b"], [["x", markup.tag("old")]], "Rates"),
        markup.tokens(["<s>", " Paris"], subject=[1], traced=1),
        markup.code("print(1 < 2)", opened=True),
        markup.progress(1, 3, "1 of 3"),
        markup.title("A & B", "note"),
        markup.alert("It failed.", "error"),
        charts.bars({"old": 0.5, "new": None}, "P"),
        charts.line_chart({"a": [(0, 1.0), (1, 2.0)], "b": [(0, 0.5)]}, "Loss", borders={1: "learn"}),
    ]
    for one in written:
        kept = BeautifulSoup(clean_html(one), features="html.parser")
        given = BeautifulSoup(one, features="html.parser")
        assert kept.get_text() == given.get_text()
        assert [e.name for e in kept.find_all(True)] == [e.name for e in given.find_all(True)]
        for a, b in zip(kept.find_all(True), given.find_all(True), strict=True):
            styles = [str(e.get("style", "")).replace(" ", "").strip(";") for e in (a, b)]
            assert styles[0] == styles[1]
            assert {k: v for k, v in a.attrs.items() if k != "style"} == {
                k: v for k, v in b.attrs.items() if k != "style"
            }


def test_ids_and_what_names_them_get_the_prefix_and_nothing_outside_is_named() -> None:
    drawing = (
        '<svg aria-labelledby="t" aria-controls="t"><title id="t">x</title><pattern id="h"></pattern>'
        '<rect fill="url(#h)"/></svg>'
    )
    soup = BeautifulSoup(clean_html(drawing, "w1-"), features="html.parser")
    assert soup.svg is not None and soup.svg.attrs == {"aria-labelledby": "w1-t"}
    assert [e["id"] for e in soup.select("[id]")] == ["w1-t", "w1-h"]
    (rect,) = soup.select("rect")
    assert rect["fill"] == "url(#w1-h)"


def test_a_picture_stays_only_with_its_bytes() -> None:
    assert clean_html('<img src="data:image/png;base64,iVBO" alt="a map">') == (
        '<img alt="a map" src="data:image/png;base64,iVBO"/>'
    )
    assert clean_html('<img src="x.png" alt="a <b>">') == "a &lt;b&gt;"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("repeat(auto-fit, minmax(min(100%, 280px), 1fr))", True),
        ("light-dark(#fff, var(--wb-ink))", True),
        ("0 0 320px", True),
        ("", False),
        ("url(x)", False),
        ("URL (x)", False),
        ("image-set(url(x) 1x)", False),
        ("a\\72 l(x)", False),
        ("1px} body {display: none", False),
    ],
)
def test_plain_values(value: str, plain: bool) -> None:
    assert is_plain(value) is plain


def test_a_style_covers_nothing_else() -> None:
    assert clean_style("position: fixed; inset: 0; z-index: 9; color: red; ; :; width:1px") == "color: red; width: 1px"
