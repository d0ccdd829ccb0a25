"""Effect maps: ranking, what a cell stands for, tables, and maps that do not fit their labels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch

from workbench.types import Component, EffectMap, TracedPrompt

NAN = math.nan


def effect_map(cells: Any, second: str | None = "head", **options: Any) -> EffectMap:
    """A map [layer] or [layer, second] with made-up labels."""
    tensor = torch.as_tensor(cells)
    axes = ("layer",) if second is None else ("layer", second)
    labels = {axis: tuple(f"{axis}{i}" for i in range(n)) for axis, n in zip(axes, tensor.shape, strict=True)}
    given: dict[str, Any] = {
        "values": tensor,
        "axes": axes,
        "labels": labels,
        "unit": "head" if second == "head" else "mlp",
        "metric": "logit_diff",
        "method": "patching",
        "clean": 1.0,
    }
    return EffectMap(**{**given, **options})


def traced(n: int, subject: tuple[int, ...], fact_id: str = "a") -> TracedPrompt:
    return TracedPrompt(
        fact_id=fact_id,
        form="cloze",
        text="text",
        prefix="",
        token_ids=tuple(range(n)),
        tokens=tuple(f"t{i}" for i in range(n)),
        subject=subject,
        answer_id=1,
        answer_token="x",
    )


HEADS = effect_map([[0.1, -5.0, 0.3], [2.0, 0.0, -0.2]])


def test_top_by_value() -> None:
    assert str(HEADS.top(1)) == "L1H0"
    assert str(HEADS.top(3)) == "L1H0 L0H2 L0H0"
    assert str(HEADS.top(6)) == "L1H0 L0H2 L0H0 L1H1 L1H2 L0H1"


def test_top_by_absolute_value() -> None:
    assert str(HEADS.top(3, by="abs")) == "L0H1 L1H0 L0H2"


def test_ties_keep_the_order_of_the_model() -> None:
    assert str(effect_map([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]).top(4)) == "L0H0 L0H1 L0H2 L1H0"


def test_top_of_some_layers() -> None:
    assert str(HEADS.top(2, layers=range(1))) == "L0H2 L0H0"
    assert str(HEADS.top(3, layers=range(1, 2))) == "L1H0 L1H1 L1H2"
    with pytest.raises(ValueError, match=r"k must be a whole number from 1 to 3"):
        HEADS.top(4, layers=range(1, 2))


@pytest.mark.parametrize("k", [0, -1, 7, 1.0, "2"])
def test_bad_k(k: Any) -> None:
    with pytest.raises(ValueError, match=r"k must be a whole number from 1 to 6 for this map, got"):
        HEADS.top(k)


@pytest.mark.parametrize("by", ["value", "abs"])
def test_nan_is_never_ranked(by: Any) -> None:
    holes = effect_map([[NAN, -5.0, NAN], [2.0, NAN, -0.2]])
    assert NAN not in [holes.values[c.layer, c.index] for c in holes.top(3, by=by)]
    assert set(holes.top(3, by=by)) == {Component(0, "H", 1), Component(1, "H", 0), Component(1, "H", 2)}
    with pytest.raises(ValueError, match=r"from 1 to 3"):
        holes.top(4, by=by)


def test_a_layer_that_the_map_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer"):
        HEADS.top(1, layers=range(1, 3))


def test_positions_are_reduced_to_their_maximum_once() -> None:
    values = [[0.0, 3.0, 2.9, 2.8], [0.1, 0.2, -9.0, 0.0], [1.0, NAN, 0.0, 0.5]]
    mlp = effect_map(values, "position", unit="mlp", labels={"layer": ("L0", "L1", "L2"), "position": tuple("abcd")})
    assert str(mlp.top(3)) == "L0MLP L2MLP L1MLP"
    assert str(mlp.top(1, by="abs")) == "L1MLP"
    with pytest.raises(ValueError, match=r"from 1 to 3"):
        mlp.top(4)
    attention = effect_map(values, "position", unit="attn")
    assert str(attention.top(2)) == "L0ATTN L2ATTN"


def test_a_residual_cell_stands_for_the_modules_that_read_it() -> None:
    resid = effect_map([[0.0, 3.0], [5.0, 0.0], [1.0, 1.0]], "position", unit="resid")
    assert resid.components((1, 0)) == (Component(1, "ATTN"), Component(1, "MLP"))
    assert str(resid.top(2, position=0)) == "L1ATTN L1MLP L2ATTN L2MLP"
    assert str(resid.top(2, position=-1)) == "L0ATTN L0MLP L2ATTN L2MLP"
    assert str(resid.above(2, position=1)) == "L0ATTN L0MLP"


def test_a_residual_trace_is_read_at_one_token() -> None:
    """Row 0 at the subject and late layers at the last token restore the answer by construction."""
    resid = effect_map([[9.0, 0.0, 1.0], [5.0, 2.0, 3.0], [0.0, 4.0, 9.0]], "position", unit="resid")
    resid = replace(resid, prompts=(traced(3, (0,)),))
    for call in (resid.top, resid.above):
        with pytest.raises(ValueError, match=r"needs position= or role=.*by construction.*'last subject token'"):
            call(1)
        with pytest.raises(ValueError, match=r"role must be one of \['last subject token'.*got 'before'"):
            call(1, role="before")
        with pytest.raises(ValueError, match="position must be from 0 to 2 for this map, got 3"):
            call(1, position=3)
        with pytest.raises(ValueError, match=r"not both"):
            call(1, position=1, role="last token")
        with pytest.raises(ValueError, match="a map of attention heads has no positions"):
            getattr(HEADS, call.__name__)(1, position=0)
    assert str(resid.top(1, role="last token")) == "L2ATTN L2MLP"
    assert str(resid.top(1, role="tokens after the subject")) == "L2ATTN L2MLP"
    assert str(resid.top(1, role="last subject token", layers=range(1, 3))) == "L1ATTN L1MLP"
    assert resid.at(role="last token").tolist() == [1.0, 3.0, 9.0]
    mlp = replace(resid, unit="mlp")
    assert str(mlp.top(2)) == "L0MLP L2MLP" and str(mlp.top(1, position=1)) == "L2MLP"


def test_a_map_is_ranked_whatever_device_is_the_default() -> None:
    trace = effect_map([[1.0, 2.0], [4.0, 3.0]], "position", unit="resid", prompts=(traced(2, (0,)),))
    with torch.device("meta"):
        assert trace.top(1, position=0) == trace.top(1, layers=range(1, 2), position=0)


def test_neurons_and_mlps() -> None:
    neurons = effect_map([[0.0, 3.0, 1.0], [5.0, 0.0, 0.0]], "neuron", unit="neuron")
    assert str(neurons.top(2)) == "L1N0 L0N1"
    assert str(effect_map([0.5, 0.1, 0.9], None).top(2)) == "L2MLP L0MLP"


def test_to_frame() -> None:
    frame = effect_map(
        [[0.5, 1.0, 1.5], [2.0, 2.5, 3.0]],
        "position",
        unit="mlp",
        labels={"layer": ("L0", "L1"), "position": ("The", " capital", " is")},
        stderr=torch.tensor([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]]),
        n=7,
    ).to_frame()
    expected = pd.DataFrame(
        {
            "layer": [0, 0, 0, 1, 1, 1],
            "position": [0, 1, 2, 0, 1, 2],
            "token": ["The", " capital", " is"] * 2,
            "effect": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0],
            "stderr": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
            "n": 7,
        }
    )
    pd.testing.assert_frame_equal(frame, expected, check_dtype=False)


def test_to_frame_without_positions_or_errors() -> None:
    frame = effect_map([0.5, 0.1, 0.9], None).to_frame()
    assert list(frame.columns) == ["layer", "effect", "stderr", "n"]
    assert frame.stderr.isna().all()
    assert frame.effect.tolist() == pytest.approx([0.5, 0.1, 0.9])


def test_labels_must_fit() -> None:
    with pytest.raises(ValueError, match=r"Axis 'head' has 3 entries but 2 labels"):
        effect_map([[1.0, 2.0, 3.0]], labels={"layer": ("L0",), "head": ("H0", "H1")})
    with pytest.raises(ValueError, match=r"Axis 'head' has 3 entries but 0 labels"):
        effect_map([[1.0, 2.0, 3.0]], labels={"layer": ("L0",)})
    with pytest.raises(ValueError, match=r"values of shape \(1, 3\) do not fit the axes \('layer',\)"):
        effect_map([[1.0, 2.0, 3.0]], axes=("layer",))


def test_values_are_detached_floats_on_the_cpu() -> None:
    raw = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    kept = effect_map(raw * 2)
    assert kept.values.dtype == torch.float32
    assert not kept.values.requires_grad
    assert kept.values.device.type == "cpu"


def test_subject_of_one_prompt_and_of_several() -> None:
    labels = {"layer": ("L0",), "position": ("before", "first subject token", "last subject token", "after")}
    row = [[0.0, 1.0, 2.0, 3.0]]
    one = effect_map(row, "position", unit="resid", prompts=(traced(4, (2, 3)),))
    assert one.subject == (2, 3)
    several = effect_map(row, "position", unit="resid", labels=labels, prompts=(traced(4, (2,)), traced(5, (1,), "b")))
    assert several.subject == (1, 2)
    assert HEADS.subject == ()


def test_repr_names_what_was_measured() -> None:
    text = repr(HEADS)
    for part in ("attention heads", "patching", "2 layers x 3 heads", "logit_diff", "clean 1.000", "2.000"):
        assert part in text
