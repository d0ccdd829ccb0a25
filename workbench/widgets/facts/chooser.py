"""FactChooser: find a fact, or write one, and see how the model reads it.

The list's marks come from what is on record (``facts.known_table``): nothing is computed for them. The traced text of
the chosen fact is ``prompts.traced_prompt``; it takes a greedy answer of the base model, so it runs in the background.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ipywidgets import HTML, Button, Checkbox, Combobox, HBox, Text, VBox

from workbench.facts.known import FORMS, fact_key, known_facts, known_table, load_facts
from workbench.language.prompts import check_first_tokens, split_prompt, traced_prompt
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet, TracedPrompt
from workbench.widgets.shared import markup
from workbench.widgets.shared.code import facts_code, start_code
from workbench.widgets.shared.connection import Connection
from workbench.widgets.shared.controls import Dropdown, Select
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.panel import Panel
from workbench.widgets.shared.text_card import text_card_png

ALL = "all relations"
FIELDS = {
    "subject": ("Subject", "France"),
    "prompt": ("Prompt", "The capital of France is"),
    "answer": ("Answer", "Paris"),
    "target": ("Target", "Rome"),
    "question": ("Question", "optional: What is the capital of France?"),
    "relation": ("Relation", "optional: country-capital"),
}
_WRAP = {"flex_flow": "row wrap", "align_items": "flex-start"}
_COLUMN = {"flex": "1 1 400px", "min_width": "0", "max_width": "720px", "margin": "0 16px 0 0"}
_STYLE = {"description_width": "72px"}


def default_question(prompt: str) -> str:
    """The chat form of a fact that was written without one."""
    return f"Complete the sentence: {prompt}"


class FactChooser(Panel):
    """Choose a fact from a searchable list, or write a new one.

    Args:
        model: The model whose knowledge is marked and that is traced; for an edited one, its base.
        facts: The facts to choose from; the bundled ones by default.
        value: The first choice, a fact or its id; None for the first fact that is on record as known.

    Raises:
        KeyError: ``value`` is an id that the facts do not have.
        ValueError: No facts.
    """

    def __init__(
        self, model: LoadedModel, facts: FactSet | Sequence[Fact] | None = None, *, value: Fact | str | None = None
    ) -> None:
        pool = load_facts() if facts is None else facts if isinstance(facts, FactSet) else FactSet(facts)
        if not len(pool):
            raise ValueError("FactChooser needs at least one fact, got none. Leave facts= out for the bundled ones.")
        self._model, self._facts = model.base, pool
        self._callbacks: list[Callable[[Fact], object]] = []
        self._lock, self._tracing = threading.RLock(), threading.Lock()
        self._job: Job[Any] | None = None
        self._error: BaseException | None = None
        self._prompt: TracedPrompt | None = None
        self._filling = False
        self._forms = self._on_record()
        first = value if value is not None else next((f for f in pool if self._forms.get(f.id)), pool[0])
        self._fact = pool[first] if isinstance(first, str) else first

        self._search = Text(description="Search", placeholder="words of a fact", continuous_update=True, style=_STYLE)
        self._relation = Dropdown(description="Relation", options=[ALL, *pool.relations], style=_STYLE)
        self._known_only = Checkbox(description="Known only", indent=False)
        self._ask = Button(description="Ask the model", tooltip="Measure which facts it knows; in the background")
        self._list = Select(description="Facts", rows=9, style=_STYLE, layout={"width": "auto"})
        self._count, self._alert, self._shown, self._code = (HTML() for _ in range(4))
        self._inputs: dict[str, Any] = {
            name: (Combobox if name == "relation" else Text)(
                description=label, placeholder=example, style=_STYLE, layout={"width": "auto"}
            )
            for name, (label, example) in FIELDS.items()
        }
        self._inputs["relation"].options = tuple(filter(None, pool.relations))
        self._use = Button(description="Use this fact", tooltip="Check the fact written here and choose it")
        form = VBox([HTML(markup.title("Or write a new one")), *self._inputs.values(), self._use])
        form.layout = _COLUMN
        super().__init__(
            [
                Connection(),
                HTML(markup.STYLE + markup.title("Fact")),
                HBox(
                    [
                        VBox(
                            [
                                HBox([self._search, self._relation, self._known_only], layout=_WRAP),
                                self._list,
                                HBox([self._count, self._ask], layout=_WRAP),
                            ],
                            layout=_COLUMN,
                        ),
                        form,
                    ],
                    layout=_WRAP,
                ),
                self._alert,
                self._shown,
                self._code,
            ]
        )
        self.add_class("wb-panel")
        for control in (self._search, self._relation, self._known_only):
            control.observe(lambda _: self._show_list(), names="value")
        self._list.observe(lambda change: self._picked(change["new"]), names="value")
        self._use.on_click(lambda _: self._written())
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
        found = self._facts[fact] if isinstance(fact, str) else fact
        if not isinstance(found, Fact):
            raise TypeError(f"fact must be a Fact or the id of one, got {type(fact).__name__}.")
        if found != self._fact:
            self._choose(found)
            self._tell()

    @property
    def prompt(self) -> TracedPrompt | None:
        """The traced text of the chosen fact, once it has been found; ``chooser.job.wait()`` waits for it."""
        return self._prompt

    @property
    def job(self) -> Job[Any] | None:
        """The last thing that ran in the background."""
        return self._job

    @property
    def error(self) -> BaseException | None:
        """What is wrong with the fact written or chosen last, else None."""
        return self._error

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

    # The list

    def _on_record(self) -> dict[str, tuple[str, ...] | None]:
        """By fact id, the forms in which it is known; None where not all forms were asked yet."""
        table = known_table(self._model)
        found: dict[str, tuple[str, ...] | None] = {}
        for fact in self._facts:
            entries = {form: table.get(fact_key(fact, form)) for form in FORMS}
            known = tuple(form for form, entry in entries.items() if entry and entry["known"])
            found[fact.id] = None if None in entries.values() else known
        return found

    def _mark(self, fact: Fact) -> str:
        forms = self._forms.get(fact.id)
        if forms is None:
            return "? not asked"
        return f"✓ known: {' + '.join(forms)}" if forms else "✗ not known"

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
            found = [f for f in self._facts if self._matches(f)]
            options = [(f"{f.subject}: {f.answer}  [{self._mark(f)}]  {f.relation}", f.id) for f in found]
            self._filling = True
            try:
                with self._list.hold_sync():
                    self._list.options = options
                    self._list.value = self._fact.id if self._fact in found else None
            finally:
                self._filling = False
            known = sum(bool(self._forms.get(f.id)) for f in found)
            words = f"{len(found)} of {len(self._facts)} facts, {known} on record as known to {self._model.name}"
            self._count.value = markup.block(markup.text(words if found else f"No fact matches. {words}"))
            self._ask.layout.display = None if None in self._forms.values() else "none"

    def _picked(self, fact_id: str | None) -> None:
        if fact_id is not None and not self._filling:
            self.fact = fact_id

    # A fact of one's own

    def _written(self) -> None:
        """Check the fact in the form, with the messages of ``Fact`` and ``check_first_tokens``, and choose it."""
        given = {name: box.value for name, box in self._inputs.items()}
        if not given["question"].strip() and given["prompt"].strip():
            given["question"] = default_question(given["prompt"])
        try:
            fact = Fact(**given)
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
            self._fact, self._prompt, self._error = fact, None, None
            if fact in self._facts and not self._matches(fact):
                self._search.value, self._relation.value, self._known_only.value = "", ALL, False
            if fact not in self._facts:
                for name, box in self._inputs.items():
                    box.value = getattr(fact, name)
            self._show_list()
            self._alert.value = ""
            self._shown.value = self._about() + markup.block(markup.text("Reading the model's own answer ..."))
            self._code.value = markup.code(self.code)
            model, lock = self._model, self._tracing

            def trace(cancel: threading.Event) -> TracedPrompt | None:
                with lock:  # one at a time; those that were overtaken are skipped
                    return None if cancel.is_set() else traced_prompt(model, fact)

            if self._job is not None:
                self._job.cancel()
            self._job = Job(trace, on_done=lambda job: self._traced(fact, job))

    def _traced(self, fact: Fact, job: Job[Any]) -> None:
        with self._lock:
            if fact is not self._fact:
                return
            self._prompt = prompt = job.result
            if prompt is None:
                self._shown.value = self._about()
                if job.error is not None:
                    self._shown.value += self._untraced()
                    self._fail(job.error)
                return
            said = f"{prompt.form} form; before it the model itself says {prompt.prefix!r}" * bool(prompt.prefix)
            note = f"Traced token: {prompt.answer_token!r} ({said or prompt.form + ' form'})."
            strip = markup.tokens((*prompt.tokens, prompt.answer_token), prompt.subject, len(prompt.tokens))
            self._shown.value = self._about() + markup.block(markup.text(note)) + strip

    def _untraced(self) -> str:
        """The prompt in both forms as it is split, where no token of it can be marked as traced."""
        parts = [
            markup.block(markup.text("No token is traced: there is no place to trace. The prompt as it is split:"))
        ]
        for form in FORMS:
            tokens, subject = split_prompt(self._model, self._fact, form)
            parts += [markup.block(markup.text(f"{form} form")), markup.tokens(tokens, subject)]
        return "".join(parts)

    def _about(self) -> str:
        fact = self._fact
        mark = self._mark(fact)
        return markup.title(f"{fact.prompt} {fact.answer}", f"to become {fact.target}; asked: {fact.question}; {mark}")

    def _tell(self) -> None:
        for callback in self._callbacks:
            try:
                callback(self._fact)
            except Exception as error:  # would vanish in the log console
                self._fail(error)

    def _fail(self, error: BaseException | None) -> None:
        self._error = error
        self._alert.value = markup.alert(f"{type(error).__name__}: {error}" if error else None)

    def _picture(self) -> bytes:
        fact = self._fact
        lines = [fact.question, f"{fact.answer} -> {fact.target}", "Run this cell to use the panel."]
        return text_card_png("FactChooser", lines)
