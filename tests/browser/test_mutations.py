"""Each interaction's assertion can fail: it holds, then its handler is broken, and it must not hold any more.

What lives in our JavaScript is broken there: a widget whose source is set is drawn anew. What lives in Python (buttons,
the selection's history) is broken in the kernel. One page a widget, so that this costs seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Error, Page, expect

from tests.browser import test_picker as picker
from tests.browser import test_workbench as bench
from tests.browser.conftest import Notebook
from tests.browser.test_picker import PICKER, chips, click, held, point, root
from tests.browser.test_workbench import FACTS, go_to, press

pytestmark = [pytest.mark.browser, pytest.mark.model]

Run = Callable[..., Notebook]
STATIC = Path(picker.__file__).parents[2] / "workbench" / "widgets" / "static"
SHORT, LONG = 700, 20_000  # milliseconds until an assertion gives up: of a mutant, of the real thing
USUAL = 5000  # of the other tests


@dataclass(frozen=True)
class Mutant:
    """A broken handler.

    Args:
        name: What is broken.
        check: The interaction with its assertions, from a clean start.
        breaks: Python for the kernel, or ``(before, after)`` of a line in the widget's JavaScript.
        mends: Python that takes back what ``breaks`` did there.
    """

    name: str
    check: Callable[[Page, Notebook], None]
    breaks: str | tuple[str, str]
    mends: str = ""


@contextmanager
def patience(page: Page, notebook: Notebook, milliseconds: int) -> Iterator[None]:
    """Give up after so long, whatever is waited for."""
    before = notebook.patience
    notebook.patience = milliseconds / 1000
    expect.set_options(timeout=milliseconds)
    page.set_default_timeout(milliseconds)
    try:
        yield
    finally:
        notebook.patience = before
        expect.set_options(timeout=USUAL)
        page.set_default_timeout(LONG)


def survivors(
    page: Page, notebook: Notebook, mutants: list[Mutant], script: str, widgets: list[str], drawn: str
) -> list[str]:
    """The mutants that no assertion noticed. Every check must hold before its handler is broken.

    Args:
        page, notebook: The page.
        mutants: What to break.
        script: The widget's JavaScript.
        widgets: Python for each of the widgets that have it.
        drawn: CSS selector of the element that a widget draws.
    """
    source, found = (STATIC / script).read_text(encoding="utf-8"), []
    shown = source

    def draw(wanted: str) -> None:
        nonlocal shown
        if wanted != shown:
            tag = "drawn => document.querySelectorAll(drawn).forEach(one => { one.dataset.stale = 1; })"
            page.evaluate(tag, drawn)
            notebook.execute(f"for one in ({', '.join(widgets)},):\n    one._esm = {wanted!r}")
            anew = "([drawn, n]) => document.querySelectorAll(`${drawn}:not([data-stale])`).length >= n"
            page.wait_for_function(anew, arg=[drawn, len(widgets)])
            shown = wanted

    for mutant in mutants:
        draw(source)
        with patience(page, notebook, LONG):
            mutant.check(page, notebook)
        if isinstance(mutant.breaks, tuple):
            before, after = mutant.breaks
            assert source.count(before) == 1, f"{mutant.name}: {before!r} is {source.count(before)} times in {script}"
            draw(source.replace(before, after))
        else:
            notebook.execute(mutant.breaks)
        try:
            with patience(page, notebook, SHORT):
                mutant.check(page, notebook)
            found.append(mutant.name)
        except (AssertionError, Error):  # Error: a control that cannot be used
            pass
        finally:
            for key in ("Shift", "Alt"):
                page.keyboard.up(key)
            page.mouse.up()
            notebook.execute(mutant.mends)
    return found


# The picker


def clean(page: Page, notebook: Notebook) -> None:
    """Nothing selected, and nothing to undo."""
    notebook.execute(
        "from workbench.widgets.history import History\nfrom workbench.types import Selection\n"
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
    expect(root(page, "MLPs").get_by_role("gridcell", include_hidden=True)).to_contain_text("Layer L9, ")
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
    expect(tip.locator(".hg-tip-name")).to_have_text("Layer L3, Head H5")
    expect(tip.locator(".hg-bars span").nth(1)).to_have_text("0.50")
    notebook.wait_for("picker.heads.hover", [3, 5])


def test_the_pickers_assertions_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(PICKER, "picker")
    history = "from workbench.widgets.history import History\n"
    mutants = [
        Mutant("click", toggled_by_click, ("      this.toggle(cell);\n", "")),
        Mutant("second click", toggled_by_click, ("mask[i] ^= 1;", "mask[i] = 1;")),
        Mutant("shift-drag", boxed, ("      this.takeBox(this.box.remove);\n", "      this.box = null;\n")),
        Mutant("the end of a drag", boxed, ("        this.box.to = cell;\n", "")),
        Mutant("shift-alt-drag", boxed, ("if (remove) mask[i] = 0;", "if (remove) mask[i] = 1;")),
        Mutant("Space", by_keyboard, ('event.key === " " || event.key === "Enter"', 'event.key === "Enter"')),
        Mutant("arrow keys", by_keyboard, ("ArrowDown: [r + 1, c]", "ArrowDown: [r, c]")),
        Mutant("Delete", by_keyboard, ("      this.takeBox(true);\n", "")),
        Mutant("linked cursors", linked, ('    this.model.set("cursor", cell);\n', "")),
        Mutant("pattern on hover", hovered, ('      this.fillPattern(this.model.get("pattern"));\n', "")),
        Mutant("hover reaches Python", hovered, ('      this.model.set("hover", cell);\n', "")),
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
        Mutant("chips", chipped_off, "picker.bar._try = lambda action: None", "del picker.bar._try"),
        Mutant("Clear", cleared, "picker.bar._try = lambda action: None", "del picker.bar._try"),
        # The last one: it leaves a pick that nobody answers.
        Mutant("the same pick again", cleared, ('    this.model.set("picked", null, { silent: true });', "    ")),
    ]
    widgets = ["picker.trace", "picker.heads", "picker.mlps"]
    assert survivors(page, notebook, mutants, "grid.js", widgets, ".hg-cells") == []


# The workbench

# An edit by hand, and a fit that waits to be cancelled: nothing is computed but the slider's probabilities.
APP = f"""{FACTS}
import torch
from workbench.editing.fit import Cancelled
from workbench.types import EditStage, GateDelta
from workbench.widgets import edit_panel
def waiting(*given, cancel, **options):
    while not cancel.wait(0.02):
        pass
    raise Cancelled("Cancelled here.")
