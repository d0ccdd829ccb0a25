"""CompareView: its maps and answers are those of the public functions, for the base's own text."""

from __future__ import annotations

import ast
import base64
import threading
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ipywidgets import HTML

from tests.helpers.mistyped import mistyped
from tests.helpers.panels import code_block, control, descendants, own, shown
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, edit_of, knowing, some_gates
from tests.helpers.wire import click, enter
from workbench.comparing.maps import MAP_SITES, compare_maps
from workbench.editing.applied import applied
from workbench.models.load import LoadedModel
from workbench.tracing.attribution import attribute
from workbench.tracing.causal import causal_trace
from workbench.types import Edit
from workbench.types.cancelling import Cancelled
from workbench.widgets.compare import wanted as compared_maps
from workbench.widgets.compare.view import CompareView

FACT = capitals()[0]


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False), capitals())


@lru_cache
def edit() -> Edit:
    return edit_of(tiny(), some_gates(tiny(), (1, "post")), some_gates(tiny(), (0, "z"), seed=1))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def view(**options: Any) -> CompareView:
    return CompareView(tiny(), edit(), pool=capitals(), **options)


def choose(menu: Any, value: Any) -> None:
    """The option with this value, in the browser."""
    enter(menu, index=[option[1] if isinstance(option, tuple) else option for option in menu.options].index(value))


def compared(panel: CompareView) -> Any:
    """The comparison after a click on Compare."""
    click(control(panel, "Compare"))
    assert panel.job is not None
    return panel.job.wait(60)


@pytest.mark.parametrize("site", MAP_SITES)
def test_maps_are_those_of_the_tracing_functions(site: Any) -> None:
    options: dict[str, Any] = {"corruption": "swap", "pool": capitals(), "progress": False}
    found = compare_maps(tiny(), edit(), site=site, stage="unlearn", **options)

    def direct(model: LoadedModel) -> torch.Tensor:
        if site == "head":
            return attribute(model, FACT, "head", **options).values
        return causal_trace(model, FACT, site, **options).values

    before = direct(tiny())
    with applied(tiny(), edit(), "unlearn") as edited:
        after = direct(edited)
    assert torch.equal(found.before.values, before)
    assert torch.equal(found.after.values, after)
    assert torch.equal(found.difference.values, after - before)
    assert found.before.prompts == found.after.prompts
    assert found.limit == max(float(v.abs().max()) for v in (before, after, after - before))
    assert not torch.equal(before, after)


def test_wrong_options_of_compare_maps() -> None:
    with pytest.raises(ValueError, match="site must be one of"):
        compare_maps(tiny(), edit(), site=mistyped("heads"))
    other = knowing(tiny_llama(1, tied=False), capitals())
    with pytest.raises(ValueError, match="fitted on"):
        compare_maps(other, edit())
    options: dict[str, Any] = {"pool": capitals(), "progress": False}
    before = compare_maps(tiny(), edit(), **options).before
    with pytest.raises(ValueError, match="another text"):
        compare_maps(tiny(), edit(), site="mlp", before=before, **options)


def test_three_linked_maps_on_one_scale() -> None:
    panel = view()
    choose(control(panel, "After"), "unlearn")
    click(control(panel, "Compare"))
    assert panel.job is not None
    result = panel.job.wait(60)
    assert panel.result is result
    first = result.before.subject[0]
    maps = (result.before, result.after, result.difference)
    for grid, effect in zip(panel.grids, maps, strict=True):
        np.testing.assert_array_equal(grid.values, effect.values[:, first:].numpy())
        assert grid.limit == pytest.approx(result.limit)
        assert not grid.selectable
        assert grid.marked[0] == 0
        assert (effect.values[:, :first] == 0).all()
    enter(panel.grids[1], cursor=[2, 1])
    assert [g.cursor for g in panel.grids] == [[2, 1]] * 3
    partner = result.before.prompts[0].partner
    assert partner == "spain-capital" and ", swapped with Spain, token" in shown(panel), "a subject, not an id"


