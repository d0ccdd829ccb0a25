"""The panel that runs a sweep: progress, failures, the average so far, cancel and resume."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.panels import EVIL, FACTS, control, shown, tiny, until
from tests.helpers.sweeping import Counting
from tests.helpers.wire import click

IDS = list(FACTS.ids)


class Held(Counting):
    """Waits at one fact until it is let go."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at, self.go = at, threading.Event()

    def __call__(self, model: wb.LoadedModel, fact: wb.Fact, *, value: Any = 1) -> Any:
        if fact.id == self.at:
            self.go.wait(30)
        return super().__call__(model, fact, value=value)


def test_a_click_runs_it_and_shows_the_average(tmp_path: Path) -> None:
    panel = wb.SweepPanel(wb.attribute, FACTS, out=tmp_path, model=tiny(), pool=FACTS)
    assert panel.results is None and panel.average is None
    click(control(panel, "Run"))
    results = panel.wait(60)
    assert list(results) == IDS
    mean = results.mean()
    average: Any = panel.average
    assert average.n == len(IDS) and bool((average.values == mean.values).all())
    largest = str(mean.top(1, by="abs"))
    layer, head = largest.removeprefix("L").split("H")
    assert f"L{layer}, H{head}" in shown(panel) and "95% interval" in shown(panel)


def test_cancel_keeps_what_is_finished_and_run_resumes(tmp_path: Path) -> None:
    held = Held(IDS[2])
    panel = wb.SweepPanel(held, FACTS, out=tmp_path, model=tiny())
    panel.run()
    until(lambda: panel.results is not None and len(panel.results) == 2)
    panel.cancel()
    held.go.set()
    until(lambda: not panel.busy)
    assert panel.job is not None and panel.job.state == "cancelled"
    assert held.calls == IDS[:3]
    panel.run().wait(60)
    assert held.calls == IDS and panel.results is not None and len(panel.results) == len(IDS)
    assert panel.status.startswith("done after")


def test_failures_are_listed_and_escaped(tmp_path: Path) -> None:
    def fails(model: wb.LoadedModel, fact: wb.Fact) -> float:
        if fact.id == IDS[1]:
            raise ArithmeticError(EVIL)
        return 0.5

    panel = wb.SweepPanel(fails, FACTS, out=tmp_path, model=tiny())
    panel.run().wait(60)
    text = shown(panel)
    assert IDS[1] in text and "ArithmeticError" in text and EVIL not in text
    assert f"over {len(IDS) - 1} items" in text
    later = wb.SweepPanel(fails, FACTS, out=tmp_path, model=tiny())
    assert "ArithmeticError" in shown(later), "what is in the folder is shown before a run"
    others = wb.SweepPanel(fails, FACTS[2:], out=tmp_path, model=tiny())
    assert "ArithmeticError" not in shown(others), "it is none of these"


def test_another_sweep_in_the_folder_is_an_error_in_the_panel(tmp_path: Path) -> None:
    wb.sweep(Counting(), FACTS[:1], out=tmp_path, model=tiny(), progress=False)
    panel = wb.SweepPanel(wb.lens, FACTS[:1], out=tmp_path, model=tiny())
    with pytest.raises(ValueError, match="another function"):
        panel.run().wait(60)
    assert "another function" in shown(panel)


def test_averages_of_every_kind(tmp_path: Path) -> None:
    edges = wb.SweepPanel(wb.edges, FACTS[:2], out=tmp_path / "edges", model=tiny(), pool=FACTS)
    largest = next(iter(edges.run().wait(60).mean().top(1)))
    assert str(largest).replace(">", "&gt;") in shown(edges)
    reports = wb.SweepPanel(wb.evaluate, FACTS[:2], out=tmp_path / "reports", model=tiny(), pool=FACTS)
    assert str(reports.run().wait(60).mean()["base"]["old"]) in shown(reports)
    texts = wb.SweepPanel(wb.lens, FACTS[:1], out=tmp_path / "lens", model=tiny())
    texts.run().wait(60)
    assert texts.average is None and "A Lens has no mean" in shown(texts)


def test_wrong_items_and_options_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'colour'"):
        wb.SweepPanel(wb.lens, FACTS, out=tmp_path, model=tiny(), colour="red")
    with pytest.raises(ValueError, match="more than once"):
        wb.SweepPanel(wb.lens, [FACTS[0], FACTS[0]], out=tmp_path, model=tiny())


def test_its_code_repeats_it(tmp_path: Path) -> None:
    panel = wb.SweepPanel(wb.lens, FACTS[:2], out=tmp_path / "a", model=tiny(), form="cloze")
    lines = panel.code.splitlines()
    assert lines[-1] == f"results = wb.sweep(lens, items, out={str(tmp_path / 'a')!r}, model=model, form='cloze')"
    assert "from workbench.tracing.lens import lens" in lines
    folder = tmp_path / "model"
    assert f"model={str(folder)!r}" in wb.SweepPanel(wb.lens, FACTS[:1], out=tmp_path, model=folder).code
    bundled = wb.load_facts()[:2]
    assert f"filter(ids={list(bundled.ids)!r})" in wb.SweepPanel(wb.lens, bundled, out=tmp_path, model=tiny()).code
