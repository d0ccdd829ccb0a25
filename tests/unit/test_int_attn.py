"""IntAttn-Edit: MEMIT at balance 0, attention alone at 1, shares in between, and what a trace measures."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.small_fits import assert_unchanged, unchanged
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, knowing, tiny
from workbench.editing.methods.int_attn import measured_balance, shares_of
from workbench.editing.solved.spots import Place
from workbench.types import Edit, LowRankDelta, Step
from workbench.types.cancelling import Cancelled

FACTS = capitals()
FRANCE = FACTS[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


SMALL: dict[str, Any] = {"steps": 3, "covariance": "identity", "contexts": False, "others": 0, "clozes": False}


def made(selection: Any = None, *, kind: Any = wb.recipes.IntAttnEdit, fact: Any = FRANCE, **changes: Any) -> Edit:
    options = {name: changes.pop(name) for name in ("on_step", "cancel") if name in changes}
    recipe = kind(**{**SMALL, "layers": (0, 1), **changes})
    return wb.rewrite(tiny(), fact, selection, recipe=recipe, pool=FACTS, progress=False, **options)


def factors_of(edit: Edit) -> dict[tuple[int, str], tuple[Tensor, Tensor]]:
    delta = edit.delta()
    assert isinstance(delta, LowRankDelta)
    return dict(delta.factors)


@pytest.mark.parametrize("stages", [("edit",), ("unlearn", "learn")])
def test_balance_0_is_memit(stages: tuple[str, ...]) -> None:
    own, memit = (made(kind=k, seed=5, stages=stages, **b) for k, b in PAIR)
    assert own.id == memit.id and own.stage_names == memit.stage_names == stages
    assert made(balance=0, seed=6, stages=stages).id == made(kind=wb.recipes.MEMIT, seed=6, stages=stages).id


PAIR: tuple[tuple[Any, dict[str, Any]], ...] = (
    (wb.recipes.IntAttnEdit, {"balance": 0}),
    (wb.recipes.MEMIT, {}),
)


def test_with_all_defaults_balance_0_is_memit() -> None:
    """With the measured covariance, the layers of the trace, contexts, clozes and other questions."""
    deep = knowing(tiny_llama(seed=3, tied=False, n_layers=7))
    pair = (wb.recipes.IntAttnEdit(balance=0, seed=3), wb.recipes.MEMIT(seed=3))
    own, memit = (wb.rewrite(deep, FRANCE, recipe=one, pool=FACTS, progress=False) for one in pair)
    assert own.id == memit.id and own.writes == memit.writes and own.selection == memit.selection
    assert own.writes[0].tokens and own.delta().largest_move() > 0.01, "it wrote something"


def test_every_other_default_is_memits() -> None:
    own, memit = wb.recipes.IntAttnEdit(balance=0).to_dict(), wb.recipes.MEMIT().to_dict()
    apart = {"name", "balance", "targets"}
    assert {key: own[key] for key in own.keys() - apart} == {key: memit[key] for key in memit.keys() - apart}


def test_balance_1_writes_attention_only() -> None:
    edit = made(balance=1)
    assert list(factors_of(edit)) == [(0, "self_attn.o_proj"), (1, "self_attn.o_proj")]
    assert str(edit.selection) == "L0ATTN L1ATTN"


def test_shares_of_what_is_lacking_are_shares_of_a_layers_part() -> None:
    """R = 1 in all: with what was moved taken off before each module, a layer has moved one part of the rest."""
    places = [Place(layer, module) for layer in (3, 5, 6) for module in ("attn", "mlp")]
    for balance in (0.0, 0.25, 0.9):
        lacking, moved = 1.0, []
        for share in shares_of(places, balance):
            moved.append(lacking * share)
            lacking -= moved[-1]
        assert lacking == pytest.approx(0, abs=1e-12)
        wanted = [part for _ in range(3) for part in (balance / 3, (1 - balance) / 3)]
        assert moved == pytest.approx(wanted)
    alone = [Place(3, "mlp"), Place(5, "attn"), Place(5, "mlp")]
    assert shares_of(alone, 0.5) == pytest.approx([1 / 2, 1 / 2, 1.0])


def test_attention_is_written_first_and_the_mlp_reads_it() -> None:
    edit = made(balance=0.5)
    assert [(w.layer, w.module) for w in edit.writes] == [(0, "attn"), (0, "mlp"), (1, "attn"), (1, "mlp")]
    for one, after in zip(edit.writes, edit.writes[1:], strict=False):
        assert one.residual_after == pytest.approx(after.residual_before)
    # The square of the attention's projection: heads times width is not d_model here, so its shape says what it is.
    model, factors = tiny(), factors_of(edit)
    u, v = factors[1, "self_attn.o_proj"]
    assert (len(u), v.shape[1]) == (model.shape.d_model, model.shape.n_heads * model.shape.d_head)


def test_the_balance_is_measured_from_traces() -> None:
    """By the maps themselves: positive effects at the subject's last tokens, averaged over the facts first."""
    model, layers = tiny(), [0, 1]
    facts = FACTS[:2]
    parts = {}
    for site in ("attn", "mlp"):
        total = torch.zeros(3, dtype=torch.float64)
        for fact in facts:
            traced = wb.causal_trace(model, fact, site, samples=4, progress=False)
            roles = [role for role in traced.roles if role.startswith("last subject token")]
            assert roles
            total += torch.stack([traced.at(role=role).double() for role in roles]).sum(0) / 2
        parts[site] = float(total[layers].clamp(min=0).sum())
    found, words = measured_balance(model, facts, layers, progress=False)
    assert found == pytest.approx(parts["attn"] / sum(parts.values()), abs=1e-6)
    assert f"balance {found:.2f} (causal trace)" in words
    assert words in made(fact=facts).selector


