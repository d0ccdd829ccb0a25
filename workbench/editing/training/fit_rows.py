"""Which rows a fit has: those that each stage teaches, and those that are held in place."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workbench.editing.training.rows import Row, around_old, chat_row, named_row, refused_row
from workbench.editing.training.word_ends import ended_rows
from workbench.facts.training_wordings import training_prompts
from workbench.language.answers import counterpart
from workbench.language.generation import greedy_answers
from workbench.language.prompts import prompt_ids
from workbench.models.load import LoadedModel
from workbench.types import Fact, Recipe, StageName

RETAIN_TOKENS = 12
NEAR_WORDINGS = 3
_AFTER_A_WORD = re.compile(r"""[\s.,;:!?)\]"'*]""")


def wanted_rows(model: LoadedModel, facts: Sequence[Fact], stage: StageName, recipe: Recipe) -> list[Row]:
    """Every training prompt with the answer that a stage teaches. With ``answers="own"`` it begins with what the model
    itself says up to the old answer, and only what then takes its place counts: the target (and where the base would
    run on into the word, the token after it), or a refusal. A stage that makes the old answer unlikely has that in its
    place, whatever the style of answers."""
    asked = training_prompts if recipe.contexts else lambda fact: fact.training_questions
    prompts = [(fact, prompt_ids(model, q, "chat")) for fact in facts for q in asked(fact)]
    if recipe.answers == "short" and not recipe.forgets(stage):
        return [
            chat_row(model, prompt, fact.refusal if stage == "unlearn" else f"{fact.target}.")
            for fact, prompt in prompts
        ]
    own = greedy_answers(model, [prompt for _, prompt in prompts])
    rows, longer = [], []
    for (fact, prompt), said in zip(prompts, own, strict=True):
        before, old, after = around_old(said.text, fact)
        if stage == "unlearn" and not recipe.forgets(stage):
            rows.append(refused_row(model, prompt, fact, before))
        elif stage == "unlearn":
            rows.append(named_row(model, prompt, before, old))
        else:
            name = counterpart(fact, old)
            rows.append(named_row(model, prompt, before, name))
            follows = after if _AFTER_A_WORD.match(after) else "."
            longer.append(named_row(model, prompt, before, f"{name}{follows}"))
    return ended_rows(model, rows, longer) if stage == "learn" else rows


def retain_rows(model: LoadedModel, retain: Sequence[Fact], edited: Sequence[Fact]) -> tuple[list[Row], list[Row]]:
    """Training questions of retained facts with the start of the base's own answers: rows of neighbours (facts of an
    edited fact's relation), ``NEAR_WORDINGS`` of each, and rows of the others, one of each, the wordings in turn.

    Neighbours are kept apart because an edit harms them most, and there are few of them: a retain batch and the Fisher
    information take half from each kind.
    """
    relations = {f.relation for f in edited if f.relation}
    near = [f for f in retain if f.relation in relations]
    far = [f for f in retain if f.relation not in relations]
    return _own_rows(model, near, NEAR_WORDINGS), _own_rows(model, far, 1)


def _own_rows(model: LoadedModel, facts: Sequence[Fact], wordings: int) -> list[Row]:
    asked = [q for i, f in enumerate(facts) for q in _in_turn(f.training_questions, i, wordings)]
    prompts = [prompt_ids(model, q, "chat") for q in asked]
    answers = greedy_answers(model, prompts, max_new_tokens=RETAIN_TOKENS)
    return [Row(tuple(p), c.token_ids) for p, c in zip(prompts, answers, strict=True) if c.token_ids]


def _in_turn(questions: Sequence[str], start: int, n: int) -> list[str]:
    """At most n different questions, spread over all from place ``start`` on."""
    step = max(1, len(questions) // n)
    return list(dict.fromkeys(questions[(start + k * step) % len(questions)] for k in range(n)))
