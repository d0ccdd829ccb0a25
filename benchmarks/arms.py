"""Does the located circuit matter? Control arms on test facts drawn by seed, each read where it has taught its fact.

    python -m benchmarks.arms [--facts 3] [--relations 3] [--seeds 3] [--arms selected random-layers ...]

The test is stated in ``workbench.comparing.compare`` and was before the first run. Each finished arm is a line of
``benchmarks/results/arms.jsonl.xz``, named ``<fact>/<arm>``: a table of one arm, with every text. Notebook 05 joins
them to one table; a rerun with the same arguments goes on after the last one. The paper's settings take two thousand
steps, half an hour a fact, and are run when asked for (``--arms paper``); the other arms stay in the table.
"""

from __future__ import annotations

import argparse
import json
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args

import workbench as wb
from benchmarks.edit_quality import draw_facts
from benchmarks.lib.kept import Kept, defaults
from benchmarks.lib.rates import vars_of
from benchmarks.lib.store import ENDING
from workbench.comparing.arms import ArmName
from workbench.comparing.compare import READ_EVERY
from workbench.comparing.validation import THRESHOLD
from workbench.evaluation.answering import Answering
from workbench.files.arms import arms_from_dict, arms_to_dict
from workbench.files.atomic import write_bytes
from workbench.types.arms import join_tables

ARMS: tuple[ArmName, ...] = get_args(ArmName)


def markdown(table: wb.ArmTable) -> str:
    """The summary as a Markdown table."""
    frame = table.summary().reset_index()
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines)


def numbers(table: wb.ArmTable) -> dict[str, Any]:
    """What the page quotes: rates by arm, differences, the verdict."""
    arms = {
        arm: {
            "reached": len(table.runs(arm)),
            "not_reached": len(table.runs(arm, reached=False)),
            "seconds": [row.seconds for row in table.rows if row.arm == arm],
            **{name: vars_of(table.rate(arm, name)) for name in table.outcomes if table.runs(arm)},
        }
        for arm in table.arms
    }
    minus = [
        {"arm": d.arm, "outcome": d.outcome, "facts": len(d.facts), "rate": vars_of(d.rate)}
        for d in table.differences()
    ]
    return {"facts": list(table.facts), "arms": arms, "selected_minus": minus, "verdict": table.verdict.splitlines()}


def settings_of(model: wb.LoadedModel, given: dict[str, Any]) -> dict[str, Any]:
    """All that an arm depends on, besides the code."""
    paper, read = wb.Recipe.named("paper").to_dict(), {"threshold": THRESHOLD, "every": READ_EVERY}
    rates = {"full": wb.recipes.FullFineTuning().learning_rate, "lora": wb.recipes.LoRA().learning_rate}
    return {**given, **defaults(model), "rates": rates, "paper": paper, "read": read}


class Arms:
    """The arms of one fact, run when they are not on file.

    Args:
        model: The base model.
        fact: The fact.
        options: Options of ``wb.compare``.
    """

    def __init__(self, model: wb.LoadedModel, fact: wb.Fact, options: dict[str, Any]) -> None:
        self.model, self.fact, self.options = model, fact, options

    @cached_property
    def selection(self) -> wb.Selection:
        """The default selection, made for the first arm that is run."""
        return wb.default_selection(self.model, self.fact, progress=False)

    def run(self, arm: ArmName) -> dict[str, Any]:
        """A table of one arm, as JSON values."""
        table = wb.compare(
            self.model,
            self.fact,
            self.selection,
            arms=[arm],
            progress=False,
            on_arm=lambda row: print(f"<!-- {row}, {row.seconds} s -->", flush=True),
            **self.options,
        )
        return arms_to_dict(table)

    def tables(self, kept: Kept, settings: dict[str, Any], asked: list[str]) -> list[wb.ArmTable]:
        """Tables of one arm each: those on file that were made with these settings, and of the others those that are
        asked for."""
        done: list[wb.ArmTable] = []
        for arm in ARMS:
            name = f"{self.fact.id}/{arm}"
            run = partial(self.run, arm)
            found = kept.measured(name, settings, run) if arm in asked else kept.find(name, settings)
            done += [] if found is None else [arms_from_dict(found, f"{name} in {kept.store.path}")]
        return done


def main() -> None:
    """Run what is not done yet, print the table and the verdict, write ``benchmarks/results/arms.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=3)
    parser.add_argument("--relations", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3, help="random draws of each kind")
    parser.add_argument("--arms", nargs="+", default=[a for a in ARMS if a != "paper"], choices=ARMS)
    parser.add_argument("--max-controls", type=int, default=60, help="drawn by seed from all known test facts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/arms.json"))
    args = parser.parse_args()
    kept = Kept(args.out.with_suffix(ENDING), __file__)
    model = wb.load_model()
    answering = Answering(model)
    known = wb.known_facts(model, wb.load_facts().core.filter(split="test"))
    given = {"seeds": args.seeds, "max_controls": args.max_controls, "seed": args.seed}
    settings = settings_of(model, given)
    tables: list[wb.ArmTable] = []
    for fact in draw_facts(answering, known, args.facts, args.relations, args.seed):
        tables += Arms(model, fact, given | {"answering": answering}).tables(kept, settings, args.arms)
        table = join_tables(tables)
        content = {"code": kept.code.to_dict(), "settings": settings, **numbers(table)}
        write_bytes(args.out, json.dumps(content, indent=1, default=str).encode())
        print(f"\n{len(table.facts)} of {args.facts} facts\n\n{markdown(table)}\n\n{table.verdict}\n", flush=True)


if __name__ == "__main__":
    main()
