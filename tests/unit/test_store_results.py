"""Saved effect maps and reports come back exactly, damaged ones are refused, a failed save keeps the old file."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.stored import FULL, damaged, fail_at, refused, same
from workbench.files.effect_maps import load_effect_map
from workbench.files.reports import load_report, report_from_dict, report_to_dict
from workbench.types import AnswerRow, EffectMap, EvalReport, Rate, TextRow, TracedPrompt

# Effect maps

PROMPT = TracedPrompt(
    fact_id="köln",
    form="chat",
    text="<|im_start|>Köln\n",
    prefix="",
    token_ids=(1, 2, 3),
    tokens=("<|im_start|>", "K", "ö"),
    subject=(1, 2),
    answer_id=7,
    answer_token=" Paris",
    partner="rom",
)


def effect_map(**changes: Any) -> EffectMap:
    values = torch.tensor([[0.1, math.nan, -0.0], [1e-40, math.inf, 3.0]])
    fields: dict[str, Any] = {
        "values": values,
        "axes": ("layer", "position"),
        "labels": {"layer": ("L0", "L1"), "position": ("a", "b", "ö")},
        "unit": "resid",
        "metric": "probability",
        "method": "noise",
        "clean": 1 / 3,
        "corrupted": math.nan,
        "stderr": values.abs() / 7,
        "n": 5,
        "per_fact": torch.stack([values, values.T.reshape(2, 3)]),
        "prompts": (PROMPT, replace(PROMPT, other_id=9, other_token=" Rome", partner_text="x")),
        "corruption": "noise",
        "base_fingerprint": "f" * 64,
        "provenance": {"settings": {"window": None, "sigma": math.inf}},
    }
    return EffectMap(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stderr": None, "per_fact": None, "corrupted": None, "prompts": (), "provenance": {}, "corruption": None},
        {"values": torch.zeros(3, 2).T},
        {
            "values": torch.zeros(2, 0),
            "labels": {"layer": ("a", "b"), "position": ()},
            "stderr": None,
            "per_fact": None,
        },
    ],
    ids=["all", "least", "transposed", "empty"],
)
def test_an_effect_map_comes_back_exactly(changes: dict[str, Any], tmp_path: Path) -> None:
    effects = effect_map(**changes)
    path = effects.save(tmp_path / "deep" / "map.safetensors")
    assert [p.name for p in path.parent.iterdir()] == ["map.safetensors"]
    assert same(EffectMap.load(path), effects)


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    per_fact = torch.randn(4, 2, 3)
    effects = effect_map(values=per_fact[1], per_fact=per_fact)
    assert same(load_effect_map(effects.save(tmp_path / "m")), effects)


def test_other_files_are_not_effect_maps(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with pytest.raises(FileNotFoundError):
        load_effect_map(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="damaged or cut short"):
        load_effect_map(path)
    path.write_bytes(safetensors.torch.save({"values": torch.ones(2)}))
    with pytest.raises(ValueError, match="says nothing of this package"):
        load_effect_map(path)
    header = json.dumps({"kind": "workbench-effect-map", "schema_version": 7})
    path.write_bytes(safetensors.torch.save({"values": torch.ones(2)}, metadata={"workbench": header}))
    with pytest.raises(ValueError, match=r"schema version 7.*reads version 5"):
        load_effect_map(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_effect_map_never_gives_other_numbers(tmp_path: Path, data: st.DataObject) -> None:
    effects = effect_map()
    path = effects.save(tmp_path / "m")
    path.write_bytes(damaged(path.read_bytes(), data))
    assert refused(load_effect_map, path) or same(load_effect_map(path), effects)


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full-disk", "interrupt"])
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_failed_save_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    effects, made = effect_map(), report()
    paths = [effects.save(tmp_path / "m"), made.save(tmp_path / "r")]
    for save in (lambda: effect_map(n=6).save(paths[0]), lambda: report(facts=()).save(paths[1])):
        with monkeypatch.context() as patch:
            fail_at(patch, call, error)
            with pytest.raises(type(error)):
                save()
    assert same(load_effect_map(paths[0]), effects)
    assert same(load_report(paths[1]), made)
    assert {p.name for p in tmp_path.iterdir()} == {"m", "r"}


# Reports


def report(**changes: Any) -> EvalReport:
    row = AnswerRow(
        fact_id="a",
        relation="r",
        group="heldout",
        stage="base",
        form="chat",
        prompt="P?",
        text="é\ud800\n",
        label="old",
        nll=0.1,
    )
    fields: dict[str, Any] = {
        "rows": (
            row,
            replace(row, stage="learn", nll=math.nan, kl=math.nan),
            replace(row, nll=math.inf, kl=-math.inf),
            replace(row, kl=0.25),
        ),
        "rates": {
            "learn": {
                "new": Rate(0.5, 4, 0.25, 1 / 3, "wilson"),
                "old": Rate(math.nan, 0, math.nan, math.nan, "wilson", 0),
            },
            "base": {},
        },
        "texts": (TextRow(stage="base", sentence="Ordinary é.", n_tokens=3, nll=1 / 3),) * 2
        + (TextRow(stage="learn", sentence="", n_tokens=1, nll=math.nan),),
        "missing": ("neighbours",),
        "left_out": None,
        "facts": ("a",),
        "stages": ("base", "learn"),
        "edit_id": "e" * 64,
        "base_fingerprint": "f" * 64,
        "provenance": {"seed": 0, "x": [math.nan]},
    }
    return EvalReport(**{**fields, **changes})


def test_a_report_comes_back_exactly(tmp_path: Path) -> None:
    made = report()
    path = made.save(tmp_path / "deep" / "r.json")
    assert same(EvalReport.load(path), made)
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]
    assert same(report_from_dict(json.loads(json.dumps(made.to_dict()))), made)


def test_a_report_as_json_is_strict_and_comes_back_with_nan() -> None:
    data = report_to_dict(report())
    json.dumps(data, allow_nan=False)
    nan, inf, minus = ({"__float__": text} for text in ("nan", "inf", "-inf"))
    assert data["schema_version"] == 4
    assert data["rates"]["learn"]["old"]["value"] == nan
    assert [r["kl"] for r in data["rows"]] == [None, nan, minus, 0.25]
    assert [r["nll"] for r in data["rows"]] == [0.1, nan, inf, 0.1]


def test_a_report_from_before_there_was_collateral_is_read() -> None:
    fields = {k: v for k, v in report_to_dict(report(texts=())).items() if k not in ("texts", "sha256")}
    fields = {k: v for k, v in fields.items() if k not in ("kind", "schema_version")}
    for row, (nll, kl) in zip(fields["rows"], [(0.1, None), (None, "nan"), ("inf", "-inf"), (0.1, 0.25)], strict=True):
        row["nll"], row["kl"] = nll, kl  # as version 1 wrote them
    for rates in fields["rates"].values():
        for rate in rates.values():
            rate.update({k: None for k in ("value", "low", "high") if isinstance(rate[k], dict)})
    first = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    document = {"kind": "workbench-report", "schema_version": 1, "sha256": hashlib.sha256(first).hexdigest(), **fields}
    assert same(report_from_dict(document), report(texts=(), edit_id=None, base_fingerprint=None))


def test_a_report_with_intervals_on_what_is_true_by_definition_is_read() -> None:
    """Version 3 had them, and did not say how many facts were left out."""
    right = {"base": {"control": Rate(1.0, 4, 0.51, 1.0, "wilson", 4), "new": Rate(0.5, 4, 0.15, 0.85, "wilson")}}
    fields = report_to_dict(report(texts=(), rates=right))
    fields = {k: v for k, v in fields.items() if k not in ("kind", "schema_version", "sha256", "left_out")}
    third = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    document = {"kind": "workbench-report", "schema_version": 3, "sha256": hashlib.sha256(third).hexdigest(), **fields}
    read = report_from_dict(document)
    assert read.left_out is None and read.rates["base"]["new"] == right["base"]["new"]
    assert str(read.rates["base"]["control"]) == "1.00 by definition (n=4)"


def test_a_damaged_report_is_refused(tmp_path: Path) -> None:
    path = report().save(tmp_path / "r.json")
    text = path.read_bytes()
    for content, message in (
        (text.replace(b'"n": 4', b'"n": 5'), "fails its own checksum"),
        (text[:-9], "damaged or cut short"),
        (text.replace(b'"schema_version": 4', b'"schema_version": 0'), "schema version 0"),
        (text.replace(b"workbench-report", b"workbench-edit"), "it is a workbench-edit"),
        (b"{}", "not a workbench-report"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            load_report(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError):
        load_report(tmp_path / "missing")
