"""Probe results: what is left of a fact after an edit, prompt by prompt, with the generated text kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.types.fact import Fact
from workbench.types.finding import Finding, findings_of
from workbench.types.lens import Lens
from workbench.types.lens_choice import LensChoice
from workbench.types.probe_null import NULL_COLUMNS, ProbeNull
from workbench.types.probe_parts import Curve, ProbeGroup, ProbeRow, ProbeWords, RatesByStage
from workbench.types.report import Rate

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeReport:
    """The report says what is left of a fact after an edit, and whether a fact that was never edited answers as before.

    Args:
        fact: The edited fact that was probed.
        control: A fact that was never edited or retained, asked the same prompts; None if there is none.
        stages: Probed stages, ``"base"`` first.
        rows: Every prompt at every stage, with its text.
        curves: Measurements along strength, steps, words and prompts.
        lenses: Lens readings by stage, of the fact and of the control.
        lens_choice: Through which lens they were read, and how close both lenses are; None without a reading.
        rates: By probe, stage and name (see ``words``), with n and a 95% interval. ``old``, ``new``, ``refusal``
            and ``neither`` are shares of the fact's prompts *on which the base model is right*; ``same`` and
            ``control`` are shares that are still right, of those on which the base is.
        null: What the same probes find where nothing is to be found, or None: then no verdict says how rare it is.
        probes: The probes that finished.
        words: By probe, its title and what its rates and curves are; a probe without them goes by its name.
        skipped: By probe (or ``probe: part``), why it was left out, or in which error it ended; rows that were finished
            until then are kept and count.
        partial: Why the battery ended early; empty when it did not. Finished rows are kept.
        asked: The probes that were asked for.
        max_new_tokens, seed: How they were run; None where it is not known.
        edit_id, base_fingerprint: Of the probed edit and its base model, or None where it is not known.
        provenance: Model, settings, versions, time. Nothing is decided by it.

    Example:
        >>> probes.probes, probes.figures
        (('lens', 'adversarial', 'strength'), ('rates', 'lens', 'strength'))
        >>> probes.lens().verdict
        'pretends to forget: the old answer leads at 3 of the layers in to L1, then the new answer from L2 on'
    """

    fact: Fact
    control: Fact | None
    stages: tuple[str, ...]
    rows: tuple[ProbeRow, ...] = ()
    curves: tuple[Curve, ...] = ()
    lenses: tuple[Lens, ...] = ()
    lens_choice: LensChoice | None = None
    rates: Mapping[str, RatesByStage] = field(default_factory=dict[str, RatesByStage])
    null: ProbeNull | None = None
    probes: tuple[str, ...] = ()
    words: Mapping[str, ProbeWords] = field(default_factory=dict[str, ProbeWords])
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])
    partial: str = ""
    asked: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    seed: int | None = None
    edit_id: str | None = None
    base_fingerprint: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        last = self.stages[-1] if self.stages else "?"
        shown = {
            p: f"{by[last]['old'].value:.2f}"
            for p, by in self.rates.items()
            if last in by and "old" in by[last] and by[last]["old"].n
        }
        ended = f"; partial: {self.partial}" if self.partial else ""
        return f"ProbeReport({self.fact.id}; {last}, old answer recovered: {shown}, {len(self.rows)} rows{ended})"

    def rate(self, probe: str, name: str = "old", stage: str | None = None) -> Rate:
        """Look up one rate, of the last stage unless another is named.

        Raises:
            KeyError: No such probe, stage or rate; the message lists what there is, or why the probe was skipped.

        Example:
            >>> print(probes.rate("adversarial", "old"))
            1.00 [0.21, 1.00] (n=1)
        """
        at = stage if stage is not None else self.stages[-1]
        if probe not in self.rates:
            why = f" It was skipped: {self.skipped[probe]}." if probe in self.skipped else ""
            raise KeyError(f"No rates of the probe {probe!r} in this report; there are {list(self.rates)}.{why}")
        if at not in self.rates[probe]:
            raise KeyError(f"No stage {at!r} of the probe {probe!r}; there are {list(self.rates[probe])}.")
        if name not in self.rates[probe][at]:
            raise KeyError(f"No rate {name!r} of the probe {probe!r}; there are {list(self.rates[probe][at])}.")
        return self.rates[probe][at][name]

    def curve(self, probe: str, *, stage: str | None = None, group: ProbeGroup = "edited") -> Curve:
        """Look up the first curve of a probe at a stage (the last one by default).

        Raises:
            KeyError: There is none; the message lists what there is.

        Example:
            >>> curve = probes.curve("strength")
            >>> curve.x, [round(p, 1) for p in curve.y["p_old"]]
            ((0.0, 0.25, 0.5, 0.75, 1.0), [1.0, 1.0, 0.7, 0.0, 0.0])
        """
        at = stage if stage is not None else self.stages[-1]
        for curve in self.curves:
            if (curve.probe, curve.stage, curve.group) == (probe, at, group):
                return curve
        there = [(c.probe, c.stage, c.group) for c in self.curves]
        raise KeyError(f"No curve of {probe!r} at {at!r} for {group!r}; there are {there}.")

    def lens(self, stage: str | None = None, group: Literal["edited", "control"] = "edited") -> Lens:
        """Look up the lens reading of a stage (the last one by default), of the edited or the control fact.

        Raises:
            KeyError: There is none; the message lists what there is.

        Example:
            >>> probes.lens("base", "control").verdict
            'the old answer leads at the end, from L2 on'
        """
        at = stage if stage is not None else self.stages[-1]
        wanted = self.fact if group == "edited" else self.control
        for reading in self.lenses:
            if reading.stage == at and wanted is not None and reading.prompt.fact_id == wanted.id:
                return reading
        there = [(x.prompt.fact_id, x.stage) for x in self.lenses]
        raise KeyError(f"No lens of the {group} fact at {at!r}; there are {there}.")

    def words_of(self, probe: str) -> ProbeWords:
        """Look up a probe's words; of a probe without any, its name."""
        return self.words.get(probe) or ProbeWords(title=probe)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the probes found, one sentence each, for the last stage; then what was not measured.

        Each is a text, and says by its fields what it is about (see ``Finding``).
        """
        return tuple(findings_of(self))

    def summary(self) -> pd.DataFrame:
        """One line per probe and rate, one column per stage, as ``value [low, high] (n)``."""
        import pandas as pd

        lines: list[dict[str, str]] = []
        for probe, by in self.rates.items():
            words = self.words_of(probe)
            for name in dict.fromkeys(n for rates in by.values() for n in rates):
                cells = {s: str(by[s][name]) if name in by.get(s, {}) else "" for s in self.stages}
                lines.append({"probe": probe, "rate": words.rates.get(name, name), **cells})
        return pd.DataFrame(lines, columns=["probe", "rate", *self.stages])

    def null_table(self) -> pd.DataFrame:
        """One line per probe and group of the null: the edited fact's value, its percentile there, and the group's
        values; empty without a null."""
        import pandas as pd

        return pd.DataFrame([] if self.null is None else self.null.to_rows(), columns=list(NULL_COLUMNS))

    def to_frame(self) -> pd.DataFrame:
        """One line per prompt and stage, with the generated text, its class and what was recovered."""
        import pandas as pd

        return pd.DataFrame([{**asdict(r), "recovered": r.recovered} for r in self.rows])

    def answers(self, probe: str | None = None, group: ProbeGroup | None = "edited") -> pd.DataFrame:
        """Lay out the generated texts side by side: one line per prompt, one column per stage.

        Args:
            probe: Of this probe only.
            group: Of this group only; None for all.

        Example:
            >>> answers = probes.answers("adversarial")
            >>> list(answers.columns)
            ['probe', 'kind', 'prompt', 'base right', 'base', 'unlearn', 'learn']
        """
        import pandas as pd

        lines: dict[tuple[str, ...], dict[str, Any]] = {}
        for r in self.rows:
            if probe in (None, r.probe) and group in (None, r.group):
                key = (r.probe, r.kind, r.group, r.fact_id, r.form, r.prompt, r.start)
                base = {"probe": r.probe, "kind": r.kind, "prompt": f"{r.prompt} ⟶ {r.start}" if r.start else r.prompt}
                line = lines.setdefault(key, {**base, "base right": "no"})
                line[r.stage] = f"{r.text} [{r.recovered}]"
                if r.informative:
                    line["base right"] = "yes"
        return pd.DataFrame(list(lines.values()), columns=["probe", "kind", "prompt", "base right", *self.stages])

    def plot(self, what: str = "rates", **options: Any) -> go.Figure:
        """Draw a figure: ``"rates"`` (old answer recovered, control kept), ``"lens"``, ``"null"``, or the curves of a
        probe such as ``"strength"`` (see ``figures``). ``group="control"`` draws the control's lens.

        Raises:
            ValueError: There is no such figure, or nothing measured to draw in it; the message lists what there is.

        Example:
            >>> probes.plot().layout.title.text
            'What is left of France: Paris'
            >>> probes.plot("strength").layout.title.text
            'Strength of the edit: france-capital'
        """
        from workbench.plots.probes import probe_figure

        return probe_figure(self, what, **options)

    @property
    def figures(self) -> tuple[str, ...]:
        """What ``plot`` can draw of this report."""
        places = {c.probe: drawn.place for c in self.curves if (drawn := self.words_of(c.probe).curve)}
        drawn = sorted(places, key=lambda probe: places[probe])
        null = ["null"] if self.null is not None and self.null.probes else []
        return (*(["rates"] if self.rates else []), *(["lens"] if self.lenses else []), *null, *drawn)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        from workbench.files.probes import probes_to_dict

        return probes_to_dict(self)

    def save(self, path: str | Path) -> Path:
        """Write the report as one JSON file, atomically. Returns the path."""
        from workbench.files.probes import save_probes

        return save_probes(self, path)

    @staticmethod
    def load(path: str | Path) -> ProbeReport:
        """Read a report written by ``save``.

        Example:
            >>> path = probes.save("probes.json")
            >>> wb.ProbeReport.load(path).probes
            ('lens', 'adversarial', 'strength')
        """
        from workbench.files.probes import load_probes

        return load_probes(path)

    def to_html(self, path: str | Path) -> Path:
        """Write findings, rates, figures and all texts as one self-contained HTML page. Returns the path.

        Example:
            >>> probes.to_html("probes.html").name
            'probes.html'
        """
        from workbench.plots.report_sections import write_probe_page

        return write_probe_page(self, path)
