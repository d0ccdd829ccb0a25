"""A fact of one's own: the form with the checks of all its fields, and another target for a fact of the list."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from workbench.language.prompts import NoSwapPartner, check_first_tokens
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet, Form, TracedPrompt, slug
from workbench.types.fact_error import fact_errors
from workbench.widgets.facts.form import FactForm
from workbench.widgets.facts.partner import check_subject, find_partner, fitting_facts, suggested_partner
from workbench.widgets.shared.voice import person, quoted


def target_changed(fact: Fact, target: str) -> Fact:
    """A fact with another target, and so with an id of its own.

    Raises:
        FactError: The target is empty, or is the answer.

    Example:
        >>> from workbench.widgets.facts.own import target_changed
        >>> target_changed(fact, "Berlin").id
        'france-capital-to-berlin'
    """
    name = slug(target)
    if not target.isascii():  # of two targets a slug may keep the same
        name = f"{name}-{hashlib.sha256(target.encode('utf-8', 'replace')).hexdigest()[:6]}"
    return replace(fact, id=f"{fact.id}-to-{name}", target=target, target_aliases=())


class OwnFact:
    """The form of a fact of one's own, and what it needs of a model.

    Args:
        model: A base model.
        pool: Where subjects to swap with are suggested from.
        relations: Offered for the relation.
        on_use: Called when the fact in the form is to be used.
    """

    def __init__(
        self, model: LoadedModel, pool: FactSet, relations: Sequence[str], *, on_use: Callable[[], object]
    ) -> None:
        self._model, self._pool = model, pool
        self.form = FactForm(relations, on_use, self._suggest)

    @property
    def swap(self) -> tuple[str, str]:
        """The subject to swap with, and its answer where a person wrote one; empty where there is none."""
        return self.form.texts["swap"], self.form.answer_given

    def holds(self, fact: Fact) -> bool:
        """Whether the form says this fact."""
        texts = self.form.texts
        return all(getattr(fact, name) == text for name, text in texts.items() if not name.startswith("swap"))

    def check(self, form: Form | None) -> tuple[Fact | None, dict[str, ValueError]]:
        """The fact in the form, or by field what does not fit, which is said there too.

        Args:
            form: The form of the prompt in which a subject to swap with must fit; None: in one of them.
        """
        texts = self.form.texts
        problems: dict[str, ValueError] = {}
        # A question is made of the prompt where there is none: then the prompt is what is empty.
        for error in fact_errors({name: texts[name] for name in ("subject", "prompt", "answer", "target")}):
            problems.setdefault(error.field, error)
        if "answer" not in problems and "target" not in problems:
            try:
                check_first_tokens(self._model, _answers_alone(texts))
            except ValueError as error:
                problems["target"] = error
        fact = None if problems else self._with_own_id(self.form.fact)
        if fact is not None and texts["swap"]:
            try:
                check_subject(self._model, fact, texts["swap"], form)
            except ValueError as error:
                problems["swap"] = error
        self.form.tell({name: person(error) for name, error in problems.items()})
        return (None if problems else fact), problems

    def partner(self, fact: Fact, prompt: TracedPrompt, subject: str, answer: str) -> Fact | None:
        """The fact to swap with, once the fact's prompt is read; None where none fits, which is said at the field.

        In the place of a suggested subject that does not fit another may be taken.
        """
        if self.form.suggests and not answer:
            partner = suggested_partner(self._model, fact, prompt, self._pool)
            self.form.suggest(*((partner.subject, partner.answer) if partner is not None else ("",)))
            return partner
        try:
            partner = find_partner(self._model, fact, prompt, subject, answer or None)
        except ValueError as error:
            self._refuse(error, subject, answer)
            return None
        if not answer:
            self.form.found(partner.answer)
        return partner

    def _refuse(self, error: ValueError, subject: str, answer: str) -> None:
        if isinstance(error, NoSwapPartner):
            self.form.tell({"swap": person(error)})
        elif answer:
            words = (
                f"{quoted(answer)} begins as the answer does, so the two cannot be told apart. Write another answer."
            )
            self.form.tell({"swap_answer": words})
        else:
            words = f"For {quoted(subject)} the model says the same, or nothing. Take another, or write its answer."
            self.form.tell({"swap": words})

    def _suggest(self) -> None:
        """Suggest a subject to swap with for what is written so far."""
        if not self.form.suggests:
            return
        texts = self.form.texts
        subject = ""
        if not [*fact_errors({name: texts[name] for name in ("subject", "prompt", "answer")})]:
            # The target changes nothing here: any that is not the answer.
            fact = Fact(
                subject=texts["subject"],
                prompt=texts["prompt"],
                question=texts["question"],
                answer=texts["answer"],
                target=f"not {texts['answer']}",
                relation=texts["relation"],
            )
            near = next(fitting_facts(self._model, fact, self._pool), None)
            subject = near.subject if near is not None else ""
        if subject != self.form.texts["swap"]:
            self.form.suggest(subject)

    def _with_own_id(self, fact: Fact) -> Fact:
        taken = fact.id in self._pool and self._pool[fact.id] != fact
        return replace(fact, id=f"{fact.id}-new") if taken else fact


def _answers_alone(texts: Mapping[str, str]) -> Fact:
    """A fact of which only answer and target matter."""
    name = slug(f"{texts['subject']} {texts['relation']}".strip())
    return Fact(id=name, subject="it", prompt="it", question="it", answer=texts["answer"], target=texts["target"])
