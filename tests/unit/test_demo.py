"""``workbench demo`` to its end, on a tiny model."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capitals, knowing
from workbench import cli, demo
from workbench.types import StageName, Step

FACTS = capitals()


def test_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    model = knowing(tiny_llama(tied=False), FACTS)

    def short(model: Any, fact: Any, *, recipe: wb.Recipe, on_step: Any, progress: bool) -> wb.Edit:
        assert recipe.seed == 3 and not progress, "the demo has a line of its own"
        quick = wb.Recipe(steps=2, seed=recipe.seed)
        return wb.rewrite(model, fact, "L1MLP", recipe=quick, on_step=on_step, progress=False)

    monkeypatch.setattr("workbench.facts.known._bundled_facts", lambda: FACTS)
    monkeypatch.setattr(demo, "load_model", lambda: model)
    monkeypatch.setattr(demo, "rewrite", short)
    out = tmp_path / "out" / "deeper"
    assert cli.main(["demo", "--out", str(out), "--max-controls", "1", "--seed", "3"]) == 0
    printed, told = capsys.readouterr()
    assert re.search(r"controls still right +1\.00 \[\S+ \S+\] \(n=1\)", printed)
    assert "Where is the capital of France?" in printed, "the held-out question with its answers"
    assert "Controls: 1 of the 2 known test facts, drawn by seed." in printed
    last = printed.splitlines()[-1]
    assert last.startswith("Next:") and str(out / "report.html") in last
    assert [line[:5] for line in told.splitlines() if "again" not in line] == [f"[{n}/6]" for n in range(1, 7)]
    edit = wb.load_edit(out / "edit")
    assert edit.base_fingerprint == model.fingerprint
    summary = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert summary["fact"]["id"] == "france-capital"
    assert {row["group"] for row in summary["report"]["rows"]} >= {"heldout", "control", "neighbour", "reversed"}
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "Controls: 1 of the 2 known test facts, drawn by seed." in html and summary["sample"] in html
    assert list(summary["seconds"]) == ["trace", "attribute", "select", "fit", "evaluate", "report"]
    for title in ("Where it is", "The edit", "What it did", "The same in Python"):
        assert title in html
    figures = re.findall(r'id="figure-\d+-data"', html)
    assert len(figures) == 7, "trace, heads, MLPs, neurons, fit, probabilities, rates"
    assert "seed=3" in html and "max_controls=1" in html, "the code repeats this run"


def test_a_folder_that_cannot_be_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "load_model", lambda: pytest.fail("the model was loaded"))
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--out", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err


# The line of progress


class Screen(io.StringIO):
    """A terminal, or a file that is no terminal."""

    def __init__(self, terminal: bool = True) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def line(self) -> str:
        """What stands on its line."""
        return self.getvalue().rpartition(demo.CLEAR)[2]


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def paced(terminal: bool = True) -> tuple[demo.Pace, Clock, Screen]:
    """A pace of parts that are 1, 1, 2, 8, 4 and 1 long, with its clock and its stream."""
    clock, stream = Clock(), Screen(terminal)
    lengths = {"trace": 1.0, "attribute": 1.0, "select": 2.0, "fit": 8.0, "evaluate": 4.0, "report": 1.0}
    return demo.Pace(lengths, stream, clock), clock, stream


def test_the_time_left_is_what_the_work_so_far_took_for_the_work_left() -> None:
    pace, clock, screen = paced()
    pace.begin("trace")
    assert screen.line == "[1/6] tracing the fact, layer by position", "nothing is measured yet"
    clock.now = 3.0  # seconds a length: 3, 3, then 5
    pace.begin("attribute")
    assert pace.left(0.0) == pytest.approx(16 * 3)
    clock.now = 6.0
    pace.begin("select")
    clock.now = 16.0
    pace.begin("fit")
    assert pace.left(0.0) == pytest.approx(13 * 16 / 4)
    clock.now = 32.0
    assert pace.left(0.5) == pytest.approx(9 * 32 / 8)
    pace.at(0.5, "learn, step 8 of 26")
    assert screen.line == "[4/6] fitting the edit (learn, step 8 of 26), about 40 s left"


def test_a_machine_of_another_speed_has_another_time_left() -> None:
    left: list[float] = []
    for speed in (1.0, 10.0):
        pace, clock, _ = paced()
        pace.begin("trace")
        clock.now = speed
        pace.begin("attribute")
        left.append(pace.left(0.0) or 0.0)
    assert left[1] == pytest.approx(10 * left[0])


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


def test_parts_that_never_began_are_not_waited_for() -> None:
    pace, clock, _ = paced()
    pace.begin("select")
    clock.now = 2.0
    pace.begin("evaluate")  # an edit without steps
    assert pace.left(0.0) == pytest.approx(5 * 2 / 2)
    assert list(pace.seconds) == ["select"]


def test_on_a_terminal_the_line_goes_in_the_end_whatever_ends_it() -> None:
    pace, _, screen = paced()

    def interrupted() -> None:
        with pace:
            pace.begin("trace")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert screen.line == "" and "\n" not in screen.getvalue()


def test_where_there_is_no_terminal_each_part_is_a_line() -> None:
    pace, clock, stream = paced(terminal=False)
    with pace:
        pace.begin("trace")
        clock.now = 1.0
        pace.begin("fit")
        for step in range(26):
            clock.now += 1.0
            pace.at(step / 26)
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    assert [line[:5] for line in lines] == ["[1/6]", "[2/4]", "[2/4]"], "and one each fifteen seconds"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (9.5, "10 s"), (11.0, "15 s"), (88.0, "1 min 30 s"), (121.0, "2 min 5 s")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert demo.duration(seconds) == words
