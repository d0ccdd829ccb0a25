"""Facts about invented subjects: what a model never knew."""

from __future__ import annotations

from typing import Any

from workbench.facts.known import known_facts
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet

INVENTED = (
    *("Velmora", "Tarnquil", "Osbrenna", "Quillhaven"),
    *("Draskovia", "Melindor", "Ostravane", "Pellundra", "Corvathi", "Yssandor", "Brimlock", "Fenwarra"),
)
"""Names of nothing."""


def never_taught(fact: Fact) -> Fact | None:
    """The fact with an invented subject, or None where the question does not name the subject."""
    return next(iter(invented(fact)), None)


def invented(fact: Fact) -> list[Fact]:
    """The fact with each invented subject that its texts do not name; none where the question does not name the
    subject."""
    texts = " ".join((fact.prompt, fact.question, *fact.answers, *fact.targets))
    if fact.subject not in fact.question:
        return []
    return [_renamed(fact, name, i) for i, name in enumerate(n for n in INVENTED if n not in texts)]


def strangers(model: LoadedModel, fact: Fact, most: int) -> list[Fact]:
    """Facts about invented subjects of which the model does not say the fact's answer.

    Args:
        model: The base model.
        fact: What is said of them.
        most: At most so many.
    """
    made = invented(fact) if most else []
    said = known_facts(model, FactSet(made), form="any", progress=False).ids if made else ()
    return [one for one in made if one.id not in said][:most]


def _renamed(fact: Fact, name: str, i: int) -> Fact:
    more = "" if i == 0 else f" {i + 1}"
    data: dict[str, Any] = fact.to_dict() | {"id": f"{fact.id}, never taught{more}", "subject": name}
    for key in ("prompt", "question", "refusal"):
        data[key] = data[key].replace(fact.subject, name)
    for key in ("paraphrases", "heldout", "cloze_paraphrases"):
        data[key] = [text.replace(fact.subject, name) for text in data[key] if fact.subject in text]
    data["data_prompts"] = []
    return Fact.from_dict(data)
