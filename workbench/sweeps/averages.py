"""Means over the items of a sweep: maps as one map with its standard errors, rates and numbers with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from workbench.circuits.mean_edges import mean_edges
from workbench.tracing.roles import by_role
from workbench.types import EdgeMap, EffectMap, EvalReport, Rate
from workbench.types.cell_intervals import mean_and_error
from workbench.types.intervals import mean_over
from workbench.types.rates import RATES
from workbench.types.roles import roles_of

_ALIKE_EDGES = ("senders", "receivers", "metric", "method", "steps", "corruption", "base_fingerprint")
_ALIKE = ("axes", "unit", "metric", "method", "corruption", "normalised", "base_fingerprint")


def mean_of(results: Mapping[str, Any]) -> Any:
    """The mean of results of one kind: of maps a map, of reports and of numbers rates with intervals, of dictionaries
    a dictionary, each of its means over the items that have such an entry.

    Args:
        results: By item.

    Raises:
        ValueError: There are none, or they are of several kinds, or maps that no mean is of.
        TypeError: They are of a kind that has no mean.
    """
    if not results:
        raise ValueError("There is no finished item to average.")
    kinds = {id: type(value) for id, value in results.items()}
    if any(kind in (int, float, bool) for kind in kinds.values()):
        kinds = {id: float if kind in (int, bool) else kind for id, kind in kinds.items()}
    first = next(iter(results))
    if other := next((id for id, kind in kinds.items() if kind is not kinds[first]), None):
        raise ValueError(
            f"The items are of several kinds ({first!r} is a {kinds[first].__name__}, {other!r} a "
            f"{kinds[other].__name__}), so they have no mean. Average those of one kind: mean(ids)."
        )
    if kinds[first] is EffectMap:
        return mean_map(cast("Mapping[str, EffectMap]", results))
    if kinds[first] is EdgeMap:
        edge_maps = cast("Mapping[str, EdgeMap]", results)
        _check_alike(edge_maps, _ALIKE_EDGES)
        return mean_edges([*edge_maps.values()], [*edge_maps])
    if kinds[first] is EvalReport:
        return mean_rates(cast("Mapping[str, EvalReport]", results))
    if kinds[first] is float:
        numbers = {id: _as_float(value) for id, value in results.items()}
        if infinite := [id for id, value in numbers.items() if math.isinf(value)]:
            raise ValueError(
                f"The results of {infinite[:3]} are infinite or too large, so there is no mean. Average the others: "
                "mean(ids). NaN stands for what was not measured, and is left out."
            )
        return mean_over({id: [v] for id, v in numbers.items() if math.isfinite(v)})
    if kinds[first] is dict:
        names = dict.fromkeys(name for value in results.values() for name in value)
        # None and NaN stand for what an item lacks
        of = {n: {id: v[n] for id, v in results.items() if v.get(n) is not None} for n in names}
        return {n: mean_of(values) for n, values in of.items() if values and _averages(n, values)}
    raise TypeError(
        f"A {kinds[first].__name__} has no mean. Maps, reports, numbers and dictionaries of these have one; of others "
        "make numbers first: to_frame()."
    )


def _averages(name: str, values: Mapping[str, Any]) -> bool:
    """Whether an entry of dictionaries has a mean.

    Raises:
        ValueError: It has one in some of the items alone.
    """
    has = {id: isinstance(v, (EffectMap, EdgeMap, EvalReport, int, float, dict)) for id, v in values.items()}
    if all(has.values()) or not any(has.values()):
        return all(has.values())
    one, other = (next(id for id in has if has[id] is wanted) for wanted in (True, False))
    raise ValueError(
        f"The entry {name!r} is of several kinds ({one!r} has a {type(values[one]).__name__}, {other!r} a "
        f"{type(values[other]).__name__}), so it has no mean. Average the items of one kind: mean(ids)."
    )


def _as_float(number: float) -> float:
    """A number as a float; a whole number that is too large for one is infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def mean_map(maps: Mapping[str, EffectMap]) -> EffectMap:
    """The mean of maps over items, with the standard error over items and every item's own values in ``per_fact``.

    Positions of texts are roles ("last subject token"), those of several prompts at once as they are; a role that some
    lack is a mean over the others.

    Args:
        maps: By item.

    Raises:
        ValueError: They differ in what was measured, in the model, in form (chat and cloze are never averaged), or in
            their labels.
    """
    first, *others = maps.values()
    _check_alike(maps, _ALIKE)
    forms = {prompt.form for one in maps.values() for prompt in one.prompts}
    if len(forms) > 1:
        raise ValueError(
            "Some items were traced in chat form and others in cloze form, and these are never averaged. Sweep with "
            'form="cloze" or form="chat", or average those of one form: mean(ids).'
        )
    if "position" in first.axes:
        roles = roles_of(prompt for one in maps.values() for prompt in one.prompts)
        if any(len(one.prompts) != 1 for one in maps.values()):
            raise ValueError("Some maps are means over several texts already, or name none, so their positions differ.")
        values = torch.stack([by_role(one.values, one.prompts[0], roles) for one in maps.values()])
        labels = {**first.labels, "position": roles}
    else:
        if odd := next((id for id, one in maps.items() if one.labels != first.labels), None):
            raise ValueError(f"The map of {odd!r} has other labels than the first one's, so they have no mean.")
        values, labels = torch.stack([one.values for one in maps.values()]), first.labels
    mean, error = mean_and_error(values)
    baselines = [one.corrupted for one in maps.values() if one.corrupted is not None]
    return replace(
        first,
        values=mean,
        labels=labels,
        clean=sum(one.clean for one in maps.values()) / len(maps),
        corrupted=None if first.corrupted is None else sum(baselines) / len(baselines),
        stderr=error,
        n=len(maps),
        per_fact=values,
        prompts=tuple(prompt for one in (first, *others) for prompt in one.prompts),
        provenance=first.provenance | {"facts": list(maps)},
    )


def _check_alike(maps: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise a ValueError where maps differ in one of some fields."""
    first = next(iter(maps.values()))
    for name in names:
        if odd := next((id for id, one in maps.items() if getattr(one, name) != getattr(first, name)), None):
            raise ValueError(
                f"The maps differ in {name} ({getattr(first, name)!r:.60}, and {getattr(maps[odd], name)!r:.60} of "
                f"{odd!r}), so they have no mean."
            )


def mean_rates(reports: Mapping[str, EvalReport]) -> dict[str, dict[str, Rate]]:
    """Rates by stage and name, each the mean over items on which it was measured, with an interval that takes whole
    items. What the base's own rate could not help being has none, as in a report."""
    stages = list(dict.fromkeys(stage for report in reports.values() for stage in report.stages))
    out: dict[str, dict[str, Rate]] = {}
    for stage in stages:
        rates = {id: report.rates[stage] for id, report in reports.items() if stage in report.rates}
        names = dict.fromkeys(name for of in rates.values() for name in of)
        means = {
            name: mean_over(
                {id: [of[name].value] for id, of in rates.items() if name in of and of[name].n},
                within=RATES[name].within if name in RATES else None,
            )
            for name in names
        }
        fixed = {name for name in names if stage == "base" and name in RATES and RATES[name].fixed_at_base}
        out[stage] = {name: rate.defined() if name in fixed else rate for name, rate in means.items()}
    return out
