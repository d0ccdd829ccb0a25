"""EditResults: what came of an edit, the verdict first, then texts, the fit's curve, rates, and where to go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ipywidgets import HTML, VBox

from workbench.types import Edit, EvalReport, Fact
from workbench.widgets.edit import views as edit_views
from workbench.widgets.shared import layout, markup

WHERE = {"Compare": "comparison", "Probe": "probing"}
"""The buttons that lead on, and the panels to which they lead."""
_TIPS = {
    "Compare": "Maps before and after, the edit's strength, and questions of your own",
    "Probe": "Search the edited model for what is left of the old answer",
}


class EditResults(VBox):
    """Empty until there is an edit.

    Args:
        go: Called with the name of a panel when a button leads there.
    """

    def __init__(self, go: Callable[[str], object]) -> None:
        self._verdict, self._summary, self._texts, self._chart = HTML(), HTML(), HTML(), HTML()
        self._rates, self._fit = HTML(), HTML()
        self._leads = False
        self._buttons = layout.row(*(self._button(name, where, go) for name, where in WHERE.items()))
        texts_and_chart = layout.columns(self._texts, self._chart, widths=("3 1 420px", "1 1 480px"))
        super().__init__([self._verdict, self._summary, self._buttons, texts_and_chart, self._rates, self._fit])
        self.clear()

    @staticmethod
    def _button(name: str, where: str, go: Callable[[str], object]) -> layout.Button:
        button = layout.quiet_button(name, tooltip=_TIPS[name], icon="arrow-right")
        button.on_click(lambda _: go(where))
        return button

    def lead_on(self) -> None:
        """Show the buttons from now on, wherever there is an edit."""
        self._leads = True
        layout.show(self._buttons, bool(self._summary.value))

    def clear(self) -> None:
        """Nothing is shown."""
        for area in (self._verdict, self._summary, self._texts, self._chart, self._rates, self._fit):
            area.value = ""
        layout.show(self._buttons, False)

    def show_edit(self, edit: Edit, facts: Sequence[Fact]) -> None:
        """A fitted edit, before its evaluation."""
        self._summary.value = markup.hint(edit_views.edit_summary(edit)) + edit_views.shortfall(edit)
        self._chart.value = edit_views.answer_chart(edit.history, edit.recipe, facts)
        charts = edit_views.fit_charts(edit.history, edit.recipe)
        written = edit_views.writes_table(edit.writes, "What it wrote")
        self._fit.value = (markup.fold("Loss and KL while it was fitted", charts) if charts else "") + written
        layout.show(self._buttons, self._leads)

    def show_report(
        self, report: EvalReport | None, control: EvalReport | None, facts: Sequence[Fact], state: str = "done"
    ) -> None:
        """Its evaluation.

        Args:
            report: None where it was not evaluated.
            control: The evaluation of the random control, if there is one.
            facts: The edited facts.
            state: How the job ended that was to evaluate it.
        """
        if report is None:
            self._verdict.value = edit_views.not_evaluated(state)
            return
        self._verdict.value = edit_views.verdict(report, facts)
        self._texts.value = edit_views.texts(report)
        self._rates.value = edit_views.rates(report, control)