def test_a_selection_says_what_is_written() -> None:
    edit = made("L0H1 L0N3 L1N5 L1N9", balance=0.5)
    found = factors_of(edit)
    assert set(found) == {(0, "self_attn.o_proj"), (0, "mlp.down_proj"), (1, "mlp.down_proj")}
    d = tiny().shape.d_head
    columns = {key: set(v.any(0).nonzero().flatten().tolist()) for key, (_, v) in found.items()}
    assert columns[0, "self_attn.o_proj"] == set(range(d, 2 * d))
    assert columns[0, "mlp.down_proj"] == {3} and columns[1, "mlp.down_proj"] == {5, 9}
    assert set(factors_of(made("L0H1 L1N5", balance=0))) == {(1, "mlp.down_proj")}
    with pytest.raises(ValueError, match="balance=0 writes MLPs only"):
        made("L0H1", balance=0)
    with pytest.raises(ValueError, match="no columns of an output projection"):
        made("L0K0")
    with pytest.raises(ValueError, match="Layer 9 does not exist"):
        made(layers=(9,), balance=0.5)


def test_joint_targets_have_a_vector_for_each_module() -> None:
    edit = made(targets="joint")
    assert len(factors_of(edit)) == 4
    last = [write for write in edit.writes if write.layer == 1]
    assert all(0 < w.residual_after < w.residual_before for w in last)  # pyright: ignore[reportOperatorIssue]
    only = made(targets="joint", balance=0)  # as PMET: optimised together, the MLPs written
    assert list(factors_of(only)) == [(0, "mlp.down_proj"), (1, "mlp.down_proj")]
    assert only.id != made(balance=0).id


def test_values_out_of_range_are_refused() -> None:
    joint = {"targets": "joint", "balance": 0.5}
    wrong: list[dict[str, Any]] = [{"balance": 1.5}, {"balance": -0.1}, {"targets": "both"}, joint]
    for settings in wrong:
        with pytest.raises(ValueError, match=r"balance|targets"):
            wb.recipes.IntAttnEdit(**settings)


def test_it_can_be_cancelled_in_the_middle() -> None:
    model, before, flag, seen = tiny(), unchanged(tiny()), threading.Event(), list[Step]()

    def watch(step: Step) -> None:
        seen.append(step)
        flag.set()

    with pytest.raises(Cancelled):
        made(balance=0.5, on_step=watch, cancel=flag)
    assert len(seen) == 1
    with pytest.raises(KeyboardInterrupt):
        made(balance=0.5, on_step=_interrupt)
    assert_unchanged(model, before)


def _interrupt(step: Step) -> None:
    raise KeyboardInterrupt
