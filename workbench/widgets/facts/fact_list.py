"""FactList: facts to choose from, with filters. Of twenty thousand facts the browser gets some hundred lines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ipywidgets import HTML, Button, Checkbox, VBox

from workbench.types import Fact, FactSet
from workbench.widgets.facts import views
from workbench.widgets.facts.enter import EnterField
from workbench.widgets.shared import markup
from workbench.widgets.shared.controls import Dropdown, Select
from workbench.widgets.shared.layout import fields, row, show
from workbench.widgets.shared.sync import WholeMessages

ALL = "all relations"
MOST_LINES = 200
"""Lines that are listed; of more matches the rest is counted."""
Forms = Mapping[str, tuple[str, ...] | None]


class FactSelect(WholeMessages, Select):
    """The lines. A line that the browser chooses is told; one that Python chooses is not.

    Args:
        lock: Held while the lines change: a click that comes meanwhile waits for the new ones.
        on_choose: Called with the value of the line.
        options: As of ``Select``.
    """

    def __init__(self, lock: threading.RLock, on_choose: Callable[[str], object], **options: Any) -> None:
        self._list_lock, self._on_choose = lock, on_choose
        super().__init__(**options)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take a message from the browser."""
        with self._list_lock:
            before: Any = self.value
            super().set_state(sync_data)
            after: Any = self.value
        if after is not None and after != before:
            self._on_choose(after)


class FactList(VBox):
    """Filters, the lines that they leave, and a button that asks the model what is not on record.

    Args:
        facts: The facts.
        forms: By fact id, in which forms it is known; None where it was not asked. Settable.
        model_name: For the words below the list.
        lock: The panel's.
        on_choose: Called with the id of the line that was clicked, or of the first one after Enter in Search.
        on_ask: Called when the button is pressed.
    """

    def __init__(
        self,
        facts: FactSet,
        forms: Forms,
        *,
        model_name: str,
        lock: threading.RLock,
        on_choose: Callable[[str], object],
        on_ask: Callable[[], object],
    ) -> None:
        self.facts, self.forms = facts, forms
        self._known_to, self._lock, self._on_choose = model_name, lock, on_choose
        self._chosen: Fact | None = None
        self._top = -MOST_LINES  # of the list without a search
        self._texts = [_searched(fact) for fact in facts]  # once: a key is pressed more often
        relations = [r for r in facts.relations if r][:MOST_LINES]
        self._search = EnterField(
            description="Search", placeholder="words of a fact", tooltip="Enter takes the first fact"
        )
        self._relation = Dropdown(description="Relation", options=[ALL, *relations], tooltip="What is asked for")
        self._known_only = Checkbox(
            description="Known only", indent=False, tooltip="Only facts that the model is on record as knowing"
        )
        self._lines = FactSelect(lock, on_choose, description="Facts", rows=14, layout={"width": "auto"})
        self._count = HTML()
        self._ask = Button(description="Ask the model", tooltip="Measure which facts it knows; in the background")
        self._ask.on_click(lambda _: on_ask())
        for control in (self._search, self._relation, self._known_only):
            control.observe(lambda _: self.refresh(), names="value")
        self._search.on_enter(self._take_first)
        self._lines.add_class("wb-list")
        super().__init__(
            [
                fields(self._search, self._relation, self._known_only),
                HTML(views.header()),
                self._lines,
                row(self._count, self._ask),
            ]
        )

    @property
    def matching(self) -> list[Fact]:
        """The facts that the filters leave, also those that are not listed; of a search, those whose subject it is
        first."""
        words = self._search.value.casefold().split()
        found = [f for f, text in zip(self.facts, self._texts, strict=True) if self._matches(f, text, words)]
        return sorted(found, key=lambda fact: fact.subject.casefold().split() != words) if words else found

    @property
    def relations(self) -> Sequence[str]:
        """Those that can be chosen."""
        return self._relation.options[1:]

    def choose(self, fact: Fact | None) -> None:
        """Mark a fact's line, and none for None; filters that would hide it are cleared."""
        with self._lock:
            self._chosen = fact
            if fact is not None and not self._shows(fact):
                self._search.value, self._relation.value, self._known_only.value = "", ALL, False
            self.refresh()

    def refresh(self) -> None:
        """List what the filters leave; the chosen fact stays chosen when it is not among it."""
        with self._lock:
            matching = self.matching
            listed = matching[: self._first_line(matching) + MOST_LINES][-MOST_LINES:]
            chosen = self._chosen if self._chosen is not None and self._shows(self._chosen) else None
            if chosen is not None and chosen.id not in {f.id for f in listed}:
                listed = [*listed[:-1], chosen]
            options = [
                (views.line(f.subject, f.answer, f.target, views.mark(self.forms.get(f.id))), f.id) for f in listed
            ]
            with self._lines.hold_sync():
                self._lines.options = options
                self._lines.value = None if chosen is None else chosen.id
            self._count.value = markup.hint(self._words(matching, len(listed)))
            show(self._ask, None in self.forms.values())

    def asking(self, busy: bool) -> None:
        """Say that the model is being asked, or not any more."""
        self._ask.disabled, self._ask.description = busy, "Asking ..." if busy else "Ask the model"

    def _matches(self, fact: Fact, text: str, words: Sequence[str]) -> bool:
        return (
            self._relation.value in (ALL, fact.relation)
            and all(word in text for word in words)
            and (not self._known_only.value or bool(self.forms.get(fact.id)))
        )

    def _shows(self, fact: Fact) -> bool:
        """Whether a fact is one of the list that the filters leave."""
        words = self._search.value.casefold().split()
        return fact in self.facts and self._matches(fact, _searched(fact), words)

    def _words(self, matching: Sequence[Fact], listed: int) -> str:
        known = sum(bool(self.forms.get(f.id)) for f in matching)
        words = f"{len(matching):,} of {len(self.facts):,} facts, {known:,} on record as known to {self._known_to}"
        if not matching:
            return f"No fact matches. {words}. A fact that is not here can be written under My fact."
        more = len(matching) - listed
        return f"{listed} listed, and {more:,} more: type to narrow. {words}." if more else f"{words}."

    def _first_line(self, matching: Sequence[Fact]) -> int:
        """Where the list begins: without words of a search, where the chosen fact's relation does, or among its
        neighbours in a long one. The list stays where it is as long as it has the chosen fact."""
        if self._search.value.strip() or self._chosen is None or len(matching) <= MOST_LINES:
            return 0
        at = next((i for i, fact in enumerate(matching) if fact.id == self._chosen.id), 0)
        if not self._top <= at < self._top + MOST_LINES:
            relation = next((i for i, fact in enumerate(matching) if fact.relation == self._chosen.relation), 0)
            self._top = max(0, min(max(relation, at - MOST_LINES // 2), len(matching) - MOST_LINES))
        return self._top

    def _take_first(self) -> None:
        if self._search.value.strip() and (matching := self.matching):
            self._on_choose(matching[0].id)


def _searched(fact: Fact) -> str:
    return " ".join((fact.id, fact.relation, fact.subject, fact.answer, fact.target, fact.question)).casefold()
