"""The panels' HTML: what comes in is shown and never run, and the pieces are well formed and named."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.reader import Reader, harmless
from workbench.widgets.shared import charts, markup

EVIL = '"><img src=x onerror=alert(1)><script>alert(2)</script>\' onload="alert(3)'


def everything(evil: str) -> dict[str, str]:
    """Each piece with the text in every place that takes one."""
    return {
        "text": markup.text(evil),
        "title": markup.title(evil, evil),
        "alert": markup.alert(evil),
        "tagged": markup.tagged(evil, evil).html,
        "table": markup.table([evil, evil], [[evil, evil], [markup.tag(evil), 1.5]], evil),
        "tokens": markup.tokens([evil, " a"], subject=[0], traced=1),
        "code": markup.code(evil, evil),
        "hint": markup.hint(evil),
        "verdict": markup.verdict(evil, "partly"),
        "badge": markup.badge("old", evil).html,
        "token": markup.token(evil).html,
        "fold": markup.fold(evil, markup.block(markup.text(evil))),
        "progress": markup.progress(3, 10, markup.Markup(markup.text(evil))),
        "bars": charts.bars({evil: 0.5, "b": None}, evil),
        "line_chart": charts.line_chart({evil: [(0, 0.1), (1, 0.5)], "b": []}, evil, x_label=evil, borders={1.0: evil}),
    }


@pytest.mark.parametrize("piece", list(everything("x")))
def test_untrusted_text_is_shown_and_never_run(piece: str) -> None:
    read = harmless(everything(EVIL)[piece])
    shown = read.said + " ".join(value or "" for _, value in read.attributes)
    assert "onerror=alert(1)" in shown or "<img" in shown


@given(st.text(max_size=40))
def test_no_text_breaks_out(evil: str) -> None:
    for source in everything(evil).values():
        harmless(source)


@given(st.text(max_size=60))
def test_escaped_text_reads_as_it_was(raw: str) -> None:
    clean = raw.replace("\0", "�").replace("\r\n", "\n").replace("\r", "\n")
    assert Reader(markup.text(raw.replace("\r\n", "\n").replace("\r", "\n"))).said == clean


def test_escaping_happens_once() -> None:
    assert markup.text("a & b") == "a &amp; b"
    assert markup.text(markup.Markup(markup.text("a & b"))) == "a &amp; b"
    assert markup.text("\ud800\0") == "?�"


def test_alerts_speak_by_role() -> None:
    assert harmless(markup.alert("no")).named("role") == ["alert"]
    assert harmless(markup.alert("well", "info")).named("role") == ["status"]
    assert harmless(markup.alert("well", "done")).named("role") == ["status"]
    assert markup.alert("") == markup.alert(None) == ""
    assert harmless(markup.alert(ValueError("why"))).said == "Error: why"


def test_a_table_names_its_rows_and_columns() -> None:
    read = harmless(markup.table(["rate", "before"], [["new", 0], ["old", markup.tag("1")]], "Rates"))
    assert read.named("scope") == ["col", "col", "row", "row"] and read.named("tabindex") == ["0"]
    assert read.named("aria-label") == ["Rates"] and read.said == "Ratesratebeforenew0old1"


def test_tokens_mark_subject_and_traced_token_in_words_too() -> None:
    read = harmless(markup.tokens([" Eiffel", " Tower", "\n"], subject=range(2), traced=1))
    assert read.named("title") == ["token 0, subject", "token 1, subject, traced", "token 2"]
    assert "·Eiffel·Tower⏎" in read.said


def test_bars_are_as_long_as_their_values() -> None:
    read = harmless(charts.bars({"a": 1.0, "b": 0.5, "c": None, "d": math.nan, "e": 7.0}, "P"))
    assert read.named("width")[1:] == ["220.0", "110.0", "0.0", "0.0", "220.0"]
    assert read.named("aria-label") == ["P. a: 1; b: 0.5; c: n/a; d: n/a; e: 7"]


def coordinates(source: str, series: int) -> list[tuple[float, float]]:
    """The corners of a line."""
    path = re.search(rf'wb-s{series}"><title>[^<]*</title><path d="M([^"]*)"', source)
    assert path is not None
    return [(float(x), float(y)) for x, y in (pair.split() for pair in path[1].split("L"))]


def test_a_line_goes_where_its_points_are() -> None:
    # The plot is 300 wide from 56, and 150 high from 40; the axes end at 10 and 1.
    source = charts.line_chart({"a": [(0, 0.0), (5, None), (10, 1.0)], "b": [(5, 0.5)]}, "P", x_max=10, y_max=1)
    assert coordinates(source, 0) == [(56, 190), (356, 40)], "the missing value is bridged"
    assert coordinates(source, 1) == [(206, 115)]
    said = harmless(source).named("aria-label")
    assert said == ["P. a: last 1; b: last 0.5"]


def test_an_axis_ends_at_a_round_number_above_the_data() -> None:
    ends = {0.0123: 0.02, 3.1: 4, 4: 4, 9.9: 10, 12: 20, 0: 1}
    for value, end in ends.items():
        assert f">{end:g}</text>" in charts.line_chart({"a": [(0, value)]}, "x")


def test_lines_differ_by_more_than_colour() -> None:
    source = charts.line_chart({n: [(0, 0.1), (1, 0.2)] for n in "abcd"}, "x")
    read = harmless(source)
    assert len(set(read.named("stroke-dasharray"))) == 3, "the fourth is solid"
    assert "circle" in read.tags and len({d for d in re.findall(r'wb-mark" d="M[^m]*(m[^"]*)"', source)}) == 3


def test_labels_at_line_ends_do_not_touch() -> None:
    source = charts.line_chart({n: [(0, 0.5), (1, 0.001 * i)] for i, n in enumerate("abcd")}, "x", y_max=1)
    places = sorted(float(y) for y in re.findall(r'<text x="374\.0" y="([\d.]+)"', source))
    assert len(places) == 4 and all(b - a >= 14.9 for a, b in pairwise(places))
    assert places[-1] <= 40 + 150 + 8.1


def test_a_chart_without_values_says_so() -> None:
    assert harmless(charts.line_chart({"loss": []}, "L")).named("aria-label") == ["L. loss: no value yet"]


def test_the_style_sheet_loads_nothing() -> None:
    assert markup.STYLE.startswith("<style>") and markup.STYLE.endswith("</style>")
    assert "url(" not in markup.STYLE and "@import" not in markup.STYLE and "<" not in markup.STYLE[7:-8]


def test_a_verdict_has_a_mark_of_its_own_for_each_outcome() -> None:
    marks = [Reader(markup.verdict("words", kind)).said.split()[0] for kind in markup.OUTCOME_MARKS]
    assert len(set(marks)) == len(marks) == 4


def test_badges_differ_by_mark_and_colour() -> None:
    badges = [markup.badge(kind).html for kind in markup.ANSWER_MARKS]
    assert len({Reader(badge).said[0] for badge in badges}) == 4
    assert all(f".wb-badge-{kind} {{ color:" in markup.STYLE for kind in markup.ANSWER_MARKS)


def test_a_hint_without_words_is_nothing() -> None:
    assert markup.hint("") == "" and Reader(markup.hint("go on")).said == "go on"


def test_tokens_of_another_script_keep_their_direction_to_themselves() -> None:
    assert "<bdi>" in markup.tokens(["شمس", " a"]) and "<bdi>" in markup.token("شمس").html
