"""One name for both answers of a fact is refused: every text that names it would count as both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.helpers.tiny_facts import capitals
from workbench.types.fact_error import FactError

FRANCE = capitals()[0]


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"answer_aliases": ("Rome",)}, "answer_aliases", "'Rome' is an alias of the answer and the target at once"),
        (
            {"target_aliases": ("paris",)},
            "target_aliases",
            "'Paris' ('paris') is the answer and an alias of the target",
        ),
        (
            {"answer_aliases": ("x",), "target_aliases": ("y", "x")},
            "target_aliases",
            "an alias of the answer and an alias",
        ),
        ({"answer_aliases": ("Köln",), "target_aliases": ("Ko\u0308ln",)}, "target_aliases", "Köln"),
    ],
)
def test_a_name_of_both_answers(changes: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(FactError, match="Take it out of") as caught:
        replace(FRANCE, **changes)
    assert caught.value.field == field and caught.value.reason == "same text" and words in str(caught.value)


def test_names_that_differ_in_case_are_two_where_case_tells() -> None:
    changes: dict[str, Any] = {"answer_aliases": ("Na",), "target_aliases": ("NA",)}
    assert replace(FRANCE, case_sensitive=True, **changes).targets == ("Rome", "NA")
    with pytest.raises(FactError):
        replace(FRANCE, **changes)


def test_aliases_are_texts() -> None:
    with pytest.raises(TypeError, match=r"Fact\.answer_aliases\[1\] must be a string, got 7"):
        replace(FRANCE, answer_aliases=("Lutetia", 7))
