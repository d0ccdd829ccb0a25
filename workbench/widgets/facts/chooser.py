"""FactChooser: find a fact, or write one, and see how the model reads it.

The list's marks come from what is on record (``facts/known_table.py``): nothing is asked for them. How the model reads
the chosen fact (``reading.read``) takes a greedy answer of the base model, so it runs in the background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ipywidgets import HTML, VBox

from workbench.facts.known import known_facts, load_facts, with_bundled
from workbench.facts.known_table import FORMS, known_on_record
from workbench.language.prompts import check_first_tokens
from workbench.models.load import LoadedModel
from workbench.types import Contrast, Fact, FactSet, Form, TracedPrompt
from workbench.widgets.facts.fact_list import FactList
from workbench.widgets.facts.own import OwnFact, target_changed
from workbench.widgets.facts.pair import PromptPair
from workbench.widgets.facts.pair_reading import check_pair, fact_draft
from workbench.widgets.facts.preview import Preview
from workbench.widgets.facts.reading_panel import ReadingPanel
from workbench.widgets.shared import markup
from workbench.widgets.shared.code import fact_call, facts_code, start_code
from workbench.widgets.shared.contrast_words import traced_code, traced_lines
from workbench.widgets.shared.controls import ToggleButtons
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.layout import columns, show
from workbench.widgets.shared.text_card import text_card_png
from workbench.widgets.shared.voice import person

FIRST = "france-capital"
"""Of the bundled facts, the one that is shown first: it is the one of the notebooks and the pages."""
PURPOSE = "See where a fact lives, change it, check what is left."
PAIR = 2
"""The mode in which a pair of prompts is written."""
NO_ROLES = "These facts have no roles or splits: retained facts and controls come from the bundled facts."


class FactChooser(ReadingPanel):
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
        super().__init__(model.base)
        self._facts = pool
        self._callbacks: list[Callable[[Fact], object]] = []
        self._go_callbacks: list[Callable[[FactChooser, str], object]] = []
        self._contrast: Contrast | None = None
        self._leaving = False  # a mode for facts was chosen in the place of the pair: who hears it may show the fact
        self._pair_callbacks: list[Callable[[Contrast | None], object]] = []
        forms = self._on_record()
        first = self._first(forms) if value is None else value
        self._fact = pool[first] if isinstance(first, str) else first

        self._list = FactList(
            pool, forms, model_name=model.base.name, lock=self._lock, on_choose=self._choose_id, on_ask=self.ask
        )
        self._own = OwnFact(self._model, pool, self._list.relations, on_use=self._use)
        first_tab = "Bundled fact" if pool is load_facts() else "Listed fact"
        self._mode = ToggleButtons(
            options=[first_tab, "My fact", "Prompt pair"],
            tooltips=["From the list", "Written here", "Two prompts of your own that differ in what you ask about"],
        )
        self._mode.style.button_width = "auto"
        self._mode.observe(lambda _: self._mode_chosen(), names="index")
        self._preview = Preview(
            on_form=self._form_chosen, on_target=self._change_target, on_ask=self._ask_one, on_go=self._go
        )
        self.pair = PromptPair(self._model, self._lock, on_use=self._pair_used, on_go=self._go)
        """The form of a pair of prompts, and how the model reads them."""
        left = VBox([self._mode, self._list, self._own.form, self.pair])
        right = VBox([self._alert, self._preview, self.pair.preview])
        said = "" if with_bundled(pool) is pool else markup.hint(NO_ROLES)
        body = columns(left, right, widths=("9 1 440px", "11 1 480px"))
        self._lay_out(HTML(markup.panel_title("Fact", PURPOSE) + said), body, self._code)
        self._show_mode()
        self._choose(self._fact)

    def __repr__(self) -> str:
        return f"FactChooser({self._fact.id}: {self._fact.answer} -> {self._fact.target}, {len(self._facts)} facts)"

    @property
    def model(self) -> LoadedModel:
        """The base model that reads the facts."""
        return self._model

    @property
    def fact(self) -> Fact:
        """The chosen fact. Settable, with a fact (also one that is not in the list) or an id of the list."""
        return self._fact

    @fact.setter
    def fact(self, fact: Fact | str) -> None:
        chosen = self._facts[fact] if isinstance(fact, str) else fact
        if not isinstance(chosen, Fact):
            raise TypeError(f"fact must be a Fact or the id of one, got {type(fact).__name__}.")
        if chosen != self._fact or self._contrast is not None:
            self._choose(chosen)
            self._announce()

    @property
    def contrast(self) -> Contrast | None:
        """The pair of prompts that is in use; None while a fact is. Settable; None goes back to the fact."""
        return self._contrast

    @contrast.setter
    def contrast(self, contrast: Contrast | None) -> None:
        if contrast is None:
            self.fact = self._fact
            return
        if contrast != self._contrast:
            check_pair(self._model, contrast)
            self.pair.show(contrast)
            self._pair_used(contrast)

    @property
    def form(self) -> Form | None:
        """The form in which the fact is asked: ``"chat"``, ``"cloze"`` (a raw prompt), or None for the first in which
        the model says the answer. Settable."""
        return self._form

    @form.setter
    def form(self, form: Form | None) -> None:
        if form not in (None, *FORMS):
            raise ValueError(f"form must be one of {list(FORMS)} or None, got {form!r}.")
        if form != self._form:
            self._form, self._partner = form, None
            self._read(self._fact)
            self._announce()
            if self._swaps:  # another form is another place, where the model may say something else
                self._find_partner(self._fact)

    @property
    def partner(self) -> Fact | None:
        """The fact to swap with that was given for a fact of one's own; None for one of the pool, or for noise."""
        return self._partner

    @property
    def prompt(self) -> TracedPrompt | None:
        """The traced text of the chosen fact, once it has been found; ``chooser.job.wait()`` waits for it."""
        return None if self._reading is None else self._reading.prompt

    @property
    def job(self) -> Job[Any] | None:
        """The last thing that ran in the background."""
        return self._job

    @property
    def code(self) -> str:
        """Python that makes the chosen fact and its traced text, and the fact to swap with where one was given; or the
        pair of prompts."""
        if self._contrast is not None:
            return traced_code(self._model, [self._contrast], None, "chooser")
        form = f", form={self._form!r}" if self._form is not None else ""
        lines = f"{start_code(self._model)}{facts_code([self._fact])}prompt = wb.traced_prompt(model, fact{form})\n"
        return lines if self._partner is None else f"{lines}partner = {fact_call(self._partner)}\n"

    def on_fact(self, callback: Callable[[Fact], object]) -> None:
        """Call ``callback(fact)`` whenever another fact is chosen, or the same one in another ``form`` or with another
        ``partner``, in the panel or from Python. Not while a pair of prompts is in use: a form or a partner of then is
        there when ``on_contrast`` says that it was left. What it raises is shown in the panel and kept on ``.error``.
        """
        self._callbacks.append(callback)

    def on_contrast(self, callback: Callable[[Contrast | None], object]) -> None:
        """Call ``callback(contrast)`` whenever another pair of prompts is used, and with None when a mode for facts is
        chosen again. What it raises is shown in the panel and kept on ``.error``."""
        self._pair_callbacks.append(callback)

    def on_go(self, callback: Callable[[FactChooser, str], object]) -> None:
        """Show the button "Where does it live?", and call ``callback(chooser, "picker")`` when it is pressed. What it
        raises is shown in the panel and kept on ``.error``."""
        self._go_callbacks.append(callback)
        self._preview.can_go = self.pair.can_go = True

    def show(self, fact: Fact, partner: Fact | None = None) -> None:
        """Choose the fact of a session that was opened: the form holds it, or is empty, and no earlier draft. Where the
        same fact is shown because a pair of prompts was left for a mode, that mode stays, and so does what is written.

        Args:
            fact: The fact.
            partner: The fact that its maps are a swap with, where it is one of one's own.
        """
        stays = self._leaving and fact == self._fact
        if not stays:
            self._own.form.clear()
            if fact == self._fact:
                self._choose(fact)
            else:
                self.fact = fact
        if self._listed(fact) is None and (stays or partner is not None):
            if not stays or self._own.holds(fact):
                self._own.form.suggest(*(("",) if partner is None else (partner.subject, partner.answer)))
            with self._lock:
                self._partner, self._swaps = partner, partner is not None
                self._show_code()

    def draft_fact(self) -> None:
        """Begin a fact of one's own with what the pair of prompts says, in the mode "My fact": an edit needs one. What
        is missing is left to be written."""
        self._mode.index = 1  # before the draft: who hears that the pair was left may show the fact
        if self.pair.contrast is not None:
            self._own.form.draft(fact_draft(self._model, self.pair.contrast))

    def ask(self) -> Job[FactSet]:
        """Ask the model every listed fact that is not on record, in the background, and mark the list."""
        self._list.asking(True)
        return self._start_asking(self._facts, lambda: self._list.asking(False))

    # What is chosen

    def _first(self, forms: dict[str, Any]) -> Fact:
        """What is chosen where nobody has chosen: see ``value``."""
        facts = self._facts
        if facts is not load_facts():
            return facts[0]
        known = next((f for f in facts if forms.get(f.id)), facts[FIRST])
        return known if forms.get(FIRST) == () else facts[FIRST]

    def _choose_id(self, fact_id: str) -> None:
        self.fact = fact_id

    def _choose(self, fact: Fact) -> None:
        with self._lock:
            self._fact, self._partner, self._swaps, self._contrast = fact, None, False, None
            listed = self._listed(fact)
            self._list.choose(listed)
            if listed is None and not self._own.holds(fact):
                self._own.form.fact = fact
            self._mode.index = int(listed is None)
            self._read(fact)

    def _listed(self, fact: Fact) -> Fact | None:
        """The fact of the list that it is, or that it is with another target."""
        if fact in self._facts:
            return fact
        return next(
            (f for f in self._facts if f.subject == fact.subject and target_changed(f, fact.target) == fact), None
        )

    def _change_target(self, target: str) -> str:
        """Choose the same fact with another target; returns why not, in words."""
        listed = self._listed(self._fact)
        try:
            changed = replace(self._fact, target=target, target_aliases=())
            if listed is not None:
                changed = listed if target == listed.target else target_changed(listed, target)
            check_first_tokens(self._model, changed)
        except ValueError as error:
            return person(error)
        self.fact = changed
        return ""

    def _use(self) -> None:
        """Check the fact in the form and choose it; what does not fit is said at its field."""
        fact, problems = self._own.check(self._form)
        if fact is None:
            self._error = next(iter(problems.values()))
            self._message = "\n".join(map(person, problems.values()))
            return
        if self._own.holds(self._fact):
            fact = self._fact  # with what the form has no field for
            self._choose(fact)
        else:
            self.fact = fact
        if fact is self._fact:  # not refused by a callback
            self._find_partner(fact)

    def _show_mode(self) -> None:
        for mode, left in enumerate((self._list, self._own.form, self.pair)):
            show(left, self._mode.index == mode)
        show(self._preview, self._mode.index != PAIR)
        show(self.pair.preview, self._mode.index == PAIR)

    def _mode_chosen(self) -> None:
        """The tabs are about the pair that is in use while its mode is chosen, and about the fact otherwise."""
        self._show_mode()
        chosen = self.pair.contrast if self._mode.index == PAIR else None
        if chosen == self._contrast:
            return
        self._leaving = chosen is None
        try:
            self._take_pair(chosen)
        finally:
            self._leaving = False

    def _pair_used(self, contrast: Contrast) -> None:
        self._contrast = None  # also where it is the one that was in use before
        if self._mode.index == PAIR:
            self._take_pair(contrast)
        else:
            self._mode.index = PAIR

    def _take_pair(self, contrast: Contrast | None) -> None:
        self._contrast = contrast
        self._show_code()
        for callback in self._pair_callbacks:
            self._call(callback, contrast)

    def _form_chosen(self, form: Form) -> None:
        self.form = form

    def _go(self) -> None:
        for callback in self._go_callbacks:
            self._call(callback, self, "picker")

    def _announce(self) -> None:
        if self._contrast is not None:
            return  # the tabs are about the pair; ``on_contrast`` says when it is left
        for callback in self._callbacks:
            self._call(callback, self._fact)

    def _call(self, callback: Callable[..., object], *given: object) -> None:
        try:
            callback(*given)
        except Exception as error:  # would vanish in the log console
            self._fail(error)

    # What it knows

    def _on_record(self) -> dict[str, tuple[str, ...] | None]:
        """By fact id, the forms in which it is known; None where not all forms were asked yet."""
        return {**known_on_record(self._model, self._facts)}

    def _forms_of(self, fact: Fact) -> tuple[str, ...] | None:
        """The same of one fact."""
        if fact in self._facts:
            return self._list.forms[fact.id]
        return known_on_record(self._model, [fact])[fact.id]

    def _ask_one(self) -> None:
        self._preview.asking(True)
        self._start_asking([self._fact], lambda: self._preview.asking(False))

    def _start_asking(self, facts: Sequence[Fact], ended: Callable[[], object]) -> Job[FactSet]:
        model = self._model

        def done(job: Job[FactSet]) -> None:
            with self._lock:
                self._list.forms = self._on_record()
                ended()
                self._list.refresh()
                self._preview.fact(self._fact, self._forms_of(self._fact))
                if job.state == "failed":
                    self._fail(job.error)

        job = Job(lambda _: known_facts(model, facts, form="any", progress=False), on_done=done)
        self._job = job
        return job

    def _picture(self) -> bytes:
        lines = traced_lines(self._contrast or self._fact)
        return text_card_png("FactChooser", [*lines, "Run this cell to use the panel."])
