"""Ablations: what an answer loses without some components."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from workbench.types.effect import Corruption
from workbench.types.metric_words import KNOWN_WORDS, hardly_differ
from workbench.types.next_tokens import NextToken
from workbench.types.selection import Selection
from workbench.types.traced_prompt import Form, TracedPrompt, partner_notes

AblationKind = Literal["zero", "mean", "swap"]
"""What takes the place of an ablated output: zeros, its mean over other texts, or what it is for a swapped subject."""
_NAMED = 4
"""So many components are named in a sentence; more are counted."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A metric and the next tokens, with some components and without them.

    Args:
        selection: What was ablated.
        metric: ``"probability"`` or ``"logit_diff"``.
        clean, ablated: The metric without and with the ablation.
        prompt: The text; its ``other_token`` is what ``logit_diff`` compares the answer with.
        ablation: What took the place of the outputs.
        corrupted: The metric of the corrupted run; None where there was none.
        corruption: How that run was corrupted: ``"swap"``, or ``"noise"`` (a mean over its samples); None without one.
        references: How many texts ``"mean"`` is a mean over; 0 for the other kinds.
        clean_next, ablated_next: The likeliest next tokens without and with the ablation.
        clean_text, ablated_text: What the model goes on to say, if that was asked for.
        controls: The same for random selections of the same kinds and sizes.

    Example:
        >>> ablation = wb.ablate(model, fact, "L0MLP", control=2)
        >>> print(f"{ablation.metric} {ablation.clean:.1f}, without {ablation.selection}: {ablation.ablated:.1f}")
        logit_diff 14.0, without L0MLP: 0.7
        >>> ablation.clean_next[0].token, len(ablation.controls), ablation.control_effect < ablation.effect
        ('Paris', 2, True)
    """

    selection: Selection
    metric: str
    clean: float
    ablated: float
    prompt: TracedPrompt
    ablation: AblationKind = "zero"
    corrupted: float | None = None
    corruption: Corruption | None = None
    references: int = 0
    clean_next: tuple[NextToken, ...] = ()
    ablated_next: tuple[NextToken, ...] = ()
    clean_text: str | None = None
    ablated_text: str | None = None
    controls: tuple[Ablation, ...] = ()

    def __repr__(self) -> str:
        return f"Ablation({self.words})"

    @property
    def form(self) -> Form:
        """The form of the text."""
        return self.prompt.form

    @property
    def effect(self) -> float:
        """What the ablation takes away: clean minus ablated."""
        return self.clean - self.ablated

    @property
    def left(self) -> float | None:
        """How much of the answer is left, as recovery: 1 as clean, 0 as in the corrupted run (``corruption``). None
        where there was none, or where it hardly changes the metric."""
        if self.corrupted is None or hardly_differ(self.clean, self.corrupted):
            return None
        return (self.ablated - self.corrupted) / (self.clean - self.corrupted)

    @property
    def control_effect(self) -> float | None:
        """The mean effect of the controls; None without any."""
        return fmean(control.effect for control in self.controls) if self.controls else None

    @property
    def words(self) -> str:
        """The result in a sentence, and the controls in another."""
        known = KNOWN_WORDS.get(self.metric)
        title = known.title if known is not None else self.metric
        what = f"{len(self.selection)} components" if len(self.selection) > _NAMED else str(self.selection)
        said = f"{what} {self._how}: {title} {self.clean:.3g} → {self.ablated:.3g}"
        if self.clean_next and self.ablated_next:
            before, after = self.clean_next[0], self.ablated_next[0]
            still = "still" if before.id == after.id else "now"
            said += f"; the next token is {still} {after.token!r} ({after.probability:.3g})"
        if self.corruption == "noise" and self.left is not None:
            said += f"; recovery {self.left:.3g} (1 clean, 0 with noise on the subject)"
        notes = "".join(f" {note}" for note in partner_notes([self.prompt])) if self.ablation == "swap" else ""
        if not self.controls:
            return f"{said}.{notes}"
        mean = fmean(control.ablated for control in self.controls)
        many = len(self.controls) > 1
        drawn = f"{len(self.controls)} random selections" if many else "A random selection"
        return f"{said}. {drawn} of the same size: {title} {mean:.3g}{' on average' if many else ''}.{notes}"

    @property
    def _how(self) -> str:
        if self.ablation == "zero":
            return "set to zero"
        if self.ablation == "mean":
            return f"set to the mean over {self.references} other texts"
        return f"as for {self.prompt.partner}"
