"""What a model makes of a fact's prompt: its tokens, the traced place, and what comes next there."""

from __future__ import annotations

import time
from dataclasses import dataclass

from workbench.facts.known_table import FORMS
from workbench.language.prompts import prompt_ids, question_span, split_prompt, traced_prompt
from workbench.language.scoring import read_logits
from workbench.models.load import LoadedModel
from workbench.tracing.next_tokens import likeliest
from workbench.types import Fact, Form, TracedPrompt
from workbench.types.next_tokens import NextToken
from workbench.widgets.shared.timing import Span

SHOWN_NEXT = 5


@dataclass(frozen=True)
class Reading:
    """A fact's prompt as the model reads it.

    Args:
        form: The form.
        tokens: Of the prompt, and of the model's own words up to the traced place.
        subject: Positions of the subject's tokens.
        own: Positions of what is not the chat template's: the question and what follows the template.
        template: How many tokens the prompt has before the model's own words.
        following: The likeliest next tokens.
        seconds: How long the one pass took that gave them, for each token that it read.
        prompt: The traced text; None where there is no place to trace.
        error: Why there is none.
        repeats: Whether the traced token is a word of the prompt that the model writes once more: no answer.
    """

    form: Form
    tokens: tuple[str, ...]
    subject: tuple[int, ...]
    own: range
    template: int
    following: tuple[NextToken, ...]
    seconds: float
    prompt: TracedPrompt | None = None
    error: ValueError | None = None
    repeats: bool = False

    @property
    def corrupted(self) -> int:
        """How many tokens there are from the subject on."""
        return len(self.tokens) - min(self.subject, default=0)


def read(model: LoadedModel, fact: Fact, form: Form | None = None) -> Reading:
    """Read a fact's prompt.

    Args:
        model: A base model.
        fact: The fact.
        form: As in ``traced_prompt``. Where there is no place to trace in any, the prompt is read as it is, as chat by
            default.
    """
    prompt, error = None, None
    try:
        prompt = traced_prompt(model, fact, form=form)
    except ValueError as raised:
        error = raised
    shown: Form = prompt.form if prompt is not None else form or FORMS[0]
    text = fact.question if shown == "chat" else fact.prompt
    ids = prompt_ids(model, text, shown)
    if prompt is None:
        tokens, subject = split_prompt(model, fact, shown)
    else:
        tokens, subject = prompt.tokens, prompt.subject
    following, seconds = next_tokens(model, tuple(ids) if prompt is None else prompt.token_ids)
    said = "" if prompt is None else f"{prompt.prefix}{prompt.answer_token}".strip()
    return Reading(
        form=shown,
        tokens=tokens,
        subject=subject,
        own=question_span(model, text) if shown == "chat" else range(len(ids)),
        template=len(ids),
        following=following,
        seconds=seconds,
        prompt=prompt,
        error=error,
        repeats=shown == "chat" and bool(said) and fact.prompt.startswith(said),
    )


def next_tokens(model: LoadedModel, token_ids: tuple[int, ...]) -> tuple[tuple[NextToken, ...], float]:
    """The likeliest next tokens, and the seconds of the pass for each token."""
    began = time.perf_counter()
    logits = next(iter(read_logits(model, [token_ids], [()], 1)))[1]
    return likeliest(model, logits, SHOWN_NEXT), (time.perf_counter() - began) / len(token_ids)


def seconds_of_maps(model: LoadedModel, tokens: int, seconds_per_token: float) -> Span:
    """About how long the first maps of a text take.

    What is patched in a layer goes through the layers above it, half of them on average, and only the tokens from the
    first corrupted one on differ between the runs: every place of the residual stream (then through half of those
    tokens on average), every head and every MLP of every layer.

    Args:
        model: The model.
        tokens: From the first corrupted one on.
        seconds_per_token: Of one pass.
    """
    shape = model.shape
    least = seconds_per_token * shape.n_layers / 2 * tokens * (tokens / 2 + shape.n_heads + 1)
    return Span(least, 2 * least)  # a pass of few tokens takes longer for each than one of many
