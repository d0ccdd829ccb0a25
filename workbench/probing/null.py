"""The null of a probe report: the same measures where there is nothing to be found.

A probe's finding means something only against what the same probe finds by chance. Three groups are measured, each by
running the probe itself and taking its one number (``Probe.measure``):

- **controls**: other facts that the model knows, asked of the same edited model. What the edit does to them is damage.
- **permuted**: the edited fact, asked of the edit with its gates, or the input columns of its low-rank update,
  exchanged within each module, at the strength at which its KL to the base equals the edit's. That is what any change
  of this size does.
- **never known**: invented subjects, asked of the same edited model as if the old answer were theirs. What is
  "recovered" there was never there.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from workbench.editing.applied import Dial
from workbench.evaluation.answering import Ask
from workbench.evaluation.floor import equal_strength
from workbench.facts.known import known_facts
from workbench.probing.battery import Battery, Skip
from workbench.probing.record import Found, Probe
from workbench.probing.strangers import strangers
from workbench.probing.table import PROBES
from workbench.types import Edit, EditStage, Fact, FactSet, NullDraw, NullGroup, NullOfProbe, NullSize, ProbeNull

KL_PROMPTS = 8
"""Questions about controls on which KL is matched, beside the fact's own."""
CANDIDATES = 4
"""So many times the wanted controls are asked at most, to find those that the model knows."""


