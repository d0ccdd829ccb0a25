"""Every ``python`` block of the docs runs, page by page, as a reader would run it from top to bottom.

In the place of the bundled model and facts stand a tiny model and the five capitals that it knows
(``tests.helpers.examples``), put in at the lowest level, so that ``wb.load_model()`` and ``wb.load_facts()`` themselves
run. The default selector takes twenty neurons, for the tiny model has 168, and a stage of a fit ends after two steps
without a second fit: what an edit teaches is tested elsewhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.doc_pages import DOCS, Block, blocks_of, name_of, pages
from tests.helpers.examples import Names
from workbench.editing.methods import ia3
from workbench.editing.selector import default_selection
from workbench.facts import known
from workbench.models import sources
from workbench.types import TrainedRecipe
from workbench.widgets.shared.panel import Panel

NEURONS, STEPS = 20, 2
SECONDS_TO_WAIT = 60

BLOCKS = {name_of(page): list(blocks_of(page)) for page in pages()}
WITH_CODE = {page: blocks for page, blocks in BLOCKS.items() if any(b.language == "python" for b in blocks)}


@pytest.fixture(scope="module")
def names() -> Names:
    return Names()


@pytest.fixture
def stand_ins(names: Names, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A tiny model and five facts in the place of the bundled ones. Returns the current folder, which is empty."""
    defaults = inspect.unwrap(default_selection).__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "k", NEURONS)
    steps = TrainedRecipe.stage_steps.fget
    assert steps is not None
    monkeypatch.setattr(
        TrainedRecipe, "stage_steps", property(lambda recipe: tuple(min(n, STEPS) for n in steps(recipe)))
    )
    monkeypatch.setattr(ia3, "MORE_NEURONS", 0)
    monkeypatch.setattr(known, "_bundled_facts", lambda: names.facts)
    monkeypatch.setattr(sources, "bundled_file", lambda: tmp_path / "tiny.gguf")
    monkeypatch.setattr(sources, "load_gguf", lambda *_: (names.model.hf, names.model.tokenizer))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def my_model(here: Path) -> None:
    """The folder that the page on a model of one's own loads."""
    wb.export_base(here / "my-model", wb.load_model())


BEFORE: dict[str, Callable[[Path], None]] = {"how-to/own-model.md": my_model}
"""What a page needs to be there."""


def run(blocks: list[Block], namespace: dict[str, Any]) -> None:
    """Run blocks one after the other; an error names the page and the line."""
    for block in blocks:
        # Empty lines before it, so that a traceback has the page's own line numbers.
        code = compile("\n" * (block.line - 1) + block.text, str(DOCS / block.page), "exec")
        exec(code, namespace)


def finished(namespace: dict[str, Any]) -> None:
    """Wait until the panels of a page have computed what they compute by themselves; their errors are raised."""
    for value in namespace.values():
        job: Any = getattr(value, "job", None) if isinstance(value, Panel) else None
        if job is not None:
            job.wait(SECONDS_TO_WAIT)


@pytest.mark.parametrize("page", [page for page in WITH_CODE if not page.startswith("development/")])
def test_the_code_of_a_page_runs(page: str, stand_ins: Path) -> None:
    for block in WITH_CODE[page]:
        if block.file:
            (stand_ins / block.file).write_text(block.text, encoding="utf-8")
    BEFORE.get(page, lambda _: None)(stand_ins)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    run([b for b in WITH_CODE[page] if b.language == "python" and not b.file], namespace)
    finished(namespace)


def test_every_how_to_begins_with_the_cell_that_one_wants() -> None:
    for page in pages("how-to"):
        after_the_title = page.read_text(encoding="utf-8").partition("\n\n")[2]
        assert after_the_title.startswith("```python\n"), name_of(page)


def test_what_is_prepared_belongs_to_a_page() -> None:
    assert set(BEFORE) <= set(WITH_CODE)


def test_the_reader_of_blocks_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = DOCS / "how-to" / "own-fact.md"
    blocks = list(blocks_of(page))
    lines = page.read_text(encoding="utf-8").splitlines()
    assert blocks[0].language == "python" and blocks[0].text.splitlines()[0] == lines[blocks[0].line - 1]
    assert [b.file for b in blocks if b.file] == ["my-facts.jsonl"]


def test_an_error_in_a_block_is_seen() -> None:
    block = Block("how-to/own-fact.md", 7, "python", "x = 1\nraise KeyError('seen')\n")
    with pytest.raises(KeyError, match="seen") as caught:
        run([block], {})
    assert caught.traceback[-1].lineno + 1 == 8
