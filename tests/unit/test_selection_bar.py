"""SelectionBar and History: what a researcher clicks, what the bar shows, and what Python holds agree."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipywidgets import Button

from tests.helpers.panels import control, descendants
from tests.helpers.panels import shown as text
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import knowing
from tests.helpers.wire import click, enter
from workbench.models.load import LoadedModel
from workbench.types import Component, Selection
from workbench.widgets.picker.history import LONGEST, History
from workbench.widgets.picker.selection_bar import CHIPS, SelectionBar, without_gates


@lru_cache
def tiny() -> LoadedModel:
    return knowing(tiny_llama(tied=False))


def bar(**options: Any) -> tuple[SelectionBar, list[Selection]]:
    calls: list[Selection] = []
    return SelectionBar(tiny(), calls.append, **options), calls


def chips(shown: SelectionBar) -> list[str]:
    """The chips that are visible."""
    return [chip.description for chip in shown.chips if chip.layout.display != "none"]


def enabled(shown: SelectionBar) -> set[str]:
    buttons = [w for w in descendants(shown) if isinstance(w, Button) and w not in shown.chips]
    return {button.description for button in buttons if not button.disabled}


@given(st.lists(st.one_of(st.integers(0, 9), st.sampled_from(["undo", "redo"])), max_size=40))
def test_history_is_a_list_with_a_place_in_it(steps: list[Any]) -> None:
    history, past, future = History(-1), [-1], []
    for step in steps:
        if step == "undo":
            history.undo()
            if len(past) > 1:
                future.append(past.pop())
        elif step == "redo":
            history.redo()
            if future:
                past.append(future.pop())
        else:
            history.push(step)
            past, future = [*past, step], []
        assert (history.now, history.can_undo, history.can_redo) == (past[-1], len(past) > 1, bool(future))


def test_history_forgets_the_oldest() -> None:
    history = History(0)
    for i in range(1, LONGEST + 5):
        history.push(i)
    while history.can_undo:
        history.undo()
    assert history.now == 5


def test_chips_words_and_size_follow_the_selection() -> None:
    shown, calls = bar()
    assert chips(shown) == [] and "Nothing selected" in text(shown) and enabled(shown) == set()
    shown.selection = "L1H2 L0MLP"
    assert chips(shown) == ["L1H2 ×", "L0MLP ×"] and calls == [Selection("L1H2 L0MLP")]
    shape = tiny().shape
    gates = shape.d_head + shape.d_mlp
    assert f"2 components, {gates:,} gates" in text(shown)
    share = 100 * gates / sum(p.numel() for p in tiny().hf.parameters())
    assert f"{share:.2g}% of the model" in text(shown)
    assert enabled(shown) == {"Undo", "Clear", "Invert", "Random control"}
    shown.selection = "L1N3"
    assert "1 component, 1 gate<" in text(shown)


def test_a_chip_removes_its_component_and_undo_brings_it_back_in_its_place() -> None:
    shown, calls = bar()
    shown.selection = "L1H2 L0MLP L0H1"
    click(shown.chips[1])
    assert list(shown.selection) == [Component(1, "H", 2), Component(0, "H", 1)] == list(calls[-1])
    assert chips(shown) == ["L1H2 ×", "L0H1 ×"] and shown.chips[1].tooltip == "Remove L0H1"
    click(shown.chips[CHIPS - 1])  # a second click on a chip that is gone
    assert len(shown.selection) == 2 and shown.error is None
    click(control(shown, "Undo"))
    assert chips(shown) == ["L1H2 ×", "L0MLP ×", "L0H1 ×"]
    click(control(shown, "Redo"))
    assert chips(shown) == ["L1H2 ×", "L0H1 ×"] and "Redo" not in enabled(shown)


def test_more_components_than_chips() -> None:
    shown, _ = bar()
    shown.selection = Selection(Component(0, "N", i) for i in range(CHIPS + 3))
    assert len(chips(shown)) == CHIPS and "+3 more" in text(shown) and f"L0N{CHIPS} L0N{CHIPS + 1}" in text(shown)
    click(shown.chips[0])
    assert len(chips(shown)) == CHIPS and "+2 more" in text(shown)
    assert chips(shown)[-1] == f"L0N{CHIPS} ×"


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("L0N3 L0MLP", "L0N3 is part of L0MLP: no gates of its own."),
        ("L0MLP L0N1 L0N2 L0N3", "L0N1 is part of L0MLP: no gates of its own, and 2 more like it."),
        ("L1H2 L1ATTN", "L1H2 is part of L1ATTN: no gates of its own."),
        ("L1KV1 L1K1", "L1K1 is part of L1KV1: no gates of its own."),
        ("L1N3 L0MLP L0H1 L1MLP L0ATTN", "L1N3 is part of L1MLP: no gates of its own, and 1 more like it."),
        ("L1N3 L0MLP", ""),
        ("L0H1 L0MLP L1ATTN L0KV0", ""),
    ],
)
def test_a_part_of_what_is_selected_has_no_gates_of_its_own(selection: str, words: str) -> None:
    shown, _ = bar()
    shown.selection = selection
    assert (words in text(shown)) if words else ("no gates" not in text(shown))
    inside, chosen = without_gates(tiny(), shown.selection), shown.selection
    assert (chosen - inside).n_parameters(tiny()) == chosen.n_parameters(tiny()), "it changes nothing"
    for component in chosen - inside:
        assert (chosen - [component]).n_parameters(tiny()) < chosen.n_parameters(tiny())


def test_rare_actions_are_behind_more() -> None:
    shown, _ = bar()
    rare = [control(shown, name) for name in ("Invert", "Random control")]
    assert all(button.layout.display == "none" for button in rare)
    enter(control(shown, "More"), value=True)
    assert all(button.layout.display is None for button in rare)


def test_clear_invert_and_random_control() -> None:
    shown, _ = bar()
    shape = tiny().shape
    shown.selection = "L0H1 L1MLP"
    click(control(shown, "Invert"))
    heads = {Component(i, "H", h) for i in range(shape.n_layers) for h in range(shape.n_heads)} - {Component(0, "H", 1)}
    assert set(shown.selection) == heads | {Component(i, "MLP") for i in range(shape.n_layers) if i != 1}
    click(control(shown, "Undo"))
    draws = []
    for _ in range(2):
        before = set(shown.selection)
        click(control(shown, "Random control"))
        drawn = set(shown.selection)
        assert sorted(c.kind for c in drawn) == ["H", "MLP"] and not drawn & before
        draws.append(drawn)
        click(control(shown, "Undo"))
    assert draws[0] != draws[1] or shape.n_heads * shape.n_layers < 3
    click(control(shown, "Clear"))
    assert len(shown.selection) == 0 and enabled(shown) == {"Undo"}


def test_what_cannot_be_is_shown_and_kept_and_changes_nothing() -> None:
    errors: list[Any] = []
    shown, calls = bar(on_error=errors.append)
    shape = tiny().shape
    shown.selection = everything = Selection(
        Component(i, "H", h) for i in range(shape.n_layers) for h in range(shape.n_heads)
    )
    click(control(shown, "Random control"))
    assert isinstance(shown.error, ValueError) and errors == [shown.error]
    assert 'role="alert"' in text(shown) and str(len(everything)) in text(shown)
    assert shown.selection == everything and len(calls) == 1
    click(control(shown, "Clear"))
    assert shown.error is None and "alert" not in text(shown) and errors[-1] is None
    for wrong, message in (("L9H0", "does not exist"), ("nonsense", "not a component"), ("L0K3", "key-value groups")):
        with pytest.raises(ValueError, match=message):
            shown.selection = wrong
    assert len(shown.selection) == 0 and len(calls) == 2


def test_an_error_of_who_listens_is_shown_and_kept() -> None:
    shown = SelectionBar(tiny(), lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shown.selection = "L0H1"
    click(shown.chips[0])
    assert isinstance(shown.error, ZeroDivisionError) and "division by zero" in text(shown)


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from(["undo", "redo", "clear", "invert", "random", "L0H1", "L1MLP L0H2", "chip"]), max_size=15)
)
def test_what_is_shown_is_what_is_held(steps: list[str]) -> None:
    shown, calls = bar()
    buttons = {"undo": "Undo", "redo": "Redo", "clear": "Clear", "invert": "Invert", "random": "Random control"}
    for step in steps:
        if step == "chip":
            click(shown.chips[0])
        elif step in buttons:
            click(control(shown, buttons[step]))
        else:
            shown.selection = step
        assert chips(shown) == [f"{c} ×" for c in shown.selection][:CHIPS]
        assert not calls or calls[-1] == shown.selection


def said_elsewhere(shown: SelectionBar) -> str:
    return shown.elsewhere.description if shown.elsewhere.layout.display != "none" else ""


def test_what_was_picked_for_another_subject_is_said_and_one_click_clears_it() -> None:
    shown, calls = bar()
    shown.subject = "France"
    shown.selection = "L0H1 L1MLP"
    assert said_elsewhere(shown) == "" and shown.elsewhere.disabled
    shown.subject = "Spain"
    assert said_elsewhere(shown) == "picked for France ×" and shown.selection == Selection("L0H1 L1MLP")
    shown.selection = "L0H1 L1MLP L2MLP"
    assert said_elsewhere(shown) == "2 of 3 picked for France ×"
    shown.subject = "Italy"
    assert said_elsewhere(shown) == "picked for France and Spain ×"
    shown.subject = "Spain"
    click(shown.elsewhere)
    assert shown.selection == calls[-1] == Selection("L2MLP") and said_elsewhere(shown) == ""
    shown.undo()
    assert said_elsewhere(shown) == "2 of 3 picked for France ×", "what comes back is what it was"
    shown.claim()
    assert said_elsewhere(shown) == "" and len(shown.selection) == 3
    shown.clear()
    shown.subject = "France"
    assert said_elsewhere(shown) == ""


def test_what_is_picked_again_is_picked_for_the_subject_that_is_shown() -> None:
    shown, _ = bar()
    shown.subject, shown.selection = "France", "L0H1"
    shown.subject = "Spain"
    shown.clear()
    shown.selection = "L0H1"
    assert said_elsewhere(shown) == ""
