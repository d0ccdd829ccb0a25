"""SweepTab: which maps over which facts, and the SweepPanel that computes them. A tab of the Workbench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from ipywidgets import HTML, Text, VBox

from workbench.facts.known_table import known_on_record
from workbench.models.load import LoadedModel
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import causal_trace
from workbench.types import Fact, FactSet, Form
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.controls import Dropdown
from workbench.widgets.shared.number_field import NumberField
from workbench.widgets.shared.panel import Panel
from workbench.widgets.shared.text_card import text_card_png
from workbench.widgets.sweep.panel import SweepPanel

ALL = ""
"""Stands for facts of every relation."""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What can be swept in the tab.

    Args:
        name: In the name of the folder.
        title: In the menu.
        function, options: As ``wb.sweep`` takes them.
    """

    name: str
    title: str
    function: Callable[..., Any]
    options: dict[str, Any]


SWEPT = (
    Swept(name="heads", title="Heads and MLPs, by the gradient", function=attribute, options={"unit": ["head", "mlp"]}),
    Swept(
        name="patched",
        title="Heads and MLPs, each patched",
        function=attribute,
        options={"unit": ["head", "mlp"], "method": "patching"},
    ),
    Swept(
        name="traces",
        title="Traces: residual, MLP, attention",
        function=causal_trace,
        options={"site": ["resid", "mlp", "attn"]},
    ),
)


class SweepTab(Panel):
    """The tab makes a sweep of one kind of map over many facts, and shows its panel.

    Args:
        model: The model; it is not changed.
        facts: The facts to choose from.
        fact: Whose relation is offered first.
        pool: Where swap partners come from; the bundled facts by default.
    """

    def __init__(self, model: LoadedModel, facts: FactSet, fact: Fact, *, pool: FactSet | None = None) -> None:
        super().__init__()
        self._model, self._facts, self._fact, self._pool = model, facts, fact, pool
        self.panel: SweepPanel | None = None
        """The panel of the sweep; None before the first."""
        relations = sorted({one.relation for one in facts})
        self._what = Dropdown(description="Kind of map", options=[(one.title, one.name) for one in SWEPT])
        self._of = Dropdown(description="Among", options=[("all", ALL), *((one, one) for one in relations)])
        self._form = Dropdown(description="Asked as", options=["chat", "cloze"])
        self._most = NumberField("At most", 24, tip="How many facts, the first of these", check=_above_zero, whole=True)
        self._folder = Text(description="Results in")
        self._run = layout.primary("Sweep", icon="play", tooltip="Compute the maps of these facts, in the background")
        self._said, self._place = HTML(), VBox()
        heading = HTML(markup.panel_title("One kind of map over many facts", "on disk as they come"))
        self._lay_out(
            heading,
            layout.fields(self._what, self._of, self._form, self._most, self._folder),
            layout.row(self._run, self._said),
            self._alert,
            self._place,
        )
        self._of.value = fact.relation if fact.relation in relations else ALL
        for control in (self._what, self._of, self._form):
            control.observe(lambda _: self._recount(), names="value")
        self._most.on_change(self._recount)
        self._run.on_click(lambda _: self.run())
        self._recount()

    def __repr__(self) -> str:
        return f"SweepTab({len(self.items)} facts)"

    @property
    def fact(self) -> Fact:
        """Whose relation is offered. Setting it chooses its relation, unless facts of all relations are chosen."""
        return self._fact

    @fact.setter
    def fact(self, fact: Fact) -> None:
        self._fact = fact
        if self._of.value != ALL and fact.relation in {one.relation for one in self._facts}:
            self._of.value = fact.relation

    @property
    def items(self) -> list[Fact]:
        """The facts that would be swept: those that are known to be unknown in this form are left out."""
        form = cast("Form", self._form.value)
        chosen = [one for one in self._facts if self._of.value in (ALL, one.relation)]
        known = known_on_record(self._model, chosen)
        likely = [one for one in chosen if (forms := known[one.id]) is None or form in forms]
        return likely[: self._most.value]

    @property
    def code(self) -> str:
        """The Python of the sweep that is shown; empty before the first."""
        return "" if self.panel is None else self.panel.code

    def run(self) -> SweepPanel | None:
        """Sweep, and show the panel of it. Where one is going on, this only says so.

        Returns:
            The panel; None where it could not be made, which the alert says.
        """
        if self.panel is not None and self.panel.busy:
            self._tell(markup.Message("A sweep is going on; wait for it or cancel it."))
            return self.panel
        try:
            swept = next(one for one in SWEPT if one.name == self._what.value)
            options = {**swept.options, "corruption": "swap", "form": self._form.value, "pool": self._pool}
            folder = self._folder.value.strip() or self._default_folder()
            panel = SweepPanel(swept.function, self.items, out=folder, model=self._model, **options)
        except (OSError, TypeError, ValueError) as error:
            self._fail(error)
            return None
        self._fail(None)
        self.panel = panel
        self._place.children = (panel,)
        panel.run()
        self._show_code()
        return panel

    def _default_folder(self) -> str:
        return f"sweeps/{self._what.value}-{self._form.value}"

    def _recount(self) -> None:
        items, problem = self.items if not self._most.problem else [], self._most.problem
        self._run.disabled = not items
        words = problem or f"{len(items)} facts" * bool(items) or "The model knows none of these in this form."
        self._said.value = markup.block(f'<span class="wb-muted" role="status">{markup.text(words)}</span>')
        self._folder.placeholder = self._default_folder()

    def _picture(self) -> bytes:
        return text_card_png("SweepTab", [repr(self), "Run this cell to use it."])


def _above_zero(value: float) -> str:
    return "" if value > 0 else "must be above 0"
