"""Write the tables of the docs from the results on file.

    python -m benchmarks.tables [--check]

A page of the docs has a table between ``<!-- table: NAME ARGUMENTS -->`` and ``<!-- end of table -->``; what stands
between is replaced. ``--check`` changes nothing and fails where a page is not what the results say.

    singles METHODS...          single edits of the same facts of the draw: those that all of these methods have on file
    counts METHODS...           the same edits as CounterFact counts them, with priming, seconds and numbers
    worst METHODS...            the same with worst facts, and new answers by whether the base knew the old one
    batches N METHODS...        so many facts at once
    sequences N MARKS METHODS...  so many facts one after the other, after 1,10,25 of them
    matched RUN                 selections of equal number and of equal gain, such as ia3-0: the method and the seed
    sealed                      the one measurement on sealed facts
    sealed-said METHODS...      what these methods' edits of sealed facts say to untrained questions
    sealed-relations METHODS... the same edits by relation

Single edits are those of the draw with seed 281; of another one with ``of=SEED`` as the last argument.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.lib.editor_table import recovered
from benchmarks.lib.rates import over_facts, rates_of, told, vars_of, worst
from benchmarks.lib.store import ENDING, FOLDER, Line, Store
from workbench.evaluation.rescore import rescore
from workbench.facts.known import load_facts
from workbench.files.reports import report_from_dict
from workbench.types import AnswerRow, EvalReport, Rate
from workbench.types.intervals import mean_over
from workbench.types.rate_values import Values, answered_at
from workbench.types.rates import RATES

PAGES = (Path("README.md"), Path("docs"))
BLOCK = re.compile(r"(<!-- table: ([^\n]+?) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)
SPLIT, DRAW = "test", "drawn-test-20-281"
"""Of which facts the tables of edits are, where none says another draw."""
OF = "of="
GOALS = {
    "new": "at least 0.95",
    "forget": "at least 0.96",
    "control": "at least 0.95",
    "neighbour": "at least 0.90",
    "same_subject": "at least 0.90",
    "same_answer": "at least 0.90",
    "cloze_new": "",
    "reversed_new": "",
    "twohop_new": "",
    "bleed": "",
    "gibberish": "at most 0.02",
    "text_nll_change": "at most 0.01",
    "kl": "",
}
"""The rates of a table of edits, and what is wanted of them."""
SAID: dict[str, str] = {
    "new": "new",
    "both": "new and old",
    "old": "old",
    "other": "another",
    "gibberish": "gibberish",
    "refusal": "a refusal",
}
"""Classes of answers, and the heads of their columns."""
OF_RELATION = ("train_new", "new", "new_known", "forget", "control", "neighbour", "same_answer")
"""The rates of a table by relation."""
COUNTS = {
    "efficacy: new answer likelier than the old one, own cloze": ("counterfact", "efficacy"),
    "paraphrase: the same, other clozes": ("counterfact", "paraphrase"),
    "neighbourhood: neighbours' own answers likelier than the new one": ("counterfact", "neighbourhood"),
    "fluency: entropy of two and three words, bits": ("counterfact", "fluency"),
    "priming: the new answer where it does not belong, after a text with it": ("probes", "priming", "bleed"),
}
"""Rows of the table ``counts``, and where they are in a result."""


@cache
def _lines(name: str) -> dict[str, Line]:
    return Store(FOLDER / f"{name}{ENDING}").lines()


def paired(given: Sequence[str], lines: dict[str, Line]) -> dict[str, list[dict[str, Any]]]:
    """The single edits of each method, of those facts of the draw that all of them have, in the order of the draw.

    Args:
        given: The methods, and which draw it is (``of=SEED``) where it is another than ``DRAW``.
        lines: The results on file.

    Raises:
        ValueError: They have none in common.
    """
    *methods, last = given
    draw = f"drawn-{SPLIT}-20-{last.removeprefix(OF)}" if last.startswith(OF) else DRAW
    methods = methods if last.startswith(OF) else [*methods, last]
    if draw not in lines:
        raise ValueError(
            f"No draw {draw!r} is on file; there are {[name for name in lines if name.startswith('drawn-')]}."
        )
    found: dict[str, dict[str, dict[str, Any]]] = {method: {} for method in methods}
    for line in lines.values():
        method = line.settings.get("method")
        if method in found and "probes" in line.settings:
            found[method][line.result["fact"]] = line.result
    common = [id for id in lines[draw].result["facts"] if all(id in of for of in found.values())]
    if not common:
        raise ValueError(f"No fact has single edits of all of {', '.join(methods)} on file.")
    return {method: [of[id] for id in common] for method, of in found.items()}


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def _heads(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    return [f"`{method}`" for method in results]


def _cell(of: Sequence[dict[str, Any]], name: str) -> str:
    rates = [r for r in of if name in rates_of(r)]
    rate = over_facts(rates, name)
    if not rate.n:
        return "n/a"
    return told(vars_of(rate), clusters=rate.clusters < len(of))


def _n_facts(results: dict[str, list[dict[str, Any]]]) -> str:
    facts = {len(of) for of in results.values()}
    return f"{facts.pop()} facts each" if len(facts) == 1 else ""


def _measured(results: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """The rates that some edit was measured by, and what is wanted of them."""
    every = [rates_of(one) for of in results.values() for one in of]
    return {name: goal for name, goal in GOALS.items() if any(name in rates and rates[name].n for rates in every)}


def _worst(of: Sequence[dict[str, Any]], name: str) -> str:
    """The worst fact's rate."""
    least = worst([one for one in of if name in rates_of(one)], name)
    return "n/a" if math.isnan(least) else f"{round(least, 2) + 0.0:.2f}"  # no -0.00


