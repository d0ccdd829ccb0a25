"""Workbench: the whole loop in one cell. Choose a fact, click its circuit, run the edit, compare, probe; save and open.

Each tab is a panel that also stands alone (``app_tabs`` lists them); this file only connects them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipywidgets import HTML, Button, HBox, Tab, Text

from workbench.editing.applied import check_base
from workbench.editing.task import check_selection
from workbench.facts.known import load_facts
from workbench.files.session import Session, load_session
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact, FactSet
from workbench.widgets.app_code import Opened, Script, workbench_code
from workbench.widgets.app_tabs import TABS, Given, PanelTab
from workbench.widgets.compare.view import CompareView
from workbench.widgets.edit.panel import EditPanel
from workbench.widgets.facts.chooser import FactChooser
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.probe.panel import ProbePanel
from workbench.widgets.shared import markup
from workbench.widgets.shared.panel import Panel
from workbench.widgets.shared.text_card import text_card_png

_NO_EDIT = "Run an edit first, or open a saved session."
_WRAP = {"flex_flow": "row wrap", "align_items": "center"}


class Workbench(Panel):
    """All panels in one: trace a fact, click components, edit them, compare and probe.

    Args:
        model: A base model; it is not changed.
        facts: The facts to choose from, which are also the pool for partners, controls and neighbours; the bundled
            ones by default.
        fact: The first choice, a fact or its id; by default as in ``FactChooser``.

    Raises:
        ValueError: An edited model, or no facts.
        KeyError: ``fact`` is an id that the facts do not have.

    Example:
        >>> app = wb.Workbench(model, facts, fact="france-capital")
        >>> app
        Workbench(france-capital, 5 facts)
        >>> app.picker.selection = "L1H3 L2MLP"
        >>> print(app.code.splitlines()[-1])
        selection = wb.Selection('L1H3 L2MLP')
    """

    chooser: FactChooser
    picker: CircuitPicker
    editor: EditPanel
    comparison: CompareView | None
    probing: ProbePanel | None

    def __init__(self, model: LoadedModel, facts: FactSet | None = None, *, fact: Fact | str | None = None) -> None:
        if model.applied:
            raise ValueError("Workbench edits a base model: pass the base (model.base).")
        super().__init__()
        self.model, self.facts = model, load_facts() if facts is None else facts
        self._pool: FactSet | None = facts
        self._opened: Opened | None = None
        for tab in TABS:
            setattr(self, tab.name, None if tab.of_edit else self._make(tab, fact))
            fact = self.chooser.fact
        self._fact = self.chooser.fact
        self._nothing = {tab.name: HTML(markup.STYLE + markup.alert(_NO_EDIT, "info")) for tab in TABS if tab.of_edit}
        self._tabs = Tab(self._shown_panels(), titles=[tab.title for tab in TABS])
        self._folder = Text(description="Folder", value="my-session", style={"description_width": "initial"})
        self._save = Button(
            description="Save", icon="save", tooltip="Save fact, maps, selection, edit, reports and probes there"
        )
        self._open = Button(description="Open", icon="folder-open", tooltip="Open a saved session from there")
        self._show_script = Button(description="Whole script", icon="code", tooltip="Python that repeats all of this")
        for button in (self._save, self._open, self._show_script):
            button.layout.width = "auto"
        row = HBox([self._folder, self._save, self._open, self._show_script], layout=_WRAP)
        self._lay_out(self._tabs, row, self._alert, self._code)
        self.chooser.on_fact(self._fact_chosen)
        self.editor.on_done(self._edited)
        self._tabs.observe(lambda change: self._tab_shown(), names="selected_index")
        self._save.on_click(lambda _: self._try(self._save_clicked))
        self._open.on_click(lambda _: self._try(self._open_clicked))
        self._show_script.on_click(lambda _: self._try(self._toggle_code))

    def __repr__(self) -> str:
        return f"Workbench({self._fact.id}, {len(self.facts)} facts)"

    @property
    def panels(self) -> dict[str, Any]:
        """The panels that are there, by name, in the order of their tabs."""
        held = {tab.name: getattr(self, tab.name, None) for tab in TABS}
        return {name: panel for name, panel in held.items() if panel is not None}

    @property
    def tab(self) -> str:
        """The name of the panel in sight. Settable."""
        return TABS[self._tabs.selected_index or 0].name

    @tab.setter
    def tab(self, name: str) -> None:
        names = [tab.name for tab in TABS]
        if name not in names:
            raise ValueError(f"There is no tab {name!r}; there are {names}.")
        self._tabs.selected_index = names.index(name)

    @property
    def code(self) -> str:
        """Python that repeats what was clicked: the maps and the selection, the edit, the comparison. One script, for a
        fresh kernel."""
        script, panels = Script(self._fact, self._pool, self._opened), self.panels
        parts = {tab.comment: tab.lines(panels[tab.name], script) for tab in TABS if tab.name in panels}
        return workbench_code(self.model, self._fact, self._pool, parts)

    def save_session(self, folder: str | Path) -> Path:
        """Write fact, maps, selection, edit, its evaluation with the random control, and what the probes found to a
        folder. Raises as ``Session.save``."""
        saved: dict[str, Any] = {}
        for tab in TABS:
            if tab.name in self.panels:
                saved |= tab.saved(self.panels[tab.name])
        return Session(fingerprint=self.model.fingerprint, model_name=self.model.name, **saved).save(_named(folder))

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
        self._fact, self._opened = session.fact, Opened(str(path), session)
        for of_edit in (False, True):
            if of_edit:
                self._show_edit(session.edit, self._opened.edit_code)
            for tab in TABS:
                if tab.of_edit == of_edit and tab.name in self.panels:
                    tab.open(self.panels[tab.name], self._opened)
        self._tab_shown()
        return session

    # What the panels tell each other

    def _fact_chosen(self, fact: Fact) -> None:
        if fact == self._fact:
            return
        if self.editor.running:  # all tabs are about one fact
            self.chooser.fact = self._fact
            words = f"An edit of {self._fact.id} is running. Cancel it or wait, then choose another fact."
            self._tell(markup.Message(words))
            return
        self._fact = fact
        self._tell()
        for tab in TABS:
            if not tab.of_edit:
                self.panels[tab.name].fact = fact
        self._show_edit(None)
        self._tab_shown()

    def _tab_shown(self) -> None:
        """Maps take seconds: they are computed when somebody looks, not while somebody searches a fact."""
        if self.tab == "picker" and not self.picker.maps:
            self.picker.compute()

    def _edited(self, panel: EditPanel) -> None:
        self._show_edit(panel.edit)
        how = "failed" if panel.error is not None else "was cancelled"
        but = f", but its evaluation {how}" if panel.report is None else ""
        tabs = " and ".join(f'"{tab.title}"' for tab in TABS if tab.of_edit)
        words = f"The edit of {self._fact.id} is done{but}: see the tabs {tabs}."
        self._tell(markup.Message(words, "info" if but else "done"))

    def _make(self, tab: PanelTab, fact: Fact | str | None, edit: Edit | None = None, code: str | None = None) -> Any:
        return tab.make(Given(self.model, self.facts, self._pool, fact, self.panels, edit, code))

    def _show_edit(self, edit: Edit | None, edit_code: str | None = None) -> None:
        """Fill the tabs that look at an edit, or empty them."""
        for tab in TABS:
            if tab.of_edit and edit is None and tab.name in self.panels:
                self.panels[tab.name].cancel()
            if tab.of_edit:
                setattr(self, tab.name, None if edit is None else self._make(tab, self._fact, edit, edit_code))
        shown = self._shown_panels()
        if self._tabs.children != shown:
            self._tabs.children = shown

    def _shown_panels(self) -> tuple[Any, ...]:
        """What each tab shows: its panel, or that there is no edit yet."""
        return tuple(self.panels.get(tab.name) or self._nothing[tab.name] for tab in TABS)

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
        script = markup.code(self.code, "Whole script", opened=True)
        self._code.value = "" if self._code.value else script
        return ""

    def _try(self, action: Callable[[], str]) -> None:
        """Do what was clicked, and say how it went; an empty answer says nothing."""
        try:
            done = action()
        except Exception as error:  # would vanish in the log console
            self._fail(error)
        else:
            if done or self.error is not None:
                self._tell(*([markup.Message(done, "done")] if done else []))
            self._error = None

    def _picture(self) -> bytes:
        if "heads" in self.picker.maps:
            return self.picker.heads.to_png()
        lines = [self._fact.question, f"{self._fact.answer} -> {self._fact.target}", "Run this cell to use it."]
        return text_card_png("Workbench", lines)


def _named(folder: str | Path) -> Path:
    if not str(folder).strip():
        raise ValueError("Give the folder a name, such as my-session.")
    return Path(folder).expanduser()
