"""A stack of edits: its layers, how they overlap, and which earlier fact a later edit broke."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from workbench.types.edit import Edit
from workbench.types.report import AnswerClass

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

OverlapKind = Literal["keys", "gates", "weights"]
"""What two edits share at a place: directions of inputs that low-rank updates read, gates that both move, or the update
of one weight matrix."""


@dataclass(frozen=True, kw_only=True)
class StackLayer:
    """An edit in a stack.

    Args:
        edit: The edit.
        on: Whether it acts.
        strength: How strongly (as for ``applied``).
        stage: Its stages up to this one; None for all.
    """

    edit: Edit
    on: bool = True
    strength: float = 1.0
    stage: str | None = None

    @property
    def acts(self) -> bool:
        """Whether it changes anything: it is on, and its strength is not 0."""
        return self.on and self.strength != 0

    @property
    def last_stage(self) -> str:
        """The last of its stages that acts."""
        return self.stage or self.edit.stage_names[-1]

    @property
    def key(self) -> tuple[str, str, float]:
        """What decides what it does to a model."""
        return self.edit.id, self.last_stage, self.strength

    @property
    def name(self) -> str:
        """The ids of its facts."""
        return ", ".join(fact.id for fact in self.edit.facts)


@dataclass(frozen=True, kw_only=True)
class OverlapRow:
    """What two edits of a stack share at one place.

    Args:
        first, second: Their places in the stack, from 0.
        kind: What is compared.
        place: The module, or the gate site: ``"L13 mlp.down_proj"``, ``"L13 post"``.
        cosine: Keys: the largest absolute cosine of a direction that one reads and one that the other reads. Gates: the
            cosine of how far both move them from 1. Weights: the cosine of both updates.
        shared: Keys: how many dimensions of the smaller space of directions lie in the other one (the sum of squared
            cosines of the principal angles). Gates: how many both move. Weights: how many entries both change.
        of: Of how many: the smaller edit's rank, moved gates or changed entries at the place.
    """

    first: int
    second: int
    kind: OverlapKind
    place: str
    cosine: float
    shared: float
    of: int


@dataclass(frozen=True, kw_only=True)
class NormRow:
    """How far the edits of a stack up to one have moved the weights.

    Args:
        layer: The edit's place in the stack, from 0.
        change: |W' - W| / |W| over all weight matrices that the stack changes (Frobenius norms).
        norm: |W'| / |W| over the same.
        place: The matrix with the largest change.
        largest: Its |W' - W| / |W|.
    """

    layer: int
    change: float
    norm: float
    place: str
    largest: float


@dataclass(frozen=True, kw_only=True)
class StackOverlaps:
    """How the edits of a stack that are on overlap, and how the weights' norms grow with each. Made by
    ``EditStack.overlaps``.

    Args:
        names: Of the stack's edits: their facts' ids.
        rows: What two edits share, at each place where both do something; the largest share first.
        norms: After each edit that is on.

    Example:
        >>> stack = wb.EditStack(model, [edit, edit])
        >>> found = stack.overlaps()
        >>> [(row.kind, row.place, row.shared, row.of) for row in found.rows[:2]]
        [('gates', 'L1 post', 56, 56), ('gates', 'L2 post', 56, 56)]
    """

    names: tuple[str, ...]
    rows: tuple[OverlapRow, ...]
    norms: tuple[NormRow, ...]

    @property
    def words(self) -> str:
        """The finding in words."""
        return "\n".join((*_overlap_words(self), *_norm_words(self)))

    def largest(self, most: int) -> list[OverlapRow]:
        """Of every two edits at most so many places: those with the largest share."""
        seen: dict[tuple[int, int], int] = {}
        out: list[OverlapRow] = []
        for row in self.rows:
            pair = row.first, row.second
            seen[pair] = seen.get(pair, 0) + 1
            if seen[pair] <= most:
                out.append(row)
        return out

    def to_frame(self) -> pd.DataFrame:
        """``rows`` as a table, with the edits' names."""
        import pandas as pd

        columns = ["kind", "place", "cosine", "shared", "of"]
        rows = [
            {
                "first": self.names[row.first],
                "second": self.names[row.second],
                **{c: getattr(row, c) for c in columns},
            }
            for row in self.rows
        ]
        return pd.DataFrame(rows, columns=["first", "second", *columns])

    def norms_frame(self) -> pd.DataFrame:
        """``norms`` as a table, with the edits' names."""
        import pandas as pd

        columns = ["change", "norm", "place", "largest"]
        rows = [{"after": self.names[row.layer], **{c: getattr(row, c) for c in columns}} for row in self.norms]
        return pd.DataFrame(rows, columns=["after", *columns])

    def plot(self, **options: Any) -> go.Figure:
        """Draw what each pair of edits shares, and the weights' change after each edit (see
        ``workbench.plots.overlaps_figure``)."""
        from workbench.plots import overlaps_figure

        return overlaps_figure(self, **options)

    def __repr__(self) -> str:
        return f"StackOverlaps({len(self.names)} edits, {len(self.rows)} places in common)"

    def _repr_html_(self) -> str:
        return _paragraphs(self.words.splitlines()) + self.to_frame().to_html(escape=True)


