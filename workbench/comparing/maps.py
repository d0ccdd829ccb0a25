"""One effect map of a model before and after an edit, and the difference of the two.

Everything that decides what is measured comes from the base: the form, the model's own answer up to the traced token,
the swap partner and the noise. So a cell means the same in both maps.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Literal

from workbench.editing.applied import applied, check_base
from workbench.models.load import LoadedModel
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import causal_trace
from workbench.tracing.corruption import SharedKeywords
from workbench.tracing.metric import Metric
from workbench.types import Edit, EffectMap, Fact, FactSet, Form
from workbench.types.cancelling import Cancelled
from workbench.types.effect import Corruption

MapSite = Literal["resid", "mlp", "attn", "head"]
MAP_SITES: tuple[MapSite, ...] = ("resid", "mlp", "attn", "head")


@dataclass(frozen=True, eq=False)
class MapComparison:
    """Three maps: before an edit, after it, and after minus before (of the baselines too).

    Args:
        before, after, difference: Of the same places, in units of the same metric.
        stage: The edit's stages up to this one.
        strength: Of the edit in the map after it.

    Example:
        >>> maps = wb.compare_maps(model, edit, corruption="noise", pool=facts)
        >>> round(maps.before.clean, 1), round(maps.after.clean, 1)
        (1.0, 0.0)
        >>> maps.difference.axes
        ('layer', 'position')
    """

    before: EffectMap
    after: EffectMap
    difference: EffectMap
    stage: str
    strength: float = 1.0

    @property
    def limit(self) -> float:
        """The largest magnitude in any of the three: one colour scale for all."""
        return max(float(m.values.abs().nan_to_num().max()) for m in (self.before, self.after, self.difference))


def compare_maps(
    model: LoadedModel,
    edit: Edit,
    fact: Fact | None = None,
    *,
    site: MapSite = "resid",
    stage: str | None = None,
    strength: float = 1.0,
    corruption: Corruption = "swap",
    metric: Metric | None = None,
    form: Form | None = None,
    token: Literal["answer", "target"] = "answer",
    partner: Fact | None = None,
    pool: FactSet | None = None,
    before: EffectMap | None = None,
    cancel: threading.Event | None = None,
    progress: bool = True,
) -> MapComparison:
    """Compute a causal trace, or the head attribution map, before and after an edit.

    Args:
        model: The edit's base; it is not changed.
        edit: The edit.
        fact: What to trace; the edit's first fact by default.
        site: ``"resid"``, ``"mlp"`` or ``"attn"`` as in ``causal_trace``, or ``"head"`` as in ``attribute``.
        stage: The edit's stages up to this one; None for all.
        strength: Of the edit, as in ``applied``: at 0 both maps are the same to the bit.
        metric: As in ``causal_trace``; None for the default of what computes the map.
        corruption, form, token, partner, pool, progress: As in ``causal_trace``. A swap is one run, noise is ten.
        before: The map before, when it is there already from a call with the same options.
        cancel: Looked at between the two maps.

    Returns:
        The two maps and their difference, after minus before, cell by cell in the same units.

    Raises:
        ValueError: An unknown site, an edit of another base, or as ``causal_trace``.
        Cancelled: ``cancel`` was set.

    Example:
        >>> maps = wb.compare_maps(model, edit, site="head", pool=facts)
        >>> maps.stage, maps.difference.top(1, by="abs")
        ('learn', Selection('L0H3'))
    """
    if site not in MAP_SITES:
        raise ValueError(f"site must be one of {MAP_SITES}, got {site!r}.")
    if model.applied:
        raise ValueError("compare_maps compares an edit with its base: pass the base model (model.base).")
    check_base(model, edit)
    fact = edit.facts[0] if fact is None else fact
    options: SharedKeywords = {
        "corruption": corruption,
        "form": form,
        "token": token,
        "partner": partner,
        "pool": pool,
        "progress": progress,
    }
    if metric is not None:
        options["metric"] = metric

    def measure(one: LoadedModel) -> EffectMap:
        if site == "head":
            return attribute(one, fact, "head", **options)
        return causal_trace(one, fact, site, **options)

    before = measure(model) if before is None else before
    if cancel is not None and cancel.is_set():
        raise Cancelled("Cancelled after the map before the edit.")
    with applied(model, edit, stage, strength) as edited:
        after = measure(edited)
    if after.prompts != before.prompts or after.metric != before.metric or after.unit != before.unit:
        raise ValueError("before= was measured on another text, site or metric; leave it out to measure it again.")
    difference = replace(
        after,
        values=after.values - before.values,
        clean=after.clean - before.clean,
        corrupted=None if after.corrupted is None or before.corrupted is None else after.corrupted - before.corrupted,
        stderr=None,
        per_fact=None,
    )
    return MapComparison(before, after, difference, stage or edit.stage_names[-1], strength)
