"""What a comparison of maps or of edges is asked for and what came of it, as records; computed with noise where no swap
fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from workbench.comparing.edge_changes import compare_edges
from workbench.comparing.maps import MapComparison, compare_maps
from workbench.language.prompts import NoSwapPartner
from workbench.models.load import LoadedModel
from workbench.types import EdgeComparison, Edit, Fact, FactSet, Form
from workbench.types.effect import Corruption
from workbench.widgets.shared.code import fact_call_in_a_line
from workbench.widgets.shared.measure import NOISE_SAMPLES, Measure
from workbench.widgets.shared.partner_words import partner_subject

T = TypeVar("T")
NO_PARTNER = "No other subject fits into this prompt, so the corruption is noise instead of a swap."


@dataclass(frozen=True)
class Wanted:
    """The choices that decide two maps.

    Args:
        fact: What is traced.
        site: ``"resid"``, ``"mlp"``, ``"attn"`` or ``"head"``.
        stage, strength: Of the map after the edit.
        token: The traced token: the ``"answer"``'s first or the ``"target"``'s.
        measure: The metric and the corruption.
        partner: Whose subject is swapped in; None for one of the pool.
        form: ``"chat"``, ``"cloze"``, or None for the first that works.
    """

    fact: Fact
    site: str
    stage: str
    strength: float
    token: str
    measure: Measure
    partner: Fact | None = None
    form: Form | None = None

    @property
    def before(self) -> Wanted:
        """What decides the map before the edit."""
        return replace(self, stage="", strength=0.0)

    @property
    def of_edges(self) -> Wanted:
        """What decides the edges: no site, and the logit difference where maps show its recovery."""
        measure = replace(self.measure, name="logit_diff") if self.measure.normalise else self.measure
        return replace(self, site="", measure=measure)

    def but_for_strength(self, other: Wanted) -> bool:
        """Whether another comparison is the same at some strength."""
        return replace(self, strength=other.strength) == other

    def options(self, corruption: Corruption) -> dict[str, Any]:
        """Keywords of ``compare_maps``."""
        measure = self.measure
        given: dict[str, Any] = {
            "site": self.site,
            "stage": self.stage,
            "strength": self.strength,
            "corruption": corruption,
            "metric": measure.metric,
            "normalise": measure.normalise,
            "token": self.token,
        }
        if corruption == "noise":
            given["samples"] = NOISE_SAMPLES
        if self.form is not None:
            given["form"] = self.form
        if self.partner is not None and corruption == "swap":
            given["partner"] = self.partner
        return given


@dataclass(frozen=True, eq=False)
class Compared:
    """Two maps and their difference.

    Args:
        wanted: What was asked for.
        result: The maps.
        corruption: The one that was used.
    """

    wanted: Wanted
    result: MapComparison
    corruption: Corruption

    @property
    def note(self) -> str:
        """Why the corruption is another one than was asked for; empty if it is not."""
        return NO_PARTNER if self.corruption != self.wanted.measure.corruption else ""

    def partner_subject(self, pool: FactSet | None) -> str:
        """Whose subject was swapped in; empty without a swap."""
        return partner_subject(self.result.before.prompts[0], self.wanted.partner, pool)

    @property
    def arguments(self) -> str:
        """The keywords in code."""
        return arguments(self.wanted.options(self.corruption))


@dataclass(frozen=True, eq=False)
class EdgesCompared:
    """Scores of edges before and after.

    Args:
        wanted: What was asked for.
        result: The scores and the changes.
        corruption: The one that was used.
    """

    wanted: Wanted
    result: EdgeComparison
    corruption: Corruption

    @property
    def note(self) -> str:
        """Why the corruption is another one than was asked for; empty if it is not."""
        return NO_PARTNER if self.corruption != self.wanted.measure.corruption else ""

    @property
    def arguments(self) -> str:
        """The keywords in code."""
        return arguments(edge_options(self.wanted, self.corruption))


def edge_options(wanted: Wanted, corruption: Corruption) -> dict[str, Any]:
    """Keywords of ``compare_edges``: those of ``compare_maps`` but for the site and the recovery."""
    return {name: value for name, value in wanted.options(corruption).items() if name not in ("site", "normalise")}


def arguments(options: dict[str, Any]) -> str:
    """Keywords as they stand in a call."""
    written = {n: fact_call_in_a_line(v) if isinstance(v, Fact) else repr(v) for n, v in options.items()}
    return ", ".join(f"{name}={value}" for name, value in written.items())


def compute(model: LoadedModel, edit: Edit, wanted: Wanted, pool: FactSet | None, **more: Any) -> Compared:
    """Compute what is wanted.

    Args:
        model, edit, pool: As in ``compare_maps``.
        wanted: The choices. Where a swap is asked for, no partner is given and none of the pool fits, noise is used.
        more: Of ``compare_maps``: ``before``, ``on_step``, ``cancel``.

    Raises:
        ValueError: As ``compare_maps``.
    """

    def at(corruption: Corruption) -> Compared:
        options = wanted.options(corruption)
        maps = compare_maps(model, edit, wanted.fact, pool=pool, progress=False, **options, **more)
        return Compared(wanted, maps, corruption)

    return _swapped_or_noised(wanted, at)


def compute_edges(model: LoadedModel, edit: Edit, wanted: Wanted, pool: FactSet | None, **more: Any) -> EdgesCompared:
    """Score the edges that are wanted; the same as ``compute``, by ``compare_edges``."""

    def at(corruption: Corruption) -> EdgesCompared:
        options = edge_options(wanted, corruption)
        changes = compare_edges(model, edit, wanted.fact, pool=pool, progress=False, **options, **more)
        return EdgesCompared(wanted, changes, corruption)

    return _swapped_or_noised(wanted, at)


def _swapped_or_noised(wanted: Wanted, at: Callable[[Corruption], T]) -> T:
    try:
        return at(wanted.measure.corruption)
    except NoSwapPartner:
        if wanted.partner is not None:
            raise
        return at("noise")
