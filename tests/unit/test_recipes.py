"""Recipes: the built-in ones, the paper's settings, bad values, JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiny_facts import capitals, tiny
from workbench.editing.methods.table import RECIPES, Recipe
from workbench.editing.rewrite import rewrite

FACTS = capitals()
FRANCE = FACTS[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("unlearn-then-learn", ("unlearn", "learn")),
        ("learn-only", ("learn",)),
        ("unlearn-only", ("unlearn",)),
        ("paper", ("unlearn", "learn")),
    ],
)
def test_built_in_recipes(name: str, stages: tuple[str, ...]) -> None:
    short = Recipe.named(name, steps=2, early_stop=None)
    assert short.name == name
    edit = rewrite(tiny(), FRANCE, "L1MLP", recipe=short, pool=FACTS, progress=False)
    assert edit.stage_names == stages
    assert edit.recipe == short
    assert Recipe.named(name) == RECIPES[name]


def test_the_papers_settings() -> None:
    paper = Recipe.named("paper")
    assert isinstance(paper, Recipe)
    assert (paper.learning_rate, paper.batch_size, paper.stage_steps) == (5e-5, 1, (1000, 1000))
    assert (paper.retain_weight, paper.answers, paper.optimiser) == (0.0, "short", "adam")
    assert (paper.hinge, paper.early_stop) == (None, None)
    edit = rewrite(tiny(), FRANCE, "L1GATEUP L1MLP L2ATTN", recipe=Recipe.named("paper", steps=3), progress=False)
    assert edit.retain_ids == ()
    assert 0 < edit.delta().largest_move() <= 6 * 5e-5 * 1.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": ()}, "stages must be one or both of"),
        ({"stages": ("learn", "learn")}, "each at most once"),
        ({"stages": ("relearn",)}, "stages must be"),
        ({"objective": "hinge"}, "objective must be one of"),
        ({"objective": "npo", "stages": ("learn",)}, "'npo' is one of the unlearn stage"),
        ({"answers": "long"}, "answers must be one of"),
        ({"optimiser": "sgd"}, "optimiser must be one of"),
        ({"steps": 0}, "Recipe.steps must be whole numbers from 1, got 0"),
        ({"steps": (3,)}, "give one number per stage"),
        ({"steps": (3, 0)}, "Recipe.steps"),
        ({"learning_rate": 0.0}, "Recipe.learning_rate must be a positive number"),
        ({"learning_rate": float("nan")}, "Recipe.learning_rate"),
        ({"warmup": -1}, "Recipe.warmup"),
        ({"batch_size": 0}, "Recipe.batch_size"),
        ({"retain_weight": -1.0}, "Recipe.retain_weight"),
        ({"retain_size": -1}, "Recipe.retain_size"),
        ({"retain_batch_size": 0}, "Recipe.retain_batch_size"),
        ({"retain_draw": "at random"}, "retain_draw must be one of .*'half hardest'.*, got 'at random'"),
        ({"kl_on": "question"}, "kl_on must be one of .*'first token'.*, got 'question'"),
        ({"fisher_wordings": 0}, "Recipe.fisher_wordings must be a whole number from 1, got 0"),
        ({"end_below": -0.1}, "Recipe.end_below must be 0 or more"),
        ({"warmup": 1.5}, "Recipe.warmup must be a whole number from 0, got 1.5"),
        ({"batch_size": 2.5}, "Recipe.batch_size must be a whole number from 1"),
        ({"retain_size": 8.0}, "Recipe.retain_size must be a whole number from 0"),
        ({"retain_batch_size": 0.5}, "Recipe.retain_batch_size must be a whole number from 1"),
        ({"end_below": float("nan")}, "Recipe.end_below"),
        ({"average": -1}, "Recipe.average must be a whole number from 0"),
        ({"hinge": 0.0}, "Recipe.hinge must be None or in"),
        ({"hinge": 1.5}, "Recipe.hinge"),
        ({"early_stop": 0.0}, "Recipe.early_stop"),
        ({"early_stop": 1.5}, "Recipe.early_stop"),
        ({"max_gate": 1.0}, "Recipe.max_gate"),
    ],
)
def test_bad_recipes(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**change)


def test_recipes_as_json() -> None:
    mine = Recipe(steps=(3, 4), early_stop=None, name="mine")
    assert Recipe.from_dict(json.loads(json.dumps(mine.to_dict()))) == mine
    assert mine.stage_steps == (3, 4)
    assert Recipe(steps=5).stage_steps == (5, 5)
    with pytest.raises(ValueError, match=r"Unknown recipe setting\(s\) \['speed'\]"):
        Recipe.from_dict({"speed": 3})


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({}, 0.8),
        ({"draw_back": 0.6}, 0.6),
        ({"hinge": None}, 0.9),
        ({"draw_back": None}, None),
        ({"stages": ("unlearn",), "objective": "npo"}, None),
        ({"stages": ("unlearn",)}, 0.8),
    ],
)
def test_what_must_be_learned(changes: dict[str, Any], least: float | None) -> None:
    assert Recipe(**changes).least_learned == least
