"""Which lens a probe reads through, and how close both lenses are to what the unedited model says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workbench.types.lens import LensKind

LensAsked = Literal["auto", "logit", "tuned"]
"""``"auto"``: the lens that is closer to the unedited model's own prediction on held-out text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LensChoice:
    """Through which lens the layers were read, and why.

    Args:
        asked: What was asked for.
        kind: What was used.
        kl: By row, the divergence KL(the unedited model's prediction || the tuned lens) in nats, a mean over held-out
            tokens; 0 in the last row. None where no tuned lens was fitted.
        logit_kl: The same of the logit lens.
        held_out: How many held-out tokens these are means over.
        why: Why no tuned lens was fitted, if none was asked for or none could be.

    Example:
        >>> choice = probes.lens_choice
        >>> choice.kind, choice.asked
        ('tuned', 'auto')
        >>> choice.mean_kl < choice.mean_logit_kl
        True
    """

    asked: LensAsked = "logit"
    kind: LensKind = "logit"
    kl: tuple[float, ...] | None = None
    logit_kl: tuple[float, ...] | None = None
    held_out: int = 0
    why: str = ""

    @property
    def mean_kl(self) -> float | None:
        """Mean of ``kl`` over the layers that are read, all rows but the last, in nats; None where it is not known."""
        return _mean(self.kl)

    @property
    def mean_logit_kl(self) -> float | None:
        """The same of the logit lens."""
        return _mean(self.logit_kl)

    @property
    def words(self) -> str:
        """Which lens was used, and both divergences, in a sentence without its full stop."""
        of, reason = f"read through the {self.kind} lens", "as asked" if self.asked != "auto" else "the closer one"
        tuned, logit = self.mean_kl, self.mean_logit_kl
        if tuned is None or logit is None:
            return f"{of}; {self.why or 'how close it is was not measured'}"
        both = f"the tuned lens is {tuned:.2f} nats from the unedited model's prediction, the logit lens {logit:.2f}"
        return f"{of}, {reason}: over the layers before the last {both} (KL on {self.held_out} held-out tokens)"


def _mean(kl: tuple[float, ...] | None) -> float | None:
    return None if kl is None or len(kl) < 2 else sum(kl[:-1]) / (len(kl) - 1)
