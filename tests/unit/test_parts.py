"""A step of a fit in parts of few rows: losses and gradients are those of the plain model, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.helpers.small_fits import FRANCE, RETAIN, SPAIN, recipe
from tests.helpers.tiny import N_VOCAB, loaded, tiny_llama
from tests.helpers.tiny_facts import FAMILIES, tiny
from workbench.editing.methods.table import Recipe
from workbench.editing.training import batching
from workbench.editing.training.batching import Prepared, PreparedRow, parts, shared_prefix
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.learned import LearnedLevel
from workbench.editing.training.loop import Training
from workbench.editing.training.objectives import Given
from workbench.editing.training.passes import Passes
from workbench.editing.training.rows import Row
from workbench.editing.training.step_loss import StepLoss
from workbench.models.deltas.gates import inject_gates
from workbench.models.engine import Resumable
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.types import Fact, FactSet, GateDelta, Selection


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def training_of(model: LoadedModel, facts: list[Fact], settings: Recipe, start: int, **options: Any) -> Training:
    return Training(FitRows(model, facts, settings, retain=RETAIN), settings, start, **options)


@FAMILIES
@pytest.mark.parametrize("were_learned", ["none", "all"])
@pytest.mark.parametrize("tokens", [1, 60, 10_000])
def test_a_step_in_parts_is_the_plain_step(
    family: str, tokens: int, were_learned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row a part, a few, all; gates that act on the shared prefix too, and some that are not 1. Of the fact rows
    some have reached the hinge and some have not, whatever they had when they were last seen."""
    monkeypatch.setitem(batching.PART_TOKENS, "cpu", tokens)
    model = tiny(family)
    training = training_of(model, [FRANCE, SPAIN], recipe(), 1)
    chosen = [row for rows in training.wanted["learn"] for row in rows]
    held = [*training.near, *training.far]
    prepared = training.base.prepared
    n_parts = len(prepared.parts([*chosen, *held]))
    assert prepared.shared > 0
    assert n_parts == len(chosen) + len(held) if tokens == 1 else n_parts > 1 if tokens == 60 else n_parts == 1

    generator = torch.Generator().manual_seed(0)
    delta = GateDelta(
        {
            (layer, site): 1 + 0.3 * torch.randn(model.shape.site_size(site), generator=generator)
            for layer, site in Selection("L1MLP L1V0 L2H1 L2K1").entries(model)
        }
    )
    view = shared_view(model.hf)
    gates = inject_gates(view, model.architecture, delta)
    for gate in gates.values():
        gate.requires_grad_(True)
    passes = Passes(Resumable(model, view), prepared)
    with torch.no_grad():  # Between two rows' losses: at one's own, rounding would decide whether it is learned.
        middle = float(passes.nll(chosen, passes.prefix()).sort().values[:2].mean())
    loss = StepLoss(passes, Given(math.exp(-middle)), training.retained_kl, 2.0)
    with torch.enable_grad():
        nll, kl = loss.backward(chosen, held, chosen if were_learned == "all" else ())
    found = {name: gate.grad for name, gate in gates.items()}
    for gate in gates.values():
        gate.grad = None

    lacking, apart, expected_nll = [], [], []
    with torch.enable_grad():
        for prepared_row in [*chosen, *held]:
            row = prepared_row.row
            ids = torch.tensor([row.prompt + row.answer])
            answer = torch.tensor(row.answer)
            edited, base = (hf(ids).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1) for hf in (view, model.hf))
            if prepared_row in chosen:
                one = nn.functional.nll_loss(edited[row.departs :], answer[row.departs :])
                expected_nll.append(one.detach())
                lacking.append((one - middle).relu())
            else:
                apart.append((base.exp() * (base - edited)).sum(-1))
        expected_kl = torch.cat(apart).mean()
        (torch.stack(lacking).mean() + 2.0 * expected_kl).backward()
    torch.testing.assert_close(nll, torch.stack(expected_nll), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(kl, expected_kl.detach(), atol=1e-5, rtol=1e-4)
    assert float(kl) > 1e-5
    assert 0 < sum(one.item() > 0 for one in lacking) < len(lacking)
    certain = loss.goal.confidence(nll)
    assert [loss.goal.reached(x) for x in nll.tolist()] == [one.item() == 0 for one in lacking]
    assert loss.confidence(chosen) == pytest.approx(dict(zip(chosen, certain.tolist(), strict=True)), abs=1e-6)
    for name, gate in gates.items():
        assert gate.grad is not None and float(gate.grad.abs().max()) > 1e-5
        torch.testing.assert_close(found[name], gate.grad, atol=2e-6, rtol=1e-3)


def test_parts_are_rows_of_like_length_within_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batching.PART_TOKENS, "cpu", 10)
    cpu = torch.device("cpu")
    assert parts([3, 5, 2, 4, 12], cpu) == [[2, 0], [3, 1], [4]]  # padded: 2 x 3, 2 x 5, and 12 alone
    assert parts([], cpu) == []