edit_panel.fit_and_evaluate = waiting
gate = torch.ones(model.shape.site_size("z"))
gate[4 * 64 : 5 * 64] = 0.0
edit = wb.Edit(stages=(EditStage("learn", GateDelta({{(23, "z"): gate}})),), selection=wb.Selection("L23H4"),
               selector="given", recipe=wb.Recipe(stages=("learn",)), facts=(facts["france-capital"],), retain_ids=(),
               history=(), base_fingerprint=model.fingerprint, base_name=model.name)
app = wb.Workbench(model, facts, fact="france-capital")
app._show_edit(edit)
app
"""


def idle(notebook: Notebook) -> None:
    """No edit is running."""
    notebook.execute("app.editor.job and app.editor.job.cancel()")
    notebook.wait_for("app.editor.running", False)


def started(page: Page, notebook: Notebook) -> None:
    idle(notebook)
    go_to(page, "3 Edit")
    press(page, "Run")
    expect(bench.panel(page).get_by_text("Preparing: retained answers").locator("visible=true")).to_be_visible()
    assert notebook.ask("app.editor.running") is True
    idle(notebook)


def cancelled(page: Page, notebook: Notebook) -> None:
    idle(notebook)
    go_to(page, "3 Edit")
    press(page, "Run")
    notebook.wait_for("app.editor.running", True)
    press(page, "Cancel")
    expect(bench.panel(page).get_by_text("Cancelled here.").locator("visible=true")).to_be_visible()
    assert notebook.ask("[app.editor.running, app.editor.job.state]") == [False, "cancelled"]


def slid(page: Page, notebook: Notebook) -> None:
    notebook.execute("app.comparison.strength = 0.4\napp.comparison.strength = 0.5")  # in the browser too
    go_to(page, "4 Compare")
    slider = bench.panel(page).get_by_role("slider", name="Strength")
    bars = bench.panel(page).locator("svg[aria-label^='P(answer) after learn']")
    at = r"^P\(answer\) after learn at strength {:.2f}\."
    expect(bars).to_have_attribute("aria-label", re.compile(at.format(0.5)))
    shown: list[str] = []
    for key, value in (("Home", 0.0), ("End", 1.0)):
        slider.focus()
        slider.press(key)
        expect(bars).to_have_attribute("aria-label", re.compile(at.format(value)))
        assert notebook.ask("app.comparison.strength") == value
        shown.append(bars.text_content() or "")
    assert shown[0] != shown[1], "the bars are the same"


def chosen(page: Page, notebook: Notebook) -> None:
    idle(notebook)
    go_to(page, "1 Fact")
    for name in ("germany", "italy"):
        bench.fill(page, "Search", f"{name}-capital")
        expect(bench.panel(page).get_by_label("Facts", exact=True).locator("option")).to_have_count(1)
        bench.panel(page).get_by_label("Facts", exact=True).select_option(index=0)
        cloze = bench.panel(page).get_by_text(f"The capital of {name.capitalize()} is").locator("visible=true")
        expect(cloze.first).to_be_visible()
        ids = "[app.chooser.fact.id, app.picker.fact.id, app.editor.fact.id]"
        notebook.wait_for(ids, [f"{name}-capital"] * 3)


def saved(page: Page, notebook: Notebook) -> None:
    notebook.execute("app._alert.value = ''")
    bench.fill(page, "Folder", "kept")
    press(page, "Save")
    expect(bench.panel(page).get_by_text("Saved in ").locator("visible=true")).to_be_visible()


def scripted(page: Page, notebook: Notebook) -> None:
    notebook.execute("app._code.value = ''")
    press(page, "Whole script")
    expect(bench.panel(page).locator("pre", has_text="wb.load_model()").locator("visible=true").last).to_be_visible()
    assert notebook.ask("'<pre' in app._code.value") is True


def test_the_workbenchs_assertions_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(APP)
    mutants = [
        Mutant("slider", slid, ("    model.save_changes();\n", "")),
        Mutant("the slider's key", slid, ('input.addEventListener("input", moved);', "")),
        Mutant(
            "probabilities by strength",
            slid,
            "app.comparison._show_probabilities = lambda: None",
            "del app.comparison._show_probabilities",
        ),
        Mutant("Run", started, "app.editor.run = lambda: None", "del app.editor.run"),
        Mutant("Cancel", cancelled, "app.editor.cancel = lambda: None", "del app.editor.cancel"),
        Mutant("Save", saved, "app._try = lambda action: None", "del app._try"),
        Mutant("Whole script", scripted, "app._toggle_code = lambda: None", "del app._toggle_code"),
        Mutant(
            "another fact",
            chosen,
            "real, app.chooser._callbacks = app.chooser._callbacks, []",
            "app.chooser._callbacks = real",
        ),
    ]
    assert survivors(page, notebook, mutants, "slider.js", ["app.comparison._strength"], ".wb-slider") == []
