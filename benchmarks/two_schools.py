"""One fact edited by gates and by closed forms, as notebook 07 reads it.

    python -m benchmarks.two_schools [--fact france-capital]

Writes three edits, their reports and their probes to ``benchmarks/results/two_schools/<fact>/``, the rates of a sweep
over IntAttn-Edit's balance to ``sweep.json`` beside them, and with which settings they were made to
``benchmarks/results/two_schools.jsonl.xz``; what is there already and was made with the settings and facts of today is
not made again. About a minute and a half an edit, and two to four minutes for its probes.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.lib.kept import Kept, defaults
from benchmarks.lib.store import ENDING
from workbench.types import BaseRecipe

CONTROLS = 40
PROBES = ("adversarial", "lens", "requantise")
ARMS: dict[str, BaseRecipe] = {
    "ia3": wb.Recipe(),
    "memit": wb.recipes.MEMIT(),
    "int-attn": wb.recipes.IntAttnEdit(),
}
STACKED = ("egypt-language", "stephen-curry-sport")
"""Facts that are edited by MEMIT too, for a stack of three."""
BALANCES = (0.0, 0.25, 0.5, 0.75, 1.0)
RATES = ("new", "forget", "control", "neighbour", "same_subject", "same_answer")


def made(model: wb.LoadedModel, fact: wb.Fact, recipe: BaseRecipe) -> tuple[wb.Edit, wb.EvalReport, dict[str, Any]]:
    """An edit, its report, and how long each took."""
    began = time.perf_counter()
    edit = wb.rewrite(model, fact, recipe=recipe, progress=False)
    at = time.perf_counter()
    report = wb.evaluate(model, edit=edit, max_controls=CONTROLS, collateral=True, progress=False)
    seconds = {"edit": round(at - began, 1), "evaluate": round(time.perf_counter() - at, 1)}
    rates = {
        name: [rate.value, rate.low, rate.high, rate.n]
        for name, rate in report.rates[report.stages[-1]].items()
        if name in RATES
    }
    moved = {"words": edit.delta().words(), "numbers": edit.delta().n_moved(), "selector": edit.selector}
    return edit, report, {"seconds": seconds, "rates": rates, **moved}


def measure(model: wb.LoadedModel, fact: wb.Fact, recipe: BaseRecipe, folder: Path) -> dict[str, Any]:
    """An edit with its report and its probes, written to a folder."""
    edit, report, result = made(model, fact, recipe)
    edit.save(folder / "edit")
    report.save(folder / "report.json")
    wb.probe(model, edit, probes=PROBES, progress=False).save(folder / "probes.json")
    return result


def measure_stacked(model: wb.LoadedModel, fact: wb.Fact, folder: Path) -> dict[str, Any]:
    """An edit of another fact, written to a folder."""
    began = time.perf_counter()
    edit = wb.rewrite(model, fact, recipe=wb.recipes.MEMIT(), progress=False)
    edit.save(folder)
    return {"seconds": round(time.perf_counter() - began, 1), "words": edit.delta().words()}


def measure_balance(model: wb.LoadedModel, fact: wb.Fact, recipe: BaseRecipe) -> dict[str, Any]:
    """The rates of one balance."""
    return made(model, fact, recipe)[2]


def main() -> None:
    """Make every arm, and print its rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fact", default="france-capital")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/two_schools"))
    args = parser.parse_args()
    kept = Kept(args.out.with_suffix(ENDING), __file__)
    model, fact = wb.load_model(), wb.load_facts()[args.fact]

    def settings(recipe: BaseRecipe) -> dict[str, Any]:
        return defaults(model) | {"recipe": {**recipe.to_dict(), "method": recipe.method}, "max_controls": CONTROLS}

    for arm, recipe in ARMS.items():
        folder = args.out / fact.id / arm
        files = [folder / name for name in ("edit", "report.json", "probes.json")]
        task = partial(measure, model, fact, recipe, folder)
        print(arm, kept.measured(f"{fact.id}-{arm}", settings(recipe), task, files), flush=True)
    for other in STACKED:
        folder = args.out / fact.id / other
        task = partial(measure_stacked, model, wb.load_facts()[other], folder)
        kept.measured(f"{fact.id}-{other}", settings(wb.recipes.MEMIT()), task, [folder])
    sweep: dict[str, Any] = {}
    for balance in BALANCES:
        recipe = wb.recipes.IntAttnEdit(balance=balance)
        task = partial(measure_balance, model, fact, recipe)
        sweep[f"{balance:g}"] = kept.measured(f"{fact.id}-balance-{balance:g}", settings(recipe), task)
        print(balance, sweep[f"{balance:g}"], flush=True)
    path = args.out / fact.id / "sweep.json"
    path.write_text(json.dumps(sweep, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
