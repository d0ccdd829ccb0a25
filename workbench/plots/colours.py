"""Colour scales: one table, from which figures, PNG pictures and the maps in the browser take their colours.

To add a scale, add a row to `COLOUR_SCALES`. Nothing else lists them. `ColourAxis` says where on a scale a value lies:
linear, symmetric log, or clipped.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

ScaleKind = Literal["diverging", "sequential"]
ScaleMode = Literal["linear", "symlog", "clip"]
KNEE = 1 / 30
"""A symmetric log is linear up to this part of the limit."""
PERCENTILE = 99
"""Of the magnitudes: where a clipped axis ends."""


@dataclass(frozen=True)
class ColourScale:
    """A colour for every value from a scale's low end to its high end: evenly spaced stops, linear in RGB between them.

    Args:
        name: What `colour_scale` finds it by.
        kind: ``"diverging"`` spans ``-limit`` to ``limit`` with zero in the middle; ``"sequential"`` spans 0 to
            ``limit``.
        stops: ``"#rrggbb"`` from the lowest value to the highest, for a light ground.
        dark: As many stops for a dark ground. Empty: the same colours are readable there too.

    Raises:
        ValueError: A stop that is no ``"#rrggbb"``, fewer than two stops, a diverging scale without a middle, or
            another number of stops for the dark ground.

    Example:
        >>> grey = ColourScale("grey", "sequential", ("#000000", "#ffffff"))
        >>> grey.rgb(np.array([0.0, 0.2, 1.0])).tolist()
        [[0, 0, 0], [51, 51, 51], [255, 255, 255]]
    """

    name: str
    kind: ScaleKind
    stops: tuple[str, ...]
    dark: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for stop in (*self.stops, *self.dark):
            if not re.fullmatch("#[0-9a-f]{6}", stop):
                raise ValueError(f'A stop of a colour scale is "#rrggbb" in lower case, not {stop!r}.')
        if len(self.stops) < 2 or (self.kind == "diverging" and len(self.stops) % 2 == 0):
            wanted = "an odd number of stops, at least 3" if self.kind == "diverging" else "at least 2 stops"
            raise ValueError(f"The {self.kind} colour scale {self.name!r} needs {wanted}, not {len(self.stops)}.")
        if self.dark and len(self.dark) != len(self.stops):
            raise ValueError(f"The colour scale {self.name!r} has {len(self.stops)} stops, but {len(self.dark)} dark.")

    @property
    def low(self) -> float:
        """What the first stop stands for, in units of the limit: -1 or 0. The last stop always stands for 1."""
        return -1.0 if self.kind == "diverging" else 0.0

    @property
    def plotly(self) -> list[list[Any]]:
        """The scale as plotly's ``colorscale``: ``[[0.0, "#rrggbb"], ..., [1.0, "#rrggbb"]]``."""
        return [[i / (len(self.stops) - 1), color] for i, color in enumerate(self.stops)]

    @property
    def browser(self) -> dict[str, Any]:
        """The scale as ``static/grid/colours.js`` reads it."""
        return {"low": self.low, "light": list(self.stops), "dark": list(self.dark or self.stops)}

    def rgb(self, scaled: np.ndarray) -> np.ndarray:
        """Colours on a light ground.

        Args:
            scaled: Values in units of the limit, of any shape; what is beyond the ends gets the end's colour, NaN the
                colour of zero.

        Returns:
            uint8 of shape ``[*scaled.shape, 3]``.
        """
        stops = np.array([[int(color[at : at + 2], 16) for at in (1, 3, 5)] for color in self.stops], dtype=float)
        place = (np.clip(np.nan_to_num(scaled), self.low, 1) - self.low) / (1 - self.low) * (len(stops) - 1)
        index = np.arange(len(stops))
        return np.stack([np.interp(place, index, stops[:, i]) for i in range(3)], axis=-1).round().astype(np.uint8)


def _stops(digits: str) -> tuple[str, ...]:
    return tuple(f"#{color}" for color in digits.split())


# RdBu is ColorBrewer's, blue for negative; on a dark ground its middle is the ground. Viridis is matplotlib's, for
# what begins at zero, such as probabilities. Both are safe for colour-blind readers.
COLOUR_SCALES: tuple[ColourScale, ...] = (
    ColourScale(
        "RdBu",
        "diverging",
        _stops("053061 2166ac 4393c3 92c5de d1e5f0 ffffff fddbc7 f4a582 d6604d b2182b 67001f"),
        dark=_stops("c6e2f2 92c5de 4393c3 2a6fab 1d3f63 202326 5c2a25 ad3e35 d6604d f4a582 fcdccb"),
    ),
    ColourScale(
        "viridis",
        "sequential",
        _stops("440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725"),
    ),
)


