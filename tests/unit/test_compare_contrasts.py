"""Maps before and after an edit of contrasts, and of several facts or contrasts: means with their errors."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, edit_of, knowing, some_gates
from workbench.comparing.maps import MapSite, compare_maps
from workbench.models.load import LoadedModel
from workbench.types import Edit, EffectMap
from workbench.types.cancelling import Cancelled

FACTS = capitals()


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), FACTS)


@lru_cache
def edit() -> Edit:
    return edit_of(tiny(), some_gates(tiny(), (1, "post"), seed=0))


@lru_cache
def contrasts() -> tuple[wb.Contrast, ...]:
    return tuple(wb.Contrast.of(tiny(), fact, form="cloze", pool=FACTS) for fact in FACTS[:3])


def same(first: EffectMap, second: EffectMap) -> None:
    assert torch.equal(first.values, second.values) and first.labels == second.labels
    assert (first.clean, first.corrupted) == (second.clean, second.corrupted)


@pytest.mark.parametrize("site", ["resid", "head"])
def test_a_contrast_of_a_fact_gives_what_the_fact_gives(site: MapSite) -> None:
    options: dict[str, Any] = {"site": site, "metric": "logit_diff", "pool": FACTS, "progress": False}
    of_fact = compare_maps(tiny(), edit(), FACTS[0], form="cloze", **options)
    of_contrast = compare_maps(tiny(), edit(), contrasts()[0], **options)
    for name in ("before", "after", "difference"):
        same(getattr(of_fact, name), getattr(of_contrast, name))
    assert float(of_contrast.difference.values.abs().nan_to_num().max()) > 0


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("site", ["resid", "head"])
def test_of_several_the_maps_are_means_with_the_error_of_their_differences(site: MapSite, normalise: bool) -> None:
    options: dict[str, Any] = {"site": site, "metric": "logit_diff", "normalise": normalise, "progress": False}
    many = compare_maps(tiny(), edit(), list(contrasts()), **options)
    each = [compare_maps(tiny(), edit(), one, **options) for one in contrasts()]
    if site == "head":
        stacked = torch.stack([one.difference.values for one in each])
        assert torch.allclose(many.difference.values, stacked.mean(0), atol=1e-6)
        assert many.difference.stderr is not None
        assert torch.allclose(many.difference.stderr, stacked.std(0) / 3**0.5, atol=1e-6)
        base = wb.attribute(tiny(), list(contrasts()), "head", normalise=normalise, progress=False)
    else:
        base = wb.causal_trace(
            tiny(), list(contrasts()), metric="logit_diff", normalise=normalise, progress=False, corruption="swap"
        )
    same(many.before, base)
    assert many.before.stderr is not None and base.stderr is not None
    assert torch.equal(many.before.stderr.nan_to_num(), base.stderr.nan_to_num())
    assert many.difference.n == 3 and len(many.difference.prompts) == 3
    assert many.difference.clean == pytest.approx(sum(one.difference.clean for one in each) / 3, abs=1e-6)
    moved = torch.allclose(many.difference.values.nan_to_num(), (many.after.values - base.values).nan_to_num())
    assert moved


def test_steps_are_counted_over_all_and_a_cancel_says_where() -> None:
    steps: list[tuple[int, int]] = []
    compare_maps(
        tiny(), edit(), list(contrasts()[:2]), on_step=lambda done, total: steps.append((done, total)), progress=False
    )
    n = tiny().shape.n_layers
    assert steps[-1] == (4 * n, 4 * n) and [done for done, _ in steps] == sorted(done for done, _ in steps)

    class AfterHalf:
        def is_set(self) -> bool:
            return bool(seen) and seen[-1] > 2 * n

    seen: list[int] = []
    flag: Any = AfterHalf()
    with pytest.raises(Cancelled, match="map after the edit"):
        compare_maps(
            tiny(),
            edit(),
            list(contrasts()[:2]),
            on_step=lambda done, _: seen.append(done),
            cancel=flag,
            progress=False,
        )


def test_what_does_not_fit_is_said() -> None:
    before = compare_maps(tiny(), edit(), contrasts()[0], progress=False).before
    with pytest.raises(ValueError, match="before= is the map of one"):
        compare_maps(tiny(), edit(), list(contrasts()), before=before, progress=False)
    with pytest.raises(ValueError, match="form= is for facts"):
        compare_maps(tiny(), edit(), contrasts()[0], form="cloze", progress=False)
    with pytest.raises(ValueError, match="measured on another text"):
        compare_maps(tiny(), edit(), contrasts()[1], before=before, progress=False)
    mixed: Any = [FACTS[0], contrasts()[0]]
    with pytest.raises(ValueError, match="not both at once"):
        compare_maps(tiny(), edit(), mixed)
