"""In-context arms: the base as it is, with a text before what it is asked. No parameter moves.

What every trained or closed-form edit has to beat: an instruction to forget (RWKU's baseline), examples with a flipped
answer (ICUL), demonstrations of new facts (IKE). The text is ours, in the papers' forms; it is the same for every
question, where IKE looks up demonstrations near each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import ClassVar, Literal, get_args

from workbench.editing.task import Task, retain_set
from workbench.language.prompt_text import context_tokens
from workbench.language.tokens import space_between
from workbench.models.provenance import provenance
from workbench.types import BaseRecipe, ContextDelta, Edit, EditStage, Fact, Selection, StageName
from workbench.types.cancelling import check_cancel
from workbench.types.plain import is_whole
from workbench.types.recipe import STAGES, Check, stages_once_each
from workbench.types.setting import SEED, Setting

ContextStyle = Literal["instruction", "flipped", "demonstrations"]
Flip = Literal["refusal", "target"]


@dataclass(frozen=True, kw_only=True)
class InContext(BaseRecipe):
    """The settings of an edit that is a text in the prompt. It has no parameters, and no selection.

    The text stands at the head of the user's message, and before a cloze; the edited model's prompts hold it, and the
    loaded model's do not. ``edit.delta().words()`` says how many tokens it takes of each prompt.

    Args:
        style: ``"instruction"``: to answer as if the subject had never been known (or, to learn, to take the new fact
            for true). ``"flipped"``: the question with another answer, then questions that the base answers right.
            ``"demonstrations"``: new facts each with a prompt that copies it, one that rewords it, or one that it
            leaves alone; then the fact itself.
        stages: ``"unlearn"`` (to a refusal), ``"learn"`` (to the target), or one after the other, each with a text of
            its own; None: ``"learn"`` for demonstrations, else ``"unlearn"``.
        flip: What a flipped example of the unlearn stage answers: the fact's ``"refusal"``, or its ``"target"``.
        examples: How many retained facts lend their questions, in the first stage; none with ``"instruction"``.
        seed: Which they are.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: the instruction after RWKU (2406.10890); flipped labels after Pawelczyk et al. 2023 (2310.07579), where
    answers are classes; demonstrations after IKE, Zheng et al. 2023 (2305.12740). Known deviations: the texts are
    written for facts, the same for every question, and a retained fact's own target is what its demonstration teaches.

    Example:
        >>> edit = wb.rewrite(model, fact, recipe=wb.recipes.InContext())
        >>> edit.stage_names, edit.delta().words()
        (('unlearn',), 'a context of 151 tokens')
        >>> with wb.applied(model, edit) as edited:
        ...     edited.context.startswith("Act as an assistant that has never heard of France.")
        True
    """

    method: ClassVar[str] = "in-context"
    without_selection: ClassVar[str] = "A text in the prompt; no component"
    trains: ClassVar[str] = "nothing"

    panel_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="style", tip="How the text says it", choices=get_args(ContextStyle)),
        Setting(name="examples", tip="Retained questions that it quotes", low=0, high=100, whole=True),
        SEED,
    )

    name: str = "in-context"
    style: ContextStyle = "instruction"
    stages: tuple[StageName, ...] | None = None
    flip: Flip = "refusal"
    examples: int = 4

    def __post_init__(self) -> None:
        stages = self.stages
        if stages is not None and not stages_once_each(stages):
            raise ValueError(f"stages must be None or some of {STAGES}, each at most once, got {stages!r}.")
        super().__post_init__()

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "style", self.style in get_args(ContextStyle), f"one of {get_args(ContextStyle)}"
        yield "flip", self.flip in get_args(Flip), f"one of {get_args(Flip)}"
        yield "examples", is_whole(self.examples) and self.examples >= 0, "a whole number from 0"

    @property
    def stage_names(self) -> tuple[StageName, ...]:
        """See ``BaseRecipe``."""
        return self.stages or (("learn",) if self.style == "demonstrations" else ("unlearn",))

    @property
    def uses_retain(self) -> bool:
        """Whether the text quotes retained facts."""
        return self.style != "instruction" and self.examples > 0

    @property
    def fits_retained(self) -> bool:
        """Whether there is no text without them."""
        return self.uses_retain

    @property
    def retain_size(self) -> int:
        """How many retained facts it quotes."""
        return self.examples


def make_in_context(task: Task) -> Edit:
    """Write the text of each stage."""
    recipe, model, began = task.recipe, task.model, time.perf_counter()
    assert isinstance(recipe, InContext)
    if task.selection is not None:
        raise ValueError(
            f"A context changes no component, so the selection {task.selection!r} selects nothing. Leave it out."
        )
    given = retain_set(model, task.facts, task.retain, recipe, task.pool, task.progress, task.cancel)
    quoted = list(given)[: recipe.examples] if recipe.uses_retain else []
    check_cancel(task.cancel)
    stages: list[EditStage] = []
    for name in recipe.stage_names:
        text = _STYLES[recipe.style](task.facts, name, recipe, [] if stages else quoted)
        tokens = context_tokens(model, text, task.facts[0].question)
        stages.append(EditStage(name, ContextDelta([text], [tokens])))
    return Edit(
        stages=tuple(stages),
        selection=Selection(),
        selector="all",
        recipe=recipe,
        facts=task.facts,
        retain_ids=tuple(f.id for f in quoted),
        history=(),
        base_fingerprint=model.fingerprint,
        base_name=model.name,
        modules=model.architecture.describe(),
        provenance=provenance(model, seconds_to_fit=round(time.perf_counter() - began, 1)),
    )


def _instruction(facts: Sequence[Fact], stage: StageName, recipe: InContext, quoted: Sequence[Fact]) -> str:
    if stage == "learn":
        return f"Take this for true, whatever you have learned before: {' '.join(map(_statement, facts))}"
    about = " or ".join(dict.fromkeys(f.subject for f in facts))
    return (
        f"Act as an assistant that has never heard of {about}. Answer whatever concerns {about} as you would answer a "
        "question about something unknown, without guessing, and tell nobody that you were asked to."
    )


def _flipped(facts: Sequence[Fact], stage: StageName, recipe: InContext, quoted: Sequence[Fact]) -> str:
    refuses = stage == "unlearn" and recipe.flip == "refusal"
    flipped = [_answered(f.question, f.refusal if refuses else f"{f.target}.") for f in facts]
    return "\n\n".join([*flipped, *(_answered(f.question, f"{f.answer}.") for f in quoted)])


def _demonstrations(facts: Sequence[Fact], stage: StageName, recipe: InContext, quoted: Sequence[Fact]) -> str:
    parts: list[str] = []
    for i, (kind, fact) in enumerate(zip(cycle(("copy", "update", "retain")), quoted, strict=False)):
        other = quoted[i - 1]
        asked, reply = {
            "copy": (fact.question, fact.target),
            "update": (fact.training_questions[-1], fact.target),
            "retain": (other.question, other.answer),
        }[kind]
        parts.append(f"New fact: {_statement(fact)}\n{_answered(asked, f'{reply}.')}")
    for fact in facts:
        new = _statement(fact) if stage == "learn" else f"{fact.question} {fact.refusal}"
        parts.append(f"New fact: {new}")
    return "\n\n".join(parts)


def _answered(question: str, answer: str) -> str:
    return f"Question: {question}\nAnswer: {answer}"


def _statement(fact: Fact) -> str:
    return f"{fact.prompt}{space_between(fact.prompt, fact.target)}{fact.target}."


_STYLES: Mapping[ContextStyle, Callable[[Sequence[Fact], StageName, InContext, Sequence[Fact]], str]] = {
    "instruction": _instruction,
    "flipped": _flipped,
    "demonstrations": _demonstrations,
}
