"""How a long job is asked to end early: a flag that it looks at, and the error with which it ends."""

from __future__ import annotations

from typing import Any, Protocol


class Cancelled(Exception):
    """A job was cancelled; the model is as it was, and what was not finished is not there."""


class CancelFlag(Protocol):
    """Anything with ``is_set``, such as a ``threading.Event``."""

    def is_set(self) -> bool: ...


PREPARING = "while it was prepared"
"""When a fit is cancelled before its first step."""
ASKING = "while the model was asked what it knows"
"""When a measurement of what a model knows is."""


def check_cancel(cancel: CancelFlag | None, when: str = "before the fit") -> None:
    """Raise ``Cancelled`` when the flag is set.

    Args:
        cancel: The flag; None is never set.
        when: Ends the sentence "Cancelled ...", for a person.
    """
    if cancel is not None and cancel.is_set():
        raise Cancelled(f"Cancelled {when}; the model is as it was.")


class CancelBar:
    """Stands for a progress bar, and ends what updates it: so that a loop of batches looks at a flag between them.

    Args:
        cancel, when: As in ``check_cancel``.
        bar: The bar that is shown, if one is.
    """

    def __init__(self, cancel: CancelFlag | None, when: str = PREPARING, bar: Any = None) -> None:
        self._cancel, self._when, self._bar = cancel, when, bar
        self.update(0)

    def update(self, n: int) -> None:
        """So much more is done.

        Raises:
            Cancelled: The flag is set.
        """
        if self._bar is not None:
            self._bar.update(n)
        check_cancel(self._cancel, self._when)
