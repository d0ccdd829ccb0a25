"""Fields: what one record of a file holds, read by name, with errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.types.plain import is_list, is_mapping, shortened

Record = dict[str, Any]


class Fields:
    """The fields of one record.

    Args:
        record: The record, as JSON gave it.
        within: The field that holds it, for errors; empty for a whole record.

    Raises:
        ValueError: The record is not a mapping.
    """

    def __init__(self, record: object, within: str = "") -> None:
        if not is_mapping(record):
            what = f"field {within!r}" if within else "the record"
            raise ValueError(f"{what} must be an object with named fields, got {shortened(record)}")
        self._record: Mapping[str, Any] = record
        self._within = within

    def name(self, field: str) -> str:
        """A field's name, with that of the field that holds it."""
        return f"{self._within}.{field}" if self._within else field

    def has(self, field: str) -> bool:
        """Whether the field is there and holds something."""
        return not _missing(self._record.get(field))

    def value(self, field: str) -> Any:
        """What a field holds, whatever it is; None where it is missing."""
        return self._record.get(field)

    def text(self, *fields: str, default: str | None = None, numbers: bool = False) -> str:
        """The text of the first of these fields that is there, without spaces at its ends.

        Args:
            fields: Names, in order.
            default: What stands for a missing one.
            numbers: Whether a number will do, as its digits (a year as an answer).

        Raises:
            ValueError: None is there and there is no default, or it is no text.
        """
        for field in fields:
            if self.has(field):
                return _text(self._record[field], self.name(field), numbers)
        if default is not None:
            return default
        raise ValueError(f"missing field {' or '.join(repr(self.name(field)) for field in fields)}")

    def texts(self, *fields: str, numbers: bool = False) -> tuple[str, ...]:
        """The texts of the first of these fields that is there: one text, or a list of them, however deep; empty where
        none is there."""
        field = next((field for field in fields if self.has(field)), None)
        return () if field is None else tuple(flat_texts(self._record[field], self.name(field), numbers=numbers))

    def inner(self, field: str) -> Fields:
        """The fields of an object within the record."""
        if not self.has(field):
            raise ValueError(f"missing field {self.name(field)!r}")
        return Fields(self._record[field], self.name(field))

    def groups(self) -> list[str]:
        """The names of the fields that are there."""
        return [field for field in self._record if self.has(field)]

    def objects(self, field: str) -> list[Fields]:
        """The objects of a list within the record; empty where it is missing."""
        value = self._record.get(field)
        if _missing(value):
            return []
        if not is_list(value):
            raise ValueError(f"field {self.name(field)!r} must be a list, got {shortened(value)}")
        return [Fields(one, f"{self.name(field)}[{i}]") for i, one in enumerate(value)]


def flat_texts(value: object, name: str, *, numbers: bool = False) -> list[str]:
    """A text, or the texts of a list however deep, without empty ones and repeats.

    Raises:
        ValueError: Something in it is no text.
    """
    if is_list(value):
        found = [text for i, one in enumerate(value) for text in flat_texts(one, f"{name}[{i}]", numbers=numbers)]
    else:
        text = _text(value, name, numbers)
        found = [text] if text else []
    return list(dict.fromkeys(found))


def _missing(value: object) -> bool:
    """Whether a field says nothing: null, or pandas' NaN."""
    return value is None or value != value


def _text(value: object, name: str, numbers: bool) -> str:
    if isinstance(value, str):
        return value.strip()
    if numbers and isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return str(int(value)) if float(value).is_integer() else str(value)
    raise ValueError(f"field {name!r} must be a text, got {shortened(value)}")
