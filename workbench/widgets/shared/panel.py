"""Panel: a box of controls with an alert, its own Python, and a picture for where no widget is drawn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from ipywidgets import HTML, Box, VBox, Widget

from workbench.widgets.grid.png import with_picture
from workbench.widgets.shared import markup
from workbench.widgets.shared.code_block import CodeBlock
from workbench.widgets.shared.connection import Connection
from workbench.widgets.shared.snapshot import Snapshot
from workbench.widgets.shared.voice import person


class Panel(VBox):
    """What all panels share: what they say, what went wrong, their controls, and a PNG beside the widget.

    A subclass calls ``super().__init__()``, makes its controls, and puts them in order with ``_lay_out``.

    Args:
        traits: Of the subclass.
    """

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self._lock = threading.RLock()  # the job's thread and the kernel's both write here
        self._error: BaseException | None = None
        self._message = ""
        self._code_listeners: list[Callable[[], object]] = []
        self._alert, self._code = HTML(), CodeBlock(lambda: self.code)
        self._connection = Connection()
        self.add_class("wb-panel")

    @property
    def error(self) -> BaseException | None:
        """What went wrong last, else None. What was cancelled is no error."""
        return self._error

    @property
    def message(self) -> str:
        """What the panel's alert says, as plain text; empty without one."""
        return self._message

    @property
    def controls(self) -> dict[str, Any]:
        """The buttons, menus and fields by their label, without those of panels inside; of two with the same label the
        first."""
        labelled: dict[str, Any] = {}
        for control in _inside(self):
            if label := getattr(control, "description", ""):
                labelled.setdefault(label, control)
        return labelled

    @property
    def code(self) -> str:
        """Python that repeats what the panel shows."""
        raise NotImplementedError

    def on_code(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` whenever the panel's code may have changed."""
        self._code_listeners.append(callback)

    def snapshot(self) -> Snapshot:
        """The panel as it is now, with all its tabs, texts, tables and maps: shown in a cell, it stays in the notebook
        without a kernel.

        Returns:
            To be shown, or written with ``.save("panel.html")``. Its ``.data`` is the PNG that is stored beside the
            panel wherever it is displayed: its map where it has one, else a card that names the fact.
        """
        return Snapshot(self, self._picture())

    def _picture(self) -> bytes:
        """What the panel shows, as a PNG."""
        raise NotImplementedError

    def _lay_out(self, *shown: Widget) -> None:
        """Put the controls in order, below the line that says when no kernel listens."""
        self.children = (self._connection, *shown)

    def _tell(self, *messages: markup.Message) -> None:
        """Show these messages in the alert, in the place of those before; none empties it."""
        self._message = "\n".join(message.words for message in messages)
        self._alert.value = "".join(markup.alert(message.words, message.kind) for message in messages)

    def _fail(self, error: BaseException | None) -> None:
        """Keep an error and show it in a person's words; None takes the last one back."""
        self._error = error
        self._tell(*([] if error is None else [markup.Message(person(error), "error")]))

    def _show_code(self) -> None:
        """Show the code as it is now, here and wherever it is a part of another one."""
        self._code.refresh()
        for callback in self._code_listeners:
            callback()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return with_picture(super()._repr_mimebundle_(**kwargs), repr(self), self._picture())


def _inside(box: Box) -> Iterator[Widget]:
    """All widgets in a box, in order, without those of panels in it."""
    for child in box.children:
        yield child
        if isinstance(child, Box) and not isinstance(child, Panel):
            yield from _inside(child)
