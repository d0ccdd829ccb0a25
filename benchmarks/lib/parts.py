"""Which facts a process measures: every N-th of them, or one of each kind in turn."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Part(NamedTuple):
    """The K-th of N parts; several processes share what is to be measured."""

    k: int = 1
    of: int = 1

    def take(self, items: Sequence[T]) -> list[T]:
        """Every N-th item, from the K-th."""
        return [*items][self.k - 1 :: self.of]


def part(text: str) -> Part:
    """``"1/2"`` as the first of two parts.

    Raises:
        argparse.ArgumentTypeError: It is no part.
    """
    k, _, n = text.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise argparse.ArgumentTypeError(f"a part is K/N with K from 1 to N (1/2, say), got {text!r}")
    return Part(int(k), int(n))


def add_part(parser: argparse.ArgumentParser) -> None:
    """The option ``--part``."""
    parser.add_argument(
        "--part", type=part, default=Part(), metavar="K/N", help="every N-th of the facts, from the K-th"
    )


def in_turn(queues: Sequence[Sequence[T]], n: int) -> list[T]:
    """At most n items, one of each queue in turn."""
    rounds = range(max(map(len, queues), default=0))
    return [queue[i] for i in rounds for queue in queues if i < len(queue)][:n]
