"""Small stacks of edits on the tiny model of the panels' tests: gates at random, one made on top of another."""

from __future__ import annotations

from dataclasses import replace

import workbench as wb
from tests.helpers.panels import FACTS, FRANCE, SPAIN, tiny
from tests.helpers.tiny_facts import edit_of, some_gates
from workbench.editing.applied import carried
from workbench.types import Edit, Fact

JAPAN = FACTS["japan-capital"]


def some_edit(fact: Fact, seed: int, *, on: Edit | None = None) -> Edit:
    """Gates at random; made on top of another edit where that is given."""
    model = tiny()
    edit = edit_of(model, some_gates(model, (1, "post"), seed=seed), fact=fact)
    if on is None:
        return edit
    with wb.applied(model, on) as edited:
        return replace(edit, base_fingerprint=edited.fingerprint, earlier=carried(edited))


def some_panel() -> wb.StackPanel:
    """Three edits, the second on top of the first."""
    first = some_edit(FRANCE, 0)
    return wb.StackPanel(tiny(), [first, some_edit(SPAIN, 1, on=first), some_edit(JAPAN, 2)])
