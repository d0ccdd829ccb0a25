"""Cones against plain forward passes of the whole text, over shapes, families, sites, windows and batches."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tests.helpers.cones import HEADS, MAKERS, N_LAYERS, check_cells, found, made, mixed, slow, texts
from tests.helpers.tiny import N_VOCAB, loaded, tiny_llama, tiny_phi3
from tests.helpers.tiny_facts import capitals, knowing
from workbench.models.layerwise import Layerwise
from workbench.models.load import LoadedModel
from workbench.tracing import memory, restore
from workbench.tracing.attribution import AttributionUnit, Method, attribute
from workbench.tracing.causal import TraceSite, causal_trace
from workbench.tracing.cone import Cone
from workbench.tracing.memory import free_memory
from workbench.tracing.packed import Unsupported
from workbench.tracing.restoration import Restoration, cone_tokens
from workbench.tracing.restore import LEAST_ROWS, ROWS, default_rows, effects
from workbench.tracing.self_check import require

SHAPE = {"layers": 5, "groups": 3, "heads a group": 4}


@pytest.fixture(autouse=True)
def no_way_round(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No plain path in these tests, unless they ask for it."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    if "plainly" not in request.node.name:
        monkeypatch.setattr(restore, "plain_effects", lambda *a: pytest.fail("the plain path was taken"))


@st.composite
def problems(
    draw: st.DrawFn, layers: int = N_LAYERS, heads: int = HEADS
) -> tuple[int, int, int, list[Restoration], Any]:
    """Tokens, first corrupted one, samples, cells, and the most rows at once."""
    tokens = draw(st.integers(1, 8))
    start = draw(st.integers(0, tokens - 1))
    position = st.integers(0, tokens - start - 1)
    layer = st.integers(0, layers - 1)

    def window(ends: tuple[int, int]) -> range:
        return range(min(ends), max(ends) + 1)

    cells = st.one_of(
        st.builds(lambda at, p: Restoration("resid", range(at, at + 1), p), layer, position),
        st.builds(
            lambda site, ends, p: Restoration(site, window(ends), p),
            st.sampled_from(["attn", "mlp"]),
            st.tuples(layer, layer),
            st.one_of(st.none(), position),
        ),
        st.builds(
            lambda site, at, p, head: Restoration(site, range(at, at + 1), p, head),
            st.sampled_from(["z", "q", "k", "v", "kv", "post"]),
            layer,
            st.one_of(st.none(), position),
            st.integers(0, heads - 1),  # of groups the rest of a division: there are fewer
        ),
    )
    severed = st.sampled_from([None, "mlp", "attn"])
    cells = st.builds(lambda cell, of: cell if cell.position is None else replace(cell, severed=of), cells, severed)
    rows = draw(st.sampled_from([1, 5, 23, 1000]))
    return tokens, start, draw(st.integers(1, 3)), draw(st.lists(cells, min_size=1, max_size=6)), rows


@settings(max_examples=25)
@given(data=st.data())
def test_cells_of_random_shapes(data: st.DataObject) -> None:
    """Depth, groups, heads a group, widths and windows of attention are drawn, too."""
    draw = data.draw
    layers, groups, a_group = (draw(st.integers(1, most), label=name) for name, most in SHAPE.items())
    windowed = draw(st.booleans(), label="windowed")
    shape: dict[str, Any] = {"n_layers": layers, "num_key_value_heads": groups, "num_attention_heads": groups * a_group}
    if windowed:  # the width is the heads'
        hf = tiny_phi3(
            **shape, hidden_size=8 * groups * a_group, sliding_window=draw(st.integers(1, 4), label="window")
        )
    else:
        hf = tiny_llama(
            **shape, bias=draw(st.booleans()), head_dim=draw(st.sampled_from([2, 8])), hidden_size=4 * groups * a_group
        )
    check_cells(loaded(hf.double(), name="drawn"), draw(problems(layers, groups * a_group)))


@pytest.mark.parametrize("family", MAKERS)
@settings(max_examples=12)
@given(problem=problems())
def test_cells_equal_plain_forward_passes(family: str, problem: Any) -> None:
    check_cells(made(family), problem)


def test_cells_in_bfloat16_are_as_near_to_float32_as_plain_passes() -> None:
    """Both round, in other places: neither is the truth. The scores of attention are large here."""
    hf = tiny_llama(n_layers=4)
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight *= 3
    half = loaded(hf.to(torch.bfloat16))
    exact = loaded(copy.deepcopy(hf).float())
    cells = [Restoration("resid", range(at, at + 1), position) for at in range(4) for position in range(12)]
    clean, corrupted = texts(half, 14, 2, 3)
    ours = found(half, clean, corrupted, 2, cells, None)
    with torch.no_grad():
        plain = torch.stack([mixed(slow(half, clean, corrupted, 2, cell)) for cell in cells])
        truth = torch.stack([mixed(slow(exact, clean.float(), corrupted.float(), 2, cell)) for cell in cells])
    distance, floor = ((x - truth).square().mean().sqrt() for x in (ours, plain))
    assert 0 < distance < 1.2 * floor, (distance, floor)


@pytest.mark.parametrize("family", ["llama", "phi3"])
@settings(max_examples=6)
@given(problem=problems())
def test_cells_of_an_edited_model(family: str, problem: Any) -> None:
    check_cells(made(family, edited=True), problem)


def test_the_size_of_a_cone() -> None:
    """Residual at layer 1 of 4, position 2 of 5: layers 1 to 3, positions 2 to 4. An output starts one layer higher."""
    assert cone_tokens([Restoration("resid", range(1, 2), 2)], 4, 5) == 9
    assert cone_tokens([Restoration("mlp", range(1, 3), 2)], 4, 5) == 6
    assert cone_tokens([Restoration("z", range(1, 2), head=0)], 4, 5) == 15
    assert cone_tokens([Restoration("attn", range(3, 4), 4), Restoration("resid", range(3, 4), 4)], 4, 5) == 1


def test_no_layer_sees_more_tokens_than_the_cones_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Residual cells at every layer and position: in the last layer one token a cell is computed in full."""
    model = made("llama")
    clean, corrupted = texts(model, 6, 2, 3)
    engine = Layerwise(model)
    calls: list[tuple[int, int]] = []
    real = Layerwise.call_layer

    def counting(self: Any, layer: int, hidden: Tensor, *args: Any) -> Tensor:
        calls.append((layer, hidden.shape[1]))
        return real(self, layer, hidden, *args)

    monkeypatch.setattr(Layerwise, "call_layer", counting)
    cells = [Restoration("resid", range(at, at + 1), p) for at in range(N_LAYERS) for p in range(4)]
    with torch.no_grad():
        prefix = [(k[:, :, :2], v[:, :, :2]) for k, v in engine.record_inputs(clean).keys_values]
        recording = engine.record(clean[:, 2:], ("resid",), prefix=prefix)
        cone = Cone(engine, recording, corrupted[:, 2:], prefix, max_rows=10_000)
        list(cone.effects(cells, lambda logits: logits[:, 0]))
    a_layer = 3 * (4 + 3 + 2 + 1)
    assert calls == [(0, a_layer), (1, 2 * a_layer), (2, 3 * a_layer), (3, 4 * a_layer), (3, 4 * 4 * 3)]
    assert sum(n for _, n in calls[:4]) == 3 * cone_tokens(cells, N_LAYERS, 4)


