"""Every editor on the same facts: what each teaches, forgets and breaks, in how many seconds and with how many numbers.

    python -m benchmarks.editors [--methods ia3 lora ...] [--facts 6] [--relations 6] [--split dev|test] [--probes 0]
    python -m benchmarks.editors --methods memit alphaedit --facts 0 --batches 10 50
    python -m benchmarks.editors --methods rome --facts 0 --sequential 50 --after 1 10 25 50

Facts are drawn by seed from the known facts of a split that the base knows in other words too (as
``benchmarks/edit_quality.py`` says), at most one a relation as long as there are enough relations. A draw is made once:
it is on file under ``drawn-<split>-<n>-<seed>``, and what was added to the facts later does not change it. Of the test
split no fact is drawn that another table has published, or that a draw with another seed has: a method that was changed
after a draw was looked at needs a new one. The split is dev unless it is asked for, so that nobody looks at test facts
by accident.

Each (method, fact) is a line of ``benchmarks/results/editors.jsonl.xz``; a rerun with the same settings goes on after
the last one. Several processes may share the facts of one file: ``--part 1/2`` takes every other one; run once more
without it for the tables of all. ``--first 6`` keeps to the first facts of a draw, for methods that are measured on
fewer. Edits of a sequence are kept in the user's cache, so that a sequence goes on where it stopped. A method is a name
of ``wb.recipes.RECIPES``; ``ia3`` is the default recipe. Seconds are of the whole ``rewrite`` but for a covariance,
which is measured once a model.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import zlib
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import workbench as wb
from benchmarks.edit_quality import IN_OTHER_WORDS, in_other_words
from benchmarks.lib.editor_table import SHOWN, table
from benchmarks.lib.kept import Kept, measured_on
from benchmarks.lib.parts import add_part
from benchmarks.lib.rates import line, plain_rates, plain_texts, rates_of, vars_of
from benchmarks.lib.store import ENDING, FOLDER, Store
from workbench.evaluation.answering import Answering
from workbench.evaluation.evaluate import evaluate_views
from workbench.files.atomic import write_bytes
from workbench.files.user_cache import cache_folder
from workbench.types import BaseRecipe, Edit, EvalReport

IA3 = "unlearn-then-learn"
PUBLISHED = ("edit_quality", "arms", "frontier")
"""Benchmarks whose test facts are on file."""


def recipe_of(method: str, seed: int) -> BaseRecipe:
    """A built-in recipe with a seed; ``"ia3"`` is the default one."""
    return replace(wb.recipes.named_recipe(IA3 if method == "ia3" else method), seed=seed)


def published() -> set[str]:
    """Ids of the facts in the names of results on file: ``"japan-continent-6"``."""
    ids = set(wb.load_facts().ids)
    found: set[str] = set()
    for name in PUBLISHED:
        for line_name in Store(FOLDER / f"{name}{ENDING}").lines():
            parts = line_name.split("-")
            found |= {"-".join(parts[:i]) for i in range(1, len(parts) + 1)} & ids
    return found


def draw(
    answering: Answering, split: wb.types.Split, n: int, relations: int, seed: int, before: Collection[str] = ()
) -> list[str]:
    """Ids of known facts by seed: relations in a random order, one fact of each in turn, none of one subject twice.

    Args:
        answering: The base's answers.
        split, n, relations, seed: Of the draw.
        before: Ids that are not drawn; of the test split those of published tables are not either.
    """
    rng = random.Random(seed)
    exclude = {*before, *(published() if split == "test" else ())}
    facts = wb.load_facts().core.filter(split=split, role="control", exclude=exclude)
    known = wb.known_facts(answering.base, facts, progress=False)
    queues: list[list[wb.Fact]] = []
    for relation in sorted(known.relations):
        queues.append(list(known.filter(relation=relation)))
        rng.shuffle(queues[-1])
    rng.shuffle(queues)
    chosen: list[wb.Fact] = []
    while any(queues) and len(chosen) < n:
        for queue in queues:
            new = (f for f in iter(lambda q=queue: q.pop(0) if q else None, None) if f)
            fit = (f for f in new if f.subject not in {c.subject for c in chosen})
            fact = next((f for f in fit if in_other_words(answering, f) >= IN_OTHER_WORDS), None)
            chosen += [fact] if fact is not None and len(chosen) < n else []
    there = len({fact.relation for fact in chosen})
    if len(chosen) < n or there < relations:
        raise SystemExit(f"Only {len(chosen)} facts of {there} relations meet the condition; ask for fewer.")
    return [fact.id for fact in chosen]


class Editors:
    """Edits by several methods, on file or made.

    Args:
        answering: The base's answers, remembered.
        kept: Those on file.
        args: The options.
    """

    def __init__(self, answering: Answering, kept: Kept, args: argparse.Namespace) -> None:
        self.answering, self.model, self.kept, self.args = answering, answering.base, kept, args

    def facts(self, n: int) -> list[wb.Fact]:
        """The facts of a draw, which is made once."""
        split, seed, relations = self.args.split, self.args.seed, min(self.args.relations, n)
        settings = {"split": split, "n": n, "seed": seed, "relations": relations}
        make = partial(draw, self.answering, split, n, relations, seed, self._drawn_before() if split == "test" else ())
        done = self.kept.measured(f"drawn-{split}-{n}-{seed}", settings, lambda: {"facts": make()})
        return [wb.load_facts()[id] for id in done["facts"]]

    def _drawn_before(self) -> set[str]:
        """Facts of the test draws on file with other seeds."""
        lines = self.kept.store.lines()
        others = [name for name in lines if name.startswith("drawn-test-") and not name.endswith(f"-{self.args.seed}")]
        return {id for name in others for id in lines[name].result["facts"]}

    def single(self, method: str, fact: wb.Fact, probes: bool) -> dict[str, Any]:
        """One method on one fact."""
        make = partial(self._make, method, [fact], probes)
        return self.kept.measured(f"{method}-{fact.id}", self.settings_of(method, probes), make)

    def settings_of(self, method: str, probes: bool) -> dict[str, Any]:
        """All that a single edit's result depends on, besides the code."""
        return self._settings(method) | {"probes": probes}

    def batch(self, method: str, n: int) -> dict[str, Any]:
        """One method on so many facts at once."""
        make = partial(self._make, method, self.facts(n), False)
        return self.kept.measured(f"{method}-batch-{self.args.split}-{n}", self._settings(method), make)

    def sequence(self, method: str, n: int, after: Sequence[int]) -> dict[int, dict[str, Any]]:
        """One method on so many facts one after the other, looked at after some of them."""
        name, facts = f"{method}-sequence-{self.args.split}-{n}", self.facts(n)
        settings = self._settings(method)
        marks = [mark for mark in after if mark <= n]
        done = {mark: self.kept.find(f"{name}-after-{mark}", settings) for mark in marks}
        if any(result is None for result in done.values()):
            folder = cache_folder() / "editors" / f"{name}-{zlib.crc32(json.dumps(settings).encode()):08x}"
            stack = wb.EditStack(self.model)
            for i, fact in enumerate(facts[: max(marks)], start=1):
                place = folder / f"{i}"
                if not place.is_dir():
                    recipe = recipe_of(method, self.args.seed)
                    wb.rewrite(stack.model, fact, recipe=recipe, progress=False).save(place)
                stack.add(wb.load_edit(place))
                if i in marks:
                    make = partial(self._of_stack, stack, facts[:i])
                    done[i] = self.kept.measured(f"{name}-after-{i}", settings, make)
        return {mark: result for mark, result in done.items() if result is not None}

    def _settings(self, method: str) -> dict[str, Any]:
        recipe = recipe_of(method, self.args.seed).to_dict()
        return {**measured_on(self.model), "method": method, "editor": recipe, "max_controls": self.args.max_controls}

    def _make(self, method: str, facts: list[wb.Fact], probes: bool) -> dict[str, Any]:
        began = time.perf_counter()
        edit = wb.rewrite(self.model, facts, recipe=recipe_of(method, self.args.seed), progress=False)
        seconds = time.perf_counter() - began
        report = wb.evaluate(
            self.model,
            edit=edit,
            stages=edit.stage_names[-1:],
            collateral=True,
            max_controls=self.args.max_controls,
            answering=self.answering,
            seed=zlib.crc32(facts[0].id.encode()),
            progress=False,
        )
        noted = {k: v for k, v in edit.provenance.get("settings", {}).items() if k.startswith("seconds")}
        scores = wb.counterfact_rates(self.model, edit, stages=edit.stage_names[-1:])[edit.stage_names[-1]]
        asked = None if probes else "priming"
        found = wb.probe(self.model, edit, probes=asked, progress=False) if len(facts) == 1 else None
        return {
            **summed(report, facts),
            **of_edit(edit),
            "seconds": round(seconds - noted.get("seconds_for_covariance", 0.0), 1),
            "noted": noted,
            "counterfact": {name: vars_of(rate) for name, rate in scores.items()},
            "probes": {} if found is None else plain_probes(found),
        }

    def _of_stack(self, stack: wb.EditStack, facts: list[wb.Fact]) -> dict[str, Any]:
        edits = stack.edits
        report = evaluate_views(
            self.model,
            facts,
            {"learn": lambda: nullcontext(stack.model)},
            used=[id for edit in edits for id in edit.used_ids],
            closed=[*dict.fromkeys(name for edit in edits for name in edit.closed_relations)],
            collateral=True,
            max_controls=self.args.max_controls,
            answering=self.answering,
            seed=self.args.seed,
            progress=False,
        )
        numbers = sum(of_edit(edit)["numbers"] for edit in edits)
        return {**summed(report, facts), "numbers": numbers, "edit": stack.fingerprint}


