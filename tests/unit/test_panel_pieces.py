"""The pieces that panels share: layout, numbers, whole messages, the measure."""

from __future__ import annotations

import threading
from typing import Any

import ipywidgets
import pytest

from workbench.plots.style import short_number
from workbench.widgets.shared import layout
from workbench.widgets.shared.measure import MEASURES, Measure
from workbench.widgets.shared.sync import WholeMessages


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"),
        (16.4321, "16.4"),
        (2.0, "2"),
        (-0.25, "−0.25"),
        (1234.5, "1234"),
        (99999.0, "99999"),
        (123456.0, "1.23e+05"),
        (0.0004, "4.00e-04"),
        (0.9999, "1"),
        (None, "n/a"),
        (float("nan"), "n/a"),
    ],
)
def test_short_numbers(value: float | None, words: str) -> None:
    assert short_number(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0"), (6.5e-05, "<0.001"), (0.001, "0.001"), (0.9999, ">0.999"), (1.0, "1")]
)
def test_shares_are_never_written_with_an_exponent(value: float, words: str) -> None:
    assert short_number(value, share=True) == words


class Line(WholeMessages, ipywidgets.Text):
    """A text whose messages are counted."""


class Plain(ipywidgets.Text):
    """The same without the mixin."""


def _sent_by(kind: Any) -> set[str]:
    """What reaches the browser where another thread begins a message of its own while the first one is being sent."""
    line, sent, send = kind(), set[str](), kind.send_state
    begun, first_is_over, others = threading.Event(), threading.Event(), list[threading.Thread]()

    def second() -> None:
        with line.hold_sync():
            line.description = "meanwhile"
            begun.set()
            first_is_over.wait(10)

    def slow(self: Any, key: Any = None) -> None:
        sent.update([key] if isinstance(key, str) else key or [])
        send(self, key)
        if not others:
            others.append(threading.Thread(target=second))
            others[0].start()
            begun.wait(10)

    kind.send_state = slow
    try:
        with line.hold_sync():
            line.value = "first"
        first_is_over.set()
        others[0].join(10)
    finally:
        kind.send_state = send
    return sent


def test_a_change_that_comes_while_a_message_is_sent_is_sent_too() -> None:
    assert _sent_by(Line) == {"value", "description"}


def test_the_base_class_alone_loses_it() -> None:
    assert "description" not in _sent_by(Plain), "ipywidgets sends it by now: the mixin can go"


def test_rows_and_columns_take_widgets_and_wrap() -> None:
    left, right = ipywidgets.HTML("a"), ipywidgets.HTML("b")
    box = layout.columns(left, right, widths=("0 0 320px", "1 1 400px"))
    assert box.children == (left, right) and left.layout.flex == "0 0 320px" and "wb-columns" in box._dom_classes
    layout.show(left, False)
    assert left.layout.display == "none"
    layout.show(left, True)
    assert left.layout.display is None


def test_buttons_are_found_by_their_words() -> None:
    run, other = layout.primary("Run", tooltip="Run it"), layout.quiet_button("Undo", tooltip="Back")
    assert (run.description, other.description) == ("Run", "Undo")
    assert "wb-primary" in run._dom_classes and "wb-primary" not in other._dom_classes


def test_a_measure_names_what_tracing_takes() -> None:
    assert [(Measure(name).metric, Measure(name).normalise) for name in MEASURES] == [
        ("logit_diff", True),
        ("logit_diff", False),
        ("probability", False),
    ]
    assert "0 corrupted" in Measure().words and Measure("probability").words == "probability"


@pytest.mark.parametrize("wrong", [{"name": "kl"}, {"corruption": "zero"}])
def test_an_unknown_measure_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be one of .*, got"):
        Measure(**wrong)
