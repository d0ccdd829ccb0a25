"""Effect maps in words: titles, notes and the description of a figure."""

from __future__ import annotations

import math

from workbench.plots.style import escape, number, visible
from workbench.types import EffectMap


def scale_title(effect: EffectMap) -> str:
    """What the values are, for a colour bar or a value axis; escaped."""
    return escape(effect.value_words.scale)


def limit_of(*effects: EffectMap) -> float:
    """The largest finite absolute value; 1 when there is none or all are zero."""
    found = [abs(v) for e in effects for v in e.values.flatten().tolist() if math.isfinite(v)]
    return max(found, default=0.0) or 1.0


def describe(effect: EffectMap) -> list[str]:
    """The lines below a title, raw text: what was asked, the baselines, n."""
    lines: list[str] = []
    if len(effect.prompts) == 1:
        p = effect.prompts[0]
        other = f" against “{visible(p.other_token, 24)}”" if p.other_token is not None else ""
        lines.append(f"{p.fact_id}, {p.form} form, next token “{visible(p.answer_token, 24)}”{other}")
    base = f"clean {number(effect.clean)}"
    base += f", corrupted {number(effect.corrupted)}" if effect.corrupted is not None else ", no corruption"
    lines.append(f"{base} ({effect.metric_words.unit}) · " + (f"mean of n = {effect.n}" if effect.n != 1 else "n = 1"))
    return [*lines, *effect.notes]


def heading(effect: EffectMap, title: str | None) -> str:
    """The title, raw text."""
    text = title if title is not None else effect.title
    return text[:1].upper() + text[1:] if title is None else text


def _place(effect: EffectMap, flat: int) -> str:
    rows = effect.values.shape[1] if effect.values.ndim == 2 else 1
    text = str(effect.labels["layer"][flat // rows])
    if effect.values.ndim == 2:
        column = effect.axes[1]
        label = visible(effect.labels[column][flat % rows], 24)
        text += f", position {flat % rows} “{label}”" if column == "position" else f" {label}"
    return text


def extremes(effect: EffectMap) -> str:
    """Largest and smallest value with their places, in words."""
    flat = [(v, i) for i, v in enumerate(effect.values.flatten().tolist()) if math.isfinite(v)]
    if not flat:
        return "no finite values"
    (high, at), (low, lowest) = max(flat, key=lambda p: p[0]), min(flat, key=lambda p: p[0])
    return f"largest {number(high)} at {_place(effect, at)}, smallest {number(low)} at {_place(effect, lowest)}"


def clipped(effect: EffectMap, zlim: float | None) -> list[str]:
    if zlim is None or limit_of(effect) <= zlim:
        return []
    return [f"Scale cut at ±{number(zlim)}; the largest absolute value is {number(limit_of(effect))}."]
