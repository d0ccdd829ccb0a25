"""The line of progress: what is being done, and how long the rest takes at the speed so far."""

from __future__ import annotations

import pytest

from tests.helpers.paced import paced
from workbench.pace import duration


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
    assert duration(seconds) == words
