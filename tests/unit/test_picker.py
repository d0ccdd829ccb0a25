"""CircuitPicker through the browser's messages: the grids, the chips, `.selection` and `.code` always agree."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from tests.tiny import tiny_llama
from tests.tiny_facts import capital, capitals, knowing
from tests.wire import click, enter
from workbench.models import LoadedModel
from workbench.tracing.ablation import attention_patterns
from workbench.types import Component, EffectMap, Fact, FactSet, Selection
from workbench.widgets import maps
from workbench.widgets.maps import MAPS, TITLES, MapName, Sources, left_out
from workbench.widgets.picker import EXACTLY, CircuitPicker

FACTS = capitals()
FRANCE = FACTS[0]
LONELY = capital("Spain", "Madrid", "Rome", id="lonely", relation="own")  # known, but alone in its relation


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), FACTS)


@lru_cache
def ready() -> dict[str, EffectMap]:
    """Real maps, computed once."""
    made = Sources(tiny(), (FRANCE,), "swap", None, FACTS)
    return {name: made.compute(name) for name in MAPS}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def fresh(maps: dict[str, EffectMap] | None = None, **options: Any) -> CircuitPicker:
    """A picker with maps that are there at once."""
    shown = CircuitPicker(tiny(), FRANCE, **{"pool": FACTS, "compute": False, **options})
    shown.show(FRANCE, ready() if maps is None else maps)
    return shown


def pick(grid: Any, *cells: list[int]) -> None:
    """The browser asks for these cells to be selected, with the cursor on the last one."""
    enter(grid, picked=sorted(cells), seq=grid.ack + 1, **({"cursor": cells[-1]} if cells else {}))


def cursor(grid: Any) -> Any:
    return grid.cursor


def pattern(shown: Any) -> Any:
    """The attention pattern in the heads' tooltip."""
    return shown.heads.pattern


def names(selection: object) -> str:
    return str(selection)


