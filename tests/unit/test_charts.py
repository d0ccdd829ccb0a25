"""Charts of panels: sizes in px, bars over an axis beside what they are compared with, probabilities by decades."""

from __future__ import annotations

import math
import re

import pytest

from tests.helpers.reader import harmless
from workbench.widgets.shared import charts, markup


def size(source: str) -> tuple[float, float]:
    (width,), (height,) = (re.findall(rf'<svg [^>]*{name}="(\d+)"', source) for name in ("width", "height"))
    assert f"width: {width}px; height: {height}px" in source and "viewBox" not in source, "nothing scales its type"
    return float(width), float(height)


def test_a_chart_has_a_size_in_px_whatever_its_texts() -> None:
    short = charts.line_chart({"a": [(0, 0.1), (1, 0.5)]}, "P")
    long = charts.line_chart({"a": [(0, 0.1), (1, 0.5)]}, "A heading that is longer than the chart is wide, " * 3)
    assert size(short)[1] == size(long)[1] and size(long)[0] >= 7 * 140
    assert size(charts.bars({"a": 1.0}))[1] < size(charts.bars({"a": 1.0, "b": 0.1}))[1]
    assert 'class="wb-chart" tabindex="0"' in short, "it scrolls, by keyboard too"


def references(source: str) -> list[float]:
    return [float(x) for x in re.findall(r'wb-reference" d="M([\d.]+) ', source)]


def left_of(source: str) -> float:
    return float(re.findall(r'<rect class="wb-bar wb-s0" x="(\d+)"', source)[0])


def test_bars_stand_over_an_axis_beside_the_base() -> None:
    source = charts.bars({"old": 0.25, "new": 1.0, "refusal": None}, "P", reference={"old": 0.75, "new": 0.0})
    left, read = left_of(source), harmless(source)
    assert references(source) == pytest.approx([left + 165, left], abs=0.6)
    assert read.named("aria-label") == ["P. old: 0.25 (base 0.75); new: 1 (base 0); refusal: n/a"]
    assert re.findall(r'text-anchor="middle">([\d.]+)</text>', source) == ["0", "0.5", "1"]
    assert "| base" in read.said
    plain = charts.bars({"old": 0.25})
    assert not references(plain) and "base" not in plain
    other = charts.bars({"old": 3.0}, limit=6, reference={"old": math.nan}, reference_name="before")
    assert "0</text>" in other and ">3</text>" in other and ">6</text>" in other and not references(other)
    assert "old: 3 (before n/a)" in other


def test_tiny_probabilities_have_no_exponents() -> None:
    assert harmless(charts.bars({"old": 6.5e-5, "new": 0.99999})).named("aria-label") == ["old: <0.001; new: >0.999"]


def heights(source: str, series: int = 0) -> list[float]:
    path = re.search(rf'wb-s{series}"><title>[^<]*</title><path d="M([^"]*)"', source)
    assert path is not None
    return [float(pair.split()[1]) for pair in path[1].split("L")]


def ticks(source: str) -> list[str]:
    return re.findall(r'text-anchor="end">([^<]*)</text>', source)


def test_a_logarithmic_axis_has_a_line_a_decade() -> None:
    # 150 px from 40 (P = 1) down to 190 (P = 0.001): 50 px a decade.
    source = charts.line_chart({"a": [(0, 1.0), (1, 0.1), (2, 0.01), (3, 0.001)]}, "P", x_max=3, y_max=1.0, log=True)
    assert ticks(source) == ["0.001", "0.01", "0.1", "1"]
    assert heights(source) == pytest.approx([40, 90, 140, 190])
    assert harmless(source).named("aria-label") == ["P. a: last 0.001"]


def test_a_logarithmic_axis_ends_and_what_is_below_is_at_its_end() -> None:
    source = charts.line_chart({"a": [(0, 1e-30), (1, 0.0), (2, 1.0)]}, "P", x_max=2, y_max=1.0, log=True)
    assert heights(source) == pytest.approx([190, 190, 40]) and len(ticks(source)) == 5
    assert ticks(source)[0] == "10⁻⁸" and ticks(source)[-1] == "1"
    flat = charts.line_chart({"a": [(0, 0.5), (1, 0.6)]}, "P", y_max=1.0, log=True)
    assert ticks(flat) == ["0.01", "0.1", "1"], "two decades at least"
    assert charts.line_chart({"a": [(0, 0.0)]}, "P", y_max=1.0, log=True) and "no value yet" in charts.line_chart(
        {"a": []}, "P", y_max=1.0, log=True
    )


def test_marks_are_those_of_the_badges() -> None:
    """Old is a circle, new a diamond, a refusal a square: in the chart as in the texts."""
    source = charts.line_chart({name: [(0, 0.1 * i)] for i, name in enumerate(("old", "new", "refusal"))}, "P")
    shapes = [re.findall(rf'wb-s{i}"><title>.*?(circle|m0 -4\.2l|m-3 -3h6)', source)[0] for i in range(3)]
    assert shapes == ["circle", "m0 -4.2l", "m-3 -3h6"]
    assert [markup.ANSWER_MARKS[k] for k in ("old", "new", "refusal")] == ["●", "◆", "■"]
