"""A step of a fit in parts of few rows: losses and gradients are those of the plain model, row by row."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.small_fits import FRANCE, RETAIN, SPAIN, recipe
from tests.tiny_facts import FAMILIES, tiny
from workbench.architecture import inject_gates, shared_view
from workbench.editing import batches as batches_module
from workbench.editing.batches import Prepared, Row, parts
from workbench.editing.loop import Training
from workbench.resume import Resumable
from workbench.types import GateDelta, Selection


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@FAMILIES
@pytest.mark.parametrize("were_learned", ["none", "all"])
@pytest.mark.parametrize("tokens", [1, 60, 10_000])
def test_a_step_in_parts_is_the_plain_step(
    family: str, tokens: int, were_learned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row a part, a few, all; gates that act on the shared prefix too, and some that are not 1. Of the fact rows
    some have reached the hinge and some have not, whatever they had when they were last seen."""
    monkeypatch.setitem(batches_module.PART_TOKENS, "cpu", tokens)
    model, settings = tiny(family), recipe(hinge=0.7, retain_weight=2.0)
    training = Training(model, [FRANCE, SPAIN], settings, RETAIN, 1, on_step=None, cancel=None)
    chosen, held = list(training._wanted["learn"]), list(training._retain)
    n_parts = len(training._rows.parts([*chosen, *held]))
    assert training._rows.shared > 0
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
    engine = Resumable(model, view)
    with torch.enable_grad():
        # Between two rows' losses: at one's own, rounding would decide whether it is learned.
        middle = float(training._backward(engine, chosen, held, ())[0].sort().values[:2].mean())
    training.recipe = replace(settings, hinge=math.exp(-middle))
    for gate in gates.values():
        gate.grad = None
    learned = chosen if were_learned == "all" else ()
    with torch.enable_grad():
        nll, kl = training._backward(engine, chosen, held, learned)
    found = {name: gate.grad for name, gate in gates.items()}
    for gate in gates.values():
        gate.grad = None

    lacking, apart, expected_nll = [], [], []
    with torch.enable_grad():
        for i in [*chosen, *held]:
            row = training._rows.rows[i]
            ids = torch.tensor([row.prompt + row.answer])
            answer = torch.tensor(row.answer)
            edited, base = (hf(ids).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1) for hf in (view, model.hf))
            if i in chosen:
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
    with torch.enable_grad():
        nothing = torch.zeros(len(chosen))
        settled = training._still_learned(engine, chosen, range(len(chosen)), training._prefix(engine), nothing)
    assert settled == {i for i, one in enumerate(lacking) if one.item() == 0}
    for name, gate in gates.items():
        assert gate.grad is not None and float(gate.grad.abs().max()) > 1e-5
        torch.testing.assert_close(found[name], gate.grad, atol=2e-6, rtol=1e-3)


def test_parts_are_rows_of_like_length_within_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batches_module.PART_TOKENS, "cpu", 10)
    cpu = torch.device("cpu")
    assert parts([3, 5, 2, 4, 12], cpu) == [[2, 0], [3, 1], [4]]  # padded: 2 x 3, 2 x 5, and 12 alone
    assert parts([], cpu) == []


def test_what_is_computed_once_does_not_depend_on_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row's own tokens but the last, which predicts nothing, in the rows' order."""
    model = tiny()
    rows = [Row((1, 2, 3), (7, 8, 9)), Row((1, 2), (6,)), Row((1, 2, 5, 4), (6, 3))]
    engine = Resumable(model)
    for tokens in (1, 8, 100):
        monkeypatch.setitem(batches_module.PART_TOKENS, "cpu", tokens)
        prepared = Prepared(engine, rows, 1, 1)
        for i, row in enumerate(rows):
            batch = prepared.batch([i])
            with torch.no_grad():
                plain = engine.entering(torch.tensor([row.prompt + row.answer]), 1)[:, 1:-1]
            torch.testing.assert_close(batch.resid, plain, atol=1e-5, rtol=0)
            assert batch.position.tolist() == list(range(len(row.prompt) - 2, plain.shape[1]))
