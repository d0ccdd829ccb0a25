"""What was computed with a model is in ``model.cache``: no module has any state of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "workbench"

CHANGED_BY_FUNCTIONS = {
    "files/user_cache.py: _WARNED_ABOUT": "folders that it has warned of, since it warns once",
    "sweeps/worker.py: _loaded": "the one model of a worker process",
    "widgets/shared/job.py: _running": "jobs that run now, to be ended with the process",
}
CACHED_FUNCTIONS = {
    "evaluation/firmness.py: on_record": "a file of the package, by the fingerprint in its name",
    "evaluation/ordinary_text.py: ordinary_passages": "a file of the package",
    "facts/known.py: _bundled_facts": "files of the package",
    "facts/known.py: _sealed_facts": "files of the package",
    "facts/sealed_wordings.py: sealed_wordings": "a file of the package",
    "facts/ordinary_texts.py: prose": "a file of the package",
    "facts/tasks.py: _read": "a file of the package",
    "language/answers.py: adjectives": "a file of the package",
    "language/answers.py: _looked_for": "names of facts, made ready to be looked for",
    "language/bundled_answers.py: shipped_answers": "a file of the package, by the fingerprint in its name",
    "plots/svg_file.py: file_style": "a style of the package",
    "plots/svg_file.py: light_colours": "a style of the package",
    "types/annotations.py: kinds_of": "annotations of the package's own classes",
    "types/flat_text.py: flatten": "texts, made comparable",
    "types/flat_text.py: _flat_piece": "characters, made comparable",
    "types/mentions.py: sought": "names, made ready to be looked for",
    "models/provenance.py: _version": "versions of the installed packages",
    "models/provenance.py: package_commit": "the commit of the checkout",
    "sweeps/code_version.py: _modules_digest": "the package's own modules",
}
"""Functions that remember their results, and of what: nothing that a model computed."""
CONTAINERS = {"dict", "list", "set", "defaultdict", "OrderedDict", "deque", "Counter", "bytearray"}
MEMORIES = {"WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "local", "LruEntries", "EnginePool", "ModelCache"}
CHANGING = {
    *("append", "add", "update", "setdefault", "pop", "popitem", "clear", "insert", "extend", "remove", "discard"),
    *("appendleft", "popleft", "move_to_end", "sort", "reverse"),
}


def called(node: ast.AST) -> str:
    """The last name of what is called or subscribed: ``weakref.WeakSet[int]()`` -> ``WeakSet``."""
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def module_names(tree: ast.Module) -> dict[str, ast.expr]:
    """What is assigned to names at module level."""
    out: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            out.update({target.id: node.value for target in node.targets if isinstance(target, ast.Name)})
        elif isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
            out[node.target.id] = node.value
    return out


def changed_in_functions(tree: ast.Module) -> Iterator[str]:
    """Names that are assigned as ``global``, whose items are set, or whose changing methods are called in functions."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in (inner for function in functions for inner in ast.walk(function)):
        if isinstance(node, ast.Global):
            yield from node.names
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            yield called(node)
        elif isinstance(node, ast.AugAssign):
            yield called(node.target)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
            yield called(node.func.value)


def state_of(source: str) -> set[str]:
    """Names of a module that hold state: memories of any use, and containers that its functions change."""
    tree = ast.parse(source)
    names, changed = module_names(tree), set(changed_in_functions(tree))
    displays = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
    held = {name for name, value in names.items() if called(value) in MEMORIES and isinstance(value, ast.Call)}
    kept = {name for name, value in names.items() if isinstance(value, displays) or called(value) in CONTAINERS}
    rebound = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
    return held | (kept & changed) | rebound


def cached_functions(source: str) -> dict[str, str]:
    """Functions that remember their results by functools, with the source of their parameters."""
    out: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and {"cache", "lru_cache"} & set(map(called, node.decorator_list)):
            out[node.name] = ast.unparse(node.args)
    return out


def in_package() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(PACKAGE)), path.read_text(encoding="utf-8")


def test_no_module_has_state() -> None:
    assert {f"{path}: {name}" for path, source in in_package() for name in state_of(source)} == {*CHANGED_BY_FUNCTIONS}


def test_no_function_remembers_what_a_model_computed() -> None:
    remembering = {
        f"{path}: {name}": given for path, source in in_package() for name, given in cached_functions(source).items()
    }
    assert remembering.keys() == CACHED_FUNCTIONS.keys()
    assert not [name for name, given in remembering.items() if "model" in given.casefold() or "Tensor" in given]


@pytest.mark.parametrize(
    ("source", "state"),
    [
        ("A = {}\ndef f(x):\n    A[x] = 1", {"A"}),
        ("A: dict[str, int] = {}\ndef f(x):\n    return A[x]", set()),
        ("A = []\ndef f(x):\n    A.append(x)", {"A"}),
        ("A = []\nA.append(1)", set()),
        ("A = defaultdict(list)\ndef f(x):\n    A[x].append(1)", {"A"}),
        ("A = set()\ndef f():\n    global A\n    A = {1}", {"A"}),
        ("A = None\ndef f():\n    global A\n    A = 1", {"A"}),
        ("A: WeakKeyDictionary[int, int] = WeakKeyDictionary()", {"A"}),
        ("A = weakref.WeakSet()", {"A"}),
        ("A = frozenset()\ndef f(x):\n    return A | {x}", set()),
    ],
)
def test_the_reader_of_state_itself(source: str, state: set[str]) -> None:
    assert state_of(source) == state


def test_the_reader_of_cached_functions_itself() -> None:
    source = (
        "@functools.lru_cache(maxsize=1)\ndef f(model): ...\n@cache\ndef g(): ...\n@cached_property\ndef h(self): ..."
    )
    assert cached_functions(source) == {"f": "model", "g": ""}
