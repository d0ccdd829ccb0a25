"""What a ProbePanel shows, as markup: the verdict, what each probe found, one prompt's texts, and its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workbench.plots.style import visible
from workbench.probing.outcome import outcome, shares
from workbench.probing.table import PROBES
from workbench.types import ANSWER_NAMES, Fact, Finding, Lens, ProbeReport, ProbeRow
from workbench.types.outcome import Share
from workbench.types.probe_null import ordinal
from workbench.types.probe_parts import ANSWER_LINES, CurveFigure
from workbench.widgets.edit.views import stage_words
from workbench.widgets.shared import charts as svg
from workbench.widgets.shared import markup
from workbench.widgets.shared.code import fact_code, is_bundled
from workbench.widgets.shared.lens_words import LEADS, LIKELIEST, settled
from workbench.widgets.shared.markup import AnswerKind, Markup

_GROUPS = {"edited": "", "same": "must stay: ", "control": "control: "}


def verdict(report: ProbeReport) -> str:
    """How many probes bring the old answer back, and below what base and control answer at the same probes."""
    found = outcome(report)
    return markup.verdict(found.words, found.kind) + markup.hint(f"{found.beside} {found.null}")


def result(report: ProbeReport | None, probe: str) -> tuple[str, Share | None]:
    """What came of a probe, for its line: words, and what they count."""
    if report is None or probe not in (*report.probes, *report.skipped, *(r.probe for r in report.rows)):
        return "", None
    count = shares(report).get(probe)
    if count is not None:
        return (f"{count} prompts", count) if count.n else ("the base fails here too", None)
    if probe == "lens" and report.lenses:
        reading = report.lens()
        layers = Share(hits=len(reading.old_leads), n=reading.n_layers)
        return f"old leads at {layers} layers{', tuned lens' * (reading.kind == 'tuned')}", layers
    if any(curve.probe == probe for curve in report.curves):
        return "see its curves", None
    return ("other facts; see its texts", None) if probe in report.probes else ("not measured", None)


def readable(report: ProbeReport) -> tuple[str, ...]:
    """Probes with texts, curves or readings."""
    held = {*(r.probe for r in report.rows), *(c.probe for c in report.curves), *(["lens"] if report.lenses else [])}
    return tuple(probe for probe in PROBES if probe in held)


def most_telling(report: ProbeReport) -> str | None:
    """The probe to read first: the first that brings the old answer back, else the first with anything."""
    back = [probe for probe, share in shares(report).items() if share.hits]
    return next(iter([*back, *readable(report)]), None)


def found(report: ProbeReport, probe: str) -> str:
    """What one probe found: its findings, then its curves, or the readings of the lens."""
    words = report.words_of(probe)
    lines = [f for f in report.findings if f.probe == probe and _is_shown(f, report.stages[-1])]
    parts = [markup.title(words.title, PROBES[probe].question if probe in PROBES else "")]
    parts += [markup.block(*(f"<p>{markup.text(line)}.</p>" for line in lines))] if lines else []
    show = _CURVES.get(words.curve.figure) if words.curve else None
    if show is not None:
        parts.append(show(report, probe))
    if probe == "lens":
        readings = [x for x in report.lenses if x.prompt.fact_id == report.fact.id]
        parts += [lens_sentences(readings), lens_charts(readings)]
    parts += [markup.alert(why, "info") for name, why in report.skipped.items() if name == probe]
    return "".join(parts)


def all_rates(report: ProbeReport) -> str:
    """The rates of all probes with n and interval, and what was not measured; folded."""
    heads = ["probe", "rate [95% interval] (n)", *map(stage_words, report.stages)]
    rows: list[list[str]] = []
    for name, by in report.rates.items():
        words = report.words_of(name)
        for rate in dict.fromkeys(n for of in by.values() for n in of):
            cells = [str(by[s][rate]) if rate in by.get(s, {}) else "" for s in report.stages]
            rows.append([words.title, words.rates.get(rate, rate), *cells])
    table = markup.table(heads, rows, "What is left, and what else changed") if rows else ""
    missing = "".join(f"<p>{markup.text(f'Not measured, {name}: {why}.')}</p>" for name, why in report.skipped.items())
    folds = [markup.fold("All rates, with intervals", table)] if table else []
    folds += [markup.fold(*null_of(report))] if report.null is not None else []
    folds += [markup.fold(f"Not measured ({len(report.skipped)})", missing)] if missing else []
    return "".join(folds)


def null_of(report: ProbeReport) -> tuple[str, str]:
    """The null as a heading and a table: by probe and group the edited fact's percentile, and how often the probe finds
    something there."""
    assert report.null is not None
    heads = ["probe", "measure", "edited fact", "beside", "percentile", "found there"]
    rows = [
        [
            *(report.words_of(str(line["probe"])).title, str(line["measure"]), f"{line['edited fact']:.2f}"),
            *(f"{line['n']} {line['beside']}", ordinal(round(line["percentile"]))),
            f"{line['found']}{', false' if line['false there'] else ''}",
        ]
        for line in report.null.to_rows()
    ]
    why = "".join(f"<p>{markup.text(f'No null, {name}: {why}.')}</p>" for name, why in report.null.skipped.items())
    return "Null: what the probes find where there is nothing", markup.table(heads, rows, "Null") + why


def _is_shown(finding: Finding, last: str) -> bool:
    """Of the lens: which it is, of the edited fact at every stage, of the control after the last."""
    if finding.kind == "lens":
        return finding.group in (None, "edited") or finding.stage == last
    return finding.kind in ("curve", "rate")


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
            charts.append(svg.line_chart(lines, heading, x_label=x_label, x_max=end, y_max=1.0))
    return svg.side_by_side(*charts) if charts else ""


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
    wanted = f"old: {row.old}; new: {row.new}" + (
        "" if row.informative else "; the base fails, so it says nothing about forgetting"
    )
    heads = ["prompt", *(stage_words(r.stage) for r in _same_prompt(report, row))]
    return markup.table(heads, [_cells(report, row)], wanted)


def all_texts(report: ProbeReport, base: Sequence[ProbeRow]) -> str:
    """What every stage says to all prompts of a probe, folded.

    Args:
        report: The report.
        base: The base's rows of the probe.
    """
    heads = ["prompt", *map(stage_words, report.stages)]
    table = markup.table(heads, [_cells(report, row) for row in base], "All texts")
    return markup.fold(f"All {len(base)} prompts with their texts", table)


def _cells(report: ProbeReport, row: ProbeRow) -> list[object]:
    prompt = f"{row.prompt} ⟶ {row.start}" if row.start else row.prompt
    same = _same_prompt(report, row)
    return [prompt, *(Markup(f"{markup.badge(_KINDS[r.recovered]).html}{markup.text(r.text)}") for r in same)]


def _same_prompt(report: ProbeReport, row: ProbeRow) -> list[ProbeRow]:
    """A prompt's rows of all stages."""
    key = (row.probe, row.kind, row.group, row.fact_id, row.prompt, row.start)
    return [r for r in report.rows if (r.probe, r.kind, r.group, r.fact_id, r.prompt, r.start) == key]


