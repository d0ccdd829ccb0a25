"""RunList: the runs of a session. A click opens one; it can be named, deleted with Undo, and put beside another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ipywidgets import HTML, Text, VBox

from workbench.models.load import LoadedModel
from workbench.types.run import Run
from workbench.widgets.runs import words
from workbench.widgets.runs.history import RunHistory
from workbench.widgets.shared import controls, layout, markup
from workbench.widgets.shared.sync import WholeMessages

MOST_LINES = 8
_NOTHING = "No run yet: each edit that is run is kept here, with its evaluation and its probes."


class _Lines(WholeMessages, controls.Select):
    """A list that the job's thread fills too."""


class _Menu(WholeMessages, controls.Dropdown):
    """A menu that the job's thread fills too."""


class RunList(VBox):
    """The list of a ``RunHistory``; it follows its changes.

    Args:
        model: The base of the runs.
        history: The runs.
        open_run: Shows a run in all panels.
        delete, undo: Take the run on screen out, and bring the last one back.
        attempt: Calls what was clicked and shows what it raises.
    """

    def __init__(
        self,
        model: LoadedModel,
        history: RunHistory,
        *,
        open_run: Callable[[str], object],
        delete: Callable[[str], object],
        undo: Callable[[], object],
        attempt: Callable[[Callable[[], object]], object],
    ) -> None:
        self._model, self._history, self._filling = model, history, False
        self._open_run, self._attempt = open_run, attempt
        self._none = HTML(markup.hint(_NOTHING))
        self._list = _Lines(description="Runs", options=[], rows=2, layout={"width": "100%"})
        self._name = Text(description="Name", continuous_update=False, layout={"width": "min(100%, 380px)"})
        self._beside = _Menu(description="Beside", options=[("no other run", "")], layout={"width": "min(100%, 380px)"})
        self._delete = layout.quiet_button("Delete run", icon="trash", tooltip="Take the run on screen out of the list")
        self._undo = layout.quiet_button("Undo delete", icon="undo", tooltip="Bring back the run that was deleted last")
        self._whole, self._table = HTML(), HTML()
        for control in (self._list, self._name, self._beside):
            control.style.description_width = "initial"
        self._tools = layout.row(self._name, self._beside, self._delete)
        super().__init__([self._none, self._list, self._whole, self._tools, self._undo, self._table])
        self.add_class("wb-runs")
        self._list.observe(lambda change: self._chosen(change["new"]), names="value")
        self._name.observe(lambda change: self._renamed(change["new"]), names="value")
        self._beside.observe(lambda _: self._show_table(), names="value")
        self._delete.on_click(lambda _: self._attempt(lambda: delete(self._shown.id)))
        self._undo.on_click(lambda _: self._attempt(undo))
        history.on_change(self.refresh)
        self.refresh()

    def __repr__(self) -> str:
        return f"RunList({len(self._history.runs)} runs)"

    @property
    def compared(self) -> tuple[Run, Run] | None:
        """The two runs that are side by side: the one on screen, and the other."""
        beside, shown = str(self._beside.value or ""), self._history.shown
        other = next((run for run in self._history.runs if run.id == beside), None)
        return None if shown is None or other is None else (shown, other)

    def compare(self, id: str) -> None:
        """Put a run beside the one on screen; the empty text takes it away.

        Raises:
            KeyError: There is no such run.
        """
        self._beside.value = self._history[id].id if id else ""

    def refresh(self) -> None:
        """Show the runs as they are."""
        runs, shown, deleted = self._history.runs, self._history.shown, self._history.deleted
        lines = [(words.line(n, run), run.id) for n, run in enumerate(runs, 1)]
        others: list[Any] = [option for option in lines if shown is None or option[1] != shown.id]
        beside = self._beside.value
        self._filling = True
        try:
            self._fill(self._list, lines, None if shown is None else shown.id)
            options = [("no other run", ""), *others]
            self._fill(self._beside, options, beside if beside in dict(options).values() else "")
            self._list.rows = max(2, min(len(runs), MOST_LINES))
            self._name.value = "" if shown is None else shown.name
        finally:
            self._filling = False
        whole = next((text for text, id in lines if shown is not None and id == shown.id), "")
        self._whole.value = markup.hint(f"On screen: {whole}") if whole else ""  # the list may cut it
        self._name.disabled = self._delete.disabled = shown is None
        layout.show(self._none, not runs)
        layout.show(self._list, bool(runs))
        layout.show(self._tools, bool(runs))
        layout.show(self._undo, deleted is not None)
        if deleted is not None:
            self._undo.tooltip = f"Bring back {deleted.name}"
        self._show_table()

    @staticmethod
    def _fill(control: Any, options: list[tuple[str, str]], value: str | None) -> None:
        if list(control.options) == options and control.value == value:
            return
        with control.hold_sync():
            if list(control.options) != options:
                control.options = options
            control.value = value

    @property
    def _shown(self) -> Run:
        run = self._history.shown
        if run is None:
            raise ValueError("No run is on screen. Open one first: click it in the list.")
        return run

    def _chosen(self, id: str | None) -> None:
        if self._filling or id is None:
            return
        self._attempt(lambda: self._open_run(id))
        self.refresh()  # a run that could not be opened is not the one on screen

    def _renamed(self, name: str) -> None:
        if self._filling or self._history.shown is None or name == self._history.shown.name:
            return
        self._attempt(lambda: self._history.rename(self._shown.id, name))
        self.refresh()

    def _show_table(self) -> None:
        if self._filling:
            return
        both = self.compared
        self._table.value = "" if both is None else words.compared(*both, self._model)