@dataclass
class Null:
    """One measurement of a null.

    Args:
        battery: The battery whose findings are compared; its last stage is.
        names: The probes.
        size: How large.
    """

    battery: Battery
    names: Sequence[str]
    size: NullSize
    draws: dict[str, list[NullDraw]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stage = self.battery.stages[-1]
        self.kl: float | None = None
        self.asks: list[Ask] = []
        self.strengths: dict[str, float] = {}

    def measured(self) -> ProbeNull:
        """The null, after all of it is measured.

        Raises:
            Stopped: The battery was cancelled.
        """
        own = self._values(self.battery.edit, self.battery.fact, self.probes())
        controls = self._controls()
        for fact in controls:
            self._add("controls", fact.id, self._values(self.battery.edit, fact, own))
        self._permuted(own, controls)
        like = self.battery.fact
        made = strangers(self.battery.model, like, self.size.never_known)
        if len(made) < self.size.never_known:
            why = "its question does not name the subject" if not made else "the model says its answer of the others"
            self.skipped["never known"] = f"only {len(made)} of {self.size.never_known} subjects were invented: {why}"
        for fact in made:
            self._add("never known", fact.id, self._values(self.battery.edit, fact, own, like=like))
        return ProbeNull(
            stage=self.stage,
            size=self.size,
            probes={name: self._of(PROBES[name], found) for name, found in own.items()},
            kl=self.kl,
            kl_prompts=tuple(ask.prompt for ask in self.asks),
            strengths=self.strengths,
            skipped=self.skipped,
        )

    def probes(self) -> list[str]:
        """Those that have something to compare."""
        chosen: list[str] = []
        for name in self.names:
            measure = PROBES[name].measure
            if measure is None:
                self.skipped[name] = "the probe has no one number"
            elif measure.slow and not self.size.slow:
                self.skipped[name] = "a quick null leaves it out, since it takes long (null=True measures it)"
            else:
                chosen.append(name)
        return chosen

    def _values(self, edit: Edit, fact: Fact, names: Iterable[str], *, like: Fact | None = None) -> dict[str, Found]:
        """What the probes find of a fact at the last stage."""
        own = self.battery
        alone = Battery(
            *(own.model, edit, fact, None, own.pool, (self.stage,), own.max_new_tokens, own.seed),
            cancel=own.cancel,
            bar=own.bar,
            most=10**6 if self.size.prompts is None else self.size.prompts,
            like=like,
            lens=own.lens,
            lens_asked=own.lens_asked,
            lens_pool=own.lens_pool,
        )
        found: dict[str, Found] = {}
        for name in names:
            measure = PROBES[name].measure
            assert measure is not None
            own.check()
            try:
                PROBES[name].run(alone)
            except Skip as why:
                self._lacks(edit, fact, name, str(why))
                continue
            value = measure.of(alone, PROBES[name], self.stage)
            if value is None:
                self._lacks(edit, fact, name, "the base gives the old answer to none of its prompts")
            else:
                found[name] = value
        return found

    def _lacks(self, edit: Edit, fact: Fact, name: str, why: str) -> None:
        """Only what the edited fact itself lacks is said: a draw that has no value is not counted."""
        if edit is self.battery.edit and fact is self.battery.fact:
            self.skipped[name] = why

    def _add(self, group: NullGroup, draw: str, found: dict[str, Found]) -> None:
        for name, one in found.items():
            values: dict[str, Any] = {"value": one.value, "found": one.found, "n": one.n}
            self.draws.setdefault(name, []).append(NullDraw(group=group, name=draw, **values))

    def _of(self, probe: Probe, own: Found) -> NullOfProbe:
        measure = probe.measure
        assert measure is not None
        return NullOfProbe(
            measure=measure.words,
            finding=measure.finding,
            false_in=measure.false_in,
            value=own.value,
            found=own.found,
            n=own.n,
            draws=tuple(d for group in get_args(NullGroup) for d in self.draws.get(probe.name, ()) if d.group == group),
        )

    def _controls(self) -> list[Fact]:
        """Facts of the pool's test split, or without one of all the pool, that the model knows, drawn by seed."""
        own = self.battery
        names = {name.casefold() for name in (*own.fact.answers, *own.fact.targets)}
        free = [
            f
            for f in own.pool.without(own.edit.facts, own.edit.used_ids)
            if f.role != "retain" and f.subject != own.fact.subject and not names & {a.casefold() for a in f.answers}
        ]
        test = [f for f in free if f.split == "test"] or free
        random.Random(own.seed).shuffle(test)
        known: list[Fact] = []
        step = max(self.size.controls, 1)
        for start in range(0, min(len(test), CANDIDATES * step), step):
            if len(known) < self.size.controls:
                own.check()
                known += known_facts(own.model, FactSet(test[start : start + step]), progress=False)
        if len(known) < self.size.controls:
            where = f"{own.pool.name!r} gave {len(known)} of {self.size.controls} untouched facts that the model knows"
            self.skipped["controls"] = where
        return known[: self.size.controls]

    def _permuted(self, own: dict[str, Found], controls: Sequence[Fact]) -> None:
        """The edited fact under permuted deltas of equal KL."""
        battery = self.battery
        if not self.size.permuted:
            return
        delta = battery.edit.delta(self.stage)
        try:
            delta.permuted(0)
        except ValueError as error:
            self.skipped["permuted"] = str(error)
            return
        self.asks = [Ask("chat", fact.question) for fact in (battery.fact, *controls[:KL_PROMPTS])]
        self.kl = self._mean_kl(Dial(battery.model, battery.edit, self.stage), 1.0)
        missed = 0
        for i in range(self.size.permuted):
            battery.check()
            seed = battery.seed + i + 1
            shuffled = delta.permuted(seed)
            edit = replace(battery.edit, stages=(EditStage(self.stage, shuffled),))
            dial = Dial(battery.model, edit, self.stage)
            strength = equal_strength(lambda s, dial=dial: self._mean_kl(dial, s), self.kl)
            if strength is None:
                missed += 1
                continue
            self.strengths[f"permutation {seed}"] = strength
            scaled = replace(edit, stages=(EditStage(self.stage, shuffled.scaled(strength)),))
            self._add("permuted", f"permutation {seed}", self._values(scaled, battery.fact, own))
        if missed:
            self.skipped["permuted"] = f"{missed} of {self.size.permuted} do not reach the edit's KL at any strength"

    def _mean_kl(self, dial: Dial, strength: float) -> float:
        self.battery.check()
        values = self.battery.answering.kl(dial.at(strength), self.asks, max_new_tokens=self.battery.max_new_tokens)
        held = [value for value in values if value == value]
        return sum(held) / len(held) if held else float("nan")
