"""StackPanel: many edits of one base as a list: turned on and off, scaled, moved, removed, and what each broke."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipywidgets import HTML

from workbench.editing.stack import EditStack
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact, FactSet
from workbench.types.fact import as_facts
from workbench.types.stack import StackAnswers, StackOverlaps
from workbench.widgets.shared import markup
from workbench.widgets.shared.code import fact_code, needs_facts, start_code
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.run_panel import RunPanel, RunWords
from workbench.widgets.shared.text_card import text_card_png
from workbench.widgets.stack.layer_list import LayerList
from workbench.widgets.stack.views import answers_view, broke_words, layer_words, overlaps_view


@dataclass(frozen=True)
class StackFound:
    """What a run of the panel found.

    Args:
        answers: Each fact's question after each edit.
        overlaps: What the edits share, and how far the weights are from the base's.
    """

    answers: StackAnswers
    overlaps: StackOverlaps


class StackPanel(RunPanel[StackFound]):
    """The panel shows a stack of edits. A click in the list chooses an edit; it is turned on and off, scaled, moved and
    removed, each exactly. "What broke?" asks every edited fact after each edit, and compares the edits.

    Args:
        model: The base of the edits; it is not changed.
        edits: The edits, first to last, or a stack of them (which the panel copies).
        facts: Facts to ask besides the edited ones.

    Raises:
        ValueError: As ``EditStack``.

    Example:
        >>> panel = wb.StackPanel(model, [edit])
        >>> panel.scale(0, 0.5)
        >>> panel.stack
        EditStack('tiny': france-capital (strength 0.5))
        >>> panel.scale(0, 1)
        >>> panel.run().wait().answers.words
        'No edit broke one of the 1 facts.'
        >>> print(panel.code.splitlines()[-3])
        stack = wb.EditStack(model, edits)
    """

    WORDS = RunWords(
        label="What broke?",
        icon="stethoscope",
        tip="Ask every edited fact after each edit, and compare the edits, in the background",
        cancel_tip="Stop after the questions going on",
        refused="The facts are being asked already; wait for it or cancel.",
        cancelling="Cancelling: it stops after the questions that are going on.",
    )

    def __init__(
        self,
        model: LoadedModel,
        edits: EditStack | Edit | Sequence[Edit] = (),
        *,
        facts: Fact | FactSet | Sequence[Fact] = (),
    ) -> None:
        stack = edits.copy() if isinstance(edits, EditStack) else EditStack(model, edits)
        if stack.base.fingerprint != model.fingerprint:
            raise ValueError(f"The stack is of {stack.base.name!r}, not of {model.name!r}: give its own base.")
        super().__init__()
        self._model, self._stack, self._facts = model, stack, as_facts(facts)
        self._found: StackFound | None = None
        self._found_of, self._running = "", ("", stack.layers)
        self._before: tuple[EditStack, str] | None = None
        self._list = LayerList(
            toggle=lambda i, on: self.toggle(i, on),
            scale=lambda i, strength: self.scale(i, strength),
            move=lambda i, j: self._attempt(lambda: self.move(i, j)),
            remove=lambda i: self.remove(i),
            undo=lambda: self.undo(),
        )
        self._notes, self._answers, self._overlaps = HTML(), HTML(), HTML()
        self._lay_out_run([self._list, self._notes], [self._answers, self._overlaps])
        note = f"on {model.name}; they act from the first to the last"
        self._heading.value = markup.panel_title("Stack of edits", note)
        self._refresh()

    def __repr__(self) -> str:
        return f"StackPanel({', '.join(layer.name for layer in self._stack.layers) or 'no edits'})"

    @property
    def stack(self) -> EditStack:
        """A copy of the stack as it is; ``panel.stack.model`` is the model with the edits that are on."""
        return self._stack.copy()

    @property
    def answers(self) -> StackAnswers | None:
        """What the last run found out about the facts; None before the first."""
        return self._found.answers if self._found is not None else None

    @property
    def overlaps(self) -> StackOverlaps | None:
        """What the last run found out about the edits; None before the first."""
        return self._found.overlaps if self._found is not None else None

    @property
    def chosen(self) -> int | None:
        """The place of the edit that is chosen in the list, from 0; None without any. Settable."""
        return self._list.chosen

    @chosen.setter
    def chosen(self, place: int) -> None:
        self._list.chosen = place

    @property
    def code(self) -> str:
        """Python that repeats what is shown."""
        return start_code(self._model) + self.shown_code

    @property
    def shown_code(self) -> str:
        """Its part after ``model`` is there."""
        return self.code_where({})

    def code_where(self, known: Mapping[str, str]) -> str:
        """The same where some edits are there too.

        Args:
            known: Their names in the code, by their id.
        """
        facts = "facts = wb.load_facts()\n" if needs_facts(self._facts) else ""
        asked = ", ".join(fact_code(fact) for fact in self._facts)
        found = "" if self._found is None else f"print(stack.broken({asked}).words)\nprint(stack.overlaps().words)\n"
        return f"{facts if self._found is not None else ''}{self._stack_code(known)}{found}"

    # What changes it

    def add(self, edit: Edit) -> None:
        """Put an edit on top and choose it.

        Raises:
            ValueError: As ``EditStack.add``.
        """
        with self._lock:
            self._stack.add(edit)
            self._before = None
            self._refresh()
            self._list.chosen = len(self._stack) - 1

    def show_edit(self, edit: Edit) -> None:
        """Have an edit in the stack, and choose it: where it is not there yet it is put on top, and others that rewrite
        a fact of it are turned off. One that does not fit is said in the alert, and the stack stays as it was."""
        with self._lock:
            ids = [one.id for one in self._stack]
            if edit.id in ids:
                self._list.chosen = ids.index(edit.id)
                return
            before = self._stack.copy()
            facts = {fact.id for fact in edit.facts}
            for i, other in enumerate(self._stack):
                if facts & {fact.id for fact in other.facts} and edit.id not in {e.id for e in other.earlier}:
                    self._stack.toggle(i, on=other.id in {e.id for e in edit.earlier})
            try:
                self.add(edit)
            except ValueError as error:
                self._stack = before
                self._fail(error)
                self._refresh()

    def toggle(self, i: int, on: bool | None = None) -> None:
        """As ``EditStack.toggle``."""
        self._do(lambda: self._stack.toggle(i, on))

    def scale(self, i: int, strength: float) -> None:
        """As ``EditStack.scale``."""
        self._do(lambda: self._stack.scale(i, strength))

    def move(self, i: int, j: int) -> None:
        """As ``EditStack.move``; the edit stays chosen."""
        self._do(lambda: self._stack.move(i, j))
        self._list.chosen = j % len(self._stack)

    def remove(self, i: int) -> None:
        """As ``EditStack.remove``; ``undo`` brings it back."""
        before = self._stack.copy()
        name = layer_words(before.layers[i]) if -len(before) <= i < len(before) else ""
        self._do(lambda: self._stack.remove(i))
        self._before = before, name
        self._refresh()

    def undo(self) -> None:
        """Bring back the stack before the last removal. Nothing without any, or after other changes."""
        with self._lock:
            if self._before is not None:
                self._stack, self._before = self._before[0], None
                self._refresh()

    def _do(self, change: Callable[[], object]) -> None:
        with self._lock:
            change()
            self._before = None
            self._fail(None)
            self._refresh()

    def _attempt(self, do: Callable[[], object]) -> None:
        """Do what a click asks; what it refuses is said in the alert."""
        try:
            do()
        except ValueError as error:
            self._fail(error)

    # The job

    def _problem(self) -> str:
        return "" if len(self._stack) or self._facts else "There is no edit in the stack."

    def _settings(self) -> dict[str, Any]:
        return {
            f"edit {i + 1}": f"{layer_words(x)} {f'at strength {x.strength:g}' if x.on else 'off'}"
            for i, x in enumerate(self._stack.layers)
        }

    def _run_title(self) -> str:
        on = [layer_words(layer) for layer in self._stack.layers if layer.on]
        return "; ".join(on) or "no edit is on"

    def _order(self) -> Callable[[threading.Event], StackFound]:
        stack, facts = self._stack.copy(), list(self._facts)
        self._running = self._state(), stack.layers
        self._say("Asking every fact after each edit.")

        def found(cancel: threading.Event) -> StackFound:
            return StackFound(stack.broken(facts, cancel=cancel), stack.overlaps())

        return found

    def _clear(self) -> None:
        super()._clear()
        self._found = None
        self._answers.value = self._overlaps.value = ""

    def _finished(self, job: Job[StackFound]) -> None:
        found = job.result
        if found is None:
            return
        self._found, (self._found_of, layers) = found, self._running
        self._answers.value = answers_view(found.answers, layers)
        self._overlaps.value = overlaps_view(found.overlaps, layers)
        self._refresh()

    # What it shows

    def _state(self) -> str:
        """The stack as a text that changes with it."""
        return ", ".join(f"{x.edit.id} {x.on} {x.strength!r} {x.stage}" for x in self._stack.layers)

    def _refresh(self) -> None:
        with self._lock:
            fresh = self._found is not None and self._found_of == self._state()
            broke = broke_words(self._found.answers) if self._found is not None and fresh else {}
            self._list.show(self._stack.layers, broke, undo=self._before[1] if self._before is not None else "")
            self._notes.value = "".join(markup.alert(note, "info") for note in self._stack.notes)
            self._recheck()
            self._show_code()

    def _stack_code(self, known: Mapping[str, str]) -> str:
        """The lines that make the stack."""
        layers = self._stack.layers
        staged = [x.stage is not None for x in layers]
        first = staged.index(True) if True in staged else len(layers)
        try:
            again = EditStack(self._model, [x.edit for x in layers[:first]])
            for x in layers[first:]:
                again.add(x.edit, stage=x.stage)
        except ValueError:  # an edit without those that it was made on: only a saved stack is so
            return "stack = wb.EditStack.load(model, 'its folder')  # panel.stack.save('its folder')\n"
        names = [known.get(x.edit.id, f"wb.load_edit({f'folder of {x.name}'!r})") for x in layers]
        listed = "".join(f"    {name},\n" for name in names[:first])
        edits = f"edits = [\n{listed}]\n" if first else "edits = []\n"
        changes = [
            f"stack.add({name}{'' if x.stage is None else f', stage={x.stage!r}'})\n"
            for name, x in zip(names[first:], layers[first:], strict=True)
        ]
        changes += [f"stack.scale({i}, {x.strength!r})\n" for i, x in enumerate(layers) if x.strength != 1]
        changes += [f"stack.toggle({i}, on=False)\n" for i, x in enumerate(layers) if not x.on]
        return f"{edits}stack = wb.EditStack(model, edits)\n{''.join(changes)}"

    def _picture(self) -> bytes:
        lines = [f"{i + 1} {layer_words(x)}" for i, x in enumerate(self._stack.layers)]
        return text_card_png("Stack of edits", [*lines, "Run this cell to use the panel."])
