"""The API reference: a page for each folder of the package, and a table of all public names.

A name is public when it is in ``workbench.__all__`` or in the ``__all__`` of a folder. A page also has the names of the
package that the signatures on it mention, so that no type there is left unexplained. The code is read, not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import griffe

import workbench
from docsite.docstrings import HouseStyle

ROOT = Path(__file__).parents[1]
FOLDER = "reference/api"
"""Where the pages lie in the site."""

ORDER = (
    *("models", "facts", "language", "tracing", "circuits", "editing", "evaluation", "probing", "comparing", "sweeps"),
    *("widgets", "files", "plots", "types"),
)
"""The pages, in the order of use."""


@dataclass(frozen=True)
class Entry:
    """A name on a page.

    Args:
        path: What a user writes, from ``workbench`` on: ``"workbench.rewrite"``.
        home: The folder whose page it is on.
        kind: ``"function"``, ``"class"``, ``"attribute"`` or ``"module"``.
        summary: The first line of its docstring; empty where it has none.
        level: Of its heading.
    """

    path: str
    home: str
    kind: str
    summary: str
    level: int = 3

    @property
    def short(self) -> str:
        """As a user writes it: ``wb.`` stands for the package, deeper names are imported by their path."""
        rest = self.path.removeprefix("workbench.")
        return f"wb.{rest}" if "." not in rest or rest.startswith("recipes.") else self.path


class MissingName(ValueError):
    """A public name that cannot be documented."""


@cache
def package() -> griffe.Module:
    """The package as griffe reads it."""
    style = griffe.load_extensions(HouseStyle)
    loaded = griffe.load("workbench", search_paths=[str(ROOT)], resolve_aliases=True, extensions=style)
    assert isinstance(loaded, griffe.Module)
    return loaded


def public_paths(names: Sequence[str] = workbench.__all__) -> list[str]:
    """What a user can write: the names of the package, of ``wb.recipes``, then those of the folders that list any.

    Args:
        names: Those of the package.
    """
    paths = [f"workbench.{name}" for name in names]
    for folder in (package()["recipes"], *_folders(package())):
        within = "workbench.recipes" if folder is package()["recipes"] else folder.path
        paths += [f"{within}.{name}" for name in _exported(folder)]
    return paths


def entries(paths: Sequence[str] | None = None) -> dict[str, list[Entry]]:
    """What is on each page, by folder; a thing with several names is listed under the first.

    Args:
        paths: The public names; by default all of them.

    Raises:
        MissingName: A public name that does not exist, has no docstring or lies in a folder without a page.
    """
    pages: dict[str, list[Entry]] = {folder: [] for folder in ORDER}
    seen: set[str] = set()
    for path in public_paths() if paths is None else paths:
        thing = _thing(path)
        if thing.canonical_path not in seen:
            seen.add(thing.canonical_path)
            entry = _entry(path, thing)
            if not entry.summary and entry.kind in ("function", "class"):
                raise MissingName(f"{path} is public and has no docstring; write one in {_file(thing)}.")
            pages[entry.home].append(entry)
    mentioned = {path: None for page in pages.values() for one in page for path in _mentioned(_thing(one.path))}
    for path in mentioned:
        if _is_documented(path) and (home := canonical(path)) not in seen:
            seen.add(home)
            entry = _entry(home, _thing(home))
            pages[entry.home].append(entry)
    return {folder: page for folder, page in pages.items() if page}


def pages(paths: Sequence[str] | None = None) -> dict[str, str]:
    """The pages as Markdown, by their place in the site.

    Args:
        paths: The public names; by default all of them.

    Raises:
        MissingName: As for ``entries``.
    """
    found = entries(paths)
    written = {f"{FOLDER}/{folder}.md": _page(folder, page) for folder, page in found.items()}
    return {f"{FOLDER}/index.md": _index(found)} | written


def _thing(path: str) -> griffe.Object | griffe.Alias:
    try:
        thing = package()[path.removeprefix("workbench.")]
        return thing.final_target if isinstance(thing, griffe.Alias) else thing
    except (KeyError, griffe.GriffeError) as error:
        raise MissingName(f"{path} is public and is nowhere in the package; take it out of __all__.") from error


def canonical(path: str) -> str:
    """Where a public name is defined.

    Raises:
        MissingName: There is no such name.
    """
    return _thing(path).canonical_path


def _entry(path: str, thing: griffe.Object | griffe.Alias) -> Entry:
    home = thing.canonical_path.split(".")[1]
    if home not in ORDER:
        raise MissingName(
            f"{path} lies in workbench/{home}, which has no page; give it a place in ORDER in {__file__}."
        )
    summary = thing.docstring.value.partition("\n\n")[0].replace("\n", " ") if thing.docstring else ""
    return Entry(path, home, thing.kind.value, summary)


def _file(thing: griffe.Object | griffe.Alias) -> str:
    return str(Path(str(thing.filepath)).relative_to(ROOT))


def _exported(module: griffe.Module) -> list[str]:
    return [str(name) for name in module.exports or ()]


def _folders(module: griffe.Module) -> Iterator[griffe.Module]:
    """The folders of the package that list names, from the top."""
    for inner in module.modules.values():
        if isinstance(inner, griffe.Module) and inner.is_init_module:
            if inner.exports is not None:
                yield inner
            yield from _folders(inner)


def _mentioned(thing: griffe.Object | griffe.Alias) -> Iterator[str]:
    """Names of the package in the annotations of a function, or of a class and its public methods."""
    functions: list[griffe.Function] = []
    if isinstance(thing, griffe.Function):
        functions = [thing]
    elif isinstance(thing, griffe.Class):
        functions = [one for one in thing.functions.values() if one.name == "__init__" or one.is_public]
    for function in functions:
        for annotation in (function.returns, *(parameter.annotation for parameter in function.parameters)):
            if isinstance(annotation, griffe.Expr):
                for part in annotation.iterate():
                    if isinstance(part, griffe.ExprName) and part.canonical_path.startswith("workbench."):
                        yield part.canonical_path


def _is_documented(path: str) -> bool:
    """Whether a name that a signature mentions is one that a reader could use: nothing private, no ``TypeVar``."""
    try:
        thing = _thing(path)
    except MissingName:
        return False
    variable = isinstance(thing, griffe.Attribute) and str(thing.value).startswith("TypeVar(")
    in_a_page = thing.canonical_path.split(".")[1] in ORDER
    return in_a_page and not thing.is_private and not variable


def _page(folder: str, page: Sequence[Entry]) -> str:
    module = package()[folder]
    top = [one for one in page if one.path.count(".") == 1]
    recipes = [one for one in page if one.path.startswith("workbench.recipes.")]
    rest = [one for one in page if one not in top and one not in recipes]
    parts = [f"# {folder}", module.docstring.value if module.docstring else ""]
    for heading, group in (("Names of `wb`", top), ("`wb.recipes`", recipes), ("Further types and functions", rest)):
        if group:
            parts += [f"## {heading}", *(_directive(one) for one in sorted(group, key=_by_kind))]
    return "\n\n".join(parts) + "\n"


def _by_kind(entry: Entry) -> tuple[int, str]:
    order = ("module", "function", "class", "attribute", "type alias")
    return order.index(entry.kind), entry.short.lower()


def _directive(entry: Entry) -> str:
    options = [
        f"heading: {entry.short}",
        f"toc_label: {entry.path.rpartition('.')[2]}",
        f"heading_level: {entry.level}",
    ]
    options += ["members: false"] if entry.kind == "module" else []
    return "\n      ".join((f"::: {entry.path}\n    options:", *options))


def _index(found: Mapping[str, Sequence[Entry]]) -> str:
    parts = [
        "# API reference",
        "A page for each folder of the package; `wb` is `import workbench as wb`. Examples begin where a user has "
        'written `model = wb.load_model()`, `facts = wb.load_facts()` and `fact = facts["france-capital"]`. `trace`, '
        "`heads`, `edit`, `report`, `probes` and `table` are what `wb.causal_trace`, `wb.attribute`, `wb.rewrite`, "
        "`wb.evaluate`, `wb.probe` and `wb.compare` made of that fact. The outputs are those of a tiny model that "
        "knows five capitals, on which the tests run every example.",
    ]
    for folder, page in found.items():
        top = [one for one in page if one.path.count(".") == 1 or one.path.startswith("workbench.recipes.")]
        rows = [
            f"| [`{one.short}`]({folder}.md#{one.path}) | {cell(one.summary)} |" for one in sorted(top, key=_by_kind)
        ]
        more = len(page) - len(top)
        parts.append(f"## [{folder}]({folder}.md)")
        if rows:
            parts.append("\n".join(("| name | what it is |", "|---|---|", *rows)))
        if more:
            parts.append(f"{'And ' if rows else ''}{more} {'more ' if rows else ''}on the page.")
    return "\n\n".join(parts) + "\n"


def cell(text: str) -> str:
    """A text for one cell of a Markdown table."""
    parts = text.replace("``", "`").split("`")
    return "`".join(part.replace("|", "\\|") if i % 2 == 0 else part for i, part in enumerate(parts))
