"""What a new fact costs: control retention against new-fact accuracy, by the number of gates and how far they go.

    python -m benchmarks.frontier [--facts 2] [--neurons 250 2000 8000] [--strengths 0.25 0.5 0.75 1 1.25]

Test facts drawn by seed as in ``benchmarks/edit_quality.py``. Each is edited with the best so many neurons by the
default selector; every edit is then read at several strengths, and beside it a control that cannot teach anything: the
same changes of the same gates, dealt out among them by seed and given random signs. What both lose at one KL is lost to
any change of that size: answers that were nearly tied before. The last row is the untouched model with its weights
rounded to bfloat16, the least change that is in daily use. ``held`` is the share of the retain set's facts, the very
ones that the fit holds in place, that are still right: controls that are lost beyond it are lost because they were not
held, the others because no gates of this number teach the fact and hold them. Finished edits are lines of
``benchmarks/results/frontier.jsonl.xz``, named ``<fact>-<neurons>``; a rerun goes on after the last one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import workbench as wb
from benchmarks.edit_quality import draw_facts
from benchmarks.lib.kept import Kept, defaults
from benchmarks.lib.rates import plain_texts, rates_of, vars_of
from benchmarks.lib.store import ENDING
from workbench.editing.applied import applied
from workbench.evaluation.answering import Answering, Ask
from workbench.evaluation.evaluate import evaluate_views
from workbench.files.atomic import write_bytes
from workbench.types import Edit, GateDelta, Rate
from workbench.types.intervals import wilson

SHOWN = ("new", "control", "held", "neighbour", "kl")
View = Callable[[], AbstractContextManager[wb.LoadedModel]]


def dealt_out(edit: Edit, seed: int) -> Edit:
    """The edit's final changes, shuffled among its gates and with random signs, as one stage."""
    delta = edit.delta()
    assert isinstance(delta, GateDelta), "the recipe's method is IA3"
    gates = delta.gates
    draw = torch.Generator().manual_seed(seed)
    changes = torch.cat([values - 1 for values in gates.values()])
    moved = changes.nonzero()[:, 0]
    signs = torch.randint(0, 2, (len(moved),), generator=draw) * 2 - 1
    changes[moved] = changes[moved][torch.randperm(len(moved), generator=draw)] * signs
    parts = changes.split([len(values) for values in gates.values()])
    delta = GateDelta({place: 1 + part for place, part in zip(gates, parts, strict=True)})
    return replace(edit, stages=(replace(edit.stages[-1], delta=delta),))


def measure(
    model: wb.LoadedModel, fact: wb.Fact, neurons: int, args: argparse.Namespace, answering: Answering
) -> dict[str, Any]:
    """One edit, and its control, at every strength."""
    recipe = wb.Recipe(seed=args.seed)
    selection = wb.default_selection(model, fact, k=neurons, seed=args.seed, progress=False)
    edit = wb.rewrite(model, fact, selection, recipe=recipe, progress=False)
    changed = {"edit": edit, "dealt out": dealt_out(edit, args.seed)}
    views = {
        f"{name}, {strength:g}": partial(applied, model, one, None, strength)
        for name, one in changed.items()
        for strength in args.strengths
    }
    return rates_of_views(model, [fact], views, edit.used_ids, args, answering)


def rounded_base(
    model: wb.LoadedModel, facts: list[wb.Fact], args: argparse.Namespace, answering: Answering
) -> dict[str, Any]:
    """The base with weights in bfloat16, asked what the edits are asked."""
    half = wb.load_model(dtype=torch.bfloat16).hf
    view = wb.LoadedModel(half, model.tokenizer, name="bfloat16", architecture=model.architecture, base=model)
    ids = [fact.id for fact in wb.default_retain(model, facts, seed=args.seed, progress=False)]
    return rates_of_views(model, facts, {"bfloat16, 0": lambda: nullcontext(view)}, ids, args, answering)


