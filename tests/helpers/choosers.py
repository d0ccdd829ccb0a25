"""A FactChooser on a tiny model that knows capitals, and what a person does in it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ipywidgets import HTML, VBox

from tests.helpers.panels import control, descendants
from tests.helpers.reader import harmless
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, knowing
from tests.helpers.wire import click, enter, message
from workbench.models.load import LoadedModel
from workbench.types import Fact
from workbench.widgets.facts.chooser import FactChooser
from workbench.widgets.facts.form import FIELDS, FactForm

PERU = capital("Peru", "Lima", "Rome")
"""A fact that the model does not know."""
WRITTEN = {"subject": "France", "prompt": "The capital of France is", "answer": "Paris", "target": "Madrid"}
"""A fact of one's own that it knows."""


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


def form(chooser: FactChooser) -> FactForm:
    """Where a fact of one's own is written."""
    return next(w for w in descendants(chooser) if isinstance(w, FactForm))


def field(chooser: FactChooser, name: str) -> Any:
    """A field of the form."""
    (found,) = (w for w in descendants(form(chooser)) if getattr(w, "description", "") == FIELDS[name][0])
    return found


def fill(chooser: FactChooser, **texts: str) -> None:
    """Type into these fields."""
    for name, text in texts.items():
        enter(field(chooser, name), value=text)


def write(chooser: FactChooser, **texts: str) -> None:
    """Fill in the form, empty what is not given, and press the button."""
    fill(chooser, **{name: texts.get(name, "") for name in FIELDS if not name.startswith("swap")})
    fill(chooser, **{name: texts[name] for name in ("swap", "swap_answer") if name in texts})
    click(control(chooser, "Use this fact"))


def press_enter(text_field: Any) -> None:
    """What the browser sends for Enter in a text field."""
    message(text_field, {"method": "custom", "content": {"event": "submit"}})


def read(chooser: FactChooser) -> Any:
    """Wait until the chosen fact is read, and until a partner is found."""
    assert chooser.job is not None
    return chooser.job.wait(60)


def notes(chooser: FactChooser) -> dict[str, str]:
    """What stands below the fields of the form, by label."""
    found: dict[str, str] = {}
    for cell in descendants(form(chooser)):
        if isinstance(cell, VBox) and len(cell.children) == 2 and isinstance(cell.children[1], HTML):
            (labelled,), note = cell.children[0].children, cell.children[1]
            if note.value and note.layout.display != "none":
                found[labelled.description] = harmless(note.value).said
    return found


def lines(chooser: FactChooser) -> dict[str, list[str]]:
    """The lines of the list by fact id: their columns, without what only isolates and fills them."""
    split = {
        value: [cell.strip("\u2068\u2069\u00a0") for cell in label.split("\u2069")]
        for label, value in control(chooser, "Facts").options
    }
    return {fact_id: [cell for cell in cells if cell] for fact_id, cells in split.items()}


def own_fact(**more: Any) -> Fact:
    """``WRITTEN`` as a fact, with further fields."""
    return Fact(**{**WRITTEN, "question": "What is the capital of France?", **more})
