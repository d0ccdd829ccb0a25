"""Which rows a fit has: those that each stage teaches, and those that are held in place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from workbench.editing.training.rows import Row, around_old, chat_row, named_row, refused_row
from workbench.editing.training.sensitivity import FisherMeasurement, measure_fisher
from workbench.editing.training.word_ends import ended_rows
from workbench.facts.retained import RETAIN_TOKENS
from workbench.facts.training_wordings import training_prompts
from workbench.language.answers import counterpart
from workbench.language.generation import greedy_answers
from workbench.language.padding import common_beginning
from workbench.language.prompts import prompt_ids
from workbench.language.replies import counted_text
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet, Site, StageName, TrainedRecipe
from workbench.types.cancelling import CancelBar, CancelFlag
from workbench.types.recipe import KLOn

NEAR_WORDINGS = 3
_AFTER_A_WORD = re.compile(r"""[\s.,;:!?)\]"'*]""")


class Retained(NamedTuple):
    """Rows of retained facts: neighbours of the edited ones, and the others."""

    near: list[Row]
    far: list[Row]


class FitRows:
    """The rows of a fit, each built once, when first asked for: the selector, the fit and a second fit share them.

    Args:
        model: The base model.
        facts: The edited facts.
        recipe: What its stages teach, and whether they hold other answers in place.
        retain: The facts whose answers the fit holds in place.
        selection_facts: The facts whose answers the default selector spares; empty where it is not asked.
        beside: Other rows that the KL holds in place: half of each retain batch, the retained facts' the other half.
        cancel: Looked at between the batches of what is computed for them, which then raises ``Cancelled``; what was
            asked for can be asked for again.
    """

    def __init__(
        self,
        model: LoadedModel,
        facts: Sequence[Fact],
        recipe: TrainedRecipe,
        *,
        retain: Sequence[Fact] | FactSet = (),
        selection_facts: Sequence[Fact] | FactSet = (),
        beside: Sequence[Row] = (),
        cancel: CancelFlag | None = None,
    ) -> None:
        self.cancel, self._beside = cancel, list(beside)
        self.model, self.facts, self.recipe = model, list(facts), recipe
        self._retain, self._selection_facts = list(retain), list(selection_facts)
        self._wanted: dict[StageName, list[list[Row]]] = {}

    def wanted(self, stage: StageName) -> list[list[Row]]:
        """What a stage teaches, of each fact."""
        if stage not in self._wanted:
            self._wanted[stage] = self._wanted_of(stage, self.recipe)
        return self._wanted[stage]

    def _wanted_of(self, stage: StageName, recipe: TrainedRecipe) -> list[list[Row]]:
        return [wanted_rows(self.model, [fact], stage, recipe, cancel=self.cancel) for fact in self.facts]

    @cached_property
    def monitored(self) -> dict[str, Row]:
        """The rows whose probabilities a ``Step`` holds, by its names for them: the first fact's bare question with the
        old answer, with the target and with the refusal."""
        fact, model = self.facts[0], self.model
        prompt = prompt_ids(model, fact.question, "chat")
        if self.recipe.answers == "short":
            texts = {"p_old": f"{fact.answer}.", "p_new": f"{fact.target}.", "p_refusal": fact.refusal}
            return {name: chat_row(model, prompt, text) for name, text in texts.items()}
        before, old, _ = around_old(counted_text(model, greedy_answers(model, [prompt])[0].text, "chat") or "", fact)
        return {
            "p_old": named_row(model, prompt, before, old),
            "p_new": named_row(model, prompt, before, counterpart(fact, old)),
            "p_refusal": refused_row(model, prompt, fact, before),
        }

    @cached_property
    def retained(self) -> Retained:
        """What the fit holds in place; nothing where the recipe needs no retained answers.

        Raises:
            ValueError: The recipe needs some, and the retain set is empty.
        """
        if not self.recipe.fits_retained:
            return Retained([], [])
        retained = self._held(NEAR_WORDINGS)
        if self._beside:
            retained = Retained(self._beside, [*retained.near, *retained.far])
        if not any(retained):
            raise ValueError(_no_retained(self.recipe))
        return retained

    def _held(self, wordings: int) -> Retained:
        """Rows of the facts that the fit holds in place, where the recipe's KL is taken."""
        near, far = retain_rows(self.model, self._retain, self.facts, wordings, cancel=self.cancel)
        return Retained(_KL_ON[self.recipe.kl_on](near), _KL_ON[self.recipe.kl_on](far))

    @cached_property
    def fisher_rows(self) -> Retained:
        """What the fit's Fisher information is measured on: ``retained``, or other wordings of it."""
        retained, wordings = self.retained, self.recipe.fisher_wordings
        return retained if wordings == NEAR_WORDINGS else self._held(wordings)

    def fisher(self, entries: Mapping[tuple[int, Site], Sequence[int]]) -> FisherMeasurement:
        """Fisher information of some gates on what the fit holds in place.

        Args:
            entries: The gates, as ``Selection.entries`` gives them.
        """
        return measure_fisher(self.model, self.fisher_rows, entries, self.recipe.seed, cancel=self.cancel)

    @cached_property
    def selection_wanted(self) -> list[list[Row]]:
        """Of each fact, the rows on which the default selector takes the new answer's gradient: the target in the
        base's own sentence, in all contexts, whatever the recipe teaches."""
        if "learn" in self.recipe.stages and self.recipe.answers == "own" and self.recipe.contexts:
            return self.wanted("learn")
        return self._wanted_of("learn", TrainedRecipe(end_below=self.recipe.end_below))

    @cached_property
    def selection_retained(self) -> Retained:
        """What the default selector spares."""
        recipe = self.recipe
        same = self._retain and self._selection_facts == self._retain
        if same and recipe.fits_retained and recipe.kl_on == "answer":
            return self.fisher_rows
        wordings = recipe.fisher_wordings
        return retain_rows(self.model, self._selection_facts, self.facts, wordings, cancel=self.cancel)

    def selection_fisher(self, entries: Mapping[tuple[int, Site], Sequence[int]]) -> FisherMeasurement | None:
        """Fisher information of some gates on what the default selector spares; None where that is nothing. Arguments
        as in ``fisher``, which gives the same measurement where both are on the same facts."""
        retained = self.selection_retained
        if not any(retained):
            return None
        return measure_fisher(self.model, retained, entries, self.recipe.seed, cancel=self.cancel)

    @property
    def retain_facts(self) -> tuple[Fact, ...]:
        """The facts that were given to be held in place."""
        return tuple(self._retain)

    @property
    def retain_ids(self) -> tuple[str, ...]:
        """Ids of the facts that were given to be held in place, whether the recipe uses them or not."""
        return tuple(fact.id for fact in self._retain)

    @property
    def selection_ids(self) -> tuple[str, ...]:
        """Ids of the facts whose answers the selection was made with."""
        return tuple(fact.id for fact in self._selection_facts)

    @property
    def fisher_ids(self) -> tuple[str, ...]:
        """Ids of the facts whose answers the optimiser's Fisher information is measured on."""
        return tuple(fact.id for fact in self._retain) if self.recipe.uses_fisher else ()

    @property
    def kl_ids(self) -> tuple[str, ...]:
        """Ids of the facts whose answers the KL holds in place."""
        return tuple(fact.id for fact in self._retain) if self.recipe.retain_weight > 0 else ()