def summed(report: EvalReport, facts: Sequence[wb.Fact]) -> dict[str, Any]:
    """What an evaluation says, as plain values; its last stage is called ``"learn"`` for every method."""
    rates = plain_rates(report)
    texts = plain_texts(report)
    last = report.stages[-1]
    for row in (*texts["answers"], *texts["sentences"]):
        row["stage"] = "learn" if row["stage"] == last else row["stage"]
    return {
        "fact": facts[0].id if len(facts) == 1 else f"{len(facts)} facts",
        "facts": [fact.id for fact in facts],
        "relation": facts[0].relation,
        "rates": {"base": rates["base"], "learn": rates[last]},
        **texts,
        "flips": [flip.fact_id for flip in report.flips or ()],
        "missing": list(report.missing),
    }


def of_edit(edit: Edit) -> dict[str, Any]:
    """What an edit consists of."""
    delta = edit.delta()
    gates = delta.n_moved() if delta.kind == "gates" else sum(t.numel() for t in delta.tensors().values())
    return {"numbers": gates, "words": delta.words(), "learned": edit.learned, "edit": edit.id}


def plain_probes(report: wb.ProbeReport) -> dict[str, Any]:
    """The rates of the last stage by probe, as plain values."""
    last = report.stages[-1]
    return {p: {k: vars_of(r) for k, r in by[last].items()} for p, by in report.rates.items() if last in by}


