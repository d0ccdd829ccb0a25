"""Mean attention between named positions of several texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from workbench.types.selection import Component
from workbench.types.traced_prompt import TracedPrompt

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMeans:
    """Attention weights of several texts, from role to role: of each text the mean over the tokens that look from a
    role, of the sum over the tokens of a role that they look at; then the mean over texts. Rows sum to 1 where every
    text has the role that is looked from; NaN where none has it.

    Args:
        weights: [layer, head, role of the query, role of the key], on the CPU.
        stderr: Standard error over texts, in the same shape; None for one text.
        roles: Names of positions, in reading order.
        layers: Which layers.
        prompts: The texts.

    Example:
        >>> means = wb.attention_patterns(model, facts[:2], form="cloze")
        >>> means.roles
        ('tokens before the subject', 'last subject token', 'last token')
        >>> tuple(means.weights.shape), means.n, means.to_frame("L1H3").shape
        ((3, 6, 3, 3), 2, (3, 3))
    """

    weights: Tensor
    stderr: Tensor | None
    roles: tuple[str, ...]
    layers: Sequence[int]
    prompts: tuple[TracedPrompt, ...]

    @property
    def n(self) -> int:
        """How many texts."""
        return len(self.prompts)

    def to_frame(self, head: str) -> pd.DataFrame:
        """The weights of one head, roles that look as rows.

        Args:
            head: A query head, such as ``"L1H3"``.
        """
        import pandas as pd

        component = Component.parse(head)
        assert component.index is not None
        at = list(self.layers).index(component.layer), component.index
        return pd.DataFrame(self.weights[at].numpy(), index=self.roles, columns=self.roles)
