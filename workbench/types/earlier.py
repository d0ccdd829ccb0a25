"""What lay under an edit when it was made: the edits that its model carried, and the fingerprints of such models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EarlierEdit:
    """An edit that a model carried when another one was made on it.

    Args:
        id: Its ``Edit.id``.
        facts: Ids of the facts that it edits.
        stage: The last of its stages that was on.
        strength: How strongly it was on.
        under: The fingerprint of the model without it and what came after it.
    """

    id: str
    facts: tuple[str, ...]
    stage: str
    strength: float
    under: str

    @property
    def words(self) -> str:
        """What it is, for a message: ``"france-capital (id 0123456789ab, 'learn' at strength 1)"``."""
        return f"{', '.join(self.facts)} (id {self.id[:12]}, {self.stage!r} at strength {self.strength:g})"

    @property
    def key(self) -> tuple[str, str, float]:
        """What decides what it does to a model."""
        return self.id, self.stage, self.strength


def fingerprint_with(base: str, carried: Iterable[tuple[str, str, float]]) -> str:
    """The fingerprint of a model that carries edits.

    Args:
        base: The fingerprint of the model without any.
        carried: Id, last stage and strength of each edit, in order.
    """
    digest = hashlib.sha256(base.encode())
    for id, stage, strength in carried:
        digest.update(f"{id}|{stage}|{float(strength)!r}".encode())
    return digest.hexdigest()
