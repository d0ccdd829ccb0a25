"""What the tests of panels share: a tiny model that knows capitals, what a panel shows, and a fit that is held."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import ipywidgets
import pytest

from tests.helpers.reader import harmless
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, knowing
from workbench.editing.methods.table import Recipe
from workbench.models.load import LoadedModel
from workbench.types.cancelling import Cancelled
from workbench.widgets.app_line import STYLE
from workbench.widgets.edit import panel as edit_panel
from workbench.widgets.shared import markup
from workbench.widgets.shared.code_block import CodeBlock

FACTS = capitals()
FRANCE, SPAIN = FACTS[0], FACTS[2]
EVIL = "<img src=x onerror=alert(1)>"
QUICK = Recipe(
    name="quick", optimiser="adam", steps=(3, 4), learning_rate=0.05, batch_size=8, retain_batch_size=8, early_stop=None
)


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False, bias=True), FACTS)


def control(shown: Any, description: str) -> Any:
    """The control with this label."""
    (found,) = (w for w in descendants(shown) if getattr(w, "description", None) == description)
    return found


def descendants(box: Any) -> list[Any]:
    return [w for child in box.children for w in (child, *(descendants(child) if hasattr(child, "children") else ()))]


def shown(box: Any) -> str:
    """All the markup that the panel shows, checked to be harmless."""
    return _markup(descendants(box))


def own(panel: Any) -> str:
    """The markup of a panel's own areas, without those of what is in it: heading, alert, results, code."""
    return _markup(panel.children)


def code_block(panel: Any) -> CodeBlock:
    """A panel's own code, without those of panels in it."""
    (found,) = (w for w in panel.children if isinstance(w, CodeBlock))
    return found


def _markup(widgets: Any) -> str:
    code = [markup.code(w.source) for w in widgets if isinstance(w, CodeBlock)]  # the browser puts it in as text
    parts = [w.value for w in widgets if isinstance(w, ipywidgets.HTML)] + code
    parts = [part.replace(markup.STYLE, "").replace(STYLE, "") for part in parts]
    for part in parts:
        harmless(part)
    return "".join(parts)


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "this never came true"
        time.sleep(0.005)


def let_go(go: threading.Event, cancel: threading.Event) -> bool:
    """Waits until one of the two is set: whether it was let go, not cancelled."""
    while not go.wait(0.005):
        if cancel.is_set():
            return False
    return True


class Held:
    """In place of the fit: waits until it is let go or cancelled.

    Args:
        monkeypatch: Puts it there.
        fits: Whether it then fits.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fits: bool = False) -> None:
        self.go, self.calls = threading.Event(), 0
        self.then: Callable[..., Any] | None = edit_panel.fit_and_evaluate if fits else None
        self.given: tuple[Any, ...] = ()
        monkeypatch.setattr(edit_panel, "fit_and_evaluate", self)

    def __call__(self, *given: Any, cancel: threading.Event, **options: Any) -> Any:
        self.calls += 1
        self.given = given
        if not let_go(self.go, cancel):
            raise Cancelled("Cancelled here.")
        return None if self.then is None else self.then(*given, cancel=cancel, **options)
