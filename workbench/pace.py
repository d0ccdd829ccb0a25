"""Pace: the line that says what a long command is doing, and how long the rest takes."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

CLEAR = "\r\x1b[K"
"""To the beginning of a terminal's line, and clear it."""


class Pace:
    """Says on a stream what is being done, and how long the rest takes: as long as the work so far, for the work left.

    On a terminal it is one line that is written over and goes in the end; else a line a part, and one now and then.

    Args:
        lengths: The parts in order, with how long each takes relative to the others.
        words: The parts in words.
        stream: Where it is said.
        clock: Gives seconds.

    Attributes:
        seconds: What each part that is done took.
    """

    def __init__(
        self,
        lengths: Mapping[str, float],
        words: Mapping[str, str],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.lengths, self._words = dict(lengths), words
        self.seconds: dict[str, float] = {}
        self._stream, self._clock = sys.stderr if stream is None else stream, clock
        self._began = self._part_began = clock()
        self._part, self._told = "", -math.inf

    def __enter__(self) -> Pace:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        if self._live:
            self._stream.write(CLEAR)
            self._stream.flush()

    def begin(self, name: str, length: float | None = None) -> None:
        """Go on to a part, which ends the one before. Parts before it that never began are left out; one with a length
        comes on top."""
        self._end()
        before = [*self.lengths][: [*self.lengths].index(name)] if name in self.lengths else []
        for skipped in set(before) - set(self.seconds):
            del self.lengths[skipped]
        if length is not None:
            self.lengths[name] = length
        self._part, self._part_began = name, self._clock()
        self._tell(0.0, "", always=True)

    def restart(self) -> None:
        """Take the time from now on for the speed: what came before says nothing of what is left."""
        self._began = self._clock()

    def _end(self) -> None:
        if self._part:
            self.seconds[self._part] = self._clock() - self._part_began
            self._part = ""

    def at(self, fraction: float, words: str = "") -> None:
        """Say how far the part is, from 0 to 1, and in words."""
        self._tell(fraction, words)

    def left(self, fraction: float) -> float | None:
        """Seconds that the rest takes at the speed so far, at this fraction of the part; None while nothing is done."""
        done = sum(self.lengths[name] for name in self.seconds) + fraction * self.lengths[self._part]
        if not done:
            return None
        return (self._clock() - self._began) * (sum(self.lengths.values()) - done) / done

    @property
    def _live(self) -> bool:
        return self._stream.isatty()

    def _tell(self, fraction: float, words: str, *, always: bool = False) -> None:
        now = self._clock()
        if not always and now - self._told < (0.2 if self._live else 15):
            return
        self._told = now
        left = self.left(fraction)
        rest = "" if left is None else f", about {duration(left)} left"
        of = f"[{len(self.seconds) + 1}/{len(self.lengths)}] {self._words[self._part]}"
        line = f"{of}{f' ({words})' if words else ''}{rest}"
        self._stream.write(f"{CLEAR}{line}" if self._live else f"{line}\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """Seconds in words, to five seconds from ten on: more would only flicker."""
    whole = math.ceil(seconds)
    if whole > 10:
        whole = 5 * math.ceil(seconds / 5)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60} s"
