"""The table of probes: ticks, costs, results and what stays of earlier runs."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from ipywidgets import HTML

from tests.helpers.panels import EVIL, control, descendants, shown, until
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, edit_of, knowing, some_gates
from tests.helpers.wire import click, enter
from tests.unit.test_probe_panel import Held, opened
from workbench.models.load import LoadedModel
from workbench.probing.outcome import joinable, joined, outcome, shares
from workbench.probing.probe import probe
from workbench.probing.table import MOST_QUICK, PROBES, QUICK
from workbench.types import Edit, ProbeReport, ProbeRow
from workbench.types.outcome import Share
from workbench.widgets.probe import pace as pace_module
from workbench.widgets.probe import panel as probe_panel
from workbench.widgets.probe.pace import Pace
from workbench.widgets.probe.panel import ProbePanel

FRANCE = capitals()[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


@lru_cache
def an_edit(seed: int = 0) -> Edit:
    return edit_of(tiny(), some_gates(tiny(), (1, "post"), seed=seed), some_gates(tiny(), (2, "z"), seed=seed + 1))


def panel(**options: Any) -> ProbePanel:
    return ProbePanel(tiny(), an_edit(), **{"pool": capitals(), "max_new_tokens": 4, **options})


@lru_cache
def report_of(*names: str) -> ProbeReport:
    return probe(tiny(), an_edit(), probes=names, pool=capitals(), max_new_tokens=4, progress=False)


def ticks(view: ProbePanel) -> dict[str, bool]:
    return {name: control(view, PROBES[name].title).value for name in PROBES}


def line(view: ProbePanel, name: str) -> str:
    """The markup of a probe's line."""
    cells = [w.value for w in descendants(view) if isinstance(w, HTML) and "wb-probe" in w.value]
    (found,) = (cell for cell in cells if PROBES[name].question in cell)
    return found


# The records


def test_every_probe_says_what_it_asks_and_costs() -> None:
    for name, one in PROBES.items():
        assert one.question.endswith("?") and len(one.question) < 80, name
        assert one.cost > 0, name
    assert set(QUICK) == {name for name, one in PROBES.items() if one.cost <= MOST_QUICK} and set(QUICK) < set(PROBES)


def row(stage: str, recovered: Any, *, probe: str = "context", group: Any = "edited", right: bool = True) -> ProbeRow:
    label: Any = {"neither": "other"}.get(recovered, recovered)
    return ProbeRow(
        probe=probe, kind="stated", group=group, stage=stage, fact_id="france-capital", form="chat", prompt="Where?",
        old="Paris", new="Rome", text="", label=label, nll=0.0, informative=right,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("recovered", "kind"),
    [({"context": 0, "steps": 0}, "good"), ({"context": 1, "steps": 0}, "partly"), ({"context": 1, "steps": 3}, "bad")],
)
def test_the_outcome_counts_probes_that_recover_the_old_answer(recovered: dict[str, int], kind: str) -> None:
    from workbench.probing.rates import rates_of_probes

    rows = []
    for name, n in recovered.items():
        rows += [replace(row("base", "old", probe=name), prompt=str(i)) for i in range(3)]
        rows += [replace(row("learn", "old" if i < n else "new", probe=name), prompt=str(i)) for i in range(3)]
        rows += [replace(row("base", "other", probe=name, right=False), prompt="x")]
        rows += [replace(row("learn", "old", probe=name, right=False), prompt="x")]
    stages = ("base", "learn")
    rates = rates_of_probes(rows, stages)
    report = ProbeReport(fact=FRANCE, control=None, stages=stages, rows=tuple(rows), rates=rates)
    found = outcome(report)
    back = sum(bool(n) for n in recovered.values())
    assert (found.kind, found.probes, found.prompts) == (
        kind,
        Share(hits=back, n=2),
        Share(hits=sum(recovered.values()), n=6),
    )
    assert (
        found.words
        == f"The old answer Paris recovered by {back} of 2 probes, in {sum(recovered.values())} of 6 prompts."
    )
    assert "The base gives it in all 2 of them" in found.beside and "No control" in found.beside


def test_where_the_base_fails_too_nothing_is_said() -> None:
    lens_only = report_of("lens")
    assert outcome(lens_only).kind == "none" and shares(lens_only) == {}