_KINDS: dict[str, AnswerKind] = {"old": "old", "new": "new", "refusal": "refusal", "neither": "other"}


def lens_sentences(readings: Sequence[Lens]) -> str:
    """From which layer on the old answer's token is the likeliest, by stage, and what the words mean."""
    lines = [
        f"{stage_words(x.stage)}: {settled(x.tokens['old'], x.settles('old'), x.ranks['old'][-1])}" for x in readings
    ]
    return markup.block("".join(f"<p>{markup.text(line)}</p>" for line in lines)) + markup.hint(f"{LIKELIEST} {LEADS}")


def lens_charts(readings: Sequence[Lens]) -> str:
    """Log P of the answers' first tokens by layer, one chart per stage."""
    charts = [
        svg.line_chart(
            {
                f"{name}: {reading.tokens[name]}": [(float(i), p) for i, p in enumerate(reading.probabilities[name])]
                for name in ANSWER_NAMES
            },
            f"{stage_words(reading.stage)}: P(first token), log scale",
            x_label="layers done",
            x_max=float(reading.n_layers),
            y_max=1.0,
            log=True,
        )
        for reading in readings
    ]
    return svg.side_by_side(*charts) if charts else ""


def layers(readings: Sequence[Lens], prompt: str) -> str:
    """One prompt by layer: the verdict in words, a chart per stage, and the last ranks."""
    tuned = ", tuned lens" if any(x.kind == "tuned" for x in readings) else ""
    words = f"<p>{markup.text(f'Layer by layer{tuned}: {prompt}')}</p>"
    words += "".join(f"<p>{markup.text(f'{stage_words(x.stage)}: {x.finding}.')}</p>" for x in readings)
    words += lens_sentences(readings)
    heads = ["answer", *(f"rank, {stage_words(x.stage)}" for x in readings)]
    ranks = [
        [
            f"{name}: {readings[0].tokens[name]}",
            *(f"{x.ranks[name][-1] + 1}, best {min(x.ranks[name]) + 1}" for x in readings),
        ]
        for name in ANSWER_NAMES
    ]
    return markup.block(words) + lens_charts(readings) + markup.table(heads, ranks, "Rank after the last layer")


def lens_code(fact: Fact, form: str, stages: Sequence[str], refusal: str, start: str = "", through: str = "") -> str:
    """Python that repeats a lens of one prompt at every stage; ``through`` is the lens in Python, if it is tuned."""
    load = "facts = wb.load_facts()\n" if is_bundled(fact) else ""
    options = f"form={form!r}, refusal={refusal!r}" + (f", start={start!r}" if start else "")
    options += f", kind={through}" if through else ""
    return (
        f"{load}asked = {fact_code(fact)}\nreadings = [wb.lens(model, asked, {options})]\n"
        f"for stage in {list(stages)!r}:\n"
        "    with wb.applied(model, edit, stage) as edited:\n"
        f"        readings.append(wb.lens(edited, asked, {options}))\n"
    )
