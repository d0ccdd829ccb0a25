"""Sweeps in this process: what is kept, going on after an interruption, and what fails."""

from __future__ import annotations

import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers import sweeping
from tests.helpers.paced import Clock, Screen
from tests.helpers.sweeping import Counting, run
from tests.helpers.tiny import random_edit, tiny_llama
from tests.helpers.tiny_facts import capitals, knowing
from workbench.pace import Pace
from workbench.sweeps.averages import mean_of, mean_rates
from workbench.sweeps.folder import SweepFolder
from workbench.sweeps.model_source import source_of
from workbench.sweeps.run import Run
from workbench.sweeps.worker import Item, Outcome
from workbench.types import EvalReport
from workbench.types.cancelling import Cancelled
from workbench.types.intervals import mean_over

FACTS = capitals()
IDS = list(FACTS.ids)


@pytest.fixture(scope="module")
def model() -> wb.LoadedModel:
    return knowing(tiny_llama(tied=False), FACTS)


# What is kept


def test_results_come_back_as_they_were_returned(model: wb.LoadedModel, tmp_path: Path) -> None:
    returned: dict[str, Any] = {
        "text": {"a": [1, 2.5, None, True], "__odd": (1, ("x",))},
        "number": float("inf"),
        "keys": {1: "one", None: "none"},
        "tensor": torch.arange(6.0).view(2, 3).bfloat16(),
        "scalar": torch.tensor(2.5),
        "selection": wb.Selection("L1H3 L2MLP"),
        "component": wb.Component(1, "H", 3),
        "circuit": wb.Circuit("L0H3 -> L1MLP, L1MLP -> logits"),
        "facts": [FACTS[0], FACTS[1]],
    }
    results = run(lambda model, value: value, tmp_path / "a", model, returned)
    for id, value in returned.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(results[id], value) and results[id].dtype == value.dtype
        else:
            assert results[id] == value and type(results[id]) is type(value)


def test_maps_edits_reports_and_records_come_back(model: wb.LoadedModel, tmp_path: Path) -> None:
    sites = run(wb.causal_trace, tmp_path / "trace", model, site=("resid", "mlp"), pool=FACTS, samples=2)
    direct = wb.causal_trace(model, FACTS[1], ("resid", "mlp"), pool=FACTS, samples=2, progress=False)
    for site, effects in direct.items():
        assert torch.equal(sites[IDS[1]][site].values, effects.values)
    edit = random_edit(model)
    edits = run(lambda model, item: item, tmp_path / "edits", model, {"one": edit})
    assert edits["one"].id == edit.id
    assert edits["one"].delta().digest() == edit.delta().digest()
    lens = run(wb.lens, tmp_path / "lens", model, FACTS[:1])
    assert lens[IDS[0]].to_frame().equals(wb.lens(model, FACTS[0]).to_frame())
    report = run(wb.evaluate, tmp_path / "report", model, FACTS[:2], pool=FACTS, collateral=False)
    assert report[IDS[0]].rows == wb.evaluate(model, FACTS[0], pool=FACTS, progress=False).rows
    mean = report.mean()["base"]["old"]
    assert mean.clusters == 2 and mean.value == sum(report[id].rate("old").value for id in IDS[:2]) / 2


def test_means_of_rates_are_of_their_own_kind() -> None:
    """A change of ordinary text that is never negative is no share, and what is so by definition has no interval."""
    small, large = (
        EvalReport(
            rows=(),
            rates={s: {n: mean_over({0: [value]}) for n in ("text_nll_change", "control")} for s in ("base", "learn")},
            facts=(id,),
            stages=("base", "learn"),
        )
        for id, value in (("a", 0.0), ("b", 1.0))
    )
    means = mean_rates({"a": small, "b": large})
    assert means["learn"]["control"].method == "wilson" and means["base"]["control"].by_definition
    change = means["learn"]["text_nll_change"]
    assert (change.method, change.value) == ("bootstrap", 0.5) and change.low < 0 and change.high > 1


def test_the_mean_of_maps_is_that_of_a_trace_of_several_facts(model: wb.LoadedModel, tmp_path: Path) -> None:
    options: dict[str, Any] = {"pool": FACTS, "form": "cloze", "corruption": "swap", "metric": "logit_diff"}
    results = run(wb.causal_trace, tmp_path / "a", model, **options)
    mean, together = results.mean(), wb.causal_trace(model, FACTS, progress=False, **options)
    torch.testing.assert_close(mean.values, together.values, equal_nan=True)
    torch.testing.assert_close(mean.stderr, together.stderr, equal_nan=True)
    assert mean.labels == together.labels and mean.n == len(FACTS)
    assert mean.provenance["facts"] == IDS
    half = (mean.interval[1] - mean.interval[0]) / 2
    torch.testing.assert_close(half, 2.776445 * mean.stderr, equal_nan=True)  # Student's t with 4 degrees of freedom
    some = results.mean(IDS[:2])
    torch.testing.assert_close(some.values, torch.stack([mean.per_fact[0], mean.per_fact[1]]).nanmean(0))


