"""SelectionBar: what is selected, as chips that remove it, with its size, undo, redo and the other whole-set actions.

It holds the selection and its history, and knows no map: a ``CircuitPicker`` shows the same selection in its grids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ipywidgets import HTML, Button, HBox, VBox

from workbench.editing.task import check_selection
from workbench.models.load import LoadedModel
from workbench.types import Component, Selection
from workbench.types.selection import Kind, all_components
from workbench.widgets.picker.history import History
from workbench.widgets.shared import markup
from workbench.widgets.shared.edit_words import trainable_words

CHIPS = 24
_WRAP = {"flex_flow": "row wrap", "align_items": "center"}


def size_words(model: LoadedModel, selection: Selection, parameters: int) -> str:
    """How many components, how much of them can be trained, and that as a share of the model's parameters."""
    n = selection.n_parameters(model)
    parts = "component" if len(selection) == 1 else "components"
    share = f"{100 * n / parameters:.2g}% of the model's {parameters:,} parameters"
    return f"{len(selection):,} {parts}, {trainable_words(n, 'trainable ')} ({share})"


class SelectionBar(VBox):
    """A selection of a model's components, with its actions.

    Args:
        model: The model whose components they are.
        on_change: Called with the new selection after every change, wherever it came from.
        on_error: Called with the error of an action, None for an action that went well.
    """

    def __init__(
        self,
        model: LoadedModel,
        on_change: Callable[[Selection], object],
        on_error: Callable[[Exception | None], object] | None = None,
    ) -> None:
        self.error: Exception | None = None
        self._model, self._on_change, self._on_error = model, on_change, on_error
        self._parameters = sum(p.numel() for p in model.hf.parameters())
        self._history = History(Selection())
        self._draws = 0
        self._words = HTML()
        self.chips = [self._chip(i) for i in range(CHIPS)]
        """The buttons of the first components; those in excess are not displayed."""
        self._more, self._problem = HTML(), HTML()
        actions: list[tuple[str, str, str, Callable[[], object]]] = [
            ("Undo", "undo", "Back to the selection before", self.undo),
            ("Redo", "repeat", "Forward again", self.redo),
            ("Clear", "times", "Select nothing", self.clear),
            ("Invert", "adjust", "Select the other components of the same kinds", self.invert),
            ("Random control", "random", "As many random components of the same kinds, none of these", self.random),
        ]
        self._buttons: dict[str, Button] = {}
        for name, icon, tip, action in actions:
            button = Button(description=name, icon=icon, tooltip=tip, layout={"width": "auto"})
            button.on_click(lambda _, act=action: self._try(act))
            self._buttons[name] = button
        chips = HBox([*self.chips, self._more], layout=_WRAP)
        super().__init__([self._words, chips, HBox(list(self._buttons.values()), layout=_WRAP), self._problem])
        self._show()

    @property
    def selection(self) -> Selection:
        """What is selected. Settable, as a ``Selection`` or text.

        Raises:
            ValueError: A text that cannot be read, or a component that the model lacks; nothing changes then.
        """
        return self._history.now

    @selection.setter
    def selection(self, selection: Selection | str | Iterable[Component]) -> None:
        new = selection if isinstance(selection, Selection) else Selection(selection)
        if len(new):
            check_selection(self._model, new)
        if list(new) != list(self._history.now):
            self._history.push(new)
            self.error, self._problem.value = None, ""
            self._changed()

    def undo(self) -> None:
        """Back to the selection before."""
        self._history.undo()
        self._changed()

    def redo(self) -> None:
        """Forward again to what was undone."""
        self._history.redo()
        self._changed()

    def clear(self) -> None:
        """Select nothing."""
        self.selection = Selection()

    def invert(self) -> None:
        """Select the components of the same kinds that are not selected now."""
        kinds: list[Kind] = list(dict.fromkeys(c.kind for c in self.selection))
        everything = Selection(c for kind in kinds for c in all_components(self._model, kind))
        self.selection = everything - self.selection

    def random(self) -> None:
        """Select as many random components of the same kinds, none of those selected now; another draw each time."""
        if len(self.selection):
            self.selection = self.selection.random_like(self._model, seed=self._draws)
            self._draws += 1

    def _changed(self) -> None:
        self._show()
        self._on_change(self.selection)

    def _show(self) -> None:
        chosen = self.selection
        words = (
            size_words(self._model, chosen, self._parameters)
            if len(chosen)
            else "Nothing selected: click cells of the maps"
        )
        self._words.value = markup.block(f'<span role="status">{markup.text(words)}</span>')
        names = [str(component) for component, _ in zip(chosen, self.chips, strict=False)]
        for chip, name in zip(self.chips, names + [""] * (CHIPS - len(names)), strict=True):
            with chip.hold_sync():  # one message a chip
                chip.description, chip.tooltip = f"{name} ×" * bool(name), f"Remove {name}" * bool(name)
            chip.layout.display = None if name else "none"
        rest = len(chosen) - len(names)
        self._more.value = markup.block(markup.text(f"and {rest:,} more")) if rest else ""
        for name, possible in (
            ("Undo", self._history.can_undo),
            ("Redo", self._history.can_redo),
            *((n, bool(len(chosen))) for n in ("Clear", "Invert", "Random control")),
        ):
            self._buttons[name].disabled = not possible

    def _chip(self, place: int) -> Button:
        """The button of the component at one place of the selection. Made once: a click must not wait for new ones."""
        chip = Button(layout={"width": "auto", "display": "none"})

        def remove() -> None:
            chosen = list(self.selection)  # a second click may come when the chip is gone: then nothing changes
            self.selection = Selection(chosen[:place] + chosen[place + 1 :])

        chip.on_click(lambda _: self._try(remove))
        return chip

    def _try(self, action: Callable[[], object]) -> None:
        error: Exception | None = None
        try:
            action()
        except Exception as problem:  # would vanish in the log console
            error = problem
        self.error, self._problem.value = error, markup.alert(error)
        if self._on_error is not None:
            self._on_error(error)
