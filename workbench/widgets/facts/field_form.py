"""FieldForm: fields to be written in, with what does not fit below each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ipywidgets import HTML, HBox, VBox, Widget

from workbench.widgets.facts.enter import Combobox, EnterField
from workbench.widgets.shared import markup
from workbench.widgets.shared.layout import fields, row, show


class FieldForm(VBox):
    """A grid of fields, and what stands below them. Enter in any field is its button.

    Args:
        labels: By field, its label and an example.
        tips: By field, its tooltip.
        rows: Which fields stand in a line.
        below: What follows the fields.
        on_use: Called without arguments when Enter is pressed.
        on_change: Called with the field's name when a person has changed it.
        offers: Fields in which texts are offered.
    """

    def __init__(
        self,
        labels: Mapping[str, tuple[str, str]],
        tips: Mapping[str, str],
        rows: Sequence[Sequence[str]],
        below: Sequence[Widget],
        on_use: Callable[[], object],
        on_change: Callable[[str], object],
        offers: Sequence[str] = (),
    ) -> None:
        self.fields: dict[str, Any] = {}
        self._notes: dict[str, HTML] = {}
        self._filling = False
        for name, (label, example) in labels.items():
            kind = Combobox if name in offers else EnterField
            field = kind(description=label, placeholder=example, tooltip=tips[name], layout={"width": "100%"})
            field.on_enter(on_use)
            field.observe(lambda _, name=name: self._edited(name, on_change), names="value")
            self.fields[name], self._notes[name] = field, HTML()
        super().__init__([*(self._line(names) for names in rows), *below])
        self.add_class("wb-form")
        self.tell({})

    def clear(self) -> None:
        """Empty all fields."""
        self._fill(dict.fromkeys(self.fields, ""))

    def tell(self, problems: Mapping[str, str]) -> None:
        """Say below each field what does not fit; the other fields then say nothing."""
        for name in self._notes:
            self._note(name, problems.get(name, ""))

    def _fill(self, texts: Mapping[str, str]) -> None:
        self._filling = True
        try:
            for name, value in texts.items():
                self.fields[name].value = value
        finally:
            self._filling = False

    def _note(self, name: str, words: str) -> None:
        note = self._notes[name]
        note.value = f'<div class="wb wb-fieldnote" role="alert">{markup.text(words)}</div>' if words else ""
        show(note, bool(words))

    def _edited(self, name: str, on_change: Callable[[str], object]) -> None:
        if self._filling:
            return
        self._note(name, "")
        on_change(name)

    def _line(self, names: Sequence[str]) -> HBox:
        cells = [VBox([fields(self.fields[name]), self._notes[name]], layout={"flex": "1 1 180px"}) for name in names]
        return row(*cells)
