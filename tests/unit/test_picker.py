"""CircuitPicker through the browser's messages: the grids, the chips, `.selection` and `.code` always agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ipywidgets import HTML

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.panels import code_block, control, descendants, own
from tests.helpers.panels import shown as text
from tests.helpers.pickers import FACTS, FRANCE, consistent, fresh, names, pick, ready, tiny
from tests.helpers.pictures import data_of
from tests.helpers.wire import click, enter
from workbench.tracing.ablation import attention_patterns
from workbench.tracing.causal import TraceSite
from workbench.types import Fact, FactSet, Selection
from workbench.widgets.picker.maps import MAPS, TITLES, MapName, Sources, left_out
from workbench.widgets.picker.picker import CircuitPicker


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def cursor(grid: Any) -> Any:
    return grid.cursor


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
    first = shown.neurons.descriptions[0][0]
    pick(shown.neurons, [0, 0])
    assert names(shown.selection) == f"L1H2 {first}"
    assert first == f"L0N{int(ready()['neurons'].values[0].argmax())}"  # the MLP that was picked last
    consistent(shown)


@pytest.mark.parametrize(("site", "kinds"), [("mlp", {"MLP"}), ("attn", {"ATTN"}), ("resid", {"ATTN", "MLP"})])
def test_a_trace_cell_by_site(site: TraceSite, kinds: set[str]) -> None:
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
    assert shown.heads.groups == [tiny().shape.n_heads // tiny().shape.n_kv_heads]
    assert shown.trace.unit == shown.heads.unit == "logits"
    words = text(shown)
    for name in ("resid", "heads", "mlps", "neurons"):
        assert f"{maps[name].clean:.3f}" in words and f"{maps[name].corrupted:.3f}" in words
        assert maps[name].method in words
    assert "swap" in words and "chat form" in words and "logit of" in words and f"{n} tokens before" in words
    layer, place = divmod(int(maps["neurons"].values.argmax()), tiny().shape.d_mlp)
    assert (control(shown, "Neurons of").value, shown.neurons.descriptions[0][0]) == (layer, f"L{layer}N{place}")
    assert shown.neurons.values[0, 0] == maps["neurons"].values.max()


def test_each_map_says_what_it_measures_and_how_it_was_corrupted() -> None:
    words = text(fresh())
    assert "corrupted by a swap with" in words
    assert f"{TITLES['neurons']}: logit of" in words
    assert "Rome" in words and "corrupted by noise." in words, "the neurons' own, answer minus target"
    assert "attribution minus its mean over control facts" in words
    plain = replace(ready()["neurons"], method="attribution")
    assert "minus its mean" not in text(fresh({"neurons": plain})), "there were no controls to subtract"


def test_maps_made_with_noise_are_gone_on_with_in_noise() -> None:
    made = Sources(tiny(), (FRANCE,), "noise", None, FACTS)
    maps = {"heads": made.compute("heads"), "resid": made.compute("resid")}
    shown = fresh(maps)
    assert shown.corruption == control(shown, "Corrupt by").value == "noise"
    assert "corruption='noise'" in shown.code and "swap" not in shown.code
    assert "corrupted by noise" in text(shown)
    shown.show(FRANCE, ready())
    assert shown.corruption == control(shown, "Corrupt by").value == "swap" and "partner=partner" in shown.code


def test_without_maps_no_grid_keeps_the_labels_of_another_fact() -> None:
    shown = fresh()
    pick(shown.trace, [0, 1])
    shown.show(FACTS[2], {})
    assert set(shown.trace.cols) == {"…"} and not shown.trace.marked
    assert {text for row in shown.neurons.descriptions for text in row} == {"…"}
    consistent(shown)
    shown.show(FRANCE, ready())
    assert "France" in shown.trace.cols[0] and shown.neurons.descriptions[0][0].startswith("L")


def test_an_mlp_leads_to_its_neurons_and_cursors_are_linked() -> None:
    shown = fresh()
    for layer in (0, 1, 0):
        pick(shown.mlps, [layer, 0])
        assert control(shown, "Neurons of").value == layer
        assert all(text.startswith(f"L{layer}N") for row in shown.neurons.descriptions for text in row)
        assert f"Neurons of L{layer}" in shown.neurons.title
        assert cursor(shown.trace)[0] == layer == cursor(shown.heads)[0]
    enter(shown.heads, cursor=[1, 3])
    assert (cursor(shown.trace)[0], cursor(shown.mlps)) == (1, [1, 0])
    assert control(shown, "Neurons of").value == 0  # only the MLPs' map leads to neurons
    enter(control(shown, "Neurons of"), index=1)
    assert "Neurons of L1" in shown.neurons.title


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


# The largest


@pytest.mark.parametrize("name", MAPS)
def test_top_and_threshold_are_those_of_the_map(name: MapName) -> None:
    shown, effect = fresh(), ready()[name]
    enter(control(shown, "Select from"), index=MAPS.index(name))
    enter(control(shown, "top k"), value=2)
    click(control(shown, "Select top k"))
    assert list(shown.selection) == list(effect.top(2))
    assert shown.code.endswith(".top(2)\n")
    consistent(shown)
    threshold = float(effect.values.max()) * 0.5
    enter(control(shown, "at least"), value=threshold)
    click(control(shown, "Select above"))
    assert list(shown.selection) == list(effect.above(threshold)) and len(shown.selection)
    assert f".above({threshold!r})\n" in shown.code
    click(shown.bar.chips[0])  # no longer what the call gives
    assert ".above(" not in shown.code
    consistent(shown)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("top k", 0, "k must be a whole number from 1 to"),
        ("top k", -3, "k must be"),
        ("top k", 10**9, "k must be"),
        ("at least", float("nan"), "threshold must be a finite number"),
        ("at least", float("inf"), "threshold must be a finite number"),
        ("at least", 1e6, "the largest is"),
    ],
)
def test_bad_numbers_are_shown_and_change_nothing(name: str, value: Any, words: str) -> None:
    shown = fresh()
    shown.selection = "L1H2"
    control(shown, name).value = value
    button = control(shown, "Select top k" if name == "top k" else "Select above")
    click(button)
    assert isinstance(shown.error, ValueError) and words in str(shown.error)
    assert 'role="alert"' in own(shown) and words in shown.message
    assert names(shown.selection) == "L1H2" and shown.heads.selected == [[1, 2]]
    control(shown, "top k").value, control(shown, "at least").value = 1, float(ready()["heads"].values.max())
    click(button)
    assert shown.error is None and shown.message == ""
    consistent(shown)


def test_a_map_that_is_not_there_says_so() -> None:
    shown = fresh({"heads": ready()["heads"]})
    with pytest.raises(ValueError, match="not computed yet"):
        shown.top("mlps", 1)
    enter(control(shown, "Select from"), index=MAPS.index("attn"))
    click(control(shown, "Select top k"))
    assert "choose its trace site above" in shown.message
    with pytest.raises(ValueError, match="Unknown map"):
        shown.compute(mistyped("head"))
    assert shown.mlps.title == "MLPs: not computed"


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
    st.tuples(st.sampled_from(["trace", "heads", "mlps", "neurons"]), st.integers(0, 500), st.integers(0, 500)),
    st.tuples(st.just("box"), st.integers(0, 500), st.integers(0, 500)),
    st.tuples(
        st.sampled_from(["site", "layer", "top", "above", "chip", "python", "bad"]), st.integers(0, 500), st.just(0)
    ),
    st.tuples(st.sampled_from(["Undo", "Redo", "Clear", "Invert", "Random control"]), st.just(0), st.just(0)),
)


@settings(max_examples=500)
@given(st.lists(STEPS, min_size=1, max_size=12))
def test_after_any_interactions_python_and_the_grids_agree(steps: list[tuple[str, int, int]]) -> None:
    shown = shared()
    shown.bar.clear()
    for step, i, j in steps:
        if step in ("trace", "heads", "mlps", "neurons"):
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
            enter(control(shown, "Neurons of"), index=i % tiny().shape.n_layers)
        elif step in ("top", "above"):
            enter(control(shown, "Select from"), index=i % len(MAPS))
            enter(control(shown, "top k"), value=i % 9)
            click(control(shown, {"top": "Select top k", "above": "Select above"}[step]))
        elif step == "chip":
            click(shown.bar.chips[i % 24])
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
    assert pattern(shown)["tokens"] == list(prompt.tokens)
    assert pattern(shown)["weights"] == pytest.approx(weights[1, 2, -1].tolist())
    enter(shown.heads, hover=[0, 3])
    assert pattern(shown)["weights"] == pytest.approx(weights[0, 3, -1].tolist())
    enter(shown.trace, hover=[1, 0])
    assert shown.trace.tip == "A click selects L1ATTN L1MLP"
    enter(shown.heads, hover=None)
    enter(shown.neurons, hover=[0, 0])
    assert shown.error is None and shown.neurons.error is None


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
