"""What is on record of what a model answered: the committed table of the bundled model, and the cache on disk.

An answer is found again by all that decides it: the prompt's token ids (and with them template, its options and BOS),
what ends a reply, and the most tokens that it may have. What it says of a fact is judged anew where the fact's texts or
the classifier are no longer those by which it was judged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from workbench.files.atomic import write_bytes
from workbench.files.user_cache import cache_folder, warn_not_written
from workbench.language.answers import CLASSIFIER_VERSION, is_known_answer
from workbench.language.bundled_answers import hashed
from workbench.language.generation import MAX_NEW_TOKENS, stops_of
from workbench.language.prompts import prompt_ids
from workbench.language.replies import counted_text
from workbench.models.load import LoadedModel
from workbench.models.template_options import effective
from workbench.types import Fact, Form

FORMS: tuple[Form, ...] = ("chat", "cloze")
TABLE_VERSION = 2


class Entry(TypedDict):
    """One answer on record.

    Args:
        id, form: Of the fact that was asked for, and how.
        asked: Its question or cloze.
        text: What the model said.
        judge: By what it was judged (``judge_key``).
        known: Whether it is the right answer.
        thinks: Whether it is a thought without end.
    """

    id: str
    form: Form
    asked: str
    text: str
    judge: str
    known: bool
    thinks: bool


Table = Mapping[str, Entry]


class Status(NamedTuple):
    """What is on record of a fact in one form."""

    known: bool
    thinks: bool


def asked_text(fact: Fact, form: Form) -> str:
    """What a model is asked for a fact."""
    return fact.question if form == "chat" else fact.prompt


def answer_keys(
    model: LoadedModel, asked: Sequence[tuple[Form, str]], max_new_tokens: int = MAX_NEW_TOKENS
) -> list[str]:
    """What decides the answer to each prompt, as short hashes.

    Args:
        model: The model.
        asked: Forms and texts.
        max_new_tokens: Longest answer.
    """
    stops = stops_of(model)
    template = repr((model.chat_template, sorted(effective(model.template, model.chat_template).items())))
    settings = (hashlib.sha256(template.encode()).hexdigest(), stops, max_new_tokens)

    def compute(missing: list[tuple[Any, Form, str]]) -> list[str]:
        return [hashed((tuple(prompt_ids(model, text, form)), max_new_tokens, stops)) for _, form, text in missing]

    return model.cache.answer_keys.get_or_compute_all([(settings, *one) for one in asked], compute)


def judge_key(fact: Fact) -> str:
    """By what an answer to a fact is judged: its texts, and the classifier's version."""
    texts = (fact.answers, fact.targets, fact.case_sensitive, fact.subject, fact.prompt, fact.cloze_paraphrases)
    asked = (fact.training_questions, fact.heldout, fact.refusal)
    return hashlib.sha256(repr((CLASSIFIER_VERSION, *texts, *asked)).encode()).hexdigest()[:16]


def judged(model: LoadedModel, fact: Fact, form: Form, text: str) -> Entry:
    """An answer as it is put on record."""
    counted = counted_text(model, text, form)
    return Entry(
        id=fact.id,
        form=form,
        asked=asked_text(fact, form),
        text=text,
        judge=judge_key(fact),
        known=counted is not None and is_known_answer(counted, fact),
        thinks=counted is None,
    )


def on_record(
    model: LoadedModel, facts: Iterable[Fact], table: Table, max_new_tokens: int = MAX_NEW_TOKENS
) -> Iterator[tuple[Fact, Form, Status]]:
    """What a table says of some facts, in the forms in which they were asked.

    Args:
        model: The model.
        facts: The facts.
        table: As ``known_table`` gives it.
        max_new_tokens: Longest answer.
    """
    there: set[tuple[Form, str]] = {(entry["form"], entry["asked"]) for entry in table.values()}
    every: list[tuple[Fact, Form, str]] = [(fact, form, asked_text(fact, form)) for fact in facts for form in FORMS]
    wanted = [one for one in every if one[1:] in there]
    keys = answer_keys(model, [(form, text) for _, form, text in wanted], max_new_tokens)
    for (fact, form, _), key in zip(wanted, keys, strict=True):
        entry = table.get(key)
        if entry is not None:
            if entry["judge"] != judge_key(fact):
                entry = judged(model, fact, form, entry["text"])
            yield fact, form, Status(entry["known"], entry["thinks"])


def known_on_record(model: LoadedModel, facts: Iterable[Fact]) -> dict[str, tuple[Form, ...] | None]:
    """By fact id, the forms in which a fact is known; None where not all forms are on record. Nothing is asked."""
    facts = list(facts)
    found: dict[str, dict[Form, bool]] = {}
    for fact, form, status in on_record(model, facts, known_table(model)):
        found.setdefault(fact.id, {})[form] = status.known
    return {
        fact.id: tuple(form for form in FORMS if forms[form])
        if len(forms := found.get(fact.id, {})) == len(FORMS)
        else None
        for fact in facts
    }


def known_table(model: LoadedModel) -> dict[str, Entry]:
    """What is on record for a model: the committed tables if it is the bundled one, and the cache on disk."""
    table: dict[str, Entry] = {}
    for path in (*committed_table_paths(model.fingerprint), _cache_path(model)):
        table.update(read_table(path, model.fingerprint))
    return table


def read_table(path: Path, fingerprint: str) -> dict[str, Entry]:
    """The answers of a table of known facts; none where there is no such table, none of this version and model, or none
    that can be read: what it says is measured again."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no file, not ours to read; not JSON, or not text
        return {}
    if not isinstance(data, dict) or (data.get("version"), data.get("fingerprint")) != (TABLE_VERSION, fingerprint):
        return {}
    answers = data.get("answers")
    return {key: entry for key, entry in answers.items() if _is_entry(entry)} if isinstance(answers, dict) else {}


def _is_entry(entry: Any) -> bool:
    texts, flags = ("id", "form", "asked", "text", "judge"), ("known", "thinks")
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(name), str) for name in texts)
        and all(isinstance(entry.get(name), bool) for name in flags)
    )


def committed_table_path(fingerprint: str) -> Path:
    """Where the table of a model would be committed."""
    return Path(str(files("workbench").joinpath("facts/data/known"))) / f"{fingerprint[:16]}.json"


def committed_table_paths(fingerprint: str) -> tuple[Path, Path]:
    """Where a model's tables would be: of the bundled facts, and of the sealed ones, which are apart."""
    bundled = committed_table_path(fingerprint)
    return bundled, bundled.parent / "sealed" / bundled.name


def write_table(path: Path, model: LoadedModel, answers: Table) -> None:
    """Write a table of known facts, atomically."""
    data = {"version": TABLE_VERSION, "fingerprint": model.fingerprint, "model": model.name, "answers": answers}
    write_bytes(path, (json.dumps(data, ensure_ascii=False, indent=0, sort_keys=True) + "\n").encode())


def _cache_path(model: LoadedModel) -> Path:
    """Where the cache on disk is."""
    return cache_folder() / "known" / f"{model.fingerprint}.json"


def write_cache(model: LoadedModel, measured: Table) -> None:
    """Add answers to the cache on disk, or warn that it cannot be written."""
    path = _cache_path(model)
    try:
        write_table(path, model, {**read_table(path, model.fingerprint), **measured})
    except OSError as error:
        warn_not_written(error)
