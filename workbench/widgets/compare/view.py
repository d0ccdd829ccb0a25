"""CompareView: maps before and after an edit and their difference, answer probabilities by strength, and free prompts.

The maps and the answers to a prompt are computed in the background (``compare_maps``, ``ask``). The slider is one call
of ``answer_probabilities`` a step; the front end sends the newest value once the last one is answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from ipywidgets import HBox

from workbench.comparing.maps import MapComparison, compare_maps
from workbench.editing.applied import check_base
from workbench.models.load import LoadedModel
from workbench.types import Edit, EffectMap, Fact, FactSet
from workbench.types.effect import Corruption
from workbench.widgets.compare.ask_all import AskAll
from workbench.widgets.compare.before_after import BeforeAfterMaps
from workbench.widgets.compare.code import compare_code, shown_code
from workbench.widgets.compare.strength import StrengthBars
from workbench.widgets.grid.grid import HeatGrid
from workbench.widgets.picker.maps import head_groups
from workbench.widgets.shared import markup
from workbench.widgets.shared.controls import Dropdown
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.run_panel import RunPanel, RunWords
from workbench.widgets.shared.text_card import text_card_png

SITES = (
    ("Trace: residual stream", "resid"),
    ("Trace: MLPs", "mlp"),
    ("Trace: attention", "attn"),
    ("Attention heads", "head"),
)
_NOT_YET = "Not compared yet with these choices: Compare computes their maps."
TOKENS = (("Old answer", "answer"), ("New answer", "target"))
_WRAP = {"flex_flow": "row wrap", "align_items": "flex-start"}
_STYLE = {"description_width": "72px"}


class CompareView(RunPanel[MapComparison]):
    """The panel shows what an edit changed, before and after side by side.

    Args:
        model: The edit's base; it is not changed.
        edit: The edit. ``view.edit = other`` shows another one.
        fact: What to trace and whose answers to follow; the edit's first fact by default. Settable.
        pool: Where swap partners come from; the bundled facts by default.
        edit_code: Python that makes ``edit`` from ``model``, for ``.code``, such as ``edit = wb.load_edit("folder")``;
            None for the rewrite that made it.

    Raises:
        ValueError: An edited model, or an edit of another base.

    Example:
        >>> view = wb.CompareView(model, edit, pool=facts)
        >>> view
        CompareView(france-capital: Paris -> Rome, learn)
        >>> view.strength = 0.5
        >>> print(view.code.splitlines()[-2])
        with wb.applied(model, edit, 'learn', strength=0.5) as edited:
    """

    WORDS = RunWords(
        label="Compare",
        icon="columns",
        tip="Compute both maps in the background",
        cancel_tip="Stop after the map going on",
        refused="A comparison is running already; wait for it or cancel it.",
        cancelling="Cancelling: it stops after the map that is going on.",
        bold=False,
        bar=False,
    )

    def __init__(
        self,
        model: LoadedModel,
        edit: Edit,
        *,
        fact: Fact | None = None,
        pool: FactSet | None = None,
        edit_code: str | None = None,
    ) -> None:
        if model.applied:
            raise ValueError("CompareView compares an edit with its base: pass the base model (model.base).")
        check_base(model, edit)
        super().__init__()
        self._model, self._pool, self._edit_code = model, pool, edit_code
        self._edit = edit
        self._result: MapComparison | None = None
        self._before: dict[tuple[Any, ...], EffectMap] = {}
        self._compared: dict[tuple[Any, ...], MapComparison] = {}  # of this edit, by fact, stage and options
        self._loading = self._lacks_maps = False

        self._site = Dropdown(description="Map", options=SITES, style=_STYLE)
        self._stage = Dropdown(description="After", options=edit.stage_names, style=_STYLE, layout={"width": "190px"})
        self._corruption = Dropdown(
            description="Corruption", options=get_args(Corruption), style=_STYLE, layout={"width": "190px"}
        )
        self._token = Dropdown(description="Traced", options=TOKENS, style=_STYLE, layout={"width": "210px"})
        self._maps, self._asker = BeforeAfterMaps(), AskAll()
        self._strength = StrengthBars(model, lambda: self._show_probabilities())
        menus = HBox([self._site, self._stage, self._corruption, self._token], layout=_WRAP)
        self._lay_out_run([menus], [self._maps, self._strength.slider, self._strength.bars, self._asker])
        for control in (self._site, self._corruption, self._token):
            control.observe(lambda _: self._show_compared(), names="value")
        self._stage.observe(lambda _: self._stage_chosen(), names="value")
        self._asker.on_answer(self._answered)
        self._load(edit, fact)

    def __repr__(self) -> str:
        return f"CompareView({self._fact.id}: {self._fact.answer} -> {self._fact.target}, {self._stage.value})"

    @property
    def edit(self) -> Edit:
        """The edit. Settable: empties the maps and answers."""
        return self._edit

    @edit.setter
    def edit(self, edit: Edit) -> None:
        self.show(edit)

    @property
    def fact(self) -> Fact:
        """The fact that is traced. Settable."""
        return self._fact

    @fact.setter
    def fact(self, fact: Fact) -> None:
        self._load(self._edit, fact)

    @property
    def strength(self) -> float:
        """How much of the edit is put on, 0 to 1. Settable."""
        return self._strength.slider.value

    @strength.setter
    def strength(self, strength: float) -> None:
        self._strength.slider.value = strength

    @property
    def stage(self) -> str:
        """After which stage. Settable."""
        return str(self._stage.value)

    @stage.setter
    def stage(self, stage: str) -> None:
        self._stage.value = stage

    @property
    def site(self) -> str:
        """Which map: ``"resid"``, ``"mlp"``, ``"attn"`` or ``"head"``. Settable."""
        return str(self._site.value)

    @site.setter
    def site(self, site: str) -> None:
        self._site.value = site

    @property
    def asking(self) -> Job[dict[str, str]] | None:
        """The last question's job; its result holds the answers by model."""
        return self._asker.job

    @property
    def result(self) -> MapComparison | None:
        """The maps shown."""
        return self._result

    @property
    def probabilities(self) -> dict[str, float]:
        """The probabilities shown, by answer."""
        return dict(self._strength.probabilities)

    @property
    def grids(self) -> tuple[HeatGrid, ...]:
        """The maps shown: before, after, after minus before."""
        return self._maps.grids

    @property
    def code(self) -> str:
        """Python that repeats what is shown."""
        given: Any = {"edit_lines": self._edit_code, "pool": self._pool}
        return compare_code(self._model, self._edit, self._fact, **given, **self._shown_now())

    @property
    def shown_code(self) -> str:
        """Its part after ``model``, ``facts`` and ``edit`` (and ``pool``, where one was given) are there."""
        return shown_code(self._edit, self._fact, pool=self._pool, **self._shown_now())

    def show(self, edit: Edit, *, fact: Fact | None = None, edit_code: str | None = None) -> None:
        """Show another edit of the same base; ``edit_code`` as in the constructor.

        Raises:
            ValueError: It was fitted on another base. Nothing has changed then.
        """
        check_base(self._model, edit)
        self._edit_code = edit_code
        self._load(edit, fact)

    def compare(self) -> Job[MapComparison]:
        """Compute the chosen map before and after, in the background. While one is going, this only says so. A finished
        one is not computed again: it is shown as soon as the menus come back to it."""
        return self.run()

    def ask(self, question: str | None = None) -> Job[dict[str, str]] | None:
        """Ask the base and each stage at full strength, in the background; None for the question in the box."""
        return self._asker.ask(question)

    def _order(self) -> Callable[[threading.Event], MapComparison]:
        edit, key, key_before = self._edit, self._key(), (self._fact, self._site.value, *self._measured().values())
        before, compared = self._before.get(key_before), self._compared.get(key)
        order = partial(compare_maps, self._model, edit, self._fact, **self._options(), pool=self._pool, progress=False)
        self._lacks_maps = False
        self._say("Computing: the notebook stays usable.")

        def work(cancel: threading.Event) -> MapComparison:
            result = compared or order(before=before, cancel=cancel)
            with self._lock:
                self._before[key_before] = result.before
                if self._edit is edit:  # else another edit is shown by now
                    self._compared[key] = result
            return result

        return work

    def _finished(self, job: Job[MapComparison]) -> None:
        if job.result is not None:
            self._show_compared()

    # What it shows

    def _duration(self, seconds: float) -> str:
        return f"{seconds:.1f} s"

    def _key(self) -> tuple[Any, ...]:
        """What a comparison of this edit is of."""
        return (self._fact, self._site.value, self._stage.value, *self._measured().values())

    def _show_compared(self) -> None:
        """The maps of what the menus say, where they are computed; else none, so that maps, menus and code agree."""
        if self._loading:
            return
        with self._lock:
            result = self._compared.get(self._key())
            if result is not self._result:
                self._result = result
                self._maps.show(result, groups=head_groups(self._model))
            if not self._busy:
                missing = result is None and bool(self._compared)
                if missing or self._lacks_maps:
                    self._say_plainly(_NOT_YET if missing else "")
                self._lacks_maps = missing
            self._show_code()

    def _stage_chosen(self) -> None:
        self._show_compared()
        self._show_probabilities()

    def _answered(self, error: BaseException | None) -> None:
        with self._lock:
            self._fail(error)
            self._show_code()

    def _shown_now(self) -> dict[str, Any]:
        return {
            "options": self._options(),
            "strength": self.strength,
            "question": self._asker.asked,
            "with_maps": self._result is not None,
        }

    def _options(self) -> dict[str, Any]:
        """Of ``compare_maps``, as the menus say."""
        return {"site": self._site.value, "stage": self._stage.value, **self._measured()}

    def _measured(self) -> dict[str, Any]:
        return {"corruption": self._corruption.value, "token": self._token.value}

    def _load(self, edit: Edit, fact: Fact | None) -> None:
        with self._lock:
            if edit is not self._edit:
                self._compared = {}
            self._edit, self._fact = edit, edit.facts[0] if fact is None else fact
            self._say_plainly("")
            self._lacks_maps = False
            self._strength.clear()
            self._asker.show(self._model, edit, self._fact.question)
            if self._job is not None:
                self._job.cancel()
            self._loading = True
            try:
                self._stage.options = edit.stage_names
                self._stage.value = edit.stage_names[-1]
                # A swap is one run where noise is ten, but it needs a fact of the same relation.
                self._corruption.value = "swap" if self._fact.relation else "noise"
            finally:
                self._loading = False
            note = f"edit of {', '.join(f.id for f in edit.facts[:3])}; form, prefix and corruption are the base's own"
            words = f"{self._fact.prompt} {self._fact.answer} → {self._fact.target}"
            self._heading.value = markup.panel_title(f"Before and after: {words}", note)
            self._show_compared()
            self._show_probabilities()

    def _show_probabilities(self) -> None:
        if self._loading:
            return
        with self._lock:
            self._fail(None)
            self._show_code()
            try:
                self._strength.show(self._edit, self._fact, self.stage)
            except Exception as error:  # would vanish in the log console
                self._fail(error)

    def _picture(self) -> bytes:
        if self.grids:
            return self.grids[-1].to_png()
        lines = [self._fact.question, f"{self._fact.answer} -> {self._fact.target}"]
        return text_card_png("CompareView", [*lines, "Run this cell to use the panel."])
