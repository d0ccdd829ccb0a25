"""EdgesRun: a button that scores all edges before and after an edit, and a table of those that changed.

It runs when it is asked to: every edge of a model takes longer than a map. What was scored is there again when the
choices come back to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ipywidgets import HTML

from workbench.models.load import LoadedModel
from workbench.plots.style import short_number
from workbench.types import CHANGE_KINDS, ChangeKind, EdgeComparison, Edit, FactSet
from workbench.widgets.compare.code import edges_code
from workbench.widgets.compare.wanted import EdgesCompared, Wanted, compute_edges
from workbench.widgets.compare.words import at_words, strength_words
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.controls import Dropdown
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.run_panel import RunPanel, RunWords
from workbench.widgets.shared.text_card import text_card_png

SHOWN = 30
"""Most rows of the table."""
MEANINGS: dict[ChangeKind, str] = {
    "new": "Among the largest after the edit, not before, and its score grew in size.",
    "gone": "Among the largest before, not after, and its score shrank in size.",
    "turned": "Its score has the other sign.",
    "weakened": "Its score shrank in size.",
    "strengthened": "Its score grew in size.",
}
_PARTS = ("before the edit", "after the edit", "at strength 0, the control")


class EdgesRun(RunPanel[EdgeComparison]):
    """The edges of a ``CompareView``.

    Args:
        model: The edits' base.
        pool: Where swap partners come from; None for the bundled facts.
        wanted: Gives the edit, and what the view's menus and slider say.
        lock: Of the view, so that a run that ends and a menu that changes never wait for each other.
        on_show: Called without arguments when other edges are shown.
    """

    WORDS = RunWords(
        label="Compare edges",
        icon="share-alt",
        tip="Score every edge before and after, at the stage and the strength above",
        cancel_tip="Stop after the map of edges going on",
        refused="Edges are being compared already; wait for it or stop it.",
        cancelling="Stopping: it ends after the map of edges that is going on.",
        bold=False,
    )
    TICK_SECONDS = 1.0

    def __init__(
        self,
        model: LoadedModel,
        pool: FactSet | None,
        wanted: Callable[[], tuple[Edit, Wanted]],
        lock: threading.RLock,
        on_show: Callable[[], object],
    ) -> None:
        super().__init__()
        self._lock = lock
        self._model, self._pool, self._wanted, self._on_show = model, pool, wanted, on_show
        self._all: dict[tuple[str, Wanted], EdgesCompared] = {}
        self._found: EdgesCompared | None = None
        self._asked: tuple[str, Wanted] | None = None
        self._followed: tuple[str, Wanted] | None = None
        self._done = (0, len(_PARTS))
        self._summary, self._table = HTML(), HTML()
        self._kind = Dropdown(
            description="Changes", options=[("All", ""), *((k.capitalize(), k) for k in CHANGE_KINDS)]
        )
        self._menu = layout.fields(self._kind)
        self._cancel.description = "Stop edges"  # Cancel is the maps'
        self._kind.observe(lambda _: self._show_table(), names="value")
        layout.show(self._menu, False)
        self._lay_out(self._heading, self._buttons(), self._alert, self._summary, self._menu, self._table)
        self._recheck()

    def __repr__(self) -> str:
        return f"EdgesRun({'not run' if self._found is None else self._found.result})"

    @property
    def result(self) -> EdgeComparison | None:
        """The changes that are shown; they say at which strength they are."""
        return None if self._found is None else self._found.result

    @property
    def arguments(self) -> str:
        """The keywords of ``compare_edges`` for what is shown; empty where nothing is."""
        return "" if self._found is None else self._found.arguments

    @property
    def code(self) -> str:
        """Python that repeats it, once ``model``, ``edit`` and the fact as ``traced`` are there."""
        return edges_code(self.arguments, self._pool)

    def follow(self) -> None:
        """Show the edges of what the view's menus and slider say, where they are scored; else none. Those of another
        strength than the slider's stay, and say so."""
        with self._lock:
            edit, wanted = self._of_now()
            if self._followed != (edit.id, wanted) and not self._busy:  # what was said is of other choices
                self._fail(None)
                self._say_plainly("")
            self._followed = edit.id, wanted
            others = [c for (one, at), c in self._all.items() if one == edit.id and at.but_for_strength(wanted)]
            found = self._all.get((edit.id, wanted)) or (others[-1] if others else None)
            self._heading.value = title_of(found, wanted)
            if found is not self._found:
                self._found = found
                layout.show(self._menu, found is not None)
                self._show_table()

    def _of_now(self) -> tuple[Edit, Wanted]:
        edit, wanted = self._wanted()
        return edit, wanted.of_edges

    def _order(self) -> Callable[[threading.Event], EdgeComparison]:
        edit, wanted = self._of_now()
        self._asked = edit.id, wanted
        there = self._all.get(self._asked)
        self._done = (0, len(_PARTS))
        self._say(f"Edges {_PARTS[0]}")

        def work(cancel: threading.Event) -> EdgeComparison:
            done = there or compute_edges(self._model, edit, wanted, self._pool, on_step=self._step, cancel=cancel)
            with self._lock:
                self._all[edit.id, wanted] = done
            return done.result

        return work

    def _step(self, done: int, total: int) -> None:
        self._done = done, total
        self._tick()

    def _tick(self) -> None:
        with self._lock:
            done, total = self._done
            if self._busy and self._job is not None and self._going and done < total:
                words = f"Edges {_PARTS[done]}: {self._job.seconds:.0f} s"
                self._say(markup.Progress(words, done, total))

    def _finished(self, job: Job[EdgeComparison]) -> None:
        self.follow()
        self._on_show()

    def _ended(self, job: Job[EdgeComparison]) -> None:
        with self._lock:
            super()._ended(job)
            if self._asked != self._followed:
                self._tell()
                done = job.state == "done"
                self._say_plainly("Scored for other choices, which show it when you come back to them." if done else "")

    def _show_table(self) -> None:
        kind: ChangeKind | None = self._kind.value or None
        self._summary.value = "" if self._found is None else summary_markup(self._found.result)
        self._table.value = "" if self._found is None else changes_markup(self._found.result, kind)

    def _picture(self) -> bytes:
        return text_card_png("Edges", [] if self._found is None else [repr(self._found.result)])


