"""Ablations: what an answer loses without some components."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Literal

from workbench.types.effect import Corruption
from workbench.types.metric_words import KNOWN_WORDS, LOG_ODDS, hardly_differ
from workbench.types.next_tokens import NextToken
from workbench.types.selection import Selection
from workbench.types.traced_prompt import Form, TracedPrompt, partner_notes

if TYPE_CHECKING:
    import pandas as pd

AblationKind = Literal["zero", "mean", "swap"]
"""What takes the place of an ablated output: zeros, its mean over other texts, or what it is for a swapped subject."""
_NAMED = 4
"""So many components are named in a sentence; more are counted."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A metric and the next tokens, with some components and without them.

    Args:
        selection: What was ablated.
        metric: Its name, as in ``EffectMap``.
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
        whole = self.metric == "logit_diff" and self.prompt.whole_answers
        known = LOG_ODDS if whole else KNOWN_WORDS.get(self.metric)
        title = known.title if known is not None else self.metric
        what = f"{len(self.selection)} components" if len(self.selection) > _NAMED else str(self.selection)
        said = f"{what} {self._how}: {title} {self.clean:.3g} → {self.ablated:.3g}"
        if self.clean_next and self.ablated_next:
            before, after = self.clean_next[0], self.ablated_next[0]
            still = "still" if before.id == after.id else "now"
            said += f"; the next token is {still} {after.token!r} ({after.probability:.3g})"
        if self.corruption == "noise" and self.left is not None:
            where = "its noise" if self.prompt.roles else "noise on the subject"
            said += f"; recovery {self.left:.3g} (1 clean, 0 with {where})"
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
        return f"as for {self.prompt.partner}" if self.prompt.partner else "as in the corrupted run"


@dataclass(frozen=True, kw_only=True)
class Ablations:
    """Ablations of the same components on several facts or contrasts, with their means.

    Args:
        rows: One for each, in order.

    Example:
        >>> several = wb.ablate(model, facts[:3], "L0MLP", form="cloze")
        >>> len(several), several[0].prompt.fact_id, several.stderr is not None
        (3, 'france-capital', True)
        >>> abs(several.effect - sum(one.effect for one in several) / 3) < 1e-6
        True
    """

    rows: tuple[Ablation, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Ablation]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> Ablation:
        return self.rows[index]

    def __repr__(self) -> str:
        error = "" if self.stderr is None else f" ± {self.stderr:.3g}"
        return f"Ablations({len(self)} texts: {self.rows[0].metric} {self.clean:.3g} → {self.ablated:.3g}{error})"

    @property
    def clean(self) -> float:
        """The mean of the metric without the ablation."""
        return fmean(one.clean for one in self.rows)

    @property
    def ablated(self) -> float:
        """The mean of the metric with it."""
        return fmean(one.ablated for one in self.rows)

    @property
    def effect(self) -> float:
        """What the ablation takes away on average: clean minus ablated."""
        return fmean(one.effect for one in self.rows)

    @property
    def stderr(self) -> float | None:
        """The standard error of ``effect`` over the texts; None for one text."""
        return stdev(one.effect for one in self.rows) / len(self) ** 0.5 if len(self) > 1 else None

    @property
    def left(self) -> float | None:
        """The mean of what is left of each answer; None where some text has no such number."""
        left = [one.left for one in self.rows if one.left is not None]
        return fmean(left) if len(left) == len(self) else None

    def to_frame(self) -> pd.DataFrame:
        """A line for each text: its id, the metric without and with the ablation, the effect and what is left."""
        import pandas as pd

        names = ("clean", "ablated", "effect", "corrupted", "left")
        return pd.DataFrame(
            [{"text": one.prompt.fact_id, **{name: getattr(one, name) for name in names}} for one in self.rows]
        )
