"""The training loop that every fit shares: the same rows, the same loss, the same checks, whatever it is that moves.

``rewrite`` moves IA3 gates with it; ``workbench.editing.baselines`` moves whole weights or a LoRA, to compare with.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from workbench.editing.training.batching import Prepared, Shuffled, retain_batches, shared_prefix
from workbench.editing.training.fit_rows import retain_rows, wanted_rows
from workbench.editing.training.objectives import Forgotten, Given, Goal
from workbench.editing.training.optimisers import Optimiser
from workbench.editing.training.rows import Row, around_old, chat_row, named_row, refused_row
from workbench.editing.training.sensitivity import hidden_states
from workbench.language.answers import counterpart
from workbench.language.generation import greedy_answers
from workbench.language.prompts import prompt_ids
from workbench.models.engine import KeysValues, Resumable
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet, Recipe, StageName, Step
from workbench.types.cancelling import CancelFlag, Cancelled, check_cancel

MONITOR_EVERY = 5


class NonFiniteLoss(ArithmeticError):
    """The loss became NaN or infinite; the model is as it was and no edit was made."""


def _check_finite(loss: float, kl: float, stage: str, step: int, rate: float) -> None:
    """Raise a NonFiniteLoss for what is no number."""
    if not math.isfinite(loss + kl):
        raise NonFiniteLoss(
            f"The loss is {loss!r} and the KL {kl!r} at step {step} of stage {stage!r}. Lower learning_rate (now "
            f"{rate}); the model is as it was."
        )


def lower_quartile(values: Iterable[float]) -> float:
    """The value that a quarter of the values fall short of."""
    ordered = sorted(values)
    return ordered[len(ordered) // 4]


def _nothing() -> None:
    """For what a step leaves as it is."""


@dataclass(frozen=True, kw_only=True)
class Moving:
    """What one stage trains.

    Args:
        view: The view of the model that carries the parameters.
        parameters: What moves, by name.
        optimiser: Moves it by its gradients.
        rate: The optimiser's learning rate.
        after_backward: Called before each update, to take out gradients that are not wanted.
        after_step: Called after each update, to keep what moves in bounds.
        at_end: Called when the stage has run to its end, with what measures how well its rows are learned then.
    """

    view: Any
    parameters: Mapping[str, nn.Parameter]
    optimiser: Optimiser
    rate: float
    after_backward: Callable[[], None] = _nothing
    after_step: Callable[[], None] = _nothing
    at_end: Callable[[Level], None] | None = None


class Mean:
    """The mean of parameters over the steps at which it is asked to ``add`` them.

    Source: averaging of iterates, Polyak & Juditsky 1992; of a network's weights, Izmailov et al. 2018 (1803.05407).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters, self._n = parameters, 0
        self._values: dict[str, Tensor] = {}

    def add(self) -> None:
        """Take the parameters as they are now into the mean."""
        self._n += 1
        for name, p in self._parameters.items():
            value = self._values.setdefault(name, torch.zeros_like(p, requires_grad=False))
            value += (p.detach() - value) / self._n

    def put(self) -> None:
        """Give the parameters the mean as their value; without any ``add`` they stay."""
        with torch.no_grad():
            for name, value in self._values.items():
                self._parameters[name].copy_(value)


