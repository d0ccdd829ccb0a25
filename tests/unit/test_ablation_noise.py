"""How much of an answer an ablation leaves, counted from a run with noise on the subject."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.plain_hooks import FACTS, FRANCE, SPAIN, single
from workbench.tracing.ablation import ablate
from workbench.tracing.causal import causal_trace


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@pytest.mark.parametrize("metric", ["logit_diff", "probability"])
def test_recovery_is_counted_from_the_noise_of_a_trace(metric: Any) -> None:
    model = single("llama")
    given: Any = {"form": "cloze", "metric": metric, "samples": 3, "noise": 1.5, "seed": 2}
    trace = causal_trace(model, FRANCE, corruption="noise", progress=False, **given)
    found = ablate(model, FRANCE, "L0MLP L1H2", corruption="noise", control=2, **given)
    assert found.clean == pytest.approx(trace.clean, abs=1e-5)
    assert trace.corrupted is not None and found.corrupted == pytest.approx(trace.corrupted, abs=1e-5)
    assert found.left == pytest.approx((found.ablated - trace.corrupted) / (found.clean - trace.corrupted), abs=1e-4)
    assert found.corruption == "noise" and all(control.left is not None for control in found.controls)
    assert f"recovery {found.left:.3g} (1 clean, 0 with noise on the subject)" in found.words
    again: Any = given | {"seed": 3}
    other = ablate(model, FRANCE, "L0MLP L1H2", corruption="noise", **again)
    assert other.corrupted != found.corrupted and other.ablated == found.ablated


def test_the_run_that_counts_as_zero_is_named_and_alone_changes() -> None:
    model = single("llama")
    plain = ablate(model, FRANCE, "L0MLP", form="cloze", pool=FACTS)
    assert (plain.corruption, plain.corrupted, plain.left) == (None, None, None) and "recovery" not in plain.words
    swap = ablate(model, FRANCE, "L0MLP", form="cloze", pool=FACTS, corruption="swap", against="target")
    noise = ablate(model, FRANCE, "L0MLP", form="cloze", pool=FACTS, corruption="noise")
    assert (swap.corruption, noise.corruption) == ("swap", "noise") and swap.corrupted != noise.corrupted
    assert plain.ablated == swap.ablated == noise.ablated and swap.prompt.partner == SPAIN.id
    both = ablate(model, FRANCE, "L0MLP", form="cloze", pool=FACTS, ablation="swap", corruption="noise")
    assert both.corruption == "noise" and both.prompt.partner == SPAIN.id
    refused: Any = ({"corruption": "mean"}, {"corruption": "noise", "samples": 0}, {"corruption": "noise", "noise": 0})
    for wrong in refused:
        with pytest.raises(
            ValueError, match=r"corruption must be one of|samples must be a whole|noise must be a number"
        ):
            ablate(model, FRANCE, "L0MLP", form="cloze", pool=FACTS, **wrong)
