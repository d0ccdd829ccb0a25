"""A fit that is cancelled while it is being prepared ends at the next batch, and leaves nothing half done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.small_fits import FACTS, FRANCE, RETAIN, assert_unchanged, recipe, same, unchanged
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import knowing
from workbench.editing.retain import default_retain
from workbench.editing.rewrite import rewrite
from workbench.editing.training import batching
from workbench.facts.known import known_facts
from workbench.models.load import LoadedModel
from workbench.types import Edit
from workbench.types.cancelling import ASKING, PREPARING, Cancelled

SETTINGS = recipe(answers="own", contexts=True, optimiser="natural", learning_rate=0.02, steps=(2, 2))


class AtLook:
    """A flag that is set from the n-th look on."""

    def __init__(self, at: int) -> None:
        self.at, self.looks = at, 0

    def is_set(self) -> bool:
        self.looks += 1
        return self.looks >= self.at


@pytest.fixture(autouse=True)
def small_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own files, and few rows in a batch, so that there are several."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(batching, "PART_TOKENS", {"cpu": 96})


def fresh() -> LoadedModel:
    return knowing(tiny_llama(tied=False), FACTS)


def fit(model: LoadedModel, cancel: Any = None, **options: Any) -> Edit:
    given: dict[str, Any] = {"recipe": SETTINGS, "retain": RETAIN, "pool": FACTS, "progress": False}
    return rewrite(model, FRANCE, 20, **{**given, **options}, cancel=cancel)


def test_cancelling_anywhere_in_the_preparation_leaves_all_as_it_was() -> None:
    model = fresh()
    whole, before, ends = fit(fresh()), unchanged(model), list[str]()
    for at in range(1, 200):
        model.cache.clear()
        with pytest.raises(Cancelled) as ended:
            fit(model, AtLook(at))
        ends.append(str(ended.value))
        if "before step" in ends[-1]:
            break
        assert_unchanged(model, before)
    in_preparation = [words for words in ends if PREPARING in words]
    assert len(in_preparation) > 12, "it looks often, not once"
    assert ends[-1].startswith("Cancelled in stage 'unlearn' before step 0")
    assert_unchanged(model, before)
    assert same(fit(model), whole), "what was kept in memory by cancelled fits is what a fit computes"


def test_each_part_of_the_preparation_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the flag is set while a function computes, that function is not called again."""
    import workbench.editing.training.sensitivity as sensitivity

    model, rows = fresh(), list[int]()
    real = sensitivity._likelihood

    class Flag:
        on = False

        def is_set(self) -> bool:
            return self.on

    flag = Flag()

    def counted(*arguments: Any) -> torch.Tensor:
        rows.append(1)
        flag.on = True
        return real(*arguments)

    monkeypatch.setattr(sensitivity, "_likelihood", counted)
    with pytest.raises(Cancelled, match=PREPARING):
        fit(model, flag)
    assert len(rows) == 1
    assert len(model.cache.fisher) == len(model.cache.hidden) == 0


def test_asking_what_a_model_knows_can_be_cancelled(tmp_path: Path) -> None:
    model = fresh()
    with pytest.raises(Cancelled, match=ASKING):
        known_facts(model, FACTS, progress=False, cancel=AtLook(2))
    assert not list(tmp_path.rglob("*.json"))
    with pytest.raises(Cancelled, match=ASKING):
        default_retain(model, [FRANCE], pool=FACTS, progress=False, cancel=AtLook(1))
    assert len(known_facts(model, FACTS, progress=False, cancel=AtLook(10**6))) == len(FACTS)
