"""The training loop that every fit shares: the same rows, the same loss, the same checks, whatever is trained.

The IA3 method trains gates with it, the other methods whole weights or low-rank factors.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch

from workbench.editing.training.batching import (
    Prepared,
    PreparedRow,
    Shuffled,
    hardest_batches,
    left_batches,
    retain_batches,
    shared_prefix,
)
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.learned import ByFact, LearnedLevel, StageEnd
from workbench.editing.training.objectives import Forgotten, Given, Goal
from workbench.editing.training.passes import Passes, answer_nll
from workbench.editing.training.retained_kl import RetainedKL
from workbench.editing.training.rows import Row
from workbench.editing.training.sensitivity import FisherMeasurement
from workbench.editing.training.step_loss import StageLoss, StepLoss
from workbench.editing.training.trainable import IterateAverage, Trainable
from workbench.models.engine import Resumable
from workbench.types import StageName, Step, TrainedRecipe
from workbench.types.cancelling import CancelFlag, Cancelled, check_cancel

MONITOR_EVERY = 5


class NonFiniteLoss(ArithmeticError):
    """The loss became NaN or infinite; the model is as it was and no edit was made."""


class Training:
    """Trains the stages of one fit. Everything that it changes belongs to what it is given to train.

    Args:
        rows: What is taught, and what is held in place.
        recipe: The settings; ``rows`` were made for it, or for one that differs in ``steps`` alone.
        start: The lowest layer that is trained: everything below is computed once.
        fisher: The Fisher information that the optimiser takes, if it takes any: the KL's reference is of the same pass
            where that has begun at ``start``, on the same retained rows.
        on_step, cancel: As in ``rewrite``.

    Attributes:
        history: What was measured at every step so far.
        monitored: The first fact's bare question with the old answer, the target and the refusal, by a ``Step``'s
            names.
        near, far: Retained rows: of neighbours, of others.
        wanted: By stage, the rows that it teaches, of each fact.
        base: Passes of the base model.
        retained_kl: Measures the KL on the retained rows.

    Raises:
        ValueError: The recipe needs retained rows, and there are none.
    """

    def __init__(
        self,
        rows: FitRows,
        recipe: TrainedRecipe,
        start: int,
        *,
        fisher: FisherMeasurement | None = None,
        on_step: Callable[[Step], Any] | None = None,
        cancel: CancelFlag | None = None,
    ) -> None:
        self.model, self.facts, self.recipe, self.start = rows.model, rows.facts, recipe, start
        self.on_step, self.cancel = on_step, cancel
        self.history: list[Step] = []
        self.reached: dict[str, float] = {}
        self._began = time.perf_counter()
        retained, monitored = rows.retained, rows.monitored
        wanted = [of_fact for stage in recipe.stages for of_fact in rows.wanted(stage)]
        every: list[Row] = [row for group in ([*monitored.values()], *retained, *wanted) for row in group]
        engine = Resumable(self.model)
        self.base = Passes(engine, Prepared(engine, every, start, shared_prefix(every), cancel=cancel))
        left = iter(self.base.prepared.rows)
        self.monitored = dict(zip(monitored, islice(left, len(monitored)), strict=True))
        self.near, self.far = ([*islice(left, len(kind))] for kind in retained)
        self.wanted: dict[StageName, ByFact] = {
            stage: [[*islice(left, len(of_fact))] for of_fact in rows.wanted(stage)] for stage in recipe.stages
        }
        hidden = None if fisher is None else fisher.hidden_of(retained, start)
        hardest = recipe.retain_draw == "half hardest"
        self.retained_kl = RetainedKL(self.base, [*self.near, *self.far], hidden, keep_latest=hardest, cancel=cancel)

    @property
    def n_retain(self) -> int:
        """How many retained rows there are."""
        return len(self.near) + len(self.far)

    def stage(
        self,
        stage: StageName,
        steps: int,
        trainable: Trainable,
        bar: Any,
        stop: Callable[[int], bool] | None = None,
        own_loss: StageLoss | None = None,
    ) -> int:
        """Train one stage; returns how many steps it took.

        Args:
            stage, steps: Its name, and the most steps.
            trainable: What it trains. Its parameters require gradients while the stage runs.
            bar: A tqdm bar.
            stop: Called after each step with the steps done; True ends the stage there, at its last step's values.
            own_loss: The stage's loss where it is not that of answers.

        Raises:
            Cancelled: ``cancel`` was set or ``on_step`` returned False.
            NonFiniteLoss: The loss became NaN or infinite.
        """
        passes = Passes(Resumable(self.model, trainable.view), self.base.prepared)
        wanted = [row for rows in self.wanted[stage] for row in rows]
        goal, by_fact = self.goal_of(stage)
        loss: StageLoss = own_loss or StepLoss(passes, goal, self.retained_kl, self.recipe.retain_weight)
        goal = loss.goal
        end = StageEnd(self.recipe, steps, len(wanted), by_fact)
        average = IterateAverage(trainable.parameters)
        batches = self._batches(stage, wanted, loss)
        fact_rows: Sequence[PreparedRow] = ()
        retain_rows: Sequence[PreparedRow] = ()
        done, stopped = 0, False
        with trainable.requiring_gradients():
            for step in range(steps):
                check_cancel(self.cancel, f"in stage {stage!r} before step {step}")
                fact_rows, retain_rows = next(batches)
                trainable.clear_gradients()
                nll, kl = loss.backward(fact_rows, retain_rows, end.learned)
                measured = self._finite(float(nll.mean()), float(kl), stage, step, trainable.rate)
                end.saw(step, fact_rows, goal.confidence(nll).tolist())
                if step == end.step:
                    break
                monitored = self._monitor(passes) if step % MONITOR_EVERY == 0 else {}
                self._record(Step(stage, step, *measured, **monitored), bar)
                trainable.update(min((step + 1) / (self.recipe.warmup + 1), 1.0))
                if step >= end.step - end.tail:
                    average.add()
                done = step + 1
                bar.update()
                stopped = stop is not None and stop(done)
                if stopped:
                    break
            if not stopped:
                average.put()
                level = LearnedLevel(wanted, by_fact, loss.confidence)
                if trainable.at_end is not None:
                    trainable.at_end(level)
                self.reached[stage] = level.first
        measured = self._finite(*loss.measure(fact_rows, retain_rows), stage, done, trainable.rate)
        self._record(Step(stage, done, *measured, **self._monitor(passes)), None)
        return done

    def goal_of(self, stage: StageName) -> tuple[Goal, ByFact]:
        """What a stage wants of its rows, and of each fact those that count.

        Where an answer is to be forgotten, those count after which the base gives it: what was never said does not show
        how far it is forgotten.

        Raises:
            ValueError: The stage is to forget an answer that the base never gives.
        """
        recipe = self.recipe
        if not recipe.forgets(stage):
            return Given(recipe.hinge), self.wanted[stage]
        wanted = [row for rows in self.wanted[stage] for row in rows]
        with torch.no_grad():
            prefix = self.base.prefix()
        base = dict(zip(wanted, self.base.nll(wanted, prefix).tolist(), strict=True))
        goal = Forgotten(recipe.objective, recipe.hinge, base, {row: len(row.row.counted) for row in wanted})
        by_fact = [[row for row in rows if not goal.reached(base[row])] for rows in self.wanted[stage]]
        if not any(by_fact):
            answers = ", ".join(repr(f.answer) for f in self.facts)
            raise ValueError(
                f"{recipe.forgetting} has nothing to forget: after none of the {len(base)} training "
                f"prompts does the model give {answers} a probability above {1 - (recipe.hinge or 1.0):.2g}. Choose "
                f"a fact that it knows, raise hinge, or {recipe.otherwise}."
            )
        return goal, [rows for rows in by_fact if rows]

    def _batches(
        self, stage: StageName, wanted: Sequence[PreparedRow], loss: StageLoss
    ) -> Iterator[tuple[list[PreparedRow], list[PreparedRow]]]:
        """Endless batches of fact rows and retained rows."""
        recipe = self.recipe
        seed = random.Random(f"{recipe.seed}-{stage}").randrange(2**31)
        near, far = (self.near, self.far) if recipe.retains(stage) else ([], [])
        if recipe.retain_draw == "half hardest":
            retained = hardest_batches(near, far, recipe.retain_batch_size, seed + 1, self.retained_kl.latest)
        else:
            retained = retain_batches(near, far, recipe.retain_batch_size, seed + 1)
        if not recipe.only_unforgotten or not recipe.forgets(stage):
            return zip(Shuffled(wanted, recipe.batch_size, seed), retained, strict=False)
        least = recipe.hinge or 1.0
        forgotten = lambda: {row for row, share in loss.confidence(wanted).items() if share >= least}  # noqa: E731
        return zip(left_batches(wanted, recipe.batch_size, seed, forgotten), retained, strict=False)

    def _record(self, step: Step, bar: Any) -> None:
        """Add a step to the history, and show it to who watches."""
        self.history.append(step)
        if bar is not None:
            bar.set_postfix(stage=step.stage, loss=f"{step.loss:.2f}", kl=f"{step.kl:.3f}", refresh=False)
        if self.on_step is not None and self.on_step(step) is False:
            raise Cancelled(
                f"Cancelled by on_step in stage {step.stage!r} at step {step.step}; the model is as it was."
            )

    def _monitor(self, passes: Passes) -> dict[str, float]:
        """Probabilities of the monitored answers, and the seconds since the fit began, by a ``Step``'s names."""
        rows = [*self.monitored.values()]
        with torch.no_grad():
            logits = passes.logits(rows, passes.prefix())
            probabilities = (-answer_nll(logits, rows)).exp().tolist()
        return {
            **dict(zip(self.monitored, probabilities, strict=True)),
            "seconds": time.perf_counter() - self._began,
        }

    def _finite(self, loss: float, kl: float, stage: str, step: int, rate: float) -> tuple[float, float]:
        """The two as they are; a NonFiniteLoss where one is no number."""
        if not math.isfinite(loss + kl):
            raise NonFiniteLoss(
                f"The loss is {loss!r} and the KL {kl!r} at step {step} of stage {stage!r}. Lower learning_rate (now "
                f"{rate}); the model is as it was."
            )
        return loss, kl
