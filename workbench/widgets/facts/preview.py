"""Preview: a chosen fact as the model reads it, with its target to change and its prompt's form to switch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ipywidgets import HTML, VBox

from workbench.types import Fact, Form
from workbench.widgets.facts import views
from workbench.widgets.facts.enter import EnterField
from workbench.widgets.facts.reading import Reading
from workbench.widgets.shared import markup
from workbench.widgets.shared.controls import ToggleButtons
from workbench.widgets.shared.layout import fields, primary, quiet_button, row, show
from workbench.widgets.shared.timing import Span

FORM_LABELS: dict[str, Form] = {"Chat": "chat", "Raw prompt": "cloze"}


class FormSwitch(ToggleButtons):
    """Chat or raw prompt. What a person chooses is told; the form that Python shows is not.

    Args:
        on_choose: Called with the form.
    """

    def __init__(self, on_choose: Callable[[Form], object]) -> None:
        self._on_choose = on_choose
        tips = ["The question through the chat template", "The prompt as it is, to be gone on with"]
        super().__init__(options=FORM_LABELS, value=None, description="Prompt as", tooltips=tips)
        self.style.button_width = "auto"

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take a message from the browser."""
        before: Any = self.value
        super().set_state(sync_data)
        after: Any = self.value
        if after is not None and after != before:
            self._on_choose(after)


class Preview(VBox):
    """The right side of the chooser.

    Args:
        on_form: Called with the form that was chosen.
        on_target: Called with another target; returns what does not fit, in words, or "".
        on_ask: Called when the model is to be asked this one fact.
        on_go: Called when the fact is to be looked for in the model.
    """

    def __init__(
        self,
        *,
        on_form: Callable[[Form], object],
        on_target: Callable[[str], str],
        on_ask: Callable[[], object],
        on_go: Callable[[], object],
    ) -> None:
        self._on_target = on_target
        self._fact: Fact | None = None
        self._heading, self._target, self._note = HTML(), HTML(), HTML()
        self._ask = quiet_button("ask now", tooltip="Ask the model this one fact, in both forms")
        self._ask.on_click(lambda _: on_ask())
        self._change = quiet_button("change", tooltip="Let an edit teach another answer")
        self._new = EnterField(description="New target", placeholder="another answer", tooltip="Enter takes it")
        self._new.on_enter(self._changed)
        self._take = quiet_button("Use target", tooltip="Check this target and choose it")
        self._change.on_click(lambda _: self._open(bool(self._changing.layout.display)))
        self._take.on_click(lambda _: self._changed())
        self._changing = row(fields(self._new), self._take, self._note)
        self.switch = FormSwitch(on_form)
        self._strip, self._bars, self._time = HTML(), HTML(), HTML()
        self._go = primary("Where does it live?", tooltip="Look for the fact in the model: the maps of tab 2")
        self._go.on_click(lambda _: on_go())
        self.can_go = False
        super().__init__(
            [
                self._heading,
                row(self._target, self._change, self._ask),
                self._changing,
                row(self._go, self._time),
                fields(self.switch),
                self._strip,
                self._bars,
            ]
        )
        self._open(False)

    @property
    def can_go(self) -> bool:
        """Whether there is something to look for the fact in. Settable."""
        return self._go.layout.display != "none"

    @can_go.setter
    def can_go(self, can: bool) -> None:
        show(self._go, can)
        show(self._time, can)

    def fact(self, fact: Fact, forms: tuple[str, ...] | None) -> None:
        """Show a fact, and in which forms it is known."""
        if fact != self._fact:
            self._open(False)
        self._fact = fact
        self._heading.value = views.about(fact, views.mark(forms))
        self._target.value = views.target(fact)
        show(self._ask, forms is None)

    def asking(self, busy: bool) -> None:
        """Say that the model is being asked, or not any more."""
        self._ask.disabled, self._ask.description = busy, "asking ..." if busy else "ask now"

    def waiting(self, form: Form | None) -> None:
        """Say that the prompt is being read."""
        self.switch.value = form
        self._strip.value, self._bars.value, self._time.value = views.READING, "", ""

    def read(self, reading: Reading, span: Span) -> None:
        """Show how the prompt is read, and about how long its maps take."""
        self.switch.value = reading.form
        odd = views.warning(reading)
        self._strip.value = views.traced(reading) + markup.alert(odd, "info") + views.strip(reading)
        self._bars.value = views.following(reading)
        self._time.value = markup.hint(span.words)

    def unread(self) -> None:
        """Take back that the prompt is being read: it could not be."""
        self._strip.value = ""

    def _open(self, opened: bool) -> None:
        show(self._changing, opened)
        self._note.value = ""
        self._new.value = self._fact.target if opened and self._fact is not None else ""

    def _changed(self) -> None:
        words = self._on_target(self._new.value.strip())
        self._note.value = f'<div class="wb wb-fieldnote" role="alert">{markup.text(words)}</div>' if words else ""
        if not words:
            self._open(False)
