"""What the self-check of a model found: whether the workbench's numbers are this model's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

CheckName = Literal["noise", "direct", "trace", "heads", "resume", "lens", "gate", "groups"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportCheck:
    """One comparison of the workbench's number with that of plain forward passes.

    Args:
        name: By which functions ask for it.
        what: What was measured.
        used_by: The functions that rest on it.
        found: The workbench's number, where it is furthest from the other.
        expected: What plain passes give there.
        allowed: How far apart they may be.
        problem: Why nothing could be measured; empty where it could.

    Example:
        >>> check = model.support["lens"]
        >>> check.passed, abs(check.found - check.expected) <= check.allowed
        (True, True)
    """

    name: CheckName
    what: str
    used_by: str
    found: float
    expected: float
    allowed: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether the two agree."""
        return not self.problem and abs(self.found - self.expected) <= self.allowed

    @property
    def words(self) -> str:
        """The finding in a sentence."""
        if self.problem:
            return f"{self.what} cannot be measured ({self.problem})"
        verb = "agrees" if self.passed else "differs"
        return f"{self.what} {verb}: {self.found:.4g}, and plain forward passes give {self.expected:.4g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """What the self-check of a model found.

    Args:
        model: The model's name.
        family: Its family.
        tested: Whether the family is one of the tested ones.
        checks: What was compared.

    Example:
        >>> model.support.passed, [check.name for check in model.support.checks]
        (True, ['noise', 'direct', 'trace', 'heads', 'resume', 'lens', 'gate', 'groups'])
        >>> model.support.to_frame().columns.tolist()
        ['check', 'passed', 'found', 'expected', 'allowed', 'used_by']
    """

    model: str
    family: str
    tested: bool
    checks: tuple[SupportCheck, ...]

    def __getitem__(self, name: CheckName) -> SupportCheck:
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"There is no check {name!r}; there are {[check.name for check in self.checks]}.")

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[SupportCheck, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    def __repr__(self) -> str:
        kind = "tested family" if self.tested else "untested"
        found = "; ".join(check.words for check in self.failed) or f"all {len(self.checks)} checks passed"
        return f"Support({self.model!r}, {self.family}, {kind}: {found})"

    def to_frame(self) -> pd.DataFrame:
        """One row a check."""
        import pandas as pd

        names = ("found", "expected", "allowed", "used_by")
        rows = [{"check": c.what, "passed": c.passed} | {n: getattr(c, n) for n in names} for c in self.checks]
        return pd.DataFrame(rows)