def test_probes_one_after_another_are_as_if_run_at_once() -> None:
    at_once = report_of("lens", "context", "keywords", "strength")
    parts = joined(report_of("context", "keywords"), report_of("lens", "strength"))
    for name in ("rows", "curves", "rates", "probes", "asked", "control", "words"):
        assert getattr(parts, name) == getattr(at_once, name), name
    assert [x.probabilities for x in parts.lenses] == [x.probabilities for x in at_once.lenses]
    assert parts.skipped == at_once.skipped
    assert joinable(report_of("context", "keywords"), report_of("lens", "strength"))
    assert not joinable(report_of("context"), replace(report_of("lens"), seed=1))


def test_a_probe_that_was_not_finished_does_not_take_the_place_of_one_that_was() -> None:
    whole = report_of("context", "keywords")
    half = replace(
        report_of("context"), rows=report_of("context").rows[:2], probes=(), partial="cancelled during context"
    )
    assert joined(whole, half).rows == whole.rows and joined(whole, half).rates == whole.rates
    first = joined(report_of("keywords"), half)
    assert [r for r in first.rows if r.probe == "context"] == list(half.rows) and first.partial


# The panel


def test_quick_all_and_none_tick_and_nothing_ticked_cannot_run() -> None:
    view = panel()
    assert view.probes == QUICK and ticks(view) == {name: name in QUICK for name in PROBES}
    assert f"{len(QUICK)} probes, " in shown(view)
    click(control(view, "All"))
    assert view.probes == tuple(PROBES) and "10 probes, " in shown(view)
    click(control(view, "None"))
    assert view.probes == () and control(view, "Run").disabled and "No probe is ticked" in shown(view)
    click(control(view, "Quick"))
    assert view.probes == QUICK and not control(view, "Run").disabled
    enter(control(view, PROBES["priming"].title), value=True)
    assert set(view.probes) == {*QUICK, "priming"}


def test_before_the_first_run_there_are_no_empty_boxes() -> None:
    view = panel(probes=("context",))
    prompts = control(view, "Prompt")
    hidden = [
        w for w in descendants(view) if getattr(w.layout, "display", None) == "none" and prompts in descendants_of(w)
    ]
    assert hidden and all(button.disabled for button in texts_buttons(view))
    view.run().wait(60)
    until(lambda: not view.busy)
    assert not [w for w in hidden if w.layout.display == "none"]
    assert [not button.disabled for button in texts_buttons(view)] == [name == "context" for name in PROBES]


def descendants_of(box: Any) -> list[Any]:
    return descendants(box) if hasattr(box, "children") else []


def texts_buttons(view: ProbePanel) -> list[Any]:
    return [w for w in descendants(view) if getattr(w, "description", None) == "Texts"]


def test_a_line_counts_what_its_probe_recovered_and_the_verdict_stands_on_top() -> None:
    view = panel(probes=("interconnected", "lens"))
    report = view.run().wait(60)
    count = shares(report)["interconnected"]
    assert count.n
    assert f"{count} prompts" in line(view, "interconnected") and "wb-share" in line(view, "interconnected")
    reading = report.lens()
    assert f"old leads at {len(reading.old_leads)} of {reading.n_layers} layers" in line(view, "lens")
    found = outcome(report)
    assert f"wb-verdict-{found.kind}" in shown(view) and found.words in shown(view)
    assert "took " in line(view, "interconnected") and "took " not in line(view, "priming")


def test_results_of_a_run_stay_when_other_probes_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    view = panel(probes=("context",))
    first = view.run().wait(60)
    until(lambda: not view.busy)
    view.probes = ("lens", "strength")
    view.run().wait(60)
    until(lambda: not view.busy)
    assert view.report is not None and view.report.probes == ("lens", "context", "strength")
    assert view.report.rows == first.rows
    assert "probes=['lens', 'context', 'strength']" in view.code
    import workbench

    monkeypatch.setattr(workbench, "load_model", lambda *args: tiny())
    monkeypatch.setattr(workbench, "load_edit", lambda *args: an_edit())
    names: dict[str, Any] = {}
    exec(view.code, names)
    assert names["probes"].rows == view.report.rows and names["probes"].rates == view.report.rates
    assert names["probes"].curves == view.report.curves


