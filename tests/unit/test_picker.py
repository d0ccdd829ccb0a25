"""CircuitPicker through the browser's messages: the grids, the chips, `.selection` and `.code` always agree."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ipywidgets import HTML

import workbench as wb
from tests.helpers.panels import code_block, control, descendants
from tests.helpers.panels import shown as text
from tests.helpers.pickers import FACTS, FRANCE, consistent, fresh, names, pick, ready, tiny
from tests.helpers.pictures import data_of
from tests.helpers.wire import click, enter
from workbench.plots.style import short_number, visible
from workbench.tracing.attention import attention_patterns
from workbench.types import Fact, FactSet, Selection
from workbench.widgets.picker.maps import MAPS, TITLES, left_out
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.picker.ranked_list import RANKED
from workbench.widgets.picker.selection_bar import CHIPS


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def cursor(grid: Any) -> Any:
    return grid.cursor


def choose(shown: CircuitPicker, name: str) -> None:
    """The browser chooses a map for the list."""
    enter(control(shown, "Ranked"), index=RANKED.index(name))


def toggle(bars: Any, name: str) -> None:
    """The browser asks for a name of a list to be selected, or not."""
    rest = [other for other in bars.selected if other != name]
    enter(bars, picked=rest if name in bars.selected else [*rest, name], seq=bars.ack + 1)


def pattern(shown: Any) -> Any:
    """The attention pattern in the heads' tooltip."""
    return shown.heads.pattern


