"""The one measurement on sealed facts: the IA3 default and the recommended recipe, beside the goals.

    python -m benchmarks.sealed [--methods ia3 recommended] [--facts 40] [--deep 10] [--split dev|sealed] [--draw-only]

The split is dev unless ``sealed`` is asked for, so that the script can be rehearsed and nobody looks at sealed facts by
accident. The draw comes first and is on file under ``drawn-<split>-<n>-<seed>``; commit it (``--draw-only``) before
anything is measured. Sealed facts are measured once: settings are not changed after that.

Facts are drawn by seed, the relations in turn, from those that the model knows and names in at least three of ten
sealed questions: where a base does not name the answer, no edit can be seen to change it. Everything that is not
trained is asked in sealed wordings (``workbench.facts.sealed_wordings``), with controls of retained relations and of
others, and samples; of the first ``--deep`` facts also long text and the floor of an edit's size. Each (method, fact)
is a line of ``benchmarks/results/sealed.jsonl.xz`` with its whole report, every text in it; a rerun goes on after the
last one, and ``wb.rescore`` counts it again. Several processes may share the facts: ``--part 1/2`` takes every other
one. The table's intervals take edited facts and controls both (``wb.crossed_rates``).
"""

from __future__ import annotations

import argparse
import json
import random
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.editors import of_edit, recipe_of
from benchmarks.lib.kept import Kept, measured_on
from benchmarks.lib.parts import add_part, in_turn
from benchmarks.lib.rates import vars_of
from benchmarks.lib.store import ENDING, FOLDER
from workbench.evaluation.answering import Answering, Ask
from workbench.evaluation.floor import FLOOR
from workbench.evaluation.rescore import crossed_rates
from workbench.facts.sealed_wordings import sealed_questions
from workbench.files.atomic import write_bytes
from workbench.files.reports import report_from_dict
from workbench.types import EvalReport, Rate
from workbench.types.rates import RATES

GOALS = {
    "new": 0.95,
    "forget": 0.96,
    "control_retained": 0.95,
    "control_other": 0.95,
    "neighbour": 0.90,
    "same_subject": 0.90,
    "same_answer": 0.90,
    "gibberish": 0.02,
    "long_text_nll_change": 0.01,
}
"""What each rate should reach."""
AT_MOST = {"gibberish", "long_text_nll_change"}
"""Of these, what it should not exceed."""
SHOWN = (
    *("new", "new_known", "new_unknown", "train_new", "forget", "forget_refusal", "forget_other", "forget_gibberish"),
    *("old", "leak", "control_retained", "control_other", "control", "neighbour", "same_subject", "same_answer"),
    *("bleed", "kl", "gibberish", "long_text_nll_change"),
)
"""The rates of the table."""
IN_SEALED_WORDINGS = 0.3
"""Of its sealed questions, the share in which the base names the answer of a fact that is drawn."""


def in_sealed_wordings(answering: Answering, fact: wb.Fact) -> float:
    """The share of a fact's sealed questions to which the base gives its answer."""
    said = answering.completions(answering.base, [Ask("chat", question) for question in sealed_questions(fact)])
    return sum(wb.classify(c.text, fact) == "old" for c in said) / len(said)


def draw(answering: Answering, split: wb.types.Split, n: int, seed: int) -> list[str]:
    """Ids of facts that the model knows, in sealed wordings too, by seed: relations in a random order, one fact of each
    in turn."""
    every = wb.load_facts(split="sealed") if split == "sealed" else wb.load_facts().core.filter(split=split)
    known = wb.known_facts(answering.base, every.filter(role="control"), progress=False)
    rng = random.Random(seed)
    queues = [list(known.filter(relation=relation)) for relation in sorted(known.relations)]
    for queue in queues:
        rng.shuffle(queue)
    rng.shuffle(queues)
    fit = (fact for fact in in_turn(queues, len(known)) if in_sealed_wordings(answering, fact) >= IN_SEALED_WORDINGS)
    chosen = [fact.id for fact in islice(fit, n)]
    if len(chosen) < n:
        raise SystemExit(f"Only {len(chosen)} facts of the split {split!r} meet the condition; ask for fewer.")
    return chosen


