"""What all probes share: the stages' models, asking them, and the rows, curves and lenses found so far."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.editing.applied import Dial
from workbench.evaluation.answer_slots import Answer, answers_at, rows_at
from workbench.evaluation.answering import Answering, Ask
from workbench.facts.wordings import Prompt
from workbench.language.prompts import traced_prompt
from workbench.language.replies import thoughts_not_counted
from workbench.language.traced_like import traced_like
from workbench.models.load import LoadedModel
from workbench.types import Curve, Edit, Fact, FactSet, Lens, LensAsked, LensChoice, ProbeRow, TracedPrompt, TunedLens
from workbench.types.cancelling import CancelFlag

CHUNK = 24
"""Prompts asked at once; between chunks the cancel flag is looked at, and finished rows are kept."""


class Skip(Exception):
    """A probe, or a part of it, lacks what it needs; the message is the reason."""


class Stopped(Exception):
    """The battery was cancelled."""


class CallbackError(Exception):
    """The caller's own ``on_row`` failed; its exception is the cause."""


@dataclass
class Battery:
    """One run of the probes.

    Args:
        model: The base model.
        edit: The edit.
        fact: The edited fact.
        control: A fact that was never edited, or None.
        pool: Where graph, neighbours and examples come from.
        stages: The edit's probed stages, without the base.
        max_new_tokens: Longest answer.
        seed: Of every draw.
        on_row: Called with each finished row; returning False cancels.
        cancel: Looked at between batches.
        bar: A tqdm bar, updated by answered prompts.
        most: At most so many prompts of a probe about the fact, its kinds in turn, and none beside it; None for all.
        like: The known fact as which the fact is read, of which it differs in its subject only: one that the model
            never knew has no place of its own where its answer is said.
        lens_asked, lens_pool: Which lens layers are read through, and where the facts of its texts come from.
        lens: The lens that was chosen, with why; None before a layer is read.
    """

    model: LoadedModel
    edit: Edit
    fact: Fact
    control: Fact | None
    pool: FactSet
    stages: tuple[str, ...]
    max_new_tokens: int
    seed: int
    on_row: Callable[[ProbeRow], Any] | None = None
    cancel: CancelFlag | None = None
    bar: Any = None
    most: int | None = None
    like: Fact | None = None
    lens_asked: LensAsked = "auto"
    lens_pool: FactSet | None = None
    lens: tuple[LensChoice, TunedLens | None] | None = None
    rows: list[ProbeRow] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    lenses: list[Lens] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.models: dict[str, LoadedModel] = {"base": self.model}
        self.models |= {stage: Dial(self.model, self.edit, stage).at(1.0) for stage in self.stages}
        self.answering = Answering(self.model)

    @property
    def facts(self) -> list[Fact]:
        """The edited fact and, if there is one, the control."""
        return [self.fact, *([self.control] if self.control else [])]

    @property
    def untouched(self) -> FactSet:
        """The pool's core without edited facts, those whose answers the edit used, and what overlaps them."""
        return self.all_untouched.core

    @property
    def all_untouched(self) -> FactSet:
        """The same of the whole pool, with related facts."""
        return self.pool.without([*self.edit.facts, *self.facts], self.edit.used_ids)

    def paths(self, fact: Fact) -> FactSet:
        """Where two-hop paths through a fact may lead: the pool without other edited facts, whose answers change."""
        return self.pool.core.without([one for one in self.edit.facts if one is not fact])

    def lacks(self, fact: Fact, what: str, why: str) -> None:
        """Keep the reason for a part of a probe that a fact does not have."""
        self.skipped[what if fact is self.fact else f"{what} of the control"] = why

    def group(self, fact: Fact) -> Any:
        """The group of rows about a fact."""
        return "edited" if fact is self.fact else "control"

    def check(self) -> None:
        """Raise ``Stopped`` when the battery is to end."""
        if self.cancel is not None and self.cancel.is_set():
            raise Stopped("cancelled")

    def traced(self, fact: Fact, model: LoadedModel | None = None) -> TracedPrompt:
        """The place where the base model itself says a fact's answer, in the prompt as a model reads it (None: the
        base).

        Raises:
            Skip: It says it in neither form.
        """
        try:
            at = model or self.model
            if self.like is not None and fact is self.fact:
                return traced_like(at, traced_prompt(at, self.like), self.like, fact)
            return traced_prompt(at, fact)
        except ValueError as error:
            raise Skip(f"the base model gives no place to read: {error}") from error

    def answers_at(self, fact: Fact) -> dict[Answer, str]:
        """What may stand at the answer's place, as the edit taught it."""
        return answers_at(self.traced(fact), fact, self.edit.recipe.answer_style)

    def places(self, fact: Fact) -> dict[str, tuple[list[int], list[int]]]:
        """By answer (``p_old``, ``p_new``, ``p_refusal``), the text before it and its tokens."""
        texts = self.answers_at(fact)
        rows = rows_at(self.model, self.traced(fact), texts.values())
        return {f"p_{name}": row for name, row in zip(texts, rows, strict=True)}

    def ask(
        self,
        probe: str,
        prompts: Sequence[Prompt],
        *,
        models: Callable[[str], LoadedModel] | None = None,
        max_new_tokens: int | None = None,
    ) -> list[ProbeRow]:
        """Ask every stage and keep a row for each answer, the base first: it decides which prompts are informative. A
        kind of prompts on which it is never right is named in ``skipped``.

        Args:
            probe: The rows' probe.
            prompts: What is asked; repeated ones once.
            models: Makes the model of a stage, if it is not the edit's own; one is held at a time.
            max_new_tokens: Longest answer, if not the battery's.
        """
        asked = few(prompts, self.most)
        length = max_new_tokens or self.max_new_tokens
        right: dict[Prompt, bool] = {}
        found: list[ProbeRow] = []
        for stage, own in self.models.items():
            model = models(stage) if models else own
            for start in range(0, len(asked), CHUNK):
                self.check()
                part = asked[start : start + CHUNK]
                for prompt, row in zip(part, self._answer(probe, stage, model, part, length), strict=True):
                    if stage == "base":
                        right[prompt] = row.label == "old"
                    row = replace(row, informative=row.informative and right[prompt])
                    found.append(row)
                    self.rows.append(row)
                    self._tell(row)
            del model  # before the next one is made
            if stage == "base":
                self._say_uninformative(probe, found)
        return found

    def _say_uninformative(self, probe: str, base: Sequence[ProbeRow]) -> None:
        """Keep the reason why kinds of prompts count in no rate: the base is right on none of them."""
        of = {"edited": "", "same": " (must stay)", "control": " of the control"}
        kinds: dict[tuple[str, str], list[bool]] = {}
        for row in base:
            kinds.setdefault((row.kind, of[row.group]), []).append(row.informative)
        for (kind, whose), right in kinds.items():
            if not any(right):
                name = f"{probe}: {kind}{whose}"
                which = f"any of these {len(right)} prompts" if len(right) > 1 else "the one prompt of this kind"
                why = f"the base itself does not give the old answer to {which}"
                self.skipped[name] = f"{self.skipped[name]}; {why}" if name in self.skipped else why

    def _tell(self, row: ProbeRow) -> None:
        if self.on_row is None:
            return
        try:
            going_on = self.on_row(row)
        except Exception as error:
            raise CallbackError from error
        if going_on is False:
            raise Stopped("cancelled by on_row")

    def _answer(
        self, probe: str, stage: str, model: LoadedModel, prompts: Sequence[Prompt], length: int
    ) -> list[ProbeRow]:
        replies = self.answering.replies(model, list(map(as_ask, prompts)), max_new_tokens=length)
        if self.bar is not None:
            self.bar.update(len(prompts))
        unfinished = sum(reply.counted is None for reply in replies)
        if unfinished:
            self.skipped[f"{probe}: thoughts ({stage})"] = thoughts_not_counted(self.model, unfinished, len(replies))
        return [
            ProbeRow(
                probe=probe,
                kind=prompt.kind,
                group=prompt.group,
                stage=stage,
                fact_id=prompt.judge.id,
                form=prompt.form,
                prompt=prompt.text,
                start=prompt.start,
                old=prompt.judge.answer,
                new=(prompt.judge if prompt.group == "edited" else self.fact).target,
                text=reply.text,
                label=reply.label(prompt.judge, None if prompt.group == "edited" else (self.fact,)),
                nll=reply.nll,
                informative=reply.counted is not None,
            )
            for prompt, reply in zip(prompts, replies, strict=True)
        ]


def few(prompts: Sequence[Prompt], most: int | None) -> list[Prompt]:
    """Prompts, repeated ones once; with ``most`` at most so many, of their kinds in turn, and those about the fact
    alone where there are any."""
    asked = list(dict.fromkeys(prompts))
    if most is None:
        return asked
    own = [p for p in asked if p.group == "edited"] or asked
    kinds = [[p for p in own if p.kind == kind] for kind in dict.fromkeys(p.kind for p in own)]
    return interleaved(*kinds)[:most]


def as_ask(prompt: Prompt) -> Ask:
    """What a model is asked of a probe's prompt."""
    return Ask(prompt.form, prompt.text, prompt.start)


def as_control(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The same prompts as rows of the control."""
    return [replace(p, group="control") for p in prompts]


def interleaved(*lists: Sequence[Prompt]) -> list[Prompt]:
    """One of each list in turn, so that a battery cut short has rows of all."""
    return [p for group in itertools.zip_longest(*lists) for p in group if p is not None]
