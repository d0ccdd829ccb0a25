"""The side panel: what is pinned by a key, a name or Python; attention from any token; values in each map."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.panels import control
from tests.helpers.panels import shown as text
from tests.helpers.pickers import FACTS, FRANCE, fresh, ready, tiny
from tests.helpers.wire import click, enter, message
from workbench.plots.map_svg import heat_map_svg
from workbench.plots.saved_map import heat_map_of
from workbench.plots.style import short_number, visible
from workbench.tracing.attention import attention_patterns
from workbench.types import Component, Selection
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.picker.side_panel import MOST, values_in, values_markup


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def pin(grid: Any, item: Any) -> None:
    """The browser pins something."""
    message(grid, {"method": "custom", "content": {"event": "pin", "item": item}})


def waited(shown: CircuitPicker) -> CircuitPicker:
    if shown.job is not None:
        shown.job.wait(60)
    return shown


def test_a_pin_in_a_map_or_in_the_list_is_one_everywhere() -> None:
    shown = fresh()
    assert shown.side.layout.display == "none" and shown.heads.pinnable
    pin(shown.heads, [1, 2])
    pin(shown.mlps, [0, 0])
    assert shown.pinned == (Component(1, "H", 2), Component(0, "MLP")) and shown.side.layout.display is None
    assert shown.heads.pinned == [[1, 2]] and shown.mlps.pinned == [[0, 0]]
    assert set(shown.ranked.bars.pinned) == {"L1H2"}
    enter(control(shown, "Ranked"), index=1)
    assert shown.ranked.bars.pinned == ["L0MLP"]
    pin(shown.ranked.bars, "L2MLP")
    assert shown.mlps.pinned == [[0, 0], [2, 0]]
    pin(shown.trace, [1, 3])  # the residual state entering layer 1: both modules that read it
    assert len(shown.pinned) == MOST and shown.pinned[-2:] == (Component(1, "ATTN"), Component(1, "MLP"))
    pin(shown.mlps, [1, 0])
    assert Component(1, "MLP") not in shown.pinned
    assert len(shown.selection) == 0, "to pin is not to pick"
    click(control(shown.side.cards[0], "Unpin"))
    assert len(shown.pinned) == 1
    shown.pinned = "L0H1 L0H2"
    assert shown.pinned == (Component(0, "H", 1), Component(0, "H", 2)) and len(shown.side.cards) == MOST
    with pytest.raises(ValueError, match="L9H0"):
        shown.pinned = "L9H0"
    shown.pinned = ()
    assert shown.side.layout.display == "none" and shown.heads.pinned == []


def test_a_heads_attention_from_any_token() -> None:
    shown = fresh()
    pin(shown.heads, [1, 2])
    pin(shown.heads, [0, 4])
    waited(shown)
    weights, prompt = attention_patterns(tiny(), FRANCE)
    start = prompt.subject[0]
    for card, (layer, head) in zip(shown.side.cards, ((1, 2), (0, 4)), strict=True):
        assert card.grid.values == pytest.approx(weights[layer, head, start:].numpy())
        assert card.grid.rows == [visible(token) for token in prompt.tokens[start:]]
        assert card.grid.cols == [visible(token) for token in prompt.tokens]
    card, other = shown.side.cards
    last = len(prompt.tokens) - 1
    assert {row for row, _ in card.grid.selected} == {last - start}, "the query that is read at first"
    enter(card.grid, picked=[*card.grid.selected, [1, 2]], seq=1)  # a click in another row
    assert {row for row, _ in card.grid.selected} == {1} and len(card.grid.selected) == len(prompt.tokens)
    best = int(weights[1, 2, start + 1].argmax())
    said = text(card)
    assert short_number(float(weights[1, 2, start + 1, best]), share=True) in said
    assert f">{visible(prompt.tokens[start + 1])}</code>" in said
    assert {row for row, _ in other.grid.selected} == {last - start}, "each card has its query"
    enter(card.grid, picked=[c for c in card.grid.selected if c != [1, 0]], seq=2)  # a click in its own row
    assert {row for row, _ in card.grid.selected} == {1}


def test_values_in_each_map_and_elsewhere() -> None:
    shown, maps = fresh(), ready()
    found = {name: value for name, value, _ in values_in(Component(1, "H", 2), maps)}
    assert found["Heads"] == float(maps["heads"].values[1, 2])
    assert found["Attention layers, all of L1ATTN"] == float(maps["attentions"].values[1])
    assert found["Trace: attention output, all of L1ATTN"] == float(maps["attn"].values[1].max()) and len(found) == 3
    of_neuron = values_in(Component(2, "N", 7), maps)
    assert [name for name, _, _ in of_neuron] == ["MLPs, all of L2MLP", "Neurons", "Trace: MLP output, all of L2MLP"]
    assert of_neuron[1][1] == float(maps["neurons"].values[2, 7])
    at = int(maps["mlp"].values[2].argmax())
    assert of_neuron[2][2] == maps["mlp"].labels["position"][at]
    shown.other_values = lambda component: {"<b>Japan</b>": 0.4321, "Spain": -2.5}
    shown.pinned = "L1H2"
    words = text(shown)
    assert short_number(found["Heads"]) in words and "0.432" in words and "−2.5" in words
    assert "&lt;b&gt;Japan" in words
    shown.show(FACTS[1], {})
    assert "Heads</th>" not in text(shown.side) and "0.432" in text(shown), "the maps of the fact before are gone"


def test_what_a_component_writes() -> None:
    shown = fresh()
    pin(shown.heads, [1, 2])
    pin(shown.ranked.bars, shown.ranked.bars.names[0])
    waited(shown)
    for card, component in zip(shown.side.cards, shown.pinned, strict=False):
        found = wb.writes(tiny(), component, fact=FRANCE, k=5)
        said = html.unescape(card.writes.value)
        for token in (*found.raised, *found.lowered):
            assert f">{visible(token.token)}</code></bdi> {short_number(token.value)}" in said
    shown.pinned = "L1KV1"
    waited(shown)
    assert "shared by L1H3" in shown.side.cards[0].writes.value and shown.error is None and not shown.message


def test_another_fact_has_another_attention() -> None:
    shown = fresh()
    pin(shown.heads, [1, 2])
    waited(shown)
    shown.show(FACTS[1], {})
    waited(shown)
    weights, prompt = attention_patterns(tiny(), FACTS[1])
    card = shown.side.cards[0]
    assert card.component == Component(1, "H", 2) and "Italy" in " ".join(card.grid.cols)
    assert card.grid.values == pytest.approx(weights[1, 2, prompt.subject[0] :].numpy())
    assert Selection(shown.pinned) == Selection("L1H2")
    found = wb.writes(tiny(), "L1H2", fact=FACTS[1], k=5).raised[0]
    assert short_number(found.value) in card.writes.value


def test_a_query_is_no_pick() -> None:
    """The chosen row is framed and named; no cell of it counts as selected, here and in a saved page."""
    shown = fresh()
    pin(shown.heads, [1, 2])
    waited(shown)
    grid = shown.side.cards[0].grid
    assert grid.row_kind == "query" and shown.heads.row_kind == ""
    saved = heat_map_of({**grid.get_state(), "data": bytes(grid.data)})
    assert saved is not None and saved.status == f"query: {grid.rows[grid.selected[0][0]]}"
    drawn = heat_map_svg(saved, "attention")
    assert drawn.count('class="wbm-picked"') == 1 and "wbm-dot" not in drawn and "selected" not in saved.status


def test_a_column_without_anything_in_it_is_left_out() -> None:
    maps = ready()
    without = values_markup(Component(1, "H", 2), {"heads": maps["heads"]}, {"Japan": 0.5})
    assert "Japan" in without and "largest at" not in without and without.count("<td>") == 2
    assert "largest at" in values_markup(Component(1, "H", 2), {"heads": maps["heads"], "attn": maps["attn"]})


def test_what_is_pinned_stands_right_below_the_maps() -> None:
    shown = fresh()
    places = [shown.children.index(part) for part in (shown.side, shown.ablation, shown.lens)]
    assert places == sorted(places)
