"""Timeline: the phases of an edit's run, how long each took and still takes, and how long a run would take.

Before the first run of a session nothing is known but how fast the model is: one pass over a few tokens is timed
(``probe_seconds``), and ``SECONDS`` says how long the parts took on a machine where that pass took ``PROBE``. What is
so guessed is given as a wide range. What a run has measured is taken from then on, with a narrow one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, FactSet, TrainedRecipe
from workbench.widgets.shared.stepper import PhaseRow
from workbench.widgets.shared.timing import Span, duration

Work = Literal["choose", "retain", "step", "solve", "prompt"]
"""What takes time: choosing neurons with the retained answers, those answers alone, a step, an edit without
steps, a prompt that is asked."""
SECONDS: dict[Work, float] = {"choose": 50.0, "retain": 40.0, "step": 4.0, "solve": 60.0, "prompt": 0.3}
PROBE = 0.12
"""Seconds of the timed pass where ``SECONDS`` were measured: the bundled model on one processor core."""
PROBE_TOKENS = 16
GUESSED, MEASURED = (0.4, 2.0), (0.85, 1.2)
"""The range around what is guessed, and around what was measured."""
REMEMBERED = 0.1
"""The low end of what a model may remember: of another run of the same fact so much is computed again."""
BASE = 0.4
"""Of an edited model's time per prompt: that of the base, some of whose answers are shipped or remembered."""
OWN_PREPARE: dict[bool, Work] = {True: "choose", False: "retain"}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of a run.

    Args:
        name: For a person.
        kind: What takes the time.
        amount: How much of it.
    """

    name: str
    kind: Work
    amount: float


def phases_of(recipe: BaseRecipe, *, chooses: bool, prompts: int, random_control: bool = False) -> tuple[Phase, ...]:
    """The phases of a run.

    Args:
        recipe: Of the fit.
        chooses: Whether it chooses what moves by itself.
        prompts: What each model is asked, about.
        random_control: Whether a random control is fitted and asked too.
    """
    asked = (BASE + len(recipe.stage_names)) * prompts
    if isinstance(recipe, TrainedRecipe):
        made = [Phase(name="prepare", kind=OWN_PREPARE[chooses], amount=1), *_steps(recipe)]
        again = Phase(name="random control", kind="step", amount=sum(recipe.stage_steps))
    else:
        made = [Phase(name="make", kind="solve", amount=1)]
        again = Phase(name="random control", kind="solve", amount=1)
    phases = [*made, Phase(name="evaluate", kind="prompt", amount=asked)]
    if random_control:
        phases += [
            again,
            Phase(name="evaluate it", kind="prompt", amount=asked),
        ]
    return tuple(phases)


def _steps(recipe: TrainedRecipe, again: str = "") -> list[Phase]:
    named = {stage: recipe.steps_of(stage) for stage in recipe.stage_names}
    return [
        Phase(name=f"{stage}{again}", kind="step" if steps else "solve", amount=steps or 1)
        for stage, steps in named.items()
    ]


def prompts_of(facts: FactSet, pool: FactSet | None, max_controls: int | None) -> int:
    """What a model is asked in an evaluation, at most: before it is known which controls the model knows."""
    own = sum(len(f.training_questions) + len(f.heldout) + 1 + len(f.cloze_paraphrases) for f in facts)
    others = 300 if pool is None else max(0, len(pool) - len(facts))
    return own + (others if max_controls is None else min(2 * max_controls, others))


def probe_seconds(model: LoadedModel) -> float:
    """Seconds of one pass of a model over a few tokens, the faster of two: a first one is slower."""
    ids = torch.ones(1, PROBE_TOKENS, dtype=torch.long, device=model.device)
    taken: list[float] = []
    for _ in range(2):
        began = time.perf_counter()
        with torch.inference_mode():
            model.hf(ids).logits[0, -1, 0].item()  # .item() waits for the device
        taken.append(time.perf_counter() - began)
    return min(taken)


class Speeds:
    """How long kinds of work take here, as far as it is known.

    Args:
        probe: Gives the seconds of one pass; called once, when something must be guessed.
    """

    def __init__(self, probe: Callable[[], float]) -> None:
        self._probe, self._scale = probe, 0.0
        self.measured: dict[Work, float] = {}
        """Seconds of one unit, by kind, in the last run that did such work."""

    def span(self, phase: Phase) -> Span:
        """How long a phase takes."""
        if phase.kind in self.measured:
            return self._around(phase, self.measured[phase.kind], MEASURED)
        if "step" in self.measured:
            scale = self.measured["step"] / SECONDS["step"]
        else:
            scale = self._scale = self._scale or self._probe() / PROBE
        return self._around(phase, SECONDS[phase.kind] * scale, GUESSED)

    def learn(self, phase: Phase, seconds: float, amount: float) -> None:
        """Take up what a phase, or so much of it, took."""
        if amount > 0:
            once = phase.kind in ("choose", "retain")  # a second time the model remembers what another fact will take
            before = self.measured.get(phase.kind, 0.0) if once else 0.0
            self.measured[phase.kind] = max(before, seconds / amount)

    def _around(self, phase: Phase, each: float, ends: tuple[float, float]) -> Span:
        low = REMEMBERED if phase.kind in ("choose", "retain") else ends[0]
        return Span(phase.amount * each, phase.amount * each).times(low, ends[1])

    def total(self, phases: Sequence[Phase]) -> Span:
        """How long they take together."""
        return sum(map(self.span, phases), Span())


@dataclass
class _Course:
    """How a phase has gone: when it began, when it ended, and how far it is."""

    phase: Phase
    began: float
    ended: float | None = None
    done: float = 0.0
    total: float = 0.0
    words: str = ""
    earlier: float = 0.0


class Timeline:
    """Follows one run through its phases.

    Args:
        phases: In order.
        speeds: What is known, which the run adds to.
        clock: Gives seconds.
    """

    def __init__(self, phases: Sequence[Phase], speeds: Speeds, clock: Callable[[], float] = time.perf_counter) -> None:
        self._left, self._speeds, self._clock = list(phases), speeds, clock
        self._gone: list[_Course] = []
        self._began = clock()

    @property
    def phase(self) -> str:
        """The name of the phase that is going on; empty before the first."""
        return self._gone[-1].phase.name if self._gone else ""

    @property
    def words(self) -> str:
        """The phase that is going on and how far it is: ``"learn 2 of 4"``; empty when none is."""
        if not self._gone or self._gone[-1].ended is not None:
            return ""
        now = self._gone[-1]
        return f"{now.phase.name} {now.words}".strip()

    def at(self, name: str, done: float = 0, total: float = 0, words: str = "") -> bool:
        """Say how far a phase is; another one than before ends that.

        Args:
            name: Of a phase. Those before it that never began are left out; one that is not planned comes on top.
            done, total: How far it is; no total where that is not known.
            words: How far it is, in words; ``"2 of 4"`` by default.

        Returns:
            Whether the phase has just begun.
        """
        begins = name != self.phase or self._gone[-1].ended is not None
        if begins:
            self.end()
            names = [phase.name for phase in self._left]
            at = names.index(name) if name in names else -1
            planned = Phase(name=name, kind="step", amount=total) if at < 0 else self._left[at]
            self._left = self._left[at + 1 :]
            self._gone.append(_Course(planned, self._clock(), earlier=done))
        now = self._gone[-1]
        now.done, now.total = done, total
        now.words = words or (f"{done:g} of {total:g}" if total else "")
        if now.phase.kind == "step" and done - now.earlier >= 2:  # so that later steps are known while it goes on
            self._speeds.learn(now.phase, self._clock() - now.began, done - now.earlier)
        return begins

    def again(self, recipe: TrainedRecipe) -> None:
        """A second fit follows, with this recipe: its steps come before what is left."""
        rest = [phase for phase in self._left if phase.kind != "step" or phase.name == "random control"]
        self._left = [*_steps(recipe, " again"), *rest]

    def end(self) -> None:
        """The phase that is going on is done."""
        if not self._gone or self._gone[-1].ended is not None:
            return
        now = self._gone[-1]
        now.ended = self._clock()
        amount = float(now.done - now.earlier) if now.phase.kind == "step" else now.phase.amount
        self._speeds.learn(now.phase, now.ended - now.began, amount)

    def rows(self) -> list[PhaseRow]:
        """The phases as they stand."""
        rows: list[PhaseRow] = []
        for course in self._gone:
            seconds = (self._clock() if course.ended is None else course.ended) - course.began
            if course.ended is not None:
                rows.append(PhaseRow(name=course.phase.name, state="done", time=duration(seconds)))
                continue
            rows.append(
                PhaseRow(
                    name=course.phase.name,
                    state="now",
                    words=course.words,
                    time=f"{duration(seconds)}, {self._rest(course).words} left",
                    done=round(course.done) if course.total else None,
                    total=round(course.total),
                )
            )
        later = [PhaseRow(name=p.name, state="next", time=self._speeds.span(p).words) for p in self._left]
        return rows + later

    def left(self) -> Span:
        """How long the run still takes."""
        now = self._gone[-1] if self._gone else None
        rest = Span() if now is None or now.ended is not None else self._rest(now)
        return rest + self._speeds.total(self._left)

    @property
    def foot(self) -> str:
        """How long the run has taken and still takes, in words."""
        return f"{duration(self._clock() - self._began)} so far, {self.left().words} left."

    def _rest(self, course: _Course) -> Span:
        seconds, done = self._clock() - course.began, course.done - course.earlier
        if done <= 0 or not course.total:
            return self._speeds.span(course.phase).after(seconds)
        rest = seconds / done * (course.total - course.done)
        return Span(rest, rest).times(*MEASURED)