def colour_scale(name: str) -> ColourScale:
    """Return the scale of this name.

    Raises:
        ValueError: No scale has this name.

    Example:
        >>> colour_scale("RdBu").stops[5]
        '#ffffff'
    """
    by_name = {scale.name: scale for scale in COLOUR_SCALES}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There is no colour scale {name!r}; there are {', '.join(map(repr, by_name))}.{hint}")
    return by_name[name]


@dataclass(frozen=True)
class ColourAxis:
    """Where a value lies on a colour scale. The map in the browser has the same in ``static/grid/colours.js``.

    Args:
        mode: ``"linear"``; ``"symlog"``, so that what is small beside the largest can be told apart: sign(v) log(1 +
            |v| / c) with c a thirtieth of the limit, which is linear near zero; ``"clip"``: linear, and everything
            beyond ``clip`` has the end's colour.
        limit: The magnitude at the end of the scale.
        clip: The end of a clipped scale, see `clip_limit`. None: the limit.

    Raises:
        ValueError: No such mode.

    Example:
        >>> heads = np.array([16.4, 2.41, 1.65, 0.0])
        >>> ColourAxis("linear", 16.4).place(heads).round(2).tolist()
        [1.0, 0.15, 0.1, 0.0]
        >>> ColourAxis("symlog", 16.4).place(heads).round(2).tolist()
        [1.0, 0.49, 0.41, 0.0]
        >>> ColourAxis("clip", 16.4, clip=2.41).place(heads).round(2).tolist()
        [1.0, 1.0, 0.68, 0.0]
    """

    mode: ScaleMode = "linear"
    limit: float = 1.0
    clip: float | None = None

    def __post_init__(self) -> None:
        checked_mode(self.mode)

    @property
    def end(self) -> float:
        """The magnitude at the end of the scale."""
        return self.clip if self.mode == "clip" and self.clip else self.limit

    @property
    def cut(self) -> bool:
        """Whether the end's colour also stands for what is beyond it."""
        return self.end < self.limit

    def place(self, values: np.ndarray) -> np.ndarray:
        """Values in units of the end, -1 to 1: what `ColourScale.rgb` takes. NaN stays NaN."""
        scaled = np.clip(np.asarray(values, dtype=float) / self.end, -1, 1)
        if self.mode != "symlog":
            return scaled
        return np.sign(scaled) * np.log1p(np.abs(scaled) / KNEE) / np.log1p(1 / KNEE)

    def ticks(self, low: float) -> list[tuple[float, float]]:
        """Places and values of the colour bar's labelled ticks, from its low end to its high end.

        Args:
            low: `ColourScale.low`.
        """
        if self.mode != "symlog":
            return [(place, place * self.end) for place in (low, (1 + low) / 2, 1.0)]
        inner = _round(self.end * KNEE * float(np.expm1(np.log1p(1 / KNEE) / 2)))  # near the middle of an arm
        values = (-self.end, -inner, 0.0, inner, self.end) if low < 0 else (0.0, inner, self.end)
        return list(zip(self.place(np.array(values)).tolist(), values, strict=True))


def checked_mode(mode: str) -> ScaleMode:
    """The mode. Raises ValueError where there is no such one."""
    if mode not in get_args(ScaleMode):
        raise ValueError(f"The mode of a colour scale is one of {list(get_args(ScaleMode))}, not {mode!r}.")
    return cast(ScaleMode, mode)


def clip_limit(values: np.ndarray, limit: float) -> float:
    """Where a clipped scale ends: the 99th percentile of the magnitudes, at most the limit.

    The limit itself where that is zero or where there is no value.

    Example:
        >>> clip_limit(np.array([[16.4] + [0.5] * 199]), limit=16.4)
        0.5
    """
    sizes = np.abs(values[~np.isnan(values)])
    # An observed magnitude, not one between two: a single outlier has no part in it.
    end = float(np.percentile(sizes, PERCENTILE, method="lower")) if sizes.size else 0.0
    return min(end, limit) or limit


def _round(value: float) -> float:
    """1, 2 or 5 times a power of ten: the one at the smallest ratio."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(min((digit * power for digit in (1, 2, 5, 10)), key=lambda near: abs(np.log(near / value))))
