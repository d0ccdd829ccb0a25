"""Long measurements that are made once: read from the benchmark's file as long as their settings are the same.

A benchmark that is stopped goes on where it was: what is done is on file (``benchmarks/lib/store.py``). Look into the
files, measure a result again by removing it, or write results as JSON files of their own:

    python -m benchmarks.lib.kept list [edit_quality]
    python -m benchmarks.lib.kept show edit_quality japan-continent-6
    python -m benchmarks.lib.kept remove edit_quality japan-continent-6
    python -m benchmarks.lib.kept unpack edit_quality out/edit_quality
"""

from __future__ import annotations

import argparse
import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.lib.code import code_of
from benchmarks.lib.store import ENDING, FOLDER, Line, Store
from workbench.editing.selector import NEURONS, RETAINED
from workbench.files.atomic import write_bytes

RECIPES = ("recipe", "paper", "editor")
"""Settings that are recipes: of the method that they or the settings name, else of IA3."""


class Kept:
    """The results of a benchmark: those on file that have the settings asked for, and the others measured now.

    Args:
        path: The file, ``.jsonl.xz``.
        script: The benchmark, its ``__file__``. The code is read here: make this at the start.
    """

    def __init__(self, path: str | Path, script: str | Path) -> None:
        self.store, self.code = Store(path), code_of(script)
        self._warned = False

    def find(self, name: str, settings: dict[str, Any], files: Sequence[Path] = ()) -> dict[str, Any] | None:
        """A result on file that was made with these settings; None if there is none.

        Args:
            name: What it is called.
            settings: All that the measurement depends on besides the code, as JSON values.
            files: What the measurement writes beside it. The result counts only while they are all there.

        Warns:
            UserWarning: Once, if the result was made by other code than today's.
        """
        line = self.store.lines().get(name)
        if line is None or not same_settings(line.settings, settings) or not all(path.exists() for path in files):
            return None
        if line.code.sha256 != self.code.sha256 and not self._warned:
            self._warned = True
            warnings.warn(self._other_code(), stacklevel=3)
        return line.result

    def measured(
        self, name: str, settings: dict[str, Any], measure: Callable[[], dict[str, Any]], files: Sequence[Path] = ()
    ) -> dict[str, Any]:
        """A result: ``find`` it, or measure it now and write it.

        Args:
            name, settings, files: As in ``find``.
            measure: Gives JSON values.
        """
        result = self.find(name, settings, files)
        if result is None:
            line = Line(name, plain(settings), self.code, plain(measure()))
            self.store.put(line)
            result = line.result
        return result

    def _other_code(self) -> str:
        """That results on file were made by other code, in words."""
        lines = self.store.lines().values()
        others = [line.code for line in lines if line.code.sha256 != self.code.sha256]
        unknown = sum(code.sha256 is None for code in others)
        commits = sorted({code.commit[:12] for code in others if code.commit})
        notes = [f"{unknown} before results had a hash of the code"] if unknown else []
        notes += [f"at {', '.join(commits)}"] if commits else []
        return (
            f"{len(others)} of {len(lines)} results in {self.store.path} were made by other code than today's"
            f"{' (' + '; '.join(notes) + ')' if notes else ''}. They are used as they are. To measure one again, "
            f"remove it first: python -m benchmarks.lib.kept remove {self.store.path} NAME"
        )


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values as they are read back from a file: tuples are lists."""
    return json.loads(json.dumps(values))


def same_settings(made_with: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether a measurement on file was made with these settings.

    An option that a recipe on file lacks was added later, with a default that leaves fits as they were before.
    """
    return _complete(made_with) == _complete(settings)


def _complete(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they are read back from a file, with all options of their recipes."""
    given = plain(settings)
    return given | {name: _options(given, given[name]) | given[name] for name in RECIPES if name in given}


def _options(settings: dict[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
    """All options of a recipe's method, as they are by default."""
    name = str(recipe.get("method", settings.get("method")))
    named = {one.method: type(one) for one in wb.recipes.RECIPES.values()}
    kind = named.get(name) or type(wb.recipes.RECIPES.get(name, wb.Recipe()))
    return plain(kind().to_dict())


def measured_on(model: wb.LoadedModel) -> dict[str, Any]:
    """What every edit is made on: the model, and the bundled facts with their wordings and aliases, but for related
    ones, which no edit uses. The package's code is not in it: what other code made is used with a warning, until it is
    removed.
    """
    facts = json.dumps([fact.to_dict() for fact in wb.load_facts().core], sort_keys=True)
    return {"facts": hashlib.sha256(facts.encode()).hexdigest()[:16], "model": model.fingerprint}


def defaults(model: wb.LoadedModel, recipe: wb.Recipe | None = None, neurons: int = NEURONS) -> dict[str, Any]:
    """What an edit by the default selector and its rates depend on: what it is made on, the recipe (the default one for
    None), and the selector.
    """
    recipe = recipe or wb.Recipe()
    return {
        **measured_on(model),
        "recipe": recipe.to_dict() | {"steps": list(recipe.stage_steps)},
        "selector": {"neurons": neurons, "layers": "all", "retained": RETAINED},
    }


def store_of(name: str) -> Store:
    """The store of a benchmark by its name (``"edit_quality"``), or by the path of its file.

    Raises:
        SystemExit: There is no such file; the message lists those that there are.
    """
    path = Path(name) if name.endswith(ENDING) else FOLDER / f"{name}{ENDING}"
    if not path.is_file():
        there = [found.name.removesuffix(ENDING) for found in sorted(FOLDER.glob(f"*{ENDING}"))]
        raise SystemExit(f"There is no file {path}. Files of results in {FOLDER}: {', '.join(there) or 'none'}.")
    return Store(path)


def described(line: Line) -> str:
    """A result's name, and which code made it, in one line of text."""
    code = line.code
    if code.commit is None:
        return f"{line.name}  (code not recorded; on file since {(code.filed_in or 'unknown')[:12]})"
    return f"{line.name}  ({code.commit[:12]}{', dirty' if code.dirty else ''})"


def main(given: Sequence[str] | None = None) -> None:
    """List, show, remove or unpack results on file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="the files, or the results of one")
    listing.add_argument("benchmark", nargs="?")
    for command, words in (("show", "print a result as JSON"), ("remove", "remove results, to measure them again")):
        one = commands.add_parser(command, help=words)
        one.add_argument("benchmark")
        one.add_argument("names", nargs="+", metavar="NAME")
    unpacking = commands.add_parser("unpack", help="write each result as a JSON file")
    unpacking.add_argument("benchmark")
    unpacking.add_argument("folder", type=Path)
    args = parser.parse_args(given)
    if args.command == "list" and args.benchmark is None:
        for path in sorted(FOLDER.glob(f"*{ENDING}")):
            print(f"{path.name.removesuffix(ENDING)}: {len(Store(path).lines())} results")
        return
    store = store_of(args.benchmark)
    lines = store.lines()
    missing = [name for name in getattr(args, "names", ()) if name not in lines]
    if missing:
        parser.error(f"no result {missing} in {store.path}: see `list {args.benchmark}`.")
    if args.command == "list":
        print("\n".join(map(described, lines.values())))
    elif args.command == "show":
        for name in args.names:
            print(json.dumps(lines[name].to_dict(), indent=1))
    elif args.command == "remove":
        store.remove(args.names)
    else:
        for name, line in lines.items():
            write_bytes(args.folder / f"{name}.json", json.dumps(line.to_dict(), indent=1).encode())


if __name__ == "__main__":
    main()
