"""Older schema versions of saved files, brought to the present one step by step.

A file is checked against its own checksum first. Each step takes the fields of one version and gives those of the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.files.probe_words import WORDS_OF_VERSION_1

Fields = dict[str, Any]
Step = Callable[[Fields], Fields]


def edit_1_to_2(fields: Fields) -> Fields:
    """Version 1 knew gates only, kept in ``provenance`` what decides behaviour, and had no method."""
    stages = [{"name": stage["name"], "delta": {"kind": "gates", "keys": stage["gates"]}} for stage in fields["stages"]]
    provenance = dict(fields["provenance"])
    settings = dict(provenance.get("settings", {}))
    modules = provenance.pop("modules", None)
    typed = {
        "learned": settings.pop("learned", None),
        "strength": settings.pop("drawn_back_to", 1.0),
        "first_fit": settings.pop("first_fit", None),
        "second_fit": settings.pop("second_fit", None),
    }
    if "settings" in provenance:
        provenance["settings"] = settings
    if modules is not None and modules["sites"]:
        first = modules["sites"][0]
        modules = {"layers": first["module"].partition(f".{first['layer']}.")[0], **modules}
    return {
        **{k: v for k, v in fields.items() if k != "gates_sha256"},
        **typed,
        "stages": stages,
        "method": "ia3",
        "recipe": {"draw_back": None} | fields["recipe"],  # files from before there was one lack it
        "modules": modules,
        "selection_ids": [],
        "fisher_ids": [],
        "provenance": provenance,
        "tensors_sha256": fields["gates_sha256"],
    }


def edit_2_to_3(fields: Fields) -> Fields:
    """Version 2 had another name for the default selector."""
    renamed = {"neurons-by-contrast": "gain-over-fisher"}
    return {**fields, "selector": renamed.get(fields["selector"], fields["selector"])}


def edit_3_to_4(fields: Fields) -> Fields:
    """Version 3 knew no closed forms."""
    return {**fields, "writes": []}


def report_1_to_2(fields: Fields) -> Fields:
    """Version 1 wrote NaN as null, in ``kl`` as text, and infinities as text; the first reports had no texts."""

    def number(value: Any) -> float:
        return math.nan if value is None else float(value)

    def row(of: Mapping[str, Any]) -> Fields:
        return {**of, "nll": number(of["nll"]), "kl": None if of["kl"] is None else float(of["kl"])}

    def rate(of: Mapping[str, Any]) -> Fields:
        return {**of, **{k: number(of[k]) for k in ("value", "low", "high")}}

    return {
        **fields,
        "rows": [row(r) for r in fields["rows"]],
        "rates": {stage: {name: rate(r) for name, r in rates.items()} for stage, rates in fields["rates"].items()},
        "texts": [{**r, "nll": number(r["nll"])} for r in fields.get("texts", ())],
    }


def arms_1_to_2(fields: Fields) -> Fields:
    """Version 1 was never released.

    Raises:
        ValueError: Always: it lacks a number that nothing in the file gives.
    """
    raise ValueError("tables of version 1 do not say after how many updates an arm was read. Compare again.")


def arms_2_to_3(fields: Fields) -> Fields:
    """Only the reports within changed, and each has a version of its own."""
    return fields


def arms_3_to_4(fields: Fields) -> Fields:
    """Version 3 left what its arms are in words to the code."""
    words = {
        "selected": "the selection",
        "random-layers": "random, same layers",
        "random-anywhere": "random, anywhere",
        "all": "everything of these kinds",
        "one-stage": "the selection, one stage",
        "none": "no edit",
        "full": "full fine-tuning",
        "lora": "LoRA of its size",
        "paper": "the paper's recipe",
    }
    return {**fields, "words": words}


def effect_map_1_to_2(fields: Fields) -> Fields:
    """Version 1 had two metrics, whose words the code still has."""
    return {**fields, "words": None}


def probes_1_to_2(fields: Fields) -> Fields:
    """Version 1 left what its probes are in words to the code."""
    return {**fields, "words": {probe: asdict(words) for probe, words in WORDS_OF_VERSION_1.items()}}


def _noted(fields: Fields, name: str) -> Any:
    """A setting that a result noted in its provenance; None if it did not."""
    return fields["provenance"].get("settings", {}).get(name)


def _of_a_base(fields: Fields) -> Fields:
    """Older results named their base model in their provenance only."""
    return {**fields, "base_fingerprint": fields["provenance"].get("fingerprint")}


def report_2_to_3(fields: Fields) -> Fields:
    """Version 2 named the edit and its base in its provenance only."""
    return {**_of_a_base(fields), "edit_id": _noted(fields, "edit")}


def _as_defined(rate: Mapping[str, Any]) -> Fields:
    """A rate without the interval that older versions gave to what is true by definition."""
    return {**rate, "low": math.nan, "high": math.nan, "method": "by definition"} if rate["n"] else dict(rate)


FIXED_AT_BASE_OF_REPORT_3 = (
    *("forget", "control", "neighbour", "gibberish", "bleed"),
    *("reversed_old", "reversed_new", "twohop_old", "twohop_new", "text_nll_change"),
)
FIXED_AT_BASE_OF_PROBES_3 = (
    *("old", "new", "refusal", "neither", "same"),
    *("control", "hop_old", "hop_new", "bleed"),
)


def report_3_to_4(fields: Fields) -> Fields:
    """Version 3 did not say how many facts were left out, and had intervals on what is true by definition."""
    rates = {stage: dict(of) for stage, of in fields["rates"].items()}
    at_base = rates.get("base", {})
    at_base |= {name: _as_defined(at_base[name]) for name in FIXED_AT_BASE_OF_REPORT_3 if name in at_base}
    return {**fields, "rates": rates, "left_out": None}


def probes_3_to_4(fields: Fields) -> Fields:
    """Version 3 had intervals on what is true by definition."""
    rates = {probe: {stage: dict(of) for stage, of in by.items()} for probe, by in fields["rates"].items()}
    for by in rates.values():
        at_base = by.get("base", {})
        at_base |= {name: _as_defined(at_base[name]) for name in FIXED_AT_BASE_OF_PROBES_3 if name in at_base}
    return {**fields, "rates": rates}


def effect_map_2_to_3(fields: Fields) -> Fields:
    """Version 2 named the corruption and the model in its provenance only."""
    return {**_of_a_base(fields), "corruption": _noted(fields, "corruption")}


def effect_map_3_to_4(fields: Fields) -> Fields:
    """Version 3 had effects in units of the metric only."""
    return {**fields, "normalised": False}


def effect_map_4_to_5(fields: Fields) -> Fields:
    """Version 4 did not say where a reply begins, nor whether the model knows a swap partner."""
    prompts = [{**prompt, "partner_known": None, "reply_start": None} for prompt in fields["prompts"]]
    return {**fields, "prompts": prompts}


def probes_4_to_5(fields: Fields) -> Fields:
    """Version 4 had no null."""
    return {**fields, "null": None}


def probes_5_to_6(fields: Fields) -> Fields:
    """Version 5 knew the logit lens alone."""
    logit = {"asked": "logit", "kind": "logit", "kl": None, "logit_kl": None, "held_out": 0, "why": ""}
    return {**fields, "lens_choice": logit if fields["lenses"] else None}


def probes_2_to_3(fields: Fields) -> Fields:
    """Version 2 named the edit, its base and how the probes were run in its provenance only."""
    noted = {name: _noted(fields, name) for name in ("max_new_tokens", "seed")}
    asked = _noted(fields, "probes") or fields["probes"]
    return {**_of_a_base(fields), **noted, "asked": asked, "edit_id": _noted(fields, "edit")}


def arms_4_to_5(fields: Fields) -> Fields:
    """Version 4 kept settings and base in its provenance only."""
    return {**_of_a_base(fields), "settings": fields["provenance"].get("settings", {})}


def session_1_to_2(fields: Fields) -> Fields:
    """Version 1 held one edit and no runs; its first sessions had neither a random control nor probes."""
    before = {"control_report": False, "probes": False}
    return {**before, **fields, "runs": [], "shown": None, "maps_folder": "maps"}


def session_2_to_3(fields: Fields) -> Fields:
    """Version 2 knew facts alone, and no selected edges."""
    return {**fields, "contrast": None, "circuit": None}


STEPS: Mapping[str, tuple[Step, ...]] = {
    "workbench-edit": (edit_1_to_2, edit_2_to_3, edit_3_to_4),
    "workbench-effect-map": (effect_map_1_to_2, effect_map_2_to_3, effect_map_3_to_4, effect_map_4_to_5),
    "workbench-report": (report_1_to_2, report_2_to_3, report_3_to_4),
    "workbench-session": (session_1_to_2, session_2_to_3),
    "workbench-probes": (probes_1_to_2, probes_2_to_3, probes_3_to_4, probes_4_to_5, probes_5_to_6),
    "workbench-arms": (arms_1_to_2, arms_2_to_3, arms_3_to_4, arms_4_to_5),
}
"""By kind, the step from version 1 to 2, from 2 to 3, and so on."""


def migrated(kind: str, version: int, written: int, fields: Fields, where: str | Path) -> Fields:
    """The fields of a document as the present version has them.

    Raises:
        ValueError: A file that lacks what its version must have, or that cannot be brought to the present version.
    """
    for step in STEPS.get(kind, ())[version - 1 : written - 1]:
        try:
            fields = step(fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            detail = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{where} is of the older version {version} and cannot be read: {detail}") from error
    return fields
