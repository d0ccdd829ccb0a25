"""Effect maps: how much each place in a model matters for one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from workbench.types.cell_intervals import mean_and_error, t_interval
from workbench.types.map_places import at_places, places_of
from workbench.types.metric_words import KNOWN_WORDS, RECOVERY, MetricWords
from workbench.types.plain import is_finite, is_whole, whole_numbers
from workbench.types.roles import is_of_subject, roles_of
from workbench.types.selection import Component, Selection
from workbench.types.traced_prompt import TracedPrompt, partner_notes
from workbench.types.units import UNITS, Unit

Corruption = Literal["noise", "swap"]

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

CONTRASTED = " - controls"
"""Ends the method of a map from which the mean over control facts was subtracted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EffectMap:
    """A map gives an effect for each place of a model, with everything needed to read it. It lies on the CPU.

    Args:
        values: Effects in units of ``metric``, or recovery where they are ``normalised``; shape by ``axes``, for
            example [layer, position] or [layer, head].
        axes: Names of the axes.
        labels: For each axis, one label per index (``"L0"``, a token, ``"H3"``).
        unit: What a cell stands for.
        metric: ``"probability"``, ``"logit_diff"``, ``"log_prob"``, ``"rank"``, ``"kl"``, or the name of a function.
        words: What figures call the metric; None for one of these, or for its name.
        method: ``"noise"``, ``"swap"`` (restoration traces), ``"attribution"``, ``"ig"``, ``"patching"``, ``"dla"``;
            with ``" - controls"`` appended when the mean over control facts was subtracted.
        clean, corrupted: The metric without and with the corruption, in its own units (``corrupted`` is None where none
            was used).
        stderr: Standard error over samples or facts, same shape, or None when n is 1. Where controls were subtracted it
            is that of the difference, with the spread of the controls in it; None if there is one fact or one control.
        n: How many noise samples or facts the values are a mean of.
        per_fact: Values of each fact or sample, [n, ...], when kept; their mean are the values.
        prompts: The traced texts.
        corruption: ``"noise"`` or ``"swap"``; None where nothing was corrupted, or the map does not say.
        base_fingerprint: Of the model that was traced (of an edited model: its base with the edit), or None.
        normalised: Whether effects are divided by clean minus corrupted of their own fact: recovery, 0 as corrupted
            and 1 as clean.
        provenance: Model name, versions, settings and time. Nothing is decided by it.

    Example:
        >>> trace
        EffectMap(residual stream, noise, 3 layers x 18 positions, probability, clean 0.999, corrupted ..., largest ...)
        >>> trace.title, tuple(trace.values.shape), trace.labels["layer"]
        ('residual stream (noise)', (3, 18), ('L0', 'L1', 'L2'))
    """

    values: Tensor
    axes: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    unit: Unit
    metric: str
    method: str
    clean: float
    corrupted: float | None = None
    stderr: Tensor | None = None
    n: int = 1
    per_fact: Tensor | None = None
    prompts: tuple[TracedPrompt, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])
    words: MetricWords | None = None
    corruption: Corruption | None = None
    base_fingerprint: str | None = None
    normalised: bool = False

    def __post_init__(self) -> None:
        if self.normalised and self.corrupted is None:
            raise ValueError("A normalised map needs corrupted=: recovery is a share of clean minus corrupted.")
        if self.values.ndim != len(self.axes):
            raise ValueError(f"values of shape {tuple(self.values.shape)} do not fit the axes {self.axes}.")
        for size, axis in zip(self.values.shape, self.axes, strict=True):
            if len(self.labels.get(axis, ())) != size:
                raise ValueError(f"Axis {axis!r} has {size} entries but {len(self.labels.get(axis, ()))} labels.")
        for name in ("values", "stderr", "per_fact"):
            tensor = getattr(self, name)
            if tensor is not None:
                object.__setattr__(self, name, tensor.detach().to("cpu", torch.float32))

    def __repr__(self) -> str:
        size = " x ".join(f"{n} {axis}s" for n, axis in zip(self.values.shape, self.axes, strict=True))
        return (
            f"EffectMap({UNITS[self.unit].title}, {self.method}, {size}, "
            f"{'recovery of ' if self.normalised else ''}{self.metric}, "
            f"clean {self.clean:.3f}"
            + (f", corrupted {self.corrupted:.3f}" if self.corrupted is not None else "")
            + f", largest {self.values.max().item():.3f})"
        )

    @property
    def metric_words(self) -> MetricWords:
        """What figures call the metric, that is ``clean`` and ``corrupted``."""
        known = KNOWN_WORDS.get(self.metric) or MetricWords(name=self.metric, title=self.metric, unit=self.metric)
        return self.words or known

    @property
    def value_words(self) -> MetricWords:
        """What figures call the values: the metric's words, or those of recovery."""
        return RECOVERY if self.normalised else self.metric_words

    @property
    def support(self) -> Tensor:
        """The values so that more of it supports the answer more: less where less of the metric is closer to the clean
        run (``"rank"`` and ``"kl"``)."""
        return -self.values if self.value_words.falls else self.values

    @property
    def title(self) -> str:
        """A short title for figures."""
        return f"{UNITS[self.unit].title} ({self.method})"

    @property
    def subject(self) -> tuple[int, ...]:
        """Positions of the subject's tokens, for a map of one prompt; the roles of the subject for several."""
        if "position" not in self.axes:
            return ()
        if len(self.prompts) == 1:
            return self.prompts[0].subject
        return tuple(i for i, label in enumerate(self.labels["position"]) if is_of_subject(label))

    @property
    def interval(self) -> tuple[Tensor, Tensor] | None:
        """The 95% interval of each cell, lower and upper bounds of the values' shape: Student's t over the facts or
        samples that have it; NaN where fewer than two have. None where there is no standard error.

        Example:
            >>> low, high = trace.interval
            >>> bool((low <= trace.values).all() and (trace.values <= high).all())
            True
        """
        return None if self.stderr is None else t_interval(self.values, self.stderr, self.per_fact, self.n)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before the map is read, in sentences: a swap partner that the model does not know."""
        return partner_notes(self.prompts)

    def components(self, index: tuple[int, ...]) -> tuple[Component, ...]:
        """List the components that a cell stands for.

        An ``attn`` or ``mlp`` trace cell at layer l means that layer's attention or MLP. A ``resid`` cell is the state
        *entering* layer l, which has no gates of its own: it stands for the two modules that first read it.

        Example:
            >>> heads.components((1, 3)), trace.components((1, 0))
            ((L1H3,), (L1ATTN, L1MLP))
        """
        words = UNITS[self.unit]
        sizes = tuple(self.values.shape)
        if len(index) != len(sizes) or not all(is_whole(i) and 0 <= i < n for i, n in zip(index, sizes, strict=True)):
            raise ValueError(f"A cell of this map has an index by {self.axes}, below {sizes}; got {index!r}.")
        layer = index[self.axes.index("layer")]
        at = None if words.axis is None else index[self.axes.index(words.axis)]
        return tuple(Component(layer, kind, at) for kind in words.kinds)

    def top(
        self,
        k: int,
        *,
        by: Literal["value", "abs"] = "value",
        layers: range | None = None,
        position: int | None = None,
        role: str | None = None,
    ) -> Selection:
        """Select the components of the k largest cells, largest first.

        A residual trace is read at one token: restoring the subject at layer 0, or the last token in late layers,
        brings back the whole answer by construction, so the largest cells of all say nothing. In traces of MLP and
        attention outputs each component counts with its largest cell, if no token is given.

        Args:
            k: How many cells.
            by: ``"value"`` takes what supports the answer most (``support``), ``"abs"`` the largest effects of either
                sign.
            layers: Only these layers.
            position: Of a trace: at this place of the position axis (-1 is the last token).
            role: Of a trace: at the tokens of this role ("last subject token", "last token"), on average.

        Raises:
            ValueError: k is not between 1 and the number of cells; a residual trace without position and role; or a
                position or role that the map does not have.

        Example:
            >>> heads.top(2)
            Selection('L0H4 L1H3')
            >>> heads.top(1, by="abs", layers=range(1, 3))
            Selection('L1H3')
            >>> trace.top(1, role="last token")
            Selection('L2ATTN L2MLP')
        """
        scores, axes = self._scores(by, layers, position, role)
        available = int(torch.isfinite(scores).sum())
        if not is_whole(k) or not 1 <= k <= available:
            raise ValueError(f"k must be a whole number from 1 to {available} for this map, got {k!r}.")
        return self._picked(scores, axes, scores.flatten().argsort(descending=True, stable=True)[:k])

    def above(
        self,
        threshold: float,
        *,
        by: Literal["value", "abs"] = "value",
        layers: range | None = None,
        position: int | None = None,
        role: str | None = None,
    ) -> Selection:
        """Select the components of all cells of at least this effect, largest first; maybe none.

        Args:
            threshold: In units of the values; of ``support``, if not by ``"abs"``.
            by, layers, position, role: As in ``top``.

        Raises:
            ValueError: The threshold is not a finite number, or as ``top``.

        Example:
            >>> heads.above(3.0)
            Selection('L0H4 L1H3')
        """
        if not is_finite(threshold):
            raise ValueError(
                f"threshold must be a finite number in units of {self.value_words.name}, got {threshold!r}."
            )
        scores, axes = self._scores(by, layers, position, role)
        flat = scores.flatten()
        order = flat.argsort(descending=True, stable=True)
        return self._picked(scores, axes, order[: int((flat >= threshold).sum())])

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of a trace's tokens, in reading order; none where a map has no positions.

        Example:
            >>> trace.roles[-2:]
            ('tokens after the subject', 'last token')
        """
        if "position" not in self.axes:
            return ()
        return roles_of(self.prompts) if len(self.prompts) == 1 else self.labels["position"]

    def at(self, *, position: int | None = None, role: str | None = None) -> Tensor:
        """Read a trace at one token.

        Args:
            position, role: As in ``top``. Without, all values; a residual trace needs one of them.

        Returns:
            Effects by layer, the mean over the tokens of a role.

        Raises:
            ValueError: As ``top``.

        Example:
            >>> trace.at(role="last token").shape, trace.at(position=3).argmax()
            (torch.Size([3]), tensor(0))
        """
        at = self._positions(position, role)
        if at is None:
            return self.values
        axis = self.axes.index("position")
        return self.values.index_select(axis, torch.tensor(at, device=self.values.device)).nanmean(axis)

    def read_at(self, *, position: int | None = None, role: str | None = None) -> EffectMap:
        """Read a trace at one token, as a map without positions: a trace of heads becomes a map of heads.

        Args:
            position, role: As in ``top``; one of them.

        Returns:
            The map, each cell the mean over the tokens of the role. Its standard error is None for several tokens
            whose samples were not kept.

        Raises:
            ValueError: Neither or both are given, or as ``top``.

        Example:
            >>> trace.read_at(role="last token").axes
            ('layer',)
        """
        at = self._positions(position, role)
        if at is None:
            raise ValueError("read_at takes position= or role= of a trace, got neither.")
        parts = {name: at_places(getattr(self, name), at) for name in ("values", "per_fact", "stderr")}
        if len(at) > 1:
            parts["stderr"] = None if parts["per_fact"] is None else mean_and_error(parts["per_fact"])[1]
        axes = tuple(axis for axis in self.axes if axis != "position")
        labels = {axis: self.labels[axis] for axis in axes}
        where = f"position {position}" if role is None else role
        return replace(self, **parts, axes=axes, labels=labels, method=f"{self.method}, {where}")

    def _scores(
        self, by: str, layers: range | None, position: int | None, role: str | None
    ) -> tuple[Tensor, list[str]]:
        """What cells are ranked by, with the position axis reduced and other layers at minus infinity; its axes."""
        if by not in ("value", "abs"):
            raise ValueError(f"by must be 'value' or 'abs', got {by!r}.")
        values, axes = self.at(position=position, role=role), list(self.axes)
        values = -values if self.value_words.falls else values
        if values.ndim < len(axes):
            axes.remove("position")
        scores = (values.abs() if by == "abs" else values).nan_to_num(nan=float("-inf"))
        if "position" in axes:
            scores = scores.amax(dim=axes.index("position"))
            axes.remove("position")
        if layers is not None:
            n_layers = scores.shape[0]
            given = whole_numbers(layers)
            if not given or not all(0 <= layer < n_layers for layer in given):
                raise ValueError(f"layers must be within the map's 0 to {n_layers - 1}, got {layers!r}.")
            keep = torch.zeros(scores.shape[0], dtype=torch.bool, device=scores.device)
            keep[given] = True
            scores = scores.masked_fill(~keep.view(-1, *[1] * (scores.ndim - 1)), float("-inf"))
        return scores, axes

    def _positions(self, position: int | None, role: str | None) -> list[int] | None:
        """The places of the position axis that are asked for; None for all of them."""
        if "position" in self.axes:
            return places_of(self.labels["position"], self.prompts, self.roles, self.unit, position, role)
        if position is not None or role is not None:
            raise ValueError(f"position= and role= are for traces; a map of {UNITS[self.unit].title} has no positions.")
        return None

    def _picked(self, scores: Tensor, axes: Sequence[str], order: Tensor) -> Selection:
        """The components of some cells of the scores, given as flat indices."""
        picked: list[Component] = []
        indices = torch.stack(torch.unravel_index(order, scores.shape), dim=1)
        for index in cast("list[list[int]]", indices.tolist()):  # pyright: ignore[reportUnknownMemberType]
            full = [index[axes.index(a)] if a in axes else 0 for a in self.axes]
            picked += self.components(tuple(full))
        return Selection(picked)

    def to_frame(self) -> pd.DataFrame:
        """One row per cell: an index and a label column per axis, ``effect`` (``recovery`` of a normalised map),
        ``stderr`` (NaN if not known), ``n``."""
        import numpy as np
        import pandas as pd

        grid = np.indices(self.values.shape).reshape(len(self.axes), -1)
        data: dict[str, Any] = {}
        for axis, index in zip(self.axes, grid, strict=True):
            data[axis] = index
            if axis == "position":
                data["token"] = [self.labels[axis][i] for i in index]
        data["recovery" if self.normalised else "effect"] = self.values.flatten().numpy()
        data["stderr"] = self.stderr.flatten().numpy() if self.stderr is not None else float("nan")
        data["n"] = self.n
        return pd.DataFrame(data)

    def plot(self, **options: Any) -> go.Figure:
        """Draw the map as a plotly figure (see ``workbench.plots.effect_figure``).

        Example:
            >>> figure = heads.plot()
            >>> figure.layout.title.text, len(figure.data)
            ('Attention heads (attribution)', 1)
        """
        from workbench.plots import effect_figure

        return effect_figure(self, **options)

    def save(self, path: str | Path) -> Path:
        """Write the map to one ``.safetensors`` file, atomically. Returns the path."""
        from workbench.files.effect_maps import save_effect_map

        return save_effect_map(self, path)

    @staticmethod
    def load(path: str | Path) -> EffectMap:
        """Read a map written by ``save``.

        Raises:
            ValueError: The file is damaged or of another kind or version.

        Example:
            >>> path = heads.save("heads.safetensors")
            >>> wb.EffectMap.load(path).top(2) == heads.top(2)
            True
        """
        from workbench.files.effect_maps import load_effect_map

        return load_effect_map(path)
