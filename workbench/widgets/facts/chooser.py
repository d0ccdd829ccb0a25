"""FactChooser: find a fact, or write one, and see how the model reads it.

The list's marks come from what is on record (``facts.known_table``): nothing is computed for them. The traced text of
the chosen fact is ``prompts.traced_prompt``; it takes a greedy answer of the base model, so it runs in the background.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ipywidgets import HTML, Button, Checkbox, HBox, Text, VBox

from workbench.facts.known import FORMS, fact_key, known_facts, known_table, load_facts
from workbench.language.prompts import check_first_tokens, traced_prompt
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet, TracedPrompt
from workbench.widgets.facts import views as fact_views
from workbench.widgets.facts.form import FactForm
from workbench.widgets.shared import markup
from workbench.widgets.shared.code import facts_code, start_code
from workbench.widgets.shared.controls import Dropdown, Select
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.panel import Panel
from workbench.widgets.shared.text_card import text_card_png

ALL = "all relations"
FIRST = "france-capital"
"""Of the bundled facts, the one that is shown first: it is the one of the notebooks and the pages."""
_WRAP = {"flex_flow": "row wrap", "align_items": "flex-start"}
_COLUMN = {"flex": "1 1 400px", "min_width": "0", "max_width": "720px", "margin": "0 16px 0 0"}
_STYLE = {"description_width": "72px"}


class FactChooser(Panel):
    """The panel lets one choose a fact from a searchable list, or write a new one.

    Args:
        model: The model whose knowledge is marked and that is traced; for an edited one, its base.
        facts: The facts to choose from; the bundled ones by default.
        value: The first choice, a fact or its id. None for the first of ``facts``; of the bundled ones for France's
            capital, or the first that the model knows where it is on record as not knowing that.

    Raises:
        KeyError: ``value`` is an id that the facts do not have.
        ValueError: No facts.

    Example:
        >>> chooser = wb.FactChooser(model, facts, value="france-capital")
        >>> chooser
        FactChooser(france-capital: Paris -> Rome, 5 facts)
        >>> chooser.fact.answer
        'Paris'
    """

    def __init__(
        self, model: LoadedModel, facts: FactSet | Sequence[Fact] | None = None, *, value: Fact | str | None = None
    ) -> None:
        pool = load_facts() if facts is None else facts if isinstance(facts, FactSet) else FactSet(facts)
        if not len(pool):
            raise ValueError("FactChooser needs at least one fact, got none. Leave facts= out for the bundled ones.")
        super().__init__()
        self._model, self._facts = model.base, pool
        self._callbacks: list[Callable[[Fact], object]] = []
        self._tracing = threading.Lock()
        self._job: Job[Any] | None = None
        self._prompt: TracedPrompt | None = None
        self._filling = False
        self._forms = self._on_record()
        first = self._first() if value is None else value
        self._fact = pool[first] if isinstance(first, str) else first

        self._search = Text(description="Search", placeholder="words of a fact", continuous_update=True, style=_STYLE)
        self._relation = Dropdown(description="Relation", options=[ALL, *pool.relations], style=_STYLE)
        self._known_only = Checkbox(description="Known only", indent=False)
        self._ask = Button(description="Ask the model", tooltip="Measure which facts it knows; in the background")
        self._list = Select(description="Facts", rows=9, style=_STYLE, layout={"width": "auto"})
        self._count, self._shown = HTML(), HTML()
        self._form = FactForm(pool.relations, self._written)
        self._form.layout = _COLUMN
        filters = HBox([self._search, self._relation, self._known_only], layout=_WRAP)
        listed = VBox([filters, self._list, HBox([self._count, self._ask], layout=_WRAP)], layout=_COLUMN)
        columns = HBox([listed, self._form], layout=_WRAP)
        self._lay_out(HTML(markup.panel_title("Fact")), columns, self._alert, self._shown, self._code)
        for control in (self._search, self._relation, self._known_only):
            control.observe(lambda _: self._show_list(), names="value")
        self._list.observe(lambda change: self._picked(change["new"]), names="value")
        self._ask.on_click(lambda _: self.ask())
        self._choose(self._fact)

    def __repr__(self) -> str:
        return f"FactChooser({self._fact.id}: {self._fact.answer} -> {self._fact.target}, {len(self._facts)} facts)"

    @property
    def fact(self) -> Fact:
        """The chosen fact. Settable, with a fact (also one that is not in the list) or an id of the list."""
        return self._fact

    @fact.setter
    def fact(self, fact: Fact | str) -> None:
        chosen = self._facts[fact] if isinstance(fact, str) else fact
        if not isinstance(chosen, Fact):
            raise TypeError(f"fact must be a Fact or the id of one, got {type(fact).__name__}.")
        if chosen != self._fact:
            self._choose(chosen)
            self._announce()

    @property
    def prompt(self) -> TracedPrompt | None:
        """The traced text of the chosen fact, once it has been found; ``chooser.job.wait()`` waits for it."""
        return self._prompt

    @property
    def job(self) -> Job[Any] | None:
        """The last thing that ran in the background."""
        return self._job

    @property
    def code(self) -> str:
        """Python that makes the chosen fact and its traced text."""
        return f"{start_code(self._model)}{facts_code([self._fact])}prompt = wb.traced_prompt(model, fact)\n"

    def on_fact(self, callback: Callable[[Fact], object]) -> None:
        """Call ``callback(fact)`` whenever another fact is chosen, in the panel or from Python. What it raises is shown
        in the panel and kept on ``.error``."""
        self._callbacks.append(callback)

    def ask(self) -> Job[FactSet]:
        """Ask the model every listed fact that is not on record, in the background, and mark the list."""
        self._ask.disabled, self._ask.description = True, "Asking ..."
        model, facts = self._model, self._facts

        def done(job: Job[FactSet]) -> None:
            with self._lock:
                self._forms = self._on_record()
                self._ask.disabled, self._ask.description = False, "Ask the model"
                self._show_list()
                if job.state == "failed":
                    self._fail(job.error)

        self._job = Job(lambda _: known_facts(model, facts, form="any", progress=False), on_done=done)
        return self._job

    def _first(self) -> Fact:
        """What is chosen where nobody has chosen: see ``value``."""
        facts = self._facts
        if facts is not load_facts():
            return facts[0]
        known = next((f for f in facts if self._forms.get(f.id)), facts[FIRST])
        return known if self._forms.get(FIRST) == () else facts[FIRST]

    # The list

    def _on_record(self) -> dict[str, tuple[str, ...] | None]:
        """By fact id, the forms in which it is known; None where not all forms were asked yet."""
        table = known_table(self._model)
        forms_by_id: dict[str, tuple[str, ...] | None] = {}
        for fact in self._facts:
            entries = {form: table.get(fact_key(fact, form)) for form in FORMS}
            known = tuple(form for form, entry in entries.items() if entry and entry["known"])
            forms_by_id[fact.id] = None if None in entries.values() else known
        return forms_by_id

    def _matches(self, fact: Fact) -> bool:
        text = " ".join((fact.id, fact.relation, fact.subject, fact.answer, fact.target, fact.question)).casefold()
        return (
            all(word in text for word in self._search.value.casefold().split())
            and self._relation.value in (ALL, fact.relation)
            and (not self._known_only.value or bool(self._forms.get(fact.id)))
        )

    def _show_list(self) -> None:
        """Fill the list with what the filters leave; the chosen fact stays chosen when it is not among it."""
        with self._lock:
            matching = [f for f in self._facts if self._matches(f)]
            options = [
                (f"{f.subject}: {f.answer}  [{fact_views.mark(self._forms.get(f.id))}]  {f.relation}", f.id)
                for f in matching
            ]
            self._filling = True
            try:
                with self._list.hold_sync():
                    self._list.options = options
                    self._list.value = self._fact.id if self._fact in matching else None
            finally:
                self._filling = False
            known = sum(bool(self._forms.get(f.id)) for f in matching)
            words = f"{len(matching)} of {len(self._facts)} facts, {known} on record as known to {self._model.name}"
            self._count.value = markup.block(markup.text(words if matching else f"No fact matches. {words}"))
            self._ask.layout.display = None if None in self._forms.values() else "none"

    def _picked(self, fact_id: str | None) -> None:
        if fact_id is not None and not self._filling:
            self.fact = fact_id

    # A fact of one's own

    def _written(self) -> None:
        """Check the fact in the form, with the messages of ``Fact`` and ``check_first_tokens``, and choose it."""
        try:
            fact = self._form.fact
            same = [f for f in self._facts if f.id == fact.id and f != fact]
            fact = replace(fact, id=f"{fact.id}-new") if same else fact
            check_first_tokens(self._model, fact)
        except (ValueError, TypeError) as error:
            self._fail(error)
            return
        self._fail(None)
        self.fact = fact

    # The chosen fact

    def _choose(self, fact: Fact) -> None:
        with self._lock:
            self._fact, self._prompt = fact, None
            self._fail(None)
            if fact in self._facts and not self._matches(fact):
                self._search.value, self._relation.value, self._known_only.value = "", ALL, False
            if fact not in self._facts:
                self._form.fact = fact
            self._show_list()
            self._shown.value = self._about() + fact_views.READING
            self._show_code()
            if self._job is not None:
                self._job.cancel()
            self._job = Job(partial(self._trace, fact), on_done=partial(self._traced, fact))

    def _trace(self, fact: Fact, cancel: threading.Event) -> TracedPrompt | None:
        with self._tracing:  # one at a time; those that were overtaken are skipped
            return None if cancel.is_set() else traced_prompt(self._model, fact)

    def _traced(self, fact: Fact, job: Job[Any]) -> None:
        with self._lock:
            if fact is not self._fact:
                return
            self._prompt = prompt = job.result
            if prompt is not None:
                self._shown.value = self._about() + fact_views.traced(prompt)
            elif job.error is None:
                self._shown.value = self._about()
            else:
                self._shown.value = self._about() + fact_views.untraced(self._model, fact)
                self._fail(job.error)

    def _about(self) -> str:
        return fact_views.about(self._fact, fact_views.mark(self._forms.get(self._fact.id)))

    def _announce(self) -> None:
        for callback in self._callbacks:
            try:
                callback(self._fact)
            except Exception as error:  # would vanish in the log console
                self._fail(error)

    def _picture(self) -> bytes:
        fact = self._fact
        lines = [fact.question, f"{fact.answer} -> {fact.target}", "Run this cell to use the panel."]
        return text_card_png("FactChooser", lines)
