"""Workbench: the whole loop in one cell. Choose a fact, click its circuit, run the edit, compare, probe; save and open.

Each tab is a panel that also stands alone; this file only connects them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ipywidgets import HTML, Button, HBox, Tab, Text

from workbench.editing.applied import check_base
from workbench.editing.rewrite import check_selection
from workbench.facts.known import load_facts
from workbench.files.session import Session, load_session
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact, FactSet
from workbench.widgets.app_code import session_code, workbench_code
from workbench.widgets.compare.view import CompareView
from workbench.widgets.edit.panel import EditPanel
from workbench.widgets.facts.chooser import FactChooser
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.probe.panel import ProbePanel
from workbench.widgets.shared import markup
from workbench.widgets.shared.connection import Connection
from workbench.widgets.shared.panel import Panel
from workbench.widgets.shared.text_card import text_card_png

TABS = ("1 Fact", "2 Circuit", "3 Edit", "4 Compare", "5 Probe")
FACT, CIRCUIT, EDIT, COMPARE, PROBE = range(5)
_NO_EDIT = "Run an edit first, or open a saved session."
_WRAP = {"flex_flow": "row wrap", "align_items": "center"}


class Workbench(Panel):
    """Trace, click, edit, compare, probe.

    Args:
        model: A base model; it is not changed.
        facts: The facts to choose from, which are also the pool for partners, controls and neighbours; the bundled
            ones by default.
        fact: The first choice, a fact or its id.

    Raises:
        ValueError: An edited model, or no facts.
        KeyError: ``fact`` is an id that the facts do not have.
    """

    def __init__(self, model: LoadedModel, facts: FactSet | None = None, *, fact: Fact | str | None = None) -> None:
        if model.applied:
            raise ValueError("Workbench edits a base model: pass the base (model.base).")
        self.model, self.facts = model, load_facts() if facts is None else facts
        self.error: BaseException | None = None
        self._pool, self._opened = facts, None
        self.chooser = FactChooser(model, self.facts, value=fact)
        self._fact: Fact = self.chooser.fact
        self.picker = CircuitPicker(model, self._fact, pool=facts, compute=False)
        self.editor = EditPanel(model, self._fact, self.picker, pool=facts)
        self.comparison: CompareView | None = None
        self.probing: ProbePanel | None = None
        self._nothing = [HTML(markup.STYLE + markup.alert(_NO_EDIT, "info")) for _ in (COMPARE, PROBE)]
        self._tabs = Tab([self.chooser, self.picker, self.editor, *self._nothing], titles=TABS)
        self._folder = Text(description="Folder", value="my-session", style={"description_width": "initial"})
        self._save = Button(
            description="Save", icon="save", tooltip="Save fact, maps, selection, edit, reports and probes there"
        )
        self._open = Button(description="Open", icon="folder-open", tooltip="Open a saved session from there")
        self._alert, self._code = HTML(), HTML()
        self._show_script = Button(description="Whole script", icon="code", tooltip="Python that repeats all of this")
        for button in (self._save, self._open, self._show_script):
            button.layout.width = "auto"
        row = HBox([self._folder, self._save, self._open, self._show_script], layout=_WRAP)
        super().__init__([Connection(), self._tabs, row, self._alert, self._code])
        self.add_class("wb-panel")
        self.chooser.on_fact(self._fact_chosen)
        self.editor.on_done(self._edited)
        self._tabs.observe(lambda change: self._tab_shown(change["new"]), names="selected_index")
        self._save.on_click(lambda _: self._try(self._save_clicked))
        self._open.on_click(lambda _: self._try(self._open_clicked))
        self._show_script.on_click(lambda _: self._try(self._toggle_code))

    def __repr__(self) -> str:
        return f"Workbench({self._fact.id}, {len(self.facts)} facts)"

    @property
    def code(self) -> str:
        """Python that repeats what was clicked: the maps and the selection, the edit, the comparison. One script, for a
        fresh kernel."""
        return workbench_code(
            self.model, self._fact, self._pool, self.picker, self.editor, self.comparison, self.probing, self._opened
        )

    def save_session(self, folder: str | Path) -> Path:
        """Write fact, maps, selection, edit, its evaluation with the random control, and what the probes found to a
        folder. Raises as ``Session.save``."""
        session = Session(
            fact=self._fact,
            fingerprint=self.model.fingerprint,
            model_name=self.model.name,
            selection=self.picker.selection,
            maps=dict(self.picker.maps),
            edit=self.editor.edit,
            report=self.editor.report,
            control_report=self.editor.control_report,
            probes=self.probing.report if self.probing is not None else None,
        )
        return session.save(_named(folder))

    def open_session(self, folder: str | Path) -> Session:
        """Show a saved session in all panels.

        Raises:
            ValueError: It is of another base model; and as ``load_session``. Nothing changes then.
            RuntimeError: An edit is running.
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
        if self.editor.running:
            raise RuntimeError("An edit is running. Cancel it or wait, then open the session.")
        self._fact, self._opened = session.fact, (str(path), session)
        self.chooser.fact = session.fact
        self.picker.show(session.fact, session.maps)
        self.picker.selection = session.selection
        code = session_code(str(path), control=session.control_report is not None)
        self.editor.fact = session.fact
        self.editor.show(session.edit, session.report, control_report=session.control_report, edit_code=code)
        self._show_edit(session.edit, code)
        if session.probes is not None and self.probing is not None:
            self.probing.show(session.probes, probes_code="probes = session.probes\n")
        self._tab_shown(self._tabs.selected_index)
        return session

    # What the panels tell each other

    def _fact_chosen(self, fact: Fact) -> None:
        if fact == self._fact:
            return
        if self.editor.running:  # all tabs are about one fact
            self.chooser.fact = self._fact
            self._say(f"An edit of {self._fact.id} is running. Cancel it or wait, then choose another fact.", "info")
            return
        self._fact = fact
        self._say("")
        self.editor.fact = fact
        self.picker.fact = fact
        self._show_edit(None)
        self._tab_shown(self._tabs.selected_index)

    def _tab_shown(self, index: int | None) -> None:
        """Maps take seconds: they are computed when somebody looks, not while somebody searches a fact."""
        if index == CIRCUIT and not self.picker.maps:
            self.picker.compute()

    def _edited(self, panel: EditPanel) -> None:
        self._show_edit(panel.edit)
        how = "failed" if panel.error is not None else "was cancelled"
        but = f", but its evaluation {how}" if panel.report is None else ""
        see = f'see the tabs "{TABS[COMPARE]}" and "{TABS[PROBE]}"'
        self._say(f"The edit of {self._fact.id} is done{but}: {see}.", "info" if but else "done")

    def _show_edit(self, edit: Edit | None, edit_code: str | None = None) -> None:
        """Fill the tabs that look at an edit, or empty them."""
        for panel in (self.comparison, self.probing):
            if panel is not None and (edit is None or panel is self.probing):
                panel.cancel()
        if edit is None:
            self.comparison = self.probing = None
        else:
            self.probing = ProbePanel(self.model, edit, pool=self._pool, edit_code=edit_code)
            if self.comparison is None:
                self.comparison = CompareView(self.model, edit, pool=self._pool, edit_code=edit_code)
            else:
                self.comparison.show(edit, edit_code=edit_code)
        shown = (self.comparison or self._nothing[0], self.probing or self._nothing[1])
        if self._tabs.children[COMPARE:] != shown:
            self._tabs.children = (*self._tabs.children[:COMPARE], *shown)

    # The row below

    def _save_clicked(self) -> str:
        return f"Saved in {self.save_session(self._folder.value).resolve()}"

    def _open_clicked(self) -> str:
        session = self.open_session(self._folder.value)
        edit = "no edit" if session.edit is None else "its edit"
        more = ", random control" * (session.control_report is not None) + ", probes" * (session.probes is not None)
        return f"Opened {session.fact.id}: {len(session.maps)} maps, {len(session.selection)} picked, {edit}{more}."

    def _toggle_code(self) -> str:
        """As it is now; a second click hides it."""
        script = markup.code(self.code, "Whole script").replace("<details>", "<details open>", 1)
        self._code.value = "" if self._code.value else script
        return ""

    def _try(self, action: Callable[[], str]) -> None:
        """Do what was clicked, and say how it went; an empty answer says nothing."""
        try:
            done = action()
        except Exception as error:  # would vanish in the log console
            self.error = error
            self._say(f"{type(error).__name__}: {error}", "error")
        else:
            if done or self.error is not None:
                self._say(done, "done")
            self.error = None

    def _say(self, message: str, kind: markup.Kind = "info") -> None:
        self._alert.value = markup.alert(message, kind)

    def _picture(self) -> bytes:
        if "heads" in self.picker.maps:
            return self.picker.heads.to_png()
        lines = [self._fact.question, f"{self._fact.answer} -> {self._fact.target}", "Run this cell to use it."]
        return text_card_png("Workbench", lines)


def _named(folder: str | Path) -> Path:
    if not str(folder).strip():
        raise ValueError("Give the folder a name, such as my-session.")
    return Path(folder).expanduser()
