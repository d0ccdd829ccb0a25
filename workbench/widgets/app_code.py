"""The one script that repeats what was clicked in a Workbench: model and facts once, then each panel's part."""

from __future__ import annotations

import re

from workbench.files.session import Session
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet
from workbench.widgets.compare.view import CompareView
from workbench.widgets.edit.panel import EditPanel
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.probe.panel import ProbePanel
from workbench.widgets.shared.code import facts_code, selection_code, start_code


def session_code(folder: str, *, control: bool = False) -> str:
    """Lines that take ``edit`` and ``report`` from a saved session, with ``control`` the random control's too."""
    beside = "control_report = session.control_report\n" if control else ""
    return f"session = wb.load_session({folder!r})\nedit, report = session.edit, session.report\n{beside}"


def workbench_code(
    model: LoadedModel,
    fact: Fact,
    pool: FactSet | None,
    picker: CircuitPicker,
    editor: EditPanel,
    comparison: CompareView | None,
    probing: ProbePanel | None,
    opened: tuple[str, Session] | None,
) -> str:
    """The panels' own scripts without the beginning that they share.

    Args:
        model, fact, pool: What all panels have in common.
        picker, editor, comparison, probing: The panels. The edit's part is there once an edit was run or opened, the
            probes' once some were run.
        opened: The session that was opened and its folder: maps that came from it are read from there.
    """
    head = f"{start_code(model)}{facts_code([fact], pool)}"
    circuit = picker.code.removeprefix(head)
    from_session = [n for n, effect in opened[1].maps.items() if picker.maps.get(n) is effect] if opened else []
    for name in from_session:
        circuit = re.sub(
            rf"(?m)^((?:trace_)?{name}) = .*$", lambda found, n=name: f"{found[1]} = session.maps[{n!r}]", circuit
        )
    load = f"session = wb.load_session({opened[0]!r})\n" if opened and from_session else ""
    parts = [head, f"\n# The circuit\n{load}{circuit}"]
    if editor.edit_code is not None:
        edit = editor.edit_code.removeprefix(head).removeprefix(f"selection = {selection_code(picker.selection)}\n")
        parts.append(f"\n# The edit\n{edit.removeprefix(load)}")
        if comparison is not None and comparison.edit is editor.edit:
            parts.append(f"\n# Before and after\n{comparison.shown_code}")
        if probing is not None and probing.report is not None:
            parts.append(f"\n# What is left\n{probing.shown_code}")
    return "".join(parts)
