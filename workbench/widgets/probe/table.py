"""ProbeTable: the probes as lines with a tick, what each asks, how long it takes, what came of it, and its texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ipywidgets import HTML, Button, Checkbox, GridBox

from workbench.probing.table import PROBES, QUICK
from workbench.types.outcome import Share
from workbench.widgets.shared import layout, markup

_COLUMNS = "max-content minmax(0, 1fr) max-content"
_HEADS = ("what it asks", "takes", "old answer recovered")


@dataclass(frozen=True, kw_only=True)
class ProbeLine:
    """What stands in a probe's line beside its name and question.

    Args:
        time: How long it takes or took; raw text.
        result: What came of it; raw text.
        share: The same as a bar; None where there is nothing to count.
        opens: Whether there is something to open.
    """

    time: str = ""
    result: str = ""
    share: Share | None = None
    opens: bool = False


class ProbeTable:
    """The table of the probes (``grid``) and the buttons that tick several (``choices``); whoever shows them says what
    stands in the lines.

    Args:
        ticked: Names of the probes that are ticked at first.
        on_tick: Called without arguments after ticks changed.
        on_open: Called with a probe's name after its button was pressed.
    """

    def __init__(
        self, ticked: Iterable[str], *, on_tick: Callable[[], object], on_open: Callable[[str], object]
    ) -> None:
        held = set(ticked)
        self._on_tick, self._setting = on_tick, False
        self._boxes = {name: self._box(name, name in held) for name in PROBES}
        self._cells = {name: HTML() for name in PROBES}
        self._buttons = {name: self._button(name, on_open) for name in PROBES}
        self._lines: dict[str, ProbeLine] = {}
        head = HTML(markup.block(_cells(*(f"<b>{words}</b>" for words in _HEADS))))
        lines = [widget for n in PROBES for widget in (self._boxes[n], self._cells[n], self._buttons[n])]
        self.grid = GridBox([HTML(), head, HTML(), *lines], layout={"grid_template_columns": _COLUMNS})
        self.grid.add_class("wb-probes")
        self.choices = self._make_choices()
        self.show({})

    @property
    def ticked(self) -> tuple[str, ...]:
        """Names of the ticked probes, in the table's order. Settable: calls ``on_tick`` once."""
        return tuple(name for name, box in self._boxes.items() if box.value)

    @ticked.setter
    def ticked(self, names: Iterable[str]) -> None:
        held = set(names)
        self._setting = True
        try:
            for name, box in self._boxes.items():
                box.value = name in held
        finally:
            self._setting = False
        self._on_tick()

    def show(self, lines: Mapping[str, ProbeLine], opened: str | None = None) -> None:
        """Show these lines.

        Args:
            lines: By probe.
            opened: The probe whose texts are in sight.
        """
        for name in PROBES:
            line = lines.get(name, ProbeLine())
            shown = _line(name, line)
            if self._cells[name].value != shown:
                self._cells[name].value = shown
            button = self._buttons[name]
            wanted = (not line.opens, "check" if name == opened else "")
            if (button.disabled, button.icon) != wanted:
                button.disabled, button.icon = wanted

    def enable(self, enabled: bool) -> None:
        """Let the ticks be changed, or not."""
        for box in self._boxes.values():
            box.disabled = not enabled

    def _box(self, name: str, ticked: bool) -> Checkbox:
        box = Checkbox(description=PROBES[name].title, value=ticked, indent=False, layout={"width": "190px"})
        box.observe(lambda _: None if self._setting else self._on_tick(), names="value")
        return box

    def _button(self, name: str, on_open: Callable[[str], object]) -> Button:
        tip = f"Texts and curves of the probe: {PROBES[name].title}"
        button = layout.quiet_button("Texts", tooltip=tip)
        button.on_click(lambda _: on_open(name))
        return button

    def _make_choices(self) -> Any:
        choices: dict[str, tuple[tuple[str, ...], str]] = {
            "Quick": (QUICK, "Tick the probes that take little time"),
            "All": (tuple(PROBES), "Tick all probes"),
            "None": ((), "Tick no probe"),
        }
        buttons = [layout.quiet_button(words, tooltip=tip) for words, (_, tip) in choices.items()]
        for button, (names, _) in zip(buttons, choices.values(), strict=True):
            button.on_click(lambda _, names=names: setattr(self, "ticked", names))
        return layout.row(*buttons)


def _cells(*cells: str) -> str:
    """Markup in the columns of the table."""
    return f'<div class="wb-probe">{"".join(f"<div>{cell}</div>" for cell in cells)}</div>'


def _line(name: str, line: ProbeLine) -> str:
    bar = ""
    if line.share is not None and line.share.n:
        filled = f'<span style="width: {100 * line.share.value:.0f}%"></span>'
        bar = f'<span class="wb-share" aria-hidden="true">{filled}</span>'
    question, time, result = (markup.text(x) for x in (PROBES[name].question, line.time, line.result))
    return markup.block(_cells(question, f'<span class="wb-muted">{time}</span>', f"{bar}{result}"))
