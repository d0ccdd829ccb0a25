"""Probe reports as checked JSON files (see ``workbench.files.checked_json``): what is loaded equals what was saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.files.atomic import write_bytes
from workbench.files.checked_json import dump, errors_name, parse_file, unwrap, wrap
from workbench.files.paths import user_path
from workbench.types import (
    Curve,
    CurveRule,
    CurveWords,
    Fact,
    Lens,
    LensChoice,
    NullDraw,
    NullOfProbe,
    NullSize,
    ProbeNull,
    ProbeReport,
    ProbeRow,
    ProbeWords,
    Rate,
    TracedPrompt,
)
from workbench.types.plain import is_list, is_mapping

_PLAIN = ("partial", "max_new_tokens", "seed", "edit_id", "base_fingerprint", "provenance")


def probes_to_dict(report: ProbeReport) -> dict[str, Any]:
    """A probe report as plain JSON values, with its schema version and a checksum.

    Raises:
        ValueError: The provenance holds something that JSON cannot.
    """
    rates = {
        probe: {stage: {name: asdict(r) for name, r in of.items()} for stage, of in by.items()}
        for probe, by in report.rates.items()
    }
    return wrap(
        "workbench-probes",
        {
            "fact": report.fact.to_dict(),
            "control": report.control.to_dict() if report.control else None,
            "stages": list(report.stages),
            "probes": list(report.probes),
            "words": {probe: asdict(words) for probe, words in report.words.items()},
            "skipped": dict(report.skipped),
            **{name: getattr(report, name) for name in _PLAIN},
            "asked": list(report.asked),
            "null": None if report.null is None else asdict(report.null),
            "rates": rates,
            "rows": [asdict(r) for r in report.rows],
            "curves": [asdict(c) for c in report.curves],
            "lenses": [asdict(x) for x in report.lenses],
            "lens_choice": None if report.lens_choice is None else asdict(report.lens_choice),
        },
    )


def probes_from_dict(data: Mapping[str, Any], where: str | Path = "this dictionary") -> ProbeReport:
    """The inverse of ``probes_to_dict``.

    Args:
        data: The dictionary.
        where: Its source, for messages.

    Raises:
        ValueError: It is of another kind or schema version, or was changed.
    """
    fields = unwrap("workbench-probes", data, where)
    with errors_name(where):
        rates = {
            probe: {stage: {name: Rate(**r) for name, r in of.items()} for stage, of in by.items()}
            for probe, by in fields["rates"].items()
        }
        return ProbeReport(
            fact=Fact.from_dict(fields["fact"]),
            control=None if fields["control"] is None else Fact.from_dict(fields["control"]),
            stages=tuple(fields["stages"]),
            probes=tuple(fields["probes"]),
            words=_words(fields["words"]),
            asked=tuple(fields["asked"]),
            null=_null(fields["null"]),
            skipped=fields["skipped"],
            rates=rates,
            rows=tuple(ProbeRow(**r) for r in fields["rows"]),
            curves=tuple(Curve(**_all_as_tuples(c)) for c in fields["curves"]),
            lenses=tuple(_lens(x) for x in fields["lenses"]),
            lens_choice=_choice(fields["lens_choice"]),
            **{name: fields[name] for name in _PLAIN},
        )


def save_probes(report: ProbeReport, path: str | Path) -> Path:
    """Write a probe report as one JSON file. Returns the path.

    Raises:
        ValueError: The provenance holds something that JSON cannot.
        OSError: The file cannot be written; what was there is as it was.
    """
    return write_bytes(path, dump(probes_to_dict(report)))


def load_probes(path: str | Path) -> ProbeReport:
    """Read a report written by ``ProbeReport.save``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind or schema version, or damaged.
    """
    path = user_path(path)
    return probes_from_dict(parse_file(path), path)


def _null(data: Mapping[str, Any] | None) -> ProbeNull | None:
    """A null as it was saved."""
    if data is None:
        return None
    probes: dict[str, NullOfProbe] = {}
    for probe, one in data["probes"].items():
        fields: dict[str, Any] = {**_all_as_tuples(one), "draws": tuple(NullDraw(**d) for d in one["draws"])}
        probes[probe] = NullOfProbe(**fields)
    given: dict[str, Any] = {**_all_as_tuples(data), "size": NullSize(**data["size"]), "probes": probes}
    return ProbeNull(**given)


def _words(data: Mapping[str, Any]) -> dict[str, ProbeWords]:
    """Probes in words, as they were saved."""
    out: dict[str, ProbeWords] = {}
    for probe, fields in data.items():
        given: dict[str, Any] = {**_all_as_tuples(fields), "curve": _curve_words(fields["curve"])}
        out[probe] = ProbeWords(**given)
    return out


def _curve_words(data: Mapping[str, Any] | None) -> CurveWords | None:
    """A probe's curve in words, if it has one."""
    if data is None:
        return None
    rule = data["rule"]
    given: dict[str, Any] = {**_all_as_tuples(data), "rule": None if rule is None else CurveRule(**rule)}
    return CurveWords(**given)


def _lens(data: Mapping[str, Any]) -> Lens:
    given: dict[str, Any] = {**_all_as_tuples(data), "prompt": TracedPrompt(**_all_as_tuples(data["prompt"]))}
    return Lens(**given)


def _choice(data: Mapping[str, Any] | None) -> LensChoice | None:
    """Which lens was read, if any was."""
    if data is None:
        return None
    given: dict[str, Any] = _all_as_tuples(data)
    return LensChoice(**given)


def _all_as_tuples(value: Any) -> Any:
    """Lists inside as tuples, dictionaries kept."""
    if is_mapping(value):
        return {k: _all_as_tuples(v) for k, v in value.items()}
    return tuple(_all_as_tuples(v) for v in value) if is_list(value) else value
