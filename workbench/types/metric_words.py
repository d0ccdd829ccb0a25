"""What metrics are called, and effects as recovery: shares of what the corruption took away."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_GAP = 0.02
"""Clean and corrupted hardly differ where the difference is less than this share of the larger one: a share of it would
say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricWords:
    """What figures and panels call a metric.

    Args:
        name: By which it is asked for.
        title: In a sentence.
        unit: Of its values.
        comparison: What exactly was measured on one text, where ``{answer}`` and ``{other}`` stand for its two tokens;
            empty where the title says it.
        axis: What a scale of its effects is called; empty for "effect on" the title.
        effect: What one of its effects is called; empty for the name and "effect".
        falls: Less of it is closer to the clean run (a rank, a divergence): what supports the answer lowers it.
    """

    name: str
    title: str
    unit: str
    comparison: str = ""
    axis: str = ""
    effect: str = ""
    falls: bool = False

    @property
    def scale(self) -> str:
        """For a colour bar or an axis of effects."""
        return self.axis or f"effect on {self.title}" + (f" ({self.unit})" if self.unit != self.title else "")

    @property
    def noun(self) -> str:
        """For the value of one cell."""
        return self.effect or f"{self.name} effect"


PROBABILITY = MetricWords(name="probability", title="probability", unit="probability")
LOGIT_DIFF = MetricWords(
    name="logit_diff", title="logit difference", unit="logits", comparison="logit of {answer} minus {other}"
)
LOG_PROB = MetricWords(name="log_prob", title="log probability", unit="nats")
RANK = MetricWords(name="rank", title="rank", unit="tokens that are likelier", axis="effect on rank", falls=True)
KL = MetricWords(name="kl", title="KL divergence from the clean run", unit="nats", falls=True)
LOGIT_DIFF_BEFORE_CAP = MetricWords(
    name="logit_diff",
    title="logit difference before the cap",
    unit="logits",
    comparison="logit of {answer} minus {other}, before the model's cap on logits",
)
"""Of models that bend their logits by a softcap: what adds up is what comes before it."""
LOG_ODDS = MetricWords(
    name="logit_diff",
    title="difference of log probabilities",
    unit="nats",
    comparison="log probability of {answer} minus {other}",
)
"""Of whole answers of more than one token, which have no logit."""
RECOVERY = MetricWords(
    name="recovery", title="recovery", unit="recovery", axis="recovery: 0 corrupted, 1 clean", effect="recovery"
)
"""Of every metric: (value - corrupted) / (clean - corrupted)."""
KNOWN_WORDS = {words.name: words for words in (PROBABILITY, LOGIT_DIFF, LOG_PROB, RANK, KL)}


def hardly_differ(clean: float, corrupted: float) -> bool:
    """Whether a corruption took so little away that shares of it say nothing.

    Args:
        clean, corrupted: A metric without and with the corruption.

    Example:
        >>> hardly_differ(8.0, -8.0), hardly_differ(0.998, 0.991), hardly_differ(0.0, 0.0)
        (False, True, True)
    """
    return not abs(clean - corrupted) >= max(LEAST_GAP * max(abs(clean), abs(corrupted)), 1e-6)
