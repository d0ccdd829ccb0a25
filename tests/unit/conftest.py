"""Fixtures of several unit test files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.scripted import Script, put_script, tiny


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Script]:
    """Answers from a table, which a test may change before it asks."""
    yield put_script(monkeypatch, tmp_path)
    tiny().cache.clear()
