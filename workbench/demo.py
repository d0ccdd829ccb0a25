"""The whole loop without a browser: trace, attribute, select, unlearn, learn, evaluate, save, report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.editing.methods.ia3 import harder
from workbench.editing.methods.table import Recipe
from workbench.editing.rewrite import rewrite
from workbench.evaluation.answering import Answering, Ask, Reply
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.probabilities import answer_probabilities
from workbench.facts.known import known_facts, load_facts
from workbench.files.atomic import write_bytes
from workbench.files.paths import user_path
from workbench.models.bundled import bundled_file
from workbench.models.load import LoadedModel, load_model
from workbench.pace import Pace
from workbench.plots.report_sections import Loop, rates_table, write_loop_page
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import causal_trace
from workbench.types import BaseRecipe, Edit, EvalReport, Fact, Step, TrainedRecipe

WORDS = {
    "trace": "tracing the fact, layer by position",
    "attribute": "attributing it to heads, MLPs and neurons",
    "select": "choosing what the edit moves",
    "fit": "fitting the edit",
    "fit again": "the first fit did not teach it: once more, harder",
    "evaluate": "asking base and edited model",
    "report": "writing the report",
}
"""The parts of the demo."""
CONTROLS = 30
"""That are drawn, and at most so many neighbours, unless all are asked for."""
LENGTHS = {
    "trace": 5.0,
    "attribute": 1.0,
    "select": 57.0,
    "step": 4.5,
    "solve": 60.0,
    "model": 8.0,
    "prompt": 0.25,
    "report": 4.0,
}
"""How long the parts take relative to each other, a step of a fit among them, an edit without steps, and of an
evaluation a model and what it is asked. How fast it goes is measured in every run."""
ALL_ASKED = 350
"""What a model is asked where everything is, before it is counted."""


def lengths_of(recipe: BaseRecipe, max_controls: int | None, full: bool) -> dict[str, float]:
    """The parts of a run with how long they take relative to each other."""
    prompts = ALL_ASKED if max_controls is None else 2 * max_controls
    models = 1 + (len(recipe.stage_names) if full else 1)
    return {
        "trace": LENGTHS["trace"],
        "attribute": LENGTHS["attribute"],
        "select": LENGTHS["select"],
        "fit": LENGTHS["step"] * sum(recipe.stage_steps) or (1.0 if recipe.trains == "nothing" else LENGTHS["solve"]),
        "evaluate": models * (LENGTHS["model"] + LENGTHS["prompt"] * prompts),
        "report": LENGTHS["report"],
    }


class _FollowedFit:
    """Tells a pace of the steps of a fit; a second fit, of a method that selects, begins at the first stage's step 0
    again. Of other methods the fit is what goes on when it is made."""

    def __init__(self, pace: Pace, recipe: BaseRecipe) -> None:
        self._pace, self._recipe, self._fits = pace, recipe, 0

    def __call__(self, step: Step) -> None:
        recipe = self._recipe
        if recipe.selects and step.stage == recipe.stage_names[0] and step.step == 0:
            self._fits += 1
            if self._fits == 1:
                self._pace.begin("fit")
            else:
                self._again()
        recipe, of = self._recipe, self._recipe.steps_of(step.stage)
        done = recipe.steps_done(step.stage, step.step) / max(sum(recipe.stage_steps), 1)
        self._pace.at(done, f"{step.stage}, step {step.step}{f' of {of}' if of else ''}")

    def _again(self) -> None:
        """Go on to a second fit, which takes longer by its steps."""
        assert isinstance(self._recipe, TrainedRecipe)  # no other is fitted twice
        steps, self._recipe = sum(self._recipe.stage_steps), harder(self._recipe)
        self._pace.begin("fit again", self._pace.lengths["fit"] * sum(self._recipe.stage_steps) / steps)


class _FollowedAnswers(Answering):
    """Answers as ever, and tells a pace of each model that has answered."""

    def __init__(self, base: LoadedModel, pace: Pace, models: int) -> None:
        super().__init__(base)
        self._pace, self._models, self._asked = pace, models, 0

    def replies(self, model: LoadedModel, asks: Sequence[Ask], progress: Any = None, **options: Any) -> list[Reply]:
        self._pace.at(self._asked / self._models, f"model {self._asked + 1} of {self._models}, {len(asks)} prompts")
        self._asked += 1
        return super().replies(model, asks, progress, **options)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How much of an edit is evaluated.

    Args:
        max_controls: As in ``evaluate``.
        full: Everything of every stage; else the base and the last stage, with two of the training questions (they are
            in no rate of the table), and without the reversed and two-hop questions and ordinary text.
    """

    max_controls: int | None
    full: bool

    @classmethod
    def of(cls, max_controls: int | None, full: bool) -> Asked:
        """With the default number of controls: all where everything is asked, else ``CONTROLS``."""
        return cls(max_controls=CONTROLS if max_controls is None and not full else max_controls, full=full)

    def stages(self, edit: Edit) -> list[str]:
        """The stages that are evaluated, besides the base."""
        return [*edit.stage_names] if self.full else [*edit.stage_names[-1:]]

    def fact(self, fact: Fact) -> Fact:
        """The fact with the questions that are asked."""
        return fact if self.full else replace(fact, paraphrases=fact.paraphrases[:1])

    def code(self, stages: Sequence[str], seed: int) -> str:
        """The Python that evaluates."""
        if self.full:
            options = f"max_controls={self.max_controls}, collateral=True, seed={seed}"
            return f"report = wb.evaluate(model, edit=edit, {options})\n"
        return (
            "asked = dataclasses.replace(fact, paraphrases=fact.paraphrases[:1])  # two of the training questions\n"
            f"report = wb.evaluate(model, asked, edit=edit, stages={list(stages)}, max_controls={self.max_controls}, "
            f"seed={seed})\n"
        )

    def words(self, report: EvalReport, edit: Edit, known: int) -> str:
        """What was asked of what there is, in words.

        Args:
            report: The evaluation.
            edit: The edit.
            known: How many controls there are.
        """
        asked = len({row.fact_id for row in report.rows if row.group == "control"})
        drawn = (
            f"{asked} of {known} known test facts, drawn by seed" if asked < known else f"all {known} known test facts"
        )
        words = f"Controls: {drawn}."
        if self.full:
            return words
        left_out = [stage for stage in edit.stage_names if stage not in report.stages]
        stages = f"the stage {', '.join(left_out)}, " if left_out else ""
        return (
            f"{words} Left out in this short form: {stages}all but two of the training questions, reversed and two-hop "
            "questions, ordinary text (--full asks all of it)."
        )


