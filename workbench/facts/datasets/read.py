"""Reading facts from a file of any known schema; a record that makes no fact is named, or skipped with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from workbench.facts.datasets.files import Row, read_rows
from workbench.facts.datasets.schemas import SCHEMAS, Schema, recognise
from workbench.files.paths import user_path
from workbench.types import Fact, FactSet
from workbench.types.fact_source import FactSource


def read_facts(
    path: str | Path, *, schema: Schema | None = None, on_error: Literal["raise", "skip"] = "raise"
) -> FactSet:
    """Read facts from a table or a JSON file.

    What the file holds decides, not its name: a JSON list, JSON lines, or a table with a header, separated by commas,
    semicolons or tabs, in UTF-8, UTF-16 or Windows-1252.

    Args:
        path: The file; ``~`` is the home folder. A table's columns are the fields of ``Fact``, in any order and case;
            lists are separated by ``|``; empty rows do not count, and other columns are left out with a warning.
        schema: A key of ``workbench.facts.datasets.schemas.SCHEMAS``; None recognises it by the first record's fields.
        on_error: ``"raise"`` at the first record that makes no valid fact, or ``"skip"`` such records with a warning.

    Returns:
        The facts in the file's order, named after the file; ``.source`` says how to read them again. What else a data
        set asks about a fact is in ``Fact.data_prompts``. Of repeated ids all but the first get a number.

    Raises:
        FileNotFoundError: No such file.
        ValueError: An unknown file type or schema, broken JSON (with the line), or an invalid record (with its number,
            its line where there is one, and the field).

    Example:
        >>> from workbench.facts.datasets import read_facts
        >>> from pathlib import Path
        >>> row = "Peru;The capital of Peru is;What is the capital of Peru?;Lima;Quito"
        >>> _ = Path("peru.csv").write_text(f"Subject;Prompt;Question;Answer;Target\\n{row}\\n")
        >>> read_facts("peru.csv")["peru"].answer
        'Lima'
    """
    given: object = path
    if not isinstance(given, str | Path):
        raise TypeError(
            f"path must be the path of a file, got {type(given).__name__}. Write a table first, "
            "table.to_json('facts.json', orient='records'), and make facts of records by FactSet(map(Fact.from_dict, "
            "records))."
        )
    if isinstance(given, str) and "://" in given:
        raise ValueError(f"{given!r} is an address: download the file, and give its path.")
    path = user_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if schema is not None and schema not in get_args(Schema):
        raise ValueError(f"schema must be one of {get_args(Schema)} or None, got {schema!r}.")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}.")
    rows = read_rows(path)
    if not rows:
        raise ValueError(f"{path} has no records.")
    kind = schema or _kind(path, rows)
    convert = SCHEMAS[kind].convert
    records = [row.record for row in rows]
    facts: list[Fact] = []
    for number, row in enumerate(rows, 1):
        try:
            if row.error:
                raise ValueError(row.error)
            facts += convert(row.record, records)
        except (ValueError, TypeError) as error:
            at = f"record {number}" if row.line is None else f"line {row.line}, record {number}"
            message = f"{path}, {at} ({kind}): {str(error).removesuffix('.')}."
            if on_error == "raise":
                raise ValueError(f"{message} Use on_error='skip' to leave such records out.") from error
            warnings.warn(f"Skipped: {message}", stacklevel=2)
    source = FactSource(str(path), len(facts), schema, on_error)
    return FactSet(_unique(facts), name=path.name, source=source)


def _kind(path: Path, rows: list[Row]) -> Schema:
    """The schema of the first record that can be read."""
    first = next((row for row in rows if not row.error), None)
    if first is None:
        raise ValueError(f"{path}, line {rows[0].line}: {rows[0].error}.")
    try:
        return recognise(first.record)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _unique(facts: Iterable[Fact]) -> list[Fact]:
    """Give repeated ids a number, so that a data set with two edits of one subject can be read."""
    facts = list(facts)
    own = {fact.id for fact in facts}
    taken: set[str] = set()
    reached: dict[str, int] = {}
    out = []
    for fact in facts:
        name, number = fact.id, 1
        while name in taken or (number > 1 and name in own):
            number = max(number, reached.get(fact.id, 1)) + 1
            name = f"{fact.id}-{number}"
        reached[fact.id] = number
        taken.add(name)
        out.append(fact if number == 1 else Fact.from_dict(fact.to_dict() | {"id": name}))
    return out
