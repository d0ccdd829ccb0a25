"""Tables of control arms, written by hand: paired differences, the verdict, joining, the figure and the page."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from workbench.comparing.arms import ARMS
from workbench.types import AnswerRow, ArmRow, ArmTable, EvalReport, Selection
from workbench.types.arms import join_tables
from workbench.types.intervals import wilson
from workbench.types.rates import rates_of


def report(control: list[int], kl: list[float]) -> EvalReport:
    """A report on controls that the base knows all; nothing else."""
    rows = []
    for stage in ("base", "learn"):
        for i, right in enumerate(control):
            label: Any = "old" if stage == "base" or right else "other"
            given: dict[str, Any] = {"fact_id": f"c{i}", "relation": "r", "stage": stage, "form": "chat"}
            moved = kl[i] if stage == "learn" else None
            rows.append(AnswerRow(**given, group="control", prompt="?", text="x", label=label, nll=1.0, kl=moved))
    stages = ("base", "learn")
    return EvalReport(rows=tuple(rows), rates=rates_of(rows, stages, lambda _: False), stages=stages)


def row(
    arm: Any, control: list[int], kl: list[float], seed: Any = None, fact: str = "f", reached: Any = True
) -> ArmRow:
    given: dict[str, Any] = {"fact_id": fact, "arm": arm, "seed": seed, "reached": reached, "unit": "gates"}
    more: dict[str, Any] = {"step": 4, "updates": 6, "validation": 1.0, "trained": 7, "recipe": "r", "seconds": 0.5}
    return ArmRow(**given, **more, report=report(control, kl), selection=Selection("L0H1"))


def by_hand(*rows: ArmRow, fingerprint: str = "m") -> ArmTable:
    validation = {r.fact_id: ("Q?",) for r in rows}
    words = {name: arm.words for name, arm in ARMS.items()}
    return ArmTable(rows=rows, threshold=0.95, validation=validation, words=words, base_fingerprint=fingerprint)


def test_the_paired_difference_of_one_fact_by_hand() -> None:
    """Four controls, of which every other one is lost by one draw less: 2/3 and 1 per control. Two are not as the other
    two, so the mean 5/6 and its variance, 4 / 36 / 3 / 4, weigh 16/25, the rest those with one control more each way.
    The draw that did not reach the fact would have made it less."""
    table = by_hand(
        row("selected", [1] * 4, [0.1, 0.2] * 2),
        row("random-layers", [0] * 4, [0.4, 0.3] * 2, seed=0),
        row("random-layers", [0] * 4, [0.4, 0.3] * 2, seed=1),
        row("random-layers", [1, 0] * 2, [0.4, 0.3] * 2, seed=2),
        row("random-layers", [1] * 4, [9.0] * 4, seed=3, reached=False),
    )
    found = {d.outcome: d for d in table.differences()}
    rate = found["control"].rate
    added = 10 / 3 / 6
    spread = 2 * (2 / 3 - added) ** 2 + 2 * (1 - added) ** 2 + (1 - added) ** 2 + (1 + added) ** 2
    doubt = (3 / 5) ** 2
    half = math.sqrt((1 - doubt) * 3.182446**2 / 108 + doubt * 1.959964**2 * spread / 36)
    low = (1 - doubt) * 5 / 6 + doubt * added - half
    assert (rate.value, rate.low, rate.high) == pytest.approx((5 / 6, low, 1))
    assert (rate.n, rate.clusters, found["control"].sign) == (4, 4, 1)
    rate = found["kl"].rate
    assert (rate.value, rate.low, rate.high) == pytest.approx((-0.2, -0.3837, -0.0163), abs=1e-4)
    assert found["kl"].sign == -1
    assert "same layers: the selection kept more controls (+0.833 [+0.313, +1.000], 4 pairs)." in table.verdict
    assert "It moved other answers less (KL on controls -0.200 [-0.384, -0.016] nats per token)." in table.verdict
    assert "1 of 4 draws did not reach the new fact." in table.verdict
    assert "Against random, anywhere: not run" in table.verdict


def test_either_sign_is_a_finding() -> None:
    table = by_hand(
        row("selected", [0] * 4, [0.4, 0.3] * 2),
        *(row("random-anywhere", [1, 1 if s else 0] * 2, [0.1, 0.2] * 2, seed=s) for s in range(3)),
    )
    assert "anywhere: the selection kept fewer controls (-0.833 [-1.000, -0.313]" in table.verdict
    assert "It moved other answers more (KL on controls +0.200" in table.verdict


def test_an_interval_that_holds_0_cannot_tell() -> None:
    """Differences of 1 and 0, so two controls tell nothing. Equal differences of the KL have no interval at all."""
    draws = [row("random-layers", [0, 1], [0.2, 0.2], seed=s) for s in range(3)]
    table = by_hand(row("selected", [1, 1], [0.1, 0.1]), *draws)
    found = {d.outcome: d for d in table.differences()}
    assert (found["control"].rate.low, found["control"].rate.high, found["control"].sign) == (-1, 1, 0)
    assert math.isnan(found["kl"].rate.low)
    assert "cannot tell which keeps more controls: the interval holds 0 (+0.500 [-1.000, +1.000]" in table.verdict
    assert "Cannot tell which moves other answers more (KL on controls -0.100 [" in table.verdict


def test_several_facts_are_resampled_whole() -> None:
    """Differences of 1 on all controls of one fact and of 0 on those of the other: nothing is known, however many
    controls. A fact on which the selection did not reach the mark does not count."""
    rows = []
    for fact, right, reached in (("f", 0, True), ("g", 1, True), ("h", 0, False)):
        rows.append(row("selected", [1] * 9, [0.1] * 9, fact=fact, reached=reached))
        rows += [row("random-layers", [right] * 9, [0.1] * 9, fact=fact, seed=s) for s in range(3)]
    table = by_hand(*rows)
    one = next(d for d in table.differences() if d.outcome == "control")
    assert one.facts == ("f", "g")
    assert (one.rate.value, one.rate.low, one.rate.high, one.rate.clusters) == (0.5, -1, 1, 2)
    rate = table.rate("random-layers", "control")
    assert (rate.value, rate.clusters) == (pytest.approx(1 / 3), 3)
    assert "on 2 of 3 fact(s)" in table.verdict
    assert "18 pairs on 2 of 3 edited facts" in table.verdict
    assert "on one fact only" not in table.verdict
    left = by_hand(*(r for r in rows if r.fact_id != "g"))
    assert "9 pairs on 1 of 2 edited facts" in left.verdict and "were read on one fact only" in left.verdict


def test_a_fact_that_random_draws_seldom_reach_weighs_as_much_as_another() -> None:
    """Three draws reach the one fact and lose nothing, one reaches the other and loses all of its controls: half."""
    rows = [row("selected", [1] * 4, [0.1] * 4, fact=fact) for fact in "fg"]
    rows += [row("random-layers", [1] * 4, [0.1] * 4, fact="f", seed=s) for s in range(3)]
    rows += [row("random-layers", [0] * 4, [0.1] * 4, fact="g", seed=s, reached=s == 1) for s in range(3)]
    table = by_hand(*rows)
    found = next(d for d in table.differences() if d.outcome == "control")
    assert found.rate.value == 0.5
    assert (found.reached, found.runs) == (4, 6)
    assert table.rate("random-layers", "control").value == 0.5


def test_the_kl_that_decides_is_over_controls() -> None:
    """A neighbour that is no control moves far under one arm: a report's own KL tells, the outcome does not."""
    table = by_hand(row("selected", [1, 1], [0.1, 0.1]), row("random-layers", [1, 1], [0.1, 0.1], seed=0))
    given: dict[str, Any] = {"relation": "r", "group": "neighbour", "form": "chat", "prompt": "?", "text": "x"}
    near = [
        AnswerRow(fact_id="near", stage=stage, label="old", nll=1.0, kl=kl, **given)
        for stage, kl in (("base", None), ("learn", 5.0))
    ]
    of = table.rows[0].report
    both = [*of.rows, *near]
    moved = replace(of, rows=tuple(both), rates=rates_of(both, of.stages, lambda _: False))
    assert moved.rate("kl").value == pytest.approx(5.2 / 3)
    changed = replace(table, rows=(replace(table.rows[0], report=moved), table.rows[1]))
    assert changed.rows[0].rate("kl").value == pytest.approx(0.1) == changed.rate("selected", "kl").value
    assert next(d for d in changed.differences() if d.outcome == "kl").rate.value == pytest.approx(0)


