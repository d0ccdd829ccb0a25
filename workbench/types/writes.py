"""What a component writes: the tokens whose logits its output raises and lowers most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.types.selection import Component
from workbench.types.traced_prompt import TracedPrompt

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class TokenLogit:
    """What a component adds to the logit of a token.

    Args:
        token: Decoded.
        id: Its token id.
        value: What is added, minus the mean over all tokens (which changes no probability).
    """

    token: str
    id: int
    value: float


@dataclass(frozen=True, kw_only=True)
class Writes:
    """The tokens whose logits a component's output raises and lowers most, by itself, through the final norm.

    Args:
        component: Which.
        raised, lowered: Tokens, the strongest first.
        prompt: The text at whose last position the output was taken; None for a neuron's output weight alone.
        activation: Of a neuron, at that position; None for other components and without a text.

    Example:
        >>> writes = wb.writes(model, "L1N5", k=2)
        >>> len(writes.raised), writes.raised[0].value > 0 > writes.lowered[0].value, writes.unit
        (2, True, "logits x the residual stream's size, for an activation of 1")
    """

    component: Component
    raised: tuple[TokenLogit, ...]
    lowered: tuple[TokenLogit, ...]
    prompt: TracedPrompt | None = None
    activation: float | None = None

    def __repr__(self) -> str:
        return f"Writes({self.words})"

    @property
    def unit(self) -> str:
        """Of the values."""
        return "logits" if self.prompt else "logits x the residual stream's size, for an activation of 1"

    @property
    def words(self) -> str:
        """The finding in a sentence."""
        where = f"after {self.prompt.tokens[-1].strip()!r}" if self.prompt else "where it is active"
        up, down = (", ".join(repr(one.token) for one in side[:5]) for side in (self.raised, self.lowered))
        return f"{self.component} raises {up} and lowers {down} {where}."

    def to_frame(self) -> pd.DataFrame:
        """One row a token, from the most raised to the most lowered: ``token``, ``id``, ``value``."""
        import pandas as pd

        every = [*self.raised, *reversed(self.lowered)]
        return pd.DataFrame([{"token": one.token, "id": one.id, "value": one.value} for one in every])
