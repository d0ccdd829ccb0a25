"""SelectionBar: what is selected, in one line: chips that remove it, its size, undo, redo and the other actions.

It holds the selection and its history, and knows no map: a ``CircuitPicker`` shows the same selection in its grids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ipywidgets import HTML, Button, ToggleButton, VBox

from workbench.editing.task import check_selection
from workbench.models.load import LoadedModel
from workbench.types import Component, Selection
from workbench.types.selection import Kind, all_components
from workbench.widgets.picker.history import History
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.edit_words import trainable_words

CHIPS = 6
"""So many fit in a line with the buttons; the others are counted."""


def check_shown(model: LoadedModel, selection: Selection) -> None:
    """Raise a ValueError for a component that a model lacks. The MLPs of a mixture of experts can be looked at and
    ablated, though not edited."""
    seen = [c for c in selection if not c.slices(model.shape)]
    if len(selection) > len(seen):
        check_selection(model, selection - seen)


def size_words(model: LoadedModel, selection: Selection) -> str:
    """How many components, and how much of them an edit can train."""
    parts = "component" if len(selection) == 1 else "components"
    return f"{len(selection):,} {parts}, {trainable_words(selection.n_parameters(model))}"


def without_gates(model: LoadedModel, selection: Selection) -> dict[Component, Component]:
    """Components all of whose gates another selected one has, by that one: a neuron of a selected MLP, say."""
    wide = [c for c in selection if c.kind not in ("N", "H", "Q", "K", "V")]
    spans = {c: c.slices(model.shape) for c in wide}

    def holds(outer: Component, inner: Component) -> bool:
        if outer == inner or outer.layer != inner.layer:
            return False
        around = spans[outer]
        return all(
            site in around and around[site].start <= span.start and span.stop <= around[site].stop
            for site, span in inner.slices(model.shape).items()
        )

    found = {c: next((outer for outer in wide if holds(outer, c)), None) for c in selection}
    return {inner: outer for inner, outer in found.items() if outer is not None}


def no_gates_words(model: LoadedModel, selection: Selection) -> str:
    """What a selection holds twice, in words; empty where nothing."""
    twice = without_gates(model, selection)
    if not twice:
        return ""
    inner, outer = next(iter(twice.items()))
    more = f", and {len(twice) - 1:,} more like it" if len(twice) > 1 else ""
    return f"{inner} is part of {outer}: no gates of its own{more}."


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
        self._subject, self._picked_for = "", dict[Component, str]()
        self._words, self._rest = HTML(), HTML()
        self.chips = [self._chip(i) for i in range(CHIPS)]
        """The buttons of the first components; those in excess are not displayed."""
        self._below = HTML()
        actions: list[tuple[str, str, str, Callable[[], object]]] = [
            ("Undo", "undo", "Back to the selection before (Ctrl+Z in a map)", self.undo),
            ("Redo", "repeat", "Forward again", self.redo),
            ("Clear", "times", "Select nothing", self.clear),
            ("Invert", "adjust", "Select the other components of the same kinds", self.invert),
            ("Random control", "random", "As many random components of the same kinds, none of these", self.random),
        ]
        self._buttons: dict[str, Button] = {}
        for name, icon, tip, action in actions:
            button = layout.quiet_button(name, icon=icon, tooltip=tip)
            button.on_click(lambda _, act=action: self._try(act))
            self._buttons[name] = button
        first, rare = list(self._buttons.values())[:3], list(self._buttons.values())[3:]
        self._more = ToggleButton(description="More", icon="caret-down", tooltip="Invert, random control")
        self._more.add_class("wb-quiet")
        for button in rare:
            layout.show(button, False)
        self._more.observe(lambda change: [layout.show(button, change["new"]) for button in rare], names="value")
        self.elsewhere = layout.quiet_button("", tooltip="")
        """Says for which other subject components were picked, and removes them."""
        self.elsewhere.add_class("wb-elsewhere")
        self.elsewhere.on_click(lambda _: self._try(self.drop_elsewhere))
        chips = layout.row(*self.chips, self._rest)
        chips.add_class("wb-chips")
        chips.add_class("wb-scroll")  # those without room
        line = layout.row(*first, self._more, *rare, self._words, chips)
        super().__init__([line, self.elsewhere, self._below])
        self.add_class("wb-selection")
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
            check_shown(self._model, new)
        if list(new) != list(self._history.now):
            held = set(self.selection)
            self._picked_for |= {c: self._subject for c in new if c not in held}
            self._history.push(new)
            self.error = None
            self._changed()

    @property
    def subject(self) -> str:
        """What the maps are about, for which components are picked from now on. Settable; the selection stays."""
        return self._subject

    @subject.setter
    def subject(self, subject: str) -> None:
        self._subject = subject
        self._show_elsewhere()

    @property
    def picked_elsewhere(self) -> dict[Component, str]:
        """Of the selection what was picked for other subjects, by component."""
        others = {c: self._picked_for.get(c, self._subject) for c in self.selection}
        return {c: subject for c, subject in others.items() if subject != self._subject}

    def claim(self) -> None:
        """Say that all of the selection is of the subject that is shown, as where both were opened together."""
        self._picked_for = dict.fromkeys(self.selection, self._subject)
        self._show_elsewhere()

    def drop_elsewhere(self) -> None:
        """Take out of the selection what was picked for other subjects."""
        others = self.picked_elsewhere
        self.selection = Selection(c for c in self.selection if c not in others)

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
        words, share = "Nothing selected: click cells of the maps", ""
        if len(chosen):
            words = size_words(self._model, chosen)
            part = f"{100 * chosen.n_parameters(self._model) / self._parameters:.2g}%"
            share = f' title="{part} of the model\'s {self._parameters:,} parameters"'
        self._words.value = markup.block(f'<span role="status"{share}>{markup.text(words)}</span>')
        names = [str(component) for component, _ in zip(chosen, self.chips, strict=False)]
        for chip, name in zip(self.chips, names + [""] * (CHIPS - len(names)), strict=True):
            with chip.hold_sync():  # one message a chip
                chip.description, chip.tooltip = f"{name} ×" * bool(name), f"Remove {name}" * bool(name)
            layout.show(chip, bool(name))
        rest = list(chosen)[len(names) :]
        listed = " ".join(map(str, rest[:200])) + " …" * (len(rest) > 200)
        more = f'<span class="wb-muted" title="{markup.text(listed)}">+{len(rest):,} more</span>'
        self._rest.value = markup.block(more) if rest else ""
        layout.show(self._rest, bool(rest))
        self._show_elsewhere()
        self._show_below()
        for name, possible in (
            ("Undo", self._history.can_undo),
            ("Redo", self._history.can_redo),
            *((n, bool(len(chosen))) for n in ("Clear", "Invert", "Random control")),
        ):
            self._buttons[name].disabled = not possible

    def _show_elsewhere(self) -> None:
        others = self.picked_elsewhere
        subjects = list(dict.fromkeys(others.values()))
        few = f"{len(others):,} of {len(self.selection):,} " * (len(others) < len(self.selection))
        names = " and ".join(subjects[:2]) if len(subjects) <= 2 else f"{subjects[0]} and {len(subjects) - 1} others"
        with self.elsewhere.hold_sync():
            self.elsewhere.description = f"{few}picked for {names} ×" * bool(others)
            self.elsewhere.tooltip = f"Remove what was not picked for {self._subject}" * bool(others)
        self.elsewhere.disabled = not others
        layout.show(self.elsewhere, bool(others))

    def _show_below(self) -> None:
        """Below the line: what went wrong, else what is selected twice."""
        twice = no_gates_words(self._model, self.selection)
        self._below.value = markup.alert(self.error) if self.error is not None else markup.hint(twice)
        layout.show(self._below, bool(self._below.value))

    def _chip(self, place: int) -> Button:
        """The button of the component at one place of the selection. Made once: a click must not wait for new ones."""
        chip = layout.quiet_button("", tooltip="")
        layout.show(chip, False)

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
        self.error = error
        self._show_below()
        if self._on_error is not None:
            self._on_error(error)
