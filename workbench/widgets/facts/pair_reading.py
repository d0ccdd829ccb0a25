"""What a model makes of a pair of prompts: both as tokens side by side, and how far its metric tells them apart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from workbench.language.answer_tokens import alike
from workbench.language.contrasts import PreparedContrast, answer_steps, prepare
from workbench.language.prompts import prompt_ids, question_span
from workbench.language.scoring import read_logits
from workbench.language.tokens import token_texts
from workbench.models.load import LoadedModel
from workbench.tracing.metric import rule_of
from workbench.tracing.next_tokens import likeliest
from workbench.types import Contrast, Form, NextToken, TracedPrompt
from workbench.types.metric_words import hardly_differ
from workbench.widgets.facts.reading import SHOWN_NEXT


@dataclass(frozen=True)
class Aligned:
    """Two prompts as one model's tokens, laid beside each other.

    Args:
        pairs: Token by token, clean and corrupted; None where one prompt has none. Equal tokens at the beginning and at
            the end are paired from there; what is between stands side by side.
        same: Of each pair, whether both tokens are the same.
        own: Which pairs are the prompts' own; those around them are the chat template's.
    """

    pairs: tuple[tuple[str | None, str | None], ...]
    same: tuple[bool, ...]
    own: range

    @property
    def counts(self) -> tuple[int, int]:
        """How many tokens the two prompts have."""
        clean, corrupted = zip(*self.pairs, strict=True)
        return sum(one is not None for one in clean), sum(one is not None for one in corrupted)

    @property
    def fits(self) -> bool:
        """Whether both have as many, so that they can be paired by position."""
        return self.counts[0] == self.counts[1]


def aligned(model: LoadedModel, clean: str, corrupted: str, form: Form) -> Aligned:
    """Lay two prompts beside each other; no pass of the model is made."""
    ids = [prompt_ids(model, text, form) for text in (clean, corrupted)]
    first, second = ids
    start = alike(first, second)
    end = min(alike(first[::-1], second[::-1]), min(len(first), len(second)) - start)
    middles = [run[start : len(run) - end] for run in ids]
    between: list[tuple[int | None, int | None]] = list(zip_longest(middles[0], middles[1]))
    paired: list[tuple[int | None, int | None]] = [
        *zip(first[:start], second[:start], strict=True),
        *between,
        *zip(first[len(first) - end :], second[len(second) - end :], strict=True),
    ]
    shown = [iter(token_texts(model, run)) for run in ids]
    pairs = tuple((None if a is None else next(shown[0]), None if b is None else next(shown[1])) for a, b in paired)
    own = range(len(pairs))
    if form == "chat":
        spans = [question_span(model, text) for text in (clean, corrupted)]
        after = min(len(run) - span.stop for run, span in zip(ids, spans, strict=True))
        own = range(min(span.start for span in spans), len(pairs) - after)
    return Aligned(pairs, tuple(a == b for a, b in paired), own)


def fact_draft(model: LoadedModel, contrast: Contrast) -> dict[str, str]:
    """What a pair of prompts says of a fact, by the fields of its form: what differs is the subject and what it is
    swapped with. A pair that is no two texts says nothing."""
    clean, corrupted = contrast.clean, contrast.corrupted
    texts = [text for text in (clean, corrupted, contrast.answer, contrast.wrong) if isinstance(text, str)]
    if len(texts) < 4:
        return {}
    shown = aligned(model, texts[0], texts[1], "cloze")
    changed = [i for i, same in enumerate(shown.same) if not same]
    subject, swap = ("", "")
    if changed:
        between = shown.pairs[changed[0] : changed[-1] + 1]
        subject, swap = ("".join(pair[side] or "" for pair in between).strip() for side in (0, 1))
    answer, wrong = (text.strip() for text in texts[2:])
    return {
        "subject": subject,
        "prompt": texts[0],
        "answer": answer,
        "target": wrong,
        "swap": swap,
        "swap_answer": wrong,
    }


@dataclass(frozen=True)
class PairReading:
    """A pair of prompts as the model reads it.

    Args:
        contrast: The pair.
        aligned: Both prompts, token by token.
        prompt: The clean run, with the answers' tokens.
        metric: What is measured, in words.
        clean, corrupted: The metric of the two runs.
        after_clean, after_corrupted: The likeliest next tokens.
        seconds: How long a pass took for each token that it read.
    """

    contrast: Contrast
    aligned: Aligned
    prompt: TracedPrompt
    metric: str
    clean: float
    corrupted: float
    after_clean: tuple[NextToken, ...]
    after_corrupted: tuple[NextToken, ...]
    seconds: float

    @property
    def warning(self) -> str:
        """What is odd about the pair, with both numbers; empty where nothing is."""
        numbers = f"{self.clean:.3g} after the clean prompt and {self.corrupted:.3g} after the corrupted one"
        if hardly_differ(self.clean, self.corrupted):
            return (
                f"The {self.metric} hardly tells the two prompts apart: {numbers}. Effects on it say little. Look at "
                "the answers, or at what differs between the prompts."
            )
        if self.clean < self.corrupted:
            return (
                f"The {self.metric} is lower after the clean prompt: {numbers}. The answer is what the clean prompt "
                "should go on with; perhaps the two answers, or the two prompts, are the wrong way round."
            )
        if self.clean <= 0:
            return f"The model prefers the wrong answer after the clean prompt: its {self.metric} is {numbers}."
        return ""


def check_pair(model: LoadedModel, contrast: Contrast) -> None:
    """Raise a ValueError for a contrast that does not fit the model, as ``prepare``; no pass is made."""
    prepare(model, contrast, sequences=True)


def read_pair(model: LoadedModel, contrast: Contrast) -> PairReading:
    """Read a pair of texts.

    Args:
        model: A base model.
        contrast: Two texts, with a wrong answer.

    Raises:
        ValueError: As ``prepare``: it does not fit the model.
    """
    ready = prepare(model, contrast, sequences=True)
    assert isinstance(contrast.clean, str) and isinstance(contrast.corrupted, str) and ready.corrupted is not None
    began = time.perf_counter()
    logits = _logits(model, ready, ())
    seconds = (time.perf_counter() - began) / (2 * ready.tokens)
    whole = ready.prompt.whole_answers
    words = "log odds of the answers" if whole else rule_of("logit_diff").words.title
    steps = answer_steps(model, ready.prompt) if whole else [(1.0, (), ready.prompt)]
    rule = rule_of("log_prob" if whole else "logit_diff")
    values = torch.zeros(2)
    for sign, added, prompt in steps:
        values += sign * rule.measure(_logits(model, ready, added) if added else logits, prompt).cpu()
    clean, corrupted = (tuple(likeliest(model, row[None], SHOWN_NEXT)) for row in logits)
    return PairReading(
        contrast=contrast,
        aligned=aligned(model, contrast.clean, contrast.corrupted, contrast.form),
        prompt=ready.prompt,
        metric=words,
        clean=float(values[0]),
        corrupted=float(values[1]),
        after_clean=clean,
        after_corrupted=corrupted,
        seconds=seconds,
    )


def _logits(model: LoadedModel, ready: PreparedContrast, added: Sequence[int]) -> Tensor:
    """Logits of the last position of both runs, after some more tokens, [2, d_vocab]."""
    assert ready.clean is not None and ready.corrupted is not None
    texts = [(*run, *added) for run in (ready.clean, ready.corrupted)]
    rows = dict(read_logits(model, texts, [(), ()], 2))
    return torch.stack([rows[0][-1], rows[1][-1]]).float()
