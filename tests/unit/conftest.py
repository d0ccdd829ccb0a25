"""Fixtures of several unit test files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripted import Script, put_script


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Script:
    """Answers from a table, which a test may change."""
    return put_script(monkeypatch, tmp_path)