def _no_retained(recipe: TrainedRecipe) -> str:
    """Why a fit without retained rows is refused."""
    give = "Give retain=[...] (or a pool with role='retain'), or use a recipe with"
    if recipe.uses_fisher:
        return (
            "optimiser='natural' weighs every move by what retained answers need, but the retain set is empty. "
            f"{give} optimiser='adam' and retain_weight=0."
        )
    return (
        f"retain_weight={recipe.retain_weight:g} weighs the KL on a retain set, but the retain set is empty. "
        f"{give} retain_weight=0."
    )


def wanted_rows(
    model: LoadedModel,
    facts: Sequence[Fact],
    stage: StageName,
    recipe: TrainedRecipe,
    *,
    cancel: CancelFlag | None = None,
) -> list[Row]:
    """Give every training prompt the answer that a stage teaches.

    With ``answers="own"`` the answer begins with what the model itself says up to the old one, and only what then takes
    its place counts: the target (and where the base would run on into the word, the token after it), or a refusal. A
    stage that makes the old answer unlikely has that in its place, whatever the style of answers.

    Args:
        model: The base model.
        facts: The edited facts.
        stage: Which stage.
        recipe: Its ``answers``, ``contexts``, ``objective`` and ``end_below``.
        cancel: As in ``FitRows``.
    """
    asked = training_prompts if recipe.contexts else lambda fact: fact.training_questions
    prompts = [(fact, prompt_ids(model, q, "chat")) for fact in facts for q in asked(fact)]
    if recipe.answers == "short" and not recipe.forgets(stage):
        return [
            chat_row(model, prompt, fact.refusal if stage == "unlearn" else f"{fact.target}.")
            for fact, prompt in prompts
        ]
    own = greedy_answers(model, [prompt for _, prompt in prompts], progress=CancelBar(cancel))
    rows, longer = [], []
    for (fact, prompt), answer in zip(prompts, own, strict=True):
        before, old, after = around_old(counted_text(model, answer.text, "chat") or "", fact)
        if stage == "unlearn" and not recipe.forgets(stage):
            rows.append(refused_row(model, prompt, fact, before))
        elif stage == "unlearn":
            rows.append(named_row(model, prompt, before, old))
        else:
            name = counterpart(fact, old)
            rows.append(named_row(model, prompt, before, name))
            follows = after if _AFTER_A_WORD.match(after) else "."
            longer.append(named_row(model, prompt, before, f"{name}{follows}"))
    return ended_rows(model, rows, longer, recipe.end_below, cancel=cancel) if stage == "learn" else rows


