"""EdgeScoring: the scores of a question's edges, paths and recovery; the half of a ``CircuitGraph`` that computes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from workbench.circuits.edges import edges as score_edges
from workbench.circuits.faithfulness import faithfulness
from workbench.circuits.paths import path_patch
from workbench.facts.known import load_facts
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.tracing.corruption import choose_partner
from workbench.types import Circuit, Contrast, EdgeMap, Fact, FactSet, Faithfulness, Form, PathEffect, Selection
from workbench.types.cancelling import check_cancel
from workbench.types.contrast import Traced
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.run_panel import RunPanel, RunWords


class EdgeScoring(RunPanel[EdgeMap]):
    """Scores edges in the background.

    Args:
        model: A base or edited model.
        items: The facts or contrasts.
        options: Of ``edges`` alone: the method and its steps. What paths and recovery share is ``_measure``.
        pool: Where swap partners come from.
    """

    WORDS = RunWords(
        label="Score edges",
        icon="share-alt",
        tip="Score every edge, in the background",
        cancel_tip="Stop after the item going on",
        refused="The edges are being scored already; wait for it or cancel.",
        cancelling="Cancelling: it stops after the item that is going on.",
    )

    def __init__(
        self, model: LoadedModel, items: list[Fact] | list[Contrast], options: dict[str, Any], pool: FactSet | None
    ) -> None:
        super().__init__()
        self._model, self._pool, self._options = model, pool, options
        self._items: list[Fact] | list[Contrast] = items
        self._measure: dict[str, Any] = {}
        self._map: EdgeMap | None = None
        self._taken: Fact | None = None  # the partner that edges which were given none have taken by themselves
        self._again = False  # whether other edges are to be scored once those going on have stopped

    @property
    def edges(self) -> EdgeMap | None:
        """All scores; None before the first run."""
        return self._map

    @property
    def contrast(self) -> Traced:
        """The fact or contrast that the edges are scored on, or several as a list. Settable, see ``show``."""
        given: Any = self._items
        return given[0] if len(given) == 1 else list(given)

    def setting_differs(self, **setting: Any) -> bool:
        """Whether the edges of a fact would be scored otherwise with this corruption, form and partner; a contrast has
        its own. The partner that the edges have taken by themselves is no other one."""
        if not isinstance(self._items[0], Fact):
            return False
        now = dict(self._measure)
        if now["partner"] is None and self._taken is not None and setting.get("partner") == self._taken:
            now["partner"] = self._taken
        return any(now[name] != value for name, value in setting.items())

    def score(self) -> None:
        """Score the edges in the background, where they are neither there nor on their way."""
        with self._lock:
            if self._map is None and not self._busy:
                self.run()
            elif self._map is None and self._job is not None and self._job.cancelling:
                self._again = True

    # What a subclass does

    def _take(self, scores: EdgeMap) -> None:
        """Show scores."""
        raise NotImplementedError

    # Inside

    def _order(self) -> Callable[[threading.Event], EdgeMap]:
        def scored(cancel: threading.Event) -> EdgeMap:
            given: Any = self._items
            options = {**self._options, **self._measure}
            self._taken = self._own_partner()
            found = score_edges(self._model, given, **options, pool=self._pool, cancel=cancel, progress=False)
            check_cancel(cancel, "after the edges were scored")
            return found

        return scored

    def _own_partner(self) -> Fact | None:
        """Whom ``edges`` takes for a fact that it is given no partner for; None where it takes none."""
        fact, measure = self._items[0], self._measure
        if not isinstance(fact, Fact) or len(self._items) > 1:
            return None
        if measure["partner"] is not None or measure["corruption"] != "swap":
            return None
        pool = load_facts() if self._pool is None else self._pool
        prompt = traced_prompt(self._model, fact, form=measure["form"])
        name = choose_partner(self._model, fact, prompt, pool).partner
        return pool[name] if name is not None and name in pool else None

    def _finished(self, job: Job[EdgeMap]) -> None:
        if job.result is not None and not job.cancelling:  # else it is of what was shown before
            self._take(job.result)

    def _ended(self, job: Job[EdgeMap]) -> None:
        with self._lock:
            super()._ended(job)
            if self._again:
                self._again = False
                self.run()

    def _text(self) -> tuple[Fact | Contrast, Form | None] | None:
        """The one text whose attention can be shown."""
        return (self._items[0], self._measure["form"]) if len(self._items) == 1 else None

    def _patch(self, sender: str, receiver: str) -> PathEffect:
        given: Any = self._items
        return path_patch(self._model, given, sender, receiver, **self._measure, pool=self._pool)

    def _faithful(self, part: Circuit | Selection) -> Faithfulness:
        given: Any = self._items
        options: dict[str, Any] = {name: self._measure[name] for name in ("metric", "form", "partner")}
        options["pool"] = self._pool
        first = self._items[0]
        ablation = first.corruption if isinstance(first, Contrast) else self._measure["corruption"]
        return faithfulness(self._model, given, part, ablation=ablation, minimality=False, progress=False, **options)
