"""What a probe report is made of: rows, curves, and the probes in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from workbench.types.finding import CurveRule
from workbench.types.report import AnswerClass, Rate
from workbench.types.traced_prompt import Form

CurveFigure = Literal["lines", "bars", "points"]
Recovered = Literal["old", "new", "refusal", "neither"]
ProbeGroup = Literal["edited", "same", "control"]
"""``edited``: should follow the edit; ``same``: a fact beside it that must stay; ``control``: the same prompts about a
fact that was never edited."""

RatesByStage = Mapping[str, Mapping[str, Rate]]
"""By stage, rates by name."""
ANSWER_LINES: dict[str, str] = {"p_old": "old", "p_new": "new", "p_refusal": "refusal"}
"""Curves' values that are probabilities of an answer, and which answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveWords:
    """How a probe's curves are drawn and put into words.

    Args:
        figure: ``"lines"``: probabilities along ``x``, edited fact and control; ``"bars"``: one value for each label;
            ``"points"``: one point for each label, ``y`` over ``x``.
        title: Of the figure; ``{fact}`` and ``{target}`` stand for the edited fact's id and its new answer.
        notes: Below the title.
        x_label, y_label: The axes.
        hover: Of a bar, in plotly's markup; ``{label}`` and ``{value}`` stand for its own.
        caption: Of a table of the values by label.
        place: Where the figure stands among those of other probes, the smallest first.
        rule: How a curve becomes a finding, or None.
    """

    figure: CurveFigure
    title: str
    notes: tuple[str, ...]
    x_label: str
    y_label: str
    hover: str = "{label}<br><b>{value}</b>"
    caption: str = ""
    place: int = 0
    rule: CurveRule | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeWords:
    """A probe in words, kept with its results so that they can be read without the code that made them.

    Args:
        title: The probe.
        rates: By name, what each of its rates is.
        headlines: The rates that are findings, in order.
        curve: Of its curves, if it has any.
    """

    title: str
    rates: Mapping[str, str] = field(default_factory=dict[str, str])
    headlines: tuple[str, ...] = ()
    curve: CurveWords | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRow:
    """One probe prompt answered by one stage of the model.

    Args:
        probe: The probe.
        kind: Which kind of prompt within it (``"role play"``, ``"multi-hop"``).
        group: ``"edited"``, ``"same"`` or ``"control"``, see ``ProbeGroup``.
        stage: ``"base"``, ``"unlearn"`` or ``"learn"``.
        fact_id: The fact that the text is judged by.
        form: ``"chat"`` or ``"cloze"``.
        prompt: The prompt.
        start: What the model's reply was begun with (``"Sure! The answer is"``), not part of ``text``.
        old, new: What counts as the old answer here and what as the new one. In a multi-hop question they are what
            follows from the fact's. For what must stay, the control included, old is its own answer and new the edited
            fact's target: its own was never taught.
        text: What was generated.
        label: Its class, by ``workbench.classify``.
        nll: The base model's mean negative log-likelihood of what counts of the text (of a cloze the first sentence),
            nats per token.
        informative: Whether the base model itself answers this prompt with ``old``. Where it does not, the row says
            nothing about forgetting and counts only in ``bleed``, which asks for the new answer, and as the bare
            question in the context probe's gains.
    """

    probe: str
    kind: str
    group: ProbeGroup
    stage: str
    fact_id: str
    form: Form
    prompt: str
    start: str = ""
    old: str
    new: str
    text: str
    label: AnswerClass
    nll: float
    informative: bool

    @property
    def recovered(self) -> Recovered:
        """What the text gives away: ``old`` also where it names both, ``neither`` for another answer or gibberish.

        In a reverse query ("The capital of ____ is Paris.") both means the subject with the new answer, so it is new.
        """
        if self.label == "both":
            return "new" if self.kind == "reverse query" else "old"
        return self.label if self.label in ("old", "new", "refusal") else "neither"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A measurement along something: strength, training steps, words, prompts.

    Args:
        probe: The probe.
        name: What was measured (``"never-taught fact"``).
        group: As of a row.
        stage: The stage of the model.
        x_name: What ``x`` counts, in the singular (``"strength"``, ``"step"``, ``"word"``).
        x: Places along it.
        labels: A label for each place (a word, a prompt), or none.
        y: By name, one value per place.
    """

    probe: str
    name: str
    group: ProbeGroup
    stage: str
    x_name: str
    x: tuple[float, ...]
    y: Mapping[str, tuple[float, ...]]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = {len(self.x), *(len(v) for v in self.y.values()), len(self.labels) or len(self.x)}
        if len(sizes) != 1:
            raise ValueError(
                f"Curve {self.name!r}: x, y and labels must be of one length, got lengths {sorted(sizes)}."
            )

    def reaches(self, name: str, level: float) -> float | None:
        """The first place at which a value is at least ``level``, or None."""
        return next((x for x, y in zip(self.x, self.y[name], strict=True) if y >= level), None)
