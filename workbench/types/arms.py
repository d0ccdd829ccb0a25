"""Arms: one fact edited in several ways and read at the same mark, to see whether the located circuit matters."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.types.report import EvalReport, Rate
from workbench.types.selection import Selection

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

OUTCOMES: tuple[str, ...] = ("new", "forget", "control", "neighbour", "kl", "gibberish")
"""The rates of a report that are compared; ``kl`` over controls only, where a report's own is over neighbours too."""
RELATED_OUTCOMES: tuple[str, ...] = ("same_subject", "same_answer")
"""Those that reports of older versions lack."""
CLOSING_OUTCOMES: tuple[str, ...] = ("same_subject_closed", "same_subject_open")
"""Those that only arms have whose method closed on relations of the subject (``Edit.closed_relations``)."""
Trained = Literal["gates", "weights", "tokens"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmRow:
    """One arm on one fact.

    Args:
        fact_id: The edited fact.
        arm: Which arm.
        seed: Of a random draw; None for other arms.
        report: What it did, at the step where it was read. Held-out questions are those that were not used to read.
        reached: Whether validation accuracy reached the threshold; None where no new answer was taught.
        step: Steps of the last stage after which it was read: the first at which it had reached the threshold, or the
            last.
        updates: Updates of all stages until then; of a closed form, those of its target vectors.
        validation: New-fact accuracy on the validation questions at that step; None where no new answer was taught.
        trained: How many gates or weights were trained or solved for, or how many tokens a context takes.
        unit: What they are.
        selection: Whose gates were trained, or what a method moved; None for other arms. ``"all"`` writes all neurons
            of a layer as its MLP.
        recipe: The recipe's name.
        seconds: To fit, read and evaluate.
        beside: Of a random draw: the arm that it is a control of, where that is not ``"selected"``.
    """

    fact_id: str
    arm: str
    seed: int | None
    report: EvalReport
    reached: bool | None
    step: int
    updates: int
    validation: float | None
    trained: int
    unit: Trained
    selection: Selection | None
    recipe: str
    seconds: float
    beside: str | None = None

    def rate(self, name: str) -> Rate:
        """One rate of the report's last stage; ``"kl"`` is over controls only."""
        from workbench.types.verdict import rate_of

        return rate_of(self.report, name)

    def __repr__(self) -> str:
        seed = "" if self.seed is None else f" {self.seed}"
        none = f"{self.recipe}, read at its end" if self.trained else "no edit"
        mark = {True: f"read at step {self.step}", False: f"not reached in {self.step} steps", None: none}
        return f"ArmRow({self.fact_id}: {self.arm}{seed}, {mark[self.reached]}, control {self.rate('control')})"


@dataclass(frozen=True)
class Difference:
    """The selection, or a method, minus another arm, over prompts that both were asked.

    Args:
        arm: The other arm.
        outcome: A rate's name.
        rate: Mean of the paired differences with a 95% interval; clusters are the asked facts for one edited fact, and
            the edited facts for several.
        facts: Ids of the edited facts that it is over: those where both reached the threshold.
        reached, runs: How many of the other arm's runs reached it, on all facts.
        minuend: The arm that it is taken from: ``"selected"``, or the method that random arms stand beside.
    """

    arm: str
    outcome: str
    rate: Rate
    facts: tuple[str, ...]
    reached: int
    runs: int
    minuend: str = "selected"

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies above or below 0; 0 where it holds 0 or has no bounds: cannot tell."""
        return int(self.rate.low > 0) - int(self.rate.high < 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmTable:
    """A comparison of arms: ways to edit the same fact. Each arm is read at the first step at which the new fact was
    there. Made by ``compare``.

    What never reached the threshold is counted apart: it is in ``rows`` and in lines of its own in ``summary``, not in
    the other lines, the differences and the verdict's intervals.

    Args:
        rows: One per fact, arm and random draw.
        threshold: Validation accuracy at which the arms are read.
        validation: By fact id, the questions that decide it; never trained on, and not reported.
        words: By arm, what it is in words, in the order of tables; an arm without goes by its name.
        notes: What could not be run, and why.
        settings: What all runs share: recipe, draws, seed, controls and how often a run was read.
        base_fingerprint: Of the base model, or None where it is not known.
        provenance: Model, versions, time. Nothing is decided by it.

    Example:
        >>> table
        ArmTable(france-capital: selected, one-stage, none, 3 runs)
        >>> for arm in table.arms:
        ...     print(arm, table.rate(arm, "new"))
        selected 1.00 [0.21, 1.00] (n=1)
        one-stage 1.00 [0.21, 1.00] (n=1)
        none 0.00 [0.00, 0.79] (n=1)
    """

    rows: tuple[ArmRow, ...]
    threshold: float
    validation: Mapping[str, tuple[str, ...]]
    words: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    base_fingerprint: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        facts = ", ".join(self.facts[:3]) + ("..." if len(self.facts) > 3 else "")
        return f"ArmTable({facts}: {', '.join(self.arms)}, {len(self.rows)} runs)"

    def _repr_html_(self) -> str:
        import html

        words = "".join(f"<p>{html.escape(line)}</p>" for line in self.verdict.splitlines())
        return f"{self.summary().to_html(escape=True)}{words}"

    @property
    def facts(self) -> tuple[str, ...]:
        """Ids of the edited facts."""
        return tuple(dict.fromkeys(r.fact_id for r in self.rows))

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that were run, in order."""
        return tuple(dict.fromkeys(r.arm for r in self.rows))

    def words_of(self, arm: str) -> str:
        """Look up an arm's words; of an arm without any, its name."""
        return self.words.get(arm, arm)

    def runs(self, arm: str, *, reached: bool = True) -> tuple[ArmRow, ...]:
        """List an arm's rows that reached the threshold (or, of ``"none"``, all); with ``reached=False`` those that did
        not.

        Raises:
            KeyError: The arm was not run; the message lists those that were.

        Example:
            >>> table.runs("none")
            (ArmRow(france-capital: none, no edit, control 1.00 by definition (n=2)),)
            >>> len(table.runs("selected")), len(table.runs("selected", reached=False))
            (1, 0)
        """
        if arm not in self.arms:
            raise KeyError(f"No arm {arm!r} in this table; there are {list(self.arms)}.")
        return tuple(r for r in self.rows if r.arm == arm and (r.reached is not False) == reached)

    def rate(self, arm: str, name: str, *, reached: bool = True) -> Rate:
        """Compute a rate over an arm's rows: one run's own; else a bootstrap of prompts (one fact) or of whole edited
        facts.

        Example:
            >>> print(table.rate("selected", "control"))
            0.50 [0.09, 0.91] (n=2)
            >>> print(table.rate("none", "control"))
            1.00 by definition (n=2)
        """
        from workbench.types.verdict import rate_over

        runs = self.runs(arm, reached=reached)
        return rate_over([row for row in runs if _has(row, name)] if name in CLOSING_OUTCOMES else runs, name)

    def differences(self) -> tuple[Difference, ...]:
        """The selection minus each other arm that was trained, and each method minus the random arms beside it, for
        every outcome, paired by prompt."""
        from workbench.types.verdict import differences

        return differences(self)

    @property
    def verdict(self) -> str:
        """In words: whether the selection beat random ones of its size, from the same layers and from anywhere, and
        whether each method did better on what it moved than on random components."""
        from workbench.types.verdict import verdict

        return verdict(self)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The rates that are compared: ``OUTCOMES``, those of related facts where every report has them, and the two of
        the relations on which a method closed, and did not, where any has them."""
        last = [row.report.rates.get(row.report.stages[-1], {}) for row in self.rows if row.report.stages]
        related = [name for name in RELATED_OUTCOMES if last and all(name in rates for rates in last)]
        closing = [name for name in CLOSING_OUTCOMES if any(rates[name].n for rates in last if name in rates)]
        return (*OUTCOMES, *related, *closing)

    def has(self, arm: str, name: str, *, reached: bool = True) -> bool:
        """Whether an arm's rows have a rate: those that closed on nothing lack ``CLOSING_OUTCOMES``.

        Example:
            >>> table.has("selected", "control"), table.has("selected", "same_subject_closed")
            (True, False)
        """
        return any(_has(row, name) for row in self.runs(arm, reached=reached))

    def summary(self) -> pd.DataFrame:
        """One line per arm (runs that never reached the threshold in lines of their own): how many runs, the rates as
        ``value [low, high] (n)``, the updates of all stages after which they were read, and what was trained."""
        import pandas as pd

        lines: dict[str, dict[str, str]] = {}
        for arm in self.arms:
            for reached in (True, False):
                runs = self.runs(arm, reached=reached)
                if runs:
                    there = {n: self.has(arm, n, reached=reached) for n in self.outcomes}
                    rates = {n: str(self.rate(arm, n, reached=reached)) if ok else "" for n, ok in there.items()}
                    ends = "" if reached else ", not reached"
                    lines[f"{self.words_of(arm)}{ends}"] = {
                        "runs": str(len(runs)),
                        **rates,
                        "updates": _span(r.updates for r in runs),
                        "trained": f"{_span(r.trained for r in runs)} {runs[0].unit}",
                    }
        return pd.DataFrame.from_dict(lines, orient="index").rename_axis("arm")

    def to_frame(self) -> pd.DataFrame:
        """One line per run, with the values of its rates; ``questions`` are those that decided where it was read."""
        import pandas as pd

        plain = ("fact_id", "arm", "seed", "reached", "step", "updates", "validation", "trained", "unit", "recipe")
        return pd.DataFrame(
            [
                {k: getattr(r, k) for k in (*plain, "seconds")}
                | {"questions": len(self.validation.get(r.fact_id, ()))}
                | {n: r.rate(n).value if _has(r, n) else math.nan for n in self.outcomes}
                for r in self.rows
            ]
        ).astype({"seed": "Int64", "reached": "boolean"})

    def plot(self, **options: Any) -> go.Figure:
        """Draw control retention and KL by arm, with intervals (see ``workbench.plots.arms_figure``).

        Example:
            >>> table.plot().layout.title.text
            'Does it matter which components are trained?'
        """
        from workbench.plots import arms_figure

        return arms_figure(self, **options)

    def save(self, path: str | Path) -> Path:
        """Write the table with all its reports as one JSON file, atomically. Returns the path."""
        from workbench.files.arms import save_arms

        return save_arms(self, path)

    @staticmethod
    def load(path: str | Path) -> ArmTable:
        """Read a table written by ``save``.

        Example:
            >>> path = table.save("arms.json")
            >>> wb.ArmTable.load(path).arms
            ('selected', 'one-stage', 'none')
        """
        from workbench.files.arms import load_arms

        return load_arms(path)

    def write_html(self, path: str | Path) -> Path:
        """Write verdict, figure, tables and what the arms said as one self-contained HTML file. Returns the path.

        Example:
            >>> table.write_html("arms.html").name
            'arms.html'
        """
        from workbench.plots.report_sections import write_arms_page

        return write_arms_page(self, path)


def join_tables(tables: Iterable[ArmTable]) -> ArmTable:
    """Tables of other facts, or of other arms of a fact, as one; its arms are in the order of their words.

    Raises:
        ValueError: No table, a run in two of them, or another threshold, model, setting or (for one fact) other
            validation questions.
    """
    given = list(tables)
    if not given:
        raise ValueError("join_tables needs at least one table, got none.")
    runs = Counter((row.fact_id, row.arm, row.seed) for t in given for row in t.rows)
    twice = sorted({f"{arm} of {fact}" for (fact, arm, _), n in runs.items() if n > 1})
    if twice:
        raise ValueError(f"Each arm of a fact may be in one table only; these are in several: {twice}.")
    validation: dict[str, tuple[str, ...]] = {}
    for table in given:
        for fact, questions in table.validation.items():
            if validation.setdefault(fact, questions) != questions:
                raise ValueError(f"Tables of {fact!r} must have the same validation questions to be joined.")
    for name, values in (
        ("threshold", {t.threshold for t in given}),
        ("model", {t.base_fingerprint for t in given}),
        ("settings", {json.dumps(t.settings, sort_keys=True) for t in given}),
    ):
        if len(values) > 1:
            raise ValueError(f"Tables to join must have the same {name}, got {sorted(map(str, values))}.")
    facts = list(dict.fromkeys(row.fact_id for t in given for row in t.rows))
    rows = [row for t in given for row in t.rows]
    words = {arm: text for t in given for arm, text in t.words.items()}
    places = {arm: i for i, arm in enumerate(dict.fromkeys((*words, *(row.arm for row in rows))))}
    if len(given) > 1:
        rows.sort(key=lambda row: (facts.index(row.fact_id), places[row.arm]))
    return ArmTable(
        rows=tuple(rows),
        threshold=given[0].threshold,
        validation=validation,
        words=words,
        notes=tuple(dict.fromkeys(note for t in given for note in t.notes)),
        settings=given[0].settings,
        base_fingerprint=given[0].base_fingerprint,
        provenance=given[0].provenance,
    )


def _has(row: ArmRow, name: str) -> bool:
    return name in row.report.rates.get(row.report.stages[-1], {})


def _span(values: Iterable[int]) -> str:
    ordered = sorted(set(values))
    return f"{ordered[0]}" if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"
