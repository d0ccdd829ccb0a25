"""Cells of a table, as spreadsheets and pandas write them: lists, yes and no, whole numbers with gaps between them."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from collections.abc import Sequence
from typing import Any

_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")
_POINT_ZERO = re.compile(r"[+-]?\d+\.0")


def listed(name: str, cell: str) -> list[Any]:
    """The parts of a cell that holds a list: separated by ``|``, or as JSON and Python write one.

    Raises:
        ValueError: It begins and ends as a list, and cannot be read as one.
    """
    if not (cell.startswith("[") and cell.endswith("]")):
        return [part.strip() for part in cell.split("|") if part.strip()]
    try:
        return json.loads(cell)
    except ValueError:
        pass
    try:
        value = ast.literal_eval(cell)
        texts = [
            token for token in tokenize.generate_tokens(io.StringIO(cell).readline) if token.type == tokenize.STRING
        ]
    except (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError):
        value, texts = None, []
    # A numpy array has no commas, and Python reads texts without one between them as one text.
    if not isinstance(value, list) or len(texts) > len(value):
        raise ValueError(f"the cell of {name!r} looks like a list and cannot be read as one, {cell!r}; write a|b|c")
    return value


def yes_or_no(name: str, cell: str) -> bool:
    """What a cell says.

    Raises:
        ValueError: Neither yes nor no.
    """
    said = cell.lower()
    if said not in _YES + _NO:
        raise ValueError(f"the cell of {name!r} must be one of {[*_YES, *_NO]}, got {cell!r}")
    return said in _YES


def with_whole_numbers(header: Sequence[str], rows: list[list[str]], where: str, columns: Sequence[str]) -> None:
    """Take ``.0`` off a column of whole numbers with empty cells, which pandas writes so; with a warning.

    Args:
        header: The columns' names.
        rows: The cells; they are changed.
        where: The file, for the warning.
        columns: The columns that may be changed.
    """
    for i, name in enumerate(header):
        cells = [row[i] for row in rows if i < len(row)]
        given = [cell for cell in cells if cell]
        if name in columns and given and len(given) < len(cells) and all(map(_POINT_ZERO.fullmatch, given)):
            for row in rows:
                if i < len(row):
                    row[i] = row[i].removesuffix(".0")
            warnings.warn(
                f"{where}: the column {name!r} has empty cells, and its numbers end in .0, as pandas writes whole "
                f"numbers beside empty cells. They were read as whole numbers: {given[0]!r} as "
                f"{given[0].removesuffix('.0')!r}.",
                stacklevel=6,
            )
