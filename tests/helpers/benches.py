"""A workbench on a tiny model that knows capitals, and what a person does in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ipywidgets import HTML, Tab

import workbench
from tests.helpers.panels import FACTS, QUICK, control, descendants, tiny
from tests.helpers.wire import click, enter
from workbench.widgets.app import Workbench
from workbench.widgets.app_tabs import TABS
from workbench.widgets.picker.maps import MapName
from workbench.widgets.shared.code_block import CodeBlock

NAMES = [tab.name for tab in TABS if not tab.within]


def bench(*maps: MapName, selection: str = "L1H4 L1MLP") -> Workbench:
    """A workbench that shows these maps, with a quick recipe."""
    one = Workbench(tiny(), FACTS, fact="france-capital")
    one.editor.recipe = QUICK
    if maps:
        one.picker.compute(*maps).wait(60)
    one.picker.selection = selection
    return one


def tabs(one: Workbench) -> Any:
    """The row of tabs."""
    return next(w for w in descendants(one) if isinstance(w, Tab))


def in_tab(one: Workbench, name: str) -> Any:
    """What a tab shows."""
    return tabs(one).children[NAMES.index(name)]


def script_block(one: Workbench) -> CodeBlock:
    """The fold of the whole script."""
    return next(w for w in descendants(one) if isinstance(w, CodeBlock) and w.summary == "Whole script")


def go_to(one: Workbench, name: str) -> None:
    enter(tabs(one), selected_index=NAMES.index(name))


def run(one: Workbench) -> None:
    click(control(one.editor, "Run"))
    assert one.editor.job is not None
    one.editor.job.wait(60)


def said(one: Workbench) -> str:
    """The alert between the line on top and the tabs."""
    return next(area.value for area in one.children if isinstance(area, HTML))


def executed(code: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(workbench, "load_model", lambda *_: tiny())
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def saved(folder: str = "mine") -> Workbench:
    one = bench("heads")
    run(one)
    enter(control(one, "Folder"), value=folder)
    click(control(one, "Save"))
    assert one.error is None and f"Saved in {Path(folder).resolve()}" in said(one)
    return one
