"""Contexts: texts in the form in which the model answers, and where their subject's last tokens are.

The key of a fact is read at the subject's last token, at every occurrence in the prompt and in the reply as far as it
is begun: "The capital of France is" in the model's own words names the subject a second time. Positions are found by
offsets in the whole text (``find_subject``), never by tokenising the subject alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.editing.training.fit_rows import wanted_rows
from workbench.editing.training.rows import Row
from workbench.facts.retained import RETAIN_TOKENS
from workbench.language.answer_tokens import answer_ids
from workbench.language.generation import greedy_answers
from workbench.language.prompt_text import asked_subject_runs
from workbench.language.prompts import prompt_ids
from workbench.language.tokens import decoded
from workbench.models.load import LoadedModel
from workbench.types import Fact, Form, StageName, TrainedRecipe
from workbench.types.cancelling import CancelBar, CancelFlag

ABOUT = (
    "Tell me about {subject}.",
    "Write a short paragraph about {subject}.",
    "What do you know about {subject}?",
    "Describe {subject} in a few words.",
    "I am reading about {subject}. What should I know?",
    "Name something interesting about {subject}.",
)
"""What is asked of a subject without asking the fact: the update is to leave what the model says then."""


class SubjectMissing(ValueError):
    """A context does not hold its fact's subject."""


@dataclass(frozen=True)
class Context:
    """A text with the places of its subject.

    Args:
        row: The prompt, the answer, and from which of the answer's tokens on it counts.
        subject: Positions of the subject's last token, one an occurrence, within prompt and answer; at least one. None
            stands in the tokens that count, or after them.
        form: Of the prompt.
        fact: Which of several facts it is about.
    """

    row: Row
    subject: tuple[int, ...]
    form: Form = "chat"
    fact: int = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """Prompt and answer, but for the last token, after which nothing is predicted."""
        return (self.row.prompt + self.row.answer)[:-1]


def context_of(model: LoadedModel, row: Row, subject: str, *, form: Form = "chat", fact: int = 0) -> Context:
    """Find the subject's last tokens in a row, outside the context of an edited model.

    Raises:
        SubjectMissing: The text before what counts does not hold the subject, or in the edits' context alone; the
            message shows it.
    """
    given = row.prompt + row.answer[: row.departs]
    try:
        runs = asked_subject_runs(model, given, subject, form)
    except ValueError as error:
        raise SubjectMissing(
            f"The subject {subject!r} is not in the context {decoded(model, given)!r}, so it has no key there. Write "
            "it as the fact's texts do, or leave the context out."
        ) from error
    return Context(row, tuple(run[-1] for run in runs), form, fact)


def training_contexts(
    model: LoadedModel,
    facts: Sequence[Fact],
    stage: StageName,
    recipe: TrainedRecipe,
    *,
    clozes: bool = True,
    cancel: CancelFlag | None = None,
) -> list[Context]:
    """What a stage teaches, in the forms in which the model answers: the training questions and their contexts through
    the chat template, each with the base's own sentence and the new answer in the old one's place; and the cloze.

    Args:
        model: The base model.
        facts: The edited facts.
        stage: What is taught: a breaking off, or the target.
        recipe: Its ``answers``, ``contexts`` and ``end_below``.
        clozes: With the fact's own cloze as plain text, where a target is taught.
        cancel: As in ``rewrite``.

    Raises:
        SubjectMissing: A training question does not name the subject.
    """
    out: list[Context] = []
    for i, fact in enumerate(facts):
        rows = wanted_rows(model, [fact], stage, recipe, cancel=cancel)
        out += [context_of(model, row, fact.subject, fact=i) for row in rows]
        if clozes and stage == "learn":
            prompt = prompt_ids(model, fact.prompt, "cloze")
            answer = answer_ids(model, fact.target, "cloze", before=decoded(model, prompt))
            row = Row(tuple(prompt), tuple(answer))
            out.append(context_of(model, row, fact.subject, form="cloze", fact=i))
    return out


def about_contexts(
    model: LoadedModel,
    facts: Sequence[Fact],
    *,
    wordings: Sequence[str] = ABOUT,
    tokens: int = RETAIN_TOKENS,
    cancel: CancelFlag | None = None,
) -> list[Context]:
    """Other questions about the facts' subjects, with what the base says to them; all of that counts."""
    asked = [(i, fact, text.format(subject=fact.subject)) for i, fact in enumerate(facts) for text in wordings]
    return _own_contexts(model, asked, tokens, cancel)


def question_contexts(
    model: LoadedModel,
    facts: Sequence[Fact],
    questions: Sequence[Sequence[str]] | None = None,
    *,
    tokens: int = RETAIN_TOKENS,
    cancel: CancelFlag | None = None,
) -> list[Context]:
    """Questions about facts, with what the base says to them; keys of the reply's own naming of the subject included.

    Args:
        model: The base model.
        facts: The facts.
        questions: Of each; their own questions by default. One that does not name the subject is refused.
        tokens: Most tokens of a reply.
        cancel: As in ``rewrite``.
    """
    given = [(fact.question,) for fact in facts] if questions is None else questions
    asked = [(i, fact, text) for i, fact in enumerate(facts) for text in given[i]]
    return _own_contexts(model, asked, tokens, cancel)


def _own_contexts(
    model: LoadedModel, asked: Sequence[tuple[int, Fact, str]], tokens: int, cancel: CancelFlag | None
) -> list[Context]:
    prompts = [prompt_ids(model, text, "chat") for _, _, text in asked]
    replies = greedy_answers(model, prompts, max_new_tokens=tokens, progress=CancelBar(cancel))
    out: list[Context] = []
    for (i, fact, _), prompt, reply in zip(asked, prompts, replies, strict=True):
        if not reply.token_ids:
            continue
        whole = Row(tuple(prompt), reply.token_ids)
        begun = replace(whole, departs=max(len(reply.token_ids) - 1, 0))  # occurrences anywhere in what is read
        found = context_of(model, begun, fact.subject, fact=i)
        out.append(replace(found, row=whole))
    return out
