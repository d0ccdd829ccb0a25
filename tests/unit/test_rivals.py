"""Rivals: which facts are some, where their answer stands, and that an opening spares them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.small_fits import FACTS, FRANCE, SPAIN
from tests.helpers.tiny_facts import capital, replying
from workbench.editing.covariance import covariances
from workbench.editing.solved.closing import at_the_answer
from workbench.editing.solved.openings import Sparing, opened, openings
from workbench.editing.solved.places import training_contexts
from workbench.editing.solved.rivals import WORDINGS, rival_contexts, rivals_of
from workbench.editing.solved.spots import Place
from workbench.language.tokens import decoded
from workbench.types import TrainedRecipe

TEXTS = [f"The capital of {f.subject} is {f.answer}." for f in FACTS] * 12
TAUGHT = TrainedRecipe(contexts=False, retain_weight=0.0)
ALIKE = [capital(f"Gaul{i}", "Paris", "Rome", "dev", "retain", relation="capital") for i in range(6)]
OTHER = capital("Paname", "Paris", "Rome", "dev", "retain", relation="city")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def test_rivals_have_the_relation_and_the_old_answer() -> None:
    asked = capital("France", "Paris", "Rome", relation="capital")
    spare = [SPAIN, OTHER, *ALIKE]
    assert set(rivals_of(asked, spare, 9, seed=0)) == set(ALIKE)
    assert len(rivals_of(asked, spare, 4, seed=0)) == 4
    assert rivals_of(asked, spare, 4, seed=0) != rivals_of(asked, spare, 4, seed=1)
    assert rivals_of(asked, spare, 0, seed=0) == [] and rivals_of(asked, [SPAIN], 9, seed=0) == []
    shouted = capital("France", "PARIS", "Rome", relation="capital")
    assert len(rivals_of(shouted, spare, 9, seed=0)) == 6


def test_the_answer_of_a_rival_alone_counts() -> None:
    model = replying()
    rival = capital("Spain", "Madrid", "Rome", relation=FRANCE.relation)
    asked = capital("France", "Madrid", "Rome", relation=FRANCE.relation)
    found = rival_contexts(model, [SPAIN, asked], [rival], 3, seed=0)
    assert {context.fact for context in found} == {0, 1}  # of both edited facts
    of_one = [context for context in found if context.fact == 1]
    assert len(of_one) == min(WORDINGS, len(rival.training_questions))
    for context in of_one:
        assert decoded(model, context.row.answer[: context.row.departs]) == "The capital of Spain is"
        assert decoded(model, context.row.counted).strip() == "Madrid"


def test_a_row_at_the_answer_is_shut_at_rivals() -> None:
    model, place = replying(), Place(2, "mlp")
    own, _ = at_the_answer(training_contexts(model, [FRANCE], "learn", TAUGHT, clozes=False), tokens=1)
    rival = capital("Spain", "Paris", "Rome", relation=FRANCE.relation)
    theirs, _ = at_the_answer(rival_contexts(model, [FRANCE], [rival], 1, seed=0), tokens=1)
    measured = covariances(model, [place], texts=TEXTS)

    def opens(weight: float) -> float:
        spared = Sparing(protect=0.0, rival=weight)
        found = openings(model, {place: None}, measured, own, retained=[], closed=[], rivals=theirs, sparing=spared)
        assert float(opened(model, found, own)[place].mean()) == pytest.approx(1.0, abs=1e-8)
        return float(opened(model, found, theirs)[place].abs().max())

    assert opens(0.0) > 0.1 and opens(1e6) < 0.01
