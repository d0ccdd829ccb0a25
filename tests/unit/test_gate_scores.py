"""How much gates matter to answers, and the default selector."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.small_fits import FACTS, FRANCE, RETAIN, fitted, same
from tests.helpers.tiny import loaded, tiny_llama
from tests.helpers.tiny_facts import FAMILIES, tiny
from workbench.editing.methods import ia3
from workbench.editing.methods.table import Recipe
from workbench.editing.retain import default_retain
from workbench.editing.selector import default_selection, gate_scores
from workbench.editing.training import batching, sensitivity
from workbench.editing.training.batching import shared_prefix
from workbench.editing.training.fit_rows import retain_rows, wanted_rows
from workbench.editing.training.rows import Row
from workbench.editing.training.sensitivity import DAMPING, fisher_information, gate_gradients
from workbench.models.deltas.gates import inject_gates
from workbench.models.views import shared_view
from workbench.types import FactSet, GateDelta, Selection


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@FAMILIES
@pytest.mark.parametrize("case", ["every site", "few tokens at once", "one row", "last layer", "other attention"])
def test_gate_gradients_are_those_of_ia3_gates(family: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batched, from the residual stream, against autograd through PEFT's gates, one row at a time; every gate site.
    What the rows begin with is computed once; of the last layer's MLP it is not read; with attention that may not
    allow a batched backward pass, each row is computed whole."""
    model = tiny(family)
    if case == "few tokens at once":
        monkeypatch.setitem(batching.PART_TOKENS, "cpu", 30)
    if case == "other attention":
        monkeypatch.setattr(sensitivity, "OWN_ATTENTION", ())
    rows = wanted_rows(model, [FRANCE], "learn", Recipe(answers="short"))[: 1 if case == "one row" else 3]
    rows[-1] = replace(rows[-1], departs=1)
    assert shared_prefix(rows) > 1
    picked = "L1H2 L2MLP L1N7 L2Q1 L2KV0" + ("" if family == "gpt2" else " L1GATEUP")
    entries = Selection("L2MLP" if case == "last layer" else picked).entries(model)
    found = gate_gradients(model, rows, entries)
    for row, mine in zip(rows, found, strict=True):
        view = shared_view(model.hf)
        ones = GateDelta({(at, site): torch.ones(model.shape.site_size(site)) for at, site in entries})
        gates = inject_gates(view, model.architecture, ones)
        for gate in gates.values():
            gate.requires_grad_(True)
        ids = torch.tensor([row.prompt + row.answer])
        with torch.enable_grad():
            logprobs = view(input_ids=ids).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1)
            logprobs.gather(1, torch.tensor(row.answer)[:, None])[row.departs :, 0].mean().backward()
        expected = []
        for (layer, site), index in entries.items():
            place = model.architecture.gate_module(layer, site)
            gradient = gates[place.module].grad
            assert gradient is not None
            expected.append(gradient.flatten()[place.index][list(index)])
        torch.testing.assert_close(mine, torch.cat(expected), atol=5e-6, rtol=1e-4)
        assert float(mine.abs().max()) > 1e-4


def test_scores_of_drawn_answers_have_mean_zero() -> None:
    """The expected gradient of the log-likelihood of an answer drawn from the model itself is zero."""
    model = loaded(tiny_llama())
    row, gates = Row((1, 2, 3), (0,)), Selection("L0MLP L2MLP").entries(model)
    scores = gate_gradients(model, [row] * 400, gates, draw=torch.Generator().manual_seed(0))
    assert float(scores.std(0).max()) > 1e-3
    error = scores.std(0) / len(scores) ** 0.5
    assert float((scores.mean(0).abs() / (error + 1e-9)).max()) < 5
    assert not torch.equal(scores[0], gate_gradients(model, [row], gates)[0])


def test_scores_are_gain_over_the_root_of_fisher_information() -> None:
    model = tiny()
    pool = FactSet([*RETAIN, *(f for f in FACTS if f.role != "retain")])
    gates = Selection("L0MLP L1MLP L2MLP").entries(model)
    gain = gate_gradients(model, wanted_rows(model, [FRANCE], "learn", Recipe()), gates).mean(0).abs()
    found = gate_scores(model, FRANCE, pool=pool, progress=False).flatten()
    cost = (gain / found).square()
    assert not torch.allclose(cost, cost.mean(), rtol=0.1)
    kept = default_retain(model, [FRANCE], pool=pool, progress=False)
    kinds = retain_rows(model, list(kept), [FRANCE])
    fisher = fisher_information(model, kinds, gates, seed=0)
    torch.testing.assert_close(cost, fisher + DAMPING * fisher.mean(), rtol=1e-3, atol=0.0)
    none = FACTS.filter(lambda f: f.role != "retain")
    torch.testing.assert_close(gate_scores(model, FRANCE, pool=none, progress=False).flatten(), gain)


