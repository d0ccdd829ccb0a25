"""What is traced: a fact's or a contrast's two inputs (``corruption.set_up`` makes them), and options of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypedDict, get_args

import torch
from torch import Tensor

from workbench.tracing.metric import Metric, MetricRule, check_metric, metric_name, rule_of
from workbench.types import Contrast, Fact, FactSet, Form, TracedPrompt
from workbench.types.effect import Corruption
from workbench.types.metric_words import LOG_ODDS, MetricWords, hardly_differ
from workbench.types.plain import check_count, check_seed, whole_numbers


class SharedKeywords(TypedDict, total=False):
    """The keywords that ``causal_trace`` and ``attribute`` share, which explain them; each has defaults of its own."""

    corruption: Corruption
    metric: Metric
    normalise: bool
    form: Form | None
    token: Literal["answer", "target"]
    partner: Fact | None
    pool: FactSet | None
    samples: int
    noise: float
    seed: int
    max_rows: int | None
    progress: bool


@dataclass(frozen=True, kw_only=True)
class SetupOptions:
    """The options that traces and attributions share; ``causal_trace`` explains them. A contrast has its own runs and
    its own noise: of these options, the metric, ``normalise``, ``samples`` and ``seed`` are for it."""

    corruption: Corruption = "noise"
    metric: Metric = "logit_diff"
    form: Form | None = None
    token: Literal["answer", "target"] = "answer"
    samples: int = 4
    noise: float = 3.0
    seed: int = 0
    partner: Fact | None = None
    pool: FactSet = field(default_factory=FactSet)
    normalise: bool = False
    noise_positions: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.corruption not in get_args(Corruption):
            raise ValueError(f"corruption must be one of {get_args(Corruption)}, got {self.corruption!r}.")
        if not isinstance(self.normalise, bool):
            raise ValueError(f"normalise must be True or False, got {self.normalise!r}.")
        check_metric(self.metric)
        check_count("samples", self.samples)
        check_seed(self.seed)
        if isinstance(self.noise, bool) or not isinstance(self.noise, int | float) or not 0 < self.noise < math.inf:
            raise ValueError(f"noise must be a number of standard deviations above 0, got {self.noise!r}.")
        if self.noise_positions is not None:
            check_places(self.noise_positions)

    @property
    def settings(self) -> dict[str, Any]:
        """What a result's provenance keeps of them."""
        names = ("corruption", "metric", "normalise", "form", "token", "samples", "noise", "seed")
        return {name: getattr(self, name) for name in names} | {"metric": metric_name(self.metric)}

    def of(self, traced: Sequence[Fact] | Sequence[Contrast]) -> SetupOptions:
        """These options for some facts or contrasts: contrasts bring their corruption, noise and form.

        Raises:
            ValueError: An option that is for facts alone, or contrasts with noise beside others with corrupted runs.
        """
        contrasts = [one for one in traced if isinstance(one, Contrast)]
        if not contrasts:
            if self.partner is not None and self.corruption == "noise":
                raise ValueError("partner= is the other subject of a swap; give corruption='swap' with it.")
            return self
        given = [f"{name}=" for name in ("partner", "noise_positions", "form") if getattr(self, name) is not None]
        given += ["token="] if self.token != "answer" else []
        if given:
            raise ValueError(f"{', '.join(given)} is for facts: a contrast has its own runs, answers and positions.")
        if len({one.corruption for one in contrasts}) > 1:
            raise ValueError(
                "Some contrasts have noise and others a corrupted run; their effects are not averaged. Give each kind "
                "by itself."
            )
        first = contrasts[0]
        noise = self.noise if first.noise is None else first.noise
        return replace(self, corruption=first.corruption, noise=noise, form=first.form)


def check_places(positions: object) -> None:
    """Raise a ValueError where noise positions are no indices of tokens."""
    if whole_numbers(positions) is None:
        raise ValueError(f"noise_positions must be indices of tokens, such as [3, 4], got {positions!r}.")


