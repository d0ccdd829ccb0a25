"""Reading facts from files: this project's JSON lines and CSV, and the schemas of public editing data sets."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args

from workbench.files.paths import user_path
from workbench.types import Fact, FactSet

Schema = Literal["workbench", "counterfact", "known_1000", "zsre"]
Record = dict[str, Any]
LIST_FIELDS = ("answer_aliases", "target_aliases", "paraphrases", "heldout", "cloze_paraphrases")


def read_facts(
    path: str | Path, *, schema: Schema | None = None, on_error: Literal["raise", "skip"] = "raise"
) -> FactSet:
    """Read facts from a ``.jsonl``, ``.json`` or ``.csv`` file.

    Args:
        path: The file. A CSV has a header with the fields of ``Fact``; lists are separated by ``|``.
        schema: ``"workbench"`` (the fields of ``Fact``), ``"counterfact"`` (Meng et al. 2022), ``"known_1000"`` (the
            same), ``"zsre"`` (zsRE and KnowEdit); None recognises it by the first record's fields.
        on_error: ``"raise"`` at the first record that makes no valid fact, or ``"skip"`` such records with a warning.

    Raises:
        FileNotFoundError: No such file.
        ValueError: An unknown file type or schema, broken JSON (with the line), or an invalid record (with its number).
    """
    path = user_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if schema is not None and schema not in get_args(Schema):
        raise ValueError(f"schema must be one of {get_args(Schema)} or None, got {schema!r}.")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}.")
    records = _records(path)
    if not records:
        raise ValueError(f"{path} has no records.")
    kind = schema or recognise(records[0])
    convert = _CONVERTERS[kind]
    facts: list[Fact] = []
    for number, record in enumerate(records, 1):
        try:
            facts.append(convert(record, records))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            reason = f"missing field {error}" if isinstance(error, KeyError) else str(error)
            message = f"{path}, record {number} ({kind}): {reason}"
            if on_error == "raise":
                raise ValueError(f"{message} Use on_error='skip' to leave such records out.") from error
            warnings.warn(f"Skipped: {message}", stacklevel=2)
    return FactSet(_unique(facts), name=path.name)


def recognise(record: Record) -> Schema:
    """The schema of a record by its fields.

    Raises:
        ValueError: None fits; the message shows the record's fields.
    """
    keys = set(record)
    if "requested_rewrite" in keys:
        return "counterfact"
    if {"subject", "attribute", "prompt"} <= keys:
        return "known_1000"
    if "subject" in keys and ({"src", "alt"} <= keys or {"prompt", "target_new"} <= keys):
        return "zsre"
    if {"subject", "prompt", "question", "answer", "target"} <= keys:
        return "workbench"
    raise ValueError(
        f"No known schema has the fields {sorted(keys)}. A fact needs subject, prompt, question, answer and target; "
        f"other schemas: {get_args(Schema)[1:]}."
    )


def _records(path: Path) -> list[Record]:
    suffix = path.suffix.lower()
    text = path.read_text(encoding="utf-8-sig")
    if suffix == ".csv":
        return [_from_csv(row) for row in csv.DictReader(io.StringIO(text, newline=""))]
    if suffix == ".json":
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}).") from error
        if not isinstance(data, list):
            raise ValueError(f"{path} must hold a JSON list of records, got {type(data).__name__}.")
        return data
    if suffix == ".jsonl":
        out = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    out.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise ValueError(f"{path}, line {number}: not valid JSON ({error.msg}).") from error
        return out
    raise ValueError(f"Facts are read from .jsonl, .json or .csv files, got {path.name!r}.")


def _from_csv(row: dict[str, str | None]) -> Record:
    out: Record = {}
    for name, value in row.items():
        if name is None or value is None or value == "":
            continue
        if name in LIST_FIELDS:
            out[name] = [part.strip() for part in value.split("|") if part.strip()]
        elif name == "case_sensitive":
            out[name] = value.strip().lower() in ("1", "true", "yes")
        else:
            out[name] = value
    return out


def _unique(facts: Iterable[Fact]) -> list[Fact]:
    """Give repeated ids a number, so that a data set with two edits of one subject can be read."""
    facts = list(facts)
    own = {fact.id for fact in facts}
    taken: set[str] = set()
    out = []
    for fact in facts:
        name, number = fact.id, 1
        while name in taken or (number > 1 and name in own):
            number += 1
            name = f"{fact.id}-{number}"
        taken.add(name)
        out.append(fact if number == 1 else Fact.from_dict(fact.to_dict() | {"id": name}))
    return out


def _as_question(cloze: str) -> str:
    return f"Complete the sentence: {cloze}"


def _workbench(record: Record, _: list[Record]) -> Fact:
    return Fact.from_dict(record)


def _counterfact(record: Record, _: list[Record]) -> Fact:
    rewrite = record["requested_rewrite"]
    prompt = rewrite["prompt"].format(rewrite["subject"]).strip()
    return Fact(
        id=f"counterfact-{record['case_id']}" if "case_id" in record else "",
        subject=rewrite["subject"].strip(),
        relation=rewrite.get("relation_id", ""),
        prompt=prompt,
        question=_as_question(prompt),
        answer=rewrite["target_true"]["str"].strip(),
        target=rewrite["target_new"]["str"].strip(),
        cloze_paraphrases=tuple(p.strip() for p in record.get("paraphrase_prompts", ())),
    )


def _known_1000(record: Record, records: list[Record]) -> Fact:
    """The data set has no counterfactual: the target is the next other attribute of the same relation."""
    answer = record["attribute"].strip()
    at = records.index(record)
    others = [*records[at + 1 :], *records[:at]]
    candidates = [r["attribute"].strip() for r in others if r.get("relation_id") == record.get("relation_id")]
    candidates += [r["attribute"].strip() for r in others]
    target = next((c for c in candidates if c.casefold() != answer.casefold()), None)
    if target is None:
        raise ValueError("no other attribute in the file could serve as a target")
    prompt = record["prompt"].strip()
    return Fact(
        id=f"known-{record['known_id']}" if "known_id" in record else "",
        subject=record["subject"].strip(),
        relation=record.get("relation_id", ""),
        prompt=prompt,
        question=_as_question(prompt),
        answer=answer,
        target=target,
    )


def _zsre(record: Record, _: list[Record]) -> Fact:
    question = (record.get("src") or record["prompt"]).strip()
    truth = record.get("answers") or record.get("ground_truth") or record.get("pred") or ""
    answers = (
        [truth]
        if isinstance(truth, str)
        else [a for item in truth for a in (item if isinstance(item, list) else [item])]
    )
    target = record.get("alt") or record["target_new"]
    target = target[0] if isinstance(target, list) else target
    rephrased = record.get("rephrase") or record.get("rephrase_prompt") or []
    rephrased = [rephrased] if isinstance(rephrased, str) else rephrased
    return Fact(
        subject=record["subject"].strip(),
        relation=record.get("relation", record.get("relation_id", "")),
        prompt=f"Question: {question} Answer:",
        question=question,
        answer=answers[0].strip() if answers else "",
        answer_aliases=tuple(a.strip() for a in answers[1:]),
        target=str(target).strip(),
        heldout=tuple(r.strip() for r in rephrased if r.strip() != question),
    )


_CONVERTERS: dict[Schema, Callable[[Record, list[Record]], Fact]] = {
    "workbench": _workbench,
    "counterfact": _counterfact,
    "known_1000": _known_1000,
    "zsre": _zsre,
}