def test_what_is_computed_once_does_not_depend_on_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row's own tokens but the last, which predicts nothing, in the rows' order."""
    model = tiny()
    rows = [Row((1, 2, 3), (7, 8, 9)), Row((1, 2), (6,)), Row((1, 2, 5, 4), (6, 3))]
    engine = Resumable(model)
    for tokens in (1, 8, 100):
        monkeypatch.setitem(batching.PART_TOKENS, "cpu", tokens)
        prepared = Prepared(engine, rows, 1, 1)
        for i, row in enumerate(rows):
            batch = prepared.batch([prepared.rows[i]])
            with torch.no_grad():
                plain = engine.entering(torch.tensor([row.prompt + row.answer]), 1)[:, 1:-1]
            torch.testing.assert_close(batch.resid, plain, atol=1e-5, rtol=0)
            assert batch.position.tolist() == list(range(len(row.prompt) - 2, plain.shape[1]))


def texts(draw: Callable[..., list[int]], most: int, label: str) -> tuple[int, ...]:
    """Some token ids."""
    return tuple(draw(st.lists(st.integers(5, N_VOCAB - 1), min_size=1, max_size=most), label=label))


@settings(max_examples=40)
@given(data=st.data())
def test_rows_of_random_shapes_are_as_in_the_plain_model(data: st.DataObject) -> None:
    """Depth, groups, heads a group, lengths (so the padding), what the prompts share and where the pass begins are
    drawn; the logits of every part, from a prefix that is computed once, are those of each row alone, at the tokens
    that count."""
    draw = data.draw
    layers, groups, a_group = (draw(st.integers(1, most), label=name) for name, most in (("n", 4), ("kv", 3), ("q", 3)))
    heads = groups * a_group
    shape: dict[str, Any] = {"hidden_size": 6 * heads, "num_key_value_heads": groups, "num_attention_heads": heads}
    model = loaded(tiny_llama(n_layers=layers, **shape))
    begins = texts(draw, 5, "beginning")
    rows = []
    for _ in range(draw(st.integers(1, 5), label="rows")):
        answer = texts(draw, 4, "answer")
        departs = draw(st.integers(0, len(answer) - 1), label="departs")
        rows.append(Row((*begins, *texts(draw, 6, "own")), answer, departs))
    start = draw(st.integers(0, layers - 1), label="start")
    shared = draw(st.integers(0, shared_prefix(rows)), label="shared")
    engine = Resumable(model)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setitem(batching.PART_TOKENS, "cpu", draw(st.sampled_from([1, 12, 1000]), label="tokens"))
        prepared = Prepared(engine, rows, start, shared)
        first = engine.entering(torch.tensor([rows[0].prompt[:shared]]), start) if shared else None
        prefix = None if first is None else engine.resumed_keys_values(first, start)
        seen = []
        for part in prepared.parts(prepared.rows):
            batch = prepared.batch([prepared.rows[i] for i in part])
            logits = engine.logits_at(batch.resid, batch.row, batch.position, start=start, prefix=prefix)
            for i, found in zip(part, logits.split(batch.count), strict=True):
                row = rows[i]
                plain = model.hf(torch.tensor([row.prompt + row.answer])).logits[0, len(row.prompt) - 1 : -1]
                torch.testing.assert_close(found, plain[row.departs :], atol=1e-4, rtol=1e-4)
                seen.append(i)
    assert sorted(seen) == list(range(len(rows)))


@FAMILIES
def test_the_reference_is_that_of_the_fisher_pass_or_a_pass_of_its_own(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are what the plain model gives after each retained prompt. What was measured from another layer, or on other
    rows, is not taken: it would change the edit's last bits."""
    model, settings = tiny(family), recipe(retain_weight=2.0, optimiser="natural", seed=3)
    passes: list[object] = []
    plain_prefix = Passes.prefix
    monkeypatch.setattr(Passes, "prefix", lambda self: passes.append(self) or plain_prefix(self))

    def training(layer: int | None, retain: FactSet = RETAIN) -> Training:
        fisher = None
        if layer is not None:
            measured = FitRows(model, [FRANCE], settings, retain=retain)
            fisher = measured.fisher(Selection(f"L{layer}MLP").entries(model))
        return training_of(model, [FRANCE], settings, 1, fisher=fisher)

    references = []
    for layer, retain, own_passes in ((None, RETAIN, 1), (2, RETAIN, 1), (1, RETAIN[:1], 1), (1, RETAIN, 0)):
        passes.clear()
        made = training(layer, retain)
        reference = made.retained_kl.reference
        assert len(passes) == own_passes
        assert reference.keys() == {*made.near, *made.far} and reference
        references.append(list(reference.values()))
        for prepared, found in reference.items():
            row = prepared.row
            with torch.no_grad():
                plain = model.hf(torch.tensor([row.prompt + row.answer])).logits[0, len(row.prompt) - 1 : -1]
            torch.testing.assert_close(found, plain.log_softmax(-1), atol=2e-5, rtol=1e-4)
    for other in references[1:3]:
        assert all(torch.equal(x, y) for x, y in zip(references[0], other, strict=True))


def test_a_level_is_reached_where_three_quarters_of_each_facts_rows_reach_it() -> None:
    """At every level between two rows' values, and with the order of the rows' last measurement turned around, the
    answer is that of measuring all; where more than a quarter of one fact's rows fall short, the rest is not asked."""
    rows = [[PreparedRow(Row((1,), (2,)), torch.zeros(1, 1)) for _ in range(n)] for n in (19, 7)]
    every = [row for of_fact in rows for row in of_fact]
    values = torch.rand(len(every), generator=torch.Generator().manual_seed(0)).tolist()
    confidence, asked = dict(zip(every, values, strict=True)), []

    def measure(some: Sequence[PreparedRow]) -> dict[PreparedRow, float]:
        asked.extend(some)
        return {row: confidence[row] for row in some}

    level = LearnedLevel(every, rows, measure)
    value = level.measured()
    assert asked == every
    assert value == min(sorted(confidence[row] for row in of_fact)[len(of_fact) // 4] for of_fact in rows)
    between = [(a + b) / 2 for a, b in pairwise(sorted(values))]
    for turned in (False, True):
        level.latest = {row: -x if turned else x for row, x in confidence.items()}
        for wanted in between:
            assert level.reaches(wanted) == (value >= wanted)
    level.latest = confidence
    asked.clear()
    assert not level.reaches(max(values) + 1)
    assert len(asked) == 19 // 4 + 1 + 7 // 4 + 1