def code_for(fact: Fact, recipe: BaseRecipe, asked: Asked, stages: Sequence[str]) -> str:
    """The Python that repeats the demo."""
    first = "" if asked.full else "import dataclasses\n\n"
    return (
        f"{first}import workbench as wb\n\n"
        "model = wb.load_model()\n"
        f"fact = wb.load_facts()[{fact.id!r}]\n"
        "trace = wb.causal_trace(model, fact, corruption='swap', metric='logit_diff')\n"
        "maps = wb.attribute(model, fact, unit=('head', 'mlp', 'neuron'))\n"
        f"edit = wb.rewrite(model, fact, recipe=wb.Recipe.named({recipe.name!r}, seed={recipe.seed}))\n"
        "probabilities = wb.answer_probabilities(model, fact, edit=edit)\n" + asked.code(stages, recipe.seed)
    )


def run_demo(
    fact_id: str,
    out: str | Path,
    *,
    recipe: str = "unlearn-then-learn",
    max_controls: int | None = None,
    seed: int = 0,
    full: bool = False,
) -> EvalReport:
    """Run the loop on the bundled model and write ``edit/``, ``report.json`` and ``report.html`` into a folder.

    Args:
        fact_id: A bundled fact that the model knows.
        out: The folder; made if it is not there.
        recipe: A built-in recipe's name.
        max_controls: Draw at most so many controls, and at most so many neighbours; None for ``CONTROLS``, or for all
            with ``full``.
        seed: Of the fit and the draw.
        full: Evaluate every stage, and all that ``evaluate`` can ask (see ``Asked``). The edit is the same.

    Raises:
        KeyError: An unknown fact id, with near matches.
        ValueError: An unknown recipe, or the model does not know the fact.
        FileNotFoundError: The bundled model is not installed; the message has the command that installs it.
        OSError: The folder cannot be made; nothing was computed then.
    """
    fact = load_facts()[fact_id]
    settings = Recipe.named(recipe, seed=seed)
    asked = Asked.of(max_controls, full)
    bundled_file()
    out = user_path(out)
    out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be is an error now, not after minutes of work
    model = load_model()
    print(model)
    print(f"Fact {fact.id}: {fact.question} {fact.answer} -> {fact.target}\n", flush=True)
    with Pace(lengths_of(settings, asked.max_controls, full), WORDS) as pace:
        loop = _run(model, fact, settings, asked, pace)
        pace.begin("report")
        loop.edit.save(out / "edit")
        write_loop_page(loop, out / "report.html")
    summary = _summary(loop, pace.seconds)
    write_bytes(out / "report.json", json.dumps(summary, ensure_ascii=False, indent=1).encode())
    _tell(loop, pace.seconds, out)
    return loop.report


