"""NoFact: what an edit panel says where the other tabs are about no fact, and the way to one."""

from __future__ import annotations

from collections.abc import Callable

from ipywidgets import HTML, VBox

from workbench.widgets.shared import layout, markup

NEEDS_FACT = "An edit needs a fact."
OF_A_PAIR = (
    "The other tabs are about a pair of prompts. An edit needs a fact: what is asked (a question, or a sentence to "
    "complete), the answer, and the target that is to be answered instead. Write it in tab 1; what is picked stays, "
    "and is what the edit may move."
)


class NoFact(VBox):
    """A note with a button; out of sight while there is a fact.

    Args:
        on_change: Called after it has come or gone.
        on_write: Called by the button.
    """

    def __init__(self, on_change: Callable[[], object], on_write: Callable[[], object]) -> None:
        self._callbacks = [on_change]
        self._words, self._line = "", HTML()
        self._write = layout.primary(
            "Write it as a fact", icon="pencil", tooltip="Tab 1, with what the two prompts say filled in"
        )
        self._write.on_click(lambda _: on_write())
        super().__init__([self._line, layout.row(self._write)])
        layout.show(self, False)

    def __repr__(self) -> str:
        return f"NoFact({self._words!r})"

    @property
    def words(self) -> str:
        """Why there is no fact to edit; empty where there is one. Settable."""
        return self._words

    @words.setter
    def words(self, words: str) -> None:
        if words != self._words:
            self._words, self._line.value = words, markup.alert(words, "info")
            layout.show(self, bool(words))
            for callback in self._callbacks:
                callback()

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` too after it has come or gone."""
        self._callbacks.append(callback)

    @property
    def problem(self) -> str:
        """The same in short, beside Run."""
        return NEEDS_FACT if self._words else ""
