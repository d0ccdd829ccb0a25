"""The tab of the Workbench that sweeps: what it offers, its panel, and the average as maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.panels import FACTS, FRANCE, control, shown, tiny
from tests.helpers.pickers import pick
from tests.helpers.wire import click, enter
from workbench.widgets.app_tabs import TABS
from workbench.widgets.sweep import tab as module
from workbench.widgets.sweep.tab import SWEPT, SweepTab


def made(tmp_path: Path, facts: wb.FactSet = FACTS) -> SweepTab:
    one = SweepTab(tiny(), facts, FRANCE, pool=facts)
    enter(control(one, "Results in"), value=str(tmp_path / "swept"))
    enter(control(one, "Asked as"), index=1)
    return one


def test_a_click_sweeps_and_another_shows_the_average_as_maps(tmp_path: Path) -> None:
    one = made(tmp_path)
    assert "5 facts" in shown(one) and one.code == ""
    click(control(one, "Sweep"))
    panel = one.panel
    assert panel is not None
    results = panel.wait(60)
    assert list(results) == list(FACTS.ids) and not results.failed
    click(control(one, "Show the average as maps"))
    picker = panel.picker
    assert picker is not None and picker.maps["heads"].n == len(FACTS) and picker.maps["mlps"].n == len(FACTS)
    pick(picker.heads, [1, 3])
    assert sorted(picker.behind.bars.names) == sorted(FACTS.ids)
    assert panel.show_maps() is picker, "made once: widgets are never freed in a notebook"
    assert "attribute" in one.code and "form='cloze'" in one.code


def test_at_most_so_many_of_a_relation(tmp_path: Path) -> None:
    one = made(tmp_path)
    enter(control(one, "At most"), value=2)
    assert [fact.id for fact in one.items] == list(FACTS.ids[:2]) and "2 facts" in shown(one)
    enter(control(one, "At most"), value=0)
    assert control(one, "Sweep").disabled and "must be above 0" in shown(one)


def test_facts_that_are_known_to_be_unknown_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = FACTS.ids
    record: dict[str, Any] = {first: ("chat",), second: ()}
    monkeypatch.setattr(module, "known_on_record", lambda model, facts: {f.id: record.get(f.id) for f in facts})
    one = made(tmp_path)
    assert [fact.id for fact in one.items] == list(FACTS.ids[2:]), "what was not asked yet stays"
    enter(control(one, "Asked as"), index=0)
    assert [fact.id for fact in one.items] == [first, *FACTS.ids[2:]]


def test_what_cannot_be_swept_is_said(tmp_path: Path) -> None:
    one = made(tmp_path)
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "other.txt").write_text("mine", encoding="utf-8")
    panel = one.run()
    assert panel is not None
    with pytest.raises(FileExistsError):
        panel.wait(60)
    assert "holds something else" in shown(panel)
    with pytest.raises(ValueError, match="Nothing has finished yet"):
        panel.show_maps()


def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    one = made(tmp_path)
    enter(control(one, "Results in"), value=str(tmp_path / ("long" * 100)))
    click(control(one, "Sweep"))
    assert one.panel is None and isinstance(one.error, OSError) and "too long" in shown(one)


def test_the_workbench_has_it_as_a_tab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = wb.Workbench(tiny(), FACTS, fact=FRANCE, autosave=False)
    assert TABS[-1].name == "sweeping" and app.panels["sweeping"] is app.sweeping
    app.fact = FACTS[2]
    assert app.sweeping.fact == FACTS[2]
    app.tab = "sweeping"
    assert app.sweeping.items == list(FACTS)


def test_the_script_of_the_workbench_sweeps_ones_own_facts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = wb.Workbench(tiny(), FACTS, fact=FRANCE, autosave=False)
    assert "sweep" not in app.code
    enter(control(app.sweeping, "Asked as"), index=1)
    enter(control(app.sweeping, "At most"), value=2)
    panel = app.sweeping.run()
    assert panel is not None
    results = panel.wait(60)
    assert "\n# The sweep\nfrom workbench.tracing.attribution import attribute\n" in app.code
    monkeypatch.setattr(wb, "load_model", lambda *_: tiny())
    for code in (app.code, app.sweeping.code):
        names: dict[str, Any] = {}
        exec(code, names)
        assert list(names["results"]) == list(results) and names["items"] == app.sweeping.items
        assert list(names["pool"]) == list(FACTS)


@pytest.mark.parametrize("swept", SWEPT, ids=lambda one: one.name)
def test_each_kind_of_map_can_be_averaged(swept: module.Swept, tmp_path: Path) -> None:
    options = {**swept.options, "corruption": "noise", "form": "cloze", "pool": FACTS}
    results = wb.sweep(swept.function, FACTS[:2], out=tmp_path, model=tiny(), progress=False, **options)
    assert wb.average_picker(tiny(), results).maps
