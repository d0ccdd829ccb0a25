"""What a ProbePanel shows, as markup: findings and rates, one prompt's texts, and its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workbench.plots.style import visible
from workbench.types import ANSWER_NAMES, Fact, Finding, Lens, ProbeReport, ProbeRow
from workbench.types.probe import ANSWER_LINES, CurveFigure
from workbench.widgets.edit.views import stage_words
from workbench.widgets.shared import markup
from workbench.widgets.shared.code import fact_code

_GROUPS = {"edited": "", "same": "must stay: ", "control": "control: "}


def results(report: ProbeReport) -> str:
    """Findings of the lens, then the rates with n and interval, then what was not measured."""
    heads = ["probe", "rate [95% interval] (n)", *map(stage_words, report.stages)]
    rows: list[list[str]] = []
    for name, by in report.rates.items():
        words = report.words_of(name)
        for rate in dict.fromkeys(n for of in by.values() for n in of):
            cells = [str(by[s][rate]) if rate in by.get(s, {}) else "" for s in report.stages]
            rows.append([words.title, words.rates.get(rate, rate), *cells])
    lines = [finding for finding in report.findings if _is_shown(finding, report.stages[-1])]
    parts = [markup.block(*(f"<p>{markup.text(line)}.</p>" for line in lines))] if lines else []
    parts += [markup.table(heads, rows, "What is left, and what else changed")] if rows else []
    for kind, show in _CURVES.items():
        drawn = [p for p in report.figures if (words := report.words_of(p).curve) and words.figure == kind]
        parts += [show(report, probe) for probe in drawn]
    parts += [markup.alert(f"Not measured, {name}: {why}.", "info") for name, why in report.skipped.items()]
    return "".join(parts)


def _is_shown(finding: Finding, last: str) -> bool:
    """Curves, and readings of the lens: of the edited fact at every stage, of the control after the last."""
    if finding.kind == "lens":
        return finding.group == "edited" or finding.stage == last
    return finding.kind == "curve"


def curves(report: ProbeReport, probe: str) -> str:
    """A probe's probabilities of the edited fact and of its control, a chart for each stage; empty without any."""
    words = report.words_of(probe)
    x_label = words.curve.x_label if words.curve else ""
    charts: list[str] = []
    for stage in report.stages:
        here = [c for c in report.curves if (c.probe, c.stage) == (probe, stage)]
        lines = {
            f"{ANSWER_LINES[name]}, {c.name}": list(zip(c.x, values, strict=True))
            for c in here
            for name, values in c.y.items()
            if name in ANSWER_LINES and (c.group == "edited" or name == "p_old")
        }
        if lines:
            end = max(x for c in here for x in c.x)
            heading = f"{words.title}, {stage_words(stage)}: probability"
            charts.append(markup.line_chart(lines, heading, x_label=x_label, x_max=end, y_max=1.0))
    return markup.charts(*charts) if charts else ""


def labels_table(report: ProbeReport, probe: str) -> str:
    """A probe's values by label, such as a word of the question, a column for each stage; empty without any."""
    words = report.words_of(probe).curve
    tables: list[str] = []
    for name in dict.fromkeys(c.name for c in report.curves if c.probe == probe):
        here = {c.stage: c for c in report.curves if (c.probe, c.name) == (probe, name)}
        values = {stage: next(iter(c.y.values())) for stage, c in here.items()}
        heads = [words.x_label if words else "", *map(stage_words, here)]
        labels = next(iter(here.values())).labels
        rows = [[label, *(f"{of[i]:.2f}" for of in values.values())] for i, label in enumerate(labels)]
        tables.append(markup.table(heads, rows, f"{name}: {words.caption}" if words else name))
    return "".join(tables)


_CURVES: dict[CurveFigure, Callable[[ProbeReport, str], str]] = {"lines": curves, "bars": labels_table}
"""How curves are shown beside the rates; points have their finding only."""


def card_lines(report: ProbeReport) -> list[str]:
    """How often each probe brought the old answer back after the last stage, as plain text."""
    last = report.stages[-1]
    rates = {name: by[last]["old"] for name, by in report.rates.items() if "old" in by.get(last, {})}
    return [f"{report.words_of(n).title}: old answer {r.value:.2f} (n={r.n})" for n, r in rates.items() if r.n]


def row_label(row: ProbeRow) -> str:
    """A prompt in a list: raw text, for a control that shows texts literally."""
    mark = "" if row.informative else " (base fails)"
    start = f" ⟶ {row.start}" if row.start else ""
    return f"{_GROUPS[row.group]}{row.kind}{mark}: {visible(row.prompt + start, 150)}"


def texts(report: ProbeReport, row: ProbeRow) -> str:
    """What every stage says to one prompt."""
    key = (row.probe, row.kind, row.group, row.fact_id, row.prompt, row.start)
    same = [r for r in report.rows if (r.probe, r.kind, r.group, r.fact_id, r.prompt, r.start) == key]
    prompt = f"{row.prompt} ⟶ {row.start}" if row.start else row.prompt
    cells = [markup.tagged(r.recovered, r.text) for r in same]
    wanted = f"old: {row.old}; new: {row.new}" + (
        "" if row.informative else "; the base fails, so it says nothing about forgetting"
    )
    return markup.table(["prompt", *(stage_words(r.stage) for r in same)], [[prompt, *cells]], wanted)


def layers(readings: Sequence[Lens], prompt: str) -> str:
    """Probabilities by layer at one prompt, one chart per stage, with the verdict in words and the last ranks."""
    charts = [
        markup.line_chart(
            {
                f"{name}: {one.tokens[name]}": [(float(i), p) for i, p in enumerate(one.probabilities[name])]
                for name in ANSWER_NAMES
            },
            f"{stage_words(one.stage)}: P(first token)",
            x_label="layers done",
            x_max=float(one.n_layers),
            y_max=1.0,
        )
        for one in readings
    ]
    words = f"<p>{markup.text(f'Layer by layer: {prompt}')}</p>"
    words += "".join(f"<p>{markup.text(f'{stage_words(x.stage)}: {x.finding}.')}</p>" for x in readings)
    heads = ["answer", *(f"rank, {stage_words(x.stage)}" for x in readings)]
    ranks = [
        [
            f"{name}: {readings[0].tokens[name]}",
            *(f"{x.ranks[name][-1] + 1}, best {min(x.ranks[name]) + 1}" for x in readings),
        ]
        for name in ANSWER_NAMES
    ]
    return markup.block(words) + markup.charts(*charts) + markup.table(heads, ranks, "Rank after the last layer")


def lens_code(fact: Fact, form: str, stages: Sequence[str], refusal: str, start: str = "") -> str:
    """Python that repeats a lens of one prompt at every stage."""
    written = fact_code(fact)
    load = "facts = wb.load_facts()\n" if written.startswith("facts[") else ""
    options = f"form={form!r}, refusal={refusal!r}" + (f", start={start!r}" if start else "")
    return (
        f"{load}asked = {written}\nreadings = [wb.lens(model, asked, {options})]\n"
        f"for stage in {list(stages)!r}:\n"
        "    with wb.applied(model, edit, stage) as edited:\n"
        f"        readings.append(wb.lens(edited, asked, {options}))\n"
    )
