"""The first tab: a fact that is searched, one that somebody writes, another target, and how the prompt is read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Notebook
from tests.browser.mutants import Mutant, survivors
from tests.browser.test_picker import BAD
from tests.browser.test_workbench import FACTS, OPENED, fill, panel, press, sees, violations
from workbench.plots.style import visible

pytestmark = [pytest.mark.browser, pytest.mark.model]

Run = Callable[..., Notebook]
CHOOSER = f"""{FACTS}
app = wb.FactChooser(model, facts, value="germany-capital")
app.on_go(lambda chooser, where: setattr(app, "went", where))
app
"""


def heading(page: Page, words: str) -> None:
    """The heading of the chosen fact."""
    expect(panel(page).get_by_role("heading", name=words).locator("visible=true")).to_have_count(1)


def type_in(page: Page, label: str, text: str, then: str = "Enter") -> None:
    """Type into a field, letter by letter, and press a key there."""
    field = panel(page).get_by_label(label, exact=True).locator("visible=true")
    field.fill("")
    field.press_sequentially(text)
    field.press(then)


def searched(page: Page, notebook: Notebook) -> None:
    for name in ("Germany", "Italy"):
        type_in(page, "Search", f"capital {name}")
        heading(page, f"The capital of {name} is")
        notebook.wait_for("app.fact.id", f"{name.lower()}-capital")
    type_in(page, "Search", "", "Tab")


def written(page: Page, notebook: Notebook) -> None:
    """Each field at its place while one is missing; then Enter, and a subject to swap with that was suggested."""
    notebook.execute("app.show(facts['germany-capital'])")
    press(page, "My fact")
    texts = {"Subject": "Spain", "Prompt": "The capital of Spain is", "Question": "What is the capital of Spain?"}
    for label, text in texts.items():
        type_in(page, label, text, "Tab")
    type_in(page, "Answer", "Madrid")
    note = panel(page).locator(".wb-fieldnote").locator("visible=true")
    expect(note).to_have_text("The target is empty. Write one.")
    swap = panel(page).get_by_label("Swap with", exact=True)
    expect(swap).to_have_value("France")
    type_in(page, "Target", "Lisbon")
    heading(page, "The capital of Spain is Madrid")
    expect(note).to_have_count(0)
    expect(panel(page).get_by_label("Its answer", exact=True)).to_have_value("Paris")
    held = "[app.fact.target, app.partner and app.partner.subject, app.partner and app.partner.answer]"
    notebook.wait_for(held, ["Lisbon", "France", "Paris"])


def changed(page: Page, notebook: Notebook) -> None:
    notebook.execute("app.fact = 'france-capital'")
    press(page, "change")
    type_in(page, "New target", "Berlin")
    expect(panel(page).get_by_text("Edit target: Berlin")).to_be_visible()
    notebook.wait_for("[app.fact.id, app.fact.target]", ["france-capital-to-berlin", "Berlin"])


def read_raw(page: Page, notebook: Notebook) -> None:
    notebook.execute("app.fact = 'germany-capital'\napp.fact = 'france-capital'\napp.form = None\napp.job.wait()")
    chip = panel(page).locator(".wb-chip").first
    expect(chip.locator("summary")).to_have_text("system + user template (24)")
    expect(chip.locator("li").first).to_be_hidden()
    chip.locator("summary").click()
    expect(chip.locator("li").first).to_be_visible()
    press(page, "Raw prompt")
    expect(panel(page).locator(".wb-chip")).to_have_count(0)
    expect(panel(page).locator(".wb-tokens li")).to_have_text(["The", "·capital", "·of", "·France", "·is", "·Paris"])
    notebook.wait_for("[app.form, app.prompt and app.prompt.form]", ["cloze", "cloze"])


def gone_on(page: Page, notebook: Notebook) -> None:
    notebook.execute("app.went = None")
    press(page, "Where does it live\\?")
    notebook.wait_for("app.went", "picker")


def test_a_fact_of_ones_own(run_notebook: Run, page: Page) -> None:
    """Written into the form: refused with the reason while a part is missing, then chosen, with its tokens."""
    notebook = run_notebook(OPENED)
    held = "[app.chooser.fact.{}]".format(", app.chooser.fact.".join(("subject", "prompt", "answer", "target")))
    before = notebook.ask(held)
    press(page, "My fact")
    texts = {"Subject": "Japan", "Prompt": "The capital of Japan is", "Answer": "Tokyo", "Target": BAD}
    for label, value in list(texts.items())[:3]:
        fill(page, label, value)
    press(page, "Use this fact")
    expect(panel(page).get_by_role("alert").locator("visible=true")).to_have_text("The target is empty. Write one.")
    assert notebook.ask(held) == before and notebook.ask("type(app.chooser.error).__name__") == "FactError"

    fill(page, "Target", BAD)
    press(page, "Use this fact")
    heading(page, "The capital of Japan is Tokyo")
    sees(page, f"Edit target: {BAD}")
    sees(page, "Question: Complete the sentence: The capital of Japan is · ? not asked")
    sees(page, "Traced token: ·Tokyo")
    assert notebook.ask(held) == list(texts.values())
    assert notebook.ask("[app.chooser.error, app.picker.fact == app.chooser.fact == app.editor.fact]") == [None, True]
    tokens = notebook.ask("[*app.chooser.prompt.tokens, app.chooser.prompt.answer_token]")
    shown = panel(page).locator(".wb-tokens li:not(.wb-chip)").locator("visible=true")
    notebook.execute("from workbench.language.template import chat_text")
    template = notebook.ask("[len(model.token_ids(part)) for part in chat_text(model, 'QUESTION').split('QUESTION')]")
    expect(shown).to_have_count(len(tokens) - sum(template))
    subject = [tokens[i] for i in notebook.ask("app.chooser.prompt.subject")]
    assert set("".join(subject).split()) == {"Japan"}  # in the question, and where the model repeats it
    expect(panel(page).locator(".wb-tokens .wb-subject")).to_have_text([visible(token) for token in subject])
    expect(panel(page).locator(".wb-tokens .wb-traced")).to_have_text([visible(" Tokyo")])
    assert page.locator(".wb-panel img").count() == 0  # a dialog or a request for x would fail the test as well
    assert not violations(page)


def test_what_is_done_in_the_first_tab_and_that_its_assertions_can_fail(run_notebook: Run, page: Page) -> None:
    notebook = run_notebook(CHOOSER)
    assert not violations(page)
    mutants = [
        Mutant(
            "Enter",
            searched,
            "app._list._search.on_enter(lambda: None)",
            "app._list._search.on_enter(app._list._take_first)",
        ),
        Mutant(
            "a suggested subject",
            written,
            "app._own.form.suggest = lambda *given: None",
            "del app._own.form.suggest",
        ),
        Mutant("the fields' notes", written, "app._own.form.tell = lambda problems: None", "del app._own.form.tell"),
        Mutant(
            "another target",
            changed,
            "app._preview._on_target = lambda text: ''",
            "app._preview._on_target = app._change_target",
        ),
        Mutant(
            "the form",
            read_raw,
            "app._preview.switch._on_choose = lambda form: None",
            "app._preview.switch._on_choose = app._form_chosen",
        ),
        Mutant("the button that goes on", gone_on, "app._go_callbacks.clear()"),
    ]
    assert survivors(page, notebook, mutants, "connection.js", ["app.children[0]"], ".wb-panel") == []
