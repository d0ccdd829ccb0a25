"""What came of the probes in one line and one of four kinds; and reports of probes that were run one after another.

Only probes that ask for the old answer are counted, and of their prompts only those on which the base itself gives it:
a probe recovers the old answer if the edited model gives it to at least one of them. Readings of layers and curves have
findings of their own and are not counted. The rule, for a report's last stage:

- **good**: none of the counted probes recovers the old answer;
- **partly**: some do, at most half;
- **bad**: more than half do;
- **none**: nothing can be said, since no probe asked anything that the base knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from workbench.probing.table import PROBES
from workbench.types import Fact, ProbeNull, ProbeReport
from workbench.types.outcome import OutcomeKind, Share


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOutcome:
    """The outcome says how many probes bring the old answer back.

    Args:
        kind: ``"good"``, ``"partly"``, ``"bad"`` or ``"none"``; see the module for the rule.
        words: A line from the counts.
        beside: What the base and the control answer at the same probes.
        probes: Probes that recover the old answer, of those that are counted.
        prompts: Prompts to which the edited model gives it, of those on which the base does.
        control: Prompts about the control to which its answer is still given, of those on which the base gives it.
        null: How often the probes find what is not there, or that no null was measured.
    """

    kind: OutcomeKind
    words: str
    beside: str
    probes: Share
    prompts: Share
    control: Share
    null: str


def shares(report: ProbeReport, name: str = "old", stage: str | None = None) -> dict[str, Share]:
    """How many prompts a rate counts, by probe; without those that have no such rate.

    Args:
        report: The report.
        name: Of the rate, such as ``"old"`` or ``"control"``.
        stage: The last by default.
    """
    at = report.stages[-1] if stage is None else stage
    found = {probe: by.get(at, {}).get(name) for probe, by in report.rates.items()}
    return {probe: Share(hits=round(r.value * r.n) if r.n else 0, n=r.n) for probe, r in found.items() if r is not None}


def outcome(report: ProbeReport) -> ProbeOutcome:
    """Put a report's last stage into a line, and say of which kind it is.

    Example:
        >>> from workbench.probing.outcome import outcome
        >>> found = outcome(probes)
        >>> found.kind, found.probes
        ('bad', Share(hits=1, n=1))
        >>> print(found.words)
        The old answer Paris recovered by 1 of 1 probe, in 1 of 1 prompt.
    """
    by_probe = {name: share for name, share in shares(report).items() if share.n}
    probes = Share(hits=sum(bool(share.hits) for share in by_probe.values()), n=len(by_probe))
    prompts, control = _sum(by_probe.values()), _sum(shares(report, "control").values())
    kind: OutcomeKind = "none"
    if probes.n:
        kind = "good" if not probes.hits else "bad" if probes.value > 0.5 else "partly"
    return ProbeOutcome(
        kind=kind,
        words=_words(report.fact, probes, prompts),
        beside=_beside(report.control, probes, prompts, control),
        probes=probes,
        prompts=prompts,
        control=control,
        null=_null(report),
    )


def _words(fact: Fact, probes: Share, prompts: Share) -> str:
    if not probes.n:
        return "No probe asked for the old answer where the base gives it: nothing can be said yet."
    return f"The old answer {fact.answer} recovered by {_of(probes, 'probe')}, in {_of(prompts, 'prompt')}."


def _beside(control: Fact | None, probes: Share, prompts: Share, right: Share) -> str:
    base = f"The base gives it in all {probes.n} of them, to each of these {prompts.n} prompts." if probes.n > 1 else ""
    if control is None or not right.n:
        return f"{base} No control was asked.".strip()
    kept = f"The control {control.subject}, never edited: still right in {_of(right, 'prompt')}."
    return f"{base} {kept}".strip()


def _null(report: ProbeReport) -> str:
    """The false positives of the probes in a line."""
    if report.null is None:
        return "No null was measured, so nothing says how often these probes find what is not there."
    false = {name: one.false_positives for name, one in report.null.probes.items()}
    counts = [f"{report.words_of(n).title} {round(r.value * r.n)} of {r.n}" for n, r in false.items() if r.n]
    return f"Found where there is nothing to find: {', '.join(counts)}." if counts else "The null compares nothing."


def _joined_null(before: ProbeReport, after: ProbeReport, again: set[str]) -> ProbeNull | None:
    """The nulls of two reports as one; of two sizes the later one's alone."""
    first, second = before.null, after.null
    if first is None or second is None:
        one = first or second
        held = set(before.probes) - again if second is None else again
        return None if one is None else replace(one, probes={n: p for n, p in one.probes.items() if n in held})
    if (first.stage, first.size) != (second.stage, second.size):
        return second
    kept = {name: one for name, one in first.probes.items() if name not in again}
    return replace(second, probes={**kept, **second.probes}, skipped={**first.skipped, **second.skipped})


def _of(share: Share, noun: str) -> str:
    return f"{share} {noun}{'' if share.n == 1 else 's'}"


def _sum(several: Iterable[Share]) -> Share:
    held = list(several)
    return Share(hits=sum(s.hits for s in held), n=sum(s.n for s in held))


def joined(before: ProbeReport, after: ProbeReport) -> ProbeReport:
    """The report of probes that were run in two parts, as if they had been run at once. Of a probe that is in both,
    the later result stays.

    Args:
        before, after: Of the same edit, fact, control, seed and length of answers (``joinable``).

    Returns:
        One report; its ``provenance`` is the later one's.
    """
    again = set(after.asked or after.probes)
    if after.partial:  # a probe that was not finished does not take the place of one that was
        again -= {p for p in before.probes if p not in after.probes}
    kept = [p for p in (before.asked or before.probes) if p not in again]

    def both(name: str) -> tuple[Any, ...]:
        earlier, later = getattr(before, name), getattr(after, name)
        held = [*(x for x in earlier if x.probe in kept), *(x for x in later if x.probe in again)]
        return tuple(x for p in PROBES for x in held if x.probe == p)

    rates = {p: (after if p in again else before).rates.get(p) for p in (*kept, *again)}
    skipped = {part: why for part, why in before.skipped.items() if part.split(":")[0] not in again}
    return replace(
        after,
        control=after.control or before.control,
        rows=both("rows"),
        curves=both("curves"),
        lenses=after.lenses if "lens" in again else before.lenses,
        lens_choice=after.lens_choice if "lens" in again else before.lens_choice,
        null=_joined_null(before, after, again),
        rates={p: by for p in PROBES if (by := rates.get(p)) is not None},
        probes=tuple(p for p in PROBES if p in after.probes or (p in before.probes and p in kept)),
        words={**before.words, **after.words},
        skipped={**skipped, **{part: why for part, why in after.skipped.items() if part.split(":")[0] not in kept}},
        asked=tuple(p for p in PROBES if p in again or p in kept),
    )


def joinable(before: ProbeReport, after: ProbeReport) -> bool:
    """Whether two reports are parts of one."""
    names = ("edit_id", "base_fingerprint", "stages", "fact", "seed", "max_new_tokens")
    same = all(getattr(before, name) == getattr(after, name) for name in names)
    return same and (before.control == after.control or None in (before.control, after.control))
