"""Three maps side by side, before, after and the difference, with one cursor and one colour scale."""

from __future__ import annotations

from collections.abc import Sequence

import traitlets
from ipywidgets import HTML, GridBox, VBox

from workbench.comparing.maps import MapComparison
from workbench.plots.style import short_number, visible
from workbench.types import FactSet
from workbench.widgets.compare.wanted import Compared, Wanted
from workbench.widgets.compare.words import at_words, strength_words
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.picker.maps import left_out
from workbench.widgets.shared import markup
from workbench.widgets.shared.partner_words import everywhere

SITE_WORDS = {
    "resid": "Trace of the residual stream",
    "mlp": "Trace of MLPs",
    "attn": "Trace of attention",
    "head": "Attention heads",
}
BASES_RANGE = "recovery of the logit difference by the base's range: 0 its corrupted run, 1 its clean run, in both maps"
_COLUMNS = "repeat(auto-fit, minmax(min(100%, 280px), 1fr))"  # all of one width, also where the third wraps


class BeforeAfterMaps(VBox):
    """Shows a ``MapComparison``; empty at first."""

    def __init__(self) -> None:
        self._note, self._row = HTML(), GridBox(layout={"grid_template_columns": _COLUMNS})
        self.grids: tuple[HeatGrid, ...] = ()
        super().__init__([self._note, self._row])

    def show(self, found: Compared | None, *, pool: FactSet | None, groups: Sequence[int] = ()) -> None:
        """Show these maps, or none. Tokens before the subject, where every effect is exactly 0, are left out.

        Args:
            found: The maps.
            pool: Where the swapped subject came from.
            groups: First head of each key-value group; lines on a map of heads.
        """
        for old in self.grids:
            old.close()
        self.grids = self._row.children = ()
        self._note.value = ""
        if found is None:
            return
        result, partner = found.result, found.partner_subject(pool)
        before, axis = result.before, result.before.axes[1]
        first = left_out(before)
        names = ("Before", f"After {result.stage}", "After minus before")
        of_heads = axis == "head"
        maps = (before, result.after, result.difference)
        self.grids = tuple(
            HeatGrid(
                effect.values[:, first:],
                rows=before.labels["layer"],
                cols=[label if of_heads else visible(label) for label in before.labels[axis][first:]],
                title=name,
                col_title="Head" if of_heads else "Token",
                naming="{row}{col}" if of_heads else "{row} at {col}",
                group_name="KV" if of_heads else "",
                unit=before.value_words.unit,
                selectable=False,
                groups=groups if of_heads else (),
                marked=[i - first for i in before.subject],
                limit=result.limit or None,
                height=360,
            )
            for name, effect in zip(names, maps, strict=True)
        )
        for other in self.grids[1:]:
            traitlets.link((self.grids[0], "cursor"), (other, "cursor"))
        self._row.children = self.grids
        self._note.value = markup.block(markup.text(_words(result, partner, first)))


def maps_title(shown: Compared | None, wanted: Wanted) -> str:
    """Which edited model the maps are of and how they are measured, as markup.

    Args:
        shown: The maps in sight, if there are any.
        wanted: What the menus and the slider say.
    """
    at = shown.wanted if shown else wanted
    lines = [f"{SITE_WORDS[at.site]}; {BASES_RANGE if at.measure.normalise else at.measure.words}."]
    if shown and shown.note:
        lines.append(f"Note: {shown.note}")
    if shown is None:
        lines.append("Not compared yet with these choices: Compare computes their maps.")
    if at.strength != wanted.strength:
        lines.append(f"The slider is at {strength_words(wanted.strength)}: Compare computes the maps there.")
    return markup.title(f"Before and after: {at_words(at.stage, at.strength)}", " ".join(lines))


def step_words(seconds: float, done: int, total: int) -> markup.Progress:
    """How far two maps are.

    Args:
        seconds: Since the start.
        done, total: In layers of maps.
    """
    which = "before" if 2 * done < total else "after"
    rest = f", about {seconds / done * (total - done):.0f} s left" if done else ""
    return markup.Progress(f"Map {which} the edit: {seconds:.0f} s{rest}", done, total)


def _words(result: MapComparison, partner: str, first: int) -> str:
    before, prompt = result.before, result.before.prompts[0]
    swap = f", swapped with {partner}{everywhere(prompt)}" if partner else ""
    hidden = f" The {first} tokens before the subject have no effect and are not shown." if first else ""
    title = before.title[:1].upper() + before.title[1:]
    return (
        f"{title}, {prompt.form} form{swap}, token {visible(prompt.answer_token)}. "
        f"{before.metric_words.title} of the clean run: {short_number(before.clean)} before, "
        f"{short_number(result.after.clean)} after. One colour scale for all three.{hidden}"
        + "".join(f" {note}" for note in before.notes)
    )
