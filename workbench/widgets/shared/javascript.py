"""Puts the JavaScript modules of a widget together when they are read.

anywidget takes the text of *one* ES module, and nothing here is built beforehand. So the sources in ``static/`` are
small ES modules that import each other, valid by themselves for an editor or ``node --check``, and `read_module` joins
those that an entry point needs into one text: each module once, after what it imports, without the ``import`` lines and
the word ``export``.

All parts share one scope afterwards. That is why no two may declare the same name, and why an import may not rename.
What would need more than this is refused with its file and line, never guessed:

- An import is ``import { name, other } from "./file.js";``, of names that the file exports.
- A top-level line begins in the first column with ``const NAME``, ``let NAME``, ``function NAME`` or ``class NAME``
  (``export`` and ``async`` before them), with ``//`` or ``/*``, or closes what an earlier line began. Only the entry
  point has an ``export default {``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

STATIC = Path(__file__).parents[1] / "static"

_IMPORT = re.compile(r'^import \{([^{}]*)\} from "(\.{1,2}/[^"\n]+\.js)";$', re.MULTILINE)
_DECLARATION = re.compile(r"(export )?(?:async )?(?:const|let|function|class)\b\*? ([A-Za-z_$][\w$]*)\b")
_CONTINUED = re.compile(r"\s|//|/\*|[})\]]|$")
_NAME = re.compile(r"[A-Za-z_$][\w$]*")
_GAP = re.compile(r"\A((?://.*\n)+)\n+")  # below the first comment, where the imports were
_ALLOWED = 'import { name } from "./file.js"; one const, let, function or class; in the entry point "export default {"'


@dataclass(frozen=True)
class _Import:
    """One import statement: the names, the file they come from, and the statement's line."""

    names: tuple[str, ...]
    path: Path
    line: int


@dataclass(frozen=True)
class _Module:
    """One source file.

    Args:
        name: Its path below the root, such as ``"grid/layout.js"``.
        imports: In the order of the text.
        declared: The line of every top-level name.
        exported: The names that other modules may import.
        default: The line of ``export default``; None without one.
        text: The source without its imports and without the word ``export``, but for ``export default``.
    """

    name: str
    imports: tuple[_Import, ...]
    declared: dict[str, int]
    exported: frozenset[str]
    default: int | None
    text: str


def read_module(entry: str, root: Path = STATIC) -> str:
    """Join an entry point and the modules that it imports into the text of one ES module.

    Args:
        entry: The entry point's path below ``root``, such as ``"grid/grid.js"``.
        root: The folder that holds all modules; parts are named by their path below it.

    Returns:
        The parts, each after those that it imports, each under a comment such as ``// grid/layout.js``. The entry point
        comes last.

    Raises:
        FileNotFoundError: A module that is not there.
        ValueError: A module that this does not understand, an import of what is not exported or from outside of
            ``root``, modules that import each other in a circle, or two that declare the same name. The message names
            file and line.
    """
    modules = list(_in_order((root / entry).resolve(), root.resolve(), {}, ()))
    places: dict[str, str] = {}
    for module in modules:
        for name, line in module.declared.items():
            if name in places:
                _refuse(
                    module.name, line, f"{name!r} is declared in {places[name]} too. Parts share a scope: rename it"
                )
            places[name] = f"{module.name}:{line}"
    for module in modules[:-1]:
        if module.default is not None:
            _refuse(module.name, module.default, f"only the entry point {entry} may have an 'export default'")
    return "\n".join(f"// {module.name}\n{module.text}" for module in modules)


def _in_order(path: Path, root: Path, done: dict[Path, _Module], parents: tuple[Path, ...]) -> Iterator[_Module]:
    """Yield a module after all that it imports, each once.

    Args:
        path: The module.
        root: The folder that holds all modules.
        done: Every module yielded so far; changed in place.
        parents: The modules whose imports led here.
    """
    module = _read(path, root)
    for statement in module.imports:
        circle = (*parents, path, statement.path)
        if statement.path in circle[:-1]:
            names = [each.relative_to(root).as_posix() for each in circle[circle.index(statement.path) :]]
            _refuse(module.name, statement.line, f"modules import each other in a circle: {' -> '.join(names)}")
        if statement.path not in done:
            yield from _in_order(statement.path, root, done, (*parents, path))
        source = done[statement.path]
        for name in statement.names:
            if name not in source.exported:
                has = ", ".join(sorted(source.exported)) or "nothing"
                _refuse(module.name, statement.line, f"{source.name} does not export {name!r}; it exports {has}")
    done[path] = module
    yield module


def _read(path: Path, root: Path) -> _Module:
    """Read one module and take its imports and exports apart."""
    name = path.relative_to(root).as_posix()
    source = path.read_text(encoding="utf-8")
    imports = tuple(_imports(name, source, path.parent, root))
    body = _IMPORT.sub(lambda match: "\n" * match[0].count("\n"), source)  # lines keep their numbers
    lines = body.split("\n")
    declared: dict[str, int] = {}
    exported: set[str] = set()
    default: int | None = None
    for i, line in enumerate(lines):
        if declaration := _DECLARATION.match(line):
            if declaration[2] in declared:
                _refuse(name, i + 1, f"{declaration[2]!r} is declared in line {declared[declaration[2]]} too")
            declared[declaration[2]] = i + 1
            if declaration[1]:
                exported.add(declaration[2])
                lines[i] = line.removeprefix("export ")
        elif line.startswith("export default {") and default is None:
            default = i + 1
        elif not _CONTINUED.match(line):
            _refuse(name, i + 1, f"{line[:60]!r} is not understood at the top level. Allowed: {_ALLOWED}")
    text = _GAP.sub(r"\1\n", "\n".join(lines).strip("\n"))
    return _Module(name, imports, declared, frozenset(exported), default, f"{text}\n")


def _imports(name: str, source: str, folder: Path, root: Path) -> Iterator[_Import]:
    """Yield the import statements of a module that lies in ``folder``."""
    lines: dict[str, int] = {}
    for match in _IMPORT.finditer(source):
        line = source.count("\n", 0, match.start()) + 1
        names = tuple(part.strip() for part in match[1].split(",") if part.strip())
        for imported in names:
            if not _NAME.fullmatch(imported):
                _refuse(name, line, f"an import may not rename: {imported!r}")
            if imported in lines:
                _refuse(name, line, f"{imported!r} is imported in line {lines[imported]} too")
            lines[imported] = line
        path = (folder / match[2]).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            _refuse(name, line, f"there is no module {match[2]!r} below {root.name}/")
        yield _Import(names, path, line)


def _refuse(name: str, line: int, problem: str) -> NoReturn:
    raise ValueError(f"{name}:{line}: {problem}.")
