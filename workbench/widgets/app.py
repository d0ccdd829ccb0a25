"""Workbench: the whole loop in one cell. Choose a fact, click its circuit, run the edit, compare; save it and open it.

Each tab is a panel that also stands alone; this file only connects them.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ipywidgets import HTML, Button, HBox, Tab, Text, VBox

from workbench.facts import load_facts
from workbench.models import LoadedModel
from workbench.session import Session, load_session
from workbench.types import Fact, FactSet
from workbench.widgets import markup
from workbench.widgets.compare import CompareView
from workbench.widgets.edit_panel import EditPanel
from workbench.widgets.facts import FactChooser
from workbench.widgets.picker import CircuitPicker

TABS = ("1 Fact", "2 Circuit", "3 Edit", "4 Compare")
FACT, CIRCUIT, EDIT, COMPARE = range(4)
_WRAP = {"flex_flow": "row wrap", "align_items": "center"}


class Workbench(VBox):
    """Trace, click, edit, compare.

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
        pool = facts
        self.error: BaseException | None = None
        self.chooser = FactChooser(model, self.facts, value=fact)
        self.picker = CircuitPicker(model, self.chooser.fact, pool=pool, compute=False)
        self.editor = EditPanel(model, self.chooser.fact, self.picker, pool=pool)
        self.comparison: CompareView | None = None
        self._pool = pool
        self._nothing = HTML(markup.STYLE + markup.alert("Run an edit first, or open a saved session.", "info"))
        self._tabs = Tab([self.chooser, self.picker, self.editor, self._nothing], titles=TABS)
        self._folder = Text(description="Folder", value="my-session", style={"description_width": "initial"})
        self._save = Button(
            description="Save", icon="save", tooltip="Save fact, maps, selection, edit and report there"
        )
        self._open = Button(description="Open", icon="folder-open", tooltip="Open a saved session from there")
        self._alert = HTML()
        super().__init__([self._tabs, HBox([self._folder, self._save, self._open], layout=_WRAP), self._alert])
        self.add_class("wb-panel")
        self.chooser.on_fact(self._fact_chosen)
        self.editor.on_done(self._edited)
        self._tabs.observe(lambda change: self._tab_shown(change["new"]), names="selected_index")
        self._save.on_click(lambda _: self._try(lambda: self.save_session(self._folder.value)))
        self._open.on_click(lambda _: self._try(lambda: self.open_session(self._folder.value)))

    def __repr__(self) -> str:
        return f"Workbench({self.chooser.fact.id}, {len(self.facts)} facts)"

    @property
    def code(self) -> str:
        """Python that repeats what was clicked: the maps and the selection, the edit, the comparison."""
        parts = {"circuit": self.picker.code, "edit": self.editor.code}
        if self.comparison is not None:
            parts["comparison"] = self.comparison.code
        return "\n".join(f"# The {name}\n{code}" for name, code in parts.items())

    def save_session(self, folder: str | Path) -> Path:
        """Write fact, maps, selection, edit and report to a folder. Raises as ``Session.save``."""
        session = Session(
            fact=self.chooser.fact,
            fingerprint=self.model.fingerprint,
            model_name=self.model.name,
            selection=self.picker.selection,
            maps=dict(self.picker.maps),
            edit=self.editor.edit,
            report=self.editor.report,
        )
        return session.save(_named(folder))

    def open_session(self, folder: str | Path) -> Session:
        """Show a saved session in all panels.

        Raises:
            ValueError: It is of another base model; and as ``load_session``. Nothing changes then.
            RuntimeError: An edit is running.
        """
        session = load_session(_named(folder))
        if session.fingerprint != self.model.fingerprint:
            raise ValueError(
                f"The session {folder} is of the base {session.model_name!r} ({session.fingerprint[:16]}), and this is "
                f"{self.model.name!r} ({self.model.fingerprint[:16]}). Load that model."
            )
        if self.editor.running:
            raise RuntimeError("An edit is running. Cancel it or wait, then open the session.")
        self.chooser.fact = session.fact
        self.picker.show(session.fact, session.maps)
        self.picker.selection = session.selection
        self.editor.show(session.edit, session.report)
        if session.edit is not None:
            self._compare(session, f"edit = wb.load_edit({str(_named(folder) / 'edit')!r})\n")
        return session

    def _fact_chosen(self, fact: Fact) -> None:
        if self.editor.running:
            self._say("An edit is running on the fact before; it goes on, and the edit tab keeps that fact.", "info")
        elif self.editor.fact != fact:
            self.editor.fact = fact
        if self.picker.fact != fact:
            self.picker.fact = fact
        self._tab_shown(self._tabs.selected_index)

    def _tab_shown(self, index: int | None) -> None:
        """Maps take seconds: they are computed when somebody looks, not while somebody searches a fact."""
        if index == CIRCUIT and not self.picker.maps:
            self.picker.compute()

    def _edited(self, panel: EditPanel) -> None:
        self._compare(panel, None)
        self._say("The edit is done: its comparison is in the last tab.", "done")

    def _compare(self, result: EditPanel | Session, edit_code: str | None) -> None:
        assert result.edit is not None
        if self.comparison is None:
            self.comparison = CompareView(self.model, result.edit, pool=self._pool, edit_code=edit_code)
            self._tabs.children = (*self._tabs.children[:COMPARE], self.comparison)
        else:
            self.comparison.show(result.edit, edit_code=edit_code)

    def _try(self, action: Any) -> None:
        try:
            done = action()
        except (ValueError, OSError, RuntimeError) as error:
            self.error = error
            self._say(f"{error}", "error")
        else:
            self.error = None
            self._say(f"Saved: {done}" if isinstance(done, Path) else "Opened.", "done")

    def _say(self, message: str, kind: markup.Kind) -> None:
        self._alert.value = markup.alert(message, kind)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return {
            **(super()._repr_mimebundle_(**kwargs) or {}),
            "text/plain": repr(self),
            "image/png": base64.b64encode(self.picker.heads.to_png()).decode("ascii"),
        }


def _named(folder: str | Path) -> Path:
    if not str(folder).strip():
        raise ValueError("Give the folder a name, such as my-session.")
    return Path(folder).expanduser()
