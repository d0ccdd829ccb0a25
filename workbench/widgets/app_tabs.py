"""The panels of the Workbench as records: one row makes a tab, and all that the Workbench does loops over the rows.

A panel of one's own: a class (see ``shared.run_panel``) and a row here that says what it is made of, what it shows of
an edit or a session, what it adds to a saved session, and its part of the script.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.models.load import LoadedModel
from workbench.types import Edit, FactSet, ProbeReport
from workbench.types.fact import as_facts
from workbench.widgets.app_code import Opened, Script
from workbench.widgets.compare.view import CompareView
from workbench.widgets.edit.panel import EditPanel
from workbench.widgets.facts.chooser import FactChooser
from workbench.widgets.facts.partner import partner_of_map
from workbench.widgets.graph.panel import CircuitGraph
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.probe.panel import ProbePanel
from workbench.widgets.shared.code import facts_code
from workbench.widgets.stack.panel import StackPanel
from workbench.widgets.sweep.tab import SweepTab


def nothing(*_: Any) -> Any:
    """Does nothing; of a record that has nothing to say."""
    return None


@dataclass(frozen=True)
class Given:
    """What panels are made of.

    Args:
        model: The base model.
        facts: The facts to choose from.
        pool: The same as the user gave them; None for the bundled ones.
        fact: What all panels are about; an id or None while the first one is chosen.
        panels: Those that are made already, by name; of those that look at an edit the last one, though it may be out
            of sight.
        edit: The edit that is shown.
        edit_code: Python that makes it, where it was not made in the panel.
        probed: To be called with what probes of any edit found.
    """

    model: LoadedModel
    facts: FactSet
    pool: FactSet | None
    fact: Any
    panels: dict[str, Any]
    edit: Edit | None = None
    edit_code: str | None = None
    probed: Callable[[ProbeReport], object] = nothing


@dataclass(frozen=True, kw_only=True)
class PanelTab:
    """One panel of the Workbench.

    Args:
        name: The attribute of the Workbench that holds it.
        picture: What its picture in the documentation is called.
        title: On the tab.
        within: The name of the row in whose tab it stands, with no tab of its own; empty for its own tab.
        make: Makes it; for a panel of an edit it may also return the one that is there, showing another edit.
        of_edit: Whether it looks at an edit: it is there only once there is one. The others have a ``fact`` to set.
        open: Shows what a session holds; without one, a panel that looks at no edit is given the fact.
        in_sight: Called when it comes into sight: what takes seconds is computed when somebody looks.
        saved: What it adds to a session, by the session's fields. What a run holds is kept with the run.
        comment: Above its part of the script.
        lines: Its part of the script; empty as long as there is nothing to repeat.
    """

    name: str
    picture: str
    title: str
    make: Callable[[Given], Any]
    within: str = ""
    of_edit: bool = False
    open: Callable[[Any, Opened], object] = nothing
    in_sight: Callable[[Any], object] = nothing
    saved: Callable[[Any], dict[str, Any]] = lambda _: {}
    comment: str = ""
    lines: Callable[[Any, Script], str] = lambda *_: ""


def check_given(model: Any, facts: Any) -> None:
    """Refuse arguments of another type, above all the two in the wrong order."""
    if not isinstance(model, LoadedModel):
        swapped = " They are in the wrong order." if isinstance(facts, LoadedModel) else ""
        raise TypeError(
            f"Workbench(model, facts) takes a model from wb.load_model() first, got {type(model).__name__}.{swapped}"
        )
    if facts is not None and not isinstance(facts, FactSet):
        raise TypeError(f"facts must be a FactSet, got {type(facts).__name__}: write wb.FactSet([fact, ...]).")
    if model.applied:
        raise ValueError("Workbench edits a base model: pass the base (model.base).")


# 1 Fact


def _open_chooser(chooser: FactChooser, opened: Opened) -> None:
    fact = opened.session.fact
    contrast = opened.session.contrast
    maps = opened.session.maps if contrast is None else {}
    prompts = [effect.prompts[0] for effect in maps.values() if effect.prompts]
    swaps = (partner_of_map(chooser.model, fact, prompt) for prompt in prompts if prompt.partner is not None)
    chooser.show(fact, next(filter(None, swaps), None))
    if contrast is not None:
        chooser.contrast = contrast


# 2 Circuit


def _open_picker(picker: CircuitPicker, opened: Opened) -> None:
    picker.show(opened.session.contrast or opened.session.fact, opened.session.maps)
    picker.selection = opened.session.selection


def _picker_lines(picker: CircuitPicker, script: Script) -> str:
    opened = script.opened if script.opened is not None and script.opened.folder else None
    maps = opened.session.maps if opened is not None else {}
    saved = [name for name, effect in maps.items() if picker.maps.get(name) is effect]
    script.selection, script.loaded = picker.selection, bool(saved)
    load = opened.load if opened is not None and saved else ""
    return load + picker.shown_code(saved)


def _open_graph(graph: CircuitGraph, opened: Opened) -> None:
    graph.show(opened.session.contrast or opened.session.fact, selected=opened.session.circuit)


def _graph_lines(graph: CircuitGraph, _: Script) -> str:
    return graph.shown_code if graph.edges is not None else ""


# 3 Edit


def _open_editor(editor: EditPanel, opened: Opened) -> None:
    session = opened.session
    editor.fact = session.fact
    code = opened.edit_code or None
    seconds = None if opened.run is None else opened.run.seconds
    beside = session.control_report
    editor.show(session.edit, session.report, control_report=beside, edit_code=code, elapsed=seconds)


def _editor_lines(editor: EditPanel, script: Script) -> str:
    lines, opened = editor.edit_lines, script.opened
    if lines is None or script.selection is None:
        return ""
    script.edit = editor.edit
    others = "" if editor.fact == script.fact else facts_code(as_facts(editor.fact), script.pool)
    if opened is not None and editor.edit is opened.session.edit and opened.lines is not None:
        return others + opened.lines.after(script.selection)
    if opened is not None and editor.edit is opened.session.edit:
        return others + (opened.edit_lines if script.loaded else opened.edit_code)
    return others + lines.after(script.selection)


# 4 Compare


def _compare(given: Given) -> CompareView:
    """The view that is there keeps its menus and shows the other edit."""
    assert given.edit is not None
    view: CompareView | None = given.panels.get("comparison")
    if view is None:
        return CompareView(given.model, given.edit, pool=given.pool, edit_code=given.edit_code)
    view.show(given.edit, edit_code=given.edit_code)
    return view


def _compare_lines(view: CompareView, script: Script) -> str:
    return view.shown_code if script.edit is not None and view.edit is script.edit else ""


# 5 Probe


def _probe(given: Given) -> ProbePanel:
    """The panel that is there shows the other edit; where its probes run, they end in it, and another one is made."""
    assert given.edit is not None
    before: ProbePanel | None = given.panels.get("probing")
    if before is not None and not before.busy:
        before.show_edit(given.edit, edit_code=given.edit_code)
        return before
    if before is not None:
        before.cancel()
    panel = ProbePanel(given.model, given.edit, pool=given.pool, edit_code=given.edit_code)
    panel.on_end(lambda panel: None if panel.report is None else given.probed(panel.report))
    return panel


def _open_probes(panel: ProbePanel, opened: Opened) -> None:
    if opened.session.probes is not None:
        panel.show(opened.session.probes, probes_code=opened.probes_code)


def _probe_lines(panel: ProbePanel, script: Script) -> str:
    return panel.shown_code if script.edit is not None and panel.report is not None else ""


# 6 Stack


def _stack(given: Given) -> StackPanel:
    """The panel that is there has every edit that was on screen, as a layer."""
    assert given.edit is not None
    panel: StackPanel | None = given.panels.get("stacking")
    if panel is None:
        panel = StackPanel(given.model)
    panel.show_edit(given.edit)
    return panel


def _stack_lines(panel: StackPanel, script: Script) -> str:
    if script.edit is None or panel.answers is None:
        return ""
    return panel.code_where({script.edit.id: "edit"})


# 7 Sweep


def _sweep_lines(tab: SweepTab, _: Script) -> str:
    return "" if tab.panel is None else tab.panel.shown_code


TABS: tuple[PanelTab, ...] = (
    PanelTab(
        name="chooser",
        picture="fact",
        title="1 Fact",
        make=lambda given: FactChooser(given.model, given.facts, value=given.fact),
        open=_open_chooser,
        saved=lambda chooser: {"fact": chooser.fact, "contrast": chooser.contrast},
    ),
    PanelTab(
        name="picker",
        picture="circuit",
        title="2 Circuit",
        make=lambda given: CircuitPicker(given.model, given.fact, pool=given.pool, compute=False, bar=False),
        open=_open_picker,
        in_sight=lambda picker: None if picker.maps else picker.compute(),
        saved=lambda picker: {"selection": picker.selection, "maps": dict(picker.maps)},
        comment="The circuit",
        lines=_picker_lines,
    ),
    PanelTab(
        name="graph",
        picture="graph",
        title="Graph",
        within="picker",
        make=lambda given: CircuitGraph(
            given.model, given.fact, given.panels["picker"], pool=given.pool, compute=False
        ),
        open=_open_graph,
        saved=lambda graph: {"circuit": graph.circuit if len(graph.circuit) else None},
        comment="Its edges",
        lines=_graph_lines,
    ),
    PanelTab(
        name="editor",
        picture="edit",
        title="3 Edit",
        make=lambda given: EditPanel(given.model, given.fact, given.panels["picker"], pool=given.pool),
        open=_open_editor,
        comment="The edit",
        lines=_editor_lines,
    ),
    PanelTab(
        name="comparison",
        picture="compare",
        title="4 Compare",
        make=_compare,
        of_edit=True,
        in_sight=lambda view: view.shown(),
        comment="Before and after",
        lines=_compare_lines,
    ),
    PanelTab(
        name="probing",
        picture="probe",
        title="5 Probe",
        make=_probe,
        of_edit=True,
        open=_open_probes,
        comment="What is left",
        lines=_probe_lines,
    ),
    PanelTab(
        name="stacking",
        picture="stack",
        title="6 Stack",
        make=_stack,
        of_edit=True,
        comment="The edits together",
        lines=_stack_lines,
    ),
    PanelTab(
        name="sweeping",
        picture="sweep",
        title="7 Sweep",
        make=lambda given: SweepTab(given.model, given.facts, given.fact, pool=given.pool),
        comment="The sweep",
        lines=_sweep_lines,
    ),
)
"""In the order of the tabs, which is also that of the script: a part may use what stands before it."""
