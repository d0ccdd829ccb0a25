"""FactSource: the file that facts were read from, so that code can read it again instead of holding them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FactSource:
    """Where facts come from.

    Args:
        path: The file.
        n: How many facts it gave.
        schema, on_error: What ``load_facts`` was given, where it was not the default.
    """

    path: str
    n: int
    schema: str | None = None
    on_error: str = "raise"

    @property
    def code(self) -> str:
        """The call that reads it again.

        Example:
            >>> from workbench.types.fact_source import FactSource
            >>> FactSource("mine.csv", 5, on_error="skip").code
            "wb.load_facts('mine.csv', on_error='skip')"
        """
        schema = "" if self.schema is None else f", schema={self.schema!r}"
        on_error = "" if self.on_error == "raise" else f", on_error={self.on_error!r}"
        return f"wb.load_facts({self.path!r}{schema}{on_error})"