def quality(results: dict[str, list[dict[str, Any]]]) -> str:
    """Means over facts with intervals over whole facts, a row a rate and a column a method."""
    rows: list[list[str]] = []
    for name, goal in _measured(results).items():
        rows.append([RATES[name].words, goal, *(_cell(of, name) for of in results.values())])
        if name == "new":
            rows += [[words, "", *shares] for words, shares in _new_apart(results).items()]
    return _table([_n_facts(results), "wanted", *_heads(results)], rows)


def singles(*methods: str) -> str:
    """The table ``singles``."""
    return quality(paired(methods, _lines("editors")))


def counts(*methods: str) -> str:
    """The table ``counts``."""
    results = paired(methods, _lines("editors"))
    rows = [[words, *(_mean(of, *path) for of in results.values())] for words, path in COUNTS.items()]
    rows.append(["old answers that the other probes bring back", *(recovered(of) for of in results.values())])
    for words, name in (
        ("seconds, on one thread of a busy machine", "seconds"),
        ("numbers that are changed", "numbers"),
    ):
        rows.append([words, *(f"{sum(one[name] for one in of) / len(of):,.0f}" for of in results.values())])
    return _table(["", *_heads(results)], [row for row in rows if any(cell not in ("-", "n/a") for cell in row[1:])])


def _mean(of: Sequence[dict[str, Any]], *path: str) -> str:
    """The mean of a rate that lies somewhere in results, over the facts where it was measured."""
    values: dict[str, list[float]] = {}
    for result in of:
        rate: Any = result
        for name in path:
            rate = rate.get(name, {})
        if rate.get("n"):
            values.setdefault(result["fact"], []).append(rate["value"])
    if not values:
        return "n/a"
    within = (0.0, 1.0) if path[-1] != "fluency" else (0.0, math.inf)
    return told(vars_of(mean_over(values, within=within)), clusters=len(values) < len(of))


def worst_facts(*methods: str) -> str:
    """The table ``worst``."""
    results = paired(methods, _lines("editors"))
    rows: list[list[str]] = []
    for name, goal in _measured(results).items():
        cells = [cell for of in results.values() for cell in (_cell(of, name), _worst(of, name))]
        rows.append([RATES[name].words, goal, *cells])
        if name == "new":
            for words, shares in _new_apart(results).items():
                rows.append([words, "", *(x for one in shares for x in (one, ""))])
    return _table([_n_facts(results), "wanted", *(cell for head in _heads(results) for cell in (head, "worst"))], rows)