def test_few_questions_are_named() -> None:
    """One validation question and none that is reported: the verdict says that one answer weighs much."""
    table = by_hand(row("selected", [1] * 4, [0.1] * 4))
    assert (
        "f: of its held-out questions only 1 decide where its arms are read and only 0 of the reported" in table.verdict
    )
    assert "decide where" not in replace(table, validation={"f": ("a?",) * 4}).verdict


def test_one_runs_rate_is_its_reports() -> None:
    table = by_hand(row("selected", [1, 1, 0, 1], [0.1] * 4), row("none", [1] * 4, [0.0] * 4, reached=None))
    assert table.rate("selected", "control") == table.rows[0].report.rate("control")
    assert table.rate("selected", "control").value == 0.75
    assert table.rate("none", "control").low == pytest.approx(wilson(4, 4).low)
    assert {d.arm for d in table.differences()} == set()
    with pytest.raises(KeyError, match=r"No arm 'lora' in this table; there are \['selected', 'none'\]"):
        table.runs("lora")


# Methods: random arms of their own, relations that they closed on


def related(kept: list[int], closed: tuple[str, ...]) -> EvalReport:
    """A report on questions about the subject, of the relations r0, r1, ..., all of which the base knows."""
    rows: list[AnswerRow] = []
    for stage in ("base", "edit"):
        for i, right in enumerate(kept):
            label: Any = "old" if stage == "base" or right else "new"
            given: dict[str, Any] = {"fact_id": f"s{i}", "relation": f"r{i}", "stage": stage, "form": "chat"}
            rows.append(AnswerRow(**given, group="same subject", prompt="?", text="x", label=label, nll=1.0))
    rates = rates_of(rows, ("base", "edit"), lambda _: False, closed=closed)
    return EvalReport(rows=tuple(rows), rates=rates, stages=("base", "edit"), closed_relations=closed)


