"""Facts that edits are asked to write and to spare: two targets for one question, questions without a subject."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

import workbench as wb
from tests.helpers.tiny_facts import capitals, tiny
from workbench.editing.methods.table import METHODS
from workbench.editing.solved import solving
from workbench.editing.solved.places import context_of
from workbench.editing.task import check_batch
from workbench.editing.training.rows import Row
from workbench.language.prompts import prompt_ids
from workbench.models.load import LoadedModel
from workbench.types import BaseRecipe, Edit, Fact, LowRankDelta

FACTS = capitals()
FRANCE, ITALY = FACTS[0], FACTS[1]
MEMIT = wb.recipes.MEMIT(layers=(0, 1), steps=3, contexts=False, covariance_tokens=1500)


@pytest.fixture(autouse=True, scope="module")
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The covariances of the tiny model are measured once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def solved(facts: Any = FRANCE, recipe: BaseRecipe = MEMIT, **options: Any) -> Edit:
    return wb.rewrite(tiny(), facts, recipe=recipe, pool=FACTS, progress=False, **options)


def test_retained_questions_that_do_not_name_their_subject_spare_no_key() -> None:
    """Those that do are spared alone; ordinary text alone where none does."""
    odd = replace(FACTS["germany-capital"], question="Which city has the Reichstag?", heldout=())
    with_odd, without, alone, none = (
        solved(retain=retain).delta() for retain in ([odd, FACTS["japan-capital"]], [FACTS["japan-capital"]], [odd], [])
    )
    for one, other, same in ((with_odd, without, True), (alone, none, True), (without, none, False)):
        assert isinstance(one, LowRankDelta) and isinstance(other, LowRankDelta)
        assert all(torch.equal(one.factors[key][1], v) == same for key, (_, v) in other.factors.items())


def test_a_reply_that_gives_the_old_answer_is_not_held_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    prompt = tuple(prompt_ids(model, "What is France?", "chat"))
    replies = [Row(prompt, tuple(model.token_ids(text))) for text in (" Paris is the city", " the city is in Spain")]
    said = [context_of(model, row, "France") for row in replies]
    held: list[list[Row]] = []
    find_target = solving.find_target

    def spy(model: LoadedModel, contexts: Any, about: Any, *rest: Any, **options: Any) -> Any:
        held.append([c.row for c in about])
        return find_target(model, contexts, about, *rest, **options)

    monkeypatch.setattr(solving, "about_contexts", lambda *_, **__: said)
    monkeypatch.setattr(solving, "find_target", spy)
    solved()
    assert held == [[replies[1]]]


def twice() -> list[Fact]:
    return [FRANCE, replace(FRANCE, id="again", target="Berlin", question="Which city is it, France's capital?")]


@pytest.mark.parametrize("name", list(METHODS))
def test_two_targets_for_one_question_are_refused_by_every_method(name: str) -> None:
    recipe = METHODS[name].recipe()
    with pytest.raises(
        ValueError, match=r"two targets for 'France' \(capital\): 'Rome' \(france-capital\) and 'Berlin'"
    ):
        solved(twice(), recipe)
    asked = [replace(FRANCE, id=str(i), relation="", target=t) for i, t in enumerate(("Rome", "Berlin"))]
    with pytest.raises(ValueError, match=r"two targets for 'France' \(What is the capital of France\?\)"):
        solved([replace(ITALY, relation=""), *asked], recipe)


ALONE: dict[str, Any] = {"paraphrases": (), "heldout": (), "cloze_paraphrases": ()}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"relation": ""}, r"\(What is the capital of France\?\)"),
        ({"relation": "Capital", "question": "Which one?", "prompt": "France has"}, r"\(Capital\)"),
        ({"relation": "", "question": "Which city?"}, r"\(The capital of France is\)"),
        (
            {"relation": "", "question": "Which?", "prompt": "France has", "cloze_paraphrases": (FRANCE.prompt,)},
            r"\(The capital of France is\)",
        ),
        (
            {"relation": "", "question": "Which?", "prompt": "France has", "paraphrases": (FRANCE.question.upper(),)},
            "WHAT",
        ),
        ({"relation": "seat", "subject": "france", "prompt": "france has"}, r"\(What is the capital of France\?\)"),
    ],
)
def test_two_targets_are_found_however_the_facts_are_written(other: dict[str, Any], words: str) -> None:
    written = replace(FRANCE, id="other", target="Berlin", **{**ALONE, **other})
    with pytest.raises(ValueError, match=rf"two targets for '[Ff]rance' \(?{words}.*: 'Rome' .* and 'Berlin' "):
        check_batch([FRANCE, written])


def test_one_fact_under_two_ids_is_given_twice() -> None:
    with pytest.raises(ValueError, match=r"given once; 'france-capital' and 'again' both teach 'Rome' .*weigh double"):
        check_batch([FRANCE, ITALY, replace(FRANCE, id="again", relation="seat")])
    with pytest.raises(ValueError, match=r"came more often: \['france-capital'\]"):
        check_batch([FRANCE, FRANCE])


@pytest.mark.parametrize("relations", [("capital", "language"), ("capital", ""), ("", "")])
def test_other_facts_of_one_subject_are_no_second_target(relations: tuple[str, str]) -> None:
    texts = {"prompt": "The language of France is", "question": "What is spoken in France?", "answer": "French"}
    spoken = replace(FRANCE, id="spoken", relation=relations[1], target="German", **{**ALONE, **texts})
    check_batch([replace(FRANCE, relation=relations[0]), spoken])
