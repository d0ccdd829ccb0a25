"""Asking a base and an edited model the same prompts: generated texts, their surprise to the base, and the KL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.language.answers import classify
from workbench.language.generation import MAX_NEW_TOKENS, Completion, greedy_answers
from workbench.language.prompts import begun_reply, prompt_ids
from workbench.language.replies import counted_part
from workbench.language.scoring import READ_AT_ONCE, cached_nll, continuation_logprobs
from workbench.models.cache import Ids
from workbench.models.load import LoadedModel
from workbench.types import AnswerClass, Fact, Form


@dataclass(frozen=True)
class Ask:
    """A prompt in its form, and the beginning of the reply, from which the model goes on."""

    form: Form
    prompt: str
    start: str = ""


def begun_by_cloze(fact: Fact, question: str) -> Ask:
    """A chat question with the reply begun by the fact's cloze, so that the answer is what comes next."""
    return Ask("chat", question, fact.prompt)


@dataclass(frozen=True)
class Reply:
    """What was generated, what of it counts (None: it is a thought without end, and answers nothing), and the mean
    negative log-likelihood of that under the base (nats per token)."""

    text: str
    counted: str | None
    nll: float

    def label(self, fact: Fact, taught: Sequence[Fact] | None = None) -> AnswerClass:
        """What the reply is as an answer to a fact's question; ``taught`` as in ``classify``."""
        return classify(self.counted or "", fact, nll=self.nll, taught=taught)


class Answering:
    """Asks a base model and its edits. What each answers, and how likely that is to the base, is in ``model.cache`` of
    each, so that it is computed once, whoever asks.

    Args:
        base: The model that others are compared with: the unedited one, or that under an edit of an edited model.
        batch_size: Rows a batch.
        max_new_tokens: Longest answer, where no other length is asked for.
    """

    def __init__(self, base: LoadedModel, batch_size: int = 48, *, max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        self.base = base
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens

    def prompt_ids(self, asks: Sequence[Ask], model: LoadedModel | None = None) -> list[Ids]:
        """Token ids of prompts as a model reads them (None: the base), each with the start of its reply."""
        prompts = [(prompt_ids(model or self.base, ask.prompt, ask.form), ask) for ask in asks]
        return [tuple(begun_reply(self.base, ids, ask.start, ask.form)) for ids, ask in prompts]

    def completions(
        self,
        model: LoadedModel,
        asks: Sequence[Ask],
        progress: Any = None,
        *,
        max_new_tokens: int | None = None,
    ) -> list[Completion]:
        """Greedy completions of prompts, in order; those of the base are what an edited model is expected to say (in
        float32: in fewer bits a pass of another shape flips near ties too often)."""
        return self._complete(model, self.prompt_ids(asks, model), progress, max_new_tokens)

    def _complete(
        self, model: LoadedModel, prompts: Sequence[Ids], progress: Any, max_new_tokens: int | None
    ) -> list[Completion]:
        under = model.base if model is self.base else self.base  # of sequential edits the base is an edited model
        return greedy_answers(
            model,
            prompts,
            max_new_tokens=self.max_new_tokens if max_new_tokens is None else max_new_tokens,
            batch_size=self.batch_size,
            drafts=under if model.edited and model.dtype == torch.float32 else None,
            progress=progress,
        )

    def replies(
        self,
        model: LoadedModel,
        asks: Sequence[Ask],
        progress: Any = None,
        *,
        max_new_tokens: int | None = None,
    ) -> list[Reply]:
        """Answers with their surprise to the base model, each of what counts of it (``counted_part``). The base reads
        them after the prompt as it is, without the context of an edit."""
        prompts = self.prompt_ids(asks)
        completions = self.completions(model, asks, progress, max_new_tokens=max_new_tokens)
        counted = [counted_part(self.base, c, ask.form) for ask, c in zip(asks, completions, strict=True)]

        parts = [Completion("", ()) if part is None else part for part in counted]
        before = [
            (*prompt, *c.token_ids[: _start_of(c, part)])
            for prompt, c, part in zip(prompts, completions, parts, strict=True)
        ]
        size = min(self.batch_size, READ_AT_ONCE)
        nll = cached_nll(self.base, before, [part.token_ids for part in parts], batch_size=size)
        said = (None if part is None else part.text for part in counted)
        return [Reply(*of) for of in zip((c.text for c in completions), said, nll, strict=True)]

    def kl(self, model: LoadedModel, asks: Sequence[Ask], *, max_new_tokens: int | None = None) -> list[float]:
        """Mean KL(base || model) over the tokens of the base's own answer to each prompt, nats per token."""
        ids, edited_ids = self.prompt_ids(asks), self.prompt_ids(asks, model)
        answers = [c.token_ids for c in self._complete(self.base, ids, None, max_new_tokens)]
        out = [float("nan")] * len(asks)
        size = 16  # both models' log-probabilities are held for one batch: size * tokens * d_vocab numbers
        for start in range(0, len(asks), size):
            part = slice(start, start + size)
            reference = dict(continuation_logprobs(self.base, ids[part], answers[part], batch_size=size))
            for i, edited in continuation_logprobs(model, edited_ids[part], answers[part], batch_size=size):
                base = reference[i]
                kl = torch.nn.functional.kl_div(edited, base, reduction="none", log_target=True).sum(-1).mean()
                out[start + i] = max(float(kl), 0.0)
        return out


def _start_of(completion: Completion, part: Completion) -> int:
    """Where in a completion the tokens of the part that counts begin."""
    whole, own = completion.token_ids, part.token_ids
    return next((i for i in range(len(whole) - len(own) + 1) if whole[i : i + len(own)] == own), 0)


def check_answering(answering: Answering, model: LoadedModel) -> None:
    """Raise a ValueError if it asks another base than this one."""
    if answering.base.fingerprint != model.fingerprint:
        raise ValueError(
            f"answering= gives the answers of another base ({answering.base.name!r}) than the model ({model.name!r}). "
            "Make one for this model: Answering(model)."
        )
