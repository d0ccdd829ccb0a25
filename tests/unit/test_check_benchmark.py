"""``make bench CHECK=1``: which results are measured again, and when they agree with those on file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from benchmarks import check
from benchmarks.editors import recipe_of
from benchmarks.lib.code import Code
from benchmarks.lib.rates import vars_of
from benchmarks.lib.store import Line
from workbench.types.intervals import share, wilson

RESULT = {
    "fact": "france-capital",
    "rates": {
        "learn": {"new": vars_of(wilson(8, 9)), "control": vars_of(wilson(57, 60)), "twohop": vars_of(share([]))}
    },
    "answers": [
        {"fact_id": "france-capital", "group": "heldout", "prompt": p, "stage": stage, "text": f"{p} {stage}"}
        for p in ("a", "b")
        for stage in ("base", "learn")
    ],
}


def line(method: str, fact: str) -> Line:
    settings = {"method": method, "probes": False, "max_controls": 60, "editor": {"seed": 3}}
    return Line(f"{method}-{fact}", settings, Code("c" * 40, False, "today"), RESULT | {"fact": fact})


def changed(**rates: Any) -> dict[str, Any]:
    return RESULT | {"rates": {"learn": RESULT["rates"]["learn"] | rates}}


def test_a_rate_agrees_within_its_interval_and_over_as_many_answers() -> None:
    def off(**rates: Any) -> list[str]:
        return [one.rate for one in check.compared(RESULT, changed(**rates)) if not one.agrees]

    assert off() == [] and off(new=vars_of(wilson(7, 9))) == []
    assert off(new=vars_of(wilson(2, 9))) == ["new"]
    assert off(control=vars_of(wilson(50, 59))) == ["control"]
    assert off(twohop=vars_of(wilson(1, 2))) == ["twohop"]
    lacking = RESULT | {"rates": {"learn": {"new": vars_of(wilson(8, 9))}}}
    assert [one.rate for one in check.compared(RESULT, lacking) if not one.agrees] == ["control"]


def test_texts_are_compared_word_for_word_after_the_edit() -> None:
    other = [
        row | {"text": "c"} if (row["prompt"], row["stage"]) != ("a", "learn") else row for row in RESULT["answers"]
    ]
    assert check.same_texts(RESULT, RESULT | {"answers": other}) == (1, 2)


def test_edits_are_drawn_by_seed_and_the_methods_in_turn() -> None:
    every = [line(method, fact) for method in ("ia3", "recommended") for fact in "abcd"]
    lines = {one.name: one for one in every} | {"drawn": Line("drawn", {"n": 3}, Code(None, None, None), {"facts": []})}
    found = check.drawn(lines, ["recommended", "ia3"], 3, 0)
    assert [one.settings["method"] for one in found] == ["recommended", "ia3", "recommended"]
    assert [one.name for one in check.drawn(lines, ["recommended", "ia3"], 3, 0)] == [one.name for one in found]
    with pytest.raises(SystemExit, match="No single edit by 'memit' is on file"):
        check.drawn(lines, ["memit"], 1, 0)


def test_edits_by_an_older_recipe_are_not_measured_again() -> None:
    """A recipe that lacks an option is today's: what is added later leaves edits as they were."""

    def of(**changes: Any) -> Line:
        made = line("keyed", "a")
        given = recipe_of("keyed", 3).to_dict() | changes
        return replace(made, settings=made.settings | {"editor": {k: v for k, v in given.items() if v is not None}})

    assert check.todays(of(), None) and check.todays(of(rivals=None), None) and not check.todays(of(reserve=2.0), None)
    assert check.todays(of(), 3) and not check.todays(of(), 4)
    lines = {"old": of(reserve=2.0), "new": of()}
    assert check.drawn(lines, ["keyed"], 2, 0, partial(check.todays, draw=None)) == [lines["new"]]


def test_what_does_not_agree_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(check.wb, "load_model", lambda: None)
    monkeypatch.setattr(check, "Answering", lambda _: None)
    monkeypatch.setattr(check, "todays", lambda *_, **__: True)
    monkeypatch.setattr(check.Store, "lines", lambda _: {"ia3-a": line("ia3", "a")})
    monkeypatch.setattr(check, "measured", lambda *_: RESULT)
    check.main(["--methods", "ia3", "--facts", "1"])
    assert "All rates agree." in capsys.readouterr().out
    monkeypatch.setattr(check, "measured", lambda *_: changed(new=vars_of(wilson(0, 9))))
    with pytest.raises(SystemExit):
        check.main(["--methods", "ia3", "--facts", "1"])
    assert "1 rates do not agree" in capsys.readouterr().out
