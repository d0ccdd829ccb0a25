"""One call of a sweep: what is pending, what became of it, and how long the rest takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.pace import Pace
from workbench.sweeps.folder import SweepFolder
from workbench.sweeps.worker import Item, Outcome
from workbench.types.cancelling import CancelFlag, check_cancel

OnItem = Callable[[str, bool], Any]
"""Is told an item's id, and whether it succeeded."""


@dataclass
class Run:
    """One call of `sweep`: where its outcomes go.

    Args:
        folder: The sweep's.
        pending: What is to be done.
        pace: Says how far it is; None is silent.
        on_item, cancel: As `sweep` takes them.
        kept: How many results the folder has.
        deaths: How many processes ended while they had an item in hand, by its id; the others are to be done first.
    """

    folder: SweepFolder
    pending: Sequence[Item]
    pace: Pace | None
    on_item: OnItem | None
    cancel: CancelFlag | None
    kept: int = 0
    deaths: Mapping[str, int] = field(default_factory=dict[str, int])
    done: int = 0
    failed: int = 0

    def check(self) -> None:
        check_cancel(self.cancel, f"after {self.done} of {len(self.pending)} items, which are kept")

    def begin(self, part: str) -> None:
        if self.pace is not None:
            self.pace.begin(part)
            self.pace.restart()

    def keep(self, outcome: Outcome) -> None:
        """Write an outcome, and say so.

        Raises:
            TypeError: The result cannot be kept, and none could before it: those of the others are like it.
            RuntimeError: The item has changed the model that the others need.
            OSError: It cannot be written.
        """
        if outcome.never_kept and not self.kept:
            raise TypeError(f"{outcome.message} (That was the item {outcome.id!r}; the sweep has ended.)")
        if outcome.spoiled and not outcome.error:
            raise self._spoiled(outcome)
        try:
            self.folder.keep(outcome)
        except OSError as error:
            words = (
                f"{error.strerror}: the item {outcome.id!r} cannot be written. {self.done} items of this call are kept"
            )
            raise OSError(error.errno, f"{words}; make space, and call sweep again", str(self.folder.path)) from error
        self.done += 1
        self.failed += outcome.content is None
        self.kept += outcome.content is not None
        self.show()
        if self.on_item is not None:
            self.on_item(outcome.id, outcome.content is not None)
        if outcome.spoiled:
            raise self._spoiled(outcome)

    def _spoiled(self, outcome: Outcome) -> RuntimeError:
        return RuntimeError(
            f"The sweep has ended at the item {outcome.id!r}: {outcome.message} What was finished before is kept; load "
            "the model again before the next call."
        )

    def show(self) -> None:
        if self.pace is not None:
            failed = f", {self.failed} failed" if self.failed else ""
            self.pace.at(self.done / len(self.pending), f"{self.done} of {len(self.pending)}{failed}")
