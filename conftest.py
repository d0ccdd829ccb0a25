"""What every run of pytest shares, of tests, notebooks, or both: threads, the order of files, what nbval compares.

Several workers (``-n 2``) share the processor: each of them, and what it starts (kernels, JupyterLab, scripts), takes
its part of it. Whole files go to a worker (``--dist loadfile``), in the order that they are collected in: the longest
first, or one of them would run alone at the end.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:  # before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))

SECONDS = Path(__file__).parent / "tests" / "seconds.json"
"""How long the long files take: by which they are ordered, and nothing else. Written by ``--write-seconds``."""
LONG = 5  # seconds; shorter files are not listed

# Kept in the notebooks, not compared: pictures carry unrounded numbers (the tables beside them are compared), and
# warnings on stderr name paths.
NOT_COMPARED = ("application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-state+json", "stderr")


def pytest_addoption(parser: pytest.Parser) -> None:
    """An option that measures anew what the order of files is by."""
    parser.addoption("--write-seconds", action="store_true", help=f"write how long files took to {SECONDS.name}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and tell nbval what not to compare."""
    seconds = json.loads(SECONDS.read_text(encoding="utf-8"))
    items.sort(key=lambda item: -seconds.get(item.nodeid.partition("::")[0], 0))
    for item in items:
        notebook: Any = item.parent
        if notebook is not None and hasattr(notebook, "skip_compare"):
            notebook.skip_compare = tuple(dict.fromkeys((*notebook.skip_compare, *NOT_COMPARED)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write how long each file took, where that was asked for."""
    if not config.getoption("--write-seconds"):
        return
    took: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                took[report.nodeid.partition("::")[0]] += report.duration
    ordered = sorted(took.items(), key=lambda one: -one[1])
    long = {file: round(time) for file, time in ordered if time >= LONG}
    SECONDS.write_text(json.dumps(long, indent=2) + "\n", encoding="utf-8")
