"""A text before what the model is asked: an edit without any parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from workbench.types.delta.base import Delta, DeltaKind, finite


@dataclass(frozen=True, eq=False)
class ContextDelta(Delta):
    """A context stands at the head of the user's message, and before a cloze. It changes no weight: without it the
    model is the base to the bit.

    A context is there or it is not, so its strength is 0 or 1.

    Args:
        texts: In order; each is a paragraph of its own.
        tokens: How many tokens each takes of the prompt; 0 where that is not known.

    Raises:
        ValueError: An empty text, or not as many numbers as texts.

    Source: in-context unlearning, Pawelczyk et al. 2023 (2310.07579); in-context knowledge editing, Zheng et al. 2023
    (2305.12740).

    Example:
        >>> from workbench.types import ContextDelta
        >>> delta = ContextDelta(["The capital of France is Rome."], [7])
        >>> delta.words(), delta.context, delta.n_moved()
        ('a context of 7 tokens', ('The capital of France is Rome.',), 0)
        >>> delta.scaled(0.0).context
        ()
    """

    texts: Sequence[str] = ()
    tokens: Sequence[int] = ()
    kind: ClassVar[DeltaKind] = "context"

    def __post_init__(self) -> None:
        texts: tuple[Any, ...] = (None,) if isinstance(self.texts, str) else tuple(self.texts)
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(f"texts must be a list of texts that are more than space, got {self.texts!r}.")
        tokens = tuple(self.tokens) or (0,) * len(texts)
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "tokens", tokens)
        if len(tokens) != len(texts):
            raise ValueError(f"tokens must hold a number for each of the {len(texts)} texts, got {tokens!r}.")

    @property
    def empty(self) -> bool:
        """See ``Delta``."""
        return not self.texts

    @property
    def context(self) -> tuple[str, ...]:
        """See ``Delta``."""
        return tuple(self.texts)

    def tensors(self) -> dict[str, Tensor]:
        """None: it has no parameter."""
        return {}

    def header(self) -> dict[str, Any]:
        """See ``Delta``."""
        return {"kind": self.kind, "texts": list(self.texts), "tokens": list(self.tokens)}

    @property
    def lowest_layer(self) -> int | None:
        """None: it changes no layer."""
        return None

    def n_moved(self) -> int:
        """0: it moves no number."""
        return 0

    def largest_move(self) -> float:
        """0.0: it moves no number."""
        return 0.0

    def words(self) -> str:
        """See ``Delta``."""
        n = sum(self.tokens)
        return f"a context of {n:,} tokens" if self.texts else "no context"

    def scaled(self, strength: float) -> ContextDelta:
        """The context itself at 1, none at 0.

        Raises:
            ValueError: Another strength.
        """
        if finite(strength) not in (0, 1):
            raise ValueError(
                f"A context is there or it is not, so its strength is 0 or 1, got {strength!r}. For something between, "
                "leave demonstrations out of it."
            )
        return self if strength else ContextDelta()

    def _joined(self, other: ContextDelta) -> ContextDelta:
        return ContextDelta((*self.texts, *other.texts), (*self.tokens, *other.tokens))
