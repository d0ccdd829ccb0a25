"""Tables of control arms as checked JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

from workbench.files.atomic import write_bytes
from workbench.files.checked_json import dump, errors_name, parse_file, unwrap, wrap
from workbench.files.paths import user_path
from workbench.files.reports import report_from_dict, report_to_dict
from workbench.types import ArmRow, ArmTable, Selection

_PLAIN = ("threshold", "validation", "words", "notes", "settings", "base_fingerprint", "provenance")


def arms_to_dict(table: ArmTable) -> dict[str, Any]:
    """A table of control arms, with the reports of all runs, as plain JSON values, with its schema version and a
    checksum."""
    rows = [
        {f.name: getattr(row, f.name) for f in fields_of(row) if f.name != "beside" or row.beside is not None}
        | {"report": report_to_dict(row.report), "selection": None if row.selection is None else str(row.selection)}
        for row in table.rows
    ]
    document = {k: getattr(table, k) for k in _PLAIN}
    return wrap("workbench-arms", {**document, "rows": rows})


def arms_from_dict(data: Mapping[str, Any], where: str | Path = "this dictionary") -> ArmTable:
    """The inverse of ``arms_to_dict``.

    Args:
        data: The dictionary.
        where: Its source, for messages.

    Raises:
        ValueError: It is of another kind or a newer schema version, or was changed.
    """
    fields = unwrap("workbench-arms", data, where)
    with errors_name(where):
        rows = [
            ArmRow(
                **row
                | {
                    "report": report_from_dict(row["report"], where),
                    "selection": None if row["selection"] is None else Selection(row["selection"]),
                }
            )
            for row in fields["rows"]
        ]
        given: dict[str, Any] = {k: fields[k] for k in _PLAIN}
        given["validation"] = {fact: tuple(questions) for fact, questions in fields["validation"].items()}
        given["notes"] = tuple(fields["notes"])
        return ArmTable(rows=tuple(rows), **given)


def save_arms(table: ArmTable, path: str | Path) -> Path:
    """Write a table of control arms, with the reports of all runs, as one JSON file. Returns the path.

    Raises:
        ValueError: The provenance holds something that JSON cannot.
        OSError: The file cannot be written; what was there is as it was.
    """
    return write_bytes(path, dump(arms_to_dict(table)))


def load_arms(path: str | Path) -> ArmTable:
    """Read a table written by ``ArmTable.save``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind or schema version, or damaged.
    """
    path = user_path(path)
    return arms_from_dict(parse_file(path), path)