def test_relations_that_a_method_closed_on_have_rates_of_their_own() -> None:
    """Of four relations it closed on two and kept both; of the others one. The selection closed on none: no such rates,
    and no difference of them."""
    empty = row("selected", [], [])
    selected = replace(empty, report=related([1, 0, 0, 0], ()))
    keyed = replace(empty, arm="keyed", report=related([1, 1, 1, 0], ("r0", "r1")))
    drawn = replace(
        empty, arm="keyed: random-layers", seed=0, beside="keyed", report=related([1, 0, 0, 0], ("r0", "r1"))
    )
    table = by_hand(selected, keyed, drawn)
    names = ("same_subject", "same_subject_closed", "same_subject_open")
    assert table.outcomes[-4:] == (names[0], "same_answer", *names[1:])
    assert [table.rate("keyed", name).value for name in names] == [0.75, 1.0, 0.5]
    assert table.has("keyed", "same_subject_open") and not table.has("selected", "same_subject_open")
    summary = table.summary()
    assert (
        summary.same_subject_closed["keyed"].startswith("1.00 [") and summary.same_subject_closed["the selection"] == ""
    )
    assert math.isnan(table.to_frame().same_subject_open[0]) and table.to_frame().same_subject_open[1] == 0.5
    found = {(d.minuend, d.arm, d.outcome): d.rate for d in table.differences()}
    assert found["keyed", "keyed: random-layers", "same_subject_closed"].value == 0.5
    assert found["keyed", "keyed: random-layers", "same_subject_open"].value == 0.5
    assert found["selected", "keyed", "same_subject"].value == -0.5
    assert ("selected", "keyed", "same_subject_closed") not in found
    nothing = replace(keyed, report=related([], ("r0",)))
    assert by_hand(nothing).outcomes[-1] == "same_answer", "a rate of nothing is not shown"


