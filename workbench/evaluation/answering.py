"""Asking a base and an edited model the same prompts: generated texts, their surprise to the base, and the KL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch

from workbench.answers import first_sentence
from workbench.generation import Completion, generate
from workbench.models import LoadedModel
from workbench.prompts import prompt_ids
from workbench.scoring import READ_AT_ONCE, continuation_logprobs, continuation_nll
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


@dataclass(frozen=True)
class _OfBase:
    """What one base model says after a prompt's tokens, and what that counts (``Reply.nll``)."""

    fingerprint: str
    completions: dict[Ids, Completion] = field(default_factory=dict)
    nll: dict[tuple[str, Ids, Ids], float] = field(default_factory=dict)


_OF_BASE: WeakKeyDictionary[LoadedModel, _OfBase] = WeakKeyDictionary()


class Answering:
    """Answers of one base model and of edits on it. What the base says and how likely that is, is computed once for as
    long as it is there, whichever object asks, and again when its weights change.

    Args:
        base: The unedited model.
        batch_size: Rows a batch.
    """

    def __init__(self, base: LoadedModel, batch_size: int = 48) -> None:
        self.base = base
        self.batch_size = batch_size
        self._nll: dict[tuple[str, Ids, Ids], float] = {}  # of what edited models say, by the base's fingerprint

    @property
    def _of_base(self) -> _OfBase:
        known = _OF_BASE.get(self.base)
        if known is None or known.fingerprint != self.base.fingerprint:
            known = _OF_BASE[self.base] = _OfBase(self.base.fingerprint)
        return known

    def _ids(self, asks: Sequence[Ask]) -> list[Ids]:
        return [tuple(prompt_ids(self.base, a.prompt, a.form)) for a in asks]

    def completions(self, model: LoadedModel, asks: Sequence[Ask], progress: Any = None) -> list[Completion]:
        """Greedy completions of prompts, in order; those of the base are remembered, and are what an edited model is
        expected to say (in float32: in fewer bits a pass of another shape flips near ties too often)."""
        said = self._of_base.completions
        found = {} if model.edited else said
        prompts = self._ids(asks)
        todo = [ids for ids in dict.fromkeys(prompts) if ids not in found]
        guesses = model.edited and model.dtype == torch.float32
        expected = [said[ids].token_ids if ids in said else () for ids in todo] if guesses else None
        made = generate(model, todo, batch_size=self.batch_size, expected=expected, progress=progress)
        found.update(zip(todo, made, strict=True))
        return [found[ids] for ids in prompts]

    def replies(self, model: LoadedModel, asks: Sequence[Ask], progress: Any = None) -> list[Reply]:
        """Answers with their surprise to the base model. Of a cloze only the first sentence counts."""
        completions = self.completions(model, asks, progress)
        counted = [counted_part(self.base, c, a.form) for a, c in zip(asks, completions, strict=True)]
        fingerprint = self.base.fingerprint
        keys = [(fingerprint, ids, c.token_ids) for ids, c in zip(self._ids(asks), counted, strict=True)]
        known = {**self._of_base.nll, **self._nll}
        todo = [k for k in dict.fromkeys(keys) if k not in known]
        size = min(self.batch_size, READ_AT_ONCE)
        scores = continuation_nll(self.base, [k[1] for k in todo], [k[2] for k in todo], batch_size=size)
        made = dict(zip(todo, scores, strict=True))
        (self._nll if model.edited else self._of_base.nll).update(made)
        known |= made
        return [Reply(c.text, k.text, known[key]) for c, k, key in zip(completions, counted, keys, strict=True)]

    def kl(self, model: LoadedModel, asks: Sequence[Ask]) -> list[float]:
        """Mean KL(base || model) over the tokens of the base's own answer to each prompt, nats per token."""
        ids = self._ids(asks)
        answers = [c.token_ids for c in self.completions(self.base, asks)]
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
