"""Check files before they go into git. Pre-commit runs it, and the tests run the same functions.

    python tools/check_files.py large FILE ...      at most 1 MB each
    python tools/check_files.py notebooks FILE ...  executed from top to bottom, as stored

A line for each fault; the exit status is 1 if there is one. Needs nothing but Python.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

LIMIT = 1_000_000
"""Bytes of a file in git."""


def large(path: Path) -> Iterator[str]:
    """Yield a fault if a file is too large.

    Args:
        path: Any file.
    """
    size = path.stat().st_size
    if size > LIMIT:
        yield f"{size / 1e6:.1f} MB, and at most {LIMIT / 1e6:g} MB goes into git: make it smaller, or leave it out"


def notebooks(path: Path) -> Iterator[str]:
    """Yield what shows that a stored notebook is not the result of one run from top to bottom.

    Args:
        path: An .ipynb file. It is read, not run.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
        for place, cell in enumerate(code, 1):
            yield from _of_cell(place, cell)
    except (ValueError, KeyError, TypeError) as error:
        yield f"it is no notebook that can be read ({type(error).__name__}: {error})"
    yield from large(path)


def _of_cell(place: int, cell: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a code cell, the place-th that is not empty."""
    count, name = cell["execution_count"], f"code cell {place}"
    if count is None:
        yield f"{name} was not executed: run all cells and save"
    elif count != place:
        yield f"{name} was executed as number {count}: restart the kernel, run all cells and save"
    for output in cell["outputs"]:
        if output["output_type"] == "error":
            yield f"{name} ended in {output['ename']}: mend it, run all cells and save"
        if output["output_type"] == "execute_result" and output["execution_count"] != count:
            yield f"{name} shows the result of execution {output['execution_count']}: run all cells and save"


CHECKS: dict[str, Callable[[Path], Iterator[str]]] = {"large": large, "notebooks": notebooks}


def main(arguments: Sequence[str]) -> int:
    """Print the faults of files; returns the exit status: 0 without faults, 1 with some, 2 for an unknown check."""
    name, *paths = arguments or [""]
    if name not in CHECKS:
        print(f"The first word must be one of {', '.join(CHECKS)}, got {name!r}.", file=sys.stderr)
        return 2
    faults = [f"{path}: {fault}" for path in paths for fault in CHECKS[name](Path(path))]
    print("".join(f"{fault}\n" for fault in faults), end="")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
