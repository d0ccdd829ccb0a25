"""The panel of a stack of edits, clicked through the messages that a browser sends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.panels import EVIL, FACTS, FRANCE, SPAIN, control, shown, tiny
from tests.helpers.pictures import data_of
from tests.helpers.stacks import JAPAN, some_edit, some_panel
from tests.helpers.tiny_facts import some_gates
from tests.helpers.wire import click, enter, shown_after
from workbench.types import EditStage, GateDelta
from workbench.widgets.app_code import Script
from workbench.widgets.app_tabs import TABS


def choose(one: wb.StackPanel, place: int) -> None:
    enter(control(one, "Edits"), index=place)


def test_clicks_do_what_the_public_calls_do() -> None:
    one = some_panel()
    edits = one.stack.edits
    choose(one, 1)
    assert one.chosen == 1
    enter(control(one, "On"), value=False)
    assert [x.on for x in one.stack.layers] == [True, False, True]
    choose(one, 2)
    assert control(one, "On").value is True and control(one, "Down").disabled and not control(one, "Up").disabled
    enter(control(one, "Strength"), value=0.25)
    assert [x.strength for x in one.stack.layers] == [1, 1, 0.25]
    assert "○\u00a0off" in control(one, "Edits").options[1][0] and "0.25" in control(one, "Edits").options[2][0]
    click(control(one, "Remove"))
    assert one.stack.edits == edits[:2] and one.chosen == 1
    assert control(one, "Undo remove").tooltip == f"Bring back Japan: {JAPAN.answer} → {JAPAN.target}"
    click(control(one, "Undo remove"))
    assert one.stack.edits == edits and one.stack.layers[2].strength == 0.25
    by_hand = wb.EditStack(tiny(), edits).toggle(1).scale(2, 0.25)
    ids = torch.tensor([[5, 9, 17]])
    with torch.no_grad():
        assert torch.equal(one.stack.model.hf(ids).logits, by_hand.model.hf(ids).logits)
    assert one.stack.fingerprint == by_hand.fingerprint


def test_an_edit_is_moved_where_that_is_possible() -> None:
    one = some_panel()
    first, second, third = one.stack.edits
    choose(one, 1)
    click(control(one, "Up"))
    assert "was made on top of france-capital, so it must stay above it" in one.message
    assert one.stack.edits == (first, second, third) and one.chosen == 1
    base = wb.StackPanel(tiny(), [first, third])
    choose(base, 0)
    click(control(base, "Down"))
    assert base.stack.edits == (third, first) and base.chosen == 1 and base.message == ""
    assert control(base, "Down").disabled
    click(control(base, "Up"))
    assert base.stack.edits == (first, third) and base.chosen == 0 and control(base, "Up").disabled


def test_notes_are_said() -> None:
    one = some_panel()
    one.toggle(0)
    assert "spain-capital was made on top of france-capital, and acts without it here" in shown(one)
    one.toggle(0)
    assert "acts without it here" not in shown(one)


def test_what_broke_is_asked_and_kept_until_the_stack_changes() -> None:
    one = some_panel()
    click(control(one, "What broke?"))
    found = one.wait(120)
    assert one.answers is found.answers and one.overlaps is found.overlaps
    assert found.answers.facts == (FRANCE.id, SPAIN.id, JAPAN.id) and len(found.overlaps.norms) == 3
    by_hand = one.stack.broken()
    assert found.answers == by_hand and found.overlaps == one.stack.overlaps()
    listed = control(one, "Edits").options
    assert all("broke" in line for line, _ in listed)
    assert "Each fact's question after each edit" in shown(one).replace("&#39;", "'").replace("&#x27;", "'")
    assert "What two edits share" in shown(one)
    one.toggle(1)
    assert not any("broke" in line for line, _ in control(one, "Edits").options)
    assert "settings changed since this run: edit 2 Spain: Madrid → Berlin off, was" in one.run_words
    one.toggle(1)
    assert all("broke" in line for line, _ in control(one, "Edits").options)


def test_the_code_makes_the_same_stack(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = some_panel()
    one.toggle(2)
    one.scale(0, 0.5)
    for layer in one.stack.layers:
        layer.edit.save(f"folder of {layer.name}")
    one.run().wait(120)
    names: dict[str, Any] = {"wb": wb, "model": tiny()}
    exec(one.shown_code, names)
    assert names["stack"].fingerprint == one.stack.fingerprint
    assert "stack.toggle(2, on=False)" in one.code and "stack.scale(0, 0.5)" in one.code
    assert one.code.endswith("print(stack.broken().words)\nprint(stack.overlaps().words)\n")
    one.remove(0)
    assert "EditStack.load" in one.code
    one.stack.save("its folder")
    exec(one.shown_code, names)
    assert names["stack"].fingerprint == one.stack.fingerprint
    assert wb.StackPanel(tiny(), names["stack"]).stack.notes == one.stack.notes


def test_the_code_keeps_the_stage_of_an_edit(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    edits = [replace(some_edit(fact, seed), stages=two_stages(seed)) for fact, seed in ((FRANCE, 0), (SPAIN, 1))]
    stack = wb.EditStack(tiny(), [edits[0]]).add(edits[1], stage="unlearn").add(some_edit(JAPAN, 2)).scale(2, 0.5)
    one = wb.StackPanel(tiny(), stack)
    for layer in stack.layers:
        layer.edit.save(f"folder of {layer.name}")
    assert "stack.add(wb.load_edit('folder of spain-capital'), stage='unlearn')" in one.shown_code
    names: dict[str, Any] = {"wb": wb, "model": tiny()}
    exec(one.shown_code, names)
    assert names["stack"].fingerprint == stack.fingerprint
    assert [layer.stage for layer in names["stack"].layers] == [None, "unlearn", None]


def two_stages(seed: int) -> tuple[EditStage, ...]:
    model = tiny()
    both = zip(("unlearn", "learn"), (seed, seed + 10), strict=True)
    return tuple(EditStage(name, GateDelta(some_gates(model, (1, "post"), seed=n))) for name, n in both)


def test_bad_messages_change_nothing() -> None:
    one = some_panel()
    before = one.stack.fingerprint
    choose(one, 1)
    for value in (2, -1, "x", None):
        assert shown_after(control(one, "Strength"), value=value) == {"value": 1.0}
    enter(control(one, "Edits"), index=7)
    assert one.chosen == 1 and one.stack.fingerprint == before
    with pytest.raises(IndexError):
        one.toggle(3)
    with pytest.raises(ValueError, match="finite"):
        one.scale(0, float("nan"))


def test_nothing_in_it() -> None:
    one = wb.StackPanel(tiny())
    assert control(one, "What broke?").disabled and one.problem == "There is no edit in the stack."
    assert repr(one) == "StackPanel(no edits)" and "No edit yet" in shown(one)
    one.add(some_edit(FRANCE, 0))
    assert one.chosen == 0 and not control(one, "What broke?").disabled
    click(control(one, "Remove"))
    assert one.chosen is None and control(one, "What broke?").disabled
    asks = wb.StackPanel(tiny(), facts=[SPAIN])
    assert asks.run().wait(60).answers.words == "No edit broke one of the 1 facts."
    assert "stack.broken(" in asks.code


def test_texts_are_escaped() -> None:
    evil = replace(FRANCE, subject=EVIL, prompt=f"The capital of {EVIL} is", answer=EVIL)
    one = wb.StackPanel(tiny(), some_edit(evil, 0))
    one.run().wait(60)
    assert EVIL not in shown(one)


def test_it_has_a_picture() -> None:
    assert data_of(some_panel().snapshot())[:4] == b"\x89PNG"


# In the Workbench


def test_the_workbench_stacks_what_was_on_screen() -> None:
    """Another edit of the same fact takes the place of the one before, which is turned off."""
    app = wb.Workbench(tiny(), FACTS, fact=FRANCE, autosave=False)
    assert "stacking" not in app.panels and TABS[-2].name == "stacking"
    edits = some_edit(FRANCE, 0), some_edit(SPAIN, 1), some_edit(FRANCE, 2)
    for edit in edits:
        app._show_edit(edit)
    one = app.panels["stacking"]
    assert one is app.stacking and [x.on for x in one.stack.layers] == [False, True, True]
    assert one.stack.edits == edits and one.chosen == 2
    app._show_edit(edits[1])
    assert one.stack.edits == edits and one.chosen == 1
    row = next(tab for tab in TABS if tab.name == "stacking")
    script = Script(FRANCE, None, None, edit=edits[1])
    assert row.lines(one, script) == ""
    one.run().wait(120)
    lines = row.lines(one, script)
    assert "    edit,\n" in lines and "stack.toggle(0, on=False)" in lines


def test_an_edit_that_does_not_fit_is_said() -> None:
    first = some_edit(FRANCE, 0)
    one = wb.StackPanel(tiny())
    one.show_edit(some_edit(SPAIN, 1, on=first))
    assert "lacks france-capital" in one.message and not len(one.stack)
    one.add(first)
    before = one.stack.fingerprint
    one.show_edit(replace(some_edit(FRANCE, 3), base_fingerprint="0" * 64, base_name="another"))
    assert "'another'" in one.message and one.stack.fingerprint == before
    assert [layer.on for layer in one.stack.layers] == [True] and control(one, "On").value is True
    one.show_edit(some_edit(FRANCE, 4))
    assert [layer.on for layer in one.stack.layers] == [False, True]