def test_contrasts_and_edges(model: wb.LoadedModel, tmp_path: Path) -> None:
    pairs = (("France", "Italy", "Paris", "Rome"), ("Spain", "Japan", "Madrid", "Tokyo"))
    contrasts = [
        wb.Contrast(
            clean=f"The capital of {clean} is",
            corrupted=f"The capital of {corrupted} is",
            answer=f" {answer}",
            wrong=f" {wrong}",
            positions={"country": clean},
        )
        for clean, corrupted, answer, wrong in pairs
    ]
    traces = run(wb.causal_trace, tmp_path / "traces", model, contrasts)
    together = wb.causal_trace(model, contrasts, progress=False)
    assert list(traces) == [contrast.id for contrast in contrasts]
    assert traces.mean().labels == together.labels and "country" in together.labels["position"]
    torch.testing.assert_close(traces.mean().values, together.values, equal_nan=True)
    edges = run(wb.edges, tmp_path / "edges", model, contrasts)
    both = wb.edges(model, contrasts, progress=False)
    torch.testing.assert_close(edges.mean().values, both.values, equal_nan=True)
    torch.testing.assert_close(edges.mean().stderr, both.stderr, equal_nan=True)
    paths = run(wb.path_patch, tmp_path / "paths", model, contrasts[:1], sender="L0H4", receiver="L1MLP")
    direct = wb.path_patch(model, contrasts[0], "L0H4", "L1MLP")
    assert paths[contrasts[0].id].effect == direct.effect
    with pytest.raises(TypeError, match="A PathEffect has no mean"):
        paths.mean()


def test_forms_are_never_averaged(model: wb.LoadedModel, tmp_path: Path) -> None:
    def in_forms(model: wb.LoadedModel, fact: wb.Fact) -> wb.EffectMap:
        form = "chat" if fact.id == IDS[0] else "cloze"
        return wb.causal_trace(model, fact, form=form, pool=FACTS, samples=1, progress=False)

    results = run(in_forms, tmp_path / "a", model)
    with pytest.raises(ValueError, match="never averaged"):
        results.mean()
    assert results.mean(IDS[1:]).n == len(IDS) - 1


def test_dictionaries_of_other_entries() -> None:
    mean = mean_of({"a": {"all": 1.0, "some": 2.0}, "b": {"all": 3.0}})
    assert (mean["all"].value, mean["all"].n) == (2.0, 2)
    assert (mean["some"].value, mean["some"].n) == (2.0, 1), "over the item that has it"


def test_tables_and_numbers(model: wb.LoadedModel, tmp_path: Path) -> None:
    results = run(Counting(), tmp_path / "a", model)
    frame = results.to_frame()
    assert frame.columns.tolist() == ["item", "answer", "value", "length"]
    assert frame.item.tolist() == IDS
    assert results.mean()["length"].value == frame.length.mean()
    assert results.facts.ids == tuple(IDS) and results.facts[0] == FACTS[0]
    traces = run(wb.causal_trace, tmp_path / "b", model, FACTS[:2], site=["resid", "mlp"], pool=FACTS, samples=1)
    assert traces.to_frame().groupby(["item", "part"]).size().shape == (4,)


# Going on


def test_an_interrupted_sweep_goes_on_without_repeating(model: wb.LoadedModel, tmp_path: Path) -> None:
    first = Counting(interrupt=IDS[2])
    with pytest.raises(KeyboardInterrupt) as caught:
        run(first, tmp_path, model)
    assert "2 items of this call are kept" in caught.value.__notes__[0]
    assert list(wb.load_sweep(tmp_path)) == IDS[:2] and wb.load_sweep(tmp_path).pending == IDS[2:]
    second = Counting()
    results = run(second, tmp_path, model)
    assert second.calls == IDS[2:] and list(results) == IDS
    third = Counting()
    run(third, tmp_path, model)
    assert third.calls == []


def test_more_items_join_and_order_does_not_matter(model: wb.LoadedModel, tmp_path: Path) -> None:
    run(Counting(), tmp_path, model, FACTS[:2])
    counting = Counting()
    results = run(counting, tmp_path, model, [*FACTS][::-1])
    assert counting.calls == IDS[:1:-1] and set(results) == set(IDS)


