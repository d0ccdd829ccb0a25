"""Shared set-up: nothing here reaches a network, and a missing prerequisite fails with the line that mends it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from jaxtyping import install_import_hook

# Helpers that assert show the values they compared, as test files do.
pytest.register_assert_rewrite("tests.helpers.benches", "tests.helpers.pickers", "tests.helpers.small_fits")

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# The same examples every time, and no failure because the machine was busy.
hypothesis.settings.register_profile("workbench", deadline=None, derandomize=True)
hypothesis.settings.load_profile("workbench")

# Shapes and types of the modules that annotate shapes are checked at every call in the tests.
PACKAGE = Path(__file__).parents[1] / "workbench"
SHAPED = [
    ".".join(("workbench", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in sorted(PACKAGE.rglob("*.py"))
    if "from jaxtyping import" in path.read_text(encoding="utf-8")
]
if SHAPED:
    install_import_hook(SHAPED, "beartype.beartype")

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def model() -> Any:
    """The bundled model. Converted at first use, then cached for every later run."""
    import workbench

    try:
        return workbench.load_model()
    except FileNotFoundError as error:
        pytest.fail(f"{error}\nOr: make env", pytrace=False)


@pytest.fixture(scope="session")
def facts() -> Any:
    """The bundled facts."""
    import workbench

    return workbench.load_facts()


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Path of Chromium; `pytest_runtest_setup` has made sure that a test marked ``browser`` gets here only with one."""
    return CHROMIUM if CHROMIUM.exists() else Path(shutil.which("chromium") or CHROMIUM)


@pytest.fixture(scope="session")
def browser(chromium: Path) -> Iterator[Any]:
    """One headless Chromium for all tests: playwright's event loop lives in this thread, so there can be only one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=CHROMIUM_ARGS)
        yield browser
        browser.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without Chromium, skip browser tests, or fail them where WORKBENCH_REQUIRE_BROWSER=1."""
    if item.get_closest_marker("browser") is None or CHROMIUM.exists() or shutil.which("chromium"):
        return
    reason = "Chromium is missing. Install it with: apt-get install chromium"
    if os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
