"""CompareView: answers and maps before and after an edit, at one stage and one strength.

A step of the slider is one call of ``answer_probabilities``. Answers to a prompt (``ask``), the maps (``compare_maps``)
and the edges (``compare_edges``) are computed in the background; the maps without a press, once the view is looked at.
"""

from __future__ import annotations

from typing import Any

from workbench.editing.applied import check_base
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact, FactSet
from workbench.widgets.compare.asking import Answered, Asking
from workbench.widgets.compare.code import compare_code, shown_code
from workbench.widgets.compare.edges_run import EdgesRun
from workbench.widgets.compare.maps_run import MapsRun
from workbench.widgets.compare.menus import StageMenu
from workbench.widgets.compare.strength import StrengthBars
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.text_card import text_card_png


class CompareView(MapsRun):
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
        >>> print(view.code.splitlines()[-4])
        with wb.applied(model, edit, 'learn', strength=0.5) as edited:
    """

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
        super().__init__(model, edit, edit.facts[0] if fact is None else fact, pool)
        self._edit_code = edit_code
        self._places: dict[str, tuple[str, float]] = {}  # stage and strength by edit, to come back to
        self._stale = True  # the bars

        self._stage = StageMenu(description="After", options=edit.stage_names)
        self._asker = Asking(self._at)
        self._edges = EdgesRun(model, pool, lambda: (self._edit, self._wanted()), self._lock, self._show_code)
        self._strength = StrengthBars(model, lambda: self._slid())
        dial = layout.fields(self._stage, self._strength.slider)
        settings = [dial, self._strength.bars, self._asker, self._title, self._menus.widget]
        self._lay_out_run(settings, [self._maps, self._edges])
        self._stage.observe(lambda _: self._stage_chosen(), names="value")
        self._asker.on_answer(self._answered)
        self._load(edit, fact)

    def __repr__(self) -> str:
        return f"CompareView({self._fact.id}: {self._fact.answer} -> {self._fact.target}, {self._stage.value})"

    @property
    def edit(self) -> Edit:
        """The edit. Settable: shows what was computed of it before, if anything."""
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
        """How much of the edit is put on, 0 to 1: of the bars, of the next answers and of the next maps. Settable."""
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
    def asking(self) -> Job[Answered] | None:
        """The last question's job; its result holds both answers, with the stage and the strength."""
        return self._asker.job

    @property
    def answers(self) -> tuple[Answered, ...]:
        """What was answered about this edit, the oldest first."""
        return self._asker.answers

    @property
    def probabilities(self) -> dict[str, float]:
        """The probabilities of the answers after the stage, at the slider's strength."""
        self._show_stale()
        return dict(self._strength.probabilities)

    @property
    def base_probabilities(self) -> dict[str, float]:
        """Those of the same answers before the edit."""
        self._show_stale()
        return dict(self._strength.base)

    @property
    def edges(self) -> EdgesRun:
        """The edges before and after: ``view.edges.run()`` scores them in the background at the stage and the strength
        of now, ``view.edges.result`` has the changes that are shown."""
        return self._edges

    @property
    def code(self) -> str:
        """Python that repeats what is shown."""
        given: Any = {"edit_lines": self._edit_code, "pool": self._pool}
        return compare_code(self._model, self._edit, self._fact, self.shown_code, **given)

    @property
    def shown_code(self) -> str:
        """Its part after ``model``, ``facts`` and ``edit`` (and ``pool``, where one was given) are there."""
        maps = self._shown.arguments if self._shown is not None else ""
        at: Any = {"pool": self._pool, "stage": self.stage, "strength": self.strength}
        edges = self._edges.arguments
        return shown_code(self._edit, self._fact, maps=maps, edges=edges, answers=self.answers, **at)

    def show(self, edit: Edit, *, fact: Fact | None = None, edit_code: str | None = None) -> None:
        """Show another edit of the same base, as it was left: stage, strength, maps and answers; ``edit_code`` as in
        the constructor. Bars and maps that are not there yet are computed when it is looked at (``shown``).

        Raises:
            ValueError: It was fitted on another base. Nothing has changed then.
        """
        check_base(self._model, edit)
        self._edit_code = edit_code
        self._load(edit, fact)

    def shown(self) -> None:
        """Say that the view has come into sight: what is missing is computed, the maps in the background."""
        self._in_sight = True
        self._show_stale()
        self._compare_unasked()

    def ask(self, question: str | None = None) -> Job[Answered] | None:
        """Ask the base and the edited model at the stage and the strength of now, in the background; None for the
        question in the box."""
        return self._asker.ask(question)

    def _at(self) -> tuple[str, float]:
        return self.stage, self.strength

    def _show_compared(self) -> None:
        super()._show_compared()
        if not self._loading:
            self._edges.follow()
            self._show_code()

    def _stage_chosen(self) -> None:
        if not self._loading:
            self._show_probabilities()
            self._maps_chosen()

    def _slid(self) -> None:
        if not self._loading:
            self._show_probabilities()  # first: it is what a hand on the slider looks at
            self._show_compared()

    def _answered(self, error: BaseException | None) -> None:
        with self._lock:
            self._error = error  # said at the field
            self._show_code()

    def _load(self, edit: Edit, fact: Fact | None) -> None:
        with self._lock:
            if edit is not self._edit:
                self._places[self._edit.id] = self.stage, self.strength
            self._edit, self._fact = edit, edit.facts[0] if fact is None else fact
            self._fail(None)
            self._say_plainly("")
            self._in_sight = self._again = False
            self._asker.show(self._model, edit, self._fact.question)
            self._give_up()
            stage, strength = self._places.get(edit.id, (edit.stage_names[-1], self.strength))
            self._loading = True
            try:
                self._stage.options = edit.stage_names
                self._stage.value = stage
                self._strength.take(edit, strength)
            finally:
                self._loading = False
            words = f"{self._fact.prompt} {self._fact.answer} → {self._fact.target}"
            self._heading.value = markup.panel_title(words, f"edit of {', '.join(f.id for f in edit.facts[:3])}")
            self._stale = True
            self._show_compared()

    def _show_stale(self) -> None:
        if self._stale:
            self._show_probabilities()

    def _show_probabilities(self) -> None:
        with self._lock:
            self._stale = False
            self._fail(None)
            try:
                self._strength.show(self._edit, self._fact, self.stage)
            except Exception as error:  # would vanish in the log console
                self._fail(error)
            self._show_code()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        self.shown()  # displayed by itself
        return super()._repr_mimebundle_(**kwargs)

    def _picture(self) -> bytes:
        if self.grids:
            return self.grids[-1].to_png()
        lines = [self._fact.question, f"{self._fact.answer} -> {self._fact.target}"]
        return text_card_png("CompareView", [*lines, "Run this cell to use the panel."])
