"""The likeliest next tokens after a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.types.traced_prompt import Form

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class NextToken:
    """A token that may come next.

    Args:
        token: Decoded.
        id: Its token id.
        probability: From 0 to 1.
    """

    token: str
    id: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class NextTokens:
    """What a model would say next after a text.

    Args:
        text: The whole text as the model reads it, special tokens included.
        form: ``"chat"`` (through the chat template) or ``"cloze"`` (plain text).
        token_ids: The text's token ids.
        tokens: The same, decoded one by one.
        top: The likeliest next tokens, likeliest first.

    Example:
        >>> found = wb.next_tokens(model, "The capital of France is", form="cloze", k=2)
        >>> found.tokens, found.top[0].token, round(found.top[0].probability, 2)
        (('The', ' capital', ' of', ' France', ' is'), ' Paris', 1.0)
    """

    text: str
    form: Form
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    top: tuple[NextToken, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row a token: ``token``, ``id``, ``probability``."""
        import pandas as pd

        return pd.DataFrame([{"token": t.token, "id": t.id, "probability": t.probability} for t in self.top])
