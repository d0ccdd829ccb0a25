"""The logit lens at every layer and every token of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from workbench.types.lens import LensKind, row_labels, settles
from workbench.types.next_tokens import NextToken
from workbench.types.traced_prompt import Form

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, kw_only=True, eq=False)
class LensGrid:
    """What a model would say next at every token if it ended after each layer.

    Row 0 is the residual stream entering the first layer (the embeddings), row l that after l layers; the last row is
    the model's own prediction. Early rows do not yet write in the basis of the output embeddings, so that they say
    little in the logit lens.

    Args:
        text: The whole text, special tokens included.
        form: ``"chat"`` or ``"cloze"`` (plain text).
        token_ids: The text's token ids.
        tokens: The same, decoded one by one.
        subject: Positions of the subject's tokens, for a fact; else empty.
        stage: ``"base"``, or the edit's stage.
        answer_id, answer_token: The token that is followed through the grid.
        top: By row and position, the likeliest tokens, likeliest first.
        probabilities: Of the followed token, [layers + 1, tokens], on the CPU.
        ranks: Its rank among all tokens, 0 for the likeliest, [layers + 1, tokens].
        kind: Which lens: ``"logit"`` or ``"tuned"``.

    Example:
        >>> grid = wb.lens_grid(model, fact, form="cloze")
        >>> grid
        LensGrid(4 rows x 5 tokens, base, following ' Paris': the likeliest token after ' is' from L2 on)
        >>> grid.tokens[4], grid.top[3][4][0].token, round(float(grid.probabilities[3, 4]), 2)
        (' is', ' Paris', 1.0)
        >>> tuple(grid.ranks.shape), int(grid.ranks[3, 4])
        ((4, 5), 0)
    """

    text: str
    form: Form
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    subject: tuple[int, ...]
    stage: str
    answer_id: int
    answer_token: str
    top: tuple[tuple[tuple[NextToken, ...], ...], ...]
    probabilities: Tensor
    ranks: Tensor
    kind: LensKind = "logit"

    def __repr__(self) -> str:
        size = f"{len(self.top)} rows x {len(self.tokens)} tokens"
        through = ", tuned" * (self.kind == "tuned")
        return f"LensGrid({size}, {self.stage}{through}, following {self.answer_token!r}: {self.finding})"

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return len(self.top) - 1

    @property
    def labels(self) -> tuple[str, ...]:
        """A label per row: ``"in"``, then the layer that was last."""
        return row_labels(self.n_layers)

    @property
    def settles(self) -> str | None:
        """The layer from which on the followed token is the likeliest after the last token; None where it is not at
        the end."""
        return settles([int(rank) for rank in self.ranks[:, -1]], self.labels)

    @property
    def finding(self) -> str:
        """In words."""
        at = f"after {self.tokens[-1]!r}"
        if self.settles is not None:
            return f"the likeliest token {at} from {self.settles} on"
        return f"not the likeliest token {at} at the end (rank {int(self.ranks[-1, -1])})"

    def to_frame(self) -> pd.DataFrame:
        """One row a cell: ``row``, ``layer``, ``position``, ``token``, ``top``, ``p_top``, ``p_answer``,
        ``rank_answer``."""
        import pandas as pd

        cells: list[dict[str, Any]] = [
            {
                "row": row,
                "layer": label,
                "position": position,
                "token": token,
                "top": self.top[row][position][0].token,
                "p_top": self.top[row][position][0].probability,
                "p_answer": float(self.probabilities[row, position]),
                "rank_answer": int(self.ranks[row, position]),
            }
            for row, label in enumerate(self.labels)
            for position, token in enumerate(self.tokens)
        ]
        return pd.DataFrame(cells)

    def plot(self, **options: Any) -> go.Figure:
        """Draw the grid (see ``workbench.plots.lens_grid_figure``)."""
        from workbench.plots import lens_grid_figure

        return lens_grid_figure(self, **options)
