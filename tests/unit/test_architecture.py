"""The modules import in one direction, importing the package is cheap, and the page on it knows every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "workbench"

# The floors, from the ground up: a folder may import what stands before it in its tuple's floors, when it is imported
# itself. An import inside a function is free: that is how a result offers .plot() or .save() without depending on it.
GROUND = {"types", "files"}
COMPUTE = ("models", "language", "facts", "tracing", "editing", "evaluation")
MAY_IMPORT: dict[str, set[str]] = {
    "types": set(),
    "files": {"types"},
    "plots": GROUND,
    **{part: GROUND | set(COMPUTE[:floor]) for floor, part in enumerate(COMPUTE)},
    "probing": GROUND | set(COMPUTE),
    "comparing": GROUND | set(COMPUTE),
    "widgets": GROUND | set(COMPUTE) | {"plots", "probing", "comparing"},
    "demo": GROUND | set(COMPUTE) | {"plots"},
    "cli": GROUND | set(COMPUTE) | {"plots", "demo"},
}
HEAVY = ("torch", "transformers", "transformer_lens", "peft", "plotly", "pandas", "ipywidgets", "anywidget")


def part_of(path: Path) -> str:
    """The part of the package that a file belongs to: ``workbench/tracing/causal.py`` -> ``tracing``."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def executed_on_import(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported: not function bodies, not ``if TYPE_CHECKING``."""
    for node in nodes:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from executed_on_import(node.orelse)
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from executed_on_import(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from executed_on_import(handler.body)


def imported_modules(source: str, package: str) -> set[str]:
    """Absolute names of what a module's source imports at module level; ``package`` resolves relative imports."""
    found: set[str] = set()
    for node in executed_on_import(ast.parse(source).body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            # `from workbench import models` names a module, `from workbench.models import x` names it in the base.
            found |= {f"workbench.{alias.name}" for alias in node.names} if base == "workbench" else {base}
    return found


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"{part} has no place yet: give it one here and in docs/architecture.md"
    package = ".".join(("workbench", *path.relative_to(PACKAGE).parent.parts))
    imported = imported_modules(path.read_text(encoding="utf-8"), package)
    ours = {name.split(".")[1] for name in imported if name.startswith("workbench.")} - {part}
    assert "workbench" not in imported, "import the module that defines the name, not the package"
    assert ours <= MAY_IMPORT[part], f"{part} may not import {sorted(ours - MAY_IMPORT[part])}"


def test_the_allowed_directions_have_no_cycle() -> None:
    remaining = {part: allowed - {part} for part, allowed in MAY_IMPORT.items()}
    remaining |= {name: set() for name in set().union(*remaining.values()) - set(remaining)}
    while remaining:
        leaves = {part for part, allowed in remaining.items() if not allowed & set(remaining)}
        assert leaves, f"these parts may import each other in a circle: {sorted(remaining)}"
        remaining = {part: allowed for part, allowed in remaining.items() if part not in leaves}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch\nfrom workbench.types import Fact", {"torch", "workbench.types"}),
        ("from workbench import plots", {"workbench.plots"}),
        ("from .ia3 import gates\nfrom ..plots import x", {"workbench.editing.ia3", "workbench.plots"}),
        ("def f():\n    from workbench.plots import x", set()),
        ("class A:\n    from workbench.plots import x", {"workbench.plots"}),
        ("try:\n    import a\nexcept ImportError:\n    import b\nfinally:\n    import c", {"a", "b", "c"}),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", {"b"}),
    ],
)
def test_the_import_reader_itself(source: str, expected: set[str]) -> None:
    assert imported_modules(source, "workbench.editing") == expected


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, workbench; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == [], "import these when they are first needed"


def test_the_architecture_page_names_every_part() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = {path.relative_to(PACKAGE).parts[0] for path in modules()}
    missing = sorted(name for name in names if f"{name}/" not in page and not (name.endswith(".py") and name in page))
    assert not missing, f"docs/architecture.md does not mention {missing}"
