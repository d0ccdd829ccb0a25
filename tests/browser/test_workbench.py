"""The workbench in a real JupyterLab, on the bundled model: what the user sees, and what Python holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Lab, Notebook
from tests.browser.test_picker import click as pick

pytestmark = [pytest.mark.browser, pytest.mark.model]

Run = Callable[..., Notebook]

# Few and short facts, so that a fit and its evaluation take seconds; their ids are those of the bundled ones.
FACTS = """
from dataclasses import replace
import workbench as wb
model = wb.load_model()
everything = wb.load_facts()
names = ("france-capital", "germany-capital", "italy-capital", "spain-capital")
short = [replace(everything[i], paraphrases=everything[i].paraphrases[:1], heldout=everything[i].heldout[:1],
                 cloze_paraphrases=()) for i in names]
animals = everything.filter(relation="animal-class", split="dev", role="retain")[:3]
facts = wb.FactSet([*short, *animals], name="few")
"""
# Instead of a fit: waits to be cancelled, and computes nothing.
WAITING_FIT = """
from workbench.types.cancelling import Cancelled
from workbench.widgets.edit import panel as edit_panel
def waiting(*given, cancel, **options):
    while not cancel.wait(0.02):
        pass
    raise Cancelled("Cancelled here.")
edit_panel.fit_and_evaluate = waiting
"""
APP = f"""{FACTS}
app = wb.Workbench(model, facts, fact="germany-capital")
app.editor.recipe = wb.Recipe(retain_size=2, retain_batch_size=2, batch_size=2)
app
"""
OPENED = f"""{FACTS}
app = wb.Workbench(model, facts, fact="germany-capital")
app
"""


def panel(page: Page) -> Locator:
    """The whole workbench."""
    return page.locator(".wb-panel").first


def go_to(page: Page, tab: str) -> None:
    panel(page).get_by_role("tab", name=tab).click()


def button(page: Page, name: str) -> Locator:
    """The button of this name that is in sight; an icon's glyph may stand before the name."""
    return panel(page).get_by_role("button", name=re.compile(rf"(^|\W){name}\s*$")).locator("visible=true")


def press(page: Page, name: str) -> None:
    button(page, name).click()


def unfold(page: Page, name: str) -> None:
    """Open a fold of the line on top, unless it is open."""
    opener = panel(page).locator(".wb-top .wb-opener", has_text=name)
    if "mod-active" not in (opener.get_attribute("class") or ""):
        opener.click()


def fill(page: Page, label: str, value: str) -> None:
    """Type into a field and leave it."""
    field = panel(page).get_by_label(label, exact=True).locator("visible=true")
    field.fill(value)
    field.press("Tab")


def sees(page: Page, text: str, seconds: float = 120) -> None:
    expect(panel(page).get_by_text(text).locator("visible=true").first).to_be_visible(timeout=1000 * seconds)


def violations(page: Page) -> list[str]:
    found = Axe().run(page, context=".wb-panel").response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


def drawn(page: Page) -> int:
    """How many maps in sight have colours, which those without values do not have."""
    return page.evaluate(
        """() => [...document.querySelectorAll('canvas.hg-picture')].filter((canvas) => {
          if (canvas.offsetWidth < 20) return false;
          const { data } = canvas.getContext('2d').getImageData(0, canvas.height / 4, canvas.width, canvas.height / 2);
          let coloured = 0;
          for (let i = 0; i < data.length; i += 4)
            coloured += Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 30;
          return coloured > 50;
        }).length"""
    )


def cut(page: Page) -> list[str]:
    """What is in sight and wider than its place."""
    return page.evaluate(
        """() => {
        const root = document.querySelector('.wb-panel');
        const right = root.closest('.jp-OutputArea-output').getBoundingClientRect().right + 1;
        const wide = (one) => one.offsetParent && !one.closest('.wb-scroll') && !one.closest('.hg-tip');
        return [...root.querySelectorAll('*')].filter((one) => wide(one) && one.getBoundingClientRect().right > right)
        .map((one) => `${one.className} ${one.textContent.slice(0, 40)}`); }"""
    )


