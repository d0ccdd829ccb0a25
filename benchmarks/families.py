"""Run the suite of families and write what came of it, from which the docs make their table.

python -m benchmarks.families [PYTEST OPTIONS]
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.families import TINY
from tests.helpers.family_checks import CHECKS
from workbench.files.atomic import write_bytes
from workbench.models.family_table import FAMILIES, REFUSED

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "reference" / "families.json"
PACKAGES = ("torch", "transformers", "peft", "transformer-lens")


class Collector:
    """A pytest plugin that keeps what came of each check on each tiny model.

    Attributes:
        results: By tiny model and check: ``outcome`` (``"passed"``, ``"refused"`` or ``"failed"``) and, where a part is
            refused, ``without``; where all of it is, ``reason``.
    """

    def __init__(self) -> None:
        self.results: dict[str, dict[str, dict[str, str]]] = {}
        self._cells: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note which test is which cell."""
        for item in items:
            marker, call = item.get_closest_marker("family_check"), getattr(item, "callspec", None)
            if marker is not None and call is not None:
                self._cells[item.nodeid] = str(call.params["name"]), str(marker.args[0])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the outcome of a cell; several tests of one check must all pass."""
        cell = self._cells.get(report.nodeid)
        if cell is None or (report.when != "call" and report.passed):
            return
        name, key = cell
        said: dict[str, Any] = dict(report.user_properties)
        found = {"outcome": "passed" if report.passed else "failed"}
        if report.passed and "refused" in said:
            found = {"outcome": "refused", "reason": str(said["refused"])}
        if report.passed and "without" in said:
            found["without"] = str(said["without"])
        before = self.results.setdefault(name, {}).get(key)
        if before is None or before["outcome"] != "failed":
            self.results[name][key] = found


def document(results: dict[str, dict[str, dict[str, str]]]) -> dict[str, Any]:
    """What the file holds: versions, what each check promises, and by tiny model what came of it."""
    classes = {family.name: list(family.classes) for family in FAMILIES}
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "checks": CHECKS,
        "families": classes,
        "models": {
            name: {
                "family": tiny.family,
                "plain": tiny.plain,
                "options": {key: value for key, value in tiny.options.items()},
                "results": results.get(name, {}),
            }
            for name, tiny in TINY.items()
        },
        "refused": dict(REFUSED),
    }


def main(arguments: Sequence[str] = ()) -> int:
    """Run the suite and write ``docs/reference/families.json``, whole or not at all.

    Args:
        arguments: For pytest.
    """
    collector = Collector()
    options = ["-q", "-p", "no:cacheprovider", "-m", "family_check", *arguments, "tests/conformance"]
    code = int(pytest.main([*options, f"--rootdir={ROOT}"], plugins=[collector]))
    text = json.dumps(document(collector.results), indent=1, ensure_ascii=False)
    write_bytes(RESULTS, f"{text}\n".encode())
    outcomes = [cell["outcome"] for cells in collector.results.values() for cell in cells.values()]
    counts = {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
    print(f"{len(TINY)} tiny models of {len(FAMILIES)} families, {len(CHECKS)} checks: {counts}\n{RESULTS}")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
