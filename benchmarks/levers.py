"""The levers of keyed and solved updates, on dev facts; ``recipe="recommended"`` was chosen with this.

    python -m benchmarks.levers [--facts 8] [--levers "keyed" ...] [--seed 0] [--ids cuba-capital ...] [--minutes 6]

Every lever is a recipe. Each finished edit is a line of ``benchmarks/results/levers.jsonl.xz``, named
``<lever>-<fact>``; a rerun goes on after the last one, and ``--minutes`` ends it early, after the edit at hand. Facts
are known dev facts, each of another relation, drawn by seed; controls and related facts are dev facts too, at most 30.
The table has the means over facts with intervals, beside the goals.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.lib.kept import Kept
from benchmarks.lib.rates import head, line, over_facts, plain_rates, plain_texts, vars_of
from benchmarks.tune import dev_controls, dev_facts, short_name
from workbench.editing.covariance import covariances
from workbench.editing.methods.keyed import PlaceName
from workbench.evaluation.answering import Answering
from workbench.files.atomic import write_bytes
from workbench.types import BaseRecipe, Rate
from workbench.types.rates import RATES

CONTROLS = 30
SHOWN = (
    "new",
    "forget",
    "control",
    "neighbour",
    "same_subject",
    "same_subject_closed",
    "same_subject_open",
    "same_answer",
    "cloze_new",
    "bleed",
    "gibberish",
)
GOALS = {"new": 0.95, "forget": 0.96, "control": 0.95, "neighbour": 0.90, "same_subject": 0.90, "same_answer": 0.90}
SECONDS = 60
_SUBJECT: tuple[PlaceName, ...] = ("subject",)
_ANSWER: tuple[PlaceName, ...] = ("answer",)


def _consolidated(first: str, **changes: Any) -> wb.recipes.EditThenConsolidate:
    """A closed form with the steps that were tried first: 8 with a hinge of 0.95, drawn back to 0.9."""
    settings: dict[str, Any] = {"steps": 8, "hinge": 0.95, "draw_back": 0.9, **changes}
    return wb.recipes.EditThenConsolidate(first=first, **settings)


LEVERS: dict[str, BaseRecipe] = {
    "keyed": wb.recipes.Keyed(),
    "subject, open": wb.recipes.Keyed(places=_SUBJECT, reserve=2.0, close=False),
    "subject, closed": wb.recipes.Keyed(places=_SUBJECT, reserve=2.0),
    "subject, closed, wordings alike": wb.recipes.Keyed(places=_SUBJECT, reserve=2.0, spread=30.0, protect=100.0),
    "answer's place, open": wb.recipes.Keyed(places=_ANSWER, reserve=2.0, close=False),
    "answer's place, closed": wb.recipes.Keyed(places=_ANSWER, reserve=2.0),
    "answer's place, no reserve": wb.recipes.Keyed(places=_ANSWER, reserve=1.0),
    "answer's place, not drawn back": wb.recipes.Keyed(places=_ANSWER, draw_back=None),
    "answer's place, layers 15 to 19": wb.recipes.Keyed(
        places=_ANSWER, reserve=2.0, answer_layers=(15, 16, 17, 18, 19)
    ),
    "both places, no reserve": wb.recipes.Keyed(reserve=1.0),
    "both places, reserve 2": wb.recipes.Keyed(reserve=2.0),
    "both places, 6 rivals": wb.recipes.Keyed(rivals=6),
    "both places, protect 100": wb.recipes.Keyed(reserve=2.0, protect=100.0),
    "both places, twice the KL": wb.recipes.Keyed(reserve=2.0, retain_weight=2 * wb.recipes.Keyed().retain_weight),
    "both places, 300 gates": wb.recipes.Keyed(reserve=2.0, gates=300),
    "subject, closed, 300 gates": wb.recipes.Keyed(places=_SUBJECT, reserve=2.0, gates=300),
    "ROME": wb.recipes.ROME(),
    "ROME, closed": wb.recipes.ROME(close=True),
    "IA3": wb.recipes.IA3(),
    "IA3, every end taught": wb.recipes.IA3(end_below=1.0),
    "MEMIT": wb.recipes.MEMIT(),
    "UltraEdit": wb.recipes.UltraEdit(),
    "UltraEdit, normalised": wb.recipes.UltraEdit(normalise=True),
    "MEMIT, closed": wb.recipes.MEMIT(close=True),
    "AlphaEdit": wb.recipes.AlphaEdit(),
    "AlphaEdit, closed": wb.recipes.AlphaEdit(close=True),
    "ROME, then consolidate": _consolidated("rome"),
    "MEMIT, then consolidate": _consolidated("memit"),
    "AlphaEdit, then consolidate": _consolidated("alphaedit"),
    "AlphaEdit closed, then consolidate": _consolidated("alphaedit", first_closed=True),
    "AlphaEdit, then consolidate 16": _consolidated("alphaedit", steps=16),
    "AlphaEdit, then consolidate 16, firm": wb.recipes.EditThenConsolidate(reserve=1.4),
    "AlphaEdit closed, then consolidate 16, firm": wb.recipes.EditThenConsolidate(first_closed=True, reserve=1.4),
    "AlphaEdit closed by 3, then consolidate 16, firm": wb.recipes.EditThenConsolidate(
        first_closed=True, closing_weight=3.0, reserve=1.4
    ),
    **{
        f"AlphaEdit closed by {weight:g}, then consolidate 16, firm": wb.recipes.EditThenConsolidate(
            first_closed=True, closing_weight=weight, reserve=1.4
        )
        for weight in (0.3, 1.0)
    },
    "AlphaEdit, then consolidate 16, firm, held more": wb.recipes.EditThenConsolidate(
        retain_weight=4.0, retain_batch_size=16, reserve=1.4
    ),
    "AlphaEdit closed by 3, then consolidate 16, firm, held more": wb.recipes.EditThenConsolidate(
        first_closed=True, closing_weight=3.0, retain_weight=4.0, retain_batch_size=16, reserve=1.4
    ),
    "AlphaEdit of 12 steps, then consolidate 24, firm": wb.recipes.EditThenConsolidate(
        target_steps=12, steps=24, reserve=1.4
    ),
}
"""By name."""


class Levers:
    """Edits of dev facts, and what they change.

    Args:
        model: The base model.
        facts: The bundled facts.
    """

    def __init__(self, model: wb.LoadedModel, facts: wb.FactSet) -> None:
        self.model, self.dev, self.answering = model, facts.filter(split="dev"), Answering(model)

    def run(self, fact: wb.Fact, recipe: BaseRecipe) -> dict[str, Any]:
        """One edit and its evaluation on dev facts. Seconds are those of ``rewrite``, with every covariance at hand."""
        began = time.perf_counter()
        edit = wb.rewrite(self.model, fact, recipe=recipe, pool=self.dev, progress=False)
        seconds = round(time.perf_counter() - began, 1)
        report = wb.evaluate(
            self.model,
            edit=edit,
            stages=edit.stage_names[-1:],
            controls=dev_controls(self.model, self.dev, fact),
            pool=self.dev,
            max_controls=CONTROLS,
            answering=self.answering,
            progress=False,
        )
        rates = {"learn": plain_rates(report)[edit.stage_names[-1]]}  # one name for the last stage of all methods
        done = {"fact": fact.id, "rates": rates, "learned": edit.learned, "strength": edit.strength}
        numbers = sum(t.numel() for t in edit.delta().tensors().values())
        more = {"seconds": seconds, "numbers": numbers, "closed": list(edit.closed_relations)}
        return done | more | plain_texts(report)

    def prepare(self, recipe: BaseRecipe) -> None:
        """Measure the covariances that a lever may need, which is no part of an edit."""
        if hasattr(recipe, "covariance_tokens"):
            layers = [*range(4, 11), *range(15, 25)]
            covariances(self.model, [(layer, "mlp") for layer in layers], pool=self.dev, progress=False)


def shown(results: Sequence[dict[str, Any]]) -> dict[str, Rate]:
    """Means over edits of the rates that are shown; n is 0 where none has such rows."""
    names = RATES.keys() & SHOWN
    with_rows = {name: [one for one in results if name in one["rates"]["learn"]] for name in names}
    return {name: over_facts(some, name) for name, some in with_rows.items()}


def meets(rates: dict[str, Rate], seconds: float) -> str:
    """Which goals a lever misses, in words."""
    missed = [name for name, goal in GOALS.items() if rates[name].n and rates[name].value < goal]
    missed += ["seconds"] if seconds > SECONDS else []
    return "all goals" if not missed else f"misses {', '.join(missed)}"


def main() -> None:
    """Run what is not done yet, print a Markdown table, write ``benchmarks/results/levers.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="draws the facts")
    parser.add_argument("--ids", nargs="+", default=None, help="these dev facts, not drawn ones")
    parser.add_argument("--levers", nargs="*", default=list(LEVERS), choices=list(LEVERS))
    parser.add_argument("--minutes", type=float, default=None, help="begin no edit later than this")
    parser.add_argument("--kept", type=Path, default=Path("benchmarks/results/levers.jsonl.xz"), help="finished edits")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/levers.json"))
    args = parser.parse_args()
    began = time.perf_counter()
    kept = Kept(args.kept, __file__)
    model, facts = wb.load_model(), wb.load_facts()
    levers = Levers(model, facts)
    chosen = [levers.dev[id] for id in args.ids] if args.ids else dev_facts(model, facts.core, args.facts, args.seed)
    found: dict[str, dict[str, Any]] = {}
    for fact in chosen:
        for name in args.levers:
            recipe = LEVERS[name]
            settings = {"model": model.fingerprint, "method": recipe.method, "recipe": recipe.to_dict()}
            lever = f"{short_name(name)}-{fact.id}"
            done = kept.find(lever, settings)
            if done is None and args.minutes is not None and time.perf_counter() - began > 60 * args.minutes:
                continue
            if done is None:
                levers.prepare(recipe)
                done = kept.measured(lever, settings, partial(levers.run, fact, recipe))
            found.setdefault(name, {})[fact.id] = done
            print(f"<!-- {line(f'{name}, {fact.id}', shown([done]), SHOWN)} {done['seconds']} s -->", flush=True)
    print(head(SHOWN), flush=True)
    summary: dict[str, Any] = {}
    for name, of in found.items():
        rates = shown([*of.values()])
        seconds = sum(one["seconds"] for one in of.values()) / len(of)
        print(f"{line(name, rates, SHOWN)} {len(of)} facts, {seconds:.0f} s, {meets(rates, seconds)}")
        summary[name] = {
            "facts": list(of),
            "seconds": round(seconds, 1),
            "rates": {k: vars_of(r) for k, r in rates.items()},
            "goals": meets(rates, seconds),
        }
    write_bytes(args.out, json.dumps({"code": kept.code.to_dict(), "levers": summary}, indent=1).encode())


if __name__ == "__main__":
    main()
