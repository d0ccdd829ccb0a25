"""The bundled facts, facts from files, and which of them a model knows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from workbench.facts.datasets import Schema, read_facts
from workbench.files.atomic import write_bytes
from workbench.files.user_cache import cache_folder, warn_not_written
from workbench.language.answers import adjectives, first_sentence, is_known_answer
from workbench.language.generation import generate
from workbench.language.prompts import prompt_ids
from workbench.models.load import LoadedModel
from workbench.types import Fact, FactSet, Form
from workbench.types.cancelling import ASKING, CancelBar, CancelFlag

FORMS: tuple[Form, ...] = ("chat", "cloze")
NAMED_BY_ADJECTIVES = ("country", "continent")
TABLE_VERSION = 1
_TEMPLATE_LISTS = ("paraphrases", "heldout", "cloze_paraphrases")


def load_facts(path: str | Path | None = None, *, schema: Schema | None = None, on_error: Any = "raise") -> FactSet:
    """Load the bundled facts (CC0), or facts from a file (see ``workbench.facts.datasets.read_facts``).

    Args:
        path: None for the bundled set, or a ``.jsonl``, ``.json`` or ``.csv`` file.
        schema: The file's schema; recognised when left out.
        on_error: ``"raise"``, or ``"skip"`` invalid records with a warning.

    Returns:
        The facts, in the order of the file.

    Raises:
        FileNotFoundError, ValueError: As ``read_facts``.

    Example:
        >>> bundled = wb.load_facts()
        >>> bundled
        FactSet('bundled facts', 932 facts, 26 relations)
        >>> bundled.filter(relation="country-capital").ids[:3]
        ('france-capital', 'germany-capital', 'italy-capital')
    """
    return _bundled_facts() if path is None else read_facts(path, schema=schema, on_error=on_error)


@lru_cache(maxsize=1)
def _bundled_facts() -> FactSet:
    facts: list[Fact] = []
    folder = files("workbench").joinpath("facts/data/relations")
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".json"):
            facts += _expand(json.loads(file.read_text(encoding="utf-8")))
    return FactSet(facts, name="bundled facts")


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


def fact_key(fact: Fact, form: Form) -> str:
    """What the answer to "is it known in this form" depends on, besides the model, as a short hash."""
    text = fact.question if form == "chat" else fact.prompt
    parts = [form, text, *fact.answers, "|", *fact.targets, str(fact.case_sensitive), fact.subject]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def measure_known(
    model: LoadedModel,
    facts: Sequence[Fact],
    forms: Sequence[Form] = FORMS,
    *,
    progress: bool = True,
    cancel: CancelFlag | None = None,
) -> dict[str, dict[str, Any]]:
    """Ask the model every fact in every form, greedily, without any cache.

    Returns:
        By ``fact_key``: the fact's id, the form, the generated text and whether it is the right answer.
    """
    from tqdm.auto import tqdm

    out: dict[str, dict[str, Any]] = {}
    jobs: list[tuple[Fact, Form]] = [(fact, form) for form in forms for fact in facts]
    hidden = not progress or not jobs
    with tqdm(total=len(jobs), desc="Asking what the model knows", disable=hidden, leave=False) as bar:
        prompts = [prompt_ids(model, f.question if form == "chat" else f.prompt, form) for f, form in jobs]
        for (fact, form), completion in zip(
            jobs, generate(model, prompts, progress=CancelBar(cancel, ASKING, bar)), strict=True
        ):
            judged = completion.text if form == "chat" else first_sentence(completion.text)
            out[fact_key(fact, form)] = {
                "id": fact.id,
                "form": form,
                "text": completion.text,
                "known": is_known_answer(judged, fact),
            }
    return out


def pool_or_bundled(pool: FactSet | None) -> FactSet:
    """A pool of facts; the bundled ones where none is given."""
    return load_facts() if pool is None else pool


def with_bundled(facts: FactSet | None) -> FactSet | None:
    """A pool of one's own as it is where its facts have roles or splits; else with the bundled facts, from which
    retained facts and controls come then. None stays None."""
    if facts is None or any(f.role or f.split for f in facts):
        return facts
    return facts + load_facts()


def known_facts(
    model: LoadedModel,
    facts: FactSet | Sequence[Fact] | None = None,
    *,
    form: Form | Literal["any"] = "chat",
    progress: bool = True,
    use_cache: bool = True,
    cancel: CancelFlag | None = None,
) -> FactSet:
    """Ask the model every fact, and keep those that it answers correctly in greedy free generation.

    Which facts a model knows depends on the form, so both are measured; ``.forms`` of the result says which. A cloze's
    continuation counts up to its first sentence end.

    Args:
        model: A base or edited model.
        facts: The facts; the bundled ones by default.
        form: Keep facts known in this form, or in ``"any"``.
        progress: Show a progress bar.
        use_cache: Use the committed table of the bundled model and the cache on disk, keyed by its fingerprint.
        cancel: A flag such as a ``threading.Event``, looked at after each batch that the model answers.

    Returns:
        The known facts, in their order; ``.forms`` says by id in which forms each is known.

    Raises:
        ValueError: An unknown form.
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
    missing = [f for f in pool if any(fact_key(f, form_) not in table for form_ in FORMS)]
    if missing:
        measured = measure_known(model, missing, progress=progress, cancel=cancel)
        table = {**table, **measured}
        if use_cache:
            _write_cache(model, measured)
    forms = {f.id: tuple(form_ for form_ in FORMS if table[fact_key(f, form_)]["known"]) for f in pool}
    kept = [f for f in pool if (forms[f.id] if form == "any" else form in forms[f.id])]
    return FactSet(kept, name=f"{pool.name} known to {model.name}", forms={f.id: forms[f.id] for f in kept})


def known_table(model: LoadedModel) -> dict[str, dict[str, Any]]:
    """What is on record for a model: the committed table if it is the bundled one, and the cache on disk."""
    table: dict[str, dict[str, Any]] = {}
    for path in (committed_table_path(model.fingerprint), _cache_path(model)):
        data = _read_table(path)
        if (data.get("version"), data.get("fingerprint")) == (TABLE_VERSION, model.fingerprint):
            table.update(data["answers"])
    return table


def _read_table(path: Path) -> dict[str, Any]:
    """A table of known facts; empty where there is none, or none that can be read: what it says is measured again."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no file, not ours to read; not JSON, or not text
        return {}
    return data if isinstance(data, dict) else {}


def committed_table_path(fingerprint: str) -> Path:
    """Where the table of a model would be committed."""
    return Path(str(files("workbench").joinpath("facts/data/known"))) / f"{fingerprint[:16]}.json"


def write_table(path: Path, model: LoadedModel, answers: dict[str, dict[str, Any]]) -> None:
    """Write a table of known facts, atomically."""
    data = {"version": TABLE_VERSION, "fingerprint": model.fingerprint, "model": model.name, "answers": answers}
    write_bytes(path, (json.dumps(data, ensure_ascii=False, indent=0, sort_keys=True) + "\n").encode())


def _cache_path(model: LoadedModel) -> Path:
    return cache_folder() / "known" / f"{model.fingerprint}.json"


def _write_cache(model: LoadedModel, measured: dict[str, dict[str, Any]]) -> None:
    """Add answers to the cache on disk, or warn that it cannot be written."""
    path = _cache_path(model)
    try:
        write_table(path, model, {**_read_table(path).get("answers", {}), **measured})
    except OSError as error:
        warn_not_written(error)