def test_both_kinds_of_rows_count_equally_in_the_fisher_information() -> None:
    model = loaded(tiny_llama())
    gates = Selection("L1MLP").entries(model)
    one, two = Row((1, 2, 3), (0, 5)), Row((4, 2), (6,))
    draw = torch.Generator().manual_seed(3)
    first = gate_gradients(model, [one], gates, draw=draw)[0].square()
    rest = gate_gradients(model, [two] * 3, gates, draw=draw).square().mean(0)
    both = fisher_information(model, ([one], [two] * 3), gates, 3)
    torch.testing.assert_close(both, (first + rest) / 2)
    torch.testing.assert_close(fisher_information(model, ([one], []), gates, 3), first)


@FAMILIES
def test_fisher_information_is_measured_once_for_all_gates_of_the_same_pass(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is to the bit what would be measured, and is not taken for other rows, seeds or passes."""
    passes: list[Any] = []

    def counted(*args: Any, **options: Any) -> Any:
        passes.append(args)
        return gate_gradients(*args, **options)

    monkeypatch.setattr(sensitivity, "gate_gradients", counted)
    model, untouched = tiny(family), tiny(family)
    kinds = ([Row((1, 2, 3), (0, 5))], [Row((4, 2), (6,)), Row((7, 8, 9, 10), (6, 3))])
    every = fisher_information(model, kinds, Selection("L1MLP L2MLP").entries(model), 3)
    assert len(passes) == 2
    some = Selection("L2N7 L1N40 L1N3").entries(model)
    found = fisher_information(model, kinds, some, 3)
    assert len(passes) == 2
    assert found.tolist() == [every[3], every[40], every[len(every) // 2 + 7]]
    assert torch.equal(found, fisher_information(untouched, kinds, some, 3))
    assert len(set(found.tolist())) == 3
    for other in (
        lambda: fisher_information(model, kinds, some, 4),
        lambda: fisher_information(model, kinds[::-1], some, 3),
        lambda: fisher_information(model, kinds, Selection("L1N3 L2H0").entries(model), 3),
        lambda: fisher_information(model, kinds, Selection("L2N7").entries(model), 3),
        lambda: fisher_information(untouched, kinds, Selection("L1N3 L2N0").entries(model), 5),
    ):
        passes.clear()
        other()
        assert len(passes) == 2


def test_the_default_selection() -> None:
    model = tiny()
    found = default_selection(model, FRANCE, pool=FACTS, k=20, progress=False)
    assert len(found) == 20
    assert {c.kind for c in found} == {"N"}
    assert found == default_selection(model, FRANCE, pool=FACTS, k=20, progress=False)
    scores = gate_scores(model, FRANCE, pool=FACTS, progress=False)
    picked = torch.zeros_like(scores, dtype=torch.bool)
    for c in found:
        picked[c.layer, c.index] = True
    assert scores[picked].min() >= scores[~picked].max()
    with pytest.raises(ValueError, match="must be a whole number from 1 to 168, all of this model, got 169"):
        default_selection(model, FRANCE, pool=FACTS, k=169, progress=False)
    with pytest.raises(ValueError, match="got True"):
        default_selection(model, FRANCE, pool=FACTS, k=True, progress=False)


def test_the_default_selection_is_what_rewrite_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ia3, "default_selection", partial(default_selection, k=9))
    edit = fitted(selection=None)
    assert edit.selector == "gain-over-fisher"
    assert len(edit.selection) == 9
    assert edit.delta().n_moved() == 9


def test_a_number_is_so_many_neurons_of_the_default_selector() -> None:
    edit = fitted(selection=7)
    assert edit.selector == "gain-over-fisher"
    assert edit.selection == default_selection(tiny(), FRANCE, pool=FACTS, k=7, progress=False)
    assert same(edit, fitted(selection=edit.selection))
    for wrong in (0, 169):
        with pytest.raises(ValueError, match=f"from 1 to 168, all of this model, got {wrong}"):
            fitted(selection=wrong)
    for odd in (True, 7.0):
        with pytest.raises(ValueError, match=f"selection must be a Selection, .*got {type(odd).__name__}"):
            fitted(selection=odd)


@pytest.mark.parametrize("measured_on", ["the fit's rows", "others"])
def test_the_fit_takes_the_selectors_fisher_information(monkeypatch: pytest.MonkeyPatch, measured_on: str) -> None:
    """It is measured once where both need it on the same rows, and the edit is the same to the bit as with the
    selection given."""
    model, drawn = tiny(), []

    def counted(*args: Any, **options: Any) -> Any:
        drawn.append(args)
        return gate_gradients(*args, **options)

    monkeypatch.setattr(sensitivity, "gate_gradients", counted)
    model.cache.clear()
    retain = None if measured_on == "the fit's rows" else RETAIN[:1]
    edit = fitted(model=model, selection=60, optimiser="natural", retain=retain)
    assert len(drawn) == 1 + (retain is not None)  # one kind of rows: RETAIN are all neighbours
    selection = default_selection(model, FRANCE, pool=FACTS, k=60, progress=False)
    assert len(drawn) == 1 + (retain is not None)  # remembered
    model.cache.clear()
    given = fitted(model=model, selection=selection, optimiser="natural", retain=retain)
    assert len(drawn) == 2 + (retain is not None)  # forgotten
    assert same(edit, given)