def sent(shown: CircuitPicker, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The states that Python sends to the browser meanwhile."""
    from ipywidgets import Widget

    states: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(Widget, "_send", lambda self, msg, buffers=None: states.append((self, msg, buffers)))
        action()
    return states


def consistent(shown: CircuitPicker) -> None:
    """Every grid marks exactly what `.selection` holds, and the bar, the chips and the code say the same."""
    chosen = set(shown.selection)
    assert list(shown.selection) == list(shown.bar.selection)
    assert [c.description[:-2] for c in shown.bar._chips if c.layout.display != "none"] == [
        str(c) for c in list(shown.selection)[:24]
    ]
    assert {(0, i, j) for i, j in shown.heads.selected} == {(0, c.layer, c.index) for c in chosen if c.kind == "H"}
    assert {i for i, _ in shown.mlps.selected} == {c.layer for c in chosen if c.kind == "MLP"}
    needed = {"resid": ("ATTN", "MLP"), "mlp": ("MLP",), "attn": ("ATTN",)}[shown._linked.trace_name]
    rows = {
        row
        for row in range(tiny().shape.n_layers)
        if all(Component(row, kind) in chosen for kind in needed)  # type: ignore[arg-type]
    }
    assert shown.trace.selected == [[row, i] for row in sorted(rows) for i in range(shown.trace.shape[1])]
    listed = [shown.neurons.descriptions[i][j] for i, j in shown.neurons.selected]
    visible = {text for row in shown.neurons.descriptions for text in row}
    assert set(listed) == {str(c) for c in chosen if str(c) in visible}
    assert eval(shown.code.rsplit("selection = ", 1)[1], {"wb": wb, **_variables(shown)}) == shown.selection


def _variables(shown: CircuitPicker) -> dict[str, EffectMap]:
    return {n if n in ("heads", "mlps", "neurons") else f"trace_{n}": m for n, m in shown.maps.items()}


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
def test_a_trace_cell_by_site(site: str, kinds: set[str]) -> None:
    shown = fresh()
    enter(shown._linked.site, index=["resid", "mlp", "attn"].index(site))
    assert shown.trace.title == f"{TITLES[site]} (swap)"  # type: ignore[index]
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
    words = shown._notes.value
    for name in ("resid", "heads", "mlps", "neurons"):
        assert f"{maps[name].clean:.3f}" in words and f"{maps[name].corrupted:.3f}" in words
        assert maps[name].method in words
    assert "swap" in words and "chat form" in words and "logit of" in words and f"{n} tokens before" in words
    layer, place = divmod(int(maps["neurons"].values.argmax()), tiny().shape.d_mlp)
    assert (shown._linked.layer.value, shown.neurons.descriptions[0][0]) == (layer, f"L{layer}N{place}")
    assert shown.neurons.values[0, 0] == maps["neurons"].values.max()


def test_an_mlp_leads_to_its_neurons_and_cursors_are_linked() -> None:
    shown = fresh()
    for layer in (0, 1, 0):
        pick(shown.mlps, [layer, 0])
        assert shown._linked.layer.value == layer
        assert all(text.startswith(f"L{layer}N") for row in shown.neurons.descriptions for text in row)
        assert f"Neurons of L{layer}" in shown.neurons.title
        assert cursor(shown.trace)[0] == layer == cursor(shown.heads)[0]
    enter(shown.heads, cursor=[1, 3])
    assert (cursor(shown.trace)[0], cursor(shown.mlps)) == (1, [1, 0])
    assert shown._linked.layer.value == 0  # only the MLPs' map leads to neurons
    enter(shown._linked.layer, index=1)
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
    click(shown.bar._buttons["Undo"])
    assert len(shown.selection) == 0 and shown.heads.selected == [] and len(seen) == 2


# The largest


@pytest.mark.parametrize("name", MAPS)
def test_top_and_threshold_are_those_of_the_map(name: MapName) -> None:
    shown, effect = fresh(), ready()[name]
    controls = shown._from
    enter(controls.map, index=MAPS.index(name))
    enter(controls.k, value=2)
    click(controls.top)
    assert list(shown.selection) == list(effect.top(2))
    assert shown.code.endswith(".top(2)\n")
    consistent(shown)
    threshold = float(effect.values.max()) * 0.5
    enter(controls.threshold, value=threshold)
    click(controls.above)
    assert list(shown.selection) == list(effect.above(threshold)) and len(shown.selection)
    assert f".above({threshold!r})\n" in shown.code
    click(shown.bar._chips[0])  # no longer what the call gives
    assert ".above(" not in shown.code
    consistent(shown)


@pytest.mark.parametrize(
    ("control", "value", "words"),
    [
        ("k", 0, "k must be a whole number from 1 to"),
        ("k", -3, "k must be"),
        ("k", 10**9, "k must be"),
        ("threshold", float("nan"), "threshold must be a finite number"),
        ("threshold", float("inf"), "threshold must be a finite number"),
        ("threshold", 1e6, "the largest is"),
    ],
)
def test_bad_numbers_are_shown_and_change_nothing(control: str, value: Any, words: str) -> None:
    shown = fresh()
    shown.selection = "L1H2"
    getattr(shown._from, control).value = value
    button = shown._from.top if control == "k" else shown._from.above
    click(button)
    assert isinstance(shown.error, ValueError) and words in str(shown.error)
    assert 'role="alert"' in shown._alert.value and words in shown._alert.value
    assert names(shown.selection) == "L1H2" and shown.heads.selected == [[1, 2]]
    shown._from.k.value, shown._from.threshold.value = 1, float(ready()["heads"].values.max())
    click(button)
    assert shown.error is None and shown._alert.value == ""
    consistent(shown)


def test_a_map_that_is_not_there_says_so() -> None:
    shown = fresh({"heads": ready()["heads"]})
    with pytest.raises(ValueError, match="not computed yet"):
        shown.top("mlps", 1)
    enter(shown._from.map, index=MAPS.index("attn"))
    click(shown._from.top)
    assert "choose its trace site above" in shown._alert.value
    with pytest.raises(ValueError, match="Unknown map"):
        shown.compute("head")  # type: ignore[arg-type]
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
    monkeypatch.setattr("workbench.widgets.selection_bar.check_selection", refuse)
    pick(shown.heads, [1, 2])
    assert "no gate here" in shown._alert.value and str(shown.error) == "no gate here"
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
            enter(shown._linked.site, index=i % 3)
        elif step == "layer":
            enter(shown._linked.layer, index=i % tiny().shape.n_layers)
        elif step in ("top", "above"):
            enter(shown._from.map, index=i % len(MAPS))
            enter(shown._from.k, value=i % 9)
            click(getattr(shown._from, step))
        elif step == "chip":
            click(shown.bar._chips[i % 24])
        elif step == "python":
            shown.selection = ["L0H1 L1MLP", "L1ATTN L1MLP", "", "L0N3 L1K1"][i % 4]
        elif step == "bad":
            enter(shown.heads, picked=[[i + 99, 0]], seq=shown.heads.ack + 1)
        else:
            click(shown.bar._buttons[step])
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


# Computing


def test_maps_are_computed_shown_and_repeated_by_the_code() -> None:
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS)
    assert shown.job is not None
    shown.job.wait(120)
    assert set(shown.maps) == {"heads", "mlps", "neurons", "resid"} and shown._status.value == ""
    enter(shown.heads, hover=[0, 1])
    assert shown.heads.pattern is not None  # computed beforehand
    shown.top("neurons", 5)
    code = shown.code.replace("model = wb.load_model('tiny')", "model = given")
    names_ = {"given": tiny()}
    exec(code, names_)
    assert list(names_["selection"]) == list(shown.selection)  # type: ignore[call-overload]
    assert len({m.prompts[0].partner for n, m in shown.maps.items() if n != "neurons"}) == 1
    for name, variable in (("heads", "heads"), ("mlps", "mlps"), ("neurons", "neurons"), ("resid", "trace_resid")):
        assert torch.equal(names_[variable].values, shown.maps[name].values)  # type: ignore[attr-defined]
    enter(shown._open, value=True)
    assert "wb.causal_trace" in shown._code.value
    shown.selection = "L1H2"
    assert "L1H2" in shown._code.value
    enter(shown._open, value=False)
    assert shown._code.value == ""


def test_several_facts_and_both_corruptions_by_their_code() -> None:
    shown = CircuitPicker(tiny(), FACTS[:2], pool=FACTS, corruption="noise", compute=False)
    shown.compute("heads", "resid").wait(120)
    exec(shown.code.replace("model = wb.load_model('tiny')", "model = given"), found := {"given": tiny()})
    assert torch.equal(found["heads"].values, shown.maps["heads"].values)  # type: ignore[attr-defined]
    traced = found["trace_resid"].values, shown.maps["resid"].values  # type: ignore[attr-defined]
    assert torch.equal(*(values.nan_to_num(nan=99.0) for values in traced))  # roles that no text has are NaN
    assert "means over 2 facts" in shown._notes.value and "noise" in shown._notes.value
    enter(shown.heads, hover=[0, 0])
    assert "standard error" in shown.heads.tip and shown.heads.pattern is None
    assert shown.fact == list(FACTS[:2])


def test_a_fact_without_a_partner_says_how_to_go_on_and_noise_does() -> None:
    shown = CircuitPicker(tiny(), LONELY, pool=FACTS)
    assert shown.job is not None
    with pytest.raises(ValueError, match="corruption='noise'"):
        shown.job.wait(120)
    assert isinstance(shown.error, ValueError)
    assert shown._alert.value.count("No fact of the relation") == 1  # once for all the maps
    assert "Heads, MLPs, Trace: residual stream" in shown._alert.value and "press Noise" in shown._alert.value
    assert shown.heads.title == "Heads: failed, see above"
    assert set(shown.maps) == {"neurons"}  # which need no partner
    pick(shown.neurons, [0, 0])
    assert "press Noise" in shown._alert.value  # a pick does not hide it
    enter(shown._corruption, index=1)
    shown.job.wait(120)
    assert shown.corruption == "noise" and set(shown.maps) == {"heads", "mlps", "neurons", "resid"}
    assert shown.error is None and shown._alert.value == "" and shown.heads.title == "Heads (patching)"
    assert len(shown.selection) == 1
    with pytest.raises(ValueError, match="corruption must be"):
        shown.corruption = "blur"  # type: ignore[assignment]


def test_exact_effects_take_the_place_of_the_estimates() -> None:
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    seen: list[str] = []
    shown.heads.observe(lambda change: seen.append(change["new"]), names="title")
    shown.compute("heads", "mlps").wait(120)
    assert [title for title in seen if "(" in title] == ["Heads (attribution)", "Heads (patching)"]
    partner = shown._sources.partner
    for name, unit in (("heads", "head"), ("mlps", "mlp")):
        options: dict[str, Any] = {"corruption": "swap", "partner": partner, "pool": FACTS, "progress": False}
        exact = wb.attribute(tiny(), FRANCE, unit, method="patching", **options)  # type: ignore[call-overload]
        assert torch.equal(shown.maps[name].values, exact.values)
    exec(shown.code.replace("model = wb.load_model('tiny')", "model = given"), found := {"given": tiny()})
    assert torch.equal(found["heads"].values, shown.maps["heads"].values)  # type: ignore[attr-defined]
    several = CircuitPicker(tiny(), FACTS[:2], pool=FACTS, corruption="noise", compute=False)
    several.compute("heads").wait(120)
    assert several.maps["heads"].method == "attribution"


def test_a_choice_from_an_estimate_stays_when_exact_effects_come() -> None:
    """The code no longer says ``heads.top(3)``, which would be other heads now."""
    shown = fresh()
    shown.top("heads", 3)
    chosen = names(shown.selection)
    assert "heads.top(3)" in shown.code
    exact = replace(ready()["heads"], values=-ready()["heads"].values, method="patching")
    shown._computed(EXACTLY["heads"], exact)
    assert shown.maps["heads"] is exact and names(shown.selection) == chosen
    assert "heads.top(3)" not in shown.code and "method='patching'" in shown.code
    consistent(shown)


def test_a_trace_is_drawn_as_its_layers_are_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, go, drawn = ready()["resid"], threading.Semaphore(0), threading.Semaphore(0)

    def slowly(sources: Sources, name: MapName, *, on_layer: Any = None, **options: Any) -> EffectMap:
        for layer in range(2):
            on_layer("resid", layer, whole.values[layer])
            drawn.release()
            assert go.acquire(timeout=30)
        return whole

    monkeypatch.setattr(Sources, "compute", slowly)
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    shown.selection = "L1ATTN L1MLP"
    job, start = shown.compute("resid"), left_out(whole)
    for done in (1, 2):
        assert drawn.acquire(timeout=30)
        values = torch.tensor(shown.trace.values)
        assert torch.equal(values[:done], whole.values[:done, start:].float())
        assert bool(values[done:].isnan().all())
        assert shown.trace.title == f"Trace: residual stream: {done} of 3 layers"
        assert shown.trace.selected == [[1, i] for i in range(shown.trace.shape[1])]
        assert "resid" not in shown.maps and "trace_resid" not in shown.code
        go.release()
    job.wait(30)
    assert torch.equal(torch.tensor(shown.trace.values), whole.values[:, start:].float())
    assert shown.trace.title == "Trace: residual stream (swap)"
    consistent(shown)


def test_the_bundled_facts_as_pool_need_no_code() -> None:
    for pool, written in ((None, False), (wb.load_facts(), False), (FACTS, True)):
        shown = fresh(pool=pool)
        assert ("pool=pool" in shown.code) == ("\npool = " in shown.code) == written


class Held:
    """In place of the computation: each map waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.calls = threading.Semaphore(0), []
        self.fail: set[str] = set()
        monkeypatch.setattr(Sources, "compute", lambda sources, name, **options: self(sources, name))
        monkeypatch.setattr(maps, "EXACT_CELLS", 0)

    def __call__(self, sources: Sources, name: MapName) -> EffectMap:
        self.calls.append((sources.facts[0].id, name))
        assert self.go.acquire(timeout=30)
        if name in self.fail:
            raise RuntimeError(f"{name} <b>broke</b>")
        return ready()[name]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    ready()
    held = Held(monkeypatch)
    yield held
    held.go.release(100)


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "this never came true"
        time.sleep(0.005)


def test_the_fact_changes_while_maps_are_computed(held: Held) -> None:
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    job = shown.compute("mlps", "resid")
    until(lambda: held.calls == [("france-capital", "mlps")])
    assert "Computing: mlps" in shown._status.value and shown.mlps.title == "MLPs: computing"
    assert shown.trace.title.endswith(": waiting")
    shown.selection = "L1H2"
    shown._eager = True
    shown.fact = FACTS[1]
    held.fail = {"mlps"}
    held.go.release()  # of the fact before: neither its result nor its error is of interest
    until(lambda: len(held.calls) == 2)
    assert held.calls[1:] == [("italy-capital", "mlps")] and shown.maps == {} and shown.error is None
    held.fail = set()
    held.go.release(2)
    job.wait(30)  # the same job has taken up the other fact
    assert set(shown.maps) == {"mlps", "resid"} and names(shown.selection) == "L1H2"
    assert "Italy" in shown._heading.value
    consistent(shown)


def test_a_failing_map_is_named_and_the_others_are_computed(held: Held) -> None:
    held.fail = {"mlps"}
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    job = shown.compute("mlps", "resid")
    held.go.release(2)
    with pytest.raises(RuntimeError, match="broke"):
        job.wait(30)
    assert set(shown.maps) == {"resid"} and isinstance(shown.error, RuntimeError)
    assert "MLPs: mlps &lt;b&gt;broke" in shown._alert.value and 'role="alert"' in shown._alert.value
    held.fail = set()
    held.go.release()
    shown.compute("mlps").wait(30)
    assert set(shown.maps) == {"mlps", "resid"} and shown.error is None and shown._alert.value == ""


def test_asking_while_it_computes_and_after(held: Held) -> None:
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    assert shown.job is None
    first = shown.compute("mlps")
    assert shown.compute("mlps", "resid") is first
    enter(shown._linked.site, index=2)  # attention: asked for by showing it
    assert shown.job is first
    held.go.release(3)
    first.wait(30)
    assert [name for _, name in held.calls] == ["mlps", "resid", "attn"]
    assert shown.trace.title == "Trace: attention output (swap)"
    held.go.release()
    second = shown.compute("mlp")
    assert second is not first
    second.wait(30)
    assert "mlp" in shown.maps


def test_maps_of_a_session_take_the_place_of_those_being_computed(held: Held) -> None:
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    job = shown.compute("mlps", "resid")
    until(lambda: held.calls)
    shown.show(FRANCE, {"heads": ready()["heads"]})
    held.go.release(2)
    job.wait(30)
    assert set(shown.maps) == {"heads"} and len(held.calls) == 1 and shown._status.value == ""


# As a panel


def test_what_comes_from_a_fact_is_escaped() -> None:
    bad = "<img src=x onerror=alert(1)>"
    fact = Fact(subject="x", prompt=f"{bad} x is", question=f"{bad} x?", answer=bad, target="Rome", id=bad)
    shown = CircuitPicker(tiny(), fact, compute=False)
    shown.show(fact, ready())
    shown._say(ValueError(bad))
    enter(shown._open, value=True)
    for area in (shown._heading, shown._notes, shown._alert, shown._code, shown._status):
        assert "<img" not in area.value
    assert "&lt;img" in shown._heading.value and "&lt;img" in shown._alert.value


def test_it_shows_as_text_and_picture_and_needs_a_fact() -> None:
    shown = fresh()
    shown.selection = "L1H2"
    bundle = shown._repr_mimebundle_()
    assert bundle["text/plain"] == "CircuitPicker(france-capital: 1 selected)" == repr(shown)
    assert "image/png" in bundle and "application/vnd.jupyter.widget-view+json" in bundle
    assert shown.snapshot().data.startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="at least one fact"):
        CircuitPicker(tiny(), [])
    many = CircuitPicker(tiny(), FactSet([*FACTS]), compute=False)
    assert repr(many) == "CircuitPicker(france-capital, italy-capital, spain-capital and 2 more: 0 selected)"


def test_the_model_stays_as_it_is() -> None:
    before = tiny().fingerprint
    shown = CircuitPicker(tiny(), FRANCE, pool=FACTS, compute=False)
    shown.compute("heads", "mlps").wait(60)
    assert tiny().fingerprint == before and not any(p.grad is not None for p in tiny().hf.parameters())


def test_an_edited_model_is_not_taken_for_its_base() -> None:
    from tests.tiny_facts import edit_of, some_gates

    with wb.applied(tiny(), edit_of(tiny(), some_gates(tiny(), (1, "post")))) as edited:
        shown = CircuitPicker(edited, FRANCE, pool=FACTS, compute=False)
        assert "load_model" not in shown.code and "edited model" in shown.code
        compile(shown.code, "code", "exec")