@dataclass(frozen=True, kw_only=True)
class StackAnswer:
    """What a fact's question is answered after some edits of a stack.

    Args:
        fact_id: The fact.
        after: How many of the edits are on, of those that are on, from the first; 0 for the base.
        edit: The place in the stack of the last of them, from 0; -1 for the base.
        text: The greedy answer.
        label: Its class.
        holds: Whether it is as it should be: the target once an edit has taught it, no old answer once one has made it
            forget, and the old answer before. None where it never was as it should be, so that nothing can break.
    """

    fact_id: str
    after: int
    edit: int
    text: str
    label: AnswerClass
    holds: bool | None


@dataclass(frozen=True, kw_only=True)
class BrokenFact:
    """A fact whose answer an edit of a stack broke.

    Args:
        fact_id: The fact.
        by: The place of the edit in the stack, from 0.
        before, after: The answers without it and with it.
    """

    fact_id: str
    by: int
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class StackAnswers:
    """What some facts' questions are answered after each edit of a stack, and which edit broke which fact. Made by
    ``EditStack.broken``.

    Args:
        names: Of the stack's edits: their facts' ids.
        rows: By fact, the base first.

    Example:
        >>> found = wb.EditStack(model, [edit]).broken(facts["japan-capital"])
        >>> [(row.fact_id, row.after, row.label, row.holds) for row in found.rows]
        [('france-capital', 0, 'old', True), ('france-capital', 1, 'new', True), ('japan-capital', 0, 'old', True), ...
    """

    names: tuple[str, ...]
    rows: tuple[StackAnswer, ...]

    @property
    def broken(self) -> tuple[BrokenFact, ...]:
        """Each fact that an edit broke, whether a later edit mended it or not."""
        out: list[BrokenFact] = []
        for before, after in zip(self.rows, self.rows[1:], strict=False):
            if before.fact_id == after.fact_id and before.holds and after.holds is False:
                out.append(BrokenFact(fact_id=after.fact_id, by=after.edit, before=before.text, after=after.text))
        return tuple(out)

    @property
    def facts(self) -> tuple[str, ...]:
        """Ids of the facts that were asked."""
        return tuple(dict.fromkeys(row.fact_id for row in self.rows))

    @property
    def words(self) -> str:
        """The finding in words."""
        never = [id for id in self.facts if all(row.holds is None for row in self.rows if row.fact_id == id)]
        broken = [f"{b.fact_id} was broken by {self.names[b.by]}: {b.before!r} became {b.after!r}" for b in self.broken]
        asked = len(self.facts) - len(never)
        lines = broken or ([f"No edit broke one of the {asked} facts."] if asked else [])
        if never:
            lines.append(f"Never answered as it should be, so nothing could break: {', '.join(never)}.")
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """``rows`` as a table, with the edits' names."""
        import pandas as pd

        rows = [
            {
                "fact": row.fact_id,
                "after": "base" if row.edit < 0 else self.names[row.edit],
                "text": row.text,
                "label": row.label,
                "holds": row.holds,
            }
            for row in self.rows
        ]
        return pd.DataFrame(rows, columns=["fact", "after", "text", "label", "holds"])

    def plot(self, **options: Any) -> go.Figure:
        """Draw the answers' classes by fact and edit (see ``workbench.plots.broken_figure``)."""
        from workbench.plots import broken_figure

        return broken_figure(self, **options)

    def __repr__(self) -> str:
        return f"StackAnswers({len(self.facts)} facts, {len(self.broken)} broken)"

    def _repr_html_(self) -> str:
        return _paragraphs(self.words.splitlines()) + self.to_frame().to_html(escape=True)


def _overlap_words(found: StackOverlaps) -> Iterable[str]:
    """For each pair of edits, where they share most."""
    pairs: dict[tuple[int, int], OverlapRow] = {}
    for row in found.rows:
        pairs.setdefault((row.first, row.second), row)
    for (first, second), row in pairs.items():
        unit = {"keys": "directions", "gates": "gates", "weights": "changed weights"}[row.kind]
        yield (
            f"{found.names[first]} and {found.names[second]} share {row.shared:.3g} of {row.of:,} {unit} at "
            f"{row.place} (cosine {row.cosine:.2f})."
        )
    if not pairs:
        yield "No two edits that are on share a place."


def _norm_words(found: StackOverlaps) -> Iterable[str]:
    for row in found.norms:
        yield (
            f"After {found.names[row.layer]}: the changed weights are {row.change:.2%} away from the base's, most at "
            f"{row.place} ({row.largest:.2%})."
        )


def _paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)
