"""The recipe of arXiv 2508.07075 beside the default one, on the same fact, questions and controls.

    python -m benchmarks.paper [--fact france-capital] [--rates 5e-5] [--max-controls 80]

Writes one report per arm to ``benchmarks/results/paper/``, and both ways to count to ``benchmarks/results/paper.json``.
A report that is there already and was made with the same settings is not made again. The paper's own settings take
2000 steps of one row.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.lib.kept import defaults, same_settings
from workbench.evaluation.answering import Answering
from workbench.files.atomic import write_bytes
from workbench.types import Rate

STRICT = ("new", "old", "forget", "control", "neighbour", "bleed", "gibberish", "kl")


def shown(rates: dict[str, Rate]) -> dict[str, str]:
    """Rates as text, ``value [low, high] (n)``."""
    return {name: str(rate) for name, rate in rates.items()}


def main() -> None:
    """Run the arms that are not there yet, and print each one's rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fact", default="france-capital")
    parser.add_argument("--rates", nargs="+", type=float, default=[5e-5], help="AdamW's; the paper's is 5e-5")
    parser.add_argument("--max-controls", type=int, default=80, help="drawn by seed from all known test facts")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/paper"))
    args = parser.parse_args()
    model = wb.load_model()
    fact, answering = wb.load_facts()[args.fact], Answering(model)
    located = wb.paper_selection(model, fact, progress=False)
    content: dict[str, Any] = {}
    papers = {f"paper-{rate:g}": (located, wb.Recipe.named("paper", learning_rate=rate)) for rate in args.rates}
    for name, (selection, recipe) in {**papers, "default": (None, wb.Recipe())}.items():
        path = args.out / f"{fact.id}-{name}.json"
        settings = defaults(model) | {"recipe": recipe.to_dict(), "max_controls": args.max_controls}
        settings |= {"selection": "default" if selection is None else str(selection)}
        report = wb.EvalReport.load(path) if path.is_file() else None
        if report is None or not same_settings(report.provenance.get("benchmark"), settings):
            began = time.perf_counter()
            edit = wb.rewrite(model, fact, selection, recipe=recipe, progress=False)
            seconds = round(time.perf_counter() - began)
            report = wb.evaluate(model, edit=edit, max_controls=args.max_controls, answering=answering, progress=False)
            gates = edit.selection.n_parameters(model)
            trained = str(edit.selection) if selection is not None else f"{len(edit.selection)} neurons"
            report.provenance["benchmark"] = settings
            report.provenance["arm"] = {"selection": trained, "gates": gates, "recipe": recipe.to_dict(), "s": seconds}
            path.parent.mkdir(parents=True, exist_ok=True)
            report.save(path)
        print(f"{name}: {report.provenance['arm']['gates']} gates in {report.provenance['arm']['s']} s", flush=True)
        print(report.summary().to_string(), flush=True)
        loosely = wb.lenient_rates(report, wb.load_facts())
        strictly = {rate: report.rate(rate) for rate in STRICT}
        content[name] = {**report.provenance["arm"], "loosely": shown(loosely), "strictly": shown(strictly)}
        write_bytes(args.out.with_suffix(".json"), json.dumps({fact.id: content}, indent=1).encode())


if __name__ == "__main__":
    main()