def sent(shown: CircuitPicker, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The states that Python sends to the browser meanwhile."""
    from ipywidgets import Widget

    states: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(Widget, "_send", lambda self, msg, buffers=None: states.append((self, msg, buffers)))
        action()
    return states


# Picks


def test_a_cell_of_each_map_stands_for_its_components() -> None:
    shown = fresh()
    pick(shown.heads, [1, 2])
    assert names(shown.selection) == "L1H2"
    pick(shown.mlps, [0, 0])
    assert names(shown.selection) == "L1H2 L0MLP"
    pick(shown.trace, [0, 1])  # the residual stream entering layer 0: its MLP is there already
    assert set(shown.selection) == set(Selection("L1H2 L0MLP L0ATTN"))
    assert {row for row, _ in shown.trace.selected} == {0} and len(shown.trace.selected) == shown.trace.shape[1]
    pick(shown.trace, *[c for c in shown.trace.selected if c != [0, 2]])  # any cell of the row takes the row away
    assert names(shown.selection) == "L1H2" and shown.trace.selected == [] == shown.mlps.selected
    choose(shown, "neurons")
    first = shown.ranked.bars.names[0]
    toggle(shown.ranked.bars, first)
    assert names(shown.selection) == f"L1H2 {first}"
    layer, place = divmod(int(ready()["neurons"].values.abs().argmax()), tiny().shape.d_mlp)
    assert first == f"L{layer}N{place}"
    consistent(shown)


@pytest.mark.parametrize(("site", "kinds"), [("mlp", {"MLP"}), ("attn", {"ATTN"}), ("resid", {"ATTN", "MLP"})])
def test_a_trace_cell_by_site(site: Literal["resid", "mlp", "attn"], kinds: set[str]) -> None:
    shown = fresh()
    enter(control(shown, "Trace site"), index=["resid", "mlp", "attn"].index(site))
    assert shown.trace.title == f"{TITLES[site]} (swap)"
    pick(shown.trace, [1, 0])
    assert {(c.layer, c.kind) for c in shown.selection} == {(1, kind) for kind in kinds}
    consistent(shown)


def test_values_labels_and_words_are_those_of_the_maps() -> None:
    shown = fresh()
    maps = ready()
    n = left_out(maps["resid"])
    assert n > 0 and not maps["resid"].values[:, :n].any()
    assert torch.equal(torch.tensor(shown.trace.values), maps["resid"].values[:, n:])
    assert torch.equal(torch.tensor(shown.heads.values), maps["heads"].values)
    assert torch.equal(torch.tensor(shown.mlps.values[:, 0]), maps["mlps"].values)
    assert len(shown.trace.cols) == maps["resid"].values.shape[1] - n
    assert shown.trace.marked == [i - n for i in maps["resid"].subject] and "France" in shown.trace.cols[0]
    assert shown.heads.groups == [0, tiny().shape.n_heads // tiny().shape.n_kv_heads]
    assert shown.trace.unit == shown.heads.unit == "recovery"
    words = text(shown)
    for name in ("resid", "heads", "mlps", "neurons"):
        assert short_number(maps[name].clean) in words and short_number(maps[name].corrupted) in words
        assert maps[name].method in words
    assert "chat form" in words and "logit of" in words and f"{n} tokens before" in words
    partner = maps["heads"].prompts[0].other_token
    assert f"Recovery of Paris over {partner}: 0 corrupted, 1 clean; swap with " in words


def test_without_maps_no_grid_keeps_the_labels_of_another_fact() -> None:
    shown = fresh()
    pick(shown.trace, [0, 1])
    shown.show(FACTS[2], {})
    assert set(shown.trace.cols) == {"…"} and not shown.trace.marked
    assert shown.ranked.bars.names == [] and shown.ranked.bars.title == "Heads: not computed"
    consistent(shown)
    shown.show(FRANCE, ready())
    assert "France" in shown.trace.cols[0] and shown.ranked.bars.names[0].startswith("L")


def test_cursors_are_linked() -> None:
    shown = fresh()
    for layer in (0, 1, 0):
        pick(shown.mlps, [layer, 0])
        assert cursor(shown.trace)[0] == layer == cursor(shown.heads)[0]
    enter(shown.heads, cursor=[1, 3])
    assert (cursor(shown.trace)[0], cursor(shown.mlps)) == (1, [1, 0])


def test_python_sets_the_selection() -> None:
    shown = fresh()
    seen: list[Any] = []
    shown.observe(lambda change: seen.append(change["new"]), "selection")
    shown.selection = "L1H2 L0MLP L0ATTN"
    consistent(shown)
    assert seen == [Selection("L1H2 L0MLP L0ATTN")] and shown.heads.selected == [[1, 2]]
    for wrong in ("L1H9", "nonsense", "L7MLP"):
        with pytest.raises(ValueError, match=wrong):
            shown.selection = wrong
        consistent(shown)
    assert len(seen) == 1
    click(control(shown, "Undo"))
    assert len(shown.selection) == 0 and shown.heads.selected == [] and len(seen) == 2


# Bad messages from the browser


@pytest.mark.parametrize("cells", [[[0, 99]], [[-1, 0]], "x", [[0, 0], [0, 0]], [[0.5, 1]], None, [[0]] * 10**5])
def test_a_bad_pick_changes_nothing(cells: Any) -> None:
    shown = fresh()
    shown.selection = "L1H2"
    enter(shown.heads, picked=cells, seq=7)
    assert isinstance(shown.heads.error, Exception) and shown.heads.ack == 7
    consistent(shown)
    assert names(shown.selection) == "L1H2"


def test_a_pick_that_cannot_be_taken_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: Any, selection: Any) -> None:
        raise ValueError("no gate here")

    shown = fresh()
    monkeypatch.setattr("workbench.widgets.picker.selection_bar.check_selection", refuse)
    pick(shown.heads, [1, 2])
    assert "no gate here" in shown.message and str(shown.error) == "no gate here"
    assert shown.heads.selected == [] and len(shown.selection) == 0


STEPS = st.one_of(
    st.tuples(st.sampled_from(["trace", "heads", "mlps", "ranked"]), st.integers(0, 500), st.integers(0, 500)),
    st.tuples(st.just("box"), st.integers(0, 500), st.integers(0, 500)),
    st.tuples(
        st.sampled_from(["site", "layer", "top", "above", "chip", "python", "bad"]),
        st.integers(0, 500),
        st.integers(0, 500),
    ),
    st.tuples(st.sampled_from(["Undo", "Redo", "Clear", "Invert", "Random control"]), st.just(0), st.just(0)),
)


@settings(max_examples=500)
@given(st.lists(STEPS, min_size=1, max_size=12))
def test_after_any_interactions_python_and_the_grids_agree(steps: list[tuple[str, int, int]]) -> None:
    shown = shared()
    shown.bar.clear()
    for step, i, j in steps:
        if step == "ranked":
            toggle(shown.ranked.bars, shown.ranked.bars.names[i % len(shown.ranked.bars.names)])
        elif step in ("trace", "heads", "mlps"):
            grid = getattr(shown, step)
            cell = [i % grid.shape[0], j % grid.shape[1]]
            rest = [c for c in grid.selected if c != cell]
            pick(grid, *(rest if cell in grid.selected else [*rest, cell]))
        elif step == "box":
            rows, columns = shown.heads.shape
            box = [[r, c] for r in range(i % rows + 1) for c in range(j % columns + 1)]
            pick(shown.heads, *box, *[c for c in shown.heads.selected if c not in box])
        elif step == "site":
            enter(control(shown, "Trace site"), index=i % 3)
        elif step == "layer":
            enter(control(shown, "Ranked"), index=i % len(RANKED))
            enter(control(shown, "of"), index=j % (tiny().shape.n_layers + 1))
        elif step in ("top", "above"):
            enter(control(shown, "Select from"), index=i % len(MAPS))
            enter(control(shown, "top k"), value=i % 9)
            enter(control(shown, "to what is picked"), index=j % 2)
            click(control(shown, {"top": "Select top k", "above": "Select above"}[step]))
        elif step == "chip":
            click(shown.bar.chips[i % CHIPS])
        elif step == "python":
            shown.selection = ["L0H1 L1MLP", "L1ATTN L1MLP", "", "L0N3 L1K1"][i % 4]
        elif step == "bad":
            enter(shown.heads, picked=[[i + 99, 0]], seq=shown.heads.ack + 1)
        else:
            click(control(shown, step))
        consistent(shown)


@lru_cache
def shared() -> CircuitPicker:
    return fresh()


def test_a_click_is_a_few_small_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = fresh()
    shown.selection = "L0H1"
    states = sent(shown, lambda: pick(shown.heads, [0, 1], [1, 2]), monkeypatch)
    assert len(states) <= 8, [(type(w).__name__, m.get("state", {}).keys()) for w, m, _ in states]
    assert not any("data" in m.get("state", {}) for _, m, _ in states)  # no map is sent again
    assert sum(len(repr(m)) for _, m, _ in states) < 3000


# The tooltip


def test_pointing_at_a_head_shows_where_it_attends() -> None:
    shown = fresh()
    weights, prompt = attention_patterns(tiny(), FRANCE)
    enter(shown.heads, hover=[1, 2])  # these maps came without patterns: made when they are asked for
    assert shown.job is not None
    shown.job.wait(60)
    assert shown.heads.tip_for == [1, 2] and "attends" in shown.heads.tip
    largest = sorted(weights[1, 2, -1].topk(5).indices.tolist())  # in the prompt's order
    assert pattern(shown)["tokens"] == [visible(prompt.tokens[i]) for i in largest]
    assert pattern(shown)["weights"] == pytest.approx([float(weights[1, 2, -1, i]) for i in largest])
    enter(shown.heads, hover=[0, 3])
    assert max(pattern(shown)["weights"]) == pytest.approx(float(weights[0, 3, -1].max()))
    enter(shown.heads, hover=None)
    assert shown.error is None


# As a panel


def test_what_comes_from_a_fact_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: Any, selection: Any) -> None:
        raise ValueError(bad)

    bad = "<img src=x onerror=alert(1)>"
    fact = Fact(subject="x", prompt=f"{bad} x is", question=f"{bad} x?", answer=bad, target="Rome", id=bad)
    shown = CircuitPicker(tiny(), fact, compute=False)
    shown.show(fact, ready())
    monkeypatch.setattr("workbench.widgets.picker.selection_bar.check_selection", refuse)
    pick(shown.heads, [1, 2])
    enter(code_block(shown), opened=True)
    assert "wb.Fact(" in code_block(shown).source  # the browser puts it in as text
    assert bad in shown.message and bad not in text(shown)
    for words in ('class="wb-title"', 'role="alert"'):  # heading, alert
        (area,) = (w.value for w in descendants(shown) if isinstance(w, HTML) and words in w.value)
        assert "&lt;img" in area


def test_it_shows_as_text_and_picture_and_needs_a_fact() -> None:
    shown = fresh()
    shown.selection = "L1H2"
    bundle = shown._repr_mimebundle_()
    assert bundle["text/plain"] == "CircuitPicker(france-capital: 1 selected)" == repr(shown)
    assert "image/png" in bundle and "application/vnd.jupyter.widget-view+json" in bundle
    assert data_of(shown.snapshot())
    with pytest.raises(ValueError, match="at least one fact"):
        CircuitPicker(tiny(), [])
    many = CircuitPicker(tiny(), FactSet([*FACTS]), compute=False)
    assert repr(many) == "CircuitPicker(france-capital, italy-capital, spain-capital and 2 more: 0 selected)"


def test_the_bundled_facts_as_pool_need_no_code() -> None:
    for pool, written in ((None, False), (wb.load_facts(), False), (FACTS, True)):
        shown = fresh(pool=pool)
        assert ("pool=pool" in shown.code) == ("\npool = " in shown.code) == written


def test_an_edited_model_is_not_taken_for_its_base() -> None:
    from tests.helpers.tiny_facts import edit_of, some_gates

    with wb.applied(tiny(), edit_of(tiny(), some_gates(tiny(), (1, "post")))) as edited:
        shown = CircuitPicker(edited, FRANCE, pool=FACTS, compute=False)
        assert "load_model" not in shown.code and "edited model" in shown.code
        compile(shown.code, "code", "exec")