class Sealed:
    """Edits of drawn facts, on file or made.

    Args:
        answering: The base's answers, remembered.
        kept: Those on file.
        args: The options.
    """

    def __init__(self, answering: Answering, kept: Kept, args: argparse.Namespace) -> None:
        self.answering, self.model, self.kept, self.args = answering, answering.base, kept, args

    def facts(self) -> list[wb.Fact]:
        """The facts of the draw, which is made once."""
        split, n, seed = self.args.split, self.args.facts, self.args.seed
        settings = {"split": split, "n": n, "seed": seed}
        make = partial(draw, self.answering, split, n, seed)
        done = self.kept.measured(f"drawn-{split}-{n}-{seed}", settings, lambda: {"facts": make()})
        every = wb.load_facts(split="sealed") if split == "sealed" else wb.load_facts()
        return [every[id] for id in done["facts"]]

    def single(self, method: str, fact: wb.Fact, deep: bool = True) -> dict[str, Any]:
        """One method on one fact; ``deep`` with long text and the floor."""
        asked: dict[str, Any] = {name: getattr(self.args, name) for name in ("max_controls", "samples")}
        asked |= {"text_tokens": self.args.text_tokens if deep else None, "floor": deep}
        settings = {
            **measured_on(self.model),
            **asked,
            "method": method,
            "editor": recipe_of(method, self.args.seed).to_dict(),
        }
        return self.kept.measured(f"{method}-{fact.id}", settings, partial(self._make, method, fact, asked))

    def _make(self, method: str, fact: wb.Fact, asked: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        edit = wb.rewrite(self.model, fact, recipe=recipe_of(method, self.args.seed), progress=False)
        seconds = time.perf_counter() - began
        report = wb.evaluate(
            self.model,
            edit=edit,
            stages=edit.stage_names[-1:],
            wordings="sealed",
            collateral=True,
            **asked,
            answering=self.answering,
            seed=zlib.crc32(fact.id.encode()),
            progress=False,
        )
        return {"fact": fact.id, **of_edit(edit), "seconds": round(seconds, 1), "report": report.to_dict()}


def alike(report: EvalReport, stage: str | None = None) -> EvalReport:
    """A report of the base and one stage alone (None: the last), which is called ``"learn"`` for every method."""
    named = {"base": "base", stage or report.stages[-1]: "learn"}

    def of(rows: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(replace(row, stage=named[row.stage]) for row in rows if row.stage in named)

    changes: dict[str, Any] = {name: of(getattr(report, name)) for name in ("rows", "texts", "samples")}
    for name in ("rates", "probabilities"):
        changes[name] = {named[at]: values for at, values in getattr(report, name).items() if at in named}
    return replace(report, stages=("base", "learn"), **changes)


def crossed(reports: dict[str, list[EvalReport]], facts: wb.FactSet | None = None) -> dict[str, dict[str, Rate]]:
    """The rates of each method, and of its floor, over all reports that have one.

    Classes are those of the day of the measurement; rates are today's, so that one which is newer is counted too.
    """
    found: dict[str, dict[str, Rate]] = {}
    for method, measured in reports.items():
        of = [wb.rescore(one, facts, groups=()) for one in measured]
        found[method] = crossed_rates([alike(one) for one in of], facts)["learn"]
        floors = [alike(one, FLOOR) for one in of if FLOOR in one.stages]
        if floors:
            found[f"{method}: floor ({len(floors)})"] = crossed_rates(floors, facts)["learn"]
    return found


def table(found: dict[str, dict[str, Rate]]) -> str:
    """Rates by method with crossed intervals beside the goals, in Markdown."""
    lines = [f"| | wanted | {' | '.join(found)} |", "|---" * (len(found) + 2) + "|"]
    for name in SHOWN:
        goal = "" if name not in GOALS else f"at {'most' if name in AT_MOST else 'least'} {GOALS[name]:g}"
        cells = [str(of[name]) if name in of else "" for of in found.values()]
        lines.append(f"| {RATES[name].words} | {goal} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    """Run what is not done yet, print a Markdown table, write ``benchmarks/results/sealed.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["ia3", "recommended"], metavar="NAME")
    parser.add_argument("--facts", type=int, default=40)
    parser.add_argument("--split", choices=["dev", "sealed"], default="dev")
    parser.add_argument(
        "--deep", type=int, default=10, metavar="N", help="long text and the floor on the first so many"
    )
    add_part(parser)
    parser.add_argument("--draw-only", action="store_true", help="put the draw on file, measure nothing")
    parser.add_argument("--max-controls", type=int, default=60)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--text-tokens", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=30)
    parser.add_argument("--out", type=Path, default=FOLDER / "sealed.json")
    args = parser.parse_args(given)
    for method in args.methods:
        recipe_of(method, args.seed)  # a wrong name is said at once
    sealed = Sealed(Answering(wb.load_model()), Kept(args.out.with_suffix(ENDING), __file__), args)
    facts = sealed.facts()
    print(f"{args.split}: {', '.join(fact.id for fact in facts)}", flush=True)
    if args.draw_only:
        return
    reports: dict[str, list[EvalReport]] = {}
    for i, fact in args.part.take([*enumerate(facts)]):
        for method in args.methods:
            done = sealed.single(method, fact, i < args.deep)
            reports.setdefault(method, []).append(report_from_dict(done["report"]))
            shown = {name: f"{reports[method][-1].rate(name).value:.2f}" for name in ("new", "forget", "control")}
            print(f"{fact.id}, {method}, {done['seconds']} s: {shown}", flush=True)
    found = crossed(reports)
    print(f"\n{table(found)}")
    rates = {method: {name: vars_of(rate) for name, rate in of.items()} for method, of in found.items()}
    content = {"arguments": {k: v for k, v in vars(args).items() if k != "out"}, "rates": rates, "table": table(found)}
    write_bytes(args.out, json.dumps(content, indent=1).encode())


if __name__ == "__main__":
    main()
