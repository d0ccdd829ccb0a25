"""The runs and sessions of a Workbench: what it keeps, opens, names, deletes and saves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.editing.applied import check_base
from workbench.editing.task import check_selection
from workbench.files.paths import user_path
from workbench.files.session import Session, has_session, load_session
from workbench.files.session_folder import free_name, free_page
from workbench.models.load import LoadedModel
from workbench.types import Edit, EvalReport, ProbeReport, slug
from workbench.types.run import Run
from workbench.widgets.app_code import Opened
from workbench.widgets.app_editors import Editors
from workbench.widgets.app_line import TopLine
from workbench.widgets.runs.kept import KeptRuns
from workbench.widgets.runs.run_list import RunList
from workbench.widgets.shared.code_block import CodeBlock
from workbench.widgets.shared.markup import Message
from workbench.widgets.shared.panel import Panel


class SessionPanel(Panel):
    """A panel with runs and sessions, and the line on top that shows them. ``Workbench`` says what is on screen.

    Args:
        model: The base model.
        folder: What the session's folder is called, if that is free.
        autosave: Whether each run is saved as it ends.
    """

    model: LoadedModel
    editor: Any
    _editors: Editors

    def __init__(self, model: LoadedModel, folder: str, *, autosave: bool) -> None:
        super().__init__()
        self.model = model
        self._line: TopLine | None = None
        self._first_folder = folder
        self._kept = KeptRuns(_named(folder), self.session, on=autosave, tell=self._runs_changed)

    # What it holds

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs of the session, the oldest first."""
        return self._kept.history.runs

    @property
    def run(self) -> Run | None:
        """The run on screen."""
        return self._kept.history.shown

    @property
    def edit(self) -> Edit | None:
        """The edit of the run on screen."""
        return None if self.run is None else self.run.edit

    @property
    def report(self) -> EvalReport | None:
        """The evaluation of that edit."""
        return None if self.run is None else self.run.report

    @property
    def probes(self) -> ProbeReport | None:
        """What probes of that edit found."""
        return None if self.run is None else self.run.probes

    # Runs

    def open_run(self, run: Run | str) -> Run:
        """Show a run in all tabs: its fact, maps, picks, edit, evaluation and probes. An edit that runs goes on.

        Args:
            run: The run or its id.

        Raises:
            KeyError: There is no such run.
            ValueError: It picked components that the model lacks. Nothing changes in both cases.
        """
        chosen = self._kept.history[_id(run)]
        if len(chosen.selection):
            check_selection(self.model, chosen.selection)
        with self._editors.still():
            self._tell()
            self._show(self._reopened(chosen))
            self._claim_picks()
        return chosen

    def rename_run(self, run: Run | str, name: str) -> Run:
        """Call a run something else.

        Raises:
            KeyError: There is no such run.
            ValueError: An empty or too long name.
        """
        return self._kept.history.rename(_id(run), name)

    def delete_run(self, run: Run | str) -> Run:
        """Take a run out of the session and its folder; ``undo_delete`` brings it back.

        Raises:
            KeyError: There is no such run.
            RuntimeError: It is on screen beside an edit that is running.
        """
        chosen = self._kept.history[_id(run)]
        if chosen is not self.run:
            return self._kept.history.delete(chosen.id)
        if self.editor is self._editors.running:
            self._check_idle("delete the run on screen")
        with self._editors.still():
            self._kept.history.delete(chosen.id)
            self._show_newest()
        return chosen

    def undo_delete(self) -> Run | None:
        """Bring back the run that was deleted last. Returns it; None where there is none."""
        run = self._kept.history.undo()
        if run is not None and self.run is None and not self._busy:
            self.open_run(run)
        return run

    # Sessions

    def session(self) -> Session:
        """All runs, and what is on screen, as they are saved."""
        given: dict[str, Any] = {"fingerprint": self.model.fingerprint, "model_name": self.model.name}
        shown = self.run
        return Session(**given, runs=self.runs, shown=None if shown is None else shown.id, **self._on_screen())

    def save_session(self, folder: str | Path) -> Path:
        """Write all runs, and fact, maps and selection on screen, to a folder, which is the session's from now on. A
        session that is there is replaced. Raises as ``Session.save``.

        Returns:
            The folder; another one beside it, where another notebook writes to this one.
        """
        path = _named(folder)
        if why := self._kept.save_as(path):
            path = self._kept.keeper.folder
            self._tell(Message(f"{why} Yours is saved beside it, in {path}."))
        self._show_line()
        return path

    def export_html(self) -> Path:
        """Write all tabs as they are now as one HTML page, which needs neither a kernel nor a network, into the
        session's folder; the session is saved there too.

        Returns:
            The file; no other one is replaced.

        Raises:
            OSError: It cannot be written.
        """
        page = self.snapshot()
        folder, session = self.save_session(self._kept.keeper.folder), self.session()
        return page.save(free_page(folder, slug((session.contrast or session.fact).id)[:60]))

    def open_session(self, folder: str | Path) -> Session:
        """Show a saved session in all panels, and go on with its runs. A run that cannot be read is left out, and said.

        Raises:
            ValueError: It is of another base model; and as ``load_session``. Nothing changes then.
            RuntimeError: An edit is running, or runs of this session are not saved.
        """
        path = _named(folder)
        session = load_session(path)
        if session.fingerprint != self.model.fingerprint:
            raise ValueError(
                f"The session {path} is of the base {session.model_name!r} ({session.fingerprint[:16]}), and this is "
                f"{self.model.name!r} ({self.model.fingerprint[:16]}). Load that model."
            )
        if session.edit is not None:
            check_base(self.model, session.edit)
        if len(session.selection):
            check_selection(self.model, session.selection)
        self._check_idle("open the session")
        if unsaved := self._kept.unsaved:
            raise RuntimeError(f"{unsaved} of {len(self.runs)} runs are not saved. Save them, then open the session.")
        whole, taken = self._kept.opened(path, session)
        origin = self._kept.origins.get(whole.shown or "")
        self._show(Opened(whole, str(path), run_in_folder=origin is not None and not origin.legacy))
        self._claim_picks()
        words = [*session.damaged, *([f"{taken} What is run here is saved beside it."] if taken else [])]
        self._tell(*(Message(line) for line in words))
        return session

    # What the Workbench says

    def _on_screen(self) -> dict[str, Any]:
        """Fact, maps and selection, by the fields of a session."""
        raise NotImplementedError

    def _show(self, opened: Opened, running: Any = None) -> None:
        """Show a session, or a run, in all panels but the one whose edit runs, if that is given."""
        raise NotImplementedError

    def _show_newest(self) -> None:
        """Show the last run of the fact; without one, no edit."""
        raise NotImplementedError

    def _claim_picks(self) -> None:
        """What is picked was opened with the fact."""
        raise NotImplementedError

    def show_running(self) -> None:
        """Show the edit that is running: its fact in all tabs, and how far it is."""
        raise NotImplementedError

    def _cancel_running(self) -> None:
        running = self._editors.running
        if running is not None:
            running.cancel()

    def _show_line(self) -> None:
        """Show on top what all tabs are about."""
        raise NotImplementedError

    # Inside

    @property
    def _busy(self) -> bool:
        """Whether an edit runs, or what it made is not yet among the runs."""
        return self._editors.running is not None

    def _check_idle(self, what: str) -> None:
        if self._busy:
            raise RuntimeError(f"An edit is running. Cancel it or wait, then {what}.")

    def _reopened(self, run: Run) -> Opened:
        origin = self._kept.origins.get(run.id)
        if origin is None:
            return Opened(self.session().at(run.id), lines=self._kept.lines.get(run.id))
        read = run.probes is origin.probes
        return Opened(
            self.session().at(run.id), origin.folder, run_in_folder=not origin.legacy, reopened=True, probes_read=read
        )

    def _runs_changed(self) -> None:
        if self._line is not None:
            self._show_line()
            if self._kept.messages:
                self._tell(*self._kept.messages)

    def _make_line(self, code: CodeBlock, bar: Any) -> TopLine:
        """The line on top with the list of runs, and what its buttons do."""
        self._list = RunList(
            self.model,
            self._kept.history,
            open_run=self.open_run,
            delete=self.delete_run,
            undo=self.undo_delete,
            attempt=self._attempt,
        )
        line = TopLine(self.model, self._first_folder, self._kept.keeper.on, bar=bar, runs=self._list, code=code)
        line.save_button.on_click(lambda _: self._try(self._save_clicked))
        line.export_button.on_click(lambda _: self._try(lambda: f"Exported to {self.export_html().resolve()}"))
        line.open_button.on_click(lambda _: self._try(self._open_clicked))
        line.cancel_button.on_click(lambda _: self._cancel_running())
        line.back_button.on_click(lambda _: self._attempt(self.show_running))
        line.autosave.observe(lambda change: self._kept.autosave(bool(change["new"])), names="value")
        return line

    def _save_clicked(self) -> str:
        assert self._line is not None
        path, own = _named(self._line.folder.value), self._kept.keeper.own
        held = path.is_dir() and path.resolve() != own and has_session(path)
        where = self.save_session(free_name(path) if held else path)
        self._line.folder.value = str(where)
        other = f"{path} holds another session, so this one is beside it. " if held else ""
        return f"{other}Saved in {where.resolve()}"

    def _open_clicked(self) -> str:
        assert self._line is not None
        session = self.open_session(self._line.folder.value)
        edit = "no edit" if session.edit is None else "its edit"
        more = ", random control" * (session.control_report is not None) + ", probes" * (session.probes is not None)
        runs = f" {len(self.runs)} runs in all." if len(self.runs) > 1 else ""
        about = (session.contrast or session.fact).id
        said = f"Opened {about}: {len(session.maps)} maps, {len(session.selection)} picked, {edit}{more}.{runs}"
        return "\n".join([said, *([self.message] if self.message else [])])

    def _attempt(self, action: Callable[[], object]) -> None:
        """Do what was clicked; what it says stays, and what it raises is shown."""
        try:
            action()
        except Exception as error:  # would vanish in the log console
            self._fail(error)
        else:
            self._error = None

    def _try(self, action: Callable[[], str]) -> None:
        """Do what was clicked, and say how it went."""
        try:
            done = action()
        except Exception as error:  # would vanish in the log console
            self._fail(error)
        else:
            self._tell(Message(done, "done"))
            self._error = None


def _id(run: Run | str) -> str:
    return run.id if isinstance(run, Run) else run


def _named(folder: str | Path) -> Path:
    if not str(folder).strip():
        raise ValueError("Give the folder a name, such as my-session.")
    return user_path(folder)
