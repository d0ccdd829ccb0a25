"""The whole loop without a browser: trace, attribute, select, unlearn, learn, evaluate, save, report."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from workbench.editing.methods.table import Recipe
from workbench.editing.rewrite import rewrite
from workbench.evaluation.evaluate import answer_probabilities, evaluate
from workbench.facts.known import load_facts
from workbench.files.atomic import write_bytes
from workbench.models.load import load_model
from workbench.plots.report_sections import Loop, rates_table, write_loop_page
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import causal_trace
from workbench.types import BaseRecipe, Edit, EvalReport, Fact


def code_for(fact: Fact, recipe: BaseRecipe, max_controls: int | None) -> str:
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
    loop = Loop(
        fact=fact,
        model=repr(model),
        maps=(trace, *maps.values()),
        edit=edit,
        probabilities=probabilities,
        report=report,
        code=code_for(fact, settings, max_controls),
    )
    write_loop_page(loop, out / "report.html")
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