def test_the_whole_loop(run_notebook: Run, page: Page, lab: Lab) -> None:
    """Another fact, its circuit, an edit to its end, the comparison, and the saved session."""
    notebook = run_notebook(APP)
    # Another fact
    fill(page, "Search", "france par")
    expect(panel(page).get_by_label("Facts").locator("option")).to_have_count(1)
    panel(page).get_by_label("Facts").select_option(index=0)
    sees(page, "The capital of France is Paris")
    notebook.wait_for("[app.chooser.fact.id, app.picker.fact.id, app.editor.fact.id]", ["france-capital"] * 3)
    sees(page, "Traced token: ·Paris")

    # Its circuit: only two maps, or the test takes minutes
    notebook.execute("app.picker.compute('heads', 'mlps').wait()\napp.picker.selection = 'L23H4 L13MLP'")
    go_to(page, "2 Circuit")
    page.wait_for_function("() => [...document.querySelectorAll('.hg-cells')].some((one) => one.offsetWidth > 20)")
    notebook.wait_for("app.picker.job.state", "done")
    assert drawn(page) == 2 and not cut(page)
    sees(page, "1 head selected")

    # The edit
    go_to(page, "3 Edit")
    sees(page, "Edit: France, Paris → Rome")
    press(page, "Advanced")
    fill(page, "unlearn steps", "1")
    fill(page, "learn steps", "2")
    notebook.wait_for("list(app.editor.recipe.stage_steps)", [1, 2])
    sees(page, "guessed from the speed of this model")
    press(page, "Run")
    expect(panel(page).locator(".widget-tab .wb-step-now", has_text="prepare")).to_be_visible()
    assert notebook.ask("app.editor.running") is True
    assert not violations(page), "while an edit is being prepared"
    go_to(page, "2 Circuit")  # a pick while it runs reaches Python, and the edit keeps what it was given
    pick(page, "Heads", 10, 5)
    sees(page, "2 heads selected", 5)
    notebook.wait_for("[str(app.picker.selection), app.editor.running]", ["L23H4 L13MLP L10H5", True])
    go_to(page, "3 Edit")
    sees(page, "The edit of France has ended", 180)
    sees(page, "What it says to held-out questions")
    held = notebook.ask("[app.editor.job.state, [str(c) for c in app.editor.edit.selection], app.editor.error]")
    assert held == ["done", ["L23H4", "L13MLP"], None]
    texts = notebook.ask("[r.text for r in app.editor.report.rows if r.group == 'heldout']")
    said = panel(page).locator("table", has_text="What it says to held-out questions").locator("td")
    cells = said.all_inner_texts()
    assert len(texts) == 3 and all(any(text.strip() in cell for cell in cells) for text in texts)
    verdict = panel(page).locator(".wb-verdict").locator("visible=true")
    expect(verdict).to_contain_text("of 1 held-out question")
    assert verdict.evaluate("(one) => getComputedStyle(one).fontSize") == "18px"
    assert panel(page).locator("svg[role=img]:visible").count() == 1 and not cut(page), "loss and KL are folded"
    expect(panel(page).locator(".wb-step-done").locator("visible=true")).to_have_count(4)

    # The comparison: the slider moves the bars, the base answers as before
    go_to(page, "4 Compare")
    bars = panel(page).locator("svg[aria-label^='P(whole answer) after learn']")
    expect(bars).to_have_attribute("aria-label", re.compile("strength 1.00"))
    full = notebook.ask("app.comparison.probabilities")
    slider = panel(page).get_by_role("slider", name="Strength")
    slider.focus()
    slider.press("Home")
    expect(bars).to_have_attribute("aria-label", re.compile("strength 0.00"))
    notebook.wait_for("app.comparison.strength", 0.0)
    none = notebook.ask("app.comparison.probabilities")
    assert none != full
    base = notebook.ask("app.comparison.base_probabilities")
    assert none == base, "at strength 0 it is the base"
    press(page, "Heads")
    button(page, "Compare").click(timeout=120_000)  # the choice of a map computes it at once
    sees(page, "done after", 120)
    sees(page, "Before and after: learn at strength 0.00")
    assert notebook.ask("app.comparison.error is None and len(app.comparison.grids)") == 3
    expect(panel(page).get_by_text("After minus before")).to_be_visible()
    assert drawn(page) >= 2 and not cut(page), "the difference of so small an edit is pale"
    assert not violations(page), "after Compare"
    question = panel(page).get_by_label("Ask", exact=True).locator("visible=true")
    question.fill("What is the capital of Germany?")
    question.press("Enter")
    expect(panel(page).locator("td", has_text="Berlin").locator("visible=true").first).to_be_visible(timeout=60_000)
    head = panel(page).locator("th", has_text="after learn, strength 0.00").locator("visible=true")
    expect(head).to_have_count(1)
    answer = notebook.ask("[app.comparison.answers[-1].base, app.comparison.answers[-1].edited]")
    assert "Berlin" in answer[0] and answer[0] == answer[1], "at strength 0 it is the base"
    assert not violations(page), "after an answer"

    # Save
    unfold(page, "Session")
    fill(page, "Folder", "mine")
    press(page, "Save")
    sees(page, f"Saved in {lab.folder / 'mine'}")
    assert (lab.folder / "mine" / "session.json").is_file()


