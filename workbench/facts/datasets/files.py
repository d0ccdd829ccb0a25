"""The records of a file, before anybody asks what they mean: tables as spreadsheets write them, JSON, JSON lines."""

from __future__ import annotations

import codecs
import csv
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.facts.datasets.cells import listed, with_whole_numbers, yes_or_no
from workbench.facts.datasets.fields import Record

LIST_FIELDS = ("answer_aliases", "target_aliases", "paraphrases", "heldout", "cloze_paraphrases")
_REQUIRED = ("subject", "prompt", "question", "answer", "target")
_OTHERS = ("id", "relation", "refusal", "split", "role", "case_sensitive")
_COLUMNS = (*_REQUIRED, *LIST_FIELDS, *_OTHERS)
_NUMBERS = ("answer", "target", "answer_aliases", "target_aliases", "id")
_DELIMITERS = ",;\t"
_KINDS = "Facts are read from .jsonl, .json or .csv files"


@dataclass(frozen=True)
class Row:
    """One record of a file.

    Args:
        line: The line of a table that it begins in, from 1; None for JSON, whose records are counted.
        record: What it holds, of any type; None where it cannot be read.
        error: Why not.
    """

    line: int | None
    record: Any = None
    error: str = ""


def read_rows(path: Path) -> list[Row]:
    """The records of a file, by what it holds rather than by its name.

    Raises:
        ValueError: No text, no JSON and no table; the message names the file, and the line where there is one.
    """
    text = _decoded(path)
    begins = text.lstrip()[:1]
    suffix = path.suffix.lower()
    if suffix == ".csv" or (suffix not in (".json", ".jsonl") and begins not in ("", "{", "[")):
        return list(_table(path, text, sure=suffix in (".csv", ".tsv")))
    if suffix == ".jsonl":
        return list(_lines(path, text)) if begins != "[" else _whole(path, text)
    return _whole(path, text)


def _decoded(path: Path) -> str:
    """A file's text: UTF-8, UTF-16 by its mark, else Windows-1252, with a warning that says so."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    elif b"\0" in data[:400]:  # UTF-16 without its mark: every second byte of Latin letters is zero
        encodings = ["utf-16-le" if data[1:2] == b"\0" else "utf-16-be"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "cp1252":
            warnings.warn(
                f"{path} is not UTF-8; it was read as Windows-1252, as Excel writes it. Look at its accents, or save "
                "it as 'CSV UTF-8'.",
                stacklevel=5,
            )
        return text
    raise ValueError(f"{path} is no text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8.")


def _whole(path: Path, text: str) -> list[Row]:
    """The records of one JSON list, or of JSON lines that are called otherwise."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return list(_lines(path, text))
        raise ValueError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}).") from error
    if isinstance(data, dict) and {"subject", "requested_rewrite"} & set(data) and not _by_columns(data):
        return [Row(None, data)]
    if not isinstance(data, list):
        more = " Write it with orient='records'." if _by_columns(data) else ""
        raise ValueError(f"{path} must hold a JSON list of records, got {type(data).__name__}.{more}")
    return [Row(None, record) for record in data]


def _by_columns(data: Any) -> bool:
    """Whether it is a table by columns, as pandas writes one by default."""
    return isinstance(data, dict) and bool(data) and all(isinstance(column, dict) for column in data.values())


def _lines(path: Path, text: str) -> Iterator[Row]:
    """A record a line; only a newline ends one."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield Row(None, json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not valid JSON ({error.msg}).") from error


def _table(path: Path, text: str, *, sure: bool) -> Iterator[Row]:
    """A record a row of a table with a header."""
    lines = text.splitlines(keepends=True)
    skipped = 0
    delimiter = None
    if lines and lines[0].strip().lower().startswith("sep=") and len(lines[0].strip()) == 5:  # Excel's own first line
        delimiter, skipped = lines[0].strip()[4], 1
    while skipped < len(lines) and not lines[skipped].strip(f"{_DELIMITERS} \r\n"):
        skipped += 1
    delimiter = delimiter or max(_DELIMITERS, key=lambda d: (_known(lines[skipped:], d), -_DELIMITERS.index(d)))
    if not sure and _known(lines[skipped:], delimiter) < 2:
        raise ValueError(f"{_KINDS}, got {path.name!r}.")
    rows = csv.reader(lines[skipped:], delimiter=delimiter, skipinitialspace=True)
    header = [_column(cell) for cell in next(rows, [])]
    _check_header(path, header)
    before = rows.line_num
    numbers: list[int] = []
    records: list[list[str]] = []
    for cells in rows:
        line, before = skipped + before + 1, rows.line_num
        cells = [cell.strip() for cell in cells]
        if any(cells):
            numbers.append(line)
            records.append(cells)
    if header[:1] == [""] and all(cells[0].isdigit() for cells in records):  # the index of a pandas frame
        header, records = header[1:], [cells[1:] for cells in records]
    with_whole_numbers(header, records, str(path), _NUMBERS)
    yield from (_row(line, header, cells, delimiter) for line, cells in zip(numbers, records, strict=True))


def _known(lines: list[str], delimiter: str) -> int:
    """How many columns of ours a table's first line has, read with a delimiter."""
    return sum(_column(cell) in _COLUMNS for cell in next(csv.reader(lines[:1], delimiter=delimiter), []))


def _column(cell: str) -> str:
    return cell.strip().strip('"').strip().lower().replace(" ", "_")


def _check_header(path: Path, header: list[str]) -> None:
    """Raise where a column stands twice; warn of columns that no fact has."""
    named = [name for name in header if name]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise ValueError(f"{path}: the header has the column(s) {twice} more than once; keep one of each.")
    others = [name for name in named if name not in _COLUMNS]
    if others and set(_REQUIRED) <= set(named):
        warnings.warn(
            f"{path}: the column(s) {others} are left out; a fact has {list(_COLUMNS)}.",
            stacklevel=6,
        )


def _row(line: int, header: list[str], cells: list[str], delimiter: str) -> Row:
    while len(cells) > len(header) and not cells[-1]:
        cells.pop()
    if len(cells) > len(header) or any(cells[i] for i, name in enumerate(header[: len(cells)]) if not name):
        fix = f"put quotes around texts with {'commas' if delimiter == ',' else repr(delimiter)}"
        return Row(line, error=f"has {len(cells)} cells, the header {len([n for n in header if n])}; {fix}")
    if len(cells) < len(header):
        return Row(line, error=f"has {len(cells)} cells, the header {len(header)}; fill the row up, with empty cells")
    own = set(_REQUIRED) <= set(header)
    record: Record = {}
    for name, value in zip(header, cells, strict=True):
        if not value or (own and name not in _COLUMNS):
            continue
        try:
            read = listed if name in LIST_FIELDS else yes_or_no if name == "case_sensitive" else None
            record[name] = value if read is None else read(name, value)
        except ValueError as error:
            return Row(line, error=str(error))
    return Row(line, record)
