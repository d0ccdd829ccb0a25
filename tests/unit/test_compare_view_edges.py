"""The edges of a CompareView: scored on demand in the background, shown as a table, and repeated by the code."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.panels import control, shown
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, edit_of, knowing, some_gates
from tests.helpers.wire import click, enter
from workbench.types import CHANGE_KINDS, EdgeComparison
from workbench.types.cancelling import Cancelled
from workbench.widgets.compare import wanted as compared
from workbench.widgets.compare.edges_run import MEANINGS, SHOWN

FACTS = capitals()


@lru_cache
def tiny() -> wb.LoadedModel:
    return knowing(tiny_llama(tied=False), FACTS)


@lru_cache
def edit(seed: int = 1) -> wb.Edit:
    return edit_of(tiny(), some_gates(tiny(), (1, "post")), some_gates(tiny(), (0, "z"), seed=seed))


def view() -> wb.CompareView:
    return wb.CompareView(tiny(), edit(), pool=FACTS, edit_code="edit = THE_EDIT")


def scored(panel: wb.CompareView) -> EdgeComparison:
    click(control(panel, "Compare edges"))
    return panel.edges.wait(60)


def same(one: EdgeComparison, other: EdgeComparison) -> bool:
    return one.changes == other.changes and torch.equal(one.difference.nan_to_num(), other.difference.nan_to_num())


def text(change: Any) -> list[str]:
    """Cells of a row."""
    return [str(change.edge).replace(">", "&gt;"), change.kind]


def test_nothing_is_scored_before_the_press_and_then_the_table_has_the_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    real = compared.compare_edges
    monkeypatch.setattr(compared, "compare_edges", lambda *a, **k: calls.append(k) or real(*a, **k))
    panel = view()
    panel.shown()
    panel.wait(60)
    assert calls == [] and panel.edges.result is None and "compare_edges" not in panel.code
    assert "The edges are not scored yet with these choices." in shown(panel)
    found = scored(panel)
    direct = real(tiny(), edit(), FACTS[0], stage="learn", strength=1.0, pool=FACTS, progress=False)
    assert same(found, direct) and panel.edges.result is found
    words = shown(panel.edges)
    assert "Edges before and after: learn at strength 1.00" in words and "not scored yet" not in words
    rows = [words.index(f'<th scope="row">{text(one)[0]}</th>') for one in found.changes[:SHOWN]]
    assert rows == sorted(rows) and len(found.changes) > SHOWN
    assert f"The {SHOWN} largest of {len(found.changes)} are shown." in words
    assert "Control: the same edit at strength 0 changes no edge." in words
    assert set(MEANINGS) == set(CHANGE_KINDS) and all(meaning in words for meaning in MEANINGS.values())


def test_a_kind_alone() -> None:
    panel = view()
    found = scored(panel)
    menu = control(panel, "Changes")
    for index, kind in enumerate(CHANGE_KINDS, 1):
        enter(menu, index=index)
        words = shown(panel.edges)
        for one in found.changes:
            row = f'<th scope="row">{text(one)[0]}</th>'
            assert (row in words) == (one in found.of(kind)[:SHOWN])
        assert (f"No edge is {kind}." in words) == (not found.of(kind))


def test_choices_that_come_back_show_what_was_scored_and_others_none() -> None:
    panel = view()
    first = scored(panel)
    panel.stage = "unlearn"
    assert panel.edges.result is None and "compare_edges" not in panel.code
    second = scored(panel)
    assert second.stage == "unlearn" and not same(first, second)
    panel.stage = "learn"
    assert panel.edges.result is first
    panel.site = "head"
    assert panel.edges.result is first, "edges have no site"
    assert "normalise" not in panel.edges.code and "site" not in panel.edges.code
    panel.measure = type(panel.measure)("logit_diff", panel.measure.corruption)
    assert panel.edges.result is first, "a recovery is of maps"
    panel.measure = type(panel.measure)("probability", "noise")
    assert panel.edges.result is None
    assert scored(panel).before.metric == "probability"
    panel.edit = edit(2)
    assert panel.edges.result is None
    panel.edit = edit()
    assert panel.edges.result is not None


def test_another_strength_keeps_them_and_says_so() -> None:
    panel = view()
    first = scored(panel)
    panel.strength = 0.5
    assert panel.edges.result is first
    assert "The slider is at 0.50: Compare edges scores them there." in shown(panel.edges)
    assert "strength=1.0," in panel.edges.code
    assert scored(panel).strength == 0.5 and "The slider is at" not in shown(panel.edges)
    panel.strength = 0.0
    assert scored(panel).changes == ()
    assert "No edge among the largest changed." in shown(panel.edges)


def test_the_code_gives_the_same_changes() -> None:
    panel = view()
    found = scored(panel)
    names: dict[str, Any] = {"wb": wb, "model": tiny(), "edit": edit(), "fact": FACTS[0], "pool": FACTS}
    assert panel.edges.code in panel.shown_code and panel.edges.code in panel.code
    exec(panel.shown_code, names)
    assert same(names["changes"], found)


def test_it_is_stopped_and_a_second_press_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    going, go, real = threading.Event(), threading.Event(), compared.compare_edges

    def slow(*args: Any, **options: Any) -> Any:
        going.set()
        go.wait(30)
        return real(*args, **options)

    monkeypatch.setattr(compared, "compare_edges", slow)
    panel = view()
    click(control(panel, "Compare edges"))
    going.wait(30)
    assert panel.edges.busy and not panel.busy, "the page and the maps wait for nothing"
    job = panel.edges.job
    click(control(panel, "Compare edges"))
    assert panel.edges.job is job and "being compared already" in panel.edges.message
    click(control(panel, "Stop edges"))
    go.set()
    with pytest.raises(Cancelled):
        panel.edges.wait(60)
    assert panel.edges.error is None and panel.edges.result is None
    assert "Cancelled" in panel.edges.message
    assert same(scored(panel), panel.edges.result or EdgeComparison.__new__(EdgeComparison))
    assert panel.edges.message == ""


def test_scores_of_choices_that_have_moved_on_wait_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    go, real = threading.Event(), compared.compare_edges
    monkeypatch.setattr(compared, "compare_edges", lambda *a, **k: go.wait(30) and real(*a, **k))
    panel = view()
    click(control(panel, "Compare edges"))
    panel.stage = "unlearn"
    go.set()
    found = panel.edges.wait(60)
    assert panel.edges.result is None and "other choices" in panel.edges.status
    panel.stage = "learn"
    assert panel.edges.result is found and panel.edges.status == ""


def test_without_a_partner_that_fits_the_corruption_is_noise_and_that_is_said() -> None:
    alone = wb.FactSet([FACTS[0]], name="one")
    panel = wb.CompareView(tiny(), edit(), pool=alone)
    found = scored(panel)
    assert found.before.corruption == "noise"
    assert "the corruption is noise instead of a swap" in shown(panel.edges)
    assert "corruption='noise'" in panel.edges.code


def test_an_error_is_said_in_the_section() -> None:
    panel = view()
    sea = {"prompt": "The capital of the North Sea is", "question": "What is the capital of the North Sea?"}
    panel.partner = wb.Fact(**{**FACTS[0].to_dict(), "subject": "the North Sea", "id": "sea", **sea})
    panel.edges.run()
    with pytest.raises(ValueError, match="tokens"):
        panel.edges.wait(60)
    assert "tokens" in panel.edges.message and panel.message == ""
    panel.partner = None
    assert panel.edges.message == "", "it was about other choices"
