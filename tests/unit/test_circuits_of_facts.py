"""The benchmark that asks whether the default selection is a circuit: tables by hand, and a fact of a tiny model."""

from __future__ import annotations

from typing import Any

import pytest

import workbench as wb
from benchmarks.circuits_of_facts import WORDS, items_of, measured, tables
from tests.helpers.edges import FACTS, FRANCE
from tests.helpers.plain_hooks import single
from workbench.types.faithfulness_curve import SIZES

POOL = wb.FactSet(FACTS, name="capitals")


def result(shift: float) -> dict[str, Any]:
    """What one fact gives: every recovery is its place among the sizes plus a shift."""
    return {
        "counts": [int(size * 1000) for size in SIZES],
        "recovery": {name: [i + shift for i in range(len(SIZES))] for name in WORDS},
        "cpr": {name: 0.5 + shift for name in WORDS},
        "cmd": {name: 0.25 for name in WORDS},
        "neurons": {name: {"recovery": shift, "completeness": 1 - shift} for name in ("default", "eap-ig", "random")},
    }


def test_tables_are_means_over_facts() -> None:
    found = tables({"a": result(0.0), "b": result(1.0), "c": result(0.5)})
    first, _, row, *rest = found["curves"].splitlines()
    assert "0.5% (5) | 1.0% (10)" in first
    assert row.startswith("| the default selection's order | 2.50 [")  # the third size is the first that is shown
    assert row.count(" | ") == 9
    assert len(rest) == len(WORDS) - 1
    assert found["neurons"].splitlines()[2].startswith("| default | 0.50 [")
    assert found["facts"].splitlines()[3] == "| b |" + " 1.50 / 0.25 |" * len(WORDS)


def test_a_fact_of_a_tiny_model_is_measured_on_other_partners_than_it_is_ranked_by() -> None:
    model = single()
    items = items_of(model, FRANCE, POOL)
    assert len({tuple(item.corrupted or ()) for item in items}) == len(items) > 1
    found = measured(model, FRANCE, items, POOL, neurons=20)
    assert set(found["recovery"]) == set(WORDS) == set(found["cpr"]) == set(found["cmd"])
    assert found["parts"] == "heads and neurons"
    assert found["counts"] == tuple(int(size * 3 * (6 + 56)) for size in SIZES)
    assert len(found["judged_against"]) == len(items) - 1
    assert found["neurons"]["default"]["completeness"] != pytest.approx(found["neurons"]["random"]["completeness"])
