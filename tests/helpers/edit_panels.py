"""What the tests of the edit panel share: a panel on a tiny model, and what stands in for a picker."""

from __future__ import annotations

from typing import Any

import traitlets

from tests.helpers.panels import FACTS, FRANCE, QUICK, tiny
from tests.helpers.reader import harmless
from workbench.types import Selection
from workbench.widgets.edit.panel import EditPanel


def panel(source: Any = "L1MLP", fact: Any = FRANCE, **options: Any) -> EditPanel:
    return EditPanel(tiny(), fact, source, **{"pool": FACTS, "recipe": QUICK, "max_controls": 1, **options})


class Picker(traitlets.HasTraits):
    """Stands for a CircuitPicker."""

    selection = traitlets.Any(Selection())


def own_note(one: EditPanel) -> str:
    """What stands beside Run, as text."""
    return harmless(one._note.value).said
