"""Fixtures of several unit test files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.scripted import Script, put_script
from workbench.editing.training import sensitivity, word_ends
from workbench.evaluation import answering
from workbench.language import generation


@pytest.fixture(autouse=True)
def nothing_said_before() -> None:
    """The tiny models are made once and answer from another table in each test: what they said is forgotten."""
    for notes in (generation._SAID, answering._NLL, word_ends._P_END, sensitivity._LATEST):
        notes.clear()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Script:
    """Answers from a table, which a test may change."""
    return put_script(monkeypatch, tmp_path)
