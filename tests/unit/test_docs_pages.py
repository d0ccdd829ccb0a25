"""What the pages of the docs state of the code, and where they lead, is so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest

import workbench as wb
from tests.helpers.doc_pages import DOCS, name_of, pages, unwrapped
from workbench.editing.selector import MORE_NEURONS, NEURONS
from workbench.files.checked_json import VERSIONS
from workbench.probing.table import PROBES
from workbench.tracing.attribution import Method
from workbench.types.rates import RATES

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def rows_of(text: str) -> list[list[str]]:
    """The cells of every row of the tables in a text, without heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the site makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_to_pages_and_headings_that_are_there(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", place):
            continue
        target = (page.parent / place).resolve() if place else page
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_reader_of_headings_itself(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n## `code` and, words\n\n```\n# no heading\n```\n", encoding="utf-8")
    assert anchors(page) == {"title", "code-and-words"}


def test_the_table_of_intervals_is_the_one_that_was_simulated() -> None:
    simulated = json.loads((DOCS.parent / "benchmarks/results/intervals.json").read_text(encoding="utf-8"))
    assert simulated["table"] in text_of("concepts/evaluation.md"), "python -m benchmarks.intervals prints it"
    assert min(cell["score"] for cell in simulated["cells"]) > 0.9


def test_every_kind_of_file_has_its_version_and_all_versions_before() -> None:
    text = text_of("reference/file-formats.md")
    kinds = {row[0].strip("`"): int(row[-1]) for row in rows_of(text) if row[0].startswith("`workbench-")}
    assert kinds == VERSIONS
    for kind, version in VERSIONS.items():
        part = text.partition(f"\n### `{kind}`\n")[2].partition("\n#")[0]
        numbers = [row[0] for row in rows_of(part) if row[0].isdigit()]
        assert numbers == [str(n) for n in range(1, version + 1)], kind


def test_every_probe_and_rate_and_recipe_is_named() -> None:
    probes = {row[0].strip("`") for row in rows_of(text_of("concepts/soft-forgetting.md"))}
    assert set(PROBES) <= probes
    evaluation = set(re.findall(r"`(\w+)`", text_of("concepts/evaluation.md")))
    assert set(RATES) <= evaluation
    edits = set(re.findall(r'`"([\w-]+)"`', text_of("concepts/edits.md")))
    assert set(wb.recipes.RECIPES) <= edits
    tracing = set(re.findall(r'`"([\w-]+)"`', text_of("concepts/tracing.md")))
    assert set(get_args(Method)) <= tracing


def test_the_defaults_in_words_are_those_of_the_code() -> None:
    text = unwrapped(text_of("concepts/edits.md"))
    recipe = wb.Recipe()
    words = {10: "ten", 12: "twelve"}
    for said in (
        f"the {NEURONS:,} MLP neurons whose gates move",
        f"{MORE_NEURONS:,} neurons, and the last stage twice as long",
        f"{words[recipe.stage_steps[0]]} steps of the first stage and {recipe.stage_steps[1]} of the second",
        f"its last {words[recipe.average]} steps",
        f"a probability of {recipe.hinge} per token (`hinge`)",
        f"a probability of {recipe.draw_back} per token",
        f"+ {recipe.retain_weight:g} × KL(base || edited)",
        f"up to {recipe.retain_size} facts with the role `retain`",
    ):
        assert said in text, said


def test_the_glossary_is_in_order() -> None:
    terms = re.findall(r"^## (.+)$", text_of("reference/glossary.md"), re.MULTILINE)
    assert terms == sorted(terms, key=str.casefold) and len(set(terms)) == len(terms)
