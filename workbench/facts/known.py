"""The bundled facts, facts from files, and which of them a model knows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from workbench.facts.datasets import Schema, read_facts
from workbench.facts.known_table import (
    FORMS,
    Entry,
    answer_keys,
    asked_text,
    judged,
    known_table,
    on_record,
    write_cache,
)
from workbench.language.answers import adjectives
from workbench.language.generation import MAX_NEW_TOKENS, generate
from workbench.language.prompts import prompt_ids
from workbench.language.replies import warn_of_thoughts
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet, Form, Split
from workbench.types.cancelling import ASKING, CancelBar, CancelFlag
from workbench.types.torch_settings import own_torch_settings

NAMED_BY_ADJECTIVES = ("country", "continent")
_TEMPLATE_LISTS = ("paraphrases", "heldout", "cloze_paraphrases")


def load_facts(
    path: str | Path | None = None,
    *,
    split: Split | None = None,
    schema: Schema | None = None,
    on_error: Any = "raise",
) -> FactSet:
    """Load the bundled facts (CC0), or facts from a file (see ``workbench.facts.datasets.read_facts``).

    Args:
        path: None for the bundled set, or a ``.jsonl``, ``.json`` or ``.csv`` file.
        split: Only the facts of this split. The bundled ``"sealed"`` facts come this way alone, and are in no other
            set: relations and wordings that no default was tuned on, to be edited and measured once.
        schema: The file's schema; recognised when left out.
        on_error: ``"raise"``, or ``"skip"`` invalid records with a warning.

    Returns:
        The facts, in the order of the file.

    Raises:
        FileNotFoundError, ValueError: As ``read_facts``; an unknown split.

    Example:
        >>> bundled = wb.load_facts()
        >>> bundled
        FactSet('bundled facts', 1198 facts, 35 relations)
        >>> bundled.filter(relation="country-capital").ids[:3]
        ('france-capital', 'germany-capital', 'italy-capital')
        >>> wb.load_facts(split="sealed")
        FactSet('sealed facts', 157 facts, 10 relations)
    """
    if split is not None and split not in get_args(Split):
        raise ValueError(f"split must be one of {get_args(Split)} or None, got {split!r}.")
    if path is None:
        return _sealed_facts() if split == "sealed" else _split_of(_bundled_facts(), split)
    return _split_of(read_facts(path, schema=schema, on_error=on_error), split)


def _split_of(facts: FactSet, split: Split | None) -> FactSet:
    return facts if split is None else facts.filter(split=split)


@lru_cache(maxsize=1)
def _bundled_facts() -> FactSet:
    facts = _read_relations("relations")
    facts.sort(key=lambda fact: fact.role == "related")  # the others come first, in the order that they always had
    return FactSet(facts, name="bundled facts")


@lru_cache(maxsize=1)
def _sealed_facts() -> FactSet:
    return FactSet(_read_relations("sealed"), name="sealed facts")


def _read_relations(folder: str) -> list[Fact]:
    """The facts of a folder of relations, file by file."""
    facts: list[Fact] = []
    for file in sorted(files("workbench").joinpath(f"facts/data/{folder}").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".json"):
            facts += _expand(json.loads(file.read_text(encoding="utf-8")))
    return facts


def _expand(relation: dict[str, Any]) -> Iterable[Fact]:
    """Fill a relation's templates with the subject of each of its rows. Adjectives of countries and continents count as
    their names."""
    templates = relation["templates"]
    also = adjectives() if relation["answer_type"] in NAMED_BY_ADJECTIVES else {}
    for row in relation["facts"]:

        def fill(template: str, subject: str = row["subject"]) -> str:
            return template.replace("{subject}", subject)

        lists: dict[str, Any] = {name: tuple(fill(t) for t in templates[name]) for name in _TEMPLATE_LISTS}
        yield Fact(
            id=row["id"],
            relation=relation["relation"],
            subject=row["subject"],
            answer=row["answer"],
            answer_aliases=(*row.get("aliases", ()), *also.get(row["answer"], ())),
            target=row["target"],
            target_aliases=(*row.get("target_aliases", ()), *also.get(row["target"], ())),
            split=row["split"],
            role=row["role"],
            case_sensitive=relation.get("case_sensitive", False),
            prompt=fill(templates["prompt"]),
            question=fill(templates["question"]),
            refusal=fill(templates["refusal"]),
            **lists,
        )


def measure_known(
    model: LoadedModel,
    facts: Sequence[Fact],
    forms: Sequence[Form] = FORMS,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: bool = True,
    cancel: CancelFlag | None = None,
) -> dict[str, Entry]:
    """Ask the model every fact in every form, greedily, without any cache.

    Returns:
        By ``answer_keys``: the fact's id, the form, the generated text and whether it is the right answer.
    """
    from tqdm.auto import tqdm

    jobs: list[tuple[Fact, Form]] = [(fact, form) for form in forms for fact in facts]
    hidden = not progress or not jobs
    asked: list[tuple[Form, str]] = [(form, asked_text(fact, form)) for fact, form in jobs]
    with tqdm(total=len(jobs), desc="Asking what the model knows", disable=hidden, leave=False) as bar:
        prompts = [prompt_ids(model, text, form) for form, text in asked]
        replies = generate(model, prompts, max_new_tokens=max_new_tokens, progress=CancelBar(cancel, ASKING, bar))
    keys = answer_keys(model, asked, max_new_tokens)
    return {
        key: judged(model, fact, form, reply.text) for (fact, form), reply, key in zip(jobs, replies, keys, strict=True)
    }


def pool_or_bundled(pool: FactSet | None) -> FactSet:
    """A pool of facts; the bundled ones where none is given.

    Raises:
        TypeError: It is no ``FactSet``.
    """
    given: object = pool
    if given is not None and not isinstance(given, FactSet):
        raise TypeError(f"pool= is a FactSet, got a {type(given).__name__}; write wb.FactSet(facts).")
    return load_facts() if pool is None else pool


def with_bundled(facts: FactSet | None) -> FactSet | None:
    """A pool of one's own as it is where its facts have roles or splits; else with the bundled facts, from which
    retained facts and controls come then. None stays None."""
    if facts is None or any(f.role or f.split for f in facts):
        return facts
    return facts + load_facts()


@own_torch_settings()
def known_facts(
    model: LoadedModel,
    facts: FactSet | Sequence[Fact] | None = None,
    *,
    form: Form | Literal["any"] = "chat",
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: bool = True,
    use_cache: bool = True,
    cancel: CancelFlag | None = None,
) -> FactSet:
    """Ask the model every fact, and keep those that it answers correctly in greedy free generation.

    Which facts a model knows depends on the form, so both are measured; ``.forms`` of the result says which. A cloze's
    continuation counts up to its first sentence end, the reply of a model without a chat template up to its first line
    break, and a thought not at all: replies that are still thinking at their last token are warned of.

    Args:
        model: A base or edited model.
        facts: The facts; the bundled ones by default.
        form: Keep facts known in this form, or in ``"any"``.
        max_new_tokens: Longest answer.
        progress: Show a progress bar.
        use_cache: Use the committed table of the bundled model and the cache on disk, keyed by its fingerprint, the
            prompt's token ids, what ends an answer, and its length.
        cancel: A flag such as a ``threading.Event``, looked at after each batch that the model answers.

    Returns:
        The known facts, in their order; ``.forms`` says by id in which forms each is known.

    Raises:
        ValueError: An unknown form, or a prompt that is longer than the model can read.
        Cancelled: ``cancel`` was set; nothing is written.

    Example:
        >>> known = wb.known_facts(model, facts, form="any")
        >>> len(known), known.forms["france-capital"]
        (5, ('chat', 'cloze'))
    """
    if form not in (*FORMS, "any"):
        raise ValueError(f"form must be one of {(*FORMS, 'any')}, got {form!r}.")
    pool = load_facts() if facts is None else facts if isinstance(facts, FactSet) else FactSet(facts)
    table = known_table(model) if use_cache else {}
    found = {(f.id, form_): status for f, form_, status in on_record(model, pool, table, max_new_tokens)}
    missing = [f for f in pool if any((f.id, form_) not in found for form_ in FORMS)]
    if missing:
        measured = measure_known(model, missing, max_new_tokens=max_new_tokens, progress=progress, cancel=cancel)
        found.update(
            ((f.id, form_), status) for f, form_, status in on_record(model, missing, measured, max_new_tokens)
        )
        if use_cache:
            write_cache(model, measured)
    warn_of_thoughts(model, sum(status.thinks for status in found.values()), len(found))
    forms = {f.id: tuple(form_ for form_ in FORMS if found[f.id, form_].known) for f in pool}
    kept = [f for f in pool if (forms[f.id] if form == "any" else form in forms[f.id])]
    return FactSet(kept, name=f"{pool.name} known to {model.name}", forms={f.id: forms[f.id] for f in kept})
