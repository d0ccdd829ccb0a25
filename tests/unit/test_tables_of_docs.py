"""The tables of the docs: what stands between their marks is what the results on file say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.lib.code import Code
from benchmarks.lib.rates import vars_of
from benchmarks.lib.store import Line
from workbench.types.intervals import mean_over, share, wilson

ROOT = Path(__file__).parents[2]


def edit(method: str, fact: str, new: int) -> Line:
    result = {
        "fact": fact,
        "rates": {"learn": {"new": vars_of(wilson(new, 10)), "control": vars_of(wilson(57, 60))}},
        "counterfact": {"efficacy": vars_of(wilson(1, 1))},
        "answers": [
            {
                **{"fact_id": fact, "relation": "r", "group": "heldout", "stage": stage, "form": "chat"},
                **{"prompt": f"Q{i}?", "text": "", "label": label, "nll": 1.0},
            }
            for i in range(10)
            for stage, label in (("base", "old" if i < 8 else "other"), ("learn", "new" if i < new else "old"))
        ],
        "probes": {},
        "seconds": 10.0 * new,
        "numbers": 2000,
    }
    settings = {"method": method, "probes": False}
    return Line(f"{method}-{fact}", settings, Code(None, None, None), result)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> dict[str, Line]:
    edits = [edit("ia3", "a", 10), edit("ia3", "b", 5), edit("ia3", "z", 0), edit("rome", "b", 9), edit("rome", "z", 0)]
    draw = Line(tables.DRAW, {}, Code(None, None, None), {"facts": ["b", "a"]})
    found = {line.name: line for line in [*edits, draw]}
    monkeypatch.setattr(tables, "_lines", lambda _: found)
    return found


@pytest.mark.usefixtures("lines")
def test_single_edits_are_of_the_same_facts_of_the_draw() -> None:
    """Of two facts of the draw both methods have one; a fact of another draw is not counted."""
    both = tables.singles("ia3", "rome")
    assert both.splitlines()[0] == "| 1 facts each | wanted | `ia3` | `rome` |"
    assert "| new answer, held-out questions | at least 0.95 | 0.50 | 0.90 |" in both
    alone = tables.singles("ia3")
    assert alone.startswith("| 2 facts each |") and "| at least 0.95 | 0.75 [" in alone
    assert "| seconds, on one thread of a busy machine | 75 |" in tables.counts("ia3")
    with pytest.raises(ValueError, match="No fact has single edits of all of ia3, lora on file"):
        tables.singles("ia3", "lora")


@pytest.mark.usefixtures("lines")
def test_the_worst_fact_and_new_answers_by_what_the_base_knew() -> None:
    table = tables.worst_facts("ia3")
    assert table.startswith("| 2 facts each | wanted | `ia3` | worst |") and "| 0.50 |" in table.splitlines()[2]
    assert "to which the base gives the old answer |  | 0.81 [" in table and table.splitlines()[3].endswith(
        "(n=16) |  |"
    )
    assert "to which it does not |  | 0.50 [" in table and "(n=4)" in table.splitlines()[4]


def test_a_rate_that_some_edits_lack_says_of_how_many_facts_it_is(lines: dict[str, Line]) -> None:
    for fact, value in (("a", wilson(9, 10)), ("b", share([]))):
        lines[f"ia3-{fact}"].result["rates"]["learn"]["neighbour"] = vars_of(value)
    lines["ia3-a"].result["rates"]["learn"]["text_nll_change"] = vars_of(mean_over({"a": [-0.001]}))
    table = tables.worst_facts("ia3")
    assert "| neighbours still right | at least 0.90 | 0.90 (n = 1) | 0.90 |" in table
    assert "| ordinary text: NLL above the base's | at most 0.01 | 0.00 (n = 1) | 0.00 |" in table
    assert "nan" not in table and "n/a" not in table


def test_edits_of_another_draw(lines: dict[str, Line]) -> None:
    lines["drawn-test-20-7"] = Line("drawn-test-20-7", {}, Code(None, None, None), {"facts": ["z", "b"]})
    assert tables.singles("rome", "of=7").startswith("| 2 facts each | wanted | `rome` |")
    assert "| at least 0.95 | 0.45 [" in tables.singles("rome", "of=7")
    with pytest.raises(ValueError, match=r"No draw 'drawn-test-20-8' is on file; there are \['drawn-test-20-281', "):
        tables.singles("rome", "of=8")


@pytest.mark.usefixtures("lines")
def test_what_stands_between_the_marks_is_replaced_and_nothing_else() -> None:
    page = "Before\n<!-- table: singles rome -->\nold\n<!-- end of table -->\nafter\n"
    filled = tables.filled(page)
    assert filled.startswith("Before\n<!-- table: singles rome -->\n\n| 1 facts each |")
    assert filled.endswith("|\n\n<!-- end of table -->\nafter\n") and "old" not in filled.partition("after")[0][20:60]
    assert tables.filled(filled) == filled
    with pytest.raises(ValueError, match="No table 'simple'; there are singles"):
        tables.filled("<!-- table: simple -->\n<!-- end of table -->")


def test_results_over_several_facts_have_a_column_each(lines: dict[str, Line]) -> None:
    for name, new in (
        ("ia3-batch-test-10", 8),
        ("ia3-sequence-test-50-after-1", 10),
        ("ia3-sequence-test-50-after-10", 4),
    ):
        lines[name] = edit("ia3", name, new)
    assert "| new answer, held-out questions | at least 0.95 | 0.80 " in tables.batches("10", "ia3")
    after = tables.sequences("50", "1,10", "ia3")
    assert after.startswith("|  | wanted | ia3, after 1 | ia3, after 10 |")
    assert "| at least 0.95 | 1.00 [0.72, 1.00] | 0.40 [" in after


@pytest.mark.usefixtures("lines")
def test_check_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table: singles rome -->\n<!-- end of table -->\n", encoding="utf-8")
    monkeypatch.setattr(tables, "pages", lambda: [page])
    with pytest.raises(SystemExit, match=r"page\.md\. Run: python -m benchmarks\.tables"):
        tables.main(["--check"])
    assert "facts each" not in page.read_text(encoding="utf-8")
    tables.main([])
    assert "facts each" in page.read_text(encoding="utf-8")
    tables.main(["--check"])


def _pages() -> list[Any]:
    marked = [page for page in tables.pages(ROOT) if "<!-- table:" in page.read_text(encoding="utf-8")]
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in marked]


@pytest.mark.parametrize("page", _pages())
def test_the_tables_of_a_page_are_what_the_results_say(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = page.read_text(encoding="utf-8")
    assert tables.filled(text) == text, "python -m benchmarks.tables writes them"
