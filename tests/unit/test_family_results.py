"""The table of families in the docs is what the suite of families wrote, and that is of today's families and checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from docsite.family_results import RESULTS, family_results
from tests.helpers.families import TINY
from tests.helpers.family_checks import CHECKS
from workbench.models.family_table import FAMILIES, REFUSED

AGAIN = "run `python -m benchmarks.families`"


def test_the_results_are_of_these_families_and_checks() -> None:
    data = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert data["checks"] == CHECKS, AGAIN
    assert data["families"] == {family.name: list(family.classes) for family in FAMILIES}, AGAIN
    assert data["refused"] == dict(REFUSED), AGAIN
    assert {name: (m["family"], m["plain"]) for name, m in data["models"].items()} == {
        name: (tiny.family, tiny.plain) for name, tiny in TINY.items()
    }, AGAIN
    for name, tiny in TINY.items():
        assert data["models"][name]["options"] == json.loads(json.dumps(dict(tiny.options))), AGAIN
        cells = data["models"][name]["results"]
        assert cells.keys() == CHECKS.keys(), f"{name}: {AGAIN}"
        assert {cell["outcome"] for cell in cells.values()} <= {"passed", "refused"}, name
        assert all(cell.get("reason") for cell in cells.values() if cell["outcome"] == "refused"), name
    assert {"python", "torch", "transformers", "peft"} <= data["versions"].keys()


def test_the_table_has_a_row_for_each_family() -> None:
    table = family_results()
    for family in FAMILIES:
        (row,) = [line for line in table.splitlines() if line.startswith(f"| **{family.name}**")]
        assert all(f"`{name}`" in row for name in family.classes)
        assert row.count("|") == len(CHECKS) + 3
    assert all(f"| `{name}` | {reason} |" in table for name, reason in REFUSED.items())
    mixture = next(line for line in table.splitlines() if line.startswith("| **Mixtral**"))
    assert "yes <sup>" in mixture and "mixture of experts" in table


def test_no_table_is_made_of_a_failure(tmp_path: Path) -> None:
    data = json.loads(RESULTS.read_text(encoding="utf-8"))
    data["models"]["gpt2"]["results"]["trace"] = {"outcome": "failed"}
    path = tmp_path / "families.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match=r"'trace' of the tiny model 'gpt2' is 'failed'.*benchmarks.families"):
        family_results(path)
    del data["models"]["gpt2"]["results"]["trace"]
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match="not run"):
        family_results(path)
