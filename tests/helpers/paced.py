"""A line of progress on a terminal and with a clock that a test holds."""

from __future__ import annotations

import io

from workbench.demo import WORDS
from workbench.pace import CLEAR, Pace


class Screen(io.StringIO):
    """A terminal, or a file that is no terminal."""

    def __init__(self, terminal: bool = True) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def line(self) -> str:
        """What stands on its line."""
        return self.getvalue().rpartition(CLEAR)[2]


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def paced(terminal: bool = True) -> tuple[Pace, Clock, Screen]:
    """A pace of parts that are 1, 1, 2, 8, 4 and 1 long, with its clock and its stream."""
    clock, stream = Clock(), Screen(terminal)
    lengths = {"trace": 1.0, "attribute": 1.0, "select": 2.0, "fit": 8.0, "evaluate": 4.0, "report": 1.0}
    return Pace(lengths, WORDS, stream, clock), clock, stream