def test_the_default_of_max_rows_follows_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of it, and at least and at most what makes a matrix product fast."""
    engine = Layerwise(made("llama"))
    for free, rows in ((10**12, ROWS[0]), (4 * 777 * engine.row_bytes(200) + 3, 777), (5, LEAST_ROWS)):
        monkeypatch.setattr(restore, "free_memory", lambda device, free=free: free)
        assert default_rows(engine, 200) == rows


@pytest.mark.parametrize("site", ["resid", "mlp", "attn", "z"])
def test_a_sweep_takes_no_more_memory_than_its_rows(site: Any) -> None:
    """200 tokens, 3 samples: what ``row_bytes`` says of a token bounds what is allocated at once."""
    model = loaded(tiny_llama(n_layers=N_LAYERS, max_position_embeddings=256))
    engine, rows = Layerwise(model), 900
    clean, corrupted = texts(model, 200, 0, 3)
    where: dict[str, Any] = {"head": 1} if site == "z" else {"position": 100}
    cells = [Restoration(site, range(at, at + 1), **where) for at in range(N_LAYERS)]
    with torch.no_grad():
        recording = engine.record(clean, (site,))
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            list(effects(engine, recording, corrupted, None, cells, mixed, max_rows=rows))
    held = most = 0
    recorded: Any = profiler.profiler
    for event in recorded.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    assert 0 < most <= rows * engine.row_bytes(200)


V2 = ("0::/a/b", "memory.max", "memory.current", "inactive_file", "")
V1 = (
    "9:cpu:/x\n4:memory,hugetlb:/a/b",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
    "memory",
)


@pytest.mark.parametrize(("own", "limit", "used", "cached", "root"), [V2, V1])
def test_free_memory_is_no_more_than_the_control_groups_allow(
    own: str, limit: str, used: str, cached: str, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least of the own group and those above it; cached files give way, and "max" is no limit."""
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "own")
    free = free_memory(cpu)
    assert free > 10**7, "no files, no limit"
    (tmp_path / "own").write_text(f"{own}\n")
    folder = tmp_path / "cgroup" / root / "a"
    (folder / "b").mkdir(parents=True)
    for where, most in ((folder, "1000000"), (folder / "b", "max")):
        (where / limit).write_text(f"{most}\n")
        (where / used).write_text("900000\n")
    assert free_memory(cpu) == 100_000
    (folder / "memory.stat").write_text(f"anon 5\n{cached} 300000\n")
    assert free_memory(cpu) == 400_000
    (folder / limit).write_text("max\n")
    assert free_memory(cpu) > 10**7


