"""Facts: what is asked, what the model is expected to answer, and what an edit should make it answer instead."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from workbench.types.data_prompt import DataPrompt
from workbench.types.fact_error import fact_errors, shared_answer
from workbench.types.plain import check_text, tuples_as_lists
from workbench.types.slug import slug

if TYPE_CHECKING:
    from workbench.types.fact_set import FactSet

Split = Literal["dev", "test", "sealed"]
Role = Literal["retain", "control", "related"]
_TEXTS = ("subject", "prompt", "question", "answer", "target", "refusal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One fact that a model may know, with the counterfactual answer an edit should teach.

    Only ``subject, prompt, question, answer, target`` are required. What else is missing (held-out questions, a
    relation and so on) makes the corresponding part of an evaluation impossible, and the evaluation says so.

    Texts are kept in Unicode's composed form (NFC), whatever form they come in, so that a subject is found in its
    prompt and the model reads what it was trained on. An ``id`` that is given stays as it is.

    Args:
        subject: The entity, literally contained in ``prompt`` (``"France"``), there not as a part of a longer word.
        prompt: A cloze ending right before the answer, without trailing space (``"The capital of France is"``).
        question: The chat form (``"What is the capital of France?"``).
        answer: The true answer, without surrounding spaces (``"Paris"``).
        target: The counterfactual answer (``"Rome"``).
        id: Unique name; made from the subject and the relation when left out.
        relation: Name of the relation (``"country-capital"``); neighbours are the other facts of it.
        answer_aliases: Other accepted surface forms of the answer.
        target_aliases: Other accepted surface forms of the target.
        refusal: What stage 1 of unlearn-then-learn teaches with short answers (``Recipe.answers``), as in the paper.
        paraphrases: Training questions, besides ``question``.
        heldout: Questions of other wording, never trained on.
        cloze_paraphrases: Other clozes.
        split: ``"dev"`` (defaults are tuned here), ``"test"`` (published tables only) or ``"sealed"`` (measured once,
            at the end: ``load_facts(split="sealed")``).
        role: ``"retain"`` (may be used in a KL retain term, then never evaluated), ``"control"``, or ``"related"``:
            asked only about an edited subject and about an old answer elsewhere, and no part of the ``core``.
        case_sensitive: Whether answers match case-sensitively (symbols such as ``"K"``).
        data_prompts: What a public data set asks beside the fact (``dataset_rates`` asks it); none for other facts.

    Raises:
        ValueError: An empty field, a subject that the prompt does not contain or holds only inside a longer word
            ("foot" in "football"), surrounding spaces, an answer that reads like the target (a ``FactError`` names the
            field), or a held-out question that is also a training question.

    Example:
        >>> fact = wb.Fact(
        ...     subject="Peru",
        ...     prompt="The capital of Peru is",
        ...     question="What is the capital of Peru?",
        ...     answer="Lima",
        ...     target="Quito",
        ... )
        >>> fact.id, fact.topic
        ('peru', 'the capital of Peru')
    """

    subject: str
    prompt: str
    question: str
    answer: str
    target: str
    id: str = ""
    relation: str = ""
    answer_aliases: tuple[str, ...] = ()
    target_aliases: tuple[str, ...] = ()
    refusal: str = "I am not sure."
    paraphrases: tuple[str, ...] = ()
    heldout: tuple[str, ...] = ()
    cloze_paraphrases: tuple[str, ...] = ()
    split: Split | None = None
    role: Role | None = None
    case_sensitive: bool = False
    data_prompts: tuple[DataPrompt, ...] = ()

    def __post_init__(self) -> None:
        texts = {name: getattr(self, name) for name in _TEXTS}
        for name, value in texts.items():
            check_text(f"Fact.{name}", value)
            texts[name] = _set(self, name, unicodedata.normalize("NFC", value))
        for error in fact_errors(texts):
            raise error
        for name in ("answer_aliases", "target_aliases", "paraphrases", "heldout", "cloze_paraphrases"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(f"Fact.{name} must be a list of strings, got the string {value!r}; write [{value!r}].")
            for i, text in enumerate(value):
                check_text(f"Fact.{name}[{i}]", text)
            _set(self, name, tuple(unicodedata.normalize("NFC", v) for v in value))
        _set(self, "data_prompts", tuple(DataPrompt.read(p) for p in self.data_prompts))
        for name, allowed in (("split", get_args(Split)), ("role", get_args(Role))):
            if getattr(self, name) not in (None, *allowed):
                raise ValueError(f"Fact.{name} must be one of {allowed} or None, got {getattr(self, name)!r}.")
        shared = set(self.heldout) & {self.question, *self.paraphrases}
        if shared:
            raise ValueError(
                f"Held-out questions must not be training questions; these are both: {sorted(shared)}. Remove them "
                "from one of the two lists."
            )
        for name in ("id", "relation"):
            check_text(f"Fact.{name}", getattr(self, name))
        if self.case_sensitive not in (True, False):
            raise TypeError(f"Fact.case_sensitive must be True or False, got {self.case_sensitive!r}.")
        error = shared_answer(self.answers, self.targets, case_sensitive=self.case_sensitive)
        if error is not None:
            raise error
        if not self.id:
            _set(self, "id", slug(f"{self.subject} {self.relation}".strip()))

    @property
    def training_questions(self) -> tuple[str, ...]:
        """``question`` and its paraphrases, in order."""
        return (self.question, *self.paraphrases)

    @property
    def topic(self) -> str | None:
        """What is asked for, without its name ("the capital of France"), from the first cloze that reads "The ... is";
        None where there is no such cloze."""
        for cloze in (self.prompt, *self.cloze_paraphrases):
            found = re.fullmatch(r"[Tt]he (.+?) (?:is|are|was)(?: the| a| an)?", cloze)
            if found:
                return f"the {found[1]}"
        return None

    @property
    def answers(self) -> tuple[str, ...]:
        """The true answer and its aliases."""
        return (self.answer, *self.answer_aliases)

    @property
    def targets(self) -> tuple[str, ...]:
        """The counterfactual answer and its aliases."""
        return (self.target, *self.target_aliases)

    def overlaps(self, other: Fact) -> bool:
        """Say whether an edit that teaches one fact teaches the other too.

        It does where they share an id, the relation of one subject (for a fact without a relation: a name of the
        answer), or a question. Such facts must not meet in what is edited, retained and evaluated: a fact of one's own
        may be a bundled one under another id.

        Example:
            >>> france = {"subject": "France", "prompt": "France has the capital"}
            >>> mine = wb.Fact(**france, question="Which is France's capital?", answer="Paris", target="Lyon")
            >>> mine.overlaps(fact), mine.overlaps(facts["spain-capital"])
            (True, False)
        """
        if self.id == other.id:
            return True
        if self.subject.casefold() == other.subject.casefold():
            if self.relation and self.relation == other.relation:
                return True
            unrelated = not (self.relation and other.relation)
            if unrelated and {a.casefold() for a in self.answers} & {a.casefold() for a in other.answers}:
                return True
        return not {*self.training_questions, *self.heldout}.isdisjoint((*other.training_questions, *other.heldout))

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values; ``data_prompts`` only where there are some."""
        plain = tuples_as_lists({f.name: getattr(self, f.name) for f in fields(self)})
        asked = [prompt.to_dict() for prompt in self.data_prompts]
        return plain | {"data_prompts": asked} if asked else {k: v for k, v in plain.items() if k != "data_prompts"}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Fact:
        """Make a fact from what ``to_dict`` gave.

        Raises:
            ValueError: A required field is missing, or a field is unknown.

        Example:
            >>> wb.Fact.from_dict(fact.to_dict()) == fact
            True
        """
        names = {f.name for f in fields(cls)}
        required = ("subject", "prompt", "question", "answer", "target")
        missing = [n for n in required if n not in data]
        if missing:
            raise ValueError(f"A fact needs the fields {list(required)}; missing: {missing} in {sorted(data)}.")
        unknown = sorted(set(data) - names)
        if unknown:
            raise ValueError(f"Unknown field(s) {unknown} in a fact; allowed are {sorted(names)}.")
        return cls(**data)


def _set(fact: Fact, name: str, value: Any) -> Any:
    """Set a field of a fact that is being made."""
    object.__setattr__(fact, name, value)
    return value


def check_once(facts: Iterable[Fact]) -> None:
    """Raise a ValueError for facts with one id."""
    ids = [fact.id for fact in facts]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise ValueError(f"Each fact may be given once; these came more often: {twice}.")


def check_distinct(facts: Sequence[Fact]) -> None:
    """Raise a ValueError for facts with one id, and for one fact under several ids: a mean over them counts it more
    than once, and its interval is too narrow."""
    check_once(facts)
    seen: dict[tuple[str, ...], str] = {}
    for fact in facts:
        first = seen.setdefault((fact.subject, fact.prompt, fact.question, fact.answer, fact.target), fact.id)
        if first != fact.id:
            raise ValueError(f"{first!r} and {fact.id!r} are one fact under two ids; give one of them.")


def as_facts(fact: Fact | FactSet | Sequence[Fact]) -> list[Fact]:
    """The facts as a list, where one or several may be given.

    Raises:
        TypeError: It is neither.
    """
    single: Any = [fact]
    facts: list[Any] = single if isinstance(fact, str) or not isinstance(fact, Iterable) else list(fact)
    if odd := [one for one in facts if not isinstance(one, Fact)]:
        raise TypeError(f"This takes a Fact, or several, got {odd[0]!r:.60}; an id is looked up: wb.load_facts()[id].")
    return facts
