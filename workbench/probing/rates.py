"""Probe rows to rates. Definitions are in ``ProbeReport``'s docstring and ``PROBE_RATES``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workbench.types import ProbeRow, Rate
from workbench.types.intervals import paired_difference, share

Rates = dict[str, dict[str, dict[str, Rate]]]


def rates_of_probes(rows: Sequence[ProbeRow], stages: Sequence[str], *, seed: int = 0) -> Rates:
    """All rates by probe and stage; a stage that was not asked has none.

    Args:
        rows: Rows of every probe.
        stages: ``"base"`` first.
        seed: Of the bootstrap.
    """
    out: Rates = {}
    for probe in dict.fromkeys(r.probe for r in rows):
        ours = [r for r in rows if r.probe == probe]
        by_stage = {stage: [r for r in ours if r.stage == stage] for stage in stages}
        base = {_key(r): r for r in by_stage["base"]}
        out[probe] = {s: _at_stage(probe, found, base, seed) for s, found in by_stage.items() if found}
    return out


def _key(row: ProbeRow) -> tuple[str, ...]:
    return row.kind, row.group, row.fact_id, row.prompt, row.start


def _at_stage(
    probe: str, rows: Sequence[ProbeRow], base: dict[tuple[str, ...], ProbeRow], seed: int
) -> dict[str, Rate]:
    # Bare questions of the context probe are what the others are compared with, and the paraphrases of another probe.
    counted = [r for r in rows if r.informative and not (probe == "context" and r.kind == "not stated")]

    def over(group: str, says: Callable[[ProbeRow], bool], cluster: bool = False) -> Rate:
        return share([(r.fact_id if cluster else "", says(r)) for r in counted if r.group == group], seed=seed)

    groups = {r.group for r in rows}
    rates: dict[str, Rate] = {}
    if "edited" in groups:
        for name in ("old", "new", "refusal", "neither"):
            rates[name] = over("edited", lambda r, name=name: r.recovered == name)
    if "same" in groups:
        rates["same"] = over("same", lambda r: r.label == "old", cluster=True)
    if "control" in groups:
        rates["control"] = over("control", lambda r: r.label == "old")
    asked = [(r.fact_id if r.group == "same" else "", r.informative) for r in rows if r.group != "control"]
    rates["informative"] = share(asked, seed=seed)
    if any(r.kind == "multi-hop" and r.group == "edited" for r in rows):
        hops = [r for r in counted if r.kind == "multi-hop" and r.group == "edited"]
        rates |= {f"hop_{name}": share([("", r.recovered == name) for r in hops], seed=seed) for name in ("old", "new")}
    if probe == "context":
        for name, group in (("gain", "edited"), ("control_gain", "control")):
            rates[name] = _gain([r for r in rows if r.group == group], seed)
    if probe == "priming":
        fresh = [r for r in rows if not _names_new(base[_key(r)])]
        rates["bleed"] = share([(r.fact_id, _names_new(r)) for r in fresh], seed=seed)
    return rates


def _names_new(row: ProbeRow) -> bool:
    return row.label in ("new", "both")


def _gain(rows: Sequence[ProbeRow], seed: int) -> Rate:
    """Old answer with the fact stated minus without, over questions that the base answers when the fact is stated."""
    bare = [r for r in rows if r.kind == "not stated"]
    with_: list[float] = []
    without: list[float] = []
    for row in rows:
        found = [b for b in bare if row.kind == "stated" and row.informative and row.prompt.endswith(f" {b.prompt}")]
        if found:  # the longest: one question may end with another
            with_.append(float(row.recovered == "old"))
            without.append(float(max(found, key=lambda b: len(b.prompt)).recovered == "old"))
    return paired_difference({"": with_}, {"": without}, seed=seed)
