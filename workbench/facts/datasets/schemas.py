"""The schemas of facts in files: one record each, that says how it is recognised and how it becomes facts.

A new schema is a converter and a row of ``SCHEMAS``; those of public data sets are in ``public.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from workbench.facts.datasets import public
from workbench.facts.datasets.fields import Fields
from workbench.types import Fact
from workbench.types.plain import is_list, is_mapping

Schema = Literal["workbench", "counterfact", "mquake", "known_1000", "counterfact_tracing", "zsre", "rwku"]
Convert = Callable[[Any, Sequence[Any]], list[Fact]]


@dataclass(frozen=True)
class SchemaRecord:
    """A schema.

    Args:
        words: What data set it is, for tables.
        fields: Recognised by: any of these sets of fields.
        convert: Makes facts of one record; it gets all records of the file too, and raises ValueError with the field.
    """

    words: str
    fields: tuple[frozenset[str], ...]
    convert: Convert


def _workbench(record: Any, _: Sequence[Any]) -> list[Fact]:
    given = Fields(record)
    values = {name: value for name, value in record.items() if given.has(name)}
    for name in ("id", "relation", "answer", "target"):
        if name in values:
            values[name] = given.text(name, numbers=True)
    for name in ("answer_aliases", "target_aliases"):
        if is_list(values.get(name)):
            values[name] = given.texts(name, numbers=True)
    return [Fact.from_dict(values)]


def _fields(*names: str) -> frozenset[str]:
    return frozenset(names)


SCHEMAS: dict[Schema, SchemaRecord] = {
    "mquake": SchemaRecord(
        "MQuAKE (Zhong et al. 2023): several rewrites a record, multi-hop questions",
        (_fields("requested_rewrite", "questions"),),
        public.mquake,
    ),
    "counterfact": SchemaRecord(
        "CounterFact (Meng et al. 2022), with all its prompts", (_fields("requested_rewrite"),), public.counterfact
    ),
    "counterfact_tracing": SchemaRecord(
        "counterfact-tracing (CounterFact in rows of text)",
        (_fields("subject", "prompt", "target_true", "target_false"),),
        public.counterfact_tracing,
    ),
    "known_1000": SchemaRecord(
        "known_1000 (Meng et al. 2022); the target is the next other attribute of the relation",
        (_fields("subject", "attribute", "prompt"),),
        public.known_1000,
    ),
    "zsre": SchemaRecord(
        "zsRE, KnowEdit (zsRE, WikiData) and EasyEdit's variants, with locality and portability",
        (_fields("subject", "src", "alt"), _fields("subject", "prompt", "target_new")),
        public.zsre,
    ),
    "rwku": SchemaRecord(
        "RWKU (Jin et al. 2024): clozes with a blank, and questions; the target is the next other answer of its level",
        (_fields("subject", "query", "answer"),),
        public.rwku,
    ),
    "workbench": SchemaRecord(
        "the fields of `wb.Fact`", (_fields("subject", "prompt", "question", "answer", "target"),), _workbench
    ),
}
"""By name; the first that fits a record is its schema."""


def recognise(record: Any) -> Schema:
    """The schema of a record by its fields.

    Raises:
        ValueError: None fits; the message shows the record's fields.

    Example:
        >>> from workbench.facts.datasets import recognise
        >>> recognise(fact.to_dict())
        'workbench'
    """
    if not is_mapping(record):
        raise ValueError(f"A record must be an object with named fields, got {record!r:.60}.")
    keys = set(record)
    for name in get_args(Schema):
        if name != "workbench" and any(wanted <= keys for wanted in SCHEMAS[name].fields):
            if name == "counterfact" and is_list(record["requested_rewrite"]):
                return "mquake"
            return name
    if SCHEMAS["workbench"].fields[0] <= keys:
        return "workbench"
    raise ValueError(
        f"No known schema has the fields {sorted(keys)}. A fact needs subject, prompt, question, answer and target; "
        f"other schemas: {tuple(name for name in get_args(Schema) if name != 'workbench')}."
    )
