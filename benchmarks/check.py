"""Measure results on file anew and compare: do this machine and today's code give the published numbers?

    python -m benchmarks.check [--methods recommended ia3] [--facts 2] [--seed 0] [--draw 282]
    make bench CHECK=1

Edits of ``benchmarks/results/editors.jsonl.xz`` that were made with today's recipes are drawn by seed (``--draw``: of
the facts that this seed drew), made and evaluated again, and nothing on file is changed. A rate agrees where it is over
as many answers as on file and its new value lies in the interval on file. Beside that stands how many texts are the
same word for word. Another processor rounds otherwise, and training makes more of that: texts may differ where rates
agree. The exit code is 1 where a rate does not agree.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.editors import Editors, recipe_of
from benchmarks.lib.kept import Kept, same_settings
from benchmarks.lib.parts import in_turn
from benchmarks.lib.store import ENDING, FOLDER, Line, Store
from workbench.evaluation.answering import Answering
from workbench.types import Rate
from workbench.types.intervals import share

ROUNDING = 1e-6


@dataclass(frozen=True)
class Compared:
    """One rate on file and anew."""

    rate: str
    filed: Rate
    anew: Rate

    @property
    def agrees(self) -> bool:
        """Whether both are over as many answers, and the new value lies in the interval on file."""
        if self.filed.n != self.anew.n:
            return False
        if not self.filed.has_interval:
            return not self.filed.n or abs(self.filed.value - self.anew.value) < ROUNDING
        return self.filed.low - ROUNDING <= self.anew.value <= self.filed.high + ROUNDING


def compared(filed: dict[str, Any], anew: dict[str, Any]) -> list[Compared]:
    """The rates of two results, by those that are on file."""
    before, after = (one["rates"]["learn"] for one in (filed, anew))
    missing = share([])
    return [
        Compared(name, Rate(**rate), Rate(**after[name]) if name in after else missing) for name, rate in before.items()
    ]


def same_texts(filed: dict[str, Any], anew: dict[str, Any]) -> tuple[int, int]:
    """How many answers of the edited model are the same word for word, of how many that both results have."""
    before, after = (
        {
            (row["fact_id"], row["group"], row["prompt"]): row["text"]
            for row in one["answers"]
            if row["stage"] == "learn"
        }
        for one in (filed, anew)
    )
    both = before.keys() & after.keys()
    return sum(before[one] == after[one] for one in both), len(both)


def drawn(
    lines: dict[str, Line], methods: Sequence[str], n: int, seed: int, fits: Callable[[Line], bool] = lambda _: True
) -> list[Line]:
    """Single edits of these methods by seed, the methods in turn.

    Args:
        lines: The results on file.
        methods, n, seed: Of the draw.
        fits: Which single edits are drawn from.

    Raises:
        SystemExit: There is none of a method.
    """
    rng = random.Random(seed)
    queues: list[list[Line]] = []
    for method in methods:
        single = [one for one in lines.values() if one.settings.get("method") == method and "probes" in one.settings]
        of = [line for line in single if fits(line)]
        if not of:
            raise SystemExit(f"No single edit by {method!r} is on file with today's recipe, of the draw asked for.")
        queues.append(rng.sample(of, len(of)))
    return in_turn(queues, n)


def todays(line: Line, draw: int | None) -> bool:
    """Whether an edit was made with the recipe that its method has today, on a fact of a draw (None: of any)."""
    method, editor = line.settings["method"], line.settings["editor"]
    if draw is not None and editor["seed"] != draw:
        return False
    named = {"method": method}
    return same_settings(named | {"editor": editor}, named | {"editor": recipe_of(method, editor["seed"]).to_dict()})


def measured(answering: Answering, line: Line) -> dict[str, Any]:
    """The same edit made and evaluated again.

    Raises:
        SystemExit: Today's facts or recipe are not those of the line.
    """
    method, seed = line.settings["method"], line.settings["editor"]["seed"]
    args = argparse.Namespace(split="test", seed=seed, relations=1, max_controls=line.settings["max_controls"])
    with tempfile.TemporaryDirectory() as folder:
        editors = Editors(answering, Kept(Path(folder) / f"check{ENDING}", __file__), args)
        if not same_settings(line.settings, editors.settings_of(method, line.settings["probes"])):
            raise SystemExit(f"{line.name}: the facts or the recipe on file are not today's, so nothing is compared.")
        return editors.single(method, wb.load_facts()[line.result["fact"]], line.settings["probes"])


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print a table for each edit, and say whether all rates agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["recommended", "ia3"], metavar="NAME")
    parser.add_argument("--facts", type=int, default=2, help="edits that are measured again, the methods in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", type=int, default=None, metavar="SEED", help="of the facts that this seed drew")
    parser.add_argument("--of", type=Path, default=FOLDER / f"editors{ENDING}", help="the file of results")
    args = parser.parse_args(given)
    fits = partial(todays, draw=args.draw)
    lines = drawn(Store(args.of).lines(), args.methods, args.facts, args.seed, fits)
    answering, off = Answering(wb.load_model()), 0
    for line in lines:
        anew = measured(answering, line)
        rates = compared(line.result, anew)
        same, n = same_texts(line.result, anew)
        print(f"\n{line.name}, measured at {(line.code.commit or 'an unknown commit')[:12]}")
        print("\n| rate | on file | anew | agrees |\n|---|---|---|---|")
        print("\n".join(f"| {c.rate} | {c.filed} | {c.anew} | {'yes' if c.agrees else '**no**'} |" for c in rates))
        print(f"\n{same} of {n} texts are the same word for word.", flush=True)
        off += sum(not c.agrees for c in rates)
    print(f"\n{'All rates agree.' if not off else f'{off} rates do not agree with those on file.'}")
    if off:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
