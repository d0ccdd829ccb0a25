"""A picker of an average: a cell lists the facts that make it, and each opens its own maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.panels import FACTS, control, shown, tiny
from tests.helpers.pickers import pick
from tests.helpers.pickers import tiny as another
from tests.helpers.sweeping import Counting, heads
from tests.helpers.wire import click, enter
from workbench.tracing.attribution import attribute
from workbench.types import EffectMap
from workbench.widgets.picker import behind

IDS = list(FACTS.ids)


def maps(model: wb.LoadedModel, fact: wb.Fact, *, pool: wb.FactSet) -> dict[str, EffectMap]:
    """Heads, MLPs and a trace of one fact."""
    options: dict[str, Any] = {"corruption": "noise", "form": "cloze", "progress": False, "samples": 2}
    found = attribute(model, fact, ["head", "mlp"], pool=pool, **options)
    return {**found, "trace": wb.causal_trace(model, fact, "resid", **options)}


@pytest.fixture
def results(tmp_path: Path) -> wb.SweepResults:
    return wb.sweep(maps, FACTS, out=tmp_path / "maps", model=tiny(), pool=FACTS, progress=False)


def test_a_cell_lists_its_facts_by_value(results: wb.SweepResults) -> None:
    picker = wb.average_picker(tiny(), results)
    assert set(picker.maps) == {"heads", "mlps", "resid"} and not picker.behind.bars.names
    assert "Click a cell" in shown(picker.behind)
    pick(picker.heads, [1, 3])
    own = {id: float(results[id]["head"].values[1, 3]) for id in IDS}
    assert picker.behind.bars.names == sorted(IDS, key=lambda id: -own[id])
    assert [row.value for row in picker.behind.bars.rows] == pytest.approx(sorted(own.values(), reverse=True), rel=1e-5)
    mean = results.mean()["head"]
    low, high = (float(bound[1, 3]) for bound in mean.interval)
    assert low < float(mean.values[1, 3]) < high
    text = shown(picker.behind)
    assert "L1H3 is" in text and f"mean over {len(IDS)} facts" in text
    assert behind.short_number(low) in text and behind.short_number(high) in text
    pick(picker.trace, [2, 1])
    role = mean_of_trace(results).labels["position"][1]
    assert picker.behind.bars.title == f"Facts behind L2 at {behind.visible(role)}"


def mean_of_trace(results: wb.SweepResults) -> EffectMap:
    return results.mean()["trace"]


def test_the_list_of_names_leads_there_too(results: wb.SweepResults) -> None:
    picker = wb.average_picker(tiny(), results)
    first = picker.ranked.bars.names[0]
    enter(picker.ranked.bars, cursor=first, picked=[first], seq=1)
    assert picker.behind.bars.title == f"Facts behind {first}"


def test_a_click_opens_the_facts_own_maps_and_another_leads_back(results: wb.SweepResults) -> None:
    picker = wb.average_picker(tiny(), results)
    pick(picker.heads, [1, 3])
    bars = picker.behind.bars
    wanted = bars.names[1]
    enter(bars, picked=[wanted], seq=1)
    assert isinstance(picker.fact, wb.Fact) and picker.fact.id == wanted and bars.selected == [wanted]
    assert torch.equal(picker.maps["heads"].values, results[wanted]["head"].values), "as the sweep has kept it"
    assert picker.job is None, "nothing is computed again"
    pick(picker.heads, [0, 0])
    assert bars.title == "Facts behind L1H3", "the list is still that of the average"
    other = next(name for name in bars.names if name != wanted)
    enter(bars, picked=[name for name in bars.names if name in (wanted, other)], seq=2)
    assert picker.fact.id == other and bars.selected == [other]
    click(control(picker, "Back to the average"))
    assert picker.fact == list(FACTS) and bars.selected == [] and picker.maps["heads"].n == len(IDS)
    enter(bars, picked=[other], seq=3)
    enter(bars, picked=[], seq=4)
    assert picker.fact == list(FACTS), "a second click on the open fact leads back too"


def test_maps_that_are_not_there_are_computed(results: wb.SweepResults) -> None:
    picker = wb.average_picker(tiny(), results)
    picker.own_maps = None
    picker.open_fact(IDS[0])
    assert picker.job is not None
    picker.job.wait(60)
    assert picker.maps["heads"].prompts[0].fact_id == IDS[0]
    with pytest.raises(ValueError, match="none of them is 'atlantis'"):
        picker.open_fact("atlantis")


def test_of_one_fact_there_is_no_list() -> None:
    picker = wb.CircuitPicker(tiny(), FACTS[0], pool=FACTS, compute=False)
    picker.show(FACTS[0], {"heads": heads(tiny(), FACTS[0], pool=FACTS)})
    pick(picker.heads, [1, 3])
    assert picker.behind.layout.display == "none" and not picker.behind.bars.names


def test_facts_without_the_role_are_left_out(results: wb.SweepResults) -> None:
    mean = mean_of_trace(results)
    assert mean.per_fact is not None
    gone = mean.per_fact.clone()
    gone[2, 1, 0] = float("nan")
    values = wb.facts_of_cell(wb.EffectMap(**{**vars(mean), "per_fact": gone}), (1, 0))
    assert IDS[2] not in values and len(values) == len(IDS) - 1


@pytest.mark.parametrize("cell", [(3, 0), (0, 6), (0,), (-1, 0)])
def test_a_cell_that_is_not_there(results: wb.SweepResults, cell: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="has no cell"):
        wb.facts_of_cell(results.mean()["head"], cell)
    with pytest.raises(ValueError, match="no mean over facts"):
        wb.facts_of_cell(results[IDS[0]]["head"], (0, 0))


def test_of_many_facts_the_ends_are_listed(results: wb.SweepResults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "MOST", 2)
    picker = wb.average_picker(tiny(), results)
    pick(picker.heads, [1, 3])
    own = sorted(IDS, key=lambda id: -float(results[id]["head"].values[1, 3]))
    assert picker.behind.bars.names == own[:2] + own[-2:] and "the 2 largest" in picker.behind.bars.title


def test_its_code_makes_it_again(results: wb.SweepResults) -> None:
    picker = wb.average_picker(tiny(), results, IDS[:3])
    picker.selection = "L1H3"
    given: dict[str, Any] = {"model": tiny()}
    lines = picker.code.splitlines()
    exec("import workbench as wb\n" + "\n".join(lines[-3:]), given)
    assert given["picker"].maps["heads"].n == 3 and given["selection"] == picker.selection


def test_the_code_of_a_second_average_is_of_its_facts_and_goes_with_the_measure(tmp_path: Path) -> None:
    options: dict[str, Any] = {"pool": FACTS, "corruption": "noise", "form": "cloze"}
    wb.sweep(wb.attribute, FACTS[:2], out=tmp_path, model=tiny(), progress=False, **options)
    panel = wb.SweepPanel(wb.attribute, FACTS, out=tmp_path, model=tiny(), **options)
    picker = panel.show_maps()
    assert f"results, {IDS[:2]}, pool=pool)" in picker.code and "pool = wb.FactSet(" in picker.code
    panel.run().wait(60)
    panel.show_maps()
    assert f"results, {IDS}, pool=pool)" in picker.code and picker.fact == list(FACTS)
    given: dict[str, Any] = {}
    exec(picker.code.replace("wb.load_model('tiny')", "None").split("results = ")[0], given)
    assert list(given["pool"]) == list(FACTS) == list(picker._maker.sources.pool or ())
    picker.measure = replace(picker.measure, name="probability")
    picker.cancel()
    assert "average_picker" not in picker.code and picker.own_maps is None
    panel.show_maps()
    assert f"results, {IDS}, pool=pool)" in picker.code and picker.own_maps is not None
    picker.form = "chat"
    picker.cancel()
    assert "average_picker" not in picker.code
    panel.show_maps()
    assert picker.form == "cloze" and "average_picker" in picker.code


def test_what_cannot_be_averaged_is_refused(tmp_path: Path, results: wb.SweepResults) -> None:
    other = wb.sweep(Counting(), FACTS[:2], out=tmp_path / "words", model=tiny(), progress=False)
    with pytest.raises(ValueError, match="no map that a picker shows"):
        wb.average_picker(tiny(), other)
    with pytest.raises(KeyError, match="no item 'atlantis'"):
        wb.average_picker(tiny(), results, ["atlantis"])
    with pytest.raises(ValueError, match="no finished fact"):
        wb.average_picker(tiny(), results, [])
    with pytest.raises(ValueError, match="give its own model"):
        wb.average_picker(another(), results)
