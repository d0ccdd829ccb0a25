"""The one script that repeats what was clicked in a Workbench: model and facts once, then each panel's part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.files.session import Session
from workbench.models.load import LoadedModel
from workbench.types import Contrast, Edit, Fact, FactSet, Selection
from workbench.types.run import Run
from workbench.widgets.shared.code import EditLines, facts_code, start_code
from workbench.widgets.shared.contrast_words import contrasts_code


@dataclass(frozen=True)
class Opened:
    """A session that was opened, or a run of this one that was reopened.

    Args:
        session: What is shown.
        folder: Where it was read from; empty where this kernel made it.
        run_in_folder: Whether the run is a run there too, and not the edit of a session that knew no runs.
        reopened: Whether it is one of the session's runs that was chosen later, not what was on screen when the session
            was saved.
        probes_read: Whether the probes that are shown were read from the folder too.
        lines: What made the run, where this kernel did.
    """

    session: Session
    folder: str = ""
    run_in_folder: bool = True
    reopened: bool = False
    probes_read: bool = True
    lines: EditLines | None = None

    @property
    def run(self) -> Run | None:
        """The run that is shown."""
        return None if self.session.shown is None else self.session.run(self.session.shown)

    @property
    def _by_id(self) -> str:
        """The run's id in the folder; empty where it has none there."""
        return "" if self.run is None or not self.run_in_folder else self.run.id

    @property
    def load(self) -> str:
        """The line that reads the session; empty where none was read."""
        if not self.folder:
            return ""
        at = f".at({self._by_id!r})" if self.reopened and self._by_id else ""
        return f"session = wb.load_session({self.folder!r}){at}\n"

    @property
    def edit_code(self) -> str:
        """Lines that take ``edit`` and ``report`` from it, and the random control's report if there is one; of a run
        that this kernel made those that make them."""
        return self.load + self.edit_lines

    @property
    def edit_lines(self) -> str:
        """The same once it is loaded."""
        if not self.folder:
            return "" if self.run is None else self.run.code
        beside = "" if self.session.control_report is None else f"control_report = {self._of}.control_report\n"
        run = f"run = session.run({self._by_id!r})\n" if self._by_id else ""
        return f"{run}edit, report = {self._of}.edit, {self._of}.report\n{beside}"

    @property
    def probes_code(self) -> str:
        """The line that takes ``probes`` from it; empty where they were not read from it."""
        return f"probes = {self._of}.probes\n" if self.folder and self.probes_read else ""

    @property
    def _of(self) -> str:
        return "run" if self._by_id else "session"


@dataclass
class Script:
    """What the parts of one script share, filled as they are written one after the other.

    Args:
        fact: What all panels are about: ``fact`` in the code.
        pool: ``pool`` in the code; None for the bundled facts.
        opened: What was opened last.
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


def workbench_code(model: LoadedModel, traced: Fact | Contrast, pool: FactSet | None, parts: Mapping[str, str]) -> str:
    """The panels' parts below what they share.

    Args:
        model, traced, pool: What all panels have in common.
        parts: Lines by the comment above them.
    """
    given = facts_code([traced], pool) if isinstance(traced, Fact) else contrasts_code([traced])
    head = f"{start_code(model)}{given}"
    return head + "".join(f"\n# {comment}\n{lines}" for comment, lines in parts.items() if lines)
