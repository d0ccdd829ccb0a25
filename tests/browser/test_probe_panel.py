"""The probe panel in a real JupyterLab, on the bundled model and the edit that notebook 04 reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Notebook
from tests.browser.test_workbench import button, cut, panel, press, sees, violations

pytestmark = [pytest.mark.browser, pytest.mark.model]

EDIT = Path(__file__).parents[2] / "benchmarks" / "results" / "soft_forgetting" / "france-capital" / "edit"
PANEL = f"""
import workbench as wb
model = wb.load_model()
edit = wb.load_edit({str(EDIT)!r})
control = wb.load_facts()["cuba-capital"]
panel = wb.ProbePanel(model, edit, control=control, probes=("keywords",), max_new_tokens=12)
panel
"""


def test_probes_run_their_texts_are_read_and_a_prompt_is_opened_by_layer(
    run_notebook: Callable[..., Notebook], page: Page
) -> None:
    notebook = run_notebook(PANEL)
    assert notebook.ask("panel.probes") == ["keywords"]
    expect(panel(page).get_by_label("Prompt", exact=True).locator("visible=true")).to_have_count(0)
    press(page, "None")
    notebook.wait_for("panel.probes", [])
    sees(page, "No probe is ticked")
    expect(button(page, "Run")).to_be_disabled()
    panel(page).get_by_label("keyword emphasis").check()
    panel(page).get_by_label("strength of the edit").check()
    notebook.wait_for("panel.probes", ["keywords", "strength"])
    sees(page, "2 probes, ")
    press(page, "Run")
    sees(page, "done after")
    assert notebook.ask("[panel.job.state, list(panel.report.probes)]") == ["done", ["keywords", "strength"]]
    sees(page, "recovered by")
    texts = panel(page).get_by_role("button", name="Texts").locator("visible=true")
    for name, words in (
        ("strength", "strength of the edit, after learn: probability"),
        ("keywords", "what leaving one out takes"),
    ):
        texts.nth(notebook.ask(f"[*panel._table._boxes].index({name!r})")).click()
        sees(page, words)
    expect(texts.first).to_be_disabled()

    # A row's texts side by side
    prompts = panel(page).get_by_label("Prompt", exact=True)
    expect(prompts.locator("option")).to_have_count(notebook.ask("sum(r.stage == 'base' for r in panel.report.rows)"))
    prompts.select_option(index=0)
    asked = notebook.ask("panel.controls['Prompt'].value.prompt")
    said = notebook.ask(f"[r.text for r in panel.report.rows if r.prompt == {asked!r}]")
    table = panel(page).locator("table", has_text=asked).locator("visible=true").first
    assert len(said) == 3
    for text in said:
        expect(table).to_contain_text(" ".join(text.split()))

    # The same prompt by layer
    press(page, "Lens")
    sees(page, f"Layer by layer: {asked}")
    readings = notebook.ask("[[x.stage, x.probabilities['old'][-1]] for x in panel.looking.result]")
    assert [stage for stage, _ in readings] == ["base", "unlearn", "learn"]
    assert readings[0][1] > 0.3 > readings[2][1]
    assert "readings = " in notebook.ask("panel.code")
    assert not cut(page) and not violations(page)
