"""The whole loop without a browser: trace, attribute, select, unlearn, learn, evaluate, save, report."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.editing.recipes import Recipe
from workbench.editing.rewrite import rewrite
from workbench.evaluation.evaluate import answer_probabilities, evaluate
from workbench.facts.known import load_facts
from workbench.files.atomic import write_bytes
from workbench.models.load import load_model
from workbench.plots import probabilities_figure
from workbench.plots.page import Code, write_html_report
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import causal_trace
from workbench.types import Edit, EvalReport, Fact, Group
from workbench.types.rates import RATES

SHOWN = [name for name in RATES if name not in ("refusal", "train_new")]


FOLLOWS: dict[Group, str] = {
    "reversed": "Asked backwards, from the old answer",
    "reversed_target": "Asked backwards, from the new answer",
    "twohop": "What follows from the fact, in two hops",
}


def has(report: EvalReport, group: Group) -> bool:
    """Whether anything was asked of this group."""
    return any(row.group == group for row in report.rows)


def rates_table(report: EvalReport) -> pd.DataFrame:
    """The report's rates in words, one column per stage."""
    table = report.summary().loc[SHOWN]
    return table.rename(index={name: rule.words for name, rule in RATES.items()}).rename_axis("rate (95% interval, n)")


def code_for(fact: Fact, recipe: Recipe, max_controls: int | None) -> str:
    """The Python that repeats the demo."""
    return (
        "import workbench as wb\n\n"
        "model = wb.load_model()\n"
        f"fact = wb.load_facts()[{fact.id!r}]\n"
        "trace = wb.causal_trace(model, fact, corruption='swap', metric='logit_diff')\n"
        "maps = wb.attribute(model, fact, unit=('head', 'mlp', 'neuron'))\n"
        f"edit = wb.rewrite(model, fact, recipe=wb.Recipe.named({recipe.name!r}, seed={recipe.seed}))\n"
        "probabilities = wb.answer_probabilities(model, fact, edit=edit)\n"
        f"report = wb.evaluate(model, edit=edit, max_controls={max_controls}, collateral=True, seed={recipe.seed})\n"
    )


def run_demo(
    fact_id: str, out: Path, *, recipe: str = "unlearn-then-learn", max_controls: int | None = None, seed: int = 0
) -> EvalReport:
    """Run the loop on the bundled model and write ``edit/``, ``report.json`` and ``report.html`` into a folder.

    Args:
        fact_id: A bundled fact that the model knows.
        out: The folder; made if it is not there.
        recipe: A built-in recipe's name.
        max_controls: Draw at most so many controls; None for all.
        seed: Of the fit and the draw.

    Raises:
        KeyError: An unknown fact id, with near matches.
        ValueError: An unknown recipe, or the model does not know the fact.
        OSError: The folder cannot be made; nothing was computed then.
    """
    fact = load_facts()[fact_id]
    settings = Recipe.named(recipe, seed=seed)
    out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be is an error now, not after minutes of work
    model = load_model()
    print(model)
    print(f"Fact {fact.id}: {fact.question} {fact.answer} -> {fact.target}\n")
    began = time.perf_counter()
    trace = causal_trace(model, fact, corruption="swap", metric="logit_diff")
    maps = attribute(model, fact, unit=("head", "mlp", "neuron"))
    edit = rewrite(model, fact, recipe=settings)
    probabilities = answer_probabilities(model, fact, edit=edit)
    report = evaluate(model, edit=edit, max_controls=max_controls, collateral=True, seed=seed)
    seconds = time.perf_counter() - began

    table = rates_table(report)
    print(f"\n{table.to_string()}\n")
    for line in report.missing:
        print(f"Not measured: {line}.")
    answers = report.answers()
    print(answers.drop(columns="fact_id").to_string(index=False, max_colwidth=60))
    edit.save(out / "edit")
    summary = json.dumps(_summary(edit, report, probabilities), ensure_ascii=False, indent=1)
    write_bytes(out / "report.json", summary.encode())
    write_html_report(
        out / "report.html",
        title=f"{fact.subject}: {fact.answer} to {fact.target}",
        sections=[
            (
                "The fact",
                [f"{fact.question} The model says {fact.answer}; the edit teaches {fact.target}.", repr(model)],
            ),
            ("Where it is", [trace.plot(), *(one.plot() for one in maps.values())]),
            ("The edit", [repr(edit), edit.plot(), probabilities_figure(probabilities)]),
            ("What it did", [table.reset_index(), report.plot()]),
            ("What was said, held-out questions", [answers]),
            *((words, [report.answers(group)]) for group, words in FOLLOWS.items() if has(report, group)),
            ("What was not measured", list(report.missing) or ["Nothing is missing."]),
            ("The same in Python", [Code(code_for(fact, settings, max_controls))]),
        ],
    )
    print(f"\n{seconds:.0f} s. Wrote {out / 'edit'}, {out / 'report.json'} and {out / 'report.html'}.")
    return report


def _summary(edit: Edit, report: EvalReport, probabilities: Any) -> dict[str, Any]:
    return {
        "fact": edit.facts[0].to_dict(),
        "recipe": edit.recipe.to_dict(),
        "selection": str(edit.selection),
        "probabilities": probabilities,
        "report": report.to_dict(),
        "provenance": edit.provenance,
    }