def title_of(found: EdgesCompared | None, wanted: Wanted) -> str:
    """Which edited model the edges are of and how they are scored, as markup.

    Args:
        found: The edges in sight, if there are any.
        wanted: What the menus and the slider say.
    """
    at = found.wanted if found else wanted
    lines = [
        f"Change of the {at.measure.words} of the clean run where an edge alone carries the corrupted write: negative "
        "on an edge that the answer rests on."
    ]
    if found and found.note:
        lines.append(f"Note: {found.note}")
    if found is None:
        lines.append("The edges are not scored yet with these choices.")
    if at.strength != wanted.strength:
        lines.append(f"The slider is at {strength_words(wanted.strength)}: Compare edges scores them there.")
    return markup.title(f"Edges before and after: {at_words(at.stage, at.strength)}", " ".join(lines))


def summary_markup(changes: EdgeComparison) -> str:
    """What changed in a sentence, with the control, and how exact the scores are."""
    estimated = (
        f"The scores are estimates by gradients ({changes.before.method}); method='patching' with "
        "chosen=changes.circuit() measures these edges exactly."
    )
    return markup.block(f"<p>{markup.text(changes.words)}</p>") + markup.hint(estimated)


def changes_markup(changes: EdgeComparison, kind: ChangeKind | None = None) -> str:
    """A row an edge, the largest change first.

    Args:
        changes: The edges.
        kind: Only changes of this kind; None for all.
    """
    chosen = changes.changes if kind is None else changes.of(kind)
    unit = changes.before.metric_words.unit
    rows = [
        [
            one.edge,
            short_number(one.before),
            short_number(one.after),
            ("+" if one.change > 0 else "") + short_number(one.change),
            markup.tag(one.kind),
        ]
        for one in chosen[:SHOWN]
    ]
    parts: list[str] = []
    if rows:
        caption = f"Edges that changed, the largest change first ({unit})"
        parts.append(markup.table(["edge", "before", "after", "change", "what happened"], rows, caption))
    else:
        parts.append(markup.hint("No edge among the largest changed." if kind is None else f"No edge is {kind}."))
    if len(chosen) > SHOWN:
        parts.append(markup.hint(f"The {SHOWN} largest of {len(chosen)} are shown. The code gives all: to_frame()."))
    meanings = [[markup.tag(name), words] for name, words in MEANINGS.items()]
    parts.append(markup.fold("What the words mean", markup.table(["word", "meaning"], meanings)))
    return "".join(parts)
