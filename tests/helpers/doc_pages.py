"""The pages of the docs as texts and blocks of code, for tests that read or run them.

A fenced block may have a comment on the line before it, which the site does not show:

- ``<!-- file: NAME -->``: the block is the content of a file of that name.

Every other ``python`` block is run. There is no way to leave one out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_FILE = re.compile(r"<!-- file: (\S+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Args:
        page: The page, relative to the docs.
        line: The first line of its text, from 1.
        language: What stands after the fence.
        text: What is between the fences.
        file: The file whose content it is; empty for code that is run.
    """

    page: str
    line: int
    language: str
    text: str
    file: str = ""


def pages(folder: str = "") -> list[Path]:
    """The written pages, below a folder; those that are generated (``reference/api``) are not in the repository."""
    return sorted(path for path in (DOCS / folder).rglob("*.md") if "api" not in path.relative_to(DOCS).parts)


def name_of(page: Path) -> str:
    """A page's name in tests: its path within the docs."""
    return page.relative_to(DOCS).as_posix()


def unwrapped(text: str) -> str:
    """A text with single spaces for white space, so that a sentence is found wherever its lines break."""
    return " ".join(text.split())


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    for i, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = i
            continue
        named = _FILE.fullmatch(lines[start - 1]) if start else None
        yield Block(
            name_of(page),
            start + 2,
            lines[start].removeprefix("```").strip(),
            "\n".join(lines[start + 1 : i]) + "\n",
            named[1] if named else "",
        )
        start = None
    assert start is None, f"{name_of(page)}:{(start or 0) + 1}: a block that does not end"
