"""Does the circuit matter? Selections of neurons matched on their number and on their first-order gain, at equal KL.

    python -m benchmarks.matched [--method ia3|memit] [--facts 20] [--part 1/2] [--seed 0]

That chosen neurons learn sooner than random ones says little: the default selection is by the first-order gain per unit
step of the optimiser that then trains them. So an arm is matched twice. ``number``: each has as many neurons as the
default. ``gain``: each takes neurons in its own order until their first-order gain (the root of the summed squared
scores) is the default's, or all where it never is. Every edit is turned to the strength at which its KL on thirty
controls is the same, and is evaluated there: what it teaches and what it costs for equal damage.

Arms, by their orders of neurons: ``default`` (gain over the root of the Fisher information); ``trace``: whole MLPs by a
causal trace of MLP outputs at the subject's last token; ``patching``: whole MLPs by exact patching; ``eap-ig``:
integrated gradients of neurons; ``gradient``: large gain alone; ``fisher``: small Fisher information alone;
``random-layers``: random neurons of the default's layers; ``random-anywhere``; ``all``. Within an MLP the order is
drawn by seed. Known deviation: exact patching of single neurons (46,080 passes a fact) is not run.

The fit is short, one stage without a second fit, alike for all arms; ``memit`` writes the columns of the chosen
neurons. Facts are those of the draw of ``benchmarks.editors``. Each finished edit is a line of
``benchmarks/results/matched.jsonl.xz``; a rerun goes on after the last one. The verdict is of paired differences, the
default minus each arm, over the facts at which both have that KL.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor

import workbench as wb
from benchmarks.lib.kept import Kept, measured_on
from benchmarks.lib.parts import add_part
from benchmarks.lib.rates import over_facts, plain_rates, plain_texts, rates_of, told, vars_of
from benchmarks.lib.store import ENDING, FOLDER, Line, Store
from benchmarks.tables import DRAW
from workbench.editing.applied import Dial
from workbench.editing.selector import NEURONS, gate_measures
from workbench.evaluation.answering import Answering, Ask
from workbench.evaluation.floor import equal_strength
from workbench.files.atomic import write_bytes
from workbench.types import BaseRecipe, Component, EditStage, Rate, Selection
from workbench.types.intervals import paired_difference
from workbench.types.roles import LAST_SUBJECT_TOKEN

ARMS = (
    *("default", "trace", "patching", "eap-ig", "gradient", "fisher"),
    *("random-layers", "random-anywhere", "all"),
)
MATCHINGS = ("number", "gain")
MEASURED = tuple(
    f"{matching}/{arm}"
    for matching in MATCHINGS
    for arm in ARMS
    if matching == "number" or arm not in ("default", "all")
)
"""What is measured of a fact: matched on the gain, the default and everything are what they are by number."""
KL = 0.02
"""Nats per token of controls' own answers at which every edit is read."""
ASKED = 30
"""Controls on which that is measured."""
OUTCOMES = ("new", "forget", "control", "neighbour")


def recipe_of(method: str, seed: int) -> BaseRecipe:
    """The short fit of a method.

    Raises:
        ValueError: Another method.
    """
    if method == "ia3":
        return wb.Recipe(stages=("learn",), steps=16, average=6, retain_size=40, draw_back=None, seed=seed)
    if method == "memit":
        return wb.recipes.MEMIT(seed=seed)
    raise ValueError(f"method must be 'ia3' or 'memit', got {method!r}.")


