"""What a trace measures: one record a metric, from the last position's logits to a number, with its words for axes.

A metric is added by one row of ``METRICS`` (and its name in ``MetricName``): maps keep its words, which figures and
panels read. A function of one's own becomes a record too (``rule_of``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from workbench.types import TracedPrompt
from workbench.types.metric_words import KL, LOG_PROB, LOGIT_DIFF, PROBABILITY, RANK, MetricWords

MetricName = Literal["probability", "logit_diff", "log_prob", "rank", "kl"]
MetricFunction = Callable[[Tensor], Tensor]
"""From the last position's logits [batch, d_vocab], in float32, to one number a row, [batch]; each row by itself."""
Metric = MetricName | MetricFunction


@dataclass(frozen=True, kw_only=True)
class MetricRule:
    """One metric.

    Args:
        words: Its name and what figures call it.
        measure: From last-position logits [rows, d_vocab], in float32, and the traced text to one number a row.
        gradient: Whether it has one: attribution needs it.
        against_clean: It compares with the clean run: ``measure`` takes that run's logits [1, d_vocab] as well.
    """

    words: MetricWords
    measure: Callable[..., Tensor]
    gradient: bool = True
    against_clean: bool = False


def probability(logits: Tensor, prompt: TracedPrompt) -> Tensor:
    """The probability of the traced token, or of any of several, [rows]."""
    if len(prompt.answers) > 1:
        return logits.softmax(-1)[:, list(prompt.answers)].sum(-1)
    return logits.softmax(-1)[:, prompt.answer_id]


def log_prob(logits: Tensor, prompt: TracedPrompt) -> Tensor:
    """The log probability of the traced token, or of any of several, in nats, [rows]."""
    of = logits.log_softmax(-1)
    return of[:, list(prompt.answers)].logsumexp(-1) if len(prompt.answers) > 1 else of[:, prompt.answer_id]


def logit_diff(logits: Tensor, prompt: TracedPrompt) -> Tensor:
    """The traced token's logit minus that of the token it is compared with, [rows]. Of several tokens the logit is that
    of any of them: the log of the sum of their exponentials, so that differences are log odds as for single ones.

    Raises:
        ValueError: The text has no second token.
    """
    if prompt.other_id is None:
        raise ValueError("logit_diff needs a second token to compare with: give the contrast a wrong= answer.")
    if max(len(prompt.answers), len(prompt.others)) > 1:
        return logits[:, list(prompt.answers)].logsumexp(-1) - logits[:, list(prompt.others)].logsumexp(-1)
    return logits[:, prompt.answer_id] - logits[:, prompt.other_id]


def rank(logits: Tensor, prompt: TracedPrompt) -> Tensor:
    """How many tokens are likelier than the traced one, or than the likeliest of several, [rows]."""
    best = logits[:, list(prompt.answers or (prompt.answer_id,))].amax(-1, keepdim=True)
    return (logits > best).sum(-1).float()


def kl(logits: Tensor, prompt: TracedPrompt, clean: Tensor) -> Tensor:
    """The divergence of each row's next-token distribution from that of the clean run, KL(clean || row), in nats."""
    of = clean.float().log_softmax(-1)
    return (of.exp() * (of - logits.log_softmax(-1))).sum(-1)


def check_whole_answers(metric: Metric) -> bool:
    """Whether a metric measures whole answers of more than one token; else it measures no answer at all.

    Raises:
        ValueError: It is about one token.
    """
    if callable(metric) or METRICS[metric].against_clean:
        return False
    if metric not in ("logit_diff", "log_prob"):
        raise ValueError(
            f"metric={metric!r} is about one token, and an answer of this contrast has more. Use 'log_prob' or "
            "'logit_diff' (the difference of log probabilities), or give the first token."
        )
    return True


METRICS: dict[str, MetricRule] = {
    rule.words.name: rule
    for rule in (
        MetricRule(words=PROBABILITY, measure=probability),
        MetricRule(words=LOGIT_DIFF, measure=logit_diff),
        MetricRule(words=LOG_PROB, measure=log_prob),
        MetricRule(words=RANK, measure=rank, gradient=False),
        MetricRule(words=KL, measure=kl, against_clean=True),
    )
}


def check_metric(metric: Metric) -> None:
    """Raise a ValueError for an unknown metric."""
    if not callable(metric) and metric not in METRICS:
        raise ValueError(f"metric must be one of {tuple(METRICS)}, or a function of logits, got {metric!r}.")


def metric_name(metric: Metric) -> str:
    """What a result calls a metric: a function by its own name."""
    if not callable(metric):
        return metric
    name = getattr(metric, "__name__", type(metric).__name__)
    return "own metric" if name == "<lambda>" else name


def rule_of(metric: Metric) -> MetricRule:
    """The record of a metric, or one that is made of a function.

    Example:
        >>> from workbench.tracing.metric import rule_of
        >>> def entropy(logits):
        ...     return torch.distributions.Categorical(logits=logits).entropy()
        >>> rule_of(entropy).words.scale
        'effect on entropy'
    """
    check_metric(metric)
    if not callable(metric):
        return METRICS[metric]
    name = metric_name(metric)

    def measure(logits: Tensor, prompt: TracedPrompt) -> Tensor:
        return _checked(metric(logits), logits, name)

    return MetricRule(words=MetricWords(name=name, title=name, unit=name), measure=measure)


def _checked(values: Any, logits: Tensor, name: str) -> Tensor:
    """What a function gave, as one finite number a row.

    Raises:
        ValueError: It has another shape, a number that is none, or no gradient where one is needed.
    """
    rows = len(logits)
    if not isinstance(values, Tensor) or values.shape != (rows,):
        got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(
            f"The metric {name!r} must take logits [batch, d_vocab] and return a tensor [batch]: for logits of shape "
            f"{tuple(logits.shape)} it returned {got} and not ({rows},)."
        )
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"The metric {name!r} returned a number that is not finite: {values.detach().tolist()}.")
    if torch.is_grad_enabled() and logits.requires_grad and not values.requires_grad:
        raise ValueError(
            f"The metric {name!r} has no gradient (a comparison, argmax, .detach() or .item() in it?), which "
            "attribution needs. Use method='patching'."
        )
    return values.float()