def test_heads_and_the_map_before_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = view()
    choose(control(panel, "Map"), "head")
    first = compared(panel)
    assert panel.grids[0].shape == [3, 6]
    choose(control(panel, "After"), "unlearn")
    second = compared(panel)
    assert second.before is first.before
    assert not torch.equal(first.after.values, second.after.values)


def test_menus_that_come_back_show_the_finished_maps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    panel, calls = view(), []
    real = compared_maps.compare_maps
    monkeypatch.setattr(compared_maps, "compare_maps", lambda *a, **k: calls.append(k["site"]) or real(*a, **k))
    resid = compared(panel)
    assert "done after" in panel.status
    choose(control(panel, "Map"), "mlp")
    assert panel.result is None and panel.grids == (), "nothing that is not what the menus say"
    assert "Not compared yet" in shown(panel) and "compare_maps" not in panel.code
    mlp = compared(panel)
    choose(control(panel, "Map"), "resid")
    assert panel.result is resid and "site='resid'" in panel.code
    np.testing.assert_array_equal(panel.grids[2].values, resid.difference.values[:, resid.before.subject[0] :].numpy())
    assert "Not compared yet" not in shown(panel)
    for menu, other, back in (
        (control(panel, "After"), "unlearn", "learn"),
        (control(panel, "Corruption"), "noise", "swap"),
        (control(panel, "Traced"), "target", "answer"),
    ):
        choose(menu, other)
        assert panel.result is None and panel.grids == ()
        choose(menu, back)
        assert panel.result is resid and len(panel.grids) == 3
    assert compared(panel) is resid, "a finished one is not computed again"
    choose(control(panel, "Map"), "mlp")
    assert panel.result is mlp
    assert calls == ["resid", "mlp"]


def test_maps_that_are_done_when_the_menus_have_moved_on_wait_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    go, real = threading.Event(), compared_maps.compare_maps

    def slow(*args: Any, **options: Any) -> Any:
        go.wait(30)
        return real(*args, **options)

    monkeypatch.setattr(compared_maps, "compare_maps", slow)
    panel = view()
    click(control(panel, "Compare"))
    choose(control(panel, "Map"), "head")
    go.set()
    assert panel.job is not None
    resid = panel.job.wait(60)
    assert panel.result is None and panel.grids == () and "site='head'" not in panel.code
    choose(control(panel, "Map"), "resid")
    assert panel.result is resid


def test_another_fact_and_back_shows_its_maps_and_another_edit_none() -> None:
    panel = view()
    first = compared(panel)
    panel.fact = capitals()[1]
    assert panel.result is None
    panel.fact = FACT
    assert panel.result is first
    panel.edit = edit_of(tiny(), some_gates(tiny(), (1, "post")), some_gates(tiny(), (0, "z"), seed=2))
    assert panel.result is None and panel.stage == "learn"


def test_head_maps_have_a_line_before_each_key_value_group() -> None:
    panel = view()
    choose(control(panel, "Map"), "head")
    compared(panel)
    assert (tiny().shape.n_heads, tiny().shape.n_kv_heads) == (6, 2)
    assert [grid.groups for grid in panel.grids] == [[0, 3]] * 3
    choose(control(panel, "Map"), "resid")
    compared(panel)
    assert [grid.groups for grid in panel.grids] == [[]] * 3


def test_a_second_run_is_refused_and_a_cancelled_one_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.widgets.compare import wanted as module

    going, go = threading.Event(), threading.Event()
    real = module.compare_maps

    def slow(*args: Any, **options: Any) -> Any:
        going.set()
        go.wait(30)
        return real(*args, **options)

    monkeypatch.setattr(module, "compare_maps", slow)
    panel = view()
    click(control(panel, "Compare"))
    job = panel.job
    assert job is not None
    going.wait(30)
    click(control(panel, "Compare"))
    assert panel.job is job
    assert "running already" in panel.message and "running already" in own(panel)
    click(control(panel, "Cancel"))
    go.set()
    with pytest.raises(Cancelled):
        job.wait(60)
    assert panel.error is None
    assert panel.grids == ()
    assert (control(panel, "Compare").disabled, control(panel, "Cancel").disabled) == (False, True)


