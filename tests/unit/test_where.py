"""Traces of some layers and positions: the cells of the whole map, and no others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.plain_hooks import FACTS, FRANCE, single

OPTIONS: dict[str, Any] = {"pool": FACTS, "progress": False, "form": "cloze", "samples": 2}


@pytest.mark.parametrize("site", ["resid", "mlp"])
def test_chosen_cells_are_those_of_the_whole_map(site: Any) -> None:
    whole = wb.causal_trace(single(), FRANCE, site, **OPTIONS)
    told: list[int] = []
    some = wb.causal_trace(
        single(), FRANCE, site, layers=[2, 0], positions=["last subject token", -1, 1],
        on_layer=lambda site, layer, values: told.append(layer), **OPTIONS,
    )  # fmt: skip
    asked = torch.zeros(3, 5, dtype=torch.bool)
    asked[[[0], [2]], [1, 3, 4]] = True
    assert torch.equal(some.values.isnan(), ~asked)
    assert torch.allclose(some.values[asked], whole.values[asked], atol=1e-6)
    assert (some.values[0, 1], told) == (0.0, [0, 2])  # before the subject nothing differs
    settings = some.provenance["settings"]
    assert (settings["layers"], settings["positions"]) == ([0, 2], ["last subject token", -1, 1])
    assert some.plot() is not None and {one.layer for one in some.top(2, position=3)} == {0, 2}
    assert "layers" not in whole.provenance["settings"]


def test_positions_before_the_change_have_no_effect_and_the_right_baseline() -> None:
    whole, some = (
        wb.causal_trace(single(), FRANCE, **OPTIONS),
        wb.causal_trace(single(), FRANCE, positions=[0], **OPTIONS),
    )
    assert (some.clean, some.corrupted) == (whole.clean, whole.corrupted)
    assert some.values[:, 0].tolist() == [0.0] * 3 and bool(some.values[:, 1:].isnan().all())


def test_roles_are_chosen_of_several_texts() -> None:
    whole = wb.causal_trace(single(), FACTS[:2], **OPTIONS)
    some = wb.causal_trace(single(), FACTS[:2], positions=["last token"], **OPTIONS)
    last = whole.labels["position"].index("last token")
    assert torch.allclose(some.values[:, last], whole.values[:, last], atol=1e-6)
    assert bool(some.values[:, :last].isnan().all())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layers": []}, "layers must be some of 0 to 2"),
        ({"layers": [3]}, "layers must be some of 0 to 2"),
        ({"positions": []}, "positions= is empty"),
        ({"positions": [5]}, r"from 0 to 4, or roles of the text, \['tokens before the subject', .*got 5"),
        ({"positions": ["first token"]}, "got 'first token'"),
        ({"fact": FACTS[:2], "positions": [3]}, "indices are for one text"),
    ],
)
def test_places_that_are_none(options: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"fact": FRANCE, **OPTIONS, **options}
    with pytest.raises(ValueError, match=said):
        wb.causal_trace(single(), **given)