def without_texts(result: dict[str, Any]) -> dict[str, Any]:
    """A result without the texts behind its rates."""
    return {name: value for name, value in result.items() if name not in ("answers", "sentences")}


def main(given: Sequence[str] | None = None) -> None:
    """Run what is not done yet, print Markdown tables, write ``benchmarks/results/editors.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["ia3", "lora"], metavar="NAME")
    parser.add_argument("--facts", type=int, default=6, help="single edits of each method; 0 for none")
    parser.add_argument("--relations", type=int, default=8, help="at least so many, of that many facts or more")
    parser.add_argument("--split", choices=["dev", "test"], default="dev")
    add_part(parser)
    parser.add_argument("--first", type=int, default=None, metavar="N", help="only the first so many of the draw")
    parser.add_argument("--draw-only", action="store_true", help="put the draw on file, measure nothing")
    parser.add_argument("--probes", type=int, default=0, help="all probes on the first so many facts")
    parser.add_argument("--batches", type=int, nargs="*", default=[], metavar="N", help="so many facts at once")
    parser.add_argument("--sequential", type=int, default=0, metavar="N", help="so many facts one after the other")
    parser.add_argument("--after", type=int, nargs="+", default=[1, 10, 25, 50], help="where a sequence is looked at")
    parser.add_argument("--max-controls", type=int, default=60)
    parser.add_argument("--seed", type=int, default=28)
    parser.add_argument("--out", type=Path, default=FOLDER / "editors.json")
    args = parser.parse_args(given)
    for method in args.methods:
        recipe_of(method, args.seed)  # a wrong name is said at once
    if args.draw_only and not args.facts:
        raise SystemExit("--draw-only needs --facts N, how many facts are drawn.")
    editors = Editors(Answering(wb.load_model()), Kept(args.out.with_suffix(ENDING), __file__), args)
    single: dict[str, list[dict[str, Any]]] = {}
    more: dict[str, list[dict[str, Any]]] = {}
    facts = editors.facts(args.facts)[: args.first] if args.facts else []
    if args.draw_only:
        print(f"{args.split}: {', '.join(fact.id for fact in facts)}")
        return
    for i, fact in args.part.take([*enumerate(facts)]):
        for method in args.methods:
            done = editors.single(method, fact, i < args.probes)
            single.setdefault(method, []).append(done)
            rates = {name: rate for name, rate in rates_of(done).items() if name in SHOWN}
            print(
                line(f"{fact.id}, {method}, {done['seconds']} s", rates, [n for n in SHOWN if n in rates]), flush=True
            )
    for method in args.methods:
        more |= {f"{method}, {n} at once": [editors.batch(method, n)] for n in args.batches}
        if args.sequential:
            marks = editors.sequence(method, args.sequential, args.after)
            more |= {f"{method}, after {mark} of {args.sequential}": [done] for mark, done in marks.items()}
    for results in filter(None, (single, more)):
        print(f"\n{table(results)}")
    plain = {
        name: [{k: v for k, v in r.items() if k not in ("answers", "sentences")} for r in of]
        for name, of in (single | more).items()
    }
    content = {
        "code": editors.kept.code.to_dict(),
        "arguments": {k: v for k, v in vars(args).items() if k != "out"},
        "results": plain,
    }
    write_bytes(args.out, json.dumps(content, indent=1).encode())


if __name__ == "__main__":
    main()