def test_results_stay_when_a_run_fails_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    view = panel(probes=("context",))
    view.run().wait(60)
    until(lambda: not view.busy)
    before, markup = view.report, line(view, "context")
    view.probes = ()
    with pytest.raises(ValueError, match="none is ticked"):
        view.run().wait(20)
    assert view.report is before and line(view, "context") == markup

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError(EVIL)

    monkeypatch.setattr(probe_panel, "probe", fail)
    view.probes = ("context", "steps")
    with pytest.raises(RuntimeError):
        view.run().wait(20)
    until(lambda: not view.busy)
    assert view.report is before and line(view, "context") == markup and "&lt;img" in shown(view)


def test_the_lines_say_how_far_a_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    view = panel(probes=("context", "lens", "strength"))
    held = Held(monkeypatch)
    click(control(view, "Run"))
    until(lambda: held.calls == 1)
    held.given["on_probe"]("lens")
    held.given["on_probe"]("context")
    assert "asked" in line(view, "lens") and "running: 0 answers" in line(view, "context")
    assert "waits" in line(view, "strength")
    assert "back into context: probe 2 of 3, 0 answers" in view.status and " left" in view.status
    assert control(view, PROBES["steps"].title).disabled
    held.go.set()
    until(lambda: not view.busy)
    assert "running" not in shown(view) and not control(view, PROBES["steps"].title).disabled


def test_another_edit_shows_its_own_results_and_back() -> None:
    view = panel(probes=("context",))
    report = view.run().wait(60)
    until(lambda: not view.busy)
    view.show_edit(an_edit(7), edit_code="edit = OTHER")
    assert view.report is None and "wb-verdict" not in shown(view) and "edit = OTHER" in view.code
    other = view.run().wait(60)
    until(lambda: not view.busy)
    assert view.report is other and other.edit_id == an_edit(7).id
    view.show_edit(an_edit())
    assert view.report is report and "wb-verdict" in shown(view)
    another = knowing(tiny_llama(seed=1, tied=False), capitals())
    with pytest.raises(ValueError, match="fitted on"):
        view.show_edit(edit_of(another, some_gates(another, (1, "post"))))
    with pytest.raises(ValueError, match="does not hold"):
        view.show_edit(an_edit(), fact=capitals()[2])
    assert view.edit is an_edit() and view.report is report


def test_what_ends_for_an_edit_that_is_no_longer_in_sight_is_kept_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    view, report = panel(probes=("context",)), report_of("context")
    held = Held(monkeypatch, report)
    click(control(view, "Run"))
    until(lambda: held.calls == 1)
    view.show_edit(an_edit(7))
    until(lambda: not view.busy)
    assert view.report is None
    view.show_edit(an_edit())
    assert view.report is not None and view.report.rows == report.rows


def test_the_pace_is_that_of_the_last_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 110.0, 160.0])
    pace, edit = Pace(tiny()), an_edit()
    monkeypatch.setattr(pace_module.time, "perf_counter", lambda: next(clock))
    guess = pace.seconds
    pace.start(("lens", "context", "steps"), edit)
    pace.begin("lens")
    pace.begin("context")  # lens took 100 s
    pace.end(("lens",))
    assert pace.seconds == pytest.approx(100 / (3 * PROBES["lens"].cost)) != guess
    assert pace.time("lens", edit).startswith("took 1 min 40") and pace.time("context", edit).startswith("about")
    assert pace.state("context", ()) == ""


def test_texts_open_by_the_button_of_a_line() -> None:
    view = panel(probes=("context", "strength"))
    view.run().wait(60)
    until(lambda: not view.busy)
    opened(view, "strength")
    assert "strength of the edit, after learn: probability" in shown(view)
    opened(view, "context")
    assert "All texts" in shown(view) and "strength of the edit, after learn" not in shown(view)
    with pytest.raises(ValueError, match="lenses"):
        view.read("lenses")


def test_the_lens_has_its_plot_at_once_on_a_logarithmic_axis() -> None:
    view = panel(probes=("lens",))
    view.run().wait(60)
    until(lambda: not view.busy)
    assert shown(view).count("P(first token), log scale") >= 3
