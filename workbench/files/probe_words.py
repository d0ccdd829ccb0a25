"""The words of the ten probes of version 1, whose files do not hold them.

A report now keeps its probes' words (``ProbeReport.words``). These stay as they are when a probe is added or its words
change.
"""

from __future__ import annotations

from workbench.types import CurveRule, CurveWords, ProbeWords

_TITLES = {
    "lens": "layer-by-layer lens",
    "adversarial": "adversarial prompts",
    "steps": "step by step",
    "interconnected": "interconnected facts",
    "context": "back into context",
    "keywords": "keyword emphasis",
    "relearning": "relearning",
    "requantise": "requantised weights",
    "strength": "strength of the edit",
    "priming": "priming",
}
_RATES = {
    "old": "old answer recovered",
    "new": "new answer",
    "refusal": "refusal",
    "neither": "neither",
    "same": "must stay: still right",
    "control": "control: still right",
    "hop_old": "multi-hop alone: what followed from the old answer",
    "hop_new": "multi-hop alone: what follows from the new answer",
    "informative": "prompts on which the base is right",
    "gain": "old answer with the fact stated minus without",
    "control_gain": "the same for the control",
    "bleed": "new answer where it does not belong",
}
_CURVES = {
    "strength": CurveWords(
        figure="lines",
        title="Strength of the edit: {fact}",
        notes=("full-sequence probabilities after the base model's own words",),
        x_label="strength of the edit",
        y_label="probability",
        place=1,
    ),
    "relearning": CurveWords(
        figure="lines",
        title="Relearning: {fact}",
        notes=("full-sequence probabilities after the base model's own words; accuracy on held-out questions",),
        x_label="steps of training",
        y_label="probability",
        place=2,
        rule=CurveRule(kind="reaches", y="p_old", level=0.5, what="P(answer)"),
    ),
    "keywords": CurveWords(
        figure="bars",
        title="Words that the old answer rests on: {fact}",
        notes=(
            "log P of the old answer's first token with the whole question minus without the word; above 0: the word "
            "supports the old answer",
        ),
        x_label="word",
        y_label="effect on log P(first token), nats",
        hover="without {label}<br><b>{value}</b> nats",
        caption="what leaving one out takes from log P(first token of the old answer), nats",
        place=3,
    ),
    "priming": CurveWords(
        figure="points",
        title="Where {target} does not belong",
        notes=(
            "largest probability of its first token along the base model's own answers to other questions",
            "on the line: as before the edit; above it: primed",
        ),
        x_label="probability before the edit",
        y_label="probability after",
        place=4,
        rule=CurveRule(kind="rises", y="p_after", what="other questions"),
    ),
}
WORDS_OF_VERSION_1: dict[str, ProbeWords] = {
    probe: ProbeWords(
        title=title,
        rates=_RATES | ({"same": "retained facts: still right"} if probe == "steps" else {}),
        headlines=("old", "hop_new", "same", "control", "gain", "bleed"),
        curve=_CURVES.get(probe),
    )
    for probe, title in _TITLES.items()
}
