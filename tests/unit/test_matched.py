"""Arms matched on number and on gain: how many neurons an order takes, and what the summary pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import matched
from benchmarks.lib.code import Code
from benchmarks.lib.rates import vars_of
from benchmarks.lib.store import Line
from tests.helpers.tiny_facts import MAKERS, capitals, knowing
from workbench.types.intervals import wilson


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> matched.Orders:
    facts = capitals()
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    for module in ("facts.known", "evaluation.evaluate"):
        monkeypatch.setattr(f"workbench.{module}.load_facts", lambda: facts, raising=False)
    monkeypatch.setattr("workbench.facts.known._bundled_facts", lambda: facts)
    monkeypatch.setattr(matched, "NEURONS", 20)
    return matched.Orders(knowing(MAKERS["llama"](), facts), facts[0], 0)


def test_how_many_neurons_reach_a_gain() -> None:
    squares = torch.tensor([4.0, 1.0, 1.0, 2.0])
    assert [matched.matched_number(squares, wanted) for wanted in (4.0, 4.5, 6.0, 8.0, 9.0)] == [1, 2, 3, 4, 4]


def test_every_arm_orders_every_neuron_once(orders: matched.Orders) -> None:
    n = len(orders.scores)
    for arm in matched.ARMS:
        order = orders.of(arm)
        assert len(set(order)) == len(order) and (len(order) == n or arm == "random-layers"), arm
    assert orders.of("gradient")[0] == int(orders.gain.argmax()) and orders.of("fisher")[0] == int(orders.cost.argmin())
    d_mlp = orders.model.shape.d_mlp
    traced = [i // d_mlp for i in orders.of("trace")]
    assert traced == sorted(traced, key=traced.index), "whole MLPs, one after the other"


def test_arms_have_the_number_or_the_gain_of_the_default(orders: matched.Orders) -> None:
    assert [len(orders.selection(arm, "number")[0]) for arm in ("default", "fisher", "random-anywhere")] == [20] * 3
    assert orders.selection("default", "gain")[1] == pytest.approx(1)
    for arm in ("gradient", "fisher", "random-anywhere", "eap-ig", "trace", "patching"):
        picked, gain = orders.selection(arm, "gain")
        assert len(picked) >= 20 and gain >= 1 - 1e-6, arm
    assert len(orders.selection("all", "number")[0]) == len(orders.scores)


def result(fact: str, new: int, *, strength: float | None = 1.0) -> dict[str, Any]:
    rates = {name: vars_of(wilson(9, 10)) for name in matched.OUTCOMES} | {"new": vars_of(wilson(new, 10))}
    about = {"fact": fact, "neurons": 20, "gain": 1.0, "strength": strength, "kl": 0.01}
    return about if strength is None else about | {"rates": {"learn": rates}}


def test_the_default_is_compared_on_the_same_facts_and_at_the_same_kl() -> None:
    found = {
        "a": {"number/default": result("a", 10), "gain/fisher": result("a", 4)},
        "b": {"number/default": result("b", 6), "gain/fisher": result("b", 0, strength=None)},
        "c": {"number/default": result("c", 8), "gain/fisher": result("c", 6)},
    }
    rows = matched.summary(found)
    assert (rows["gain/fisher"]["facts"], rows["gain/fisher"]["not reached"]) == (2, 1)
    difference = rows["gain/fisher"]["default minus it"]["new"]
    assert difference["clusters"] == 2 and 0 < difference["value"] < 0.5
    assert rows["number/default"]["default minus it"] == {} and rows["number/default"]["rates"]["new"][
        "value"
    ] == pytest.approx(0.8)
    assert "2 (1 have no such KL)" in matched.table(rows)
    assert "no strength has that KL" in matched.described(found["b"]["gain/fisher"])


def test_methods() -> None:
    assert matched.recipe_of("ia3", 3).to_dict()["stages"] == ["learn"] and matched.recipe_of("memit", 3).seed == 3
    with pytest.raises(ValueError, match="method must be 'ia3' or 'memit', got 'rome'"):
        matched.recipe_of("rome", 0)


def test_only_facts_with_every_arm_are_in_a_table() -> None:
    def line(run: tuple[str, int], fact: str, arm: str) -> Line:
        settings = {"method": run[0], "seed": run[1]}
        return Line(f"{run[0]}-{run[1]}-{fact}/{arm}", settings, Code(None, None, None), result(fact, 9))

    lines = [line(("ia3", 0), "a", arm) for arm in matched.MEASURED]
    lines += [line(("ia3", 0), "b", arm) for arm in matched.MEASURED[:-1]]
    lines += [line(("memit", 1), "a", "number/default")]
    found = matched.finished(lines)
    assert {run: list(facts) for run, facts in found.items()} == {"ia3-0": ["a"]}
    assert tuple(found["ia3-0"]["a"]) == matched.MEASURED and len(matched.MEASURED) == 16
