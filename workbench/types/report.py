"""Evaluation results: every generated text with its class, and rates that carry n and an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

AnswerClass = Literal["old", "new", "both", "refusal", "other", "gibberish"]
ANSWER_CLASSES: tuple[AnswerClass, ...] = get_args(AnswerClass)
Group = Literal["train", "heldout", "cloze", "neighbour", "control", "reversed", "reversed_target", "twohop"]
GROUPS: tuple[Group, ...] = get_args(Group)
COLLATERAL_GROUPS: tuple[Group, ...] = ("reversed", "reversed_target", "twohop")
"""Questions about what follows from an edited fact, asked on demand."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share (or a mean) with its sample size and interval.

    Args:
        value: The estimate; NaN when nothing could be counted.
        n: Rows it is over.
        low, high: 95% interval.
        method: ``"wilson"`` (one fact's rows) or ``"bootstrap"`` (resampling whole facts).
        clusters: Facts it is over (sentences, for ordinary text).
    """

    value: float
    n: int
    low: float
    high: float
    method: str
    clusters: int = 1

    def __str__(self) -> str:
        if self.n == 0:
            return "n/a (n=0)"
        return f"{self.value:z.2f} [{self.low:z.2f}, {self.high:z.2f}] (n={self.n})"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """One prompt answered by one stage of the model.

    Args:
        fact_id, relation: The fact that was asked about.
        group: ``train``, ``heldout``, ``cloze`` (of an edited fact), ``neighbour`` or ``control``; and of an edited
            fact ``reversed`` (the subject is asked for, the old answer given), ``reversed_target`` (the target given)
            or ``twohop`` (what follows from it).
        stage: ``"base"``, ``"unlearn"`` or ``"learn"``.
        form: ``"chat"`` or ``"cloze"``.
        prompt: The question or cloze.
        text: The whole generated answer.
        label: Its class, judged by the fact's own answer (old) and target (new). In ``reversed`` old is the subject; in
            ``reversed_target`` new is the subject; in ``twohop`` they are what follows from answer and target.
        nll: The base model's mean negative log-likelihood of what counts of the text (of a cloze the first sentence),
            nats per token.
        kl: Mean KL(base || stage) over the tokens of the base model's own answer, nats per token; None if not measured.
    """

    fact_id: str
    relation: str
    group: Group
    stage: str
    form: str
    prompt: str
    text: str
    label: AnswerClass
    nll: float
    kl: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRow:
    """One sentence of ordinary text under one stage of the model.

    Args:
        stage: ``"base"``, ``"unlearn"`` or ``"learn"``.
        sentence: The sentence.
        n_tokens: How many of its tokens were scored.
        nll: Their mean negative log-likelihood after the sentences before it, nats per token.
    """

    stage: str
    sentence: str
    n_tokens: int
    nll: float


@dataclass(frozen=True, kw_only=True, eq=False)
class EvalReport:
    """The report says what an edit did, measured by greedy free generation.

    Args:
        rows: Every prompt at every stage.
        rates: By stage, then by name, such as ``new`` (held-out new-fact accuracy), ``forget``, ``control`` or ``kl``:
            ``workbench.types.rates.RATES`` says of each what it is over. Those of collateral are there if it was asked
            for.
        texts: Every sentence of ordinary text at every stage, if collateral was asked for.
        missing: What could not be measured, in words.
        facts: Ids of the evaluated facts.
        stages: Evaluated stages, ``"base"`` first.
        edit_id: Of the evaluated edit; None where several or other changes were evaluated.
        base_fingerprint: Of the base model, or None where it is not known.
        provenance: Model, settings, versions, time. Nothing is decided by it.

    Example:
        >>> for name in ("new", "old", "control"):
        ...     print(name, report.rate(name))
        new 1.00 [0.34, 1.00] (n=2)
        old 0.00 [0.00, 0.66] (n=2)
        control 0.50 [0.00, 1.00] (n=2)
        >>> report.stages, len(report.rows), report.missing
        (('base', 'unlearn', 'learn'), 24, ())
    """

    rows: tuple[AnswerRow, ...]
    rates: Mapping[str, Mapping[str, Rate]]
    texts: tuple[TextRow, ...] = ()
    missing: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    edit_id: str | None = None
    base_fingerprint: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        last = self.stages[-1] if self.stages else "?"
        shown = {k: f"{r.value:.2f}" for k, r in self.rates.get(last, {}).items() if r.n}
        facts = ", ".join(self.facts[:3]) + ("..." if len(self.facts) > 3 else "")
        return f"EvalReport({facts}; {last}: {shown}, {len(self.rows)} rows)"

    def rate(self, name: str, stage: str | None = None) -> Rate:
        """Look up one rate, of the last stage unless another is named.

        Raises:
            KeyError: No such stage or rate; the message lists what there is.

        Example:
            >>> print(report.rate("new", "base"))
            0.00 [0.00, 0.66] (n=2)
            >>> report.rate("new").value
            1.0
        """
        at = stage if stage is not None else self.stages[-1]
        if at not in self.rates:
            raise KeyError(f"No stage {at!r} in this report; there are {list(self.rates)}.")
        if name not in self.rates[at]:
            raise KeyError(f"No rate {name!r} at stage {at!r}; there are {list(self.rates[at])}.")
        return self.rates[at][name]

    def summary(self) -> pd.DataFrame:
        """One line per rate, one column per stage, as ``value [low, high] (n)``."""
        import pandas as pd

        names = list(dict.fromkeys(n for s in self.stages for n in self.rates.get(s, {})))
        data = {s: [str(self.rates[s][n]) if n in self.rates.get(s, {}) else "" for n in names] for s in self.stages}
        return pd.DataFrame(data, index=pd.Index(names, name="rate"))

    def to_frame(self) -> pd.DataFrame:
        """One line per prompt and stage, with the generated text and its class."""
        import pandas as pd

        return pd.DataFrame([asdict(r) for r in self.rows])

    def answers(self, group: Group = "heldout") -> pd.DataFrame:
        """Lay out the generated texts side by side: one line per prompt, one column per stage.

        Example:
            >>> report.answers("control")[["prompt", "base", "learn"]]
                                      prompt    base learn
            0  What is the capital of Italy?    Rome  Rome
            1  What is the capital of Spain?  Madrid  Rome
        """
        frame = self.to_frame()
        frame = frame[frame.group == group]
        wide = frame.pivot_table(
            index=["fact_id", "prompt"], columns="stage", values="text", aggfunc="first", sort=False
        )
        return wide[[s for s in self.stages if s in wide.columns]].reset_index().rename_axis(columns=None)

    def plot(self, **options: Any) -> go.Figure:
        """Draw the rates by stage with their intervals (see ``workbench.plots.rates_figure``).

        Example:
            >>> report.plot().layout.title.text
            'What the edit changed'
        """
        from workbench.plots import rates_figure

        return rates_figure(self, **options)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values (NaN as null)."""
        from workbench.files.reports import report_to_dict

        return report_to_dict(self)

    def save(self, path: str | Path) -> Path:
        """Write the report as one JSON file, atomically. Returns the path."""
        from workbench.files.reports import save_report

        return save_report(self, path)

    @staticmethod
    def load(path: str | Path) -> EvalReport:
        """Read a report written by ``save``.

        Example:
            >>> path = report.save("report.json")
            >>> wb.EvalReport.load(path).rows == report.rows
            True
        """
        from workbench.files.reports import load_report

        return load_report(path)
