"""Workbench: the whole loop in one cell. Choose a fact, click its circuit, run the edit, compare, probe; save and open.

Each tab is a panel that also stands alone (``app_tabs`` lists them); this file only connects them. Runs are kept in a
history of their own (``runs``): what is on screen may change, what was run stays.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ipywidgets import Tab

from workbench.facts.known import load_facts, with_bundled
from workbench.models.load import LoadedModel
from workbench.types import Circuit, Contrast, Edit, EffectMap, Fact, FactSet, Selection
from workbench.widgets.app_code import Opened, Script, workbench_code
from workbench.widgets.app_editors import Editors, Picks
from workbench.widgets.app_links import FactSetting, Question, link_measure, link_values, link_ways, share
from workbench.widgets.app_sessions import SessionPanel
from workbench.widgets.app_tabs import TABS, Given, PanelTab, check_given, nothing
from workbench.widgets.app_waiting import Waiting
from workbench.widgets.compare.view import CompareView
from workbench.widgets.edit.no_fact import OF_A_PAIR
from workbench.widgets.edit.panel import EditPanel
from workbench.widgets.facts.chooser import FactChooser
from workbench.widgets.graph.circuit_tab import CircuitTab
from workbench.widgets.graph.panel import CircuitGraph
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.probe.panel import ProbePanel
from workbench.widgets.runs.keeper import FOLDER
from workbench.widgets.shared.code_block import CodeBlock
from workbench.widgets.shared.contrast_words import traced_lines
from workbench.widgets.shared.markup import Message
from workbench.widgets.shared.text_card import text_card_png
from workbench.widgets.shared.voice import person
from workbench.widgets.stack.panel import StackPanel
from workbench.widgets.sweep.tab import SweepTab


class Workbench(SessionPanel):
    """All panels in one: trace a fact, click components, edit them, compare and probe.

    Every run is kept, with its evaluation and its probes, and saved as soon as it has ended.

    Args:
        model: A base model; it is not changed.
        facts: The facts to choose from, which are also the pool for partners, controls and neighbours; the bundled
            ones by default. Where none has a role or a split, retained facts and controls are bundled ones.
        fact: The first choice, a fact or its id; by default as in ``FactChooser``.
        autosave: Where each run is saved: a folder (if there is something already, the next free name after it), True
            for ``my-session`` in the current folder, False for nowhere.

    Raises:
        ValueError: An edited model, or no facts.
        TypeError: The arguments in another order.
        KeyError: ``fact`` is an id that the facts do not have.

    Example:
        >>> app = wb.Workbench(model, facts, fact="france-capital")
        >>> app
        Workbench(france-capital, 5 facts)
        >>> app.selection = "L1H3 L2MLP"
        >>> print(app.code.splitlines()[-1])
        selection = wb.Selection('L1H3 L2MLP')
        >>> app.runs, app.edit
        ((), None)
    """

    chooser: FactChooser
    picker: CircuitPicker
    graph: CircuitGraph
    editor: EditPanel
    comparison: CompareView | None
    probing: ProbePanel | None
    stacking: StackPanel | None
    sweeping: SweepTab

    def __init__(
        self,
        model: LoadedModel,
        facts: FactSet | None = None,
        *,
        fact: Fact | str | None = None,
        autosave: bool | str | Path = True,
    ) -> None:
        check_given(model, facts)
        super().__init__(model, FOLDER if isinstance(autosave, bool) else str(autosave), autosave=autosave is not False)
        self.facts = load_facts() if facts is None else facts
        self._pool = with_bundled(facts)
        self._opened: Opened | None = None
        self._made: dict[str, Any] = {}
        self._script_error: Exception | None = None
        for tab in TABS:
            setattr(self, tab.name, None if tab.of_edit else self._make(tab, fact))
            fact = self.chooser.fact
        self._fact = self.chooser.fact
        self._contrast: Contrast | None = None
        self.circuit_tab = CircuitTab(self.picker, self.graph, self._tab_shown)
        self._editors = Editors(self.editor, self._another_editor, self._edited, self._stopped)
        self._nothing = {tab.name: Waiting(self._editors, partial(self._go, "editor")) for tab in TABS if tab.of_edit}
        self._tabs = Tab(self._shown_panels(), titles=[tab.title for tab in TABS if not tab.within])
        self._code = CodeBlock(lambda: self.code, "Whole script", lazy=True, on_error=self._script_failed)
        self._line = self._make_line(self._code, self.picker.bar)
        link_values(self.picker, lambda: self.runs)
        self.add_class("wb-app")
        self._lay_out(self._line, self._alert, self._tabs)
        self.chooser.on_fact(self._fact_chosen)
        self.chooser.on_contrast(self._contrast_chosen)
        self._setting, self._showing = FactSetting(self.chooser, self.picker), False
        looks = lambda: self.tab == "picker" and self.circuit_tab.shown != "maps" and not self._showing  # noqa: E731
        self._question = Question(self.picker, self.graph, looks)
        self._editors.on_status(self._show_line)
        self._tabs.observe(lambda change: self._tab_shown(), names="selected_index")
        self._show_line()

    def __repr__(self) -> str:
        return f"Workbench({self._traced.id}, {len(self.facts)} facts)"

    # What is on screen

    @property
    def panels(self) -> dict[str, Any]:
        """The panels that are there, by name, in the order of their tabs."""
        held = {tab.name: getattr(self, tab.name, None) for tab in TABS}
        return {name: panel for name, panel in held.items() if panel is not None}

    @property
    def tab(self) -> str:
        """The name of the panel in sight. Settable."""
        return [tab.name for tab in TABS if not tab.within][self._tabs.selected_index or 0]

    @tab.setter
    def tab(self, name: str) -> None:
        names = [tab.name for tab in TABS if not tab.within]
        if name not in names:
            raise ValueError(f"There is no tab {name!r}; there are {names}.")
        self._tabs.selected_index = names.index(name)

    @property
    def fact(self) -> Fact:
        """What all tabs are about; while a pair of prompts is on screen, the last fact. Settable, with a fact or an id;
        what was run of another fact is kept, what runs goes on."""
        return self._fact

    @fact.setter
    def fact(self, fact: Fact | str) -> None:
        self.chooser.fact = fact

    @property
    def contrast(self) -> Contrast | None:
        """The pair of prompts that the circuit is about; None while it is about the fact. Settable."""
        return self._contrast

    @contrast.setter
    def contrast(self, contrast: Contrast | None) -> None:
        self.chooser.contrast = contrast

    @property
    def circuit(self) -> Circuit:
        """The selected edges. Settable once they are scored, as text too."""
        return self.graph.circuit

    @circuit.setter
    def circuit(self, circuit: Circuit | str) -> None:
        self.graph.circuit = circuit

    @property
    def selection(self) -> Selection:
        """What is picked. Settable, as text too."""
        return self.picker.selection

    @selection.setter
    def selection(self, selection: Selection | str) -> None:
        self.picker.selection = selection

    @property
    def maps(self) -> dict[str, EffectMap]:
        """The maps of the fact or the pair that are there, by name."""
        return self.picker.maps

    @property
    def code(self) -> str:
        """Python that repeats what was clicked: the maps and the selection, the edit, the comparison. One script, for a
        fresh kernel."""
        script, panels = Script(self._fact, self._pool, self._opened), self.panels
        parts = {tab.comment: tab.lines(panels[tab.name], script) for tab in TABS if tab.name in panels}
        return workbench_code(self.model, self._traced, self._pool, parts)

    @property
    def _traced(self) -> Fact | Contrast:
        return self._contrast or self._fact

    def _on_screen(self) -> dict[str, Any]:
        saved: dict[str, Any] = {}
        for tab in TABS:
            if tab.name in self.panels:
                saved |= tab.saved(self.panels[tab.name])
        return saved

    # What the panels tell each other

    def _fact_chosen(self, fact: Fact) -> None:
        if self._showing:
            return  # the chooser is told what the circuit will show
        if fact == self._fact and self._contrast is None:
            return self._setting.follow()
        with self._editors.still():
            self._fact, self._contrast = fact, None
            self._tell()
            self._show_newest()

    def _contrast_chosen(self, contrast: Contrast | None) -> None:
        if self._showing:
            return
        with self._editors.still():
            self._contrast = contrast
            self._tell()
            self._show_newest()

    def show_running(self) -> None:
        """Show the edit that is running: its fact in all tabs, and how far it is."""
        running = self._editors.running
        if running is None or not isinstance(running.fact, Fact):
            return
        with running.still():
            if running is not self.editor:
                self._fact, self._contrast = running.fact, None
                self.chooser.show(self._fact)
                self._show_newest()
            self.tab = "editor"

    def _show_newest(self) -> None:
        """Show the last run of the fact in all tabs but the picks, which stay; without one, no edit. While an edit of
        the fact runs, tab 3 shows that one, and the others the run that it is to replace."""
        of_fact = self._contrast is None
        running = self._editors.running_of(self._fact) if of_fact else None
        run = self._kept.history.newest(self._fact) if of_fact else None
        if running is not None:
            run = next((run for run in self.runs if run.edit is running.edit), None)
        self._put_on_screen(running)
        if run is not None:
            opened = self._reopened(run)
            circuit = self.circuit if len(self.circuit) else None
            session = replace(opened.session, fact=self._fact, selection=self.selection, circuit=circuit)
            self._show(replace(opened, session=session), running)
        else:
            self._show_no_run(running)
        left = None if running is None else self._editors.circuit_of(running)
        if left is not None and left.maps:
            self.picker.show(self._fact, left.maps)

    def _show_no_run(self, running: EditPanel | None) -> None:
        """The fact or the pair of prompts without an edit."""
        if self.picker.fact != self._traced:
            self.picker.fact = self._traced
        for tab in TABS:
            if not (tab.of_edit or tab.within or tab.name == "picker") and self.panels[tab.name].fact != self._fact:
                self.panels[tab.name].fact = self._fact
        self._question.share()
        self._setting.follow()
        if running is None and self.editor.edit is not None:
            self.editor.show(None, None)
        self._kept.history.show(None)
        self._show_edit(None)
        self._show_line()
        self._tab_shown()

    def _put_on_screen(self, panel: EditPanel | None) -> None:
        """This edit panel in tab 3; None for one in which no edit runs."""
        circuit = Picks(self.selection, dict(self.picker.maps))
        self.editor = self._editors.show(panel, circuit)

    def _another_editor(self) -> EditPanel:
        tab = next(tab for tab in TABS if tab.name == "editor")
        return self._make(tab, self._fact)

    def _tab_shown(self) -> None:
        """What takes seconds is computed when somebody looks, not while somebody searches a fact."""
        for tab in TABS:
            if tab.name == self.tab and tab.name in self.panels:
                tab.in_sight(self.panels[tab.name])
        self._question.look()

    def _go(self, where: str) -> None:
        if where == "chooser" and self._contrast is not None:
            self.chooser.draft_fact()
        self.tab = where
        self._connection.show_top()  # the button that leads there may stand far down the page

    def _edited(self, panel: EditPanel) -> None:
        """From the job's thread, with the panel's lock, so that what is on screen does not change meanwhile: keep what
        it made, and show it in the other tabs if the panel is on screen."""
        if panel.edit is None or panel.job is None:
            return
        on_screen = panel is self.editor
        circuit = self.picker if on_screen else self._editors.circuit_of(panel)
        self._kept.add(panel, circuit, shown=on_screen)
        problems = self._kept.messages
        if on_screen:
            self._show_edit(panel.edit)
            self._tab_shown()
        how = "failed" if panel.error is not None else "was cancelled"
        but = f", but its evaluation {how}" if panel.report is None else ""
        tabs = " and ".join(f'"{tab.title}"' for tab in TABS if tab.of_edit)
        where = f"see the tabs {tabs}" if on_screen else "it is in the list of runs"
        words = f"The edit of {panel.subject} has ended{but}: {where}."
        self._tell(Message(words), *problems)  # not "done": what it did is the verdict's to say

    def _stopped(self, panel: EditPanel) -> None:
        """An edit that is not on screen failed or was cancelled: nobody sees its own panel."""
        what = f"The edit of {panel.subject} "
        if panel.error is None:
            self._tell(Message(f"{what}was cancelled."))
        else:
            self._tell(Message(f"{what}failed. {person(panel.error)}", "error"))

    def _make(self, tab: PanelTab, fact: Fact | str | None, edit: Edit | None = None, code: str | None = None) -> Any:
        before = {**self._made, **self.panels}
        panel = tab.make(Given(self.model, self.facts, self._pool, fact, before, edit, code, self._kept.history.probed))
        if panel is not before.get(tab.name):
            panel.on_code(self._show_script)
            link_ways(panel, self._go)
            link_measure(panel, lambda: self.panels)
        self._made[tab.name] = panel
        return panel

    def _show(self, opened: Opened, running: EditPanel | None = None) -> None:
        """Show a session, or a run, in all panels but the one whose edit runs, if that is given."""
        session = opened.session
        self._put_on_screen(running)
        self._fact, self._opened, self._showing = session.fact, opened, True
        self._contrast = session.contrast
        try:
            self._kept.history.show(session.shown)
            for of_edit in (False, True):
                if of_edit:
                    self._show_edit(session.edit, opened.edit_code or None)
                for tab in TABS:
                    if tab.of_edit == of_edit and tab.name in self.panels:
                        panel = self.panels[tab.name]
                        if panel is running:
                            continue
                        if tab.open is nothing and not of_edit and panel.fact != session.fact:
                            panel.fact = session.fact
                        tab.open(panel, opened)
        finally:
            self._showing = False
        self._setting = FactSetting(self.chooser, self.picker)  # what was opened is no choice to pass on
        self._show_line()
        self._tab_shown()

    def _show_edit(self, edit: Edit | None, edit_code: str | None = None) -> None:
        """Fill the tabs that look at an edit, or empty them."""
        for tab in TABS:
            if tab.of_edit and edit is None and tab.name in self.panels:
                self.panels[tab.name].cancel()
            if tab.of_edit:
                setattr(self, tab.name, None if edit is None else self._make(tab, self._fact, edit, edit_code))
        if self.comparison is not None:
            share(self.picker, {"comparison": self.comparison}, "measure", "partner", "form")
        shown = self._shown_panels()
        if self._tabs.children != shown:
            self._tabs.children = shown
        self._show_script()

    def _shown_panels(self) -> tuple[Any, ...]:
        """What each tab shows: its panel, or that there is no edit yet."""
        there = {**self.panels, "picker": self.circuit_tab}
        return tuple(there.get(tab.name) or self._nothing[tab.name] for tab in TABS if not tab.within)

    def _claim_picks(self) -> None:
        self.picker.bar.claim()

    # The line on top

    def _show_line(self) -> None:
        if self._line is None:
            return
        running = self._editors.running
        self.editor.no_fact.words = "" if self._contrast is None or self.editor is running else OF_A_PAIR
        self._line.about(self._traced, self.runs, self.run)
        self._line.running(running if self._editors.busy else None, on_screen=running is self.editor)
        self._line.say(self._kept.keeper.folder, len(self.runs), self._kept.unsaved)

    def _show_script(self) -> None:
        if self._line is not None:  # else the panels are still being made
            self._code.refresh()

    def _script_failed(self, error: Exception | None) -> None:
        if error is not None or (self.error is not None and self.error is self._script_error):
            self._fail(error)
        self._script_error = error

    def _picture(self) -> bytes:
        if "heads" in self.picker.maps:
            return self.picker.heads.to_png()
        return text_card_png("Workbench", [*traced_lines(self._traced), "Run this cell to use it."])
