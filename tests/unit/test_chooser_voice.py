"""Errors as panels say them: the same content, without Python's names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests.helpers.choosers import PERU, tiny
from tests.helpers.panels import FRANCE, SPAIN
from tests.helpers.tiny_facts import edit_of, some_gates
from workbench.language.prompts import swapped, traced_prompt
from workbench.probing.probe import probe
from workbench.probing.table import PROBES
from workbench.tracing.corruption import choose_partner
from workbench.types import Fact, FactSet
from workbench.types.fact_error import FactError, fact_errors
from workbench.widgets.shared.voice import person

PYTHON = re.compile(r"\w+Error\b|\b[A-Z]\w+\.[a-z_]\w*|\b\w+=[\w('\[]|\[Errno|\bnot None\b|known_facts")
"""Names and keywords of Python."""


def given(**texts: str) -> Fact:
    fields: dict[str, Any] = {"subject": "Peru", "prompt": "The capital of Peru is", "question": "?"}
    return Fact(**{**fields, "answer": "a", "target": "b", **texts})


def of_a_file() -> None:
    Path("/no such folder/x.json").read_text()


def no_probe() -> None:
    probe(tiny(), edit_of(tiny(), some_gates(tiny(), (1, "z"))), probes=())


CASES: dict[str, tuple[Callable[[], object], str]] = {
    "empty": (lambda: given(subject=" "), "The subject is empty"),
    "spaces": (lambda: given(answer=" a"), "begins or ends with a space"),
    "subject": (lambda: given(subject="Chile"), "does not hold the subject"),
    "same": (lambda: given(target="A"), "Answer and target are the same"),
    "recipe": (lambda: wb.Recipe(learning_rate=0), "Learning rate must be a positive number, not 0."),
    "steps": (lambda: wb.Recipe(steps=(1, 2, 3)), "give one number per stage"),
    "not said": (lambda: traced_prompt(tiny(), PERU), "The model does not say “Lima” here"),
    "one form": (lambda: traced_prompt(tiny(), PERU, form="chat"), "choose the other form"),
    "no partner": (
        lambda: choose_partner(tiny(), FRANCE, traced_prompt(tiny(), FRANCE), FactSet([FRANCE])),
        "No subject of a listed fact can take the place of “France”",
    ),
    "partner": (
        lambda: swapped(tiny(), FRANCE, traced_prompt(tiny(), FRANCE), given()),
        "“Peru” cannot take the place of “France”: it has another number of tokens (4, not 1)",
    ),
    "same token": (
        lambda: swapped(tiny(), FRANCE, traced_prompt(tiny(), FRANCE), FRANCE),
        "Both answers begin with the same token “Paris”",
    ),
    "no probe": (no_probe, f"Probes: choose at least one of {next(iter(PROBES.values())).title}, "),
    "folder": (lambda: wb.load_session("/no such folder"), "A session is a folder that Save wrote"),
    "file": (of_a_file, "No such file or directory (/no such folder/x.json)."),
    "selection": (lambda: wb.rewrite(tiny(), FRANCE, wb.Selection("")), 'choose the default selector under "Train"'),
    "id": (lambda: FactSet([SPAIN])["france"], "No fact with the id 'france'"),
    "bug": (lambda: {}["a key"], "Something went wrong that should not have: a key"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_panel_says_it_without_pythons_names(name: str) -> None:
    act, words = CASES[name]
    with pytest.raises(Exception) as caught:
        act()
    said = person(caught.value)
    assert words in said and not PYTHON.search(said), said


def test_an_error_without_words_is_named() -> None:
    assert person(StopIteration()) == "Something went wrong that should not have: Stopiteration"


def test_all_errors_of_a_fact_at_once_are_those_that_the_fact_raises_one_by_one() -> None:
    texts: dict[str, Any] = {
        "subject": "Chile",
        "prompt": "Its capital is ",
        "question": "?",
        "answer": "a",
        "target": "",
    }
    found = [(e.field, e.reason) for e in fact_errors(texts)]
    assert found == [("target", "empty"), ("prompt", "spaces"), ("subject", "not in the prompt")]
    raised: list[tuple[str, str]] = []
    for mend in ({}, {"target": "b"}, {"prompt": "Its capital is"}, {"subject": "capital"}):
        texts |= mend
        try:
            Fact(**texts)
        except FactError as error:
            raised.append((error.field, error.reason))
    assert raised == found
