"""``workbench demo`` to its end, on a tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, knowing
from workbench import cli, demo

FACTS = capitals()


def test_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    model = knowing(tiny_llama(tied=False), FACTS)

    def short(model: Any, fact: Any, *, recipe: wb.Recipe) -> wb.Edit:
        assert recipe.seed == 3
        return wb.rewrite(model, fact, "L1MLP", recipe=wb.Recipe(steps=2, seed=recipe.seed), progress=False)

    monkeypatch.setattr("workbench.facts.known._bundled_facts", lambda: FACTS)
    monkeypatch.setattr(demo, "load_model", lambda: model)
    monkeypatch.setattr(demo, "rewrite", short)
    out = tmp_path / "out" / "deeper"
    assert cli.main(["demo", "--out", str(out), "--max-controls", "2", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"controls still right +1\.00 \[\S+ \S+\] \(n=2\)", printed)
    assert "Where is the capital of France?" in printed, "the held-out question with its answers"
    edit = wb.load_edit(out / "edit")
    assert edit.base_fingerprint == model.fingerprint
    summary = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert summary["fact"]["id"] == "france-capital"
    assert {row["group"] for row in summary["report"]["rows"]} >= {"heldout", "control", "neighbour", "reversed"}
    html = (out / "report.html").read_text(encoding="utf-8")
    for title in ("Where it is", "The edit", "What it did", "The same in Python"):
        assert title in html
    figures = re.findall(r'id="figure-\d+-data"', html)
    assert len(figures) == 7, "trace, heads, MLPs, neurons, fit, probabilities, rates"
    assert "seed=3" in html and "max_controls=2" in html, "the code repeats this run"


def test_a_folder_that_cannot_be_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "load_model", lambda: pytest.fail("the model was loaded"))
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--out", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err
