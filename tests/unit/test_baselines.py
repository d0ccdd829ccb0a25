"""Fits that are read along their path, and what edits are compared with: same rows, same loss, other things move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.small_fits import FACTS, recipe, same
from tests.helpers.tiny_facts import tiny
from tests.unit.test_arms import QUICK, RETAIN, SELECTION
from workbench.editing.baselines import RATES, tune
from workbench.editing.rewrite import rewrite
from workbench.types import Edit, Selection

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


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_baseline_has_the_rows_and_the_loss_of_the_edit(method: Any) -> None:
    model, options = tiny(), {"recipe": QUICK, "retain": RETAIN, "progress": False}
    edit = rewrite(model, FRANCE, SELECTION, **options)
    tuned = tune(model, FRANCE, Selection(SELECTION), method, **options)
    assert tuned.history[0].loss == pytest.approx(edit.history[0].loss, abs=1e-5)
    assert [(s.stage, s.step) for s in tuned.history] == [(s.stage, s.step) for s in edit.history]
    assert tuned.history[2].loss < tuned.history[0].loss


def test_full_fine_tuning_moves_all_layers_and_nothing_else() -> None:
    model = tiny()
    tuned = tune(model, FRANCE, Selection("L1H2"), "full", recipe=QUICK, retain=RETAIN, progress=False)
    base, now = model.hf.state_dict(), tuned.model.hf.state_dict()
    moved = {name for name in base if not torch.equal(base[name], now[name])}
    assert moved == {name for name in base if ".layers." in name}, "whatever is selected"
    assert tuned.trained == sum(base[name].numel() for name in moved)
    assert {n for n in base if base[n].data_ptr() != now[n].data_ptr()} == moved  # all else is shared
    # The first step of AdamW is its rate, and two stages of 2 and 5 steps can go no farther than 7.
    most = max(float((base[n] - now[n]).abs().max()) for n in moved)
    assert RATES["full"] < most <= 7 * RATES["full"] * 1.5


LORAS = [
    ("L1N3", 56 + 42, {"1.mlp.down_proj"}),  # 1 gate: the smallest there is
    ("L1MLP L1H2", 56 + 42, {"1.mlp.down_proj"}),  # 64 gates are nearer to 98 than to 188
    ("L1N3 L2N3 L2N4 L1MLP", 56 + 42, {"1.mlp.down_proj"}),  # the module with the most gates
    ("L0MLP L1MLP L2MLP", 2 * 98, {"0.mlp.down_proj", "1.mlp.down_proj"}),  # 168 gates
]


@pytest.mark.parametrize(("selection", "trained", "modules"), LORAS)
def test_a_lora_has_about_as_many_weights_as_the_selection_has_gates(
    selection: str, trained: int, modules: set[str]
) -> None:
    """On the tiny Llama rank 1 has inputs + outputs: 56 + 42 (down), 48 + 42 (o)."""
    tuned = tune(tiny(), FRANCE, Selection(selection), "lora", recipe=QUICK, retain=RETAIN, progress=False)
    assert (tuned.rank, tuned.trained) == (1, trained)
    held = {n.split(".layers.")[1].split(".lora_")[0] for n, _ in tuned.model.hf.named_parameters() if "lora_" in n}
    assert held == modules


def test_a_tuned_view_is_no_base() -> None:
    tuned = tune(tiny(), FRANCE, Selection("L1H2"), "lora", recipe=QUICK, retain=RETAIN, progress=False)
    assert tuned.model.edited
    assert not tiny().edited
    with pytest.raises(ValueError, match="edited already"):
        tune(tuned.model, FRANCE, Selection("L1H2"), "lora", recipe=QUICK, retain=RETAIN)
    with pytest.raises(ValueError, match=r"method must be one of \('full', 'lora'\), got 'qlora'"):
        tune(tiny(), FRANCE, Selection("L1H2"), "qlora", recipe=QUICK, retain=RETAIN)  # type: ignore[arg-type]
