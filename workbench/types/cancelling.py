"""How a long job is asked to end early: a flag that it looks at, and the error with which it ends."""

from __future__ import annotations

from typing import Protocol


class Cancelled(Exception):
    """A job was cancelled; the model is as it was, and what was not finished is not there."""


class CancelFlag(Protocol):
    """Anything with ``is_set``, such as a ``threading.Event``."""

    def is_set(self) -> bool: ...


def check_cancel(cancel: CancelFlag | None, when: str = "before the fit") -> None:
    """Raise ``Cancelled`` when the flag is set.

    Args:
        cancel: The flag; None is never set.
        when: Ends the sentence "Cancelled ...", for a person.
    """
    if cancel is not None and cancel.is_set():
        raise Cancelled(f"Cancelled {when}; the model is as it was.")