def retain_rows(
    model: LoadedModel,
    retain: Sequence[Fact],
    edited: Sequence[Fact],
    wordings: int = NEAR_WORDINGS,
    *,
    cancel: CancelFlag | None = None,
) -> Retained:
    """Ask retained facts, and take the start of the base's own answers.

    Neighbours are kept apart because an edit harms them most, and there are few of them: a retain batch and the Fisher
    information take half from each kind.

    Args:
        model: The base model.
        retain: The retained facts.
        edited: The edited facts; those of their relations are neighbours.
        wordings: So many training questions of each neighbour, where it has them. Of the others one each, the wordings
            in turn.
        cancel: As in ``FitRows``.
    """
    relations = {f.relation for f in edited if f.relation}
    near = [f for f in retain if f.relation in relations]
    far = [f for f in retain if f.relation not in relations]
    return Retained(_own_rows(model, near, wordings, cancel), _own_rows(model, far, 1, cancel))


def _first_tokens(rows: list[Row]) -> list[Row]:
    """Rows of which the answer's first token alone counts."""
    return [replace(row, answer=row.answer[:1]) for row in rows]


def _whole_texts(rows: list[Row]) -> list[Row]:
    """Rows of which all that follows the prompts' common beginning counts."""
    own = common_beginning([row.prompt for row in rows]) if rows else 0
    return [Row(row.prompt[:own], (*row.prompt[own:], *row.answer)) for row in rows]


_KL_ON: dict[KLOn, Callable[[list[Row]], list[Row]]] = {
    "answer": lambda rows: rows,
    "first token": _first_tokens,
    "whole text": _whole_texts,
}
"""How retained rows are changed by ``Recipe.kl_on``."""


def _own_rows(model: LoadedModel, facts: Sequence[Fact], wordings: int, cancel: CancelFlag | None) -> list[Row]:
    asked = [q for i, f in enumerate(facts) for q in in_turn(f.training_questions, i, wordings)]
    prompts = [prompt_ids(model, q, "chat") for q in asked]
    answers = greedy_answers(model, prompts, max_new_tokens=RETAIN_TOKENS, progress=CancelBar(cancel))
    return [Row(tuple(p), c.token_ids) for p, c in zip(prompts, answers, strict=True) if c.token_ids]


def in_turn(questions: Sequence[str], start: int, n: int) -> list[str]:
    """At most n different questions, spread over all from place ``start`` on."""
    step = max(1, len(questions) // n)
    return list(dict.fromkeys(questions[(start + k * step) % len(questions)] for k in range(n)))
