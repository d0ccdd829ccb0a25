"""``workbench demo`` to its end, on a tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.demos import demo_model
from tests.helpers.paced import paced
from tests.helpers.tiny_facts import capitals
from workbench import cli, demo
from workbench.models.load import LoadedModel
from workbench.plots.report_sections import Loop
from workbench.types import StageName, Step

FACTS = capitals()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LoadedModel:
    """A tiny model that knows five capitals, which the demo loads; its edit is a short one."""
    return demo_model(monkeypatch, tmp_path, FACTS, lambda recipe: ("L1MLP", wb.Recipe(steps=2, seed=recipe.seed)))


def run(tmp_path: Path, *options: str) -> tuple[Path, dict[str, Any]]:
    """Run the demo; returns its folder and its JSON report."""
    out = tmp_path / "out" / "deeper"
    assert cli.main(["demo", "--out", str(out), "--seed", "3", *options]) == 0
    return out, json.loads((out / "report.json").read_text(encoding="utf-8"))


def groups(summary: dict[str, Any]) -> set[str]:
    return {row["group"] for row in summary["report"]["rows"]}


def test_the_demo(model: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, summary = run(tmp_path, "--max-controls", "1")
    printed, told = capsys.readouterr()
    assert re.search(r"controls still right +1\.00 by definition \(n=1\) +1\.00 \[\S+ \S+\] \(n=1\)", printed)
    assert "Where is the capital of France?" in printed, "the held-out question with its answers"
    sample = (
        "Controls: 1 of 2 known test facts, drawn by seed. Left out in this short form: the stage unlearn, all but two "
        "of the training questions, reversed and two-hop questions, ordinary text (--full asks all of it)."
    )
    assert sample in printed and summary["sample"] == sample
    last = printed.splitlines()[-1]
    assert last.startswith("Next:") and str(out / "report.html") in last
    assert [line[:5] for line in told.splitlines()] == [f"[{n}/6]" for n in range(1, 7)]
    edit = wb.load_edit(out / "edit")
    assert edit.base_fingerprint == model.fingerprint and edit.stage_names == ("unlearn", "learn")
    assert summary["fact"]["id"] == "france-capital"
    assert groups(summary) == {"train", "heldout", "cloze", "control", "neighbour"}
    assert summary["report"]["stages"] == ["base", "learn"]
    assert list(summary["seconds"]) == ["trace", "attribute", "select", "fit", "evaluate", "report"]


def test_the_whole_demo(model: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, summary = run(tmp_path, "--full")
    assert summary["report"]["stages"] == ["base", "unlearn", "learn"]
    assert groups(summary) >= {"train", "heldout", "cloze", "control", "neighbour", "reversed"}
    assert summary["report"]["texts"] and summary["sample"] == "Controls: all 2 known test facts."
    n_train = len({row["prompt"] for row in summary["report"]["rows"] if row["group"] == "train"})
    assert n_train == len(FACTS["france-capital"].training_questions)
    assert "ordinary text" in capsys.readouterr().out


def test_what_the_short_form_asks() -> None:
    fact = wb.load_facts()["france-capital"]
    short, whole = demo.Asked.of(None, False), demo.Asked.of(None, True)
    assert whole.fact(fact) is fact and len(fact.training_questions) == 10
    trimmed = short.fact(fact)
    assert trimmed.training_questions == fact.training_questions[:2] and trimmed.heldout == fact.heldout
    assert trimmed.id == fact.id and trimmed.cloze_paraphrases == fact.cloze_paraphrases
    assert (short.max_controls, whole.max_controls) == (demo.CONTROLS, None)
    assert demo.Asked.of(7, True).max_controls == demo.Asked.of(7, False).max_controls == 7


def test_the_page(model: LoadedModel, tmp_path: Path) -> None:
    out, summary = run(tmp_path, "--max-controls", "1")
    html = (out / "report.html").read_text(encoding="utf-8")
    for title in ("Where it is", "The edit", "What it did", "The same in Python", summary["sample"]):
        assert title in html
    figures = re.findall(r'id="figure-\d+-data"', html)
    assert len(figures) == 7, "trace, heads, MLPs, neurons, fit, probabilities, rates"


@pytest.mark.parametrize("options", [["--max-controls", "1"], [], ["--full"]])
def test_the_code_of_the_page_repeats_its_numbers(
    options: list[str], model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Loop] = []
    monkeypatch.setattr(demo, "write_loop_page", lambda loop, path: shown.append(loop))
    run(tmp_path, *options)
    names: dict[str, Any] = {}
    exec(shown[0].code, names)
    assert names["report"].rows == shown[0].report.rows
    assert names["report"].texts == shown[0].report.texts
    assert dict(names["probabilities"]) == dict(shown[0].probabilities)


def test_a_folder_that_cannot_be_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "load_model", lambda: pytest.fail("the model was loaded"))
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--out", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err


def test_a_second_fit_comes_on_top() -> None:
    pace, clock, screen = paced()
    recipe = wb.Recipe(steps=(2, 6))
    follow = demo._FollowedFit(pace, recipe)
    for name in ("trace", "attribute", "select"):
        pace.begin(name)
        clock.now += 1.0
    stages: tuple[tuple[StageName, int], ...] = (("unlearn", 2), ("learn", 6))
    for stage, steps in stages:
        for step in range(steps + 1):
            follow(Step(stage, step, 1.0, 0.0))
            clock.now += 1.0
    total = sum(pace.lengths.values())
    assert "again" not in screen.line
    follow(Step("unlearn", 0, 1.0, 0.0))
    assert sum(pace.lengths.values()) == total + 8.0 * (2 + 12) / 8
    assert screen.line.startswith("[5/7] the first fit did not teach it: once more, harder")
    clock.now += 1.0
    follow(Step("learn", 12, 1.0, 0.0))
    assert "learn, step 12 of 12" in screen.line