@pytest.fixture(scope="module")
def session(lab: Lab, model: Any) -> Path:
    """A saved session, made without a browser: a fitted edit with its report, and a head map."""
    names: dict[str, Any] = {}
    exec(FACTS.replace("wb.load_model()", "None"), names)
    import workbench as wb

    facts, fact = names["facts"], names["short"][0]
    recipe = wb.Recipe(steps=(1, 1), retain_size=2, retain_batch_size=2, batch_size=2)
    edit = wb.rewrite(model, fact, "L23H4 L13MLP", recipe=recipe, pool=facts, progress=False)
    saved = wb.Session(
        fact=fact,
        fingerprint=model.fingerprint,
        model_name=model.name,
        selection=wb.Selection("L23H4 L13MLP"),
        maps={"heads": wb.attribute(model, fact, "head", corruption="swap", pool=facts, progress=False)},
        edit=edit,
        report=wb.evaluate(model, edit=edit, pool=facts, max_controls=1, progress=False),
    )
    return saved.save(lab.folder / "saved")


def test_a_saved_session_in_both_themes_and_widths(run_notebook: Run, page: Page, context: Any, session: Path) -> None:
    """Opened, every tab is readable, without violations; its script is shown; reopened without a kernel it says so."""
    notebook = run_notebook(OPENED)
    unfold(page, "Session")
    fill(page, "Folder", "stranger")
    press(page, "Open")
    alert = panel(page).get_by_role("alert").locator("visible=true")
    expect(alert).to_contain_text("There is no folder")
    assert notebook.ask("[type(app.error).__name__, app.chooser.fact.id]") == ["FileNotFoundError", "germany-capital"]
    fill(page, "Folder", "saved")
    press(page, "Open")
    sees(page, "Opened france-capital: 1 maps, 2 picked, its edit.")
    assert alert.count() == 0
    assert notebook.ask("[app.error, app.chooser.fact.id, str(app.picker.selection), app.editor.edit is not None]") == [
        None, "france-capital", "L23H4 L13MLP", True,
    ]  # fmt: skip
    for theme, width in (("JupyterLab Light", 1100), ("JupyterLab Dark", 1900)):
        notebook.theme(theme)
        page.set_viewport_size({"width": width, "height": 1000})
        expect(page.locator(".wb-lost")).to_have_count(0)
        for tab, text in (
            ("1 Fact", "Edit target: Rome"),
            ("2 Circuit", "What is the capital of France?"),
            ("3 Edit", "What it says to held-out questions"),
            ("4 Compare", "P(whole answer) after learn at strength 1.00"),
            ("5 Probe", "What is left: The capital of France is Paris → Rome"),
        ):
            go_to(page, tab)
            sees(page, text)
            assert not cut(page), (tab, width)
            assert not violations(page), (tab, theme)
            if tab == "2 Circuit":
                assert drawn(page) == 1, "a map that came while its tab was hidden"
    unfold(page, "Code")
    sees(page, "session = wb.load_session('saved')")
    assert "rewrite" not in notebook.ask("app.code")

    # Reopened without its kernel
    go_to(page, "2 Circuit")
    notebook.wait_for("app.tab", "picker")
    notebook.save()
    reopened = notebook.reopened(context)
    again = reopened.page
    sees(again, "1 head selected")
    assert reopened.ask("'app' in globals()") is False
    expect(again.locator(".hg-badge:visible")).to_have_count(0)  # said once, for the panel
    lost = again.get_by_text("Not connected to a kernel: run the cell again to use this panel.")
    expect(lost.locator("visible=true")).to_have_count(1)
    go_to(again, "3 Edit")
    expect(lost.locator("visible=true")).to_have_count(1)
    expect(button(again, "Run")).to_have_css("opacity", "0.55")
    assert not violations(again)