def test_a_method_is_compared_with_its_own_random_arms() -> None:
    beside = [
        replace(row("memit: random-layers", [0] * 4, [0.4, 0.3] * 2, seed=s, reached=s > 0), beside="memit")
        for s in range(3)
    ]
    table = by_hand(row("memit", [1] * 4, [0.1, 0.2] * 2), *beside)
    table = replace(table, words={"memit": "MEMIT", "memit: random-layers": "MEMIT, random, same layers"})
    controls, kl = (d for d in table.differences() if d.outcome in ("control", "kl"))
    assert (controls.minuend, controls.arm, controls.rate.value, kl.rate.value) == (
        *("memit", "memit: random-layers"),
        *(1.0, pytest.approx(-0.2)),
    )
    assert (controls.reached, controls.runs) == (2, 3)
    line = next(line for line in table.verdict.splitlines() if line.startswith("MEMIT against random, same layers: "))
    assert line.startswith("MEMIT against random, same layers: it kept more controls (+1.000 [")
    assert "It moved other answers less" in line and line.endswith("1 of 3 draws did not reach the new fact.")
    assert "Against random" not in table.verdict, "the selection is not in the table"
    forgetting = by_hand(row("rmu", [1], [0.1], reached=None), replace(beside[0], beside="rmu", reached=None))
    assert "0 of 1 draws did not reach" in forgetting.verdict, "what teaches nothing has nothing to reach"


# Joined, drawn, written


def test_tables_are_joined_by_fact() -> None:
    one, two = by_hand(row("selected", [1], [0.1])), by_hand(row("selected", [1], [0.1], fact="g"))
    assert join_tables([one, two]).facts == ("f", "g")
    with pytest.raises(ValueError, match=r"in one table only; these are in several: \['selected of f'\]"):
        join_tables([one, one])
    drawn = by_hand(row("random-layers", [1], [0.1], seed=0), row("random-layers", [0], [0.1], seed=1))
    both = join_tables([drawn, one])
    assert both.arms == ("selected", "random-layers") and len(both.differences()) > 0
    with pytest.raises(ValueError, match="Tables of 'f' must have the same validation questions"):
        join_tables([one, replace(drawn, validation={"f": ("Another?",)})])
    with pytest.raises(ValueError, match="must have the same model"):
        join_tables([one, by_hand(row("selected", [1], [0.1], fact="g"), fingerprint="other")])
    other = replace(two, settings={"read_every": 7})
    with pytest.raises(ValueError, match="must have the same settings"):
        join_tables([one, other])
    with pytest.raises(ValueError, match="at least one table"):
        join_tables([])


def test_figure_and_page(tmp_path: Path) -> None:
    table = by_hand(
        row("selected", [1, 0], [0.1, 0.2], fact="<b>f"),
        *(row("random-layers", [0, 1], [0.4, 0.3], seed=s, fact="<b>f", reached=s > 0) for s in range(3)),
    )
    figure = table.plot()
    labels = list(figure.layout.yaxis.ticktext)
    assert labels == ["random, same layers, not reached", "random, same layers (2)", "the selection"]
    assert "the selection: controls 0.50" in figure.layout.meta["alt"]
    assert "<b>f" not in figure.to_json().replace("&lt;b&gt;f", "")
    page = table.write_html(tmp_path / "arms.html").read_text()
    assert "Against random, same layers" in page
    assert "<b>f" not in page
    assert "<table" in table._repr_html_()
    assert "random, same layers" in table._repr_html_()
