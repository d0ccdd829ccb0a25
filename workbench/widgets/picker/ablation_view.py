"""AblationView: what the answer loses without the selection, beside random selections of the same size.

The first result is shown at once, the random ones beside it when they are there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from ipywidgets import HTML, ToggleButtons, VBox

from workbench.facts.known import load_facts
from workbench.language.prompts import NoSwapPartner
from workbench.plots.style import short_number
from workbench.tracing.ablation import ablate
from workbench.types import Ablation, AblationKind, FactSet, NextToken, Selection
from workbench.types.cancelling import Cancelled
from workbench.types.metric_words import KNOWN_WORDS
from workbench.widgets.picker.maps import Sources
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.code import own_pool, selection_code
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.measure import NOISE_SAMPLES
from workbench.widgets.shared.voice import person

DRAWS = 5
"""Random selections beside the selection."""
HOW: dict[str, str] = {
    "zero": "Every output set to 0, at all tokens",
    "mean": "Every output set to its mean over other questions",
    "swap": "Every output as it is in the run on the swapped subject, or on the corrupted prompt of a pair",
}
_NAMED = 6
"""So many components are named; more are counted."""


@dataclass(frozen=True)
class AblationOrder:
    """One call of ``ablate``.

    Args:
        sources: The fact, the measure and the swap partner.
        selection: What is ablated.
        kind: What takes the place of the outputs.
        draws: How many random selections are ablated as well.
    """

    sources: Sources
    selection: Selection
    kind: AblationKind
    draws: int = DRAWS

    @property
    def options(self) -> dict[str, Any]:
        """Its keywords, but for the partner and the pool: the metric of the maps, against the same other token."""
        sources = self.sources
        options: dict[str, Any] = {"ablation": self.kind, "metric": sources.measure.metric}
        if not sources.contrasts:
            options["against"] = "partner" if sources.corruption == "swap" else "target"
        if sources.corruption == "noise":
            options |= {"corruption": "noise", "samples": NOISE_SAMPLES}
        if sources.text_form is not None:
            options["form"] = sources.form
        return options | ({"control": self.draws} if self.draws else {})

    def run(self) -> Ablation:
        """Make the call."""
        sources = self.sources
        return ablate(
            sources.model,
            sources.traced[0],
            self.selection,
            partner=sources.partner if sources.corruption == "swap" else None,
            pool=self._pool,
            **self.options,
        )

    def code(self, selection: Selection, *, has_partner: bool) -> str:
        """The Python of the call.

        Args:
            selection: What ``selection`` is by then.
            has_partner: Whether ``partner`` is defined by then.
        """
        chosen = "selection"
        if list(self.selection) != list(selection):
            chosen = f"wb.Selection({selection_code(self.selection)})"
        settings = "".join(f", {name}={value!r}" for name, value in self.options.items())
        swaps = self.sources.partner is not None and self.sources.corruption == "swap"
        define = self.sources.partner_code() if swaps and not has_partner else ""
        more = ", partner=partner" * swaps
        if self.sources.contrasts:
            more += ", pool=wb.load_facts()" * (self._pool is not None)
        else:
            more += ", pool=pool" * own_pool(self.sources.pool)
        return f"{define}ablation = wb.ablate(model, {self.sources.variable}, {chosen}{settings}{more})\n"

    @property
    def _pool(self) -> FactSet | None:
        """Where partners and the texts of a mean come from: of a contrast the bundled facts, and for a mean alone."""
        if not self.sources.contrasts:
            return self.sources.pool
        return load_facts() if self.kind == "mean" else None


class AblationView(VBox):
    """One button, and what came of it.

    Args:
        order: Gives the selection and what the maps are made of, as they are now.
        on_change: Called after a result has come or gone.
    """

    def __init__(self, order: Callable[[], tuple[Sources, Selection]], on_change: Callable[[], object]) -> None:
        self.error: Exception | None = None
        """Why the last ablation failed."""
        self.job: Job[Ablation] | None = None
        self.result: Ablation | None = None
        """What is shown."""
        self.made: AblationOrder | None = None
        """The call that gives it."""
        self._order, self._on_change, self._lock = order, on_change, threading.RLock()
        self._run = layout.primary(
            "Ablate selection", icon="scissors", tooltip="What the model says without what is selected"
        )
        self._cancel = layout.quiet_button("Cancel", icon="stop", tooltip="Stop the ablation")
        self.kind = ToggleButtons(
            description="Set to",
            options=list(HOW),
            tooltips=list(HOW.values()),
            style={"button_width": "64px", "description_width": "initial"},
        )
        self._words, self._shown = HTML(), HTML()
        self._run.on_click(lambda _: self.run())
        self._cancel.on_click(lambda _: self.cancel())
        self.kind.observe(lambda _: self.recheck(), names="value")
        super().__init__([layout.fields(self.kind, self._run, self._cancel, self._words), self._shown])
        layout.show(self._cancel, False)

    @property
    def problem(self) -> str:
        """Why nothing can be ablated now, for a person; empty where it can."""
        sources, selection = self._order()
        if len(sources.traced) > 1:
            return f"An ablation is of one {sources.variable}."
        if self.kind.value == "swap" and sources.contrasts and sources.corruption == "noise":
            return "This contrast has noise and no corrupted text to swap with: choose zero or mean."
        if not len(selection):
            return "Pick heads, MLPs, neurons or layers in the maps first."
        if odd := [c for c in selection if c.kind in ("Q", "GATEUP")]:
            return f"{odd[0]} has no output of its own to ablate."
        return ""

    def recheck(self) -> None:
        """Look again whether there is something to ablate; called after every change of the selection or of
        what takes the place of the outputs."""
        if self.job is not None and self.job.running:
            return
        problem = self.problem
        self._run.disabled = bool(problem)
        self._words.value = markup.hint(problem)

    def run(self, kind: AblationKind | None = None) -> Job[Ablation]:
        """Ablate the selection, in the background. While one ablation is going, this returns its job.

        Args:
            kind: ``"zero"``, ``"mean"`` or ``"swap"``; by default as the buttons say.
        """
        with self._lock:
            if self.job is not None and self.job.running:
                return self.job
            if kind is not None:
                self.kind.value = kind
            sources, selection = self._order()
            problem = self.problem
            order = AblationOrder(sources, selection, cast(AblationKind, self.kind.value))
            self._run.disabled = True
            layout.show(self._cancel, True)
            self._words.value = markup.progress(None, 1, "Ablating …")
            self.job = Job(lambda cancel: self._work(order, problem, cancel), on_done=self._ended)
            return self.job

    def cancel(self) -> None:
        """Ask the ablation to stop; what is shown of it stays."""
        if self.job is not None:
            self.job.cancel()

    def clear(self) -> None:
        """Forget the result: another fact or measure is shown."""
        with self._lock:
            self.cancel()
            self.result = self.made = self.error = None
            self._shown.value = ""
            self.recheck()

    def _work(self, order: AblationOrder, problem: str, cancel: threading.Event) -> Ablation:
        if problem:
            raise ValueError(problem)
        alone = replace(order, draws=0)
        try:
            result = alone.run()
        except NoSwapPartner as error:  # which only a swap needs; the answer is then compared with the target
            if order.kind == "swap":
                raise
            order = replace(order, sources=replace(order.sources, instead=str(error)))
            alone = replace(order, draws=0)
            result = alone.run()
        self._take(result, alone, cancel)
        draws = drawable(order.sources, order.selection)
        if draws:
            self._words.value = markup.progress(None, 1, f"{draws} random selections of the same size …")
            beside = replace(order, draws=draws)
            result = beside.run()
            self._take(result, beside, cancel)
        return result

    def _take(self, result: Ablation, order: AblationOrder, cancel: threading.Event) -> None:
        with self._lock:
            if cancel.is_set():
                raise Cancelled("The ablation was cancelled.")
            self.result, self.made, self.error = result, order, None
            self._shown.value = ablation_markup(result)
        self._on_change()

    def _ended(self, job: Job[Ablation]) -> None:
        with self._lock:
            if job is not self.job:
                return
            layout.show(self._cancel, False)
            self.error = job.error if job.state == "failed" and isinstance(job.error, Exception) else None
            self.recheck()
            if self.error is not None:
                self._words.value = markup.alert(_words(self.error))
            elif job.state == "cancelled" and not self.problem:
                self._words.value = markup.hint(f"Cancelled after {job.seconds:.1f} s.")


def drawable(sources: Sources, selection: Selection) -> int:
    """``DRAWS``, or 0 where the model has not as many other components of the same kinds."""
    try:
        selection.random_like(sources.model)
    except ValueError:
        return 0
    return DRAWS


def ablation_markup(result: Ablation) -> str:
    """The result in one large line, and its numbers beside those of the random selections."""
    metric = KNOWN_WORDS[result.metric].title
    what = f"{len(result.selection):,} components" if len(result.selection) > _NAMED else str(result.selection)
    line = f"Without {what}: {metric} {short_number(result.clean)} → {short_number(result.ablated)}"
    if result.left is not None:
        zero = "noise on the subject" if result.corruption == "noise" else "the swapped subject"
        if result.prompt.roles:
            zero = "noise on the clean prompt" if result.corruption == "noise" else "the corrupted prompt"
        line += f" (recovery {short_number(result.left)}: 1 clean, 0 with {zero})"
    rows: list[tuple[Any, ...]] = [
        ("clean", short_number(result.clean), _share(1.0, result), _next(result.clean_next)),
        (
            f"ablated ({_how(result)})",
            short_number(result.ablated),
            _share(result.left, result),
            _next(result.ablated_next),
        ),
    ]
    if controls := result.controls:
        values = [control.ablated for control in controls]
        spread = (
            f"{short_number(sum(values) / len(values))} ({short_number(min(values))} to {short_number(max(values))})"
        )
        left = [control.left for control in controls if control.left is not None]
        mean = sum(left) / len(left) if left else None
        name = f"{len(controls)} random selections of the same size: mean (range)"
        said = markup.Markup("; ".join(_next(control.ablated_next, 1).html for control in controls))
        rows.append((name, spread, _share(mean, result), said))
    table = markup.table(("run", metric, "recovery", "next words"), rows, "Ablation")
    return markup.block(f'<div class="wb-measure" role="status">{markup.text(line)}</div>', table)


def _share(value: float | None, result: Ablation) -> str:
    return "n/a" if value is None or result.left is None else short_number(value)


def _how(result: Ablation) -> str:
    if result.ablation == "mean":
        return f"mean over {result.references} other texts"
    if result.ablation == "zero":
        return "set to 0"
    return "as in the corrupted prompt" if result.prompt.roles else f"as for {result.prompt.partner}"


def _next(tokens: Sequence[NextToken], n: int = 3) -> markup.Markup:
    said = [f"{markup.token(t.token).html} {markup.text(short_number(t.probability, share=True))}" for t in tokens[:n]]
    return markup.Markup(", ".join(said))


def _words(error: Exception) -> str:
    if isinstance(error, NoSwapPartner):
        return "No subject of as many tokens to swap in: choose zero or mean, or give a swap subject in tab 1."
    return person(error)
