"""What a trace measures: one record a metric, from the last position's logits to a number, with its words for axes.

A metric is added by one row of ``METRICS`` (and its name in ``Metric``): maps keep its words, which figures and
panels read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from workbench.types import TracedPrompt
from workbench.types.metric_words import LOGIT_DIFF, PROBABILITY, MetricWords

Metric = Literal["probability", "logit_diff"]


@dataclass(frozen=True, kw_only=True)
class MetricRule:
    """One metric.

    Args:
        words: Its name and what figures call it.
        measure: From last-position logits [rows, d_vocab], in float32, and the traced text to one number a row.
    """

    words: MetricWords
    measure: Callable[[Tensor, TracedPrompt], Tensor]


def probability(logits: Tensor, prompt: TracedPrompt) -> Tensor:
    """The probability of the traced token, [rows]."""
    return logits.softmax(-1)[:, prompt.answer_id]


def logit_diff(logits: Tensor, prompt: TracedPrompt) -> Tensor:
    """The traced token's logit minus that of the token it is compared with, [rows].

    Raises:
        ValueError: The text has no second token.
    """
    if prompt.other_id is None:
        raise ValueError("logit_diff needs a second token to compare with.")
    return logits[:, prompt.answer_id] - logits[:, prompt.other_id]


METRICS: dict[str, MetricRule] = {
    rule.words.name: rule
    for rule in (
        MetricRule(words=PROBABILITY, measure=probability),
        MetricRule(words=LOGIT_DIFF, measure=logit_diff),
    )
}


def check_metric(metric: str) -> None:
    """Raise a ValueError for an unknown metric."""
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {get_args(Metric)}, got {metric!r}.")
