"""Patchscopes: what a state of one text says when it is put into another text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.types.next_tokens import NextToken

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Patchscope:
    """What a model says of states of one position, layer by layer, when each is put into a target prompt.

    Args:
        tokens: The source text, decoded token by token.
        position: Where its states are from.
        layers: Layers that they enter; the number of layers stands for the end of the last one.
        target_tokens: The target prompt, decoded token by token.
        target_position: Where they are put.
        target_layers: Which layer each enters there.
        top: By state, the likeliest next tokens after the target prompt, likeliest first.
        texts: By state, the greedy continuation.
        unpatched: The greedy continuation of the target prompt as it is, for comparison.
        stage: ``"base"`` or the edit's stage, of the model that read the source.

    Example:
        >>> scope = wb.patchscope(model, fact, layers=[0, 3], target_layer=0, form="cloze", max_new_tokens=2)
        >>> scope
        Patchscope(' is' (4), 2 layers, into ...)
        >>> len(scope.texts), len(scope.top[0])
        (2, 5)
    """

    tokens: tuple[str, ...]
    position: int
    layers: tuple[int, ...]
    target_tokens: tuple[str, ...]
    target_position: int
    target_layers: tuple[int, ...]
    top: tuple[tuple[NextToken, ...], ...]
    texts: tuple[str, ...]
    unpatched: str
    stage: str = "base"

    def __repr__(self) -> str:
        source = f"{self.tokens[self.position]!r} ({self.position})"
        place = f"{self.target_tokens[self.target_position]!r} ({self.target_position})"
        beginning = " ".join("".join(self.target_tokens).split()[:3])
        of = f"{len(self.layers)} layer{'s' * (len(self.layers) != 1)}"
        return f"Patchscope({source}, {of}, into {place} of '{beginning} ...')"

    def to_frame(self) -> pd.DataFrame:
        """One row a state: ``layer``, ``target_layer``, ``top``, ``p_top``, ``text``."""
        import pandas as pd

        return pd.DataFrame(
            {
                "layer": self.layers,
                "target_layer": self.target_layers,
                "top": [tokens[0].token for tokens in self.top],
                "p_top": [tokens[0].probability for tokens in self.top],
                "text": self.texts,
            }
        )
