"""A fact that somebody writes into the form of the workbench."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Notebook
from tests.browser.test_picker import BAD
from tests.browser.test_workbench import OPENED, fill, panel, press, sees, violations
from workbench.plots.style import visible

pytestmark = [pytest.mark.browser, pytest.mark.model]

Run = Callable[..., Notebook]


def test_a_fact_of_ones_own(run_notebook: Run, page: Page) -> None:
    """Written into the form: refused with the reason while a part is missing, then chosen, with its tokens."""
    notebook = run_notebook(OPENED)
    held = "[app.chooser.fact.{}]".format(", app.chooser.fact.".join(("subject", "prompt", "answer", "target")))
    before = notebook.ask(held)
    written = {"Subject": "Japan", "Prompt": "The capital of Japan is", "Answer": "Tokyo", "Target": BAD}
    for label, value in list(written.items())[:3]:
        fill(page, label, value)
    press(page, "Use this fact")
    expect(panel(page).get_by_role("alert").locator("visible=true")).to_contain_text("target")
    assert notebook.ask(held) == before and notebook.ask("type(app.chooser.error).__name__") == "ValueError"

    fill(page, "Target", BAD)
    press(page, "Use this fact")
    heading = panel(page).get_by_role("heading", name="The capital of Japan is Tokyo")
    expect(heading.locator("visible=true")).to_have_count(1)
    sees(page, f"to become {BAD}; asked: Complete the sentence: The capital of Japan is; ? not asked")
    sees(page, "Traced token: ' Tokyo'")
    assert notebook.ask(held) == list(written.values())
    assert notebook.ask("[app.chooser.error, app.picker.fact == app.chooser.fact == app.editor.fact]") == [None, True]
    tokens = notebook.ask("[*app.chooser.prompt.tokens, app.chooser.prompt.answer_token]")
    shown = panel(page).locator(".wb-tokens li").locator("visible=true")
    expect(shown).to_have_text([visible(token) for token in tokens])
    subject = [tokens[i] for i in notebook.ask("app.chooser.prompt.subject")]
    assert set("".join(subject).split()) == {"Japan"}  # in the question, and where the model repeats it
    expect(panel(page).locator(".wb-tokens .wb-subject")).to_have_text([visible(token) for token in subject])
    expect(panel(page).locator(".wb-tokens .wb-traced")).to_have_text([visible(" Tokyo")])
    assert page.locator(".wb-panel img").count() == 0  # a dialog or a request for x would fail the test as well
    assert not violations(page)