@pytest.mark.parametrize("rows", [1, 16, 64])
def test_max_rows_bounds_every_batch(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = knowing(tiny_llama(tied=False, n_layers=N_LAYERS), FACTS)
    require(model, "trace", "noise")  # whose few tokens are not of this trace
    most = 0
    real = Layerwise.call_layer

    def watching(self: Any, layer: int, hidden: Tensor, *args: Any) -> Tensor:
        nonlocal most
        most = max(most, hidden.shape[1])
        return real(self, layer, hidden, *args)

    monkeypatch.setattr(Layerwise, "call_layer", watching)
    trace = causal_trace(model, FACTS[0], max_rows=rows, samples=7, **OPTIONS)
    tokens = len(trace.prompts[0].token_ids) - trace.subject[0]
    assert most <= max(rows, tokens)
    torch.testing.assert_close(trace.values, causal_trace(model, FACTS[0], samples=7, **OPTIONS).values)


# The public functions

FACTS = capitals()
OPTIONS: dict[str, Any] = {"form": "cloze", "pool": FACTS, "progress": False}


@lru_cache
def knower() -> LoadedModel:
    return knowing(tiny_llama(tied=False, n_layers=N_LAYERS), FACTS)


def test_several_sites_in_one_sweep_are_the_single_traces() -> None:
    together = causal_trace(knower(), FACTS[0], ("mlp", "resid", "attn"), samples=3, window=2, **OPTIONS)
    assert list(together) == ["mlp", "resid", "attn"]
    for site, one in together.items():
        alone = causal_trace(knower(), FACTS[0], site, samples=3, window=None if site == "resid" else 2, **OPTIONS)
        torch.testing.assert_close(one.values, alone.values, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(one.stderr, alone.stderr, atol=1e-6, rtol=1e-5)
        assert (one.unit, one.provenance["settings"]) == (alone.unit, alone.provenance["settings"])


def test_several_units_in_one_pass_are_the_single_maps() -> None:
    asked: tuple[tuple[Method, tuple[AttributionUnit, ...]], ...] = (
        ("attribution", ("neuron", "head", "mlp")),
        ("patching", ("mlp", "head")),
        ("dla", ("head",)),
    )
    for method, units in asked:
        together = attribute(knower(), FACTS[0], units, method=method, **OPTIONS)
        assert tuple(together) == units
        for unit, one in together.items():
            alone = attribute(knower(), FACTS[0], unit, method=method, **OPTIONS)
            torch.testing.assert_close(one.values, alone.values, atol=1e-5, rtol=1e-5)
            assert (one.unit, one.axes, one.labels) == (alone.unit, alone.axes, alone.labels)
            assert one.provenance["settings"] == alone.provenance["settings"]


@pytest.mark.parametrize("rows", [20, 1000])
def test_layers_are_reported_once_as_they_are_finished(rows: int) -> None:
    told: list[tuple[TraceSite, int, Tensor]] = []
    trace = causal_trace(
        knower(),
        FACTS[0],
        ("resid", "attn"),
        samples=3,
        max_rows=rows,
        on_layer=lambda *what: told.append(what),
        **OPTIONS,
    )
    assert sorted((site, layer) for site, layer, _ in told) == [(s, at) for s in ("attn", "resid") for at in range(4)]
    assert [layer for site, layer, _ in told if site == "resid"] == [0, 1, 2, 3]
    for site, layer, values in told:
        torch.testing.assert_close(values, trace[site].values[layer])


def test_a_layer_is_reported_before_the_next_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    def stop(site: str, layer: int, values: Tensor) -> None:
        raise Enough

    calls: list[int] = []
    real = Layerwise.unembed

    def counting(self: Any, resid: Tensor) -> Tensor:
        calls.append(len(resid))
        return real(self, resid)

    monkeypatch.setattr(Layerwise, "unembed", counting)
    with pytest.raises(Enough):
        causal_trace(knower(), FACTS[0], samples=1, max_rows=1, on_layer=stop, **OPTIONS)
    assert calls == [1, 1]  # the subject and the last token, at layer 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_layer": print, "fact": FACTS[:2]}, "on_layer= is for one fact"),
        ({"max_rows": 0}, "max_rows must be a whole number of at least 1, got 0"),
        ({"site": ()}, r"site must be one of .*got \(\)"),
        ({"site": ("resid", "head")}, r"got \('resid', 'head'\)"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"fact": FACTS[0], **OPTIONS, **options}
    with pytest.raises(ValueError, match=message):
        causal_trace(knower(), **given)


# Models that do not allow it


def test_another_attention_is_traced_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = causal_trace(knower(), FACTS[0], ("resid", "mlp"), samples=3, **OPTIONS)
    heads = attribute(knower(), FACTS[0], method="patching", **OPTIONS)
    monkeypatch.setattr("workbench.tracing.cone.OWN_ATTENTION", ())
    slow = causal_trace(knower(), FACTS[0], ("resid", "mlp"), samples=3, **OPTIONS)
    for site, one in slow.items():
        torch.testing.assert_close(one.values, fast[site].values, atol=1e-5, rtol=1e-5)
    plain = attribute(knower(), FACTS[0], method="patching", **OPTIONS)
    torch.testing.assert_close(plain.values, heads.values, atol=1e-4, rtol=1e-5)


def test_an_unknown_option_of_attention_is_not_passed_over() -> None:
    """A soft cap, say, would change the weights."""
    from workbench.tracing.packed import _attend

    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(Unsupported, match="softcap"):
        _attend(None, x, x, x, None, scaling=1.0, cone=lambda *a: x, softcap=30.0)
    assert _attend(None, x, x, x, None, scaling=1.0, cone=lambda *a: x, softcap=None)[1] is None


def test_the_head_is_the_models_own() -> None:
    """With whatever follows the output embeddings, a scale for instance."""
    hf = tiny_llama(n_layers=2)
    engine = Layerwise(loaded(hf))
    ids = torch.randint(5, N_VOCAB, (3, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        inputs = engine.record_inputs(engine.embed(ids))
        torch.testing.assert_close(inputs.logits, hf(ids).logits[:, -1])
        torch.testing.assert_close(engine.unembed(inputs.resid[-1][:, -1]), inputs.logits)
        engine._view.register_forward_hook(lambda m, a, out: type(out)(logits=out.logits * 0.5))
        torch.testing.assert_close(engine.unembed(inputs.resid[-1][:, -1]), inputs.logits * 0.5)