def test_an_error_of_the_trace_is_shown_and_raised_again() -> None:
    panel = view()
    sea = {"prompt": "The capital of the North Sea is", "question": "What is the capital of the North Sea?"}
    panel.partner = replace(FACT, subject="the North Sea", id="sea", **sea)
    job = panel.compare()
    with pytest.raises(ValueError, match="tokens"):
        job.wait(60)
    assert panel.error is job.error
    assert 'role="alert"' in own(panel) and "tokens" in panel.message
    choose(control(panel, "Corruption"), "noise")
    compared(panel)
    assert panel.error is None


def test_another_edit_empties_the_panel_and_one_of_another_base_is_refused() -> None:
    panel = view()
    panel.compare().wait(60)
    one_stage = edit_of(tiny(), some_gates(tiny(), (2, "post")), fact=capitals()[1])
    panel.edit = one_stage
    assert panel.grids == ()
    assert panel.result is None
    assert panel.fact.id == "italy-capital"
    assert panel.stage == "learn"
    other = knowing(tiny_llama(1, tied=False), capitals())
    with pytest.raises(ValueError, match="fitted on"):
        panel.edit = edit_of(other, some_gates(other, (2, "post")))
    assert panel.edit is one_stage


def test_the_code_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = view(edit_code="edit = THE_EDIT")
    choose(control(panel, "Map"), "head")
    enter(control(panel, "Strength"), value=0.4)
    compared(panel)
    job = panel.ask("What is the capital of Japan?")
    assert job is not None
    answers = job.wait(60)
    import workbench as wb

    monkeypatch.setattr(wb, "load_model", lambda *a, **k: tiny())
    namespace: dict[str, Any] = {"THE_EDIT": edit()}
    exec(panel.code, namespace)
    assert panel.result is not None
    assert torch.equal(namespace["maps"].difference.values, panel.result.difference.values)
    assert dict(namespace["probabilities"]) == panel.probabilities
    assert namespace["answers"] == [(answers.base, answers.edited)]
    assert dict(namespace["base_probabilities"]) == panel.base_probabilities


def test_without_given_code_the_rewrite_is_written_out() -> None:
    code = view().code
    ast.parse(code)
    assert "edit = wb.rewrite(model, fact, selection, recipe=recipe, pool=pool)" in code
    assert "selection = 'L0MLP'" in code


def test_texts_are_shown_not_run() -> None:
    evil = "<img src=x onerror=alert(1)>"
    fact = capital("France", "Paris", evil)
    panel = CompareView(tiny(), edit_of(tiny(), some_gates(tiny(), (1, "post")), fact=fact))
    job = panel.ask(f"{evil} What?")
    assert job is not None and panel.probabilities
    job.wait(60)
    assert evil not in shown(panel)
    heading, bars, answers = (
        [w.value for w in descendants(panel) if isinstance(w, HTML) and words in w.value]
        for words in ("The capital of France is Paris", "P(whole answer)", "What they answer")
    )
    assert evil in code_block(panel).source  # the browser puts it in as text
    for area in (heading, bars, answers):
        assert len(area) == 1 and "&lt;img" in area[0]


def test_an_edited_model_is_refused() -> None:
    with applied(tiny(), edit()) as edited, pytest.raises(ValueError, match="pass the base model"):
        CompareView(edited, edit())


def test_it_shows_where_widgets_are_not_drawn() -> None:
    panel = view()
    assert repr(panel) == "CompareView(france-capital: Paris -> Rome, learn)"
    card = panel._repr_mimebundle_()["image/png"]
    panel.compare().wait(60)
    assert panel._repr_mimebundle_()["image/png"] != card


def test_a_snapshot_is_the_picture_beside_the_panel() -> None:
    panel = view()
    for _ in range(2):  # the card, then the difference
        assert panel.snapshot().data == base64.b64decode(panel._repr_mimebundle_()["image/png"])
        compared(panel)
    assert panel.snapshot().data == panel.grids[-1].to_png()
