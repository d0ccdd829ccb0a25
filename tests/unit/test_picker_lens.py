"""The logit lens in the picker: a layer-by-token map of the model, whose cells show their likeliest tokens."""

from __future__ import annotations

import html
from typing import Any

import pytest

import workbench as wb
from tests.helpers.panels import control, until
from tests.helpers.panels import shown as text
from tests.helpers.pickers import FACTS, FRANCE, fresh, tiny
from tests.helpers.wire import click, enter
from workbench.plots.style import short_number, visible
from workbench.types import NextToken
from workbench.widgets.picker.picker import CircuitPicker


def read(shown: CircuitPicker) -> wb.LensGrid:
    """Press the button and wait until it is drawn."""
    click(control(shown, "Logit lens"))
    assert shown.lens.job is not None
    result = shown.lens.job.wait(60)
    until(lambda: not control(shown, "Logit lens").disabled)
    return result


def said(tokens: tuple[NextToken, ...]) -> list[str]:
    return [f"{visible(t.token)}</code></bdi> {short_number(t.probability, share=True)}" for t in tokens]


def test_the_lens_is_drawn_on_demand_and_a_click_shows_a_cells_tokens() -> None:
    shown = fresh()
    assert shown.lens.grid.layout.display == "none" and "lens_grid" not in shown.code
    result = read(shown)
    expected = wb.lens_grid(tiny(), FRANCE, k=5)
    assert result.top == expected.top
    start, grid = result.subject[0], shown.lens.grid
    assert grid.layout.display is None and grid.shape == [len(expected.top), len(expected.tokens) - start]
    assert grid.cols[0] == visible(expected.tokens[start]) and grid.marked == [at - start for at in expected.subject]
    for row, column in ((0, 1), (2, 3)):
        assert grid.values[row, column] == pytest.approx(expected.top[row][column + start][0].probability)
    assert grid.words == [[visible(tokens[0].token) for tokens in row[start:]] for row in expected.top]
    words = html.unescape(text(shown.lens))
    assert "is the likeliest token at the end from" in words and "Likeliest token: the first of all tokens" in words
    assert all(part in words for part in said(expected.top[-1][-1])), "at first the model's own prediction"
    enter(grid, picked=[*grid.selected, [1, 2]], seq=1)
    assert grid.selected == [[1, 2]]
    words = html.unescape(text(shown.lens))
    assert all(part in words for part in said(expected.top[1][2 + start])) and "After L0 at" in words
    enter(grid, picked=[], seq=2)  # a click on the cell that is shown
    assert grid.selected == [[1, 2]]
    enter(grid, hover=[0, 0])
    assert grid.tip.splitlines() == [
        f"{visible(t.token)}  {short_number(t.probability, share=True)}" for t in expected.top[0][start]
    ]
    names: dict[str, Any] = {"given": tiny()}
    exec(shown.code.replace("model = wb.load_model('tiny')", "model = given"), names)
    assert names["lens"].top == expected.top


def test_another_fact_takes_it_away_and_several_have_none() -> None:
    shown = fresh()
    read(shown)
    shown.show(FACTS[1], {}, form="cloze")
    assert shown.lens.grid.layout.display == "none" and "After L" not in text(shown.lens)
    assert read(shown).tokens == wb.lens_grid(tiny(), FACTS[1], form="cloze").tokens
    assert "wb.lens_grid(model, fact, k=5, form='cloze')" in shown.code
    shown.show(FACTS[:2], {})
    click(control(shown, "Logit lens"))
    until(lambda: "The lens reads one fact." in text(shown.lens))
    assert not control(shown, "Logit lens").disabled
