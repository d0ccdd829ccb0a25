"""Evaluation results: every generated text with its class, and rates that carry n and an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

AnswerClass = Literal["old", "new", "both", "refusal", "other", "gibberish"]
ANSWER_CLASSES: tuple[AnswerClass, ...] = get_args(AnswerClass)
Group = Literal[
    "train",
    "heldout",
    "cloze",
    "same subject",
    "same answer",
    "neighbour",
    "control",
    "reversed",
    "reversed_target",
    "twohop",
]
GROUPS: tuple[Group, ...] = get_args(Group)
RELATED_GROUPS: tuple[Group, ...] = ("same subject", "same answer")
"""Other facts that hang together with an edited one, and that it must leave as they are."""
COLLATERAL_GROUPS: tuple[Group, ...] = ("reversed", "reversed_target", "twohop")
"""Questions about what follows from an edited fact, asked on demand."""


Condition = Literal["another batch", "bfloat16"]
"""In which the base is asked again: alone instead of in a batch, or with its weights rounded."""


BY_DEFINITION = "by definition"
"""The method of a rate that could not be otherwise."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share (or a mean) with its sample size and interval.

    Args:
        value: The estimate; NaN when nothing could be counted.
        n: Rows it is over.
        low, high: 95% interval; NaN where there is none.
        method: How the interval was made (``workbench.types.intervals``): ``"wilson"`` (one fact's rows, or one row a
            fact), ``"clustered wilson"`` (several rows of each of several facts), ``"adjusted wald"`` (a difference of
            shares), ``"bootstrap"`` (values without bounds, resampling whole facts). ``"by definition"``: there is
            none, for what is counted fixes the value, as the base's own share of what the base answered right.
        clusters: Facts it is over (sentences, for ordinary text).

    Example:
        >>> print(report.rate("control"), "|", report.rate("control", "base"))
        0.50 [0.09, 0.91] (n=2) | 1.00 by definition (n=2)
        >>> report.rate("control", "base").has_interval
        False
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
        return f"{self.value:z.2f}{self.interval and f' {self.interval}'} (n={self.n})"

    @property
    def by_definition(self) -> bool:
        """Whether the value could not be otherwise."""
        return self.method == BY_DEFINITION

    @property
    def has_interval(self) -> bool:
        """Whether there are bounds."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def interval(self) -> str:
        """The interval in words: ``"[0.91, 1.00]"``, ``"by definition"``, or nothing where there is none."""
        if self.by_definition:
            return BY_DEFINITION
        return f"[{self.low:z.2f}, {self.high:z.2f}]" if self.has_interval else ""

    def defined(self) -> Rate:
        """The same value, which could not be otherwise: without an interval."""
        return replace(self, low=math.nan, high=math.nan, method=BY_DEFINITION) if self.n else self


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """One prompt answered by one stage of the model.

    Args:
        fact_id, relation: The fact that was asked about.
        group: ``train``, ``heldout``, ``cloze`` (of an edited fact), ``same subject`` (another fact about an edited
            subject), ``same answer`` (another fact that has an old answer), ``neighbour`` or ``control``; and of an
            edited fact ``reversed`` (the subject is asked for, the old answer given), ``reversed_target`` (the target
            given) or ``twohop`` (what follows from it).
        stage: ``"base"``, ``"unlearn"`` or ``"learn"``.
        form: ``"chat"`` or ``"cloze"``.
        prompt: The question or cloze.
        text: The whole generated answer.
        label: Its class, judged by the fact's own answer (old) and target (new). Of a fact that was not edited, new is
            what the edit taught and the base does not say there; its own target was taught nowhere. In ``reversed`` old
            is the subject; in ``reversed_target`` new is the subject; in ``twohop`` they are what follows from answer
            and target.
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
class Flip:
    """One control that the untouched base loses by itself.

    Args:
        fact_id, prompt: The control.
        condition: In which it is lost: ``"another batch"`` or ``"bfloat16"``.
        text: What the base says then.
    """

    fact_id: str
    prompt: str
    condition: Condition
    text: str


