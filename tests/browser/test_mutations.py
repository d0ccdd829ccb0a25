"""The assertions about the picker can fail: see mutants.py."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser import test_picker as picker
from tests.browser.conftest import Notebook
from tests.browser.mutants import Mutant, survivors
from tests.browser.test_picker import PICKER, chips, click, held, point, root

pytestmark = [pytest.mark.browser, pytest.mark.model]

Run = Callable[..., Notebook]

SPACE = '} else if (event.key === " " || event.key === "Enter") {'


def clean(page: Page, notebook: Notebook) -> None:
    """Nothing selected, and nothing to undo."""
    notebook.execute(
        "from workbench.widgets.picker.history import History\nfrom workbench.types import Selection\n"
        "picker.selection = Selection()\npicker.bar._history = History(Selection())\npicker.bar._show()"
    )
    chips(page)
    picker.sees(page, "Heads", "0 heads selected")
    page.mouse.move(2, 2)


def toggled_by_click(page: Page, notebook: Notebook) -> None:
    clean(page, notebook)
    for names in (["L23H4"], []):
        click(page, "Heads", 23, 4)
        chips(page, *names)
        picker.sees(page, "Heads", f"{len(names)} head{'' if names else 's'} selected")
        assert held(notebook) == names


def boxed(page: Page, notebook: Notebook) -> None:
    clean(page, notebook)
    for keys, names in (("Shift", ["L0H7", "L0H8", "L1H7", "L1H8"]), ("Shift Alt", [])):
        for key in keys.split():
            page.keyboard.down(key)
        page.mouse.move(*point(page, "Heads", 0, 7))
        page.mouse.down()
        page.mouse.move(*point(page, "Heads", 1, 8), steps=4)
        page.mouse.up()
        for key in keys.split():
            page.keyboard.up(key)
        chips(page, *names)
        assert held(notebook) == names


def by_keyboard(page: Page, notebook: Notebook) -> None:
    clean(page, notebook)
    notebook.execute("picker.heads.cursor = (4, 4)")
    root(page, "Heads").locator(".hg-cells").focus()
    for key in ("Home", "ArrowDown", "Space"):
        page.keyboard.press(key)
    chips(page, "L5H0")
    assert held(notebook) == ["L5H0"]
    page.keyboard.press("Delete")
    chips(page)
    assert held(notebook) == []


def linked(page: Page, notebook: Notebook) -> None:
    clean(page, notebook)
    notebook.execute("picker.heads.cursor = (4, 4)")
    click(page, "Heads", 9, 2)
    expect(root(page, "MLPs").get_by_role("gridcell", include_hidden=True)).to_contain_text(re.compile("^L9,? ?MLP"))
    notebook.wait_for("picker.trace.cursor[0]", 9)


def undone_and_redone(page: Page, notebook: Notebook) -> None:
    clean(page, notebook)
    click(page, "Heads", 23, 4)
    chips(page, "L23H4")
    picker.button(page, "Undo").click()
    chips(page)
    assert held(notebook) == []
    picker.button(page, "Redo").click()
    chips(page, "L23H4")
    assert held(notebook) == ["L23H4"]


def top_k(page: Page, notebook: Notebook) -> None:
    clean(page, notebook)
    page.locator(".wb-panel").get_by_label("top k").fill("3")
    picker.button(page, "Select top k").click()
    picker.sees(page, "Heads", "3 heads selected")
    top = notebook.ask("maps['heads'].values.flatten().argsort(descending=True)[:3].tolist()")
    assert held(notebook) == [f"L{i // 9}H{i % 9}" for i in top]


def above_a_threshold(page: Page, notebook: Notebook) -> None:
    clean(page, notebook)
    panel = page.locator(".wb-panel")
    panel.get_by_label("Select from").select_option("MLPs")
    panel.get_by_label("at least").fill("1.25")
    picker.button(page, "Select above").click()
    large = notebook.ask("[i for i, value in enumerate(maps['mlps'].values.tolist()) if value >= 1.25]")
    assert 0 < len(large) < 10
    picker.sees(page, "MLPs", f"{len(large)} MLP{'s' if len(large) > 1 else ''} selected")
    assert sorted(held(notebook)) == sorted(f"L{i}MLP" for i in large)
    panel.get_by_label("Select from").select_option("Heads")


def drawn_at_random(page: Page, notebook: Notebook) -> None:
    clean(page, notebook)
    before = ["L5H1", "L6H2", "L7H3"]
    notebook.execute(f"picker.selection = {' '.join(before)!r}")
    chips(page, *before)
    notebook.execute("picker.controls['More'].value = True")
    picker.button(page, "Random control").click()
    notebook.wait_for("set(map(str, picker.selection)) & {'L5H1', 'L6H2', 'L7H3'} == set()", True)
    drawn = held(notebook)
    assert len(drawn) == 3 and all(re.fullmatch(r"L\d+H\d", name) for name in drawn)
    chips(page, *drawn)
    picker.sees(page, "Heads", "3 heads selected")


def picked_in_the_list(page: Page, notebook: Notebook) -> None:
    clean(page, notebook)
    notebook.execute("picker.controls['Ranked'].value = 'heads'")
    page.locator(".wb-panel").get_by_label("Ranked").select_option("Neurons")
    rows = page.locator(".wb-panel .bl-row")
    best = notebook.ask("maps['neurons'].values.abs().flatten().argsort(descending=True)[2].item()")
    name = notebook.ask(f"'L%dN%d' % divmod({best}, maps['neurons'].values.shape[1])")
    expect(rows.nth(2)).to_contain_text(name)
    rows.nth(2).click()
    chips(page, name)
    assert held(notebook) == [name]


def chipped_off(page: Page, notebook: Notebook) -> None:
    clean(page, notebook)
    notebook.execute("picker.selection = 'L5H1 L6H2 L7H3'")
    page.get_by_role("button", name="L6H2 ×").click()
    chips(page, "L5H1", "L7H3")
    picker.sees(page, "Heads", "2 heads selected")
    assert held(notebook) == ["L5H1", "L7H3"]


def cleared(page: Page, notebook: Notebook) -> None:
    clean(page, notebook)
    for _ in range(2):  # the same pick again, after Python took it back
        click(page, "Heads", 23, 4)
        chips(page, "L23H4")
        assert held(notebook) == ["L23H4"]
        picker.button(page, "Clear").click()
        chips(page)
        picker.sees(page, "Heads", "0 heads selected")
        assert held(notebook) == []


def hovered(page: Page, notebook: Notebook) -> None:
    clean(page, notebook)
    notebook.execute("picker.heads.hover = None")
    page.mouse.move(*point(page, "Heads", 3, 5))
    tip = root(page, "Heads").locator(".hg-tip")
    expect(tip.locator(".hg-tip-name")).to_have_text(re.compile("^L3,? ?H5$"))
    expect(tip.locator(".hg-bars span").nth(1)).to_have_text("0.50")
    notebook.wait_for("picker.heads.hover", [3, 5])


def test_the_pickers_assertions_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(PICKER, "picker")
    history = "from workbench.widgets.picker.history import History\n"
    mutants = [
        Mutant("click", toggled_by_click, ("this.actions.toggle(this.press.cell);", "")),
        Mutant("second click", toggled_by_click, ("mask[i] ^= 1;", "mask[i] = 1;")),
        Mutant("shift-drag", boxed, ("this.actions.takeBox(this.actions.box.remove);", "this.actions.box = null;")),
        Mutant("the end of a drag", boxed, ("this.actions.box.to = cell;", "")),
        Mutant("shift-alt-drag", boxed, ("if (remove) mask[i] = 0;", "if (remove) mask[i] = 1;")),
        Mutant("Space", by_keyboard, (SPACE, '} else if (event.key === "Enter") {')),
        Mutant("arrow keys", by_keyboard, ("ArrowDown: [r + 1, c],", "ArrowDown: [r, c],")),
        Mutant("Delete", by_keyboard, ("actions.takeBox(true);", "")),
        Mutant("linked cursors", linked, ('this.model.set("cursor", cell);', "")),
        Mutant("pattern on hover", hovered, ('this.fillPattern(this.model.get("pattern"));', "")),
        Mutant("hover reaches Python", hovered, ('this.model.set("hover", cell);', "")),
        Mutant(
            "Undo",
            undone_and_redone,
            f"{history}real, History.undo = History.undo, lambda self: self.now",
            "History.undo = real",
        ),
        Mutant(
            "Redo",
            undone_and_redone,
            f"{history}real, History.redo = History.redo, lambda self: self.now",
            "History.redo = real",
        ),
        Mutant(
            "top k",
            top_k,
            "real, EffectMap.top = EffectMap.top, lambda self, k, **more: real(self, k + 1, **more)",
            "EffectMap.top = real",
        ),
        Mutant(
            "threshold",
            above_a_threshold,
            "real, EffectMap.above = EffectMap.above, lambda self, least, **more: real(self, least + 0.5, **more)",
            "EffectMap.above = real",
        ),
        Mutant(
            "Random",
            drawn_at_random,
            "real, Selection.random_like = Selection.random_like, lambda self, model, *, seed: self",
            "Selection.random_like = real",
        ),
        Mutant(
            "the list of neurons",
            picked_in_the_list,
            "picker.ranked._show = lambda: None",
            "del picker.ranked._show",
        ),
        Mutant(
            "a pick in the list",
            picked_in_the_list,
            "picker.ranked._on_pick = lambda change: None",
            "picker.ranked._on_pick = picker._picked",
        ),
        Mutant("chips", chipped_off, "picker.bar._try = lambda action: None", "del picker.bar._try"),
        Mutant("Clear", cleared, "picker.bar._try = lambda action: None", "del picker.bar._try"),
        # The last one: it leaves a pick that nobody answers.
        Mutant("the same pick again", cleared, ('this.model.set("picked", null, { silent: true });', "")),
    ]
    widgets = ["picker.trace", "picker.heads", "picker.mlps"]
    assert survivors(page, notebook, mutants, "grid/grid.js", widgets, ".hg-cells") == []
