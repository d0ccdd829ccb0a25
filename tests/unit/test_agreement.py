"""Agreement of two maps or rankings, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.plain_hooks import FACTS, FRANCE, single

NAN = float("nan")


def heads(values: list[list[float]], **options: Any) -> wb.EffectMap:
    shape = (len(values), len(values[0]))
    labels = {"layer": tuple(f"L{i}" for i in range(shape[0])), "head": tuple(f"H{i}" for i in range(shape[1]))}
    shared: dict[str, Any] = {
        "labels": labels,
        "unit": "head",
        "metric": "logit_diff",
        "method": "patching",
        "clean": 1.0,
    }
    return wb.EffectMap(values=torch.tensor(values), axes=("layer", "head"), **{**shared, **options})


def test_only_what_both_maps_have_is_ranked() -> None:
    whole, some = heads([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), heads([[NAN, 9.0, NAN], [8.0, NAN, 7.0]])
    assert wb.agreement(whole, some) == pytest.approx(-1) and wb.agreement(some, whole) == pytest.approx(-1)
    assert math.isnan(wb.agreement(heads([[NAN, 1.0]]), heads([[1.0, 2.0]])))


def test_rankings_agree_by_what_both_name() -> None:
    first, second = wb.Selection("L0H4 L1H3 L0H1 L2MLP"), ["L1N7", "L0H1", "L1H3", "L0H4"]
    assert wb.agreement(first, second) == pytest.approx(-1)
    maps = wb.attribute(single(), FRANCE, ("head", "mlp"), pool=FACTS, progress=False)
    ranked = wb.ranked(maps, k=5)
    assert wb.agreement(ranked, ranked) == pytest.approx(1)
    assert wb.agreement(ranked, list(reversed(ranked))) == pytest.approx(-1)


def test_the_first_of_both_maps() -> None:
    one, other = heads([[9.0, -8.0, 1.0], [7.0, 0.0, 2.0]]), heads([[5.0, 9.0, -6.0], [4.0, 0.0, 0.5]])
    found = wb.overlap(one, other, 2)
    assert (found.shared, found.share, found.chance, found.n) == (("L0H0",), 0.5, 2 / 6, 6)
    assert repr(found) == "Overlap(1 of the first 2, 0.333 by chance)"
    assert wb.overlap(one, other, 2, by="abs").shared == ("L0H1",)
    assert wb.overlap(one, other, 3, by="abs").shared == ("L0H0", "L0H1")
    assert wb.overlap(one, other, 6).share == 1.0
    falling = {"metric": "kl"}
    assert wb.overlap(heads([[-3.0, 1.0]], **falling), heads([[-2.0, -1.0]], **falling), 1).shared == ("L0H0",)


def test_cells_that_one_map_lacks_are_in_neither_ranking() -> None:
    whole, some = heads([[9.0, 8.0, 1.0]]), heads([[NAN, 2.0, 3.0]])
    found = wb.overlap(whole, some, 1)
    assert (found.shared, found.n) == ((), 2)
    with pytest.raises(ValueError, match=r"k must be a whole number from 1 to 2 \(cells that both maps have\), got 3"):
        wb.overlap(whole, some, 3)


def test_rankings_share_what_they_name() -> None:
    found = wb.overlap(wb.Selection("L0H4 L1H3 L0H1"), ["L1H3", "L2MLP"], 2)
    assert (found.shared, found.share, found.chance, repr(found)) == (("L1H3",), 0.5, None, "Overlap(1 of the first 2)")
    with pytest.raises(ValueError, match=r"from 1 to 2 \(what the shorter ranking has\), got 3"):
        wb.overlap(wb.Selection("L0H4 L1H3 L0H1"), ["L1H3", "L2MLP"], 3)


def test_cells_of_traces_have_their_tokens() -> None:
    trace = wb.causal_trace(single(), FRANCE, "mlp", pool=FACTS, form="cloze", samples=2, progress=False)
    (name,) = wb.overlap(trace, trace, 1).shared
    assert name.startswith("L") and " at " in name and name.endswith("'")


def test_edges_are_compared_too() -> None:
    contrast = wb.Contrast(
        clean="The capital of France is", corrupted="The capital of Spain is", answer=" Paris", wrong=" Madrid"
    )
    eap, ig = (wb.edges(single(), contrast, method=method, progress=False) for method in mistyped(("eap", "eap-ig")))
    assert wb.agreement(eap, eap) == pytest.approx(1) and -1 < wb.agreement(eap, ig) < 1
    found = wb.overlap(eap, ig, 10, by="abs")
    assert found.n == eap.n_edges and set(found.shared) == {str(e) for e in eap.top(10)} & {str(e) for e in ig.top(10)}
    assert wb.overlap(eap.top(10), ig.top(10), 10).shared == found.shared
    lowest = wb.overlap(eap, eap, 4).shared
    assert lowest == tuple(str(edge) for edge in eap.top(4, by="lowest"))


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda a: wb.agreement(a, ["L0H1"]), TypeError, "Two maps of one kind, or two rankings"),
        (lambda a: wb.agreement("L0H1 L0H2", ["L0H1"]), TypeError, "A ranking is a selection"),
        (lambda a: wb.agreement(["L0H1", "L0H1"], ["L0H1"]), ValueError, r"got \['L0H1'\] more often"),
        (lambda a: wb.overlap(a, a, 0), ValueError, "k must be a whole number from 1 to 2"),
        (
            lambda a: wb.overlap(a, a, 1, by=mistyped("size")),
            ValueError,
            r"by must be one of \('value', 'abs'\), got 'size'",
        ),
        (lambda a: wb.overlap(a, heads([[1.0]]), 1), ValueError, r"differ in shape: \(1, 2\) and \(1, 1\)"),
    ],
)
def test_what_cannot_be_compared(call: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call(heads([[1.0, 2.0]]))


def test_less_of_a_distance_is_more_of_a_probability() -> None:
    rising, falling = heads([[1.0, 2.0, 3.0]]), heads([[-1.0, -2.0, -3.0]], metric="kl")
    assert wb.agreement(rising, falling) == pytest.approx(1)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (heads([[1.0, 2.0]], unit="kv"), "differ in unit: 'head' and 'kv'"),
        (heads([[1.0, 2.0]], labels={"layer": ("L7",), "head": ("H0", "H1")}), "layers: 'L0' in one is 'L7'"),
        (heads([[1.0, 2.0, 3.0]]), r"differ in shape: \(1, 2\) and \(1, 3\)"),
    ],
)
def test_maps_of_other_places_are_refused(other: wb.EffectMap, message: str) -> None:
    for compared in (
        lambda: wb.agreement(heads([[1.0, 2.0]]), other),
        lambda: wb.overlap(heads([[1.0, 2.0]]), other, 1),
    ):
        with pytest.raises(ValueError, match=message):
            compared()
