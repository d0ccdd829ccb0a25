"""Forgetting by other losses than a refusal's: formulas by hand, rows, and fits that forget."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.small_fits import FRANCE, RETAIN, SPAIN, fitted, recipe, same
from tests.helpers.tiny_facts import tiny
from workbench.comparing.arms import ARMS, plan_arms
from workbench.editing.methods.table import Recipe
from workbench.editing.rewrite import rewrite
from workbench.editing.training.batching import PreparedRow
from workbench.editing.training.fit_rows import wanted_rows
from workbench.editing.training.objectives import NPO_BETA, SIMNPO_BETA, Forgotten, Given
from workbench.editing.training.rows import Row
from workbench.types import Selection

OTHERS: Any = ("gradient-difference", "npo", "simnpo")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def row() -> PreparedRow:
    """A row, of which only that it is one matters here."""
    return PreparedRow(Row((1, 2), (3,)), torch.zeros(2, 4))


@pytest.mark.parametrize("hinge", [None, 0.8])
def test_losses_by_hand(hinge: float | None) -> None:
    """Two rows, of two and three tokens, which the base gives at 0.5 and 1 nat a token; both short of the hinge."""
    nll = torch.tensor([0.5, 1.5], requires_grad=True)
    one, other = row(), row()
    base, tokens = {one: 0.5, other: 1.0}, {one: 2, other: 3}

    def loss(objective: Any) -> list[float]:
        return Forgotten(objective, hinge, base, tokens).loss(nll, [one, other]).tolist()

    def minus_log_sigmoid(x: float) -> float:
        return math.log1p(math.exp(-x))

    assert loss("gradient-difference") == pytest.approx([-0.5, -1.5])
    assert loss("npo") == pytest.approx([2 / NPO_BETA * minus_log_sigmoid(NPO_BETA * x) for x in (0.0, 3 * 0.5)])
    assert loss("simnpo") == pytest.approx([2 / SIMNPO_BETA * minus_log_sigmoid(SIMNPO_BETA * x) for x in (0.5, 1.5)])


@pytest.mark.parametrize("objective", OTHERS)
def test_what_is_forgotten_pushes_no_further(objective: Any) -> None:
    """With a hinge of 0.8, from a probability of the old answer of 0.2 on."""
    rows = [row(), row()]
    goal = Forgotten(objective, 0.8, dict.fromkeys(rows, 0.1), dict.fromkeys(rows, 1))
    nll = torch.tensor([-math.log(0.21), -math.log(0.19)], requires_grad=True)
    goal.loss(nll, rows).sum().backward()
    assert nll.grad is not None and nll.grad[0] < 0 and nll.grad[1] == 0
    assert goal.confidence(nll).tolist() == pytest.approx([0.79, 0.81])
    assert [goal.reached(x) for x in nll.tolist()] == [False, True]
    assert not Forgotten(objective, None, {}, {}).reached(100.0)
    given = Given(0.8)
    assert [given.reached(x) for x in (-math.log(0.81), -math.log(0.79))] == [True, False]


@pytest.mark.parametrize("answers", ["short", "own"])
def test_rows_hold_the_old_answer_in_unlearn_alone(answers: Any) -> None:
    """Where the model itself says it, whatever the style: nothing is forgotten at a place where it never stood."""
    model, settings = tiny(), recipe(objective="npo", answers=answers)
    rows = wanted_rows(model, [FRANCE, SPAIN], "unlearn", settings)
    n = len(rows) // 2
    for row, old in zip(rows, ["Paris"] * n + ["Madrid"] * n, strict=True):
        assert model.tokenizer.decode(list(row.answer[row.departs :])).strip() == old
    assert rows == wanted_rows(model, [FRANCE, SPAIN], "unlearn", recipe(objective="npo", answers="own"))
    same_as = wanted_rows(model, [FRANCE], "learn", recipe(answers=answers))
    assert wanted_rows(model, [FRANCE], "learn", settings) == same_as


RATES = {"adam": 0.05, "natural": 0.005}


@pytest.mark.parametrize("optimiser", RATES)
@pytest.mark.parametrize("objective", OTHERS)
def test_a_fit_forgets_and_then_learns(objective: Any, optimiser: Any) -> None:
    options: dict[str, Any] = {"objective": objective, "optimiser": optimiser, "learning_rate": RATES[optimiser]}
    options |= {"steps": (30, 60), "hinge": 0.8, "selection": "L1MLP L2MLP"}
    edit = fitted(**options)
    ends = {stage: [s for s in edit.history if s.stage == stage][-1] for stage in ("unlearn", "learn")}
    assert edit.history[0].loss < 0.01 and ends["unlearn"].loss > 2, "nats of the old answer where the model says it"
    assert ends["learn"].p_new is not None and ends["learn"].p_new > 0.1
    assert same(edit, fitted(**options))


def test_nothing_to_forget_is_refused() -> None:
    unknown = replace(SPAIN, answer="Tokyo", target="Berlin")  # the model says Madrid
    with pytest.raises(ValueError, match=r"'npo' has nothing to forget: after none of .* give 'Tokyo' a probability"):
        fitted(fact=unknown, objective="npo", hinge=0.8)


@pytest.mark.parametrize("arm", ["one-stage", "full", "lora"])
def test_arms_of_such_a_recipe(arm: Any) -> None:
    """One stage learns alone; baselines forget by the same loss."""
    settings = recipe(objective="simnpo", steps=4)
    (one, *_), notes = plan_arms(tiny(), Selection("L1MLP"), [arm], settings, (0, 1, 2))
    used: Any = one.recipe
    assert not notes and used.objective == ("cross-entropy" if arm == "one-stage" else "simnpo")
    if ARMS[arm].unit == "weights":
        edit = rewrite(tiny(), FRANCE, one.selection, recipe=one.recipe, retain=RETAIN, progress=False)
        assert edit.history[-1].stage == "learn"


def test_early_stop_is_of_the_forgotten_share() -> None:
    edit = fitted(objective="gradient-difference", stages=("unlearn",), steps=60, early_stop=0.9, hinge=None)
    assert edit.history[-1].step < 60
    assert Recipe.from_dict(edit.recipe.to_dict()) == edit.recipe
