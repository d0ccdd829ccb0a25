"""The modules import in one direction, in functions too, importing the package is cheap, and the page on it is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "workbench"

# The floors, from the ground up: a folder may import what stands before it, on import and inside functions.
GROUND = {"types", "files"}
COMPUTE = ("models", "language", "facts", "tracing", "circuits", "editing", "evaluation")
MAY_IMPORT: dict[str, set[str]] = {
    "types": set(),
    "files": {"types"},
    "plots": GROUND,
    **{part: GROUND | set(COMPUTE[:floor]) for floor, part in enumerate(COMPUTE)},
    "probing": GROUND | set(COMPUTE),
    "comparing": GROUND | set(COMPUTE),
    "pace": set(),
    "sweeps": GROUND | set(COMPUTE) | {"pace"},
    "widgets": GROUND | set(COMPUTE) | {"plots", "probing", "comparing", "sweeps", "pace"},
    "demo": GROUND | set(COMPUTE) | {"plots", "pace"},
    "lab": {"files", "models"},
    "cli": GROUND | set(COMPUTE) | {"plots", "demo", "lab", "sweeps"},
}
FACADES = {"plot", "save", "load", "to_dict", "to_html", "write_html"}
"""Methods of results that may import plots and files when they are called: a result offers them without depending on
either."""
LATE = {
    ("models/load.py", "support", "workbench.tracing.self_check"),
    ("types/contrast.py", "of", "workbench.tracing.contrasts"),
    ("types/edit.py", "to_peft", "workbench.editing.export"),
    ("types/recipe.py", "named", "workbench.editing.methods.table"),
    ("types/recipe.py", "recipe_from_dict", "workbench.editing.methods.table"),
}
"""The other functions that import against the arrows, each of one module."""
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


def imports_of(node: ast.AST, package: str) -> set[str]:
    """Absolute names of what a statement imports, none where it is no import; ``package`` resolves relative ones."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return set()
    base = node.module or ""
    if node.level:
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*parents, base] if base else parents)
    # `from workbench import models` names a module, `from workbench.models import x` names it in the base.
    return {f"workbench.{alias.name}" for alias in node.names} if base == "workbench" else {base}


def imported_modules(source: str, package: str) -> set[str]:
    """What a module's source imports at module level."""
    return {name for node in executed_on_import(ast.parse(source).body) for name in imports_of(node, package)}


def imported_in_functions(source: str, package: str) -> set[tuple[str, str]]:
    """What the functions of a module import: each function's name with a module's."""
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {(f.name, name) for f in functions for node in ast.walk(f) for name in imports_of(node, package)}


def package_of(path: Path) -> str:
    """The package in which a file lies."""
    return ".".join(("workbench", *path.relative_to(PACKAGE).parent.parts))


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"{part} has no place yet: give it one here and in docs/development/architecture.md"
    imported = imported_modules(path.read_text(encoding="utf-8"), package_of(path))
    ours = {name.split(".")[1] for name in imported if name.startswith("workbench.")} - {part}
    assert "workbench" not in imported, "import the module that defines the name, not the package"
    assert ours <= MAY_IMPORT[part], f"{part} may not import {sorted(ours - MAY_IMPORT[part])}"


def late_imports() -> set[tuple[str, str, str]]:
    """Imports inside functions that point against the arrows, by file, function and module."""
    late: set[tuple[str, str, str]] = set()
    for path in modules():
        allowed = MAY_IMPORT[part_of(path)] | {part_of(path)}
        for function, name in imported_in_functions(path.read_text(encoding="utf-8"), package_of(path)):
            if name.startswith("workbench.") and name.split(".")[1] not in allowed:
                late.add((str(path.relative_to(PACKAGE)), function, name))
    return late


def test_imports_inside_functions_point_one_way_too() -> None:
    facades = {
        (path, function, name)
        for path, function, name in late_imports()
        if path.startswith("types/") and function in FACADES and name.split(".")[1] in ("plots", "files")
    }
    assert late_imports() - facades == LATE


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


def test_the_reader_of_imports_inside_functions_itself() -> None:
    source = "import a\nclass A:\n    def f(self):\n        from ..plots import x\n        import b\n"
    assert imported_in_functions(source, "workbench.types") == {("f", "workbench.plots"), ("f", "b")}


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, workbench; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == [], "import these when they are first needed"


def says_what_it_is(path: Path) -> bool:
    """Whether a module begins with what it is: a docstring, or in JavaScript a comment."""
    text = path.read_text(encoding="utf-8")
    return text.startswith("//") if path.suffix == ".js" else bool(ast.get_docstring(ast.parse(text)))


def test_every_module_says_what_it_is() -> None:
    """The architecture page's table of files is made of this."""
    scripts = [path for path in PACKAGE.rglob("*.js") if "node_modules" not in path.parts]
    silent = [str(path.relative_to(PACKAGE)) for path in (*modules(), *scripts) if not says_what_it_is(path)]
    assert sorted(silent) == [], "begin these with a sentence that says what they are"
    page = (ROOT / "docs" / "development" / "architecture.md").read_text(encoding="utf-8")
    assert page.count("\n<!-- generated: files -->\n") == 1


def test_the_architecture_page_has_a_row_for_each_folder() -> None:
    page = (ROOT / "docs" / "development" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+) \|", page.partition("\n## The parts\n")[2].partition("\n### ")[0], re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`workbench/(\w+)(?:/|\.py)`", row)]
    assert sorted(named) == sorted(MAY_IMPORT)


def test_the_reader_of_beginnings_itself(tmp_path: Path) -> None:
    for name, text, expected in (
        ("a.py", '"""A."""\nx = 1\n', True),
        ("b.py", "x = 1\n", False),
        ("c.js", "// A.\n", True),
        ("d.js", "import x\n// A.\n", False),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert says_what_it_is(tmp_path / name) == expected


MOST_LINES = 400
MOST_IN_A_BODY = 70
ALLOWED_LONG_BODIES = 3


def long_files(folder: str) -> set[str]:
    """The sources in a folder of the repository that have too many lines."""
    sources = [path for suffix in ("py", "js") for path in (ROOT / folder).rglob(f"*.{suffix}")]
    return {
        path.relative_to(ROOT).as_posix()
        for path in sources
        if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES
    }


def test_few_files_lie_loose_and_none_is_long() -> None:
    loose = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert len(loose) <= 5, f"each has a folder of its noun: {loose}"
    assert not long_files("workbench"), "two files with a name each are easier to find one's way in"


def test_no_test_or_benchmark_becomes_long() -> None:
    """A cut goes where one theme ends, not where the lines do."""
    assert not long_files("tests") | long_files("benchmarks"), "two themes are two files"


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_functions_are_short() -> None:
    long: list[str] = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and body_lines(node) > MOST_IN_A_BODY:
                long.append(f"{path.relative_to(PACKAGE)}:{node.name} ({body_lines(node)})")
    assert len(long) <= ALLOWED_LONG_BODIES, f"cut into pieces with names: {long}"
