"""One effect map of a model before and after an edit, and the difference of the two.

Everything that decides what is measured comes from the base: the form, the model's own answer up to the traced token,
the swap partner, the noise, and what a recovery of 0 and of 1 is. So a cell means the same in both maps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from workbench.editing.applied import applied, check_base
from workbench.models.load import LoadedModel
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import causal_trace
from workbench.tracing.corruption import SharedKeywords
from workbench.tracing.metric import Metric
from workbench.types import Edit, EffectMap, Fact, FactSet, Form
from workbench.types.cancelling import Cancelled
from workbench.types.effect import Corruption
from workbench.types.torch_settings import own_torch_settings

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


@own_torch_settings()
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
    normalise: bool = False,
    form: Form | None = None,
    token: Literal["answer", "target"] = "answer",
    partner: Fact | None = None,
    pool: FactSet | None = None,
    samples: int | None = None,
    before: EffectMap | None = None,
    on_step: Callable[[int, int], Any] | None = None,
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
        normalise: Divide all effects by the base's clean minus its corrupted metric: 0 is as corrupted, 1 as the clean
            base. The map after is divided by the base's too, since an edit may leave hardly anything of its own.
        corruption, form, token, partner, pool, progress: As in ``causal_trace``.
        samples: Of noise; None for the default of what computes the map.
        before: The map before, when it is there already from a call with the same options.
        on_step: Called with how much is done and all there is to do, in layers of maps.
        cancel: Looked at after each layer of a trace, and between the two maps.

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
    if samples is not None:
        options["samples"] = samples
    steps = _Steps(model.shape.n_layers, on_step, cancel)
    if before is None:
        before = _measured(model, fact, site, {**options, "normalise": normalise}, steps)
    steps.one_map()
    with applied(model, edit, stage, strength) as edited:
        after = _measured(edited, fact, site, options, steps)
    if normalise:
        after = _as_recovery_of(before, after)
    steps.one_map()
    if any(getattr(after, name) != getattr(before, name) for name in ("prompts", "metric", "unit", "normalised")):
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


@dataclass
class _Steps:
    """How far the two maps are, in layers.

    Args:
        n_layers: Of each map.
        on_step, cancel: As in ``compare_maps``.
    """

    n_layers: int
    on_step: Callable[[int, int], Any] | None
    cancel: threading.Event | None
    done: int = 0
    maps: int = 0

    def layer(self, *_: Any) -> None:
        """One more layer of a map is finished."""
        self._at(self.done + 1)

    def one_map(self) -> None:
        """One more map is finished, whether its layers were counted or not."""
        self.maps += 1
        self._at(self.maps * self.n_layers)

    def _at(self, done: int) -> None:
        self.done, total = done, 2 * self.n_layers
        if self.on_step is not None:
            self.on_step(done, total)
        if self.cancel is not None and self.cancel.is_set() and done < total:
            which = "after" if self.maps else "before"
            raise Cancelled(f"Cancelled; the map {which} the edit was not finished.")


def _measured(model: LoadedModel, fact: Fact, site: MapSite, options: SharedKeywords, steps: _Steps) -> EffectMap:
    if site == "head":
        return attribute(model, fact, "head", **options)
    return causal_trace(model, fact, site, on_layer=steps.layer, **options)


def _as_recovery_of(base: EffectMap, after: EffectMap) -> EffectMap:
    """The effects after an edit as shares of what the base's corruption takes from the base."""
    assert base.corrupted is not None
    gap = base.clean - base.corrupted
    return replace(
        after,
        values=after.values / gap,
        stderr=None if after.stderr is None else after.stderr / abs(gap),
        per_fact=None if after.per_fact is None else after.per_fact / gap,
        normalised=True,
    )
