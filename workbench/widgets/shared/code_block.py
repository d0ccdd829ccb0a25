"""CodeBlock: Python that repeats what was clicked, as it is now, with Copy and "Insert as cell below".

The cell is inserted by the browser, into the notebook that shows the panel. Where there is none that it knows (VS Code,
Colab, a page), only Copy is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from workbench.widgets.shared.controls import StrictControl
from workbench.widgets.shared.javascript import STATIC, read_module


class CodeBlock(StrictControl, anywidget.AnyWidget):
    """A fold with code (code.js).

    Args:
        make: Writes the code as it is now.
        summary: What a click opens it by.
        lazy: Write it only while it is open: a click then does not send what nobody sees, and what is closed is not
            saved with the notebook.
        on_error: Called with what ``make`` raises, None when it went well again; the code says it too.
    """

    _esm = read_module("code.js")
    _css = STATIC / "code.css"
    source = traitlets.Unicode("", help="The code.").tag(sync=True)
    summary = traitlets.Unicode("Code").tag(sync=True)
    opened = traitlets.Bool(False, help="Whether it is open; settable from both sides.").tag(sync=True)

    def __init__(
        self,
        make: Callable[[], str],
        summary: str = "Code",
        *,
        lazy: bool = False,
        on_error: Callable[[Exception | None], object] | None = None,
    ) -> None:
        super().__init__(summary=summary)
        self._make, self._lazy, self._on_error = make, lazy, on_error
        self.observe(lambda _: self.refresh(), names="opened")

    def __repr__(self) -> str:
        return f"CodeBlock({self.summary!r})"

    def check(self, state: dict[str, Any]) -> None:
        """The browser may open and close it, nothing else."""
        if foreign := sorted(set(state) - {"opened"}):
            raise traitlets.TraitError(
                f"{', '.join(foreign)}: only Python sets this; the browser may open and close it."
            )

    def refresh(self) -> None:
        """Write the code anew; a lazy one that is closed is emptied."""
        if self._lazy and not self.opened:
            self.source = ""
            return
        problem: Exception | None = None
        try:
            self.source = self._make()
        except Exception as error:  # would vanish in the log console
            problem, self.source = error, "".join(f"# {line}\n" for line in f"{error}".splitlines() or ["No code."])
        if self._on_error is not None:
            self._on_error(problem)
