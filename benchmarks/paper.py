"""The recipe of arXiv 2508.07075 beside the default one, on the same fact, questions and controls.

    python -m benchmarks.paper [--fact france-capital] [--rates 5e-5] [--max-controls 80]

Writes one report per arm to ``benchmarks/results/paper/``, with which settings it was made to
``benchmarks/results/paper.jsonl.xz``, and both ways to count to ``benchmarks/results/paper.json``. A report that is
there already and was made with the same settings is not made again. The paper's own settings take
2000 steps of one row.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.lib.code import Code
from benchmarks.lib.kept import Kept, defaults
from benchmarks.lib.store import ENDING
from workbench.evaluation.answering import Answering
from workbench.files.atomic import write_bytes
from workbench.types import Rate

STRICT = ("new", "old", "forget", "control", "neighbour", "bleed", "gibberish", "kl")


def shown(rates: dict[str, Rate]) -> dict[str, str]:
    """Rates as text, ``value [low, high] (n)``."""
    return {name: str(rate) for name, rate in rates.items()}


class Paper:
    """One fact by one recipe, evaluated beside the others.

    Args:
        model: The base model.
        fact: The fact.
        max_controls: How many controls are asked.
    """

    def __init__(self, model: wb.LoadedModel, fact: wb.Fact, max_controls: int) -> None:
        self.model, self.fact, self.max_controls = model, fact, max_controls
        self.answering = Answering(model)

    def settings(self, selection: wb.Selection | None, recipe: wb.Recipe) -> dict[str, Any]:
        """All that an arm depends on, besides the code."""
        of_this = {"recipe": recipe.to_dict(), "max_controls": self.max_controls}
        return defaults(self.model) | of_this | {"selection": "default" if selection is None else str(selection)}

    def measure(self, selection: wb.Selection | None, recipe: wb.Recipe, path: Path, code: Code) -> dict[str, Any]:
        """One arm: its report, with every text, is written to the path. What was trained and for how long."""
        began = time.perf_counter()
        edit = wb.rewrite(self.model, self.fact, selection, recipe=recipe, progress=False)
        seconds = round(time.perf_counter() - began)
        report = wb.evaluate(
            self.model, edit=edit, max_controls=self.max_controls, answering=self.answering, progress=False
        )
        gates = edit.selection.n_parameters(self.model)
        trained = str(edit.selection) if selection is not None else f"{len(edit.selection)} neurons"
        made_by = {"benchmark": self.settings(selection, recipe), "code": code.to_dict()}
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(report, provenance={**report.provenance, **made_by}).save(path)
        return {"selection": trained, "gates": gates, "recipe": recipe.to_dict(), "s": seconds}


def main() -> None:
    """Run the arms that are not there yet, and print each one's rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fact", default="france-capital")
    parser.add_argument("--rates", nargs="+", type=float, default=[5e-5], help="AdamW's; the paper's is 5e-5")
    parser.add_argument("--max-controls", type=int, default=80, help="drawn by seed from all known test facts")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/paper"))
    args = parser.parse_args()
    kept = Kept(args.out.with_suffix(ENDING), __file__)
    model = wb.load_model()
    fact = wb.load_facts()[args.fact]
    located = wb.paper_selection(model, fact, progress=False)
    paper = Paper(model, fact, args.max_controls)
    content: dict[str, Any] = {}
    papers = {f"paper-{rate:g}": (located, wb.Recipe.named("paper", learning_rate=rate)) for rate in args.rates}
    for name, (selection, recipe) in {**papers, "default": (None, wb.Recipe())}.items():
        path = args.out / f"{fact.id}-{name}.json"
        make = partial(paper.measure, selection, recipe, path, kept.code)
        arm = kept.measured(f"{fact.id}-{name}", paper.settings(selection, recipe), make, [path])
        report = wb.EvalReport.load(path)
        print(f"{name}: {arm['gates']} gates in {arm['s']} s", flush=True)
        print(report.summary().to_string(), flush=True)
        loosely = wb.lenient_rates(report, wb.load_facts())
        strictly = {rate: report.rate(rate) for rate in STRICT}
        content[name] = {**arm, "loosely": shown(loosely), "strictly": shown(strictly)}
        both = {"code": kept.code.to_dict(), fact.id: content}
        write_bytes(args.out.with_suffix(".json"), json.dumps(both, indent=1).encode())


if __name__ == "__main__":
    main()