def test_the_script_in_a_fresh_kernel_gives_the_numbers_that_were_shown(
    run_notebook: Run, page: Page, session: Path
) -> None:
    """From a saved session, so that nothing is fitted anew: with a map and a strength of its own. The page that is left
    behind by the restart says so."""
    notebook = run_notebook(OPENED)
    unfold(page, "Session")
    fill(page, "Folder", "saved")
    press(page, "Open")
    sees(page, "Opened france-capital")
    notebook.execute("app.picker.compute('mlps').wait()")
    go_to(page, "4 Compare")
    slider = panel(page).get_by_role("slider", name="Strength")
    for _ in range(4):
        slider.press("ArrowLeft")
    notebook.wait_for("round(app.comparison.strength, 2)", 0.8)
    expect(panel(page).locator("svg[aria-label*='at strength 0.80']")).to_be_visible()
    numbers = (
        "[{0}, {1}.values.tolist(), {2}.values.tolist(), [[r.stage, r.group, r.text] for r in {3}.rows], "
        "{{stage: {{name: rate.value for name, rate in rates.items()}} for stage, rates in {3}.rates.items()}}]"
    )
    maps = ("app.picker.maps['heads']", "app.picker.maps['mlps']")
    shown = notebook.ask(numbers.format("app.comparison.probabilities", *maps, "app.editor.report"))
    code = notebook.ask("app.code")
    assert "wb.load_session('saved')" in code and "wb.attribute(" in code and "strength=0.8" in code
    go_to(page, "3 Edit")
    expect(page.locator(".wb-lost")).to_have_count(0)
    expect(button(page, "Run")).to_have_css("opacity", "1")

    notebook.restart_kernel()
    expect(page.locator(".wb-lost").locator("visible=true")).to_have_count(1)
    expect(button(page, "Run")).to_have_css("opacity", "0.55")
    assert notebook.ask("'app' in globals()") is False
    notebook.execute(code)
    again = notebook.ask(numbers.format("probabilities", "heads", "mlps", "report"))
    assert again[0] == pytest.approx(shown[0], abs=1e-6) and again[3:] == shown[3:]
    for i, n in ((1, 30 * 9), (2, 30)):
        assert np.size(shown[i]) == n
        np.testing.assert_allclose(again[i], shown[i], atol=1e-5)


def test_another_fact_while_an_edit_runs_and_cancel(run_notebook: Run, page: Page, session: Path) -> None:
    notebook = run_notebook(OPENED.replace("\napp\n", "\napp.open_session('saved')\napp\n"), "6 * 7")
    go_to(page, "3 Edit")
    press(page, "Advanced")
    fill(page, "unlearn steps", "9000")
    held = notebook.ask("app.editor.edit.id")
    press(page, "Run")
    expect(panel(page).locator(".widget-tab .wb-step-now", has_text="unlearn")).to_be_visible(timeout=120_000)
    last = page.locator(".jp-InputArea-prompt").last
    expect(last).to_have_text("[2]:")
    last.click()
    notebook.command("notebook:run-cell")  # the notebook answers while the fit runs
    expect(last).to_have_text("[3]:")
    assert notebook.ask("app.editor.running") is True
    notebook.execute("app.chooser.fact = 'spain-capital'")
    line = panel(page).locator(".wb-row.wb-running")
    expect(line).to_contain_text("France: Paris → ")
    expect(line.locator(".wb-step-now")).to_contain_text("unlearn")
    sees(page, "An edit of France is running")
    expect(button(page, "Run")).to_be_disabled()
    assert notebook.ask("[app.fact.id, app.editor.running, app.editor.edit]") == ["spain-capital", False, None]
    press(page, "Show it")
    assert notebook.ask("[app.fact.id, app.editor.running]") == ["france-capital", True]
    press(page, "Cancel edit")
    sees(page, "Cancelled in stage 'unlearn'")
    sees(page, "cancelled after")
    assert notebook.ask("[app.editor.job.state, app.editor.edit.id, app.editor.error, app.chooser.fact.id]") == [
        "cancelled", held, None, "france-capital",
    ], "the edit of before is still there"  # fmt: skip
    expect(line).to_be_hidden()
    sees(page, "The run after it was cancelled: these results are kept.")
    sees(page, "steps 9,000 + 1 steps, was 1 + 1 steps")
    expect(button(page, "Run")).to_be_enabled()
