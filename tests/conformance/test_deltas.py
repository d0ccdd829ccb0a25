"""Every kind of delta keeps the same promises, on every shape of model: strengths, order, removal, names of numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.deltas import (
    IDS,
    KINDS,
    Case,
    assert_near,
    edit_with,
    gates,
    logits_of,
    low_rank,
    model_of,
)
from tests.helpers.small_fits import assert_unchanged, unchanged
from tests.helpers.tiny import loaded, tiny_phi3
from workbench.models import LoadedModel
from workbench.models.deltas import fold
from workbench.models.views import shared_view
from workbench.types import NO_DELTA, Delta, Deltas, LowRankDelta, delta_from


def folded_logits(model: LoadedModel, delta: Delta) -> Tensor:
    view = shared_view(model.hf)
    fold(view, model.architecture, delta)
    with torch.no_grad():
        return view(IDS).logits


def test_strength_0_is_the_base_and_strength_1_the_delta(case: Case) -> None:
    edit = edit_with(case.model, case.delta)
    base, whole = logits_of(case.model), logits_of(case.model, edit)
    assert torch.equal(logits_of(case.model, edit, strength=0.0), base)
    assert not torch.allclose(whole, base, atol=1e-3)
    again = case.delta.scaled(1.0)
    assert again.digest() == case.delta.digest()
    assert torch.equal(logits_of(case.model, edit_with(case.model, again)), whole)
    half = logits_of(case.model, edit, strength=0.5)
    assert not torch.allclose(half, base, atol=1e-3) and not torch.allclose(half, whole, atol=1e-3)


def test_a_turned_strength_is_a_fresh_one(case: Case) -> None:
    from workbench.editing.applied import Dial

    edit = edit_with(case.model, case.delta)
    dial = Dial(case.model, edit)
    for strength in (1.0, 0.25, 0.0, 1.0):
        with torch.no_grad():
            assert torch.equal(dial.at(strength).hf(IDS).logits, logits_of(case.model, edit, strength=strength))


def test_then_is_what_one_after_the_other_does(case: Case) -> None:
    model, first, second = case.model, case.delta, case.make(case.model, 7)
    both = logits_of(model, edit_with(model, first, second))
    stacked = logits_of(model, edit_with(model, first), edit_with(model, second))
    assert_near(both, stacked)
    assert_near(both, folded_logits(model, first.then(second)))


def test_then_is_associative(case: Case) -> None:
    model = case.model
    a, b, c = case.delta, gates(model, 3), case.make(model, 9)
    left, right = a.then(b).then(c), a.then(b.then(c))
    assert [p.kind for p in getattr(left, "parts", (left,))] == [p.kind for p in getattr(right, "parts", (right,))]
    assert_near(logits_of(model, edit_with(model, left)), logits_of(model, edit_with(model, right)))
    assert NO_DELTA.then(a) is a and a.then(NO_DELTA) is a


def test_removal_leaves_the_base_as_it_was(case: Case) -> None:
    before, fingerprint = unchanged(case.model), case.model.fingerprint
    edit = edit_with(case.model, case.delta)
    base = logits_of(case.model)
    logits_of(case.model, edit)
    _ = logits_of(case.model, edit, edit_with(case.model, case.make(case.model, 5)))
    assert torch.equal(logits_of(case.model), base)
    assert case.model.fingerprint == fingerprint
    assert_unchanged(case.model, before)


def test_the_digest_sees_every_number(case: Case) -> None:
    digests = {case.delta.digest(), edit_with(case.model, case.delta).id}
    for name, tensor in case.delta.tensors().items():
        changed = tensor.clone()
        changed.view(-1)[-1] += 1
        other = delta_from(case.delta.header(), {**case.delta.tensors(), name: changed})
        digests |= {other.digest(), edit_with(case.model, other).id}
    assert len(digests) == 2 * (1 + len(case.delta.tensors()))


@pytest.mark.parametrize("kind", ["gates", "low-rank", "dense", "memory"])
def test_a_delta_for_another_model_is_refused(kind: str) -> None:
    model, other = model_of("llama, tied"), loaded(tiny_phi3(intermediate_size=64, hidden_size=60))
    delta = KINDS[kind](other, 0)
    before = unchanged(model)
    with (
        pytest.raises(ValueError, match=r"for another|has no linear module|does not have it"),
        wb.applied(model, edit_with(model, delta)),
    ):
        pass
    assert_unchanged(model, before)
    with pytest.raises(ValueError, match=r"cannot be put together: at .* different models"):
        delta.then(KINDS[kind](model_of("phi3"), 0))


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_is_a_finite_number(case: Case, strength: float) -> None:
    with pytest.raises(ValueError, match="strength must be a finite number"):
        case.delta.scaled(strength)


def test_a_low_rank_delta_is_restricted_to_columns() -> None:
    delta = low_rank(model_of("phi3"), 0)
    key = min(delta.factors)
    part = delta.restricted({key: [0, 3]})
    (u, v), (_, whole) = part.factors[key], delta.factors[key]
    assert list(part.factors) == [key] and torch.equal(u, delta.factors[key][0])
    assert torch.equal(v[:, [0, 3]], whole[:, [0, 3]]) and not v[:, [1, 2]].any() and not v[:, 4:].any()


def test_what_a_low_rank_delta_refuses() -> None:
    with pytest.raises(ValueError, match=r"U \[d_out, r\] and V \[r, d_in\]"):
        LowRankDelta({(0, "mlp.down_proj"): (torch.ones(3, 2), torch.ones(1, 4))})
    with pytest.raises(ValueError, match="names no layer"):
        LowRankDelta({"lm_head": (torch.ones(3, 1), torch.ones(1, 4))})
    named = LowRankDelta({"model.layers.2.mlp.down_proj": (torch.ones(3, 1), torch.ones(1, 4))})
    assert list(named.factors) == [(2, "mlp.down_proj")]


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"one of .*'low-rank'.* and this one is 'sparse'"):
        delta_from({"kind": "sparse"}, {})
    assert isinstance(gates(model_of("phi3"), 0).then(low_rank(model_of("phi3"), 0)), Deltas)