def _run(model: LoadedModel, fact: Fact, recipe: BaseRecipe, asked: Asked, pace: Pace) -> Loop:
    """Everything that is computed. Arguments as in ``run_demo``."""
    pace.begin("trace")
    trace = causal_trace(model, fact, corruption="swap", metric="logit_diff", progress=False)
    pace.begin("attribute")
    maps = attribute(model, fact, unit=("head", "mlp", "neuron"), progress=False)
    pace.begin("select" if recipe.selects else "fit")
    edit = rewrite(model, fact, recipe=recipe, on_step=_FollowedFit(pace, recipe), progress=False)
    pace.begin("evaluate")
    stages = asked.stages(edit)
    report = evaluate(
        model,
        asked.fact(fact),
        edit=edit,
        stages=stages,
        max_controls=asked.max_controls,
        answering=_FollowedAnswers(model, pace, 1 + len(stages)),
        collateral=asked.full,
        seed=recipe.seed,
        progress=False,
    )
    return Loop(
        fact=fact,
        model=repr(model),
        maps=(trace, *maps.values()),
        edit=edit,
        probabilities=answer_probabilities(model, fact, edit=edit),
        report=report,
        code=code_for(fact, recipe, asked, stages),
        sample=asked.words(report, edit, n_controls(model, edit)),
    )


def n_controls(model: LoadedModel, edit: Edit) -> int:
    """How many known test facts there are beside an edit."""
    pool = load_facts().core
    touched = [*edit.facts, *(fact for fact in pool if fact.id in edit.used_ids)]
    return len(known_facts(model, pool.without(touched).filter(split="test"), progress=False))


def _tell(loop: Loop, seconds: Mapping[str, float], out: Path) -> None:
    """Print what came of it, and what to look at next."""
    print(f"{rates_table(loop.report).to_string()}\n\n{loop.sample}")
    for line in loop.report.missing:
        print(f"Not measured: {line}.")
    print(f"\n{loop.report.answers().drop(columns='fact_id').to_string(index=False, max_colwidth=60)}")
    print(f"\n{sum(seconds.values()):.0f} s. Wrote {out / 'edit'}, {out / 'report.json'} and {out / 'report.html'}.")
    print(
        f"Next: open {out / 'report.html'} in a browser; `workbench lab` (or `make lab`) is the same by clicking, "
        "`--full` asks everything, `--fact` takes another fact (`workbench facts` lists them)."
    )


def _summary(loop: Loop, seconds: Mapping[str, float]) -> dict[str, Any]:
    edit = loop.edit
    return {
        "fact": edit.facts[0].to_dict(),
        "recipe": edit.recipe.to_dict(),
        "selection": str(edit.selection),
        "probabilities": loop.probabilities,
        "sample": loop.sample,
        "report": loop.report.to_dict(),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "provenance": edit.provenance,
    }
