"""Probe reports: tables, files that come back exactly, figures, and texts that stay texts in HTML."""

from __future__ import annotations

import html
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiny_facts import capital
from tests.unit.test_lens import reading
from workbench.files.probe_words import WORDS_OF_VERSION_1
from workbench.probing.rates import rates_of_probes, words_of_probes
from workbench.probing.table import PROBES
from workbench.types import Curve, CurveRule, CurveWords, ProbeReport, ProbeRow, ProbeWords, Rate

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> %{x} $a$"
FACT = capital("France", "Paris", "Rome", id="<b>x</b>")


def row(stage: str, label: Any, **changes: Any) -> ProbeRow:
    given = {
        "probe": "adversarial", "kind": "role play", "group": "edited", "stage": stage, "fact_id": "<b>x</b>",
        "form": "chat", "prompt": HOSTILE, "old": "Paris", "new": "Rome", "text": HOSTILE, "label": label,
        "nll": 1.5, "informative": True,
    }  # fmt: skip
    return ProbeRow(**{**given, **changes})


def report(**changes: Any) -> ProbeReport:
    rows = (
        row("base", "old"),
        row("learn", "new"),
        row("base", "old", group="control", nll=math.nan),
        row("learn", "old", group="control", start="Sure! The answer is"),
        row("base", "other", probe="priming", group="same", informative=False),
        row("learn", "new", probe="priming", group="same", informative=False),
    )
    ys = {"p_old": (0.9, 0.2), "p_new": (0.1, math.nan), "p_refusal": (0.0, 0.0)}
    common: dict[str, Any] = {"name": HOSTILE, "group": "edited", "stage": "learn"}
    curves = (
        Curve(probe="strength", x_name="strength", x=(0.0, 1.0), y=ys, **common),
        Curve(
            probe="relearning", x_name="step", x=(0.0, 8.0), y={"p_old": (0.1, 0.6), "accuracy": (0.0, 1.0)}, **common
        ),
        Curve(probe="keywords", x_name="word", x=(0.0, 1.0), y={"old": (0.5, -0.1)}, labels=(HOSTILE, "b"), **common),
        Curve(
            probe="priming",
            x_name="p",
            x=(1e-5, math.nan),
            y={"p_after": (1e-3, math.nan)},
            labels=(HOSTILE, "b"),
            **common,
        ),
    )
    given = {
        "fact": FACT,
        "control": capital("Spain", "Madrid", "Rome"),
        "stages": ("base", "learn"),
        "rows": rows,
        "curves": curves,
        "lenses": (
            reading([0.1, 0.5, 0.2], [0.05, 0.1, 0.7]),
            reading([0.1, 0.5, 0.9], [0.05, 0.1, 0.0], stage="base"),
        ),
        "rates": rates_of_probes(rows, ("base", "learn")),
        "probes": ("lens", "adversarial", "priming"),
        "words": words_of_probes(PROBES),
        "skipped": {"steps": HOSTILE},
        "partial": "cancelled during steps",
        "asked": ("lens", "steps"),
        "max_new_tokens": 7,
        "seed": 3,
        "edit_id": "e" * 64,
        "base_fingerprint": "f" * 64,
        "provenance": {"model": HOSTILE, "settings": {"seed": 0}},
    }
    return ProbeReport(**{**given, **changes})