def test_a_failing_item_is_listed_and_tried_again(model: wb.LoadedModel, tmp_path: Path) -> None:
    told: list[tuple[str, bool]] = []
    results = run(Counting(bad=IDS[1]), tmp_path, model, on_item=lambda id, good: told.append((id, good)))
    assert told == [(id, id != IDS[1]) for id in IDS]
    failure = results.failed[IDS[1]]
    assert str(failure) == f"{IDS[1]}: ArithmeticError: no answer for {FACTS[1].subject}"
    assert "in __call__" in failure.traceback
    assert IDS[1] not in results and results.pending == []
    assert f"{len(IDS) - 1} of {len(IDS)} items, 1 failed" in repr(results)
    with pytest.raises(KeyError, match=r"it failed .ArithmeticError: no answer"):
        results[IDS[1]]
    good = Counting()
    assert run(good, tmp_path, model).failed == {} and good.calls == [IDS[1]]


def test_a_damaged_item_is_computed_again(model: wb.LoadedModel, tmp_path: Path) -> None:
    results = run(Counting(), tmp_path, model)
    path = results._paths[IDS[0]]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged or cut short"):
        results[IDS[0]]
    again = Counting()
    assert run(again, tmp_path, model)[IDS[0]]["answer"] == FACTS[0].answer and again.calls == IDS[:1]


def test_changed_bytes_are_seen(model: wb.LoadedModel, tmp_path: Path) -> None:
    results = run(wb.attribute, tmp_path, model, FACTS[:1], pool=FACTS)
    path = results._paths[IDS[0]]
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content if name == "item.json" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="its parts do not have the checksums"):
        results[IDS[0]]
    again = run(wb.attribute, tmp_path, model, FACTS[:1], pool=FACTS)
    assert torch.equal(again[IDS[0]].values, wb.attribute(model, FACTS[0], pool=FACTS, progress=False).values)


def test_a_flag_ends_it_between_items(model: wb.LoadedModel, tmp_path: Path) -> None:
    flag = threading.Event()
    with pytest.raises(Cancelled, match="after 2 of 5 items, which are kept"):
        run(Counting(), tmp_path, model, cancel=flag, on_item=lambda id, _: flag.set() if id == IDS[1] else None)
    assert list(wb.load_sweep(tmp_path)) == IDS[:2]


def test_an_interrupt_keeps_what_workers_have_finished(
    model: wb.LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.sweeps import distribute

    real = distribute.wait

    def interrupted(futures: Any, **options: Any) -> Any:
        real(futures)  # all are done, none has been looked at
        raise KeyboardInterrupt

    monkeypatch.setattr(distribute, "wait", interrupted)
    with ThreadPoolExecutor(1) as threads, pytest.raises(KeyboardInterrupt) as caught:
        run(Counting(), tmp_path, model, executor=threads)
    assert "5 items of this call are kept" in caught.value.__notes__[0]
    assert list(wb.load_sweep(tmp_path)) == IDS


def test_threads_take_turns_with_the_model(model: wb.LoadedModel, tmp_path: Path) -> None:
    serial = run(sweeping.heads, tmp_path / "a", model, pool=FACTS)
    with ThreadPoolExecutor(3) as threads:
        results = run(sweeping.heads, tmp_path / "b", model, pool=FACTS, executor=threads)
    assert all(torch.equal(serial[id].values, results[id].values) for id in IDS)


def test_progress_says_how_far_and_how_long(
    model: wb.LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wb.sweep(Counting(), FACTS, out=tmp_path / "a", model=model)
    assert "[1/2] Loading the model" in capsys.readouterr().err
    clock, screen = Clock(), Screen()
    pace = Pace({"model": 0.0, "items": 5.0}, {"model": "Loading", "items": "f"}, screen, clock)
    folder = SweepFolder(tmp_path / "b")
    folder.begin()
    one = Run(folder, [Item(id, "", None) for id in IDS], pace, None, None)
    one.begin("model")
    clock.now = 100.0  # to load the model says nothing of how long the items take
    one.begin("items")
    clock.now = 110.0
    one.keep(Outcome(IDS[0], b"content"))
    assert screen.line == "[2/2] f (1 of 5), about 40 s left"
    clock.now = 120.0
    one.keep(Outcome(IDS[1], error="ValueError"))
    assert screen.line == "[2/2] f (2 of 5, 1 failed), about 30 s left"


def test_workers_load_a_model_by_what_it_is(model: wb.LoadedModel, tmp_path: Path) -> None:
    folder = wb.export_base(tmp_path / "base", model)
    named = wb.load_model(folder, name="mine", template={"system": "Be brief."})
    source = source_of(named, tmp_path)
    assert (source.source, source.options["name"]) == (str(folder), "mine")
    assert not (tmp_path / "model").exists()
    again = source.load()
    assert (again.fingerprint, again.name, again.template) == (named.fingerprint, named.name, named.template)
    with torch.no_grad():
        named.hf.model.norm.weight.mul_(2)  # no longer what is in the folder
    shipped = source_of(named, tmp_path)
    assert shipped.source == str(tmp_path / "model") and shipped.load().fingerprint == named.fingerprint
    assert shipped.load().template == named.template
