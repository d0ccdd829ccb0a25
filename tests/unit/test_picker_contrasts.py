"""CircuitPicker with contrasts: the maps, their code, and for which contrast something was picked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.panels import shown, until
from tests.helpers.pickers import FACTS, FRANCE, consistent, pick, tiny
from tests.helpers.wire import enter
from workbench.types.effect import Corruption

PAIR: dict[str, Any] = {"clean": "The capital of France is", "corrupted": "The capital of Spain is"}


def pair(**other: Any) -> wb.Contrast:
    return wb.Contrast(**{**PAIR, "answer": " Paris", "wrong": " Madrid", "positions": {"country": 3}, **other})


def other() -> wb.Contrast:
    return wb.Contrast(
        clean="The capital of Spain is",
        corrupted="The capital of France is",
        answer=" Madrid",
        wrong=" Paris",
        positions={"country": 3},
    )


def made(contrast: Any, *names: Any, **options: Any) -> wb.CircuitPicker:
    picker = wb.CircuitPicker(tiny(), contrast, compute=False, **options)
    picker.compute(*(names or ("heads", "mlps", "resid"))).wait()
    return picker


def run_code(picker: wb.CircuitPicker) -> dict[str, Any]:
    """The variables that the picker's code makes, with its model."""
    _, _, rest = picker.code.partition("contrast = ")
    held: dict[str, Any] = {"wb": wb, "model": tiny()}
    exec(f"contrast = {rest}", held)
    return held


def test_the_maps_are_those_of_the_public_calls_and_the_code_makes_them_again() -> None:
    picker = made(pair())
    options: dict[str, Any] = {"metric": "logit_diff", "normalise": True, "progress": False}
    assert torch.equal(
        picker.maps["heads"].values, wb.attribute(tiny(), pair(), "head", method="patching", **options).values
    )
    assert torch.equal(picker.maps["resid"].values, wb.causal_trace(tiny(), pair(), **options).values)
    picker.selection = "L1H3"
    held = run_code(picker)
    assert torch.equal(held["heads"].values, picker.maps["heads"].values)
    assert torch.equal(held["trace_resid"].values, picker.maps["resid"].values)
    assert held["selection"] == wb.Selection("L1H3") and held["contrast"] == pair()
    said = shown(picker)
    assert "against the corrupted prompt" in said and "The capital of France is" in said
    assert "from the change on" in picker.trace.col_title and "subject" not in picker.trace.col_title
    pick(picker.heads, [1, 3], [2, 0])
    consistent_names = {"L1H3", "L2H0"}
    assert set(map(str, picker.selection)) == consistent_names
    assert picker.error is None and picker.fact == pair()


@pytest.mark.parametrize("corruption", ["swap", "noise"])
def test_a_contrast_brings_its_corruption_and_the_choice_for_facts_stays(corruption: Corruption) -> None:
    of_fact = wb.Contrast.of(tiny(), FRANCE, corruption=corruption, form="cloze", pool=FACTS)
    picker = made(of_fact, "heads", corruption="noise" if corruption == "swap" else "swap")
    assert picker.maps["heads"].corruption == corruption and picker.maps["heads"].method == "patching"
    assert picker._measures._corruption.layout.display == "none"
    kept = picker.measure
    picker.show(of_fact, picker.maps)
    assert picker.measure == kept
    picker.fact = FRANCE
    assert picker._measures._corruption.layout.display != "none"
    assert picker.corruption != corruption


def test_of_several_the_maps_are_means_over_named_positions_with_errors() -> None:
    both = [pair(), other()]
    picker = made(both)
    trace, heads = picker.maps["resid"], picker.maps["heads"]
    assert trace.labels["position"] == ("tokens before the change", "country", "last token")
    assert trace.stderr is not None and heads.stderr is not None and heads.n == 2
    want = wb.causal_trace(tiny(), both, metric="logit_diff", normalise=True, progress=False)
    assert torch.equal(trace.values.nan_to_num(), want.values.nan_to_num()) and picker.fact == both
    assert torch.equal(run_code(picker)["heads"].values, heads.values)
    enter(picker.heads, hover=[1, 3])
    assert "standard error" in picker.heads.tip
    assert "means over 2 contrasts" in shown(picker) and "and 1 more" in picker.bar.subject
    assert picker.ablation.problem == "An ablation is of one contrast."


def test_the_bar_says_for_which_contrast_something_was_picked() -> None:
    picker = made(pair(id="first"), "heads")
    pick(picker.heads, [1, 3])
    picker.fact = other()
    pick(picker.heads, [1, 3], [2, 0])
    assert {str(c): subject for c, subject in picker.bar.picked_elsewhere.items()} == {"L1H3": "first"}


def test_ablation_lens_attention_and_writes_are_of_the_contrast() -> None:
    picker = made(pair(), "heads")
    picker.selection = "L1H3 L2MLP"
    for kind in ("zero", "mean", "swap"):
        result = picker.ablation.run(kind).wait()
        want = wb.ablate(tiny(), pair(), "L1H3 L2MLP", ablation=kind, pool=wb.load_facts() if kind == "mean" else None)
        assert result.ablated == pytest.approx(want.ablated, abs=1e-6)
    assert "as in the corrupted prompt" in picker.ablation._shown.value
    grid = picker.lens.run().wait()
    assert grid.answer_token == " Paris" and "wb.lens_grid(model, contrast" in picker.code
    until(lambda: picker._linked.attention is not None)
    picker.pinned = "L1H3"
    assert picker.job is not None
    picker.job.wait()
    until(lambda: "Writes" in picker.side.cards[0].writes.value)
    held = run_code(picker)
    assert held["lens"].answer_token == " Paris" and held["ablation"].ablated == pytest.approx(result.ablated, abs=1e-6)


def test_states_have_maps_and_no_text() -> None:
    ids = torch.tensor([tiny().token_ids("The capital of France is"), tiny().token_ids("The capital of Spain is")])
    with torch.no_grad():
        states = tiny().hf.get_input_embeddings()(ids)
    contrast = wb.Contrast(clean=states[0], corrupted=states[1], answer=5, wrong=6, id="states")
    picker = wb.CircuitPicker(tiny(), contrast, compute=False)
    picker.compute("heads", "resid").wait()
    assert set(picker.maps) == {"heads", "resid"} and "given as states" not in picker.message


def test_what_does_not_fit_is_said_and_the_maps_before_stay() -> None:
    with pytest.raises(ValueError, match="not both at once"):
        wb.CircuitPicker(tiny(), [FRANCE, pair()], compute=False)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="at least one fact"):
        wb.CircuitPicker(tiny(), [], compute=False)
    picker = wb.CircuitPicker(tiny(), pair(corrupted="The capital of Spain and Italy is"), compute=False)
    with pytest.raises(ValueError, match="paired by position"):
        picker.compute("heads").wait()
    assert "paired by position" in picker.message
    consistent(wb.CircuitPicker(tiny(), FRANCE, compute=False))