def test_round_trip(tmp_path: Path) -> None:
    one = report()
    path = one.save(tmp_path / "probes.json")
    again = ProbeReport.load(path)
    assert again.to_dict() == one.to_dict()
    ran = ("asked", "max_new_tokens", "seed", "edit_id", "base_fingerprint")
    assert [getattr(again, name) for name in ran] == [getattr(one, name) for name in ran]
    assert again.rows[:2] == one.rows[:2]
    assert math.isnan(again.rows[2].nll)
    assert again.curves[0].x == one.curves[0].x
    assert isinstance(again.curves[0].y["p_old"], tuple)
    assert again.lens("learn").prompt == one.lens("learn").prompt
    assert again.lens("learn").to_frame().equals(one.lens("learn").to_frame())
    assert again.rate("adversarial") == one.rate("adversarial")
    assert (again.fact, again.control, again.skipped, again.partial) == (
        one.fact,
        one.control,
        one.skipped,
        one.partial,
    )
    assert ProbeReport.load(report(control=None).save(path)).control is None


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = report().save(tmp_path / "probes.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    data["rows"][0]["label"] = "new"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match="damaged or edited"):
        ProbeReport.load(path)
    path.write_text('{"kind": "workbench-report"}', encoding="utf-8")
    with pytest.raises(ValueError, match="is not a workbench-probes: it is a workbench-report"):
        ProbeReport.load(path)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        ProbeReport.load(tmp_path / "none.json")


def test_tables() -> None:
    one = report()
    frame = one.to_frame()
    assert frame.recovered.tolist() == ["old", "new", "old", "old", "neither", "new"]
    wide = one.answers("adversarial")
    assert wide.to_dict("records") == [
        {
            "probe": "adversarial",
            "kind": "role play",
            "prompt": HOSTILE,
            "base right": "yes",
            "base": f"{HOSTILE} [old]",
            "learn": f"{HOSTILE} [new]",
        }
    ]
    assert len(one.answers(group=None)) == 4
    summary = one.summary()
    assert summary.columns.tolist() == ["probe", "rate", "base", "learn"]
    line = summary[(summary.probe == "adversarial") & (summary.rate == "old answer recovered")]
    assert line.learn.item().startswith("0.00 [0.00, 0.79] (n=1)")
    bled = one.rate("priming", "bleed")
    assert bled == Rate(1.0, 1, bled.low, 1.0, "wilson", 1) and bled.low == pytest.approx(0.2065, abs=1e-3)
    assert (
        f"priming, learn: {HOSTILE} rises in 1.00 [0.21, 1.00] (n=1) of other questions, 100 times at the median; "
        "no null measured" in one.findings
    )
    assert any(f"{HOSTILE} is at P(answer) 0.5 after 8 of 8 steps" in line for line in one.findings)


def test_a_question_that_ends_with_another_is_paired_with_its_own_statement() -> None:
    def one(prompt: str, kind: str, label: Any) -> ProbeRow:
        return row("base", label, probe="context", kind=kind, prompt=prompt)

    rows = [
        one("What is it?", "not stated", "old"),
        one("F. What is it?", "stated", "old"),
        one("Tell me. What is it?", "not stated", "other"),
        one("F. Tell me. What is it?", "stated", "old"),
    ]
    rate = rates_of_probes(rows, ("base",))["context"]["base"]["gain"]
    assert (rate.value, rate.n) == (pytest.approx(1 / 2), 2)


def test_missing_things_are_named() -> None:
    one = report()
    with pytest.raises(KeyError, match="No rates of the probe 'steps'"):
        one.rate("steps")
    with pytest.raises(KeyError, match="No stage 'unlearn'"):
        one.rate("adversarial", stage="unlearn")
    with pytest.raises(KeyError, match="No rate 'gain'"):
        one.rate("adversarial", "gain")
    with pytest.raises(KeyError, match="No curve of 'strength' at 'base'"):
        one.curve("strength", stage="base")
    with pytest.raises(KeyError, match="No lens of the control fact"):
        one.lens(group="control")
    with pytest.raises(ValueError, match="with a lens in this report, got 'control'"):
        one.plot("lens", group="control")
    with pytest.raises(ValueError, match=r"can draw \['rates', 'lens', 'strength'.*got 'context'"):
        one.plot("context")
    with pytest.raises(ValueError, match="of one length"):
        Curve(probe="strength", name="x", group="edited", stage="s", x_name="s", x=(0.0,), y={"a": (1.0, 2.0)})


def test_the_controls_lens_is_drawn_and_told_beside_the_facts() -> None:
    one = report()
    assert one.control is not None
    beside = [replace(x, prompt=replace(x.prompt, fact_id=one.control.id)) for x in one.lenses]
    both = replace(one, lenses=(*one.lenses, *beside))
    titles = [both.plot("lens", group=group).layout.title.text for group in ("edited", "control")]
    assert html.escape(FACT.id) in titles[0] and one.control.id in titles[1]
    told = [line for line in both.findings if line.startswith("lens")]
    assert len(told) == 4 and sum(f", control {one.control.id}: " in line for line in told) == 2


def test_figures_say_in_words_what_they_show_and_escape_texts() -> None:
    one = report()
    assert one.figures == ("rates", "lens", "strength", "relearning", "keywords", "priming")
    for name in one.figures:
        figure = one.plot(name)
        content = figure.to_dict()
        assert content["layout"]["meta"]["alt"], name
        del content["layout"]["meta"]  # alt text is raw, the page escapes it
        text = json.dumps(json.loads(figure.__class__(content).to_json()))
        assert "<script" not in text and "<img" not in text and "<b>x" not in text, name
        assert "%{x} $a$" not in text, name
    figure = one.plot("rates")
    shown = {t.name for t in figure.data}
    assert shown == {"base", "learn"}
    empty = replace(one, rows=(), curves=(), lenses=(), rates={})
    assert empty.figures == ()
    assert repr(empty)


def test_facts_with_the_same_answer_have_a_column_of_their_own() -> None:
    """Beside the control fact, which keeps its answer where they lose it."""
    right, wrong = Rate(1.0, 5, 0.57, 1.0, "wilson"), Rate(0.0, 2, 0.0, 0.66, "wilson")
    learned = {"old": replace(wrong, n=9), "control": right, "same": wrong}
    figure = report(rates={"interconnected": {"base": {}, "learn": learned}}).plot("rates")
    ticks = list(figure.layout.xaxis.ticktext)
    assert [tick.split("<br>n = ")[1] for tick in ticks] == ["9 and 5", "2"] and "other facts" in ticks[1]
    lower = {round(float(x)): float(y) for t in figure.data if t.yaxis == "y2" for x, y in zip(t.x, t.y, strict=True)}
    assert lower == {0: 1.0, 1: 0.0}
    upper = {round(float(x)): float(y) for t in figure.data if t.yaxis == "y" for x, y in zip(t.x, t.y, strict=True)}
    assert upper == {0: 0.0}


def test_a_page_of_hostile_texts(tmp_path: Path) -> None:
    page = report().to_html(tmp_path / "probes.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
    assert "<b>x</b>" not in page
    assert "cancelled during steps" in page


def test_an_interrupted_probe_has_its_rows_on_the_page(tmp_path: Path) -> None:
    rows = (row("base", "old", probe="steps", text="finished"), row("base", "old"))
    page = report(rows=rows, probes=("adversarial",)).to_html(tmp_path / "probes.html").read_text(encoding="utf-8")
    assert "Texts: steps" in page and "finished" in page


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    x, after = (0.1, 0.1, 0.1, 0.1), (0.05, 0.2, 0.4, 0.8)  # 0.5, 2, 4 and 8 times
    curve = Curve(probe="priming", name="P(Rome)", group="edited", stage="learn", x_name="p", x=x, y={"p_after": after})
    (line,) = [f for f in report(curves=(curve,)).findings if f.startswith("priming, learn: P(Rome)")]
    assert line.endswith("rises in 0.75 [0.30, 0.95] (n=4) of other questions, 3 times at the median; no null measured")


# --- findings as records, and probes that describe themselves --------------------------------------------------------


def test_findings_are_sentences_with_fields() -> None:
    one = report()
    kinds = [f.kind for f in one.findings]
    assert kinds == ["lens", "lens", "rate", "rate", "rate", "curve", "curve", "not measured", "partial"]
    control = next(f for f in one.findings if f.name == "control")
    assert (control.probe, control.stage, control.rate) == ("adversarial", "learn", one.rate("adversarial", "control"))
    primed = next(f for f in one.findings if f.kind == "curve" and f.probe == "priming")
    assert primed.rate is not None and (primed.rate.value, primed.rate.n) == (1.0, 1)
    assert primed.words == primed and type(primed.words) is str
    assert "\n".join(one.findings).endswith("partial: cancelled during steps")
    again = pickle.loads(pickle.dumps(primed))
    assert again == primed and again.rate == primed.rate
    with pytest.raises(AttributeError, match="not changed after it is made"):
        primed.probe = "other"


def test_a_report_of_a_probe_that_nobody_knows_is_drawn_and_told(tmp_path: Path) -> None:
    """All that is said about a probe is in its report: nothing else has to be changed for a new one."""
    words = ProbeWords(
        title="heat",
        rates={"old": "still warm"},
        headlines=("old",),
        curve=CurveWords(
            figure="lines",
            title="Heat: {fact}",
            notes=("degrees",),
            x_label="minutes",
            y_label="warmth",
            rule=CurveRule(kind="reaches", y="warmth", level=0.25, what="warmth"),
        ),
    )
    curve = Curve(
        probe="heat",
        name="stove",
        group="edited",
        stage="learn",
        x_name="minute",
        x=(0, 1, 2),
        y={"warmth": (0, 0.1, 0.5)},
    )
    rates = {"heat": {"learn": {"old": Rate(0.5, 4, 0.15, 0.85, "wilson")}}}
    path = report(rows=(), lenses=(), skipped={}, partial="", rates=rates, curves=(curve,), words={"heat": words}).save(
        tmp_path / "probes.json"
    )
    one = ProbeReport.load(path)
    assert one.words == {"heat": words}
    assert one.findings == (
        "heat, learn: still warm 0.50 [0.15, 0.85] (n=4); no null measured",
        "heat, learn: stove is at warmth 0.25 after 2 of 2 minutes (looked at 0, 1, 2); no null measured",
    )
    assert one.figures == ("rates", "heat")
    figure = one.plot("heat")
    assert figure.layout.yaxis.title.text == "warmth" and figure.data[0].name == "warmth"
    assert one.summary().rate.tolist() == ["still warm"]
    bare = replace(one, words={})
    assert bare.figures == ("rates",) and bare.findings == () and bare.summary().probe.tolist() == ["heat"]


def test_a_report_saved_before_probes_described_themselves_reads_as_it_did() -> None:
    path = Path(__file__).parents[1] / "data" / "version_1" / "session" / "probes.json"
    assert "words" not in json.loads(path.read_text(encoding="utf-8"))
    one = ProbeReport.load(path)
    assert one.findings == (
        "requantised weights, learn: old answer recovered 0.40 [0.17, 0.69] (n=10); no null measured",
        "requantised weights, learn: control: still right 0.50 [0.24, 0.76] (n=10)",
    )
    for name, words in words_of_probes(WORDS_OF_VERSION_1).items():
        was = one.words_of(name)
        assert (was.title, was.curve) == (words.title, words.curve)
        assert set(words.headlines) <= set(was.headlines)
        then = {rate: text for rate, text in words.rates.items() if rate != "same_subject"}  # a later one
        assert then.items() <= was.rates.items()
