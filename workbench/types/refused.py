"""A value that a setting may not have, with what a panel needs to say so in its own words."""

from __future__ import annotations

from collections.abc import Sequence


class RefusedValue(ValueError):
    """A setting got a value that is not allowed.

    Args:
        message: The value, what is allowed and the fix, as Python shows it.
        name: Of the setting.
        value: What it got.
        allowed: What it may be, in words; or the choices.

    Example:
        >>> from workbench.types.refused import RefusedValue
        >>> try:
        ...     wb.Recipe(learning_rate=0)
        ... except RefusedValue as error:
        ...     print(error.name, "|", error.value, "|", error.allowed)
        learning_rate | 0 | a positive number
    """

    def __init__(self, message: str, *, name: str, value: object, allowed: str | Sequence[str]) -> None:
        super().__init__(message)
        self.name, self.value, self.allowed = name, value, allowed
