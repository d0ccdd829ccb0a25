"""The panel of a stack of edits in a real JupyterLab, on a tiny model; and that the assertions about it can fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Notebook
from tests.browser.mutants import Mutant, survivors
from tests.browser.test_workbench import button, cut, panel, press, sees, violations

pytestmark = pytest.mark.browser

Run = Callable[..., Notebook]

PANEL = """
from tests.helpers.stacks import some_panel
panel = some_panel()
start = panel.stack
panel
"""
RESET = """
while len(panel.stack):
    panel.remove(0)
for layer in start.layers:
    panel.add(layer.edit)
panel.chosen = 0
panel.controls["Strength"].send_state("value")  # a mutant that sends nothing leaves the browser with another one
"""
IDS = "[edit.facts[0].subject for edit in panel.stack]"
ON = "[layer.on for layer in panel.stack.layers]"
STRENGTHS = "[layer.strength for layer in panel.stack.layers]"


def choose(page: Page, place: int) -> None:
    panel(page).get_by_label("Edits", exact=True).select_option(index=place)


def lines(page: Page) -> list[str]:
    return panel(page).get_by_label("Edits", exact=True).locator("option").all_inner_texts()


def chosen(page: Page, notebook: Notebook) -> None:
    notebook.execute(RESET)
    for place, subject in ((2, "Japan"), (1, "Spain")):  # two: a list that is deaf goes on showing one of them
        choose(page, place)
        notebook.wait_for("panel.chosen", place)
        sees(page, f"Chosen: {subject}", 1)


def toggled(page: Page, notebook: Notebook) -> None:
    notebook.execute(RESET)
    choose(page, 2)
    panel(page).get_by_label("On", exact=True).uncheck()
    notebook.wait_for(ON, [True, True, False])
    expect(panel(page).get_by_label("Edits", exact=True).locator("option").nth(2)).to_contain_text("○")


def toggled_by_keys(page: Page, notebook: Notebook) -> None:
    """The list, the switch and the slider, with nothing but keys."""
    notebook.execute(RESET)
    panel(page).get_by_label("Edits", exact=True).focus()
    page.keyboard.press("ArrowDown")
    notebook.wait_for("panel.chosen", 1)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    notebook.wait_for(ON, [True, False, True])
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    notebook.wait_for(STRENGTHS, [1, 0.95, 1])
    expect(panel(page).get_by_label("Edits", exact=True).locator("option").nth(1)).to_contain_text("0.95")


def noted(page: Page, notebook: Notebook) -> None:
    notebook.execute(RESET)
    panel(page).get_by_label("On", exact=True).uncheck()
    expect(panel(page).get_by_role("status").filter(has_text="acts without it here")).to_be_visible()


def moved(page: Page, notebook: Notebook) -> None:
    notebook.execute(RESET + "panel.remove(1)\n")
    expect(panel(page).get_by_label("Edits", exact=True).locator("option")).to_have_count(2)
    expect(button(page, "Up")).to_be_disabled()
    press(page, "Down")
    notebook.wait_for(f"[{IDS}, panel.chosen]", [["Japan", "France"], 1])
    expect(button(page, "Down")).to_be_disabled()
    press(page, "Up")
    notebook.wait_for(f"[{IDS}, panel.chosen]", [["France", "Japan"], 0])


def refused(page: Page, notebook: Notebook) -> None:
    notebook.execute(RESET)
    choose(page, 1)
    notebook.wait_for("panel.chosen", 1)
    press(page, "Up")
    expect(panel(page).get_by_role("alert").filter(has_text="so it must stay above it")).to_be_visible()
    assert notebook.ask(IDS) == ["France", "Spain", "Japan"]


def removed(page: Page, notebook: Notebook) -> None:
    notebook.execute(RESET)
    choose(page, 2)
    notebook.wait_for("panel.chosen", 2)
    press(page, "Remove")
    notebook.wait_for(IDS, ["France", "Spain"])
    press(page, "Undo remove")
    notebook.wait_for(IDS, ["France", "Spain", "Japan"])
    expect(button(page, "Undo remove")).to_have_count(0)


def asked(page: Page, notebook: Notebook) -> None:
    notebook.execute(f"{RESET}panel._clear()\npanel._refresh()")
    press(page, r"What broke\?")
    expect(panel(page).get_by_role("region", name="Each fact's question after each edit")).to_be_visible()
    expect(panel(page).get_by_role("region", name="What two edits share")).to_be_visible()
    assert all("broke" in line for line in lines(page))
    assert notebook.ask("panel.answers == panel.stack.broken()")


def test_a_stack_is_worked_on_in_both_themes(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(PANEL)
    assert [line.split()[3] for line in lines(page)] == ["France:", "Spain:", "Japan:"]
    asked(page, notebook)
    panel(page).get_by_label("On", exact=True).uncheck()
    sees(page, "settings changed since this run", 5)
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        notebook.theme(theme)
        assert not violations(page) and not cut(page)
    assert "stack.toggle(0, on=False)" in notebook.ask("panel.code")


def test_the_stacks_assertions_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(PANEL)

    def method(name: str, becomes: str) -> tuple[str, str]:
        return f"panel.{name} = {becomes}", f"del panel.{name}"

    mutants = [
        Mutant("the list", chosen, "panel._list._chosen = lambda: None", "del panel._list._chosen"),
        Mutant("On", toggled, *method("toggle", "lambda i, on=None: None")),
        Mutant("the slider", toggled_by_keys, ("model.save_changes();", "")),
        Mutant("Strength", toggled_by_keys, *method("scale", "lambda i, strength: None")),
        Mutant(
            "notes",
            noted,
            "type(start).notes, real = (), type(start).notes",
            "type(start).notes = real",
        ),
        Mutant("Up and Down", moved, *method("move", "lambda i, j: None")),
        Mutant("what a refused move says", refused, *method("_fail", "lambda error: type(panel)._fail(panel, None)")),
        Mutant("Remove", removed, *method("remove", "lambda i: type(panel).remove(panel, i) if i != 2 else None")),
        Mutant("Undo remove", removed, *method("undo", "lambda: None")),
        Mutant("What broke?", asked, *method("run", "lambda: None")),
    ]
    strength = "panel.controls['Strength']"
    assert survivors(page, notebook, mutants, "slider.js", [strength], ".wb-slider") == []
