"""The whole loop without a browser: trace, attribute, select, unlearn, learn, evaluate, save, report."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from workbench.editing.methods.table import Recipe
from workbench.editing.rewrite import rewrite
from workbench.evaluation.answering import Answering, Ask, Reply
from workbench.evaluation.evaluate import answer_probabilities, evaluate
from workbench.facts.known import known_facts, load_facts
from workbench.files.atomic import write_bytes
from workbench.models.bundled import bundled_file
from workbench.models.load import LoadedModel, load_model
from workbench.plots.report_sections import Loop, rates_table, write_loop_page
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import causal_trace
from workbench.types import BaseRecipe, Edit, EvalReport, Fact, Step

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
LENGTHS = {"trace": 2.0, "attribute": 2.0, "select": 20.0, "step": 2.5, "evaluate": 10.0, "prompt": 0.2, "report": 2.0}
"""How long the parts take relative to each other, a step of a fit and a control among them: seconds of one run
(``benchmarks/first_run.py``). How fast it goes is measured anew in every run."""
CLEAR = "\r\x1b[K"
"""To the beginning of a terminal's line, and clear it."""
CONTROLS_GUESSED = 300
"""Controls and neighbours of a fact where all are asked, before they are counted."""


class Pace:
    """Says on a stream what is being done, and how long the rest takes: as long as the work so far, for the work left.

    On a terminal it is one line that is written over and goes in the end; else a line a part, and one now and then.

    Args:
        lengths: The parts in order, with how long each takes relative to the others.
        stream: Where it is said.
        clock: Gives seconds.

    Attributes:
        seconds: What each part that is done took.
    """

    def __init__(
        self,
        lengths: Mapping[str, float],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.lengths = dict(lengths)
        self.seconds: dict[str, float] = {}
        self._stream, self._clock = sys.stderr if stream is None else stream, clock
        self._began = self._part_began = clock()
        self._part, self._told = "", -math.inf

    def __enter__(self) -> Pace:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        if self._live:
            self._stream.write(CLEAR)
            self._stream.flush()

    def begin(self, name: str, length: float | None = None) -> None:
        """Go on to a part, which ends the one before. Parts before it that never began are left out; one with a length
        comes on top."""
        self._end()
        before = [*self.lengths][: [*self.lengths].index(name)] if name in self.lengths else []
        for skipped in set(before) - set(self.seconds):
            del self.lengths[skipped]
        if length is not None:
            self.lengths[name] = length
        self._part, self._part_began = name, self._clock()
        self._tell(0.0, "", always=True)

    def _end(self) -> None:
        if self._part:
            self.seconds[self._part] = self._clock() - self._part_began
            self._part = ""

    def at(self, fraction: float, words: str = "") -> None:
        """Say how far the part is, from 0 to 1, and in words."""
        self._tell(fraction, words)

    def left(self, fraction: float) -> float | None:
        """Seconds that the rest takes at the speed so far, at this fraction of the part; None while nothing is done."""
        done = sum(self.lengths[name] for name in self.seconds) + fraction * self.lengths[self._part]
        if not done:
            return None
        return (self._clock() - self._began) * (sum(self.lengths.values()) - done) / done

    @property
    def _live(self) -> bool:
        return self._stream.isatty()

    def _tell(self, fraction: float, words: str, *, always: bool = False) -> None:
        now = self._clock()
        if not always and now - self._told < (0.2 if self._live else 15):
            return
        self._told = now
        left = self.left(fraction)
        rest = "" if left is None else f", about {duration(left)} left"
        of = f"[{len(self.seconds) + 1}/{len(self.lengths)}] {WORDS[self._part]}"
        line = f"{of}{f' ({words})' if words else ''}{rest}"
        self._stream.write(f"{CLEAR}{line}" if self._live else f"{line}\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """Seconds in words, to five seconds from ten on: more would only flicker."""
    whole = math.ceil(seconds)
    if whole > 10:
        whole = 5 * math.ceil(seconds / 5)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60} s"


def lengths_of(recipe: BaseRecipe, max_controls: int | None) -> dict[str, float]:
    """The parts of a run with how long they take relative to each other."""
    prompts = CONTROLS_GUESSED if max_controls is None else max_controls
    return {
        "trace": LENGTHS["trace"],
        "attribute": LENGTHS["attribute"],
        "select": LENGTHS["select"],
        "fit": LENGTHS["step"] * max(sum(recipe.stage_steps), 1),
        "evaluate": LENGTHS["evaluate"] + LENGTHS["prompt"] * prompts,
        "report": LENGTHS["report"],
    }


class _FollowedFit:
    """Tells a pace of the steps of a fit; a second fit begins at the first stage's step 0 again."""

    def __init__(self, pace: Pace, recipe: BaseRecipe) -> None:
        self._pace, self._stages, self._steps = pace, recipe.stage_names, recipe.stage_steps
        self._fits = 0

    def __call__(self, step: Step) -> None:
        if step.stage == self._stages[0] and step.step == 0:
            self._fits += 1
            if self._fits == 1:
                self._pace.begin("fit")
            else:
                *before, last = self._steps
                longer = (*before, 2 * last)  # as ``workbench.editing.methods.ia3.harder``
                self._pace.begin("fit again", self._pace.lengths["fit"] * sum(longer) / sum(self._steps))
                self._steps = longer
        at = self._stages.index(step.stage)
        done = sum(self._steps[:at]) + step.step
        self._pace.at(done / sum(self._steps), f"{step.stage}, step {step.step} of {self._steps[at]}")


class _FollowedAnswers(Answering):
    """Answers as ever, and tells a pace of each model that has answered."""

    def __init__(self, base: LoadedModel, pace: Pace, models: int) -> None:
        super().__init__(base)
        self._pace, self._models, self._asked = pace, models, 0

    def replies(self, model: LoadedModel, asks: Sequence[Ask], progress: Any = None, **options: Any) -> list[Reply]:
        self._pace.at(self._asked / self._models, f"model {self._asked + 1} of {self._models}, {len(asks)} prompts")
        self._asked += 1
        return super().replies(model, asks, progress, **options)


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
        max_controls: Draw at most so many controls, and at most so many neighbours; None for all.
        seed: Of the fit and the draw.

    Raises:
        KeyError: An unknown fact id, with near matches.
        ValueError: An unknown recipe, or the model does not know the fact.
        FileNotFoundError: The bundled model is not installed; the message has the command that installs it.
        OSError: The folder cannot be made; nothing was computed then.
    """
    fact = load_facts()[fact_id]
    settings = Recipe.named(recipe, seed=seed)
    bundled_file()
    out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be is an error now, not after minutes of work
    model = load_model()
    print(model)
    print(f"Fact {fact.id}: {fact.question} {fact.answer} -> {fact.target}\n", flush=True)
    with Pace(lengths_of(settings, max_controls)) as pace:
        loop = _run(model, fact, settings, max_controls, pace)
        pace.begin("report")
        loop.edit.save(out / "edit")
        write_loop_page(loop, out / "report.html")
    summary = _summary(loop, pace.seconds)
    write_bytes(out / "report.json", json.dumps(summary, ensure_ascii=False, indent=1).encode())
    _tell(loop, pace.seconds, out)
    return loop.report


def _run(model: LoadedModel, fact: Fact, recipe: BaseRecipe, max_controls: int | None, pace: Pace) -> Loop:
    """Everything that is computed. Arguments as in ``run_demo``."""
    pace.begin("trace")
    trace = causal_trace(model, fact, corruption="swap", metric="logit_diff", progress=False)
    pace.begin("attribute")
    maps = attribute(model, fact, unit=("head", "mlp", "neuron"), progress=False)
    pace.begin("select")
    edit = rewrite(model, fact, recipe=recipe, on_step=_FollowedFit(pace, recipe), progress=False)
    pace.begin("evaluate")
    report = evaluate(
        model,
        edit=edit,
        max_controls=max_controls,
        answering=_FollowedAnswers(model, pace, 1 + len(edit.stages)),
        collateral=True,
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
        code=code_for(fact, recipe, max_controls),
        sample=sample_words(model, edit, report),
    )


def sample_words(model: LoadedModel, edit: Edit, report: EvalReport) -> str:
    """How many of the known controls were asked, in words."""
    pool = load_facts()
    touched = [*edit.facts, *(fact for fact in pool if fact.id in edit.retain_ids)]
    known = len(known_facts(model, pool.without(touched).filter(split="test"), progress=False))
    asked = len({row.fact_id for row in report.rows if row.group == "control"})
    drawn = (
        f"{asked} of the {known} known test facts, drawn by seed" if asked < known else f"all {known} known test facts"
    )
    return f"Controls: {drawn}."


def _tell(loop: Loop, seconds: Mapping[str, float], out: Path) -> None:
    """Print what came of it, and what to look at next."""
    print(f"{rates_table(loop.report).to_string()}\n\n{loop.sample}")
    for line in loop.report.missing:
        print(f"Not measured: {line}.")
    print(f"\n{loop.report.answers().drop(columns='fact_id').to_string(index=False, max_colwidth=60)}")
    print(f"\n{sum(seconds.values()):.0f} s. Wrote {out / 'edit'}, {out / 'report.json'} and {out / 'report.html'}.")
    print(
        f"Next: open {out / 'report.html'} in a browser; `workbench lab` (or `make lab`) is the same by clicking, "
        "`--full` asks all controls, `--fact` takes another fact (`workbench facts` lists them)."
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
