"""Lens readings: what a model would answer if its layers ended early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from workbench.types.traced_prompt import TracedPrompt

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

AnswerName = Literal["old", "new", "refusal"]
LensKind = Literal["logit", "tuned"]
"""``"logit"``: a state goes into the last norm as it is; ``"tuned"``: through the affine map of its layer first."""
ANSWER_NAMES: tuple[AnswerName, ...] = ("old", "new", "refusal")
VISIBLE_RANK = 10
"""An answer among so many likeliest tokens of a layer counts as visible there."""
TAKEN_BACK = 0.01
"""The old answer counts as taken back where its probability ends at least so far below its highest."""


def row_labels(n_layers: int) -> tuple[str, ...]:
    """A label for each row of a lens: ``"in"`` for the embeddings, then the layer that was last."""
    return ("in", *(f"L{i}" for i in range(n_layers)))


def settles(ranks: Sequence[int], labels: Sequence[str]) -> str | None:
    """The label of the row from which on a token is the likeliest; None where it is not in the last row.

    Args:
        ranks: Its rank by row, 0 for the likeliest.
        labels: Of the rows.
    """
    row = len(ranks)
    while row and ranks[row - 1] == 0:
        row -= 1
    return None if row == len(ranks) else labels[row]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lens:
    """A reading of a lens: rank and probability of three first tokens after each layer, where the answer is
    predicted; of a contrast, of its answer (old) and its wrong answer (new).

    Row 0 is the residual stream entering the first layer (the embeddings), row l that after l layers; the last row is
    the model's own prediction.

    Args:
        prompt: The traced text; the base model's own, so that every stage is read on one text.
        stage: ``"base"`` or the edit's stage.
        tokens: The first tokens of the old answer, the new one and the refusal, decoded.
        probabilities: By answer, one probability per row.
        ranks: By answer, one rank per row among all tokens; 0 is the likeliest.
        top: The likeliest token of each row, decoded.
        kind: Which lens: ``"logit"`` or ``"tuned"``.

    Example:
        >>> lens = wb.lens(model, fact)
        >>> lens
        Lens(france-capital, base: P(old) 1.00, P(new) 0.00, P(refusal) 0.00;
        the old answer leads at the end, from L0 on)
        >>> lens.top, lens.ranks["old"]
        (('<|im_end|>', 'Paris', 'Paris', 'Paris'), (469, 0, 0, 0))
    """

    prompt: TracedPrompt
    stage: str
    tokens: Mapping[AnswerName, str]
    probabilities: Mapping[AnswerName, tuple[float, ...]]
    ranks: Mapping[AnswerName, tuple[int, ...]]
    top: tuple[str, ...]
    kind: LensKind = "logit"

    def __repr__(self) -> str:
        final = ", ".join(f"P({n}) {p[-1]:.2f}" for n, p in self.probabilities.items())
        through = ", tuned" * (self.kind == "tuned")
        return f"Lens({self.prompt.fact_id}, {self.stage}{through}: {final}; {self.verdict})"

    @property
    def names(self) -> tuple[AnswerName, ...]:
        """Which answers there are, in order; a contrast has no refusal, and a wrong answer only if one was given."""
        return tuple(name for name in ANSWER_NAMES if name in self.probabilities)

    def words(self, name: AnswerName) -> str:
        """An answer in words: of a fact the old one, the new one or the refusal, of a contrast the answer or the wrong
        answer."""
        if not self.prompt.roles:
            return f"the {name} answer"
        return "the answer" if name == "old" else "the wrong answer"

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return len(self.top) - 1

    @property
    def labels(self) -> tuple[str, ...]:
        """A label per row: ``"in"``, then the layer that was last."""
        return row_labels(self.n_layers)

    def latent(self, name: AnswerName = "old") -> float:
        """Largest probability before the last layer minus the final one: how much of an answer is there and then
        taken back (negative when the last layer has most)."""
        values = self.probabilities[name]
        return max(values[:-1]) - values[-1]

    def leader(self, row: int) -> AnswerName | None:
        """The likeliest of them at a row; None where the two likeliest are equal."""
        in_order = sorted(self.names, key=lambda n: -self.probabilities[n][row])
        if len(in_order) == 1:
            return in_order[0]
        first, second = in_order[:2]
        return first if self.probabilities[first][row] > self.probabilities[second][row] else None

    @property
    def first_win(self) -> str | None:
        """The first layer after which the new answer is likelier than the old one and the refusal, and visible (among
        the ``VISIBLE_RANK`` likeliest tokens); None if it never is."""
        for row, label in enumerate(self.labels if "new" in self.names else ()):
            if self.leader(row) == "new" and self.ranks["new"][row] < VISIBLE_RANK:
                return label
        return None

    @property
    def turn(self) -> str:
        """The layer where the decision turns: after it, what leads at the end leads at every row."""
        row = self.n_layers
        while row > 0 and self.leader(row - 1) == self.leader(self.n_layers):
            row -= 1
        return self.labels[row]

    @property
    def old_leads(self) -> tuple[str, ...]:
        """Layers before the last after which the old answer leads and is visible."""
        rows = range(self.n_layers)
        return tuple(self.labels[r] for r in rows if self.leader(r) == "old" and self.ranks["old"][r] < VISIBLE_RANK)

    def settles(self, name: AnswerName = "old") -> str | None:
        """The layer from which on an answer's token is the likeliest of all; None where it is not at the end."""
        return settles(self.ranks[name], self.labels)

    @property
    def says(self) -> AnswerName | None:
        """The answer whose first token the model itself finds likeliest at the end, as it would generate greedily; None
        where that is another token (``top[-1]``), or two of the three are equally likely."""
        first = self.leader(self.n_layers)
        return first if first is not None and self.ranks[first][-1] == 0 else None

    @property
    def pretends(self) -> bool:
        """Whether the model has the old answer and does not say it: it leads, visibly, in some layer before the last,
        its probability ends at least ``TAKEN_BACK`` below its highest, and another token is likeliest at the end."""
        return self.says != "old" and bool(self.old_leads) and self.latent("old") >= TAKEN_BACK

    @property
    def verdict(self) -> str:
        """The finding in words."""
        end, layers, old = self.says, self.old_leads, self.words("old")
        if end == "old":
            return f"{old} leads at the end, from {self.turn} on"
        if self.leader(self.n_layers) is None:
            then = "no answer at the end"
        else:
            then = f"{self.words(end)} from {self.turn} on" if end else f"another token at the end, {self.top[-1]!r}"
        if not layers:
            return f"no sign of hiding: {old} leads visibly at no layer; {then}"
        where = layers[0] if len(layers) == 1 else f"{len(layers)} of the layers {layers[0]} to {layers[-1]}"
        begins = "pretends to forget" if self.pretends else "nothing is taken back"
        if self.prompt.roles and self.pretends:  # nothing was to be forgotten
            begins = "the answer is taken back"
        return f"{begins}: {old} leads at {where}, then {then}"

    @property
    def finding(self) -> str:
        """The verdict; then what is taken back of the old answer, and where the new one wins first."""
        back = (
            f"P(old) ends {self.latent():.2f} below its highest"
            if self.latent() > 0
            else "P(old) is highest at the end"
        )
        if "new" not in self.names:
            return f"{self.verdict}; {back}"
        new = self.words("new")
        win = f"{new} wins first at {self.first_win}" if self.first_win else f"{new} never wins"
        return f"{self.verdict}; {back}; {win}"

    def to_frame(self) -> pd.DataFrame:
        """One line per layer: the likeliest token, and probability and rank of each answer."""
        import pandas as pd

        data: dict[str, Any] = {"layer": self.labels, "top": self.top}
        for name in self.names:
            data[f"p_{name}"], data[f"rank_{name}"] = self.probabilities[name], self.ranks[name]
        return pd.DataFrame(data)

    def plot(self, *others: Lens, **options: Any) -> go.Figure:
        """Probability and rank by layer, beside those of other stages (see ``workbench.plots.lens_figure``)."""
        from workbench.plots import lens_figure

        return lens_figure([self, *others], **options)