def _new_apart(results: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    """New answers by method, all facts together, counted apart by whether the base gives the old one, by what they
    are."""
    which = {"to which the base gives the old answer": "new_known", "to which it does not": "new_unknown"}
    return {
        f"the same, all questions together, {words}": [str(_pooled(of, name)) for of in results.values()]
        for words, name in which.items()
    }


def _pooled(of: Sequence[dict[str, Any]], name: str) -> Rate:
    """A rate over the answers of all facts together."""
    rule, values = RATES[name], Values()
    assert rule.values is not None
    for result in of:
        rows = [AnswerRow(**row) for row in result["answers"]]
        values |= rule.values(answered_at(rows, "learn", lambda text: False))
    return rule.of(values)


def batches(n: str, *methods: str) -> str:
    """The table ``batches``."""
    return _of_results({method: f"{method}-batch-{SPLIT}-{n}" for method in methods})


def sequences(n: str, marks: str, *methods: str) -> str:
    """The table ``sequences``."""
    return _of_results(
        {
            f"{method}, after {mark}": f"{method}-sequence-{SPLIT}-{n}-after-{mark}"
            for method in methods
            for mark in marks.split(",")
        }
    )


def _of_results(names: dict[str, str]) -> str:
    """Rates of results that are over several facts already, by the head of each column and the result's name."""
    lines = _lines("editors")
    columns = [rates_of(lines[name].result) for name in names.values()]
    rows = [
        [RATES[name].words, goal, *(told(vars_of(of[name])) if of[name].n else "n/a" for of in columns)]
        for name, goal in GOALS.items()
        if all(name in of for of in columns)
    ]
    return _table(["", "wanted", *names], rows)


def sealed() -> str:
    """The table ``sealed``."""
    return _summary("sealed")["table"]


def matched(run: str) -> str:
    """The table ``matched``: of a method with a seed, such as ``ia3-0``."""
    return _summary("matched")["runs"][run]["table"]


def _summary(name: str) -> dict[str, Any]:
    """What a benchmark wrote beside its lines."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def _sealed_edits(methods: Sequence[str]) -> dict[str, list[EvalReport]]:
    """The reports on file of each method."""
    lines = _lines("sealed").values()
    return {
        method: [report_from_dict(one.result["report"]) for one in lines if one.settings.get("method") == method]
        for method in methods
    }


def _before_and_after(report: EvalReport) -> list[tuple[str, str]]:
    """The class of each answer to an untrained question about the edited fact: the base's, and the last stage's."""
    base, after = (
        {row.prompt: row.label for row in report.rows if (row.stage, row.group) == (stage, "heldout")}
        for stage in ("base", report.stages[-1])
    )
    return [(before, after[prompt]) for prompt, before in base.items()]


def sealed_said(*methods: str) -> str:
    """The table ``sealed-said``."""
    rows = []
    for method, reports in _sealed_edits(methods).items():
        said = [pair for report in reports for pair in _before_and_after(report)]
        for words, known in (("gives the old answer", True), ("does not", False)):
            after = [now for before, now in said if (before == "old") is known]
            counts = [str(after.count(label)) for label in SAID]
            rows.append([f"`{method}`, the base {words}", str(len(after)), *counts])
    return _table(["", "questions", *SAID.values()], rows)


def sealed_relations(*methods: str) -> str:
    """The table ``sealed-relations``: means over the facts of a relation."""
    facts = load_facts(split="sealed")
    rows = []
    for method, reports in _sealed_edits(methods).items():
        of: dict[str, list[EvalReport]] = {}
        for report in reports:
            of.setdefault(facts[report.facts[0]].relation, []).append(rescore(report, groups=()))
        for relation, these in sorted(of.items()):
            cells = []
            for name in OF_RELATION:
                values = [rate.value for one in these if (rate := one.rate(name)).n]
                cells.append(f"{fmean(values):.2f}" if values else "n/a")
            rows.append([f"`{method}`, {relation} ({len(these)})", *cells])
    return _table(["", *(RATES[name].words for name in OF_RELATION)], rows)


TABLES: dict[str, Callable[..., str]] = {
    "singles": singles,
    "counts": counts,
    "worst": worst_facts,
    "batches": batches,
    "sequences": sequences,
    "matched": matched,
    "sealed": sealed,
    "sealed-said": sealed_said,
    "sealed-relations": sealed_relations,
}


def filled(text: str) -> str:
    """A page with its tables as the results are.

    Raises:
        ValueError: A table of no such name.
    """

    def written(block: re.Match[str]) -> str:
        name, *given = block[2].split()
        if name not in TABLES:
            raise ValueError(f"No table {name!r}; there are {', '.join(TABLES)}.")
        return f"{block[1]}\n{TABLES[name](*given)}\n\n{block[4]}"

    return BLOCK.sub(written, text)


def pages(root: Path = Path()) -> list[Path]:
    """The pages that may hold tables."""
    return [page for one in PAGES for page in ([root / one] if one.suffix else sorted((root / one).rglob("*.md")))]


def main(given: Sequence[str] | None = None) -> None:
    """Fill the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, fail where a page differs")
    args = parser.parse_args(given)
    old = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        new = filled(text)
        if new != text:
            old.append(str(page))
            if not args.check:
                page.write_text(new, encoding="utf-8")
    print("\n".join(old) or "All tables are what the results say.")
    if args.check and old:
        raise SystemExit(f"Not what the results say: {', '.join(old)}. Run: python -m benchmarks.tables")


if __name__ == "__main__":
    main()
