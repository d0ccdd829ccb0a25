"""Count again what is on file: today's classes and intervals on stored texts and rates, without a model.

    python -m benchmarks.recount

Texts of controls and neighbours are classified anew where they are on file (``arms``, ``paper``), and rates are made of
them; of ``edit_quality``, ``frontier`` and ``tune`` the rates stay as they were counted, with today's intervals where
the numbers of rows and facts say them (``benchmarks/lib/rates.py``). Then every summary is written again. Lines keep
the code that measured them. Prints the tables of the docs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import workbench as wb
from benchmarks import arms, edit_quality, paper, tune
from benchmarks.lib.rates import line, over_facts, rates_of, vars_of
from benchmarks.lib.store import FOLDER, Line, Store
from workbench.files.arms import arms_from_dict, arms_to_dict
from workbench.files.atomic import write_bytes
from workbench.probing.rates import rates_of_probes
from workbench.types import EvalReport
from workbench.types.arms import ArmTable, join_tables


def counted_report(report: EvalReport, facts: wb.FactSet) -> EvalReport:
    """A report whose untouched facts are classified, and whose rates are counted, as today's evaluation does it."""
    again = wb.rescore(report, facts, groups=("neighbour", "control"))
    changed = sum(a.label != b.label for a, b in zip(again.rows, report.rows, strict=True))
    print(f"<!-- {', '.join(report.facts)}: {changed} of {len(report.rows)} answers are of another class -->")
    return again


def recount_arms(facts: wb.FactSet) -> None:
    """Tables of arms, line by line, and their summary."""
    store, tables = Store(FOLDER / "arms.jsonl.xz"), list[ArmTable]()
    lines: list[Line] = []
    for one in store.lines().values():
        table = arms_from_dict(one.result, one.name)
        rows = tuple(replace(row, report=counted_report(row.report, facts)) for row in table.rows)
        tables.append(replace(table, rows=rows))
        lines.append(replace(one, result=arms_to_dict(tables[-1])))
    store.replace(lines)
    path = FOLDER / "arms.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    order = {fact: i for i, fact in enumerate(content["facts"])}
    tables.sort(key=lambda table: (order[table.facts[0]], arms.ARMS.index(table.arms[0])))
    table = join_tables(tables)
    write_bytes(path, json.dumps({**content, **arms.numbers(table)}, indent=1, default=str).encode())
    print(f"\n{arms.markdown(table)}\n\n{table.verdict}\n")


def recount_paper(facts: wb.FactSet) -> None:
    """Reports by the paper's recipe and the default, and their summary."""
    path = FOLDER / "paper.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for fact, by_name in content.items():
        if fact == "code":
            continue
        for name, arm in by_name.items():
            file = FOLDER / "paper" / f"{fact}-{name}.json"
            report = counted_report(EvalReport.load(file), facts)
            report.save(file)
            arm["loosely"] = paper.shown(wb.lenient_rates(report, facts))
            arm["strictly"] = paper.shown({rate: report.rate(rate) for rate in paper.STRICT})
            print(f"{name}\n{report.summary().to_string()}")
    write_bytes(path, json.dumps(content, indent=1).encode())


def recount_probes() -> None:
    """Rates of the probes that notebook 04 reads."""
    for path in sorted((FOLDER / "soft_forgetting").glob("*/probes.json")):
        report = wb.ProbeReport.load(path)
        rates = rates_of_probes(report.rows, report.stages, seed=report.seed or 0)
        replace(report, rates=rates).save(path)


def recount_edit_quality() -> None:
    """The summary of edits of test facts."""
    path, results = FOLDER / "edit_quality.json", results_of("edit_quality")
    content = json.loads(path.read_text(encoding="utf-8"))
    arguments = content["arguments"]
    edits: dict[int, list[str]] = {}
    for name in results:
        if (found := re.fullmatch(r".+-(\d+)", name)) is not None:
            edits.setdefault(int(found[1]), []).append(name)
    france = f"france-capital-{arguments['one_fit'][0]}"
    drawn = {
        seed: [n for n in names if n != france or len(names) == arguments["facts"]] for seed, names in edits.items()
    }
    one_fit = [results[name] for seed in arguments["one_fit"] for name in drawn[seed]]
    firsts = [results[name] for seed in arguments["default"] for name in drawn[seed]]
    second = {name.removesuffix("-harder"): one for name, one in results.items() if name.endswith("-harder")}
    order = list(content["second fits"]["rates"])
    pairs = sorted(
        ((results[name], one) for name, one in second.items()), key=lambda pair: order.index(pair[1]["fact"])
    )

    def returned(first: dict[str, Any]) -> dict[str, Any]:
        harder = second.get(f"{first['fact']}-{first['seed']}")
        return first if harder is None or (harder["learned"] or 0) < first["learned"] else harder

    known = {k: content[k] for k in ("code", "model") if k in content}
    edit_quality.write_summary(
        path, arguments, known, results[france], one_fit, [returned(first) for first in firsts], firsts, pairs
    )


def recount_frontier() -> None:
    """Rates by number of gates and strength."""
    path, results = FOLDER / "frontier.json", results_of("frontier")
    content = json.loads(path.read_text(encoding="utf-8"))
    for one in content:
        name = "bfloat16" if one["fact"] is None else f"{one['fact']}-{one['neurons']}"
        views = results[name]["rates"]
        one["rates"] = {view: {k: vars_of(r) for k, r in rates_of(results[name], view).items()} for view in views}
    write_bytes(path, json.dumps(content, indent=1).encode())


def recount_tune() -> None:
    """The tables of docs/results/levers.md and docs/results/speed.md, which have no summary on file."""
    results = results_of("tune")

    def found(configs: Sequence[str], facts: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
        names = {config: {fact: f"{tune.short_name(config)}-{fact}" for fact in facts} for config in configs}
        return {c: {fact: results[name] for fact, name in of.items() if name in results} for c, of in names.items()}

    print(f"\n{tune.page(found(['default', *tune.PAGE], ['time-unit']))}\n")
    of_fact = [name.removeprefix("default-") for name in results if name.startswith("default-")]
    for config in ("quick", "quick, from layer 7 on", "quicker", "8000 neurons", "8000 neurons, learn twice as long"):
        both = found(["default", config], of_fact)
        both["default"] = {fact: one for fact, one in both["default"].items() if fact in both[config]}
        rates = {rate: tune.minus_default(both, config, rate) for rate in tune.SHOWN}
        print(line(f"{config} minus the default, {len(both[config])} facts", rates, tune.SHOWN))
        print(line(config, {rate: over_facts([*both[config].values()], rate) for rate in tune.SHOWN}, tune.SHOWN))


def results_of(name: str) -> dict[str, dict[str, Any]]:
    """The results of a benchmark on file, by name."""
    return {name: one.result for name, one in Store(FOLDER / f"{name}.jsonl.xz").lines().items()}


def main() -> None:
    """Count, print, write."""
    facts = wb.load_facts()
    recount_arms(facts)
    recount_paper(facts)
    recount_probes()
    recount_edit_quality()
    recount_frontier()
    recount_tune()


if __name__ == "__main__":
    main()