def rates_of_views(
    model: wb.LoadedModel,
    facts: list[wb.Fact],
    views: Mapping[str, View],
    retained: Sequence[str],
    args: argparse.Namespace,
    answering: Answering,
) -> dict[str, Any]:
    """What is shown of changed views: rates by view and name, and all texts behind them."""
    report = evaluate_views(
        model,
        facts,
        views,
        used=retained,
        max_controls=args.max_controls,
        answering=answering,
        seed=args.seed,
        progress=False,
    )
    every = wb.load_facts()
    asked: dict[str, View] = {"base": lambda: nullcontext(answering.base), **views}
    held = {name: answers_to(answering, view, [every[id] for id in retained]) for name, view in asked.items()}
    shares = {view: still_right(held["base"], held[view]) for view in views}
    rates = {view: {k: shares[view] if k == "held" else report.rate(k, view) for k in SHOWN} for view in views}
    plain = {view: {k: vars_of(rate) for k, rate in of.items()} for view, of in rates.items()}
    return {"rates": plain, **plain_texts(report), "held": held}


def answers_to(answering: Answering, view: View, facts: list[wb.Fact]) -> list[dict[str, Any]]:
    """What a view answers to the facts' questions, and which class each answer is of."""
    with view() as changed:
        replies = answering.replies(changed, [Ask("chat", fact.question) for fact in facts])
    return [
        {"fact_id": fact.id, "prompt": fact.question, "text": reply.text, "label": reply.label(fact), "nll": reply.nll}
        for fact, reply in zip(facts, replies, strict=True)
    ]


def still_right(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Rate:
    """The share of questions that are answered as the base answers them, of those that it answers."""
    known = [now["label"] for was, now in zip(before, after, strict=True) if was["label"] == "old"]
    return wilson(known.count("old"), len(known))


def print_rows(fact: str, neurons: int, done: dict[str, Any]) -> None:
    """Markdown rows of one measurement."""
    for view in done["rates"]:
        rates = rates_of(done, view)
        change, strength = view.split(", ")
        shown = " | ".join(str(rates[name]) for name in SHOWN)
        print(f"| {fact} | {neurons} | {change} | {strength} | {shown} |", flush=True)


def main() -> None:
    """Run what is not done yet, print a Markdown table, write ``benchmarks/results/frontier.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=2)
    parser.add_argument("--relations", type=int, default=2)
    parser.add_argument("--neurons", type=int, nargs="+", default=[250, 2000, 8000])
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0, 1.25])
    parser.add_argument("--max-controls", type=int, default=60)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/frontier.json"))
    args = parser.parse_args()
    kept = Kept(args.out.with_suffix(ENDING), __file__)
    model = wb.load_model()
    answering = Answering(model)
    known = wb.known_facts(model, wb.load_facts().core.filter(split="test"))
    drawn = draw_facts(answering, known, args.facts, args.relations, args.seed)
    content: list[dict[str, Any]] = []
    print(
        "| fact | neurons | change | strength | new answer | controls | held in place | neighbours | KL, nats a token |"
    )
    print("|" + "---|" * 9)
    recipe, asked = wb.Recipe(seed=args.seed), {"strengths": args.strengths, "max_controls": args.max_controls}
    for fact in drawn:
        for neurons in args.neurons:
            settings = {**defaults(model, recipe, neurons), **asked}
            make = partial(measure, model, fact, neurons, args, answering)
            done = kept.measured(f"{fact.id}-{neurons}", settings, make)
            print_rows(fact.id, neurons, done)
            content.append({"fact": fact.id, "neurons": neurons, "rates": done["rates"]})
    settings = {**defaults(model, recipe), **asked, "facts": [fact.id for fact in drawn]}
    done = kept.measured("bfloat16", settings, partial(rounded_base, model, drawn, args, answering))
    print_rows("none", 0, done)
    content.append({"fact": None, "neurons": 0, "rates": done["rates"]})
    write_bytes(args.out, json.dumps(content, indent=1).encode())


if __name__ == "__main__":
    main()
