"""The table of files on the architecture page: each module with the first sentence of its docstring.

A module of JavaScript has its first comment.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from docsite.api import cell

PACKAGE = Path(__file__).parents[1] / "workbench"
FLOORS = (
    *("types", "files", "plots", "models", "language", "facts", "tracing", "circuits", "editing", "evaluation"),
    *("probing", "comparing", "sweeps", "widgets"),
)
"""The folders, from the ground up."""


def file_table(package: Path = PACKAGE) -> str:
    """The table as Markdown: what each folder is, and a row for each file in it.

    Args:
        package: The folder of the package.

    Raises:
        ValueError: A file without a docstring (or, in JavaScript, without a comment at its top), or a folder that has
            no place in ``FLOORS``.
    """
    folders = {path.parent.name for path in package.glob("*/*.py")}
    if folders != set(FLOORS):
        raise ValueError(f"{sorted(folders ^ set(FLOORS))}: give each folder of the package its place in FLOORS.")
    parts: list[str] = []
    for folder in FLOORS:
        init = package / folder / "__init__.py"
        parts.append(f"**`{folder}/`**: {first_sentence(init)}\n\n{_rows(package / folder, _files(package / folder))}")
    loose = sorted(path for path in package.glob("*.py") if path.name != "__init__.py")
    parts.append(f"Beside the folders:\n\n{_rows(package, loose)}")
    return "\n\n".join(parts)


def _files(folder: Path) -> Iterator[Path]:
    """Modules of a folder: its own, then those of each folder in it, with what that folder is."""
    found = [path for suffix in ("py", "js") for path in folder.rglob(f"*.{suffix}")]
    yield from sorted((path for path in found if path != folder / "__init__.py"), key=lambda p: (p.parent, p.name))


def _rows(home: Path, files: Iterator[Path] | list[Path]) -> str:
    rows = []
    for path in files:
        name = path.relative_to(home).as_posix()
        name = name.removesuffix("__init__.py") if path.name == "__init__.py" else name
        rows.append(f"| `{name}` | {cell(first_sentence(path))} |")
    return "\n".join(("| file | what it is |", "|---|---|", *rows))


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, or of the comment at the top of a JavaScript file.

    Raises:
        ValueError: There is none.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".js":
        lines = re.match(r"(?://[^\n]*\n)*", text)
        words = re.sub(r"^// ?", "", lines[0] if lines else "", flags=re.MULTILINE)
    else:
        words = ast.get_docstring(ast.parse(text)) or ""
    paragraph = " ".join(words.partition("\n\n")[0].split())
    if not paragraph:
        raise ValueError(f"{path} says nothing at its top; begin it with what it is, in one sentence.")
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`\"])", paragraph, maxsplit=1)[0]