class Training:
    """Rows, loss and loop of one fit. Everything that it changes belongs to what it is given to move.

    Args:
        model: The base model.
        facts, recipe, retain: What is taught, how, and what is held in place.
        start: The lowest layer that moves: everything below is computed once.
        on_step, cancel: As in ``rewrite``.
    """

    def __init__(
        self,
        model: LoadedModel,
        facts: Sequence[Fact],
        recipe: Recipe,
        retain: FactSet,
        start: int,
        *,
        on_step: Callable[[Step], Any] | None,
        cancel: CancelFlag | None,
    ) -> None:
        self.model, self.facts, self.recipe, self.start = model, facts, recipe, start
        self.on_step, self.cancel = on_step, cancel
        self.history: list[Step] = []
        self._began = time.perf_counter()
        self._base = Resumable(model)
        near, far = retain_rows(model, list(retain), facts) if recipe.uses_retain else ([], [])
        rows = [*near, *far]
        if recipe.optimiser == "natural" and not rows:
            raise ValueError(
                "optimiser='natural' weighs every move by what retained answers need, but the retain set is empty. "
                "Give retain=[...] (or a pool with role='retain'), or use a recipe with optimiser='adam' and "
                "retain_weight=0."
            )
        if recipe.uses_retain and not rows:
            raise ValueError(
                f"retain_weight={recipe.retain_weight:g} weighs the KL on a retain set, but the retain set is empty. "
                "Give retain=[...] (or a pool with role='retain'), or use a recipe with retain_weight=0."
            )
        self.retained = (near, far)
        self.n_retain = len(rows)
        monitored = self._monitored()
        self._monitor_names = [name for name, _ in monitored]
        self._monitor = range(len(monitored))
        everything = [r for _, r in monitored]
        self._retain = range(len(everything), len(everything) + len(rows))
        self._near, self._far = self._retain[: len(near)], self._retain[len(near) :]
        everything += rows
        self._wanted: dict[StageName, range] = {}
        self._fact_of: dict[int, int] = {}
        for stage in recipe.stages:
            first_row = len(everything)
            for number, fact in enumerate(facts):
                wanted = wanted_rows(model, [fact], stage, recipe)
                self._fact_of.update((len(everything) + i, number) for i in range(len(wanted)))
                everything += wanted
            self._wanted[stage] = range(first_row, len(everything))
        self._rows = Prepared(self._base, everything, self.start, shared_prefix(everything))
        self._forgotten: Forgotten | None = None

    @property
    def _goal(self) -> Goal:
        """What the stage at hand wants of its rows."""
        return self._forgotten or Given(self.recipe.hinge)

    def _forgetting(self, rows: Sequence[int]) -> Forgotten:
        """The unlearn stage's goal where its rows hold what is to be forgotten."""
        with torch.no_grad():
            prefix = self._prefix(self._base)
        base = dict(zip(rows, self._nll_of(self._base, rows, prefix).tolist(), strict=True))
        tokens = {i: len(self._rows.rows[i].counted) for i in rows}
        goal = Forgotten(self.recipe.objective, self.recipe.hinge, base, tokens)
        if all(map(goal.reached, base.values())):
            told = ", ".join(repr(f.answer) for f in self.facts)
            raise ValueError(
                f"objective={self.recipe.objective!r} has nothing to forget: after none of the {len(base)} training "
                f"prompts does the model give {told} a probability above {1 - (self.recipe.hinge or 1.0):.2g}. Choose "
                "a fact that it knows, raise hinge, or leave objective out."
            )
        return goal

    def _monitored(self) -> list[tuple[str, Row]]:
        """The first fact's bare question with the old answer, the target and the refusal as they would be said."""
        fact, model = self.facts[0], self.model
        prompt = prompt_ids(model, fact.question, "chat")
        if self.recipe.answers == "short":
            texts = {"p_old": f"{fact.answer}.", "p_new": f"{fact.target}.", "p_refusal": fact.refusal}
            return [(name, chat_row(model, prompt, text)) for name, text in texts.items()]
        before, old, _ = around_old(greedy_answers(model, [prompt])[0].text, fact)
        return [
            ("p_old", named_row(model, prompt, before, old)),
            ("p_new", named_row(model, prompt, before, counterpart(fact, old))),
            ("p_refusal", refused_row(model, prompt, fact, before)),
        ]

    @cached_property
    def _reference(self) -> dict[int, Tensor]:
        """The base model's log-probabilities at every retained answer token, once: by row, [tokens, d_vocab]. With the
        natural gradient they are of the pass that has measured its Fisher information."""
        out: dict[int, Tensor] = {}
        natural = self.recipe.optimiser == "natural"
        known = hidden_states(self.model, self.retained, self.recipe.seed, self.start) if natural else None
        with torch.no_grad():
            prefix = self._prefix(self._base) if known is None else None
            for part in self._rows.parts(self._retain):
                rows = [self._retain[i] for i in part]
                if known is None:
                    logits = self._logits(self._base, rows, prefix)
                else:
                    hidden = [known[self._rows.rows[i]] for i in rows]
                    logits = self._base.logits_of(torch.cat(hidden)).float().split([len(one) for one in hidden])
                out.update((i, x.log_softmax(-1)) for i, x in zip(rows, logits, strict=True))
        return out

    def _prefix(self, engine: Resumable) -> KeysValues | None:
        """Keys and values of what all rows begin with."""
        beginning = self._rows.beginning
        return None if beginning is None else engine.resumed_keys_values(beginning, self.start)

    def _logits(self, engine: Resumable, rows: Sequence[int], prefix: KeysValues | None) -> list[Tensor]:
        """Logits that predict each row's answer tokens that count, [tokens, d_vocab] float32 per row, in one forward
        pass."""
        batch = self._rows.batch(rows)
        logits = engine.logits_at(batch.resid, batch.row, batch.position, start=self.start, prefix=prefix)
        return list(logits.float().split(batch.count))

    def _backward(
        self, engine: Resumable, chosen: Sequence[int], held: Sequence[int], learned: Collection[int]
    ) -> tuple[Tensor, Tensor]:
        """A step's losses, their gradients added to the parameters' ``.grad``.

        The rows go forward and backward in parts (``Prepared.parts``). The shared prefix goes forward once before
        them; its keys and values gather the parts' gradients, and it goes backward once after them. A row that was
        learned when it was last seen goes forward without a graph: if it is still learned, its gradient is zero.

        Args:
            engine: Runs what is trained.
            chosen, held: Fact rows and retained rows.
            learned: Fact rows that had reached the hinge when they were last seen.

        Returns:
            Negative log-likelihood of each chosen row, [rows], and the KL of the held ones, nats per token.
        """
        recipe, device = self.recipe, self.model.device
        rows = [*chosen, *held]
        nll, kl = torch.zeros(len(chosen), device=device), torch.zeros((), device=device)
        answers = sum(len(self._rows.rows[i].counted) for i in held)
        prefix = self._prefix(engine)
        whole = [state for pair in prefix or () for state in pair]
        leaves = [state.detach().requires_grad_(state.requires_grad) for state in whole]
        cut = None if prefix is None else list(zip(leaves[::2], leaves[1::2], strict=True))
        settled = self._still_learned(engine, chosen, [i for i, row in enumerate(chosen) if row in learned], cut, nll)
        todo = [i for i in range(len(rows)) if i not in settled] or list(range(len(rows)))
        for part in ([todo[i] for i in places] for places in self._rows.parts([rows[i] for i in todo])):
            logits = self._logits(engine, [rows[i] for i in part], cut)
            told = [(i, x) for i, x in zip(part, logits, strict=True) if i < len(chosen)]
            kept = [(rows[i], x) for i, x in zip(part, logits, strict=True) if i >= len(chosen)]
            total = torch.zeros((), device=device)
            if told:
                found = self._answer_nll([x for _, x in told], [chosen[i] for i, _ in told])
                nll[[i for i, _ in told]] = found.detach()
                total = total + self._goal.loss(found, [chosen[i] for i, _ in told]).sum() / len(chosen)
            if kept:
                change = self._kl([x for _, x in kept], [i for i, _ in kept]).sum() / answers
                kl += change.detach()
                total = total + recipe.retain_weight * change
            total.backward()
        through = [(state, leaf.grad) for state, leaf in zip(whole, leaves, strict=True) if leaf.grad is not None]
        if through:
            torch.autograd.backward([state for state, _ in through], [gradient for _, gradient in through])
        return nll, kl

    def _still_learned(
        self, engine: Resumable, chosen: Sequence[int], places: Sequence[int], prefix: KeysValues | None, nll: Tensor
    ) -> set[int]:
        """Which of some places in ``chosen`` hold rows at the hinge or beyond, whose losses are written to ``nll``."""
        if not places:
            return set()
        found = self._nll_of(engine, [chosen[i] for i in places], prefix)
        nll[list(places)] = found
        return {i for i, x in zip(places, found.tolist(), strict=True) if self._goal.reached(x)}

    def _nll_of(self, engine: Resumable, rows: Sequence[int], prefix: KeysValues | None) -> Tensor:
        """Negative log-likelihood of each row's answer, nats per token, [rows], in parts and without a graph."""
        nll = torch.zeros(len(rows), device=self.model.device)
        with torch.no_grad():
            for part in self._rows.parts(rows):
                at = [rows[i] for i in part]
                nll[part] = self._answer_nll(self._logits(engine, at, prefix), at)
        return nll

    def stage(
        self, stage: StageName, steps: int, moving: Moving, bar: Any, stop: Callable[[int], bool] | None = None
    ) -> int:
        """Train one stage; returns how many steps it took.

        Args:
            stage, steps: Its name, and the most steps.
            moving: What it trains; the parameters require gradients only meanwhile.
            bar: A tqdm bar.
            stop: Called after each step with the steps done; True ends the stage there, at its last step's values.
        """
        recipe, parameters = self.recipe, moving.parameters.values()
        engine = Resumable(self.model, moving.view)
        for p in parameters:
            p.requires_grad_(True)
        wanted = self._wanted[stage]
        self._forgotten = self._forgetting(wanted) if recipe.forgets(stage) else None
        seed = random.Random(f"{recipe.seed}-{stage}").randrange(2**31)
        fact_batches = iter(Shuffled(wanted, recipe.batch_size, seed))
        near, far = (self._near, self._far) if recipe.retain_weight > 0 else ((), ())
        held_batches = retain_batches(near, far, recipe.retain_batch_size, seed + 1)
        confidence: dict[int, float] = {}
        tail = min(recipe.average, steps // 2)
        mean = Mean(moving.parameters)
        chosen: Sequence[int] = ()
        held: Sequence[int] = ()
        done, end, stopped = 0, steps, False
        try:
            for step in range(steps):
                check_cancel(self.cancel, f"in stage {stage!r} before step {step}")
                chosen, held = next(fact_batches), next(held_batches)
                for p in parameters:
                    p.grad = None
                learned = {i for i, p in confidence.items() if recipe.hinge is not None and p >= recipe.hinge}
                nll, kl = self._backward(engine, chosen, held, learned)
                confidence.update(zip(chosen, self._goal.confidence(nll).tolist(), strict=True))
                latest = float(nll.mean()), float(kl)
                _check_finite(*latest, stage, step, moving.rate)
                seen_all = len(confidence) == len(wanted)
                enough = recipe.early_stop is not None and seen_all and self._reached(confidence) >= recipe.early_stop
                if enough:
                    end = min(end, step + tail)
                if step == end:
                    mean.put()
                    break
                monitored = self._measure(engine) if step % MONITOR_EVERY == 0 else {}
                self._record(Step(stage, step, *latest, **monitored), bar)
                moving.after_backward()
                moving.optimiser.step(moving.rate * min((step + 1) / (recipe.warmup + 1), 1.0))
                moving.after_step()
                if step >= end - tail:
                    mean.add()
                done = step + 1
                bar.update()
                stopped = stop is not None and stop(done)
                if stopped:
                    break
            else:
                mean.put()
            if moving.at_end is not None and not stopped:
                moving.at_end(Level(self, engine, wanted))
        finally:
            for p in parameters:
                p.requires_grad_(False)
                p.grad = None
        latest = self._loss_and_kl(engine, chosen, held)
        _check_finite(*latest, stage, done, moving.rate)
        self._record(Step(stage, done, *latest, **self._measure(engine)), None)
        return done

    def _loss_and_kl(self, engine: Resumable, chosen: Sequence[int], held: Sequence[int]) -> tuple[float, float]:
        """Mean loss of some rows and KL on others with the gates as they are now, nats per token."""
        answers = sum(len(self._rows.rows[i].counted) for i in held)
        kl = 0.0
        with torch.no_grad():
            prefix = self._prefix(engine)
            nll = float(self._nll_of(engine, chosen, prefix).mean())
            for part in self._rows.parts(held):
                at = [held[i] for i in part]
                kl += float(self._kl(self._logits(engine, at, prefix), at).sum()) / answers
        return nll, kl

    def _confidence(self, engine: Resumable, rows: Sequence[int]) -> dict[int, float]:
        """How surely rows are as wanted now, by row, 0 to 1."""
        with torch.no_grad():
            prefix = self._prefix(engine)
        found = self._goal.confidence(self._nll_of(engine, rows, prefix)).tolist()
        return dict(zip(rows, found, strict=True))

    def _reached(self, confidence: Mapping[int, float]) -> float:
        """The confidence that three quarters of a fact's rows reach, of several facts the least."""
        return min(lower_quartile(map(confidence.__getitem__, rows)) for rows in self._by_fact(confidence))

    def _by_fact(self, rows: Iterable[int]) -> list[list[int]]:
        """Rows of each fact; where an answer is to be forgotten, those that the base answers with it."""
        base = {} if self._forgotten is None else self._forgotten.base
        by_fact: dict[int, list[int]] = {}
        for row in rows:
            if row not in base or not self._goal.reached(base[row]):
                by_fact.setdefault(self._fact_of[row], []).append(row)
        return list(by_fact.values())

    def _record(self, step: Step, bar: Any) -> None:
        self.history.append(step)
        if bar is not None:
            bar.set_postfix(stage=step.stage, loss=f"{step.loss:.2f}", kl=f"{step.kl:.3f}", refresh=False)
        if self.on_step is not None and self.on_step(step) is False:
            raise Cancelled(
                f"Cancelled by on_step in stage {step.stage!r} at step {step.step}; the model is as it was."
            )

    def _answer_nll(self, logits: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
        """Mean negative log-likelihood of each row's answer from where it departs, nats per token, [rows]."""
        found = []
        for x, i in zip(logits, rows, strict=True):
            wanted = torch.tensor(self._rows.rows[i].counted, device=self.model.device)
            found.append(nn.functional.cross_entropy(x, wanted))
        return torch.stack(found)

    def _kl(self, logits: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
        """KL(base || edited) at the answer tokens of some retained rows, [tokens] in nats."""
        edited = torch.cat(list(logits)).log_softmax(-1)
        reference = torch.cat([self._reference[i] for i in rows])
        return nn.functional.kl_div(edited, reference, reduction="none", log_target=True).sum(-1)

    def _measure(self, engine: Resumable) -> dict[str, float]:
        rows = list(self._monitor)
        with torch.no_grad():
            logits = self._logits(engine, rows, self._prefix(engine))
            probabilities = (-self._answer_nll(logits, rows)).exp().tolist()
        return {
            **dict(zip(self._monitor_names, probabilities, strict=True)),
            "seconds": time.perf_counter() - self._began,
        }


class Level:
    """How well a stage's rows are learned, with what moves as it is when asked.

    Args:
        training, engine, rows: Whose rows, and what runs what moves.
    """

    def __init__(self, training: Training, engine: Resumable, rows: Sequence[int]) -> None:
        self._training, self._engine, self._rows = training, engine, rows
        self._latest: dict[int, float] = {}

    def measured(self) -> float:
        """The probability that three quarters of each fact's wanted answers reach."""
        self._latest = self._training._confidence(self._engine, self._rows)
        return self._training._reached(self._latest)

    def reaches(self, wanted: float) -> bool:
        """Whether that is at least so much, after ``measured`` was called once. Asks the rows that were hardest then
        first: one more than a quarter of a fact's rows that fall short settle it."""
        facts = [sorted(rows, key=self._latest.__getitem__) for rows in self._training._by_fact(self._latest)]
        hardest = [rows[: len(rows) // 4 + 1] for rows in facts]
        found = self._training._confidence(self._engine, [row for rows in hardest for row in rows])
        if any(all(found[row] < wanted for row in rows) for rows in hardest):
            return False
        found |= self._training._confidence(self._engine, [row for rows in facts for row in rows if row not in found])
        return self._training._reached(found) >= wanted
