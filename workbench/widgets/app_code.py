"""The one script that repeats what was clicked in a Workbench: model and facts once, then each panel's part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.files.session import Session
from workbench.models.load import LoadedModel
from workbench.types import Edit, Fact, FactSet, Selection
from workbench.widgets.shared.code import facts_code, start_code


@dataclass(frozen=True)
class Opened:
    """A session that was opened.

    Args:
        folder: Where it lies.
        session: What it held.
    """

    folder: str
    session: Session

    @property
    def load(self) -> str:
        """The line that reads it."""
        return f"session = wb.load_session({self.folder!r})\n"

    @property
    def edit_code(self) -> str:
        """Lines that take ``edit`` and ``report`` from it, and the random control's report if there is one."""
        return self.load + self.edit_lines

    @property
    def edit_lines(self) -> str:
        """The same once it is loaded."""
        beside = "" if self.session.control_report is None else "control_report = session.control_report\n"
        return f"edit, report = session.edit, session.report\n{beside}"


@dataclass
class Script:
    """What the parts of one script share, filled as they are written one after the other.

    Args:
        fact: What all panels are about: ``fact`` in the code.
        pool: ``pool`` in the code; None for the bundled facts.
        opened: The session that was opened last.
        loaded: Whether ``session`` is defined in the code already.
        selection: What ``selection`` is in the code.
        edit: What ``edit`` is in the code.
    """

    fact: Fact
    pool: FactSet | None
    opened: Opened | None
    loaded: bool = False
    selection: Selection | None = None
    edit: Edit | None = None


def workbench_code(model: LoadedModel, fact: Fact, pool: FactSet | None, parts: Mapping[str, str]) -> str:
    """The panels' parts below what they share.

    Args:
        model, fact, pool: What all panels have in common.
        parts: Lines by the comment above them.
    """
    head = f"{start_code(model)}{facts_code([fact], pool)}"
    return head + "".join(f"\n# {comment}\n{lines}" for comment, lines in parts.items() if lines)
