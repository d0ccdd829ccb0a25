"""Evaluation reports as checked JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.files.atomic import write_bytes
from workbench.files.checked_json import dump, errors_name, parse_file, unwrap, wrap
from workbench.files.paths import user_path
from workbench.types import AnswerRow, EvalReport, Flip, Rate, TextRow
from workbench.types.report import SampleRow


def report_to_dict(report: EvalReport) -> dict[str, Any]:
    """A report as plain JSON values, with its schema version and a checksum."""
    rates = {stage: {name: asdict(r) for name, r in of.items()} for stage, of in report.rates.items()}
    names: dict[str, Any] = {k: list(getattr(report, k)) for k in ("facts", "stages", "missing")}
    if report.closed_relations:  # none in reports of older versions, which are of this one too
        names["closed_relations"] = list(report.closed_relations)
    if report.retained_relations:
        names["retained_relations"] = list(report.retained_relations)
    if report.probabilities:
        names["probabilities"] = {stage: dict(of) for stage, of in report.probabilities.items()}
    if report.samples:
        names["samples"] = [asdict(sample) for sample in report.samples]
    if report.flips is not None:
        names["flips"] = [asdict(flip) for flip in report.flips]
    rows, texts = [asdict(r) for r in report.rows], [asdict(r) for r in report.texts]
    of = {k: getattr(report, k) for k in ("left_out", "edit_id", "base_fingerprint", "provenance")}
    document = {**names, "rates": rates, "rows": rows, "texts": texts, **of}
    return wrap("workbench-report", document)


def report_from_dict(data: Mapping[str, Any], where: str | Path = "this dictionary") -> EvalReport:
    """The inverse of ``report_to_dict``.

    Args:
        data: The dictionary.
        where: Its source, for messages.

    Raises:
        ValueError: It is of another kind or a newer schema version, or was changed.
    """
    fields = unwrap("workbench-report", data, where)
    with errors_name(where):
        return EvalReport(
            rows=tuple(AnswerRow(**r) for r in fields["rows"]),
            rates={stage: {name: Rate(**r) for name, r in of.items()} for stage, of in fields["rates"].items()},
            texts=tuple(TextRow(**r) for r in fields["texts"]),
            **{k: tuple(fields[k]) for k in ("facts", "stages", "missing")},
            flips=None if fields.get("flips") is None else tuple(Flip(**flip) for flip in fields["flips"]),
            closed_relations=tuple(fields.get("closed_relations", ())),
            retained_relations=tuple(fields.get("retained_relations", ())),
            probabilities=fields.get("probabilities", {}),
            samples=tuple(_sample(one) for one in fields.get("samples", ())),
            **{k: fields[k] for k in ("left_out", "edit_id", "base_fingerprint", "provenance")},
        )


def _sample(fields: Mapping[str, Any]) -> SampleRow:
    lists: dict[str, Any] = {"texts": tuple(fields["texts"]), "old": tuple(fields["old"])}
    return SampleRow(**{**fields, **lists})


def save_report(report: EvalReport, path: str | Path) -> Path:
    """Write a report as one JSON file. Returns the path.

    Raises:
        ValueError: The provenance holds something that JSON cannot.
        OSError: The file cannot be written; what was there is as it was.
    """
    return write_bytes(path, dump(report_to_dict(report)))


def load_report(path: str | Path) -> EvalReport:
    """Read a report written by ``EvalReport.save``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind or schema version, or damaged.
    """
    path = user_path(path)
    return report_from_dict(parse_file(path), path)