class Orders:
    """The arms' orders of neurons for one fact, as indices into [layers * d_mlp].

    Args:
        model, fact: The base and the fact.
        seed: Of what is drawn.
    """

    def __init__(self, model: wb.LoadedModel, fact: wb.Fact, seed: int) -> None:
        self.model, self.fact = model, fact
        self._random = random.Random(f"{seed}-{fact.id}")
        measures = gate_measures(model, fact, seed=seed, progress=False)
        self.gain, self.cost = measures.gain.flatten(), measures.cost.flatten()
        self.scores = measures.scores.flatten()

    @cached_property
    def _shuffled(self) -> list[int]:
        return self._random.sample(range(len(self.scores)), len(self.scores))

    def of(self, arm: str) -> list[int]:
        """An arm's order; of ``all`` any, for it takes everything."""
        d_mlp = self.model.shape.d_mlp
        if arm in ("trace", "patching"):
            layers = getattr(self, f"_{arm}")
            place = {layer: i for i, layer in enumerate(layers.argsort(descending=True).tolist())}
            return sorted(self._shuffled, key=lambda i: place[i // d_mlp])
        if arm == "random-layers":
            there = {i // d_mlp for i in self.of("default")[:NEURONS]}
            return [i for i in self._shuffled if i // d_mlp in there]
        if arm in ("random-anywhere", "all"):
            return self._shuffled
        if arm == "eap-ig":
            return self._integrated.argsort(descending=True, stable=True).tolist()
        by = {"default": self.scores, "gradient": self.gain, "fisher": -self.cost}[arm]
        return by.argsort(descending=True, stable=True).tolist()

    @cached_property
    def _integrated(self) -> Tensor:
        return wb.attribute(self.model, self.fact, "neuron", method="ig", progress=False).values.flatten().abs()

    @cached_property
    def _trace(self) -> Tensor:
        effects = wb.causal_trace(self.model, self.fact, "mlp", progress=False)
        return effects.at(role=LAST_SUBJECT_TOKEN).flatten()

    @cached_property
    def _patching(self) -> Tensor:
        return wb.attribute(self.model, self.fact, "mlp", method="patching", progress=False).values.flatten()

    def selection(self, arm: str, matching: str) -> tuple[Selection, float]:
        """An arm's neurons, and their first-order gain as a share of the default's."""
        order = self.of(arm)
        wanted = self.scores[self.of("default")[:NEURONS]].double().square().sum()
        n = matched_number(self.scores[order].double().square(), float(wanted)) if matching == "gain" else NEURONS
        picked = order if arm == "all" else order[:n]
        d_mlp = self.model.shape.d_mlp
        gain = float((self.scores[picked].double().square().sum() / wanted).sqrt())
        return Selection([Component(i // d_mlp, "N", i % d_mlp) for i in sorted(picked)]), gain


def matched_number(squares: Tensor, wanted: float) -> int:
    """How many of the first squared scores add up to what is wanted; all of them where they do not."""
    reached = (squares.cumsum(0) >= wanted * (1 - 1e-9)).nonzero()
    return int(reached[0]) + 1 if len(reached) else len(squares)


class Matched:
    """Edits of arms, on file or made.

    Args:
        answering: The base's answers, remembered.
        kept: Those on file.
        args: The options.
    """

    def __init__(self, answering: Answering, kept: Kept, args: argparse.Namespace) -> None:
        self.answering, self.model, self.kept, self.args = answering, answering.base, kept, args

    @cached_property
    def asks(self) -> list[Ask]:
        """The controls on which the KL is measured: known dev facts, which no rate counts."""
        known = list(
            wb.known_facts(self.model, wb.load_facts().core.filter(split="dev", role="control"), progress=False)
        )
        chosen = random.Random(self.args.seed).sample(known, min(ASKED, len(known)))
        return [Ask("chat", fact.question) for fact in chosen]

    def of(self, fact: wb.Fact) -> dict[str, dict[str, Any]]:
        """All arms of a fact, by ``"<matching>/<arm>"``."""
        found: dict[str, dict[str, Any]] = {}
        orders: list[Orders] = []

        def measure(arm: str, matching: str) -> dict[str, Any]:
            if not orders:
                orders.append(Orders(self.model, fact, self.args.seed))
            return self._measure(fact, *orders[0].selection(arm, matching))

        for arm in MEASURED:
            name = f"{run_of(self.args.method, self.args.seed)}-{fact.id}/{arm}"
            found[arm] = self.kept.measured(name, self._settings(), partial(measure, *reversed(arm.split("/"))))
            print(f"{name}: {described(found[arm])}", flush=True)
        return found

    def _settings(self) -> dict[str, Any]:
        given = {name: getattr(self.args, name) for name in ("method", "seed", "max_controls")}
        recipe = recipe_of(self.args.method, self.args.seed).to_dict()
        return {**measured_on(self.model), **given, "editor": recipe, "kl": KL, "neurons": NEURONS}

    def _measure(self, fact: wb.Fact, selection: Selection, gain: float) -> dict[str, Any]:
        began = time.perf_counter()
        edit = wb.rewrite(
            self.model, fact, selection, recipe=recipe_of(self.args.method, self.args.seed), progress=False
        )
        about = {"fact": fact.id, "relation": fact.relation, "neurons": len(selection), "gain": gain}
        dial = Dial(self.model, edit)

        def kl(strength: float) -> float:
            held = [value for value in self.answering.kl(dial.at(strength), self.asks) if not math.isnan(value)]
            return sum(held) / len(held)

        whole, strength = kl(1.0), equal_strength(kl, KL)
        about |= {"kl": whole, "strength": strength, "seconds": round(time.perf_counter() - began, 1)}
        if strength is None:
            return about
        name = edit.stage_names[-1]
        turned = replace(edit, stages=(EditStage(name, edit.delta(strength=strength)),))
        report = wb.evaluate(
            self.model,
            edit=turned,
            max_controls=self.args.max_controls,
            answering=self.answering,
            seed=zlib.crc32(fact.id.encode()),
            progress=False,
        )
        rates = plain_rates(report)
        return about | {"rates": {"base": rates["base"], "learn": rates[report.stages[-1]]}, **plain_texts(report)}


def run_of(method: str, seed: int) -> str:
    """What a method with a seed is called."""
    return f"{method}-{seed}"


def finished(lines: Iterable[Line]) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """The facts of which every arm is on file: by run, then by fact, then by ``"<matching>/<arm>"``."""
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for line in lines:
        run = run_of(line.settings["method"], line.settings["seed"])
        of_fact = found.setdefault(run, {}).setdefault(line.result["fact"], {})
        of_fact[line.name.partition("/")[2]] = line.result
    whole = {
        run: {
            fact: {arm: of[arm] for arm in MEASURED} for fact, of in facts.items() if all(arm in of for arm in MEASURED)
        }
        for run, facts in found.items()
    }
    return {run: facts for run, facts in whole.items() if facts}


def described(result: dict[str, Any]) -> str:
    """A result in a line."""
    if result["strength"] is None:
        return f"{result['neurons']} neurons, no strength has that KL (at 1: {result['kl']:.3f})"
    rates = ", ".join(f"{name} {rates_of(result)[name].value:.2f}" for name in OUTCOMES)
    return f"{result['neurons']} neurons, gain {result['gain']:.2f}, strength {result['strength']:.2f}: {rates}"


def summary(found: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By arm: how many facts have that KL, means of the outcomes, and the default's minus its own, paired by fact.

    Args:
        found: By fact, then by ``"<matching>/<arm>"``.
    """
    arms = list(dict.fromkeys(name for of in found.values() for name in of))
    reached = {
        arm: {fact: of[arm] for fact, of in found.items() if arm in of and of[arm]["strength"] is not None}
        for arm in arms
    }
    default = reached.get("number/default", {})
    out: dict[str, dict[str, Any]] = {}
    for arm, of in reached.items():
        results = list(of.values())
        row: dict[str, Any] = {"facts": len(of), "not reached": sum(arm in one for one in found.values()) - len(of)}
        if results:
            row |= {name: sum(one[name] for one in results) / len(of) for name in ("neurons", "gain", "strength")}
            row["rates"] = {name: vars_of(over_facts(results, name)) for name in OUTCOMES}
        both = [fact for fact in of if fact in default] if arm != "number/default" else []
        row["default minus it"] = {
            name: vars_of(difference) for name in OUTCOMES if (difference := minus(default, of, both, name)) is not None
        }
        out[arm] = row
    return out


def minus(
    first: dict[str, dict[str, Any]], second: dict[str, dict[str, Any]], facts: Sequence[str], name: str
) -> Rate | None:
    """A rate of the first results minus that of the second, over the facts where both measured it; None for none."""
    pairs = {fact: (rates_of(first[fact])[name], rates_of(second[fact])[name]) for fact in facts}
    measured = {fact: pair for fact, pair in pairs.items() if all(rate.n for rate in pair)}
    if not measured:
        return None
    one, other = ({fact: [pair[i].value] for fact, pair in measured.items()} for i in (0, 1))
    return paired_difference(one, other, within=(-1.0, 1.0))


def table(of: dict[str, dict[str, Any]]) -> str:
    """The summary in Markdown."""
    heads = ("matched on / arm", "facts", "neurons", "gain", *OUTCOMES, *(f"default − it: {name}" for name in OUTCOMES))
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for arm, row in of.items():
        facts = f"{row['facts']}" + (f" ({row['not reached']} have no such KL)" if row["not reached"] else "")
        size = [f"{row['neurons']:,.0f}", f"{row['gain']:.2f}"] if row["facts"] else ["", ""]
        rates = [told(row["rates"][name]) if row["facts"] else "" for name in OUTCOMES]
        apart = [told(row["default minus it"][name]) if name in row["default minus it"] else "" for name in OUTCOMES]
        lines.append(f"| {' | '.join((arm, facts, *size, *rates, *apart))} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    """Run what is not done yet; print the tables of all facts that are finished, and write them to
    ``benchmarks/results/matched.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=["ia3", "memit"], default="ia3")
    parser.add_argument("--facts", type=int, default=20, help="of the draw, in its order")
    add_part(parser)
    parser.add_argument("--max-controls", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--of", type=Path, default=FOLDER / f"editors{ENDING}", help="the file with the draw")
    parser.add_argument("--out", type=Path, default=FOLDER / "matched.json")
    args = parser.parse_args(given)
    kept, facts = Kept(args.out.with_suffix(ENDING), __file__), wb.load_facts()
    matched = Matched(Answering(wb.load_model()), kept, args)
    ids: list[str] = Store(args.of).lines()[DRAW].result["facts"]
    for id in args.part.take(ids[: args.facts]):
        matched.of(facts[id])
    runs = {
        run: {"facts": list(of), "arms": (rows := summary(of)), "table": table(rows)}
        for run, of in finished(kept.store.lines().values()).items()
    }
    for run, of in runs.items():
        print(f"\n{run}: {', '.join(of['facts'])}\n\n{of['table']}")
    content = {"code": kept.code.to_dict(), "kl": KL, "asked": ASKED, "runs": runs}
    write_bytes(args.out, json.dumps(content, indent=1).encode())


if __name__ == "__main__":
    main()
