"""Fits that are read along their path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.small_fits import FACTS, recipe, same
from tests.helpers.tiny_facts import tiny
from tests.unit.test_arms import RETAIN, SELECTION
from workbench.editing.rewrite import rewrite
from workbench.types import Edit

FRANCE = FACTS[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def test_a_stopped_fit_is_the_fit_of_so_many_steps() -> None:
    seen: list[Edit] = []

    def stop(edit: Edit) -> bool:
        seen.append(edit)
        return len(seen) == 4

    options: dict[str, Any] = {"retain": RETAIN, "progress": False}
    stopped = rewrite(tiny(), FRANCE, SELECTION, recipe=recipe(steps=(3, 9)), stop=stop, **options)
    assert [e.history[-1].step for e in seen] == [0, 1, 2, 3]
    assert {e.history[-1].stage for e in seen} == {"learn"}
    assert same(stopped, rewrite(tiny(), FRANCE, SELECTION, recipe=recipe(steps=(3, 4)), **options))
    assert same(stopped, seen[-1])
    assert same(seen[1], rewrite(tiny(), FRANCE, SELECTION, recipe=recipe(steps=(3, 2)), **options))
    assert stopped.history[-1].step == 4
