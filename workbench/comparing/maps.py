"""One effect map of a model before and after an edit, and the difference of the two, of facts or contrasts.

Everything that decides what is measured comes from the base: the form, the model's own answer up to the traced token,
the swap partner, the noise, and what a recovery of 0 and of 1 is. So a cell means the same in both maps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from workbench.comparing.contexts import outside_context
from workbench.editing.applied import applied, check_under
from workbench.models.load import LoadedModel
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import causal_trace
from workbench.tracing.corruption import one_form
from workbench.tracing.mean_maps import mean_map
from workbench.tracing.metric import Metric
from workbench.tracing.setup import SharedKeywords
from workbench.types import Contrast, Edit, EffectMap, Fact, FactSet, Form
from workbench.types.cancelling import Cancelled
from workbench.types.cell_intervals import mean_and_error
from workbench.types.contrast import Traced, as_traced
from workbench.types.effect import Corruption
from workbench.types.torch_settings import own_torch_settings

MapSite = Literal["resid", "mlp", "attn", "head"]
MAP_SITES: tuple[MapSite, ...] = ("resid", "mlp", "attn", "head")
SAME = ("prompts", "metric", "unit", "normalised")
"""Of two maps whose difference means something."""


@dataclass(frozen=True, eq=False)
class MapComparison:
    """Three maps: before an edit, after it, and after minus before (of the baselines too).

    Args:
        before, after, difference: Of the same places, in units of the same metric; of several facts or contrasts means
            over them. The difference's standard error is that of their differences, each before and after.
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
    fact: Traced | None = None,
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
        fact: What to trace: a fact or a contrast, or several (means over them; of a trace by role or named position);
            the edit's first fact by default.
        site: ``"resid"``, ``"mlp"`` or ``"attn"`` as in ``causal_trace``, or ``"head"`` as in ``attribute``.
        stage: The edit's stages up to this one; None for all.
        strength: Of the edit, as in ``applied``: at 0 both maps are the same to the bit.
        metric: As in ``causal_trace``; None for the default of what computes the map.
        normalise: Divide the effects of each by the base's clean minus its corrupted metric: 0 is as corrupted, 1 as
            the clean base. The map after is divided by the base's too, since an edit may leave hardly anything of its
            own.
        corruption, form, token, partner, pool, progress: As in ``causal_trace``; a contrast brings its own.
        samples: Of noise; None for the default of what computes the map.
        before: The map before, of one fact or contrast, when it is there already from a call with the same options.
        on_step: Called with how much is done and all there is to do, in layers of maps.
        cancel: Looked at after each layer of a trace, and between maps.

    Returns:
        The two maps and their difference, after minus before, cell by cell in the same units.

    Raises:
        ValueError: An unknown site, an edit of another base, ``before`` with several facts or contrasts, or as
            ``causal_trace``.
        Cancelled: ``cancel`` was set.

    Example:
        >>> maps = wb.compare_maps(model, edit, site="head", pool=facts)
        >>> maps.stage, maps.difference.top(1, by="abs")
        ('learn', Selection('L0H3'))
    """
    if site not in MAP_SITES:
        raise ValueError(f"site must be one of {MAP_SITES}, got {site!r}.")
    check_under(model, edit, "compare_maps")
    traced = as_traced(edit.facts[0] if fact is None else fact, "compare_maps")
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
    if before is not None and len(traced) > 1:
        raise ValueError(f"before= is the map of one fact or contrast, and {len(traced)} are given. Leave it out.")
    options["form"] = one_form(model, traced, form, token)
    steps = _Steps(model.shape.n_layers, on_step, cancel, len(traced))
    base = [before] if before is not None else []
    for one in traced[len(base) :]:
        base.append(_measured(model, one, site, {**options, "normalise": normalise}, steps))
        steps.one_map()
    if before is not None:
        steps.one_map()
    changed: list[EffectMap] = []
    with applied(model, edit, stage, strength, stack=True) as edited:
        for one, own in zip(traced, base, strict=True):
            after = _measured(edited, one, site, options, steps)
            after = _without_context(edited, one, after, own) if edited.context else after
            changed.append(_as_recovery_of(own, after) if normalise else after)
            steps.one_map()
    if any(getattr(a, name) != getattr(b, name) for a, b in zip(changed, base, strict=True) for name in SAME):
        raise ValueError("before= was measured on another text, site or metric; leave it out to measure it again.")
    first, second = (maps[0] if len(maps) == 1 else mean_map(maps) for maps in (base, changed))
    return MapComparison(first, second, _difference(first, second), stage or edit.stage_names[-1], strength)


def _difference(before: EffectMap, after: EffectMap) -> EffectMap:
    """After minus before. Of several facts or contrasts the error is that of their own differences: what the edit did
    to each, not how much they differ from each other."""
    of_each, error = None, None
    if len(after.prompts) > 1 and before.per_fact is not None and after.per_fact is not None:
        of_each = after.per_fact - before.per_fact
        _, error = mean_and_error(of_each)
    return replace(
        after,
        values=after.values - before.values,
        clean=after.clean - before.clean,
        corrupted=None if after.corrupted is None or before.corrupted is None else after.corrupted - before.corrupted,
        stderr=error,
        per_fact=of_each,
    )


@dataclass
class _Steps:
    """How far the maps are, in layers.

    Args:
        n_layers: Of each map.
        on_step, cancel: As in ``compare_maps``.
        n_traced: Facts or contrasts, of which each has a map before and one after.
    """

    n_layers: int
    on_step: Callable[[int, int], Any] | None
    cancel: threading.Event | None
    n_traced: int = 1
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
        self.done, total = done, 2 * self.n_layers * self.n_traced
        if self.on_step is not None:
            self.on_step(done, total)
        if self.cancel is not None and self.cancel.is_set() and done < total:
            which = "after" if self.maps >= self.n_traced else "before"
            raise Cancelled(f"Cancelled; the map {which} the edit was not finished.")


def _measured(
    model: LoadedModel, one: Fact | Contrast, site: MapSite, options: SharedKeywords, steps: _Steps
) -> EffectMap:
    if site == "head":
        return attribute(model, one, "head", **options)
    return causal_trace(model, one, site, on_layer=steps.layer, **options)


def _without_context(edited: LoadedModel, one: Fact | Contrast, after: EffectMap, before: EffectMap) -> EffectMap:
    """The map of an edit with a context on the base's own text: the context's positions, which no corruption reaches,
    are left out.

    Raises:
        ValueError: The tokenizer reads the question otherwise after the context.
    """
    (prompt,), (own,) = after.prompts, before.prompts
    outside = outside_context(edited, one, prompt, own)
    if "position" not in after.axes:
        return replace(after, prompts=before.prompts)
    axis, kept = after.axes.index("position"), torch.tensor(outside)
    cut = {
        name: None if (values := getattr(after, name)) is None else values.index_select(axis - len(after.axes), kept)
        for name in ("values", "stderr", "per_fact")
    }
    changes: dict[str, Any] = {**cut, "labels": before.labels, "prompts": before.prompts}
    return replace(after, **changes)


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
