"""The simulation of a sweep on many workers, solved by hand, and the page that is made of it."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.throughput import MEASURED, WORKERS, page, simulated, table

MANY = 30_000


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_without_a_cost_it_is_proportional(workers: int) -> None:
    assert simulated([2.0], 0.0, workers, 24 * workers) == pytest.approx(30 * workers)


def test_one_worker_waits_for_each_item() -> None:
    assert simulated([1.0], 0.5, 1, 10) == pytest.approx(40)


def test_two_workers_wait_for_each_other() -> None:
    """Items are ready at 1, 1, 2.5, 3, 4, 4.5 and served at 1.5, 2, 3, 3.5, 4.5, 5: two in every 1.5 s."""
    assert simulated([1.0], 0.5, 2, 6) == pytest.approx(60 * 6 / 5)
    assert simulated([1.0], 0.5, 2, MANY) == pytest.approx(80, rel=1e-3)


def test_many_workers_are_as_fast_as_the_server() -> None:
    assert simulated([1.0], 0.5, 64, MANY) == pytest.approx(120, rel=1e-3)


def test_items_of_different_length_take_their_mean() -> None:
    assert simulated([1.0, 3.0], 0.0, 1, MANY) == pytest.approx(30, rel=0.02)
    assert simulated([1.0, 3.0], 0.0, 1, 50) == simulated([1.0, 3.0], 0.0, 1, 50), "drawn by seed"


def test_fewer_items_than_workers() -> None:
    assert simulated([1.0], 0.5, 8, 2) == pytest.approx(60 * 2 / 2)


def found(same: bool) -> dict[str, Any]:
    return {
        "what": "heads",
        "facts": 12,
        "measured": {str(n): 30.0 * n for n in MEASURED},
        "item seconds": 1.9,
        "service seconds": 0.02,
        "simulated": {str(n): 31.0 * n for n in WORKERS},
        "killed": {"finished when killed": 4, "of": 12, "kept as they were": True, "same as uninterrupted": same},
    }


def test_the_page_says_what_was_measured() -> None:
    text = page(found(True))
    assert table(found(True)) in text and "2.00 times as many" in text and "3,000 items a minute" in text
    assert "were kept as they were" in text and "NOT" not in text
    assert "NOT the same" in page(found(False))
    assert table(found(True)).splitlines()[2:4] == ["| 1 | 30.0 | 31.0 | 1.00 |", "| 2 | 60.0 | 62.0 | 2.00 |"]
