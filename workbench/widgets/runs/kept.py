"""KeptRuns: the history of a session's runs, where each came from, and their saving as they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from workbench.files.session import Session
from workbench.types import EffectMap, ProbeReport
from workbench.types.run import Run
from workbench.widgets.runs.history import RunHistory, default_name
from workbench.widgets.runs.keeper import Keeper
from workbench.widgets.shared.code import EditLines
from workbench.widgets.shared.markup import Message


@dataclass
class Origin:
    """Where a run was read from.

    Args:
        folder: The session's folder.
        legacy: Whether it is there the edit of the session itself, not a run.
        probes: The probes that were read with it.
    """

    folder: str
    legacy: bool = False
    probes: ProbeReport | None = None


class KeptRuns:
    """All runs of a Workbench.

    Args:
        folder: Where they are saved; see ``Keeper``.
        session: Gives the session as it is.
        on: Whether they are saved by themselves.
        tell: Called after each change.
    """

    def __init__(self, folder: Path, session: Callable[[], Session], *, on: bool, tell: Callable[[], object]) -> None:
        self.history = RunHistory()
        self.keeper = Keeper(folder, session, on=on)
        self.origins: dict[str, Origin] = {}
        self.lines: dict[str, EditLines] = {}
        """By run, what made those of this kernel."""
        self.messages: tuple[Message, ...] = ()
        """What is to be said of the last change: that something was not saved, or elsewhere."""
        self._tell = tell
        self.history.on_change(self._changed)

    @property
    def unsaved(self) -> int:
        """How many runs are not on disk as they are."""
        return self.keeper.unsaved(self.history.runs)

    def autosave(self, on: bool) -> None:
        """Save by itself from now on, or not."""
        self.keeper.on = on
        self._changed()

    def save_as(self, folder: Path) -> str:
        """As ``Keeper.save_as``."""
        why = self.keeper.save_as(folder)
        self._saved()
        return why

    def add(self, editor: Any, circuit: Any, *, shown: bool = True) -> Run:
        """Keep what an edit panel has just made.

        Args:
            editor: The ``EditPanel``; its last job has ended, with an edit.
            circuit: Has the ``selection`` and the ``maps`` of the same fact, such as a ``CircuitPicker``.
            shown: Whether the run is on screen.
        """
        edit, job = editor.edit, editor.job
        fact = edit.facts[0]
        run = Run(
            id=self.history.new_id(fact),
            name=default_name(fact),
            edit=edit,
            selection=edit.selection if edit.picked else circuit.selection,
            maps=dict(circuit.maps),
            report=editor.report,
            control_report=editor.control_report,
            code=str(editor.edit_lines or ""),
            when=datetime.now(UTC).isoformat(timespec="milliseconds"),
            seconds=job.seconds,
            ended=job.state,
        )
        if editor.edit_lines is not None:
            self.lines[run.id] = editor.edit_lines
        self.history.add(run, shown=shown)
        return run

    def opened(self, folder: Path, session: Session) -> tuple[Session, str]:
        """Take over a session that was read from a folder.

        Returns:
            The session, in which its edit is a run and maps of that run are one with those on screen; and in words,
            that another notebook has it.
        """
        whole = _one_with_run_maps(_with_edit_as_run(session))
        taken = self.keeper.opened(folder, session, whole.runs)
        self.origins = {run.id: Origin(str(folder), probes=run.probes) for run in whole.runs}
        self.lines = {}
        if whole.shown is not None and session.shown is None:
            self.origins[whole.shown].legacy = True
        self.history.load(whole.runs, whole.shown)
        return whole, taken

    def _changed(self) -> None:
        self.messages = ()
        if self.keeper.on and self.keeper.differs(self.history.runs):
            try:
                if why := self.keeper.save():
                    self.messages = (Message(f"{why} Yours is saved beside it, in {self.keeper.folder}."),)
                self._saved()
            except Exception as error:
                words = (
                    f"Not saved ({type(error).__name__}: {error}). Give another folder under Session, and press Save."
                )
                self.messages = (Message(words, "error"),)
        self._tell()

    def _saved(self) -> None:
        """What is in the session's folder is there as a run by now."""
        own = self.keeper.own
        for origin in self.origins.values():
            if own is not None and Path(origin.folder).resolve() == own:
                origin.legacy = False


def _with_edit_as_run(session: Session) -> Session:
    """The session with its edit among its runs."""
    if session.edit is None or session.shown is not None:
        return session
    ids = RunHistory()
    ids.load(session.runs, None)
    run = Run(
        id=ids.new_id(session.edit.facts[0]),
        name=default_name(session.edit.facts[0]),
        edit=session.edit,
        selection=session.selection,
        maps=session.maps,
        report=session.report,
        control_report=session.control_report,
        probes=session.probes,
        ended="done" if session.report is not None else "cancelled",
    )
    return replace(session, runs=(*session.runs, run), shown=run.id)


def _one_with_run_maps(session: Session) -> Session:
    """The session in which maps on screen that equal those of its run are the same objects, so that code may take both
    from one place."""
    if session.shown is None:
        return session
    of_run = session.run(session.shown).maps
    maps = {name: of_run[name] if _same(of_run.get(name), effect) else effect for name, effect in session.maps.items()}
    return replace(session, maps=maps)


def _same(one: EffectMap | None, other: EffectMap) -> bool:
    if one is None or one.method != other.method or one.values.shape != other.values.shape:
        return False
    return torch.equal(one.values.nan_to_num(), other.values.nan_to_num()) and one.corruption == other.corruption
