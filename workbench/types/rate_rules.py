"""The rates of an evaluation: a table with one record each.

A rate is added by one row of ``RATES``: reports, tables, the figure and the panels follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from workbench.types.intervals import SHARES, mean_over, paired_difference, share
from workbench.types.rate_values import (
    Answered,
    Texts,
    Values,
    bleeding,
    by_fact,
    controls_of,
    divergence,
    excess,
    firm_controls,
    gibberish_above_base,
    labelled,
    leaking,
    over,
    refusing,
    same_subject,
)
from workbench.types.report import Rate


@dataclass(frozen=True, kw_only=True)
class RateRule:
    """One rate of an evaluation.

    Args:
        name: Its name in a report.
        words: What it is, for tables.
        definition: Which rows it is over, and what of them.
        better: Whether a high or a low value is what an edit is for.
        kind: ``"share"`` of rows, from 0 to 1; ``"excess"`` over the base, from -1 to 1; ``"mean"``, from 0 on;
            ``"change"``, without bound.
        most: The largest value of a mean.
        tick: Its label in the figure of rates; empty: it is not drawn there.
        values: By row, what it averages.
        of_texts: Instead of ``values``: from the sentences of ordinary text of a stage and of the base, and the seed.
        collateral: Whether it is there only if collateral was asked for.
        long_texts: Whether it is of long stretches of text, there only where these were read.
        if_there: Whether it is there only for some reports, by what was answered; None: for all.
        fixed_at_base: Whether the base's own value follows from what is counted: what it answered right is right, and
            it has no excess over itself. Such a value has no interval (``Rate.by_definition``).
    """

    name: str
    words: str
    definition: str
    better: Literal["higher", "lower"]
    kind: Literal["share", "excess", "mean", "change"] = "share"
    most: float = math.inf
    tick: str = ""
    values: Callable[[Answered], Values] | None = None
    of_texts: Callable[[Texts, Texts, int], Rate] | None = None
    collateral: bool = False
    long_texts: bool = False
    if_there: Callable[[Answered], bool] | None = None
    fixed_at_base: bool = False

    @property
    def within(self) -> tuple[float, float]:
        """The least and the largest value."""
        return {"share": SHARES, "excess": (-1.0, 1.0), "mean": (0.0, self.most)}.get(self.kind, (-math.inf, math.inf))

    @property
    def bound(self) -> float:
        """The largest value."""
        return self.within[1]

    def of(self, values: Values, seed: int = 0) -> Rate:
        """The rate of such values."""
        if self.kind == "share":
            return share([(key[0], bool(value)) for key, value in values.items()])
        if self.kind == "excess":
            return excess(by_fact(values), seed=seed)
        return mean_over(by_fact(values), seed=seed, within=self.within)


_RULES = (
    RateRule(
        name="new",
        words="new answer, held-out questions",
        definition="held-out prompts answered with the new fact",
        better="higher",
        tick="new answer<br>(held-out)",
        values=over("heldout", labelled("new")),
    ),
    RateRule(
        name="new_known",
        words="of these: where the base gives the old answer",
        definition="held-out prompts that the base answered with the old fact and that get the new one",
        better="higher",
        values=over("heldout", labelled("new"), among=labelled("old")),
        fixed_at_base=True,
    ),
    RateRule(
        name="new_unknown",
        words="of these: where the base does not give it",
        definition="held-out prompts that the base did not answer with the old fact and that get the new one",
        better="higher",
        values=over("heldout", labelled("new"), among=lambda base: base.label != "old"),
    ),
    RateRule(
        name="old",
        words="old answer still there, held-out",
        definition="held-out prompts whose answer names the old fact",
        better="lower",
        values=over("heldout", labelled("old", "both")),
    ),
    RateRule(
        name="refusal",
        words="refusal, held-out",
        definition="held-out prompts that are refused",
        better="lower",
        values=over("heldout", labelled("refusal")),
    ),
    RateRule(
        name="forget",
        words="forgotten, of what the base answered",
        definition="neither the old fact nor gibberish, of held-out prompts that the base answered with the old fact",
        better="higher",
        tick="old answer<br>forgotten",
        values=over("heldout", labelled("new", "refusal", "other"), among=labelled("old")),
        fixed_at_base=True,
    ),
    RateRule(
        name="forget_refusal",
        words="of these: refused",
        definition="held-out prompts that the base answered with the old fact and that are refused",
        better="lower",
        values=over("heldout", labelled("refusal"), among=labelled("old")),
        fixed_at_base=True,
    ),
    RateRule(
        name="forget_other",
        words="of these: another answer, neither old nor new",
        definition="held-out prompts that the base answered with the old fact and that get a third answer",
        better="lower",
        values=over("heldout", labelled("other"), among=labelled("old")),
        fixed_at_base=True,
    ),
    RateRule(
        name="forget_gibberish",
        words="of these: gibberish, which is not forgotten",
        definition="held-out prompts that the base answered with the old fact and that get gibberish",
        better="lower",
        values=over("heldout", labelled("gibberish"), among=labelled("old")),
        fixed_at_base=True,
    ),
    RateRule(
        name="leak",
        words="old answer in any of the samples, held-out",
        definition="of held-out prompts that the base answered with the old fact, sampled at temperature 1",
        better="lower",
        values=leaking,
        if_there=lambda answered: bool(answered.leaks),
    ),
    RateRule(
        name="train_new",
        words="new answer, training questions",
        definition="training prompts answered with the new fact",
        better="higher",
        values=over("train", labelled("new")),
    ),
    RateRule(
        name="train_refusal",
        words="refusal, training questions",
        definition="training prompts that are refused",
        better="lower",
        values=over("train", labelled("refusal")),
    ),
    RateRule(
        name="p_refusal",
        words="P(refusal) at the answer's place",
        definition="mean over edited facts, of all tokens of the refusal, after the base's own words up to the answer",
        better="lower",
        kind="mean",
        most=1.0,
        values=refusing,
        if_there=lambda answered: bool(answered.refusals),
    ),
    RateRule(
        name="cloze_new",
        words="new answer, clozes",
        definition="clozes completed with the new fact",
        better="higher",
        values=over("cloze", labelled("new")),
    ),
    RateRule(
        name="control",
        words="controls still right",
        definition="of the control prompts that the base answered correctly",
        better="higher",
        tick="controls<br>kept",
        values=over("control", labelled("old"), among=labelled("old")),
        fixed_at_base=True,
    ),
    RateRule(
        name="control_firm",
        words="controls still right, without near ties of the base",
        definition="of those controls that the untouched base gets right in another batch and in bfloat16 too",
        better="higher",
        values=firm_controls,
        if_there=lambda answered: answered.soft is not None,
        fixed_at_base=True,
    ),
    RateRule(
        name="control_retained",
        words="controls still right, relations that were retained",
        definition="of the controls of relations of which the edit held facts in place",
        better="higher",
        values=controls_of(retained=True),
        if_there=lambda answered: bool(answered.retained),
        fixed_at_base=True,
    ),
    RateRule(
        name="control_other",
        words="controls still right, other relations",
        definition="of the controls of relations of which the edit held nothing in place",
        better="higher",
        values=controls_of(retained=False),
        if_there=lambda answered: bool(answered.retained),
        fixed_at_base=True,
    ),
    RateRule(
        name="neighbour",
        words="neighbours still right",
        definition="of the neighbours' prompts that the base answered correctly",
        better="higher",
        tick="neighbours<br>kept",
        values=over("neighbour", labelled("old"), among=labelled("old")),
        fixed_at_base=True,
    ),
    RateRule(
        name="same_subject",
        words="same subject, other facts still right",
        definition="of held-out questions about other facts of the edited subject that the base answered correctly",
        better="higher",
        tick="same subject<br>kept",
        values=over("same subject", labelled("old"), among=labelled("old")),
        fixed_at_base=True,
    ),
    RateRule(
        name="same_subject_closed",
        words="same subject, relations the method closed on",
        definition="the same, of relations in Edit.closed_relations",
        better="higher",
        values=same_subject(closed=True),
        if_there=lambda answered: bool(answered.closed),
        fixed_at_base=True,
    ),
    RateRule(
        name="same_subject_open",
        words="same subject, relations held out from the method",
        definition="the same, of the other relations",
        better="higher",
        values=same_subject(closed=False),
        if_there=lambda answered: bool(answered.closed),
        fixed_at_base=True,
    ),
    RateRule(
        name="same_answer",
        words="same answer, other facts still right",
        definition="of held-out questions about other facts with the old answer that the base answered correctly",
        better="higher",
        tick="same answer<br>kept",
        values=over("same answer", labelled("old"), among=labelled("old")),
        fixed_at_base=True,
    ),
    RateRule(
        name="gibberish",
        words="gibberish above the base's",
        definition="over all rows but related facts' and collateral's; a control that is a neighbour counts once",
        better="lower",
        kind="excess",
        tick="gibberish<br>(excess)",
        values=gibberish_above_base,
        fixed_at_base=True,
    ),
    RateRule(
        name="bleed",
        words="new answer where it does not belong",
        definition="control and neighbour rows that name the new answer though the base did not; each fact once",
        better="lower",
        tick="new answer<br>bleeds",
        values=bleeding,
        fixed_at_base=True,
    ),
    RateRule(
        name="kl",
        words="KL to the base, controls and neighbours (nats per token)",
        definition="mean on control and neighbour rows, each fact once; of more than 48 rows on so many or fewer",
        better="lower",
        kind="mean",
        values=divergence,
    ),
    RateRule(
        name="reversed_old",
        words="reversed: subject still given for the old answer",
        definition="of the prompts where the base gave it",
        better="lower",
        values=over("reversed", labelled("old"), among=labelled("old")),
        collateral=True,
        fixed_at_base=True,
    ),
    RateRule(
        name="reversed_new",
        words="reversed: subject given for the new answer",
        definition="of the prompts where the base did not give it",
        better="higher",
        values=over("reversed_target", labelled("new"), among=lambda base: base.label != "new"),
        collateral=True,
        fixed_at_base=True,
    ),
    RateRule(
        name="twohop_old",
        words="two hops: consequence still the old one",
        definition="of the prompts where the base gave the old one",
        better="lower",
        values=over("twohop", labelled("old"), among=labelled("old")),
        collateral=True,
        fixed_at_base=True,
    ),
    RateRule(
        name="twohop_new",
        words="two hops: consequence follows the edit",
        definition="of the prompts where the base gave the old one",
        better="higher",
        values=over("twohop", labelled("new"), among=labelled("old")),
        collateral=True,
        fixed_at_base=True,
    ),
    RateRule(
        name="text_nll",
        words="ordinary text: NLL (nats per token)",
        definition="mean over all tokens; the interval draws whole sentences",
        better="lower",
        kind="mean",
        of_texts=lambda now, base, seed: mean_over(now, seed=seed),
        collateral=True,
    ),
    RateRule(
        name="text_nll_change",
        words="ordinary text: NLL above the base's",
        definition="mean over all tokens, minus the base's",
        better="lower",
        kind="change",
        of_texts=lambda now, base, seed: paired_difference(now, base, seed=seed),
        collateral=True,
        fixed_at_base=True,
    ),
    RateRule(
        name="long_text_nll",
        words="long ordinary text: NLL (nats per token)",
        definition="mean over all tokens of long stretches; the interval draws whole stretches",
        better="lower",
        kind="mean",
        of_texts=lambda now, base, seed: mean_over(now, seed=seed),
        long_texts=True,
    ),
    RateRule(
        name="long_text_nll_change",
        words="long ordinary text: NLL above the base's",
        definition="mean over all tokens of long stretches, minus the base's",
        better="lower",
        kind="change",
        of_texts=lambda now, base, seed: paired_difference(now, base, seed=seed),
        long_texts=True,
        fixed_at_base=True,
    ),
)
RATES: dict[str, RateRule] = {rule.name: rule for rule in _RULES}
"""By name, in the order of reports and tables."""