TextSource = Literal["bundled", "own generations", "given"]
"""Where ordinary text comes from: the package's sentences, what the base itself wrote, or documents of one's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRow:
    """One sentence of ordinary text, or one long stretch of it, under one stage of the model.

    Args:
        stage: ``"base"``, ``"unlearn"`` or ``"learn"``.
        sentence: The sentence, or the stretch.
        n_tokens: How many of its tokens were scored.
        nll: Their mean negative log-likelihood, nats per token: of a sentence after those before it, of a stretch after
            nothing.
        source: Where it comes from. Long stretches have rates of their own.
    """

    stage: str
    sentence: str
    n_tokens: int
    nll: float
    source: TextSource = "bundled"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """What one stage says to one prompt when it is sampled at temperature 1 instead of taking the likeliest tokens.

    Args:
        fact_id, group, stage, prompt: As of the ``AnswerRow`` of the same prompt.
        texts: The samples.
        old: Of each, whether it names the old answer, whatever else it says.
    """

    fact_id: str
    group: Group
    stage: str
    prompt: str
    texts: tuple[str, ...]
    old: tuple[bool, ...]

    @property
    def leaks(self) -> bool:
        """Whether any sample names the old answer."""
        return any(self.old)


@dataclass(frozen=True, kw_only=True, eq=False)
class EvalReport:
    """The report says what an edit did, measured by greedy free generation.

    Args:
        rows: Every prompt at every stage.
        rates: By stage, then by name, such as ``new`` (held-out new-fact accuracy), ``forget``, ``control`` or ``kl``:
            ``workbench.types.rate_rules.RATES`` says of each what it is over. Those of collateral are there if it was
            asked for.
        texts: Every sentence of ordinary text at every stage, if collateral was asked for, and every long stretch, if
            ``text_tokens`` or ``prose`` was.
        samples: Samples of held-out questions at every stage, if any were asked for.
        probabilities: By stage and edited fact, the probabilities of ``"old"``, ``"new"`` and ``"refusal"`` where the
            base says its answer (``answer_probabilities``); of edits that have a stage of unlearning.
        retained_relations: Relations of which the edit held facts in place: its controls are of them, or of others.
        missing: What could not be measured, in words.
        closed_relations: Relations for which the edit's method was told to leave its subject alone
            (``Edit.closed_relations``); its rates on them are apart.
        flips: Controls that the untouched base itself loses in another batch or in bfloat16; the rate ``control_firm``
            is over the others. None where it was not looked at.
        left_out: How many facts of the pool were no candidates for controls and neighbours because the edit used their
            answers (``Edit.used_ids``); None where a report of an older version does not say.
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
        control 0.50 [0.09, 0.91] (n=2)
        >>> report.stages, len(report.rows)
        (('base', 'unlearn', 'learn'), 24)
        >>> report.missing[0]
        "same subject as france-capital: 'capitals' has no such fact"
    """

    rows: tuple[AnswerRow, ...]
    rates: Mapping[str, Mapping[str, Rate]]
    texts: tuple[TextRow, ...] = ()
    samples: tuple[SampleRow, ...] = ()
    missing: tuple[str, ...] = ()
    retained_relations: tuple[str, ...] = ()
    probabilities: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict[str, Any])
    closed_relations: tuple[str, ...] = ()
    flips: tuple[Flip, ...] | None = None
    left_out: int | None = None
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
        """Look up one rate, of the last stage unless another is named; ``"same-subject"`` is ``"same_subject"``.

        Raises:
            KeyError: No such stage or rate; the message lists what there is.

        Example:
            >>> print(report.rate("new", "base"))
            0.00 [0.00, 0.66] (n=2)
            >>> report.rate("new").value
            1.0
        """
        name = name.replace("-", "_")
        at = stage if stage is not None else self.stages[-1]
        if at not in self.rates:
            raise KeyError(f"No stage {at!r} in this report; there are {list(self.rates)}.")
        if name not in self.rates[at]:
            raise KeyError(f"No rate {name!r} at stage {at!r}; there are {list(self.rates[at])}.")
        return self.rates[at][name]

    @property
    def left_out_words(self) -> str:
        """How many facts were left out, in a sentence; empty where it is not known, or none was."""
        return (
            f"{self.left_out} facts of the pool are no controls or neighbours: the edit used their answers."
            if self.left_out
            else ""
        )

    @property
    def flip_words(self) -> str:
        """Which controls the base itself loses, in a sentence; empty where it is not known, or it loses none."""
        if not self.flips:
            return ""
        ids = list(dict.fromkeys(flip.fact_id for flip in self.flips))
        named = f"{', '.join(ids[:6])}{', ...' if len(ids) > 6 else ''}"
        return f"{len(ids)} controls are near ties that the untouched base loses by itself: {named}."

    def summary(self) -> pd.DataFrame:
        """One line per rate, one column per stage, as ``value [low, high] (n)``."""
        import pandas as pd

        names = list(dict.fromkeys(n for s in self.stages for n in self.rates.get(s, {})))
        data = {s: [str(self.rates[s][n]) if n in self.rates.get(s, {}) else "" for n in names] for s in self.stages}
        return pd.DataFrame(data, index=pd.Index(names, name="rate"))

    def to_frame(self) -> pd.DataFrame:
        """One line per prompt and stage, with the generated text and its class.

        ``forgotten`` says of a held-out question that the base answers with the old answer what stands there instead:
        ``"new"``, ``"refusal"``, ``"other"``, ``"gibberish"``, or ``"not"``; nothing elsewhere.

        Example:
            >>> report.to_frame().query("group == 'heldout'").forgotten.tolist()
            ['', '', 'not', 'not', 'new', 'new']
        """
        import pandas as pd

        return pd.DataFrame([asdict(r) | {"forgotten": self._forgotten(r)} for r in self.rows])

    def _forgotten(self, row: AnswerRow) -> str:
        if row.group != "heldout" or row.stage == "base" or self._said.get((row.fact_id, row.prompt)) != "old":
            return ""
        return "not" if row.label in ("old", "both") else row.label

    @cached_property
    def _said(self) -> dict[tuple[str, str], AnswerClass]:
        """What the base said to each held-out question."""
        return {(r.fact_id, r.prompt): r.label for r in self.rows if (r.group, r.stage) == ("heldout", "base")}

    def rates_frame(self) -> pd.DataFrame:
        """One line per stage and rate: value, interval, n, how many facts, and how the interval was made.

        Example:
            >>> report.rates_frame().query("rate == 'new'")[["stage", "value", "n"]].values.tolist()
            [['base', 0.0, 2], ['unlearn', 0.0, 2], ['learn', 1.0, 2]]
        """
        import pandas as pd

        rates = ((stage, name, rate) for stage, of in self.rates.items() for name, rate in of.items())
        return pd.DataFrame([{"stage": stage, "rate": name, **asdict(rate)} for stage, name, rate in rates])

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
