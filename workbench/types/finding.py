"""What the probes found, as records that read as sentences; and the rules by which a curve is put into words."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from workbench.types.intervals import wilson
from workbench.types.probe_null import null_words
from workbench.types.report import Rate

if TYPE_CHECKING:
    from workbench.types.probe import ProbeReport
    from workbench.types.probe_parts import Curve, ProbeGroup

FindingKind = Literal["lens", "rate", "curve", "not measured", "partial"]


class Finding(str):
    """One thing that the probes found: a sentence, with fields that say what it is about.

    Args:
        words: The sentence, which is also the value as a text.
        kind: ``"lens"``, ``"rate"``, ``"curve"``, ``"not measured"`` or ``"partial"``.
        probe: The probe, or for ``"not measured"`` the part of it; empty for ``"partial"``.
        stage: The stage of the model; empty where it is about none.
        group: Whom a lens reading or a curve is about, as of a row; None for the others.
        name: The rate's or the curve's name.
        rate: The number with its interval, where there is one.
    """

    kind: FindingKind
    probe: str
    stage: str
    group: ProbeGroup | None
    name: str
    rate: Rate | None

    def __new__(
        cls,
        words: str,
        *,
        kind: FindingKind,
        probe: str = "",
        stage: str = "",
        group: ProbeGroup | None = None,
        name: str = "",
        rate: Rate | None = None,
    ) -> Finding:
        finding = super().__new__(cls, words)
        fields = {"kind": kind, "probe": probe, "stage": stage, "group": group, "name": name, "rate": rate}
        for field, value in fields.items():
            object.__setattr__(finding, field, value)
        return finding

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"A Finding is not changed after it is made: cannot set {name!r}.")

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (str(self),), dict(vars(self))

    @property
    def words(self) -> str:
        """The sentence as a plain text."""
        return str(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRule:
    """How a curve of the last stage is put into words.

    Args:
        kind: ``"reaches"``: the first place at which ``y`` is at least ``level``. ``"rises"``: the share of places at
            which ``y`` is above ``x``, and the median of their ratio.
        y: Which of the curve's values.
        level: What is to be reached.
        what: What the values are, in the sentence.
    """

    kind: Literal["reaches", "rises"]
    y: str
    level: float = 0.5
    what: str


def reaches(rule: CurveRule, curve: Curve) -> tuple[str, Rate | None] | None:
    """When a curve first is at a level."""
    at = curve.reaches(rule.y, rule.level)
    steps = f"{curve.x[-1]:g} {curve.x_name}s"
    when = f"not within {steps}" if at is None else f"after {at:g} of {steps}"
    looked = ", ".join(f"{x:g}" for x in curve.x)
    return f"{curve.name} is at {rule.what} {rule.level:g} {when} (looked at {looked})", None


def rises(rule: CurveRule, curve: Curve) -> tuple[str, Rate | None] | None:
    """How often a curve's values are above where they were before; None where nothing was measured."""
    ratios = [after / x for x, after in zip(curve.x, curve.y[rule.y], strict=True) if x > 0 and after == after]
    if not ratios:
        return None
    share = wilson(sum(r > 1 for r in ratios), len(ratios))
    return f"{curve.name} rises in {share} of {rule.what}, {statistics.median(ratios):.3g} times at the median", share


RULES: dict[str, Callable[[CurveRule, Curve], tuple[str, Rate | None] | None]] = {"reaches": reaches, "rises": rises}


VERDICTS = ("old", "bleed")
"""Rates that say something was found, and so are read against a null; the others have a control beside them."""


def findings_of(report: ProbeReport) -> Iterator[Finding]:
    """What the probes found: lens readings, then rates and curves of the last stage, then what was not measured."""
    last = report.stages[-1]
    choice = report.lens_choice
    if report.lenses and choice is not None and choice.asked != "logit":
        yield Finding(f"lens: {choice.words}", kind="lens", probe="lens")
    of: dict[str, tuple[ProbeGroup, str]] = {report.fact.id: ("edited", "")}
    if report.control:
        of |= {report.control.id: ("control", f", control {report.control.id}")}
    for fact_id, (group, who) in of.items():
        for reading in report.lenses:
            if reading.prompt.fact_id == fact_id:
                words = f"{'tuned ' * (reading.kind == 'tuned')}lens, {reading.stage}{who}: {reading.finding}"
                if group == "edited" and reading.stage == last != "base":
                    words += f"; {null_words(report.null, 'lens')}"
                yield Finding(words, kind="lens", probe="lens", stage=reading.stage, group=group)
    for probe, by_stage in report.rates.items():
        about = report.words_of(probe)
        for name in about.headlines:
            rate = by_stage.get(last, {}).get(name)
            if rate is not None and rate.n:
                words = f"{about.title}, {last}: {about.rates.get(name, name)} {rate}"
                if name in VERDICTS and last != "base":
                    words += f"; {null_words(report.null, probe)}"
                yield Finding(words, kind="rate", probe=probe, stage=last, name=name, rate=rate)
    for curve in report.curves:
        about = report.words_of(curve.probe)
        rule = about.curve.rule if about.curve else None
        if rule is not None and curve.stage == last:
            measured = RULES[rule.kind](rule, curve)
            if measured is not None:
                words, rate = measured
                if curve.group == "edited" and last != "base":
                    words += f"; {null_words(report.null, curve.probe)}"
                yield Finding(
                    f"{about.title}, {last}: {words}",
                    kind="curve",
                    probe=curve.probe,
                    stage=last,
                    group=curve.group,
                    name=curve.name,
                    rate=rate,
                )
    for part, why in report.skipped.items():
        yield Finding(f"not measured, {part}: {why}", kind="not measured", probe=part)
    if report.partial:
        yield Finding(f"partial: {report.partial}", kind="partial")
