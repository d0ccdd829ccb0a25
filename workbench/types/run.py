"""Run: one edit as it was made in a panel, with its evaluation, what was picked, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from workbench.types.edit import Edit
from workbench.types.effect import EffectMap
from workbench.types.fact import Fact
from workbench.types.probe import ProbeReport
from workbench.types.recipe import BaseRecipe
from workbench.types.report import EvalReport
from workbench.types.selection import Selection

Ended = Literal["done", "cancelled", "failed"]
LONGEST_NAME = 120
"""Characters of a run's name."""
_ID = re.compile(r"[A-Za-z0-9][\w-]{0,79}", re.ASCII)
_MAP_NAME = re.compile(r"[\w-]{1,60}", re.ASCII)


def check_parts(
    base: str,
    *,
    maps: Mapping[str, EffectMap],
    edit: Edit | None,
    report: EvalReport | None,
    control_report: EvalReport | None,
    probes: ProbeReport | None,
) -> None:
    """Refuse maps, an edit and its results that do not belong together.

    Args:
        base: The fingerprint of the model that all are of.
        maps, edit, report, control_report, probes: As in a ``Run``.

    Raises:
        ValueError: A map's name that cannot be a file's, a part of another base model, or an evaluation or probes of
            another edit.
    """
    if unfit := [name for name in maps if not _MAP_NAME.fullmatch(name)]:
        raise ValueError(f"The maps {unfit} cannot be files of that name. Use letters, digits, _ and - only.")
    bases = {f"the map {name!r}": effect.base_fingerprint for name, effect in maps.items()}
    if edit is not None:
        bases["the edit"] = edit.base_fingerprint
    beside = {"the evaluation": report, "the random control": control_report, "the probes": probes}
    bases |= {what: part.base_fingerprint for what, part in beside.items() if part is not None}
    if other := [what for what, of in bases.items() if of is not None and of != base]:
        raise ValueError(f"The session is of the model {base[:16]}, but {', '.join(other)} is of another.")
    found = {"probes are": probes, "evaluation is": report}
    for what, edit_id in [(what, part.edit_id) for what, part in found.items() if part is not None]:
        if edit is not None and edit_id not in (None, edit.id):
            raise ValueError(f"The {what} of the edit {edit_id[:16]}, and the session's is {edit.id[:16]}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A run holds one edit that was made in a session, and all that was found out about it.

    Args:
        id: Its name in the session and on disk: letters, digits, ``_`` and ``-``.
        name: What it is called on screen; at most 120 characters.
        edit: The edit. Its facts and its recipe are the run's.
        selection: What was picked; empty where nothing was. What was trained is ``edit.selection``.
        maps: The effect maps of the fact that were on screen, by name.
        report: The evaluation; None where it was cancelled or failed.
        control_report: The evaluation of the same recipe on a random selection, if one was run beside it.
        probes: What the probes of the edit found, if they were run.
        code: Python that makes ``edit`` and ``report``, once ``model``, ``fact`` and ``pool`` are there; empty where it
            is not known.
        when: When it ended, UTC, as in ISO 8601: ``"2026-12-01T09:30:00+00:00"``; empty where it is not known.
        seconds: How long it took; None where it is not known.
        ended: ``"done"``; else how its evaluation ended.

    Raises:
        ValueError: An id that cannot be a folder's name, an empty or too long name, a way to end that there is not, a
            part of another model or of another edit.

    Example:
        >>> run = wb.Run(id="001-france", name="First try", edit=edit, report=report)
        >>> run.fact.id, run.recipe.name, run.ended
        ('france-capital', 'unlearn-then-learn', 'done')
    """

    id: str
    name: str
    edit: Edit
    selection: Selection = field(default_factory=Selection)
    maps: Mapping[str, EffectMap] = field(default_factory=dict[str, EffectMap])
    report: EvalReport | None = None
    control_report: EvalReport | None = None
    probes: ProbeReport | None = None
    code: str = ""
    when: str = ""
    seconds: float | None = None
    ended: Ended = "done"

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"A run's id is a folder's name: letters, digits, _ and - only, got {self.id!r}.")
        if not self.name.strip() or len(self.name) > LONGEST_NAME:
            raise ValueError(f"A run's name has 1 to {LONGEST_NAME} characters, got {self.name[:40]!r}.")
        if self.ended not in get_args(Ended):
            raise ValueError(f"ended must be one of {list(get_args(Ended))}, got {self.ended!r}.")
        check_parts(
            self.edit.base_fingerprint,
            maps=self.maps,
            edit=self.edit,
            report=self.report,
            control_report=self.control_report,
            probes=self.probes,
        )

    def __repr__(self) -> str:
        evaluated = "" if self.report is not None else ", not evaluated"
        probed = "" if self.probes is None else ", probed"
        return f"Run({self.id}: {self.name!r}{evaluated}{probed})"

    @property
    def fact(self) -> Fact:
        """The fact that was edited; of several the first."""
        return self.edit.facts[0]

    @property
    def facts(self) -> tuple[Fact, ...]:
        """All facts that were edited."""
        return self.edit.facts

    @property
    def recipe(self) -> BaseRecipe:
        """The recipe that was asked for."""
        return self.edit.asked_recipe

    @property
    def picked(self) -> bool:
        """Whether what was picked is what was trained; False of the default selector."""
        return self.edit.picked