@dataclass(frozen=True)
class Setup:
    """The clean and corrupted inputs of one fact or contrast.

    Args:
        prompt: The traced text; of a fact with a swap its ``other_id`` is the partner's answer.
        start: First corrupted position; before it both runs are the same, so every effect there is exactly 0.
        clean: Residual stream of the whole text entering layer 0, [1, tokens, d_model].
        corrupted: The same with the corruption, of the tokens from ``start`` on, [samples, tokens from start, d_model].
        metric: What is measured at the last position.
        normalise: Whether effects are divided by what the corruption takes away.
        corrupted_ids: The corrupted text, of a swap; None for noise, and for runs that were given as states.
        clean_logits: Of the clean run; see ``against``.
        steps: Where whole answers of more than one token are measured: a setup for each token, with its sign; the
            metric, and every effect on it, is the sum over them.
    """

    prompt: TracedPrompt
    start: int
    clean: Tensor
    corrupted: Tensor
    metric: Metric
    normalise: bool = False
    corrupted_ids: tuple[int, ...] | None = None
    clean_logits: Tensor | None = None
    steps: tuple[tuple[float, Setup], ...] = ()

    @cached_property
    def rule(self) -> MetricRule:
        """The record of the metric."""
        return rule_of(self.metric)

    @property
    def words(self) -> MetricWords:
        """What figures call the metric."""
        return LOG_ODDS if self.steps and self.metric == "logit_diff" else self.rule.words

    def against(self, clean_logits: Tensor) -> Setup:
        """This with the clean run's logits of the last position, [1, d_vocab], which some metrics compare with."""
        return replace(self, clean_logits=clean_logits) if self.rule.against_clean else self

    @property
    def whole(self) -> Tensor:
        """The residual stream of the whole corrupted runs entering layer 0, [samples, tokens, d_model]."""
        before = self.clean[:, : self.start].expand(len(self.corrupted), -1, -1)
        return torch.cat([before, self.corrupted], dim=1)

    def measure(self, logits: Tensor) -> Tensor:
        """The metric of each row of last-position logits [rows, d_vocab]; not of whole answers, which have ``steps``.

        Raises:
            ValueError: A function of one's own that returned something else than a number a row, or a metric that
                compares with the clean run, whose logits are not there yet (``against``).
        """
        assert not self.steps, "whole answers are measured step by step"
        if not self.rule.against_clean:
            return self.rule.measure(logits.float(), self.prompt)
        if self.clean_logits is None:
            raise ValueError(f"metric={metric_name(self.metric)!r} needs the clean run's logits: Setup.against.")
        return self.rule.measure(logits.float(), self.prompt, self.clean_logits.to(logits.device))

    def divisor(self, clean: float, corrupted: float) -> float:
        """What effects are divided by: the metric's clean minus its corrupted value, or 1 where they stay in its units.

        Raises:
            ValueError: The two hardly differ, so that shares of their difference would say nothing.
        """
        if not self.normalise:
            return 1.0
        if hardly_differ(clean, corrupted):
            raise ValueError(
                f"{self._alike(clean, corrupted)}, so there is nothing to recover. Use normalise=False, another "
                f"corruption, {'answer or contrast' if self.prompt.roles else 'partner or fact'}."
            )
        return clean - corrupted

    def warn_if_alike(self, clean: float, corrupted: float) -> None:
        """Warn where a contrast's metric hardly tells its clean run from its corrupted one, with both numbers."""
        if self.prompt.roles and hardly_differ(clean, corrupted):
            warnings.warn(
                f"{self._alike(clean, corrupted)}: effects say little. Look at the answers, or take another metric.",
                stacklevel=2,
            )

    def _alike(self, clean: float, corrupted: float) -> str:
        """That the metric hardly changes, and both its values."""
        if self.prompt.roles:
            who, what = "Contrast", "swap" if self.corrupted_ids else "noise or states"
        else:
            who, what = "Fact", "noise" if self.prompt.partner is None else f"swap for {self.prompt.partner!r}"
        return (
            f"{who} {self.prompt.fact_id!r}: the corruption ({what}) hardly changes the "
            f"{self.words.title}, from {clean:.4g} (clean) to {corrupted:.4g} (corrupted)"
        )
