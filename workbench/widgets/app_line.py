"""What stays on top of a Workbench: a line with model, fact, runs, save, open and code, one of the edit that runs, and
one of what is picked.

It holds the controls and shows what it is told; what they do is the Workbench's.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from ipywidgets import HTML, Button, Checkbox, Text, ToggleButton, VBox, Widget

from workbench.models.load import LoadedModel
from workbench.types import Contrast, Fact
from workbench.types.run import Run
from workbench.widgets.shared import layout, markup
from workbench.widgets.shared.code_block import CodeBlock
from workbench.widgets.shared.contrast_words import contrast_answers

STYLE = f"<style>{files('workbench').joinpath('widgets/static/app.css').read_text(encoding='utf-8')}</style>"
HINT = (
    "in Python: app.fact, app.contrast, app.selection, app.circuit, app.maps, app.runs, app.edit, app.report, "
    "app.probes"
)


class TopLine(VBox):
    """Two lines that stay in sight, and below them the fold that their buttons open.

    Args:
        model: The base model.
        folder: What the session's folder is called at first.
        autosave: Whether each finished run is saved.
        bar: What is picked, where the line shows it.
        runs: The list of runs.
        code: The whole script.
    """

    def __init__(
        self, model: LoadedModel, folder: str, autosave: bool, *, bar: Widget | None, runs: Widget, code: CodeBlock
    ) -> None:
        self._model = model
        self._about, self._said, self._now = HTML(), HTML(), HTML()
        self.back_button = layout.quiet_button(
            "Show it", icon="arrow-right", tooltip="Show the fact of this edit, and how far it is, in all tabs"
        )
        self.cancel_button = layout.quiet_button(
            "Cancel edit", icon="stop", tooltip="Stop at the next step, or after the prompts at hand"
        )
        self._running = layout.row(self._now, self.back_button, self.cancel_button)
        self._running.add_class("wb-running")
        layout.show(self._running, False)
        self.save_button = layout.quiet_button(
            "Save",
            icon="save",
            tooltip="Save the runs, and the fact, maps and picks on screen, in the session's folder",
        )
        self.export_button = layout.quiet_button(
            "Export",
            icon="file-code-o",
            tooltip="Write all tabs as they are now as one HTML page into the session's folder",
        )
        self.open_button = Button(
            description="Open", icon="folder-open", tooltip="Open a saved session from this folder"
        )
        self.folder = Text(description="Folder", value=folder, layout={"width": "min(100%, 460px)"})
        self.autosave = Checkbox(
            description="Save each run as it ends",
            tooltip="By itself, into the session's folder; what else is on screen is saved with it",
            value=autosave,
            indent=False,
        )
        self.folder.style.description_width = "initial"
        session = VBox([layout.row(self.folder, self.open_button, self.autosave), self._said])
        self._folds: dict[str, tuple[ToggleButton, Widget]] = {
            "runs": (self._opener("No runs", "The runs of this session: open, name, delete, compare"), runs),
            "session": (self._opener("Session", "Open a session, and where this one is saved"), session),
            "code": (self._opener("Code", "The Python that repeats all of this, as it is now"), code),
        }
        openers = [button for button, _ in self._folds.values()]
        line = layout.row(self._about, openers[0], self.save_button, self.export_button, *openers[1:])
        line.add_class("wb-line")
        below = VBox([box for _, box in self._folds.values()])
        below.add_class("wb-below")
        above = [HTML(markup.STYLE + STYLE), line, self._running]
        super().__init__([*above, *([] if bar is None else [bar]), below])
        self.add_class("wb-top")
        self._code = code
        self.unfold(None)

    @property
    def unfolded(self) -> str | None:
        """Which fold is open: ``"runs"``, ``"session"``, ``"code"``, or None."""
        return next((name for name, (button, _) in self._folds.items() if button.value), None)

    def unfold(self, name: str | None) -> None:
        """Open one fold and close the others."""
        for key, (button, box) in self._folds.items():
            button.value = key == name
            layout.show(box, key == name)
        self._code.opened = name == "code"

    def about(self, traced: Fact | Contrast, runs: tuple[Run, ...], shown: Run | None) -> None:
        """Show what all tabs are about.

        Args:
            traced: The fact, or the pair of prompts.
            runs: All runs.
            shown: The one that is on screen.
        """
        model = markup.text(self._model.name)
        name = f'<span class="wb-muted" title="{model}">{model}</span>'
        self._about.value = markup.block(f'<div class="wb-about">{name} {_change(traced)}</div>')
        place = next((n for n, run in enumerate(runs, 1) if run is shown), None)
        self._folds["runs"][0].description = _runs_words(len(runs), place)

    def running(self, editor: Any, *, on_screen: bool) -> None:
        """Show the edit that runs, whatever is on screen.

        Args:
            editor: Its panel; None where none runs.
            on_screen: Whether its panel is the one in tab 3.
        """
        layout.show(self._running, editor is not None)
        if editor is None:
            self._now.value = ""
            return
        facts = editor.fact
        what = _change(facts) if isinstance(facts, Fact) else f"<b>{markup.text(editor.subject)}</b>"
        now = f'<span class="wb-busy">Edit running: {markup.text(editor.status)}</span>'
        self._now.value = markup.block(f'<div class="wb-about">{what}{now}</div>') + editor.phases
        self.cancel_button.disabled = editor.job is None or editor.job.cancelling
        layout.show(self.back_button, not on_screen)

    def say(self, where: Path, runs: int, unsaved: int) -> None:
        """Say where the session is saved.

        Args:
            where: Its folder, or what that will be.
            runs, unsaved: How many runs there are, and how many of them are not saved.
        """
        if unsaved:
            words = f"{_count(unsaved)} of {_count(runs)} not saved: press Save, or tick the box."
        elif runs:
            words = f"{_count(runs)} saved in {where}"
        elif self.autosave.value:
            words = f"Each run will be saved in {where}"
        else:
            words = "Nothing is saved by itself."
        self._said.value = markup.hint(words) + markup.hint(HINT)

    def _opener(self, words: str, tip: str) -> ToggleButton:
        button = ToggleButton(description=words, tooltip=tip)
        button.add_class("wb-quiet")
        button.add_class("wb-opener")
        button.observe(lambda change: self._pressed(button, change["new"]), names="value")
        return button

    def _pressed(self, button: ToggleButton, on: bool) -> None:
        names = [name for name, (other, _) in self._folds.items() if other is button]
        if on:
            self.unfold(names[0])
        elif names and self.unfolded is None:
            self.unfold(None)


def _change(fact: Fact | Contrast) -> str:
    """A fact and what it is to become; of a pair of prompts the answers."""
    if isinstance(fact, Contrast):
        prompt = fact.clean if isinstance(fact.clean, str) else fact.id
        return f"<span><b>{markup.text(prompt)}</b>: {markup.text(contrast_answers(fact))}</span>"
    change = f"<b>{markup.text(fact.subject)}</b>: {markup.text(fact.answer)} → {markup.text(fact.target)}"
    return f"<span>{change}</span>"


def _count(n: int) -> str:
    return "1 run" if n == 1 else f"{n} runs"


def _runs_words(n: int, place: int | None) -> str:
    if not n:
        return "No runs"
    return _count(n) if place is None else f"Run {place} of {n}"
