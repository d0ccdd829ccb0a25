"""Asking a base and an edited model the same prompts: generated texts, their surprise to the base, and the KL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.language.answers import first_sentence
from workbench.language.generation import Completion, generate, greedy_answers, said_before
from workbench.language.prompts import prompt_ids
from workbench.language.scoring import READ_AT_ONCE, continuation_logprobs, continuation_nll
from workbench.models.cache import Remembered
from workbench.models.load import LoadedModel
from workbench.types import Form


@dataclass(frozen=True)
class Ask:
    """A prompt in its form."""

    form: Form
    prompt: str


@dataclass(frozen=True)
class Reply:
    """What was generated, what of it counts, and the mean negative log-likelihood of that under the base (nats per
    token)."""

    text: str
    counted: str
    nll: float


def counted_part(model: LoadedModel, said: Completion, form: Form) -> Completion:
    """What of a completion counts: of a cloze the first sentence, with the least tokens that hold it, else all."""
    sentence = first_sentence(said.text)
    if form == "chat" or sentence == said.text:
        return said
    starts = (said.token_ids[:n] for n in range(1, len(said.token_ids)))
    held = (ids for ids in starts if model.tokenizer.decode(ids, skip_special_tokens=True).strip().startswith(sentence))
    return Completion(sentence, next(held, said.token_ids))


Ids = tuple[int, ...]

_NLL: Remembered[dict[tuple[Ids, Ids], float]] = Remembered(dict)
"""Of base models: how likely to them is what they say themselves (``Reply.nll``), by prompt and answer."""


class Answering:
    """Answers of one base model and of edits on it. What the base says (``greedy_answers``) and how likely that is, is
    computed once for as long as it is there, whichever object asks, and again when its weights change.

    Args:
        base: The unedited model.
        batch_size: Rows a batch.
    """

    def __init__(self, base: LoadedModel, batch_size: int = 48) -> None:
        self.base = base
        self.batch_size = batch_size
        self._own: Remembered[dict[tuple[Ids, Ids], float]] = Remembered(dict)  # the same of what edited models say

    def _ids(self, asks: Sequence[Ask]) -> list[Ids]:
        return [tuple(prompt_ids(self.base, a.prompt, a.form)) for a in asks]

    def completions(self, model: LoadedModel, asks: Sequence[Ask], progress: Any = None) -> list[Completion]:
        """Greedy completions of prompts, in order; those of the base are remembered, and are what an edited model is
        expected to say (in float32: in fewer bits a pass of another shape flips near ties too often)."""
        return self._said(model, self._ids(asks), progress)

    def _said(self, model: LoadedModel, prompts: Sequence[Ids], progress: Any) -> list[Completion]:
        options: dict[str, Any] = {"batch_size": self.batch_size, "progress": progress}
        if not model.edited:
            return greedy_answers(model, prompts, **options)
        todo = list(dict.fromkeys(prompts))
        if model.dtype == torch.float32:
            options["expected"] = [said.token_ids if said else () for said in said_before(self.base, todo)]
        found = dict(zip(todo, generate(model, todo, **options), strict=True))
        return [found[ids] for ids in prompts]

    def replies(self, model: LoadedModel, asks: Sequence[Ask], progress: Any = None) -> list[Reply]:
        """Answers with their surprise to the base model. Of a cloze only the first sentence counts."""
        prompts = self._ids(asks)
        completions = self._said(model, prompts, progress)
        counted = [counted_part(self.base, c, a.form) for a, c in zip(asks, completions, strict=True)]
        keys = [(ids, c.token_ids) for ids, c in zip(prompts, counted, strict=True)]
        of_base = _NLL.of(self.base)
        known = of_base | self._own.of(self.base)
        todo = [key for key in dict.fromkeys(keys) if key not in known]
        size = min(self.batch_size, READ_AT_ONCE)
        scores = continuation_nll(self.base, [ids for ids, _ in todo], [said for _, said in todo], batch_size=size)
        made = dict(zip(todo, scores, strict=True))
        (self._own.of(self.base) if model.edited else of_base).update(made)
        known |= made
        return [Reply(c.text, k.text, known[key]) for c, k, key in zip(completions, counted, keys, strict=True)]

    def kl(self, model: LoadedModel, asks: Sequence[Ask]) -> list[float]:
        """Mean KL(base || model) over the tokens of the base's own answer to each prompt, nats per token."""
        ids = self._ids(asks)
        answers = [c.token_ids for c in self._said(self.base, ids, None)]
        out = [float("nan")] * len(asks)
        size = 16  # both models' log-probabilities are held for one batch: size * tokens * d_vocab numbers
        for start in range(0, len(asks), size):
            part = slice(start, start + size)
            reference = dict(continuation_logprobs(self.base, ids[part], answers[part], batch_size=size))
            for i, edited in continuation_logprobs(model, ids[part], answers[part], batch_size=size):
                base = reference[i]
                kl = torch.nn.functional.kl_div(edited, base, reduction="none", log_target=True).sum(-1).mean()
                out[start + i] = max(float(kl), 0.0)
        return out


def check_answering(answering: Answering, model: LoadedModel) -> None:
    """Raise a ValueError if the base whose answers were kept is not this one."""
    if answering.base.fingerprint != model.fingerprint:
        raise ValueError(
            f"answering= keeps the answers of another base ({answering.base.name!r}) than the model ({model.name!r}). "
            "Make one for this model: Answering(model)."
        )
