"""How well the default edit does: france-capital, and ten test facts of five relations drawn by seed.

    python -m benchmarks.edit_quality [--facts 10] [--relations 5] [--max-controls 60] [--seed 3]

The facts of the published table are test facts; the defaults were tuned on dev facts (``benchmarks/tune.py``). A fact
may be drawn if the base gives its answer to the fact's question and to at least half of its held-out ones: where the
untouched model does not understand a wording, no edit can be seen in it. The condition was fixed before the first run.
A second table holds the collateral: rates of the last stage, whose names ``EvalReport`` explains. A mean is over the
facts with a value, so that its n may be smaller.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import workbench as wb
from workbench.evaluation.answering import Answering, Ask
from workbench.evaluation.metrics import bootstrap
from workbench.types import COLLATERAL_GROUPS, AnswerRow, Rate

IN_OTHER_WORDS = 0.5
SHOWN = ("new", "old", "forget", "cloze_new", "control", "neighbour", "bleed", "gibberish", "kl")
COLLATERAL = ("bleed", "reversed_old", "reversed_new", "twohop_old", "twohop_new", "text_nll", "text_nll_change")


def draw_facts(answering: Answering, known: wb.FactSet, n: int, relations: int, seed: int) -> list[wb.Fact]:
    """Known test facts by seed: relations in a random order, and from each the first of its facts, in a random order,
    that the base knows in other words too. A relation without enough of them is passed over."""
    rng = random.Random(seed)
    each = -(-n // relations)
    chosen: list[wb.Fact] = []
    order = sorted(known.relations)
    rng.shuffle(order)
    for relation in order:
        candidates = list(known.filter(relation=relation))
        rng.shuffle(candidates)
        found = list(islice((f for f in candidates if in_other_words(answering, f) >= IN_OTHER_WORDS), each))
        chosen += found if len(found) == each else []
        if len(chosen) >= n:
            return chosen[:n]
    raise SystemExit(f"Only {len(chosen)} facts of {relations} relations meet the condition; ask for fewer.")


def in_other_words(answering: Answering, fact: wb.Fact) -> float:
    """The share of a fact's held-out questions to which the base gives the old answer."""
    said = answering.completions(answering.base, [Ask("chat", question) for question in fact.heldout])
    return sum(wb.classify(c.text, fact) == "old" for c in said) / len(said)


def measure(
    model: wb.LoadedModel, fact: wb.Fact, answering: Answering, max_controls: int | None, seed: int
) -> dict[str, Any]:
    """Default selection and recipe on one fact, evaluated on held-out questions, neighbours and test controls."""
    edit = wb.rewrite(model, fact, recipe=wb.Recipe(seed=seed), progress=False)
    options: dict[str, Any] = {"max_controls": max_controls, "answering": answering, "seed": seed}
    report = wb.evaluate(model, edit=edit, collateral=True, progress=False, **options)
    settings = edit.provenance["settings"]
    return {
        "fact": fact.id,
        "report": report,
        "steps": {s: max(h.step for h in edit.history if h.stage == s) for s in edit.stage_names},
        "seconds_to_select": settings["seconds_to_select"],
        "seconds_to_fit": settings["seconds_to_fit"],
    }


def over_facts(results: Sequence[dict[str, Any]], name: str) -> Rate:
    """A rate over edits: mean of the edits' values, bootstrap over edits."""
    values = {r["fact"]: [r["report"].rate(name).value] for r in results if r["report"].rate(name).n}
    return bootstrap(values)


def head(names: Sequence[str]) -> str:
    """The first two rows of a Markdown table."""
    return "| fact | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1)


def line(name: str, rates: dict[str, Rate], names: Sequence[str] = SHOWN) -> str:
    """One row of a Markdown table."""
    return f"| {name} | " + " | ".join(str(rates[k]) for k in names) + " |"


def main() -> None:
    """Run, print a Markdown table, write ``out/bench/edit_quality.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=10)
    parser.add_argument("--relations", type=int, default=5)
    parser.add_argument("--max-controls", type=int, default=60, help="drawn by seed from all known test facts")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/bench/edit_quality.json"))
    args = parser.parse_args()
    model, facts = wb.load_model(), wb.load_facts()
    answering = Answering(model)
    known = wb.known_facts(model, facts.filter(split="test"))
    drawn = draw_facts(answering, known, args.facts, args.relations, args.seed)
    results = []
    print(head(SHOWN), flush=True)
    for fact in [facts["france-capital"], *drawn]:
        controls = None if fact.id == "france-capital" else args.max_controls
        result = measure(model, fact, answering, controls, args.seed)
        results.append(result)
        print(line(fact.id, dict(result["report"].rates["learn"])), flush=True)
        print(f"<!-- steps {result['steps']}, {result['seconds_to_fit']} s for both stages -->", flush=True)
    ten = results[1:]
    summary = {k: over_facts(ten, k) for k in dict.fromkeys((*SHOWN, *COLLATERAL))}
    print(line(f"mean of {len(ten)} facts", summary))
    print(f"\n{head(COLLATERAL)}")
    for result in results:
        print(line(result["fact"], dict(result["report"].rates["learn"]), COLLATERAL))
    print(line(f"mean of {len(ten)} facts", summary, COLLATERAL))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {k: v for k, v in r.items() if k != "report"}
        | {"rates": {s: {k: vars_of(x) for k, x in rs.items()} for s, rs in r["report"].rates.items()}}
        | {"heldout": [text_of(row) for row in r["report"].rows if row.group == "heldout"]}
        | {"collateral": [text_of(row) for row in r["report"].rows if row.group in COLLATERAL_GROUPS]}
        | {"missing": list(r["report"].missing)}
        for r in results
    ]
    data = {"arguments": {k: str(v) for k, v in vars(args).items()}, "model": model.fingerprint, "facts": rows}
    args.out.write_text(json.dumps(data | {"mean": {k: vars_of(v) for k, v in summary.items()}}, indent=1))


def vars_of(rate: Rate) -> dict[str, Any]:
    """A rate as plain values."""
    return {"value": rate.value, "n": rate.n, "low": rate.low, "high": rate.high, "method": rate.method}


def text_of(row: AnswerRow) -> dict[str, str]:
    """What was said."""
    return {"group": row.group, "stage": row.stage, "prompt": row.prompt, "text": row.text, "label": row.label}


if __name__ == "__main__":
    main()
