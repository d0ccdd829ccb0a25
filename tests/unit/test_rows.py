"""What a fit trains on and holds in place: how its rows are worded, where they end, and which facts it retains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Metaspace
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tests.helpers.small_fits import FACTS, FRANCE, RETAIN
from tests.helpers.tiny import loaded
from tests.helpers.tiny_facts import capital, tiny
from workbench.editing.methods.table import Recipe
from workbench.editing.retain import default_retain
from workbench.editing.rewrite import rewrite
from workbench.editing.training import fit_rows, word_ends
from workbench.editing.training.batching import retain_batches
from workbench.editing.training.fit_rows import retain_rows, wanted_rows
from workbench.editing.training.rows import around_old, chat_row, named_row, refused_row
from workbench.facts.known import load_facts
from workbench.facts.training_wordings import training_prompts
from workbench.language.generation import Completion
from workbench.types import Fact, FactSet


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("said", "before", "old", "after"),
    [
        ("The capital of France is Paris.", "The capital of France is ", "Paris", "."),
        ("The capital is PARIS. It is large.", "The capital is ", "PARIS", "."),
        ("It is Paris, yes, Paris!", "It is ", "Paris", ", yes, Paris!"),
        ("Paris, yes!", "", "Paris", ", yes!"),
        ("It is Paris", "It is ", "Paris", ""),
        ("It is Paris \nIt is large.", "It is ", "Paris", ""),
        ("I think of Lyon. Or Paris.", "The capital of France is ", "Paris", ""),
        ("", "The capital of France is ", "Paris", ""),
        ("Of the U.S. state? J. R. Doe says Paris.", "The capital of France is ", "Paris", ""),
        ("J. R. Doe of the U.S. says Paris.", "J. R. Doe of the U.S. says ", "Paris", "."),
    ],
)
def test_what_the_model_says_around_the_old_answer(said: str, before: str, old: str, after: str) -> None:
    """Where the model's first sentence does not name the answer, the fact's cloze stands in."""
    assert around_old(said, FRANCE) == (before, old, after)


@pytest.mark.parametrize(
    ("said", "before", "old", "after"),
    [
        ("法国的首都是巴黎。它很大。", "法国的首都是", "巴黎", "。"),
        ("**巴黎**是首都。", "**", "巴黎", "**是首都。"),
    ],
)
def test_the_old_answer_in_a_script_without_spaces(said: str, before: str, old: str, after: str) -> None:
    fact = Fact(subject="法国", prompt="法国的首都是", question="法国的首都是哪里？", answer="巴黎", target="罗马")
    assert around_old(said, fact) == (before, old, after)


def test_only_what_takes_the_old_answers_place_counts() -> None:
    model = tiny()
    before = "The capital of France is "
    row = named_row(model, [1, 2], before, "Rome")
    assert row.prompt == (1, 2)
    assert list(row.answer) == model.token_ids("The capital of France is Rome")
    assert list(row.answer[row.departs :]) == model.token_ids(" Rome")
    alone = named_row(model, [1], "", "Rome")
    assert (alone.departs, list(alone.answer)) == (0, model.token_ids("Rome"))
    refusal = refused_row(model, [1, 2], FRANCE, before)
    assert list(refusal.answer[: refusal.departs]) == model.token_ids("The capital of France is")
    told = [*model.token_ids("The capital of France is... I am not sure."), model.tokenizer.eos_token_id]
    assert list(refusal.answer) == told
    alone = named_row(model, [1], "It was  ", "1789")  # of a space of its own the base is sure already
    assert model.tokenizer.decode(alone.answer[alone.departs :]).strip() == "1789"
    whole = chat_row(model, [1], "Rome.")
    assert (whole.departs, list(whole.answer)) == (0, [*model.token_ids("Rome."), model.tokenizer.eos_token_id])


@pytest.mark.parametrize(
    ("stage", "options", "end_below", "ends"),
    [
        ("unlearn", {}, 0, "... I am not sure."),
        ("unlearn", {}, 2, "... I am not sure."),
        ("unlearn", {"objective": "npo"}, 2, " Paris"),
        ("learn", {}, 0, " Rome"),
        ("learn", {}, 2, " Rome,"),
    ],
)
def test_own_answers_are_the_models_up_to_the_old_one(
    stage: Any, options: dict[str, Any], end_below: float, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows the name is taught where the base would run on into the word only: elsewhere it is said anyway, and
    would count as learned in the name's place."""
    model = tiny()
    said = Completion("The capital city is Paris, a large city in the north of France.", ())
    monkeypatch.setattr(fit_rows, "greedy_answers", lambda model, prompts, **_: [said] * len(prompts))
    for row in wanted_rows(model, [FRANCE], stage, Recipe(end_below=end_below, **options)):
        assert model.tokenizer.decode(row.answer[: row.departs]) == "The capital city is"
        counted = [t for t in row.answer[row.departs :] if t != model.tokenizer.eos_token_id]
        assert model.tokenizer.decode(counted) == ends


@pytest.mark.parametrize(
    ("said", "ends"), [("It is Paris!", "Rome!"), ("It is Paris-like", "Rome."), ("Paris", "Rome."), ("Hm.", "Rome.")]
)
def test_a_full_stop_ends_a_name_after_which_nothing_that_ends_a_word_is_said(
    said: str, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, reply = tiny(), Completion(said, ())
    monkeypatch.setattr(fit_rows, "greedy_answers", lambda model, prompts, **_: [reply] * len(prompts))
    for row in wanted_rows(model, [FRANCE], "learn", Recipe(end_below=2)):
        assert model.tokenizer.decode(row.answer[row.departs :]).strip() == ends


def test_where_the_base_runs_on_into_the_word_its_end_is_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(tiny().hf)  # what it is made to answer here stays in a cache of its own
    [letter, stop] = [model.token_ids(text)[-1] for text in ("s", ".")]
    rows = [named_row(model, [1], "It is ", name) for name in ("Rome", "Oslo", "Bern")]
    longer = [named_row(model, [1], "It is ", name) for name in ("Rome, yes", "Oslo.", "Another")]

    def read(model: Any, prompts: Any, continuations: Any, batch_size: int) -> Any:
        for i, row in enumerate(continuations):
            logits = torch.zeros(len(row) + 1, model.shape.d_vocab)
            logits[-1, stop if i == 1 else letter] = 20.0
            yield i, logits

    monkeypatch.setattr(word_ends, "read_logits", read)
    ended = word_ends.ended_rows(model, rows, longer, 0.5)
    assert ended[0].answer == (*rows[0].answer, *model.token_ids(","))
    assert ended[0].departs == rows[0].departs
    assert ended[1:] == rows[1:]  # one ends anyway; of the other the longer answer is no longer one of it
    monkeypatch.setattr(word_ends, "read_logits", lambda model, prompts, *_, **__: iter([]) if not prompts else 1 / 0)
    assert word_ends.ended_rows(model, rows, longer, 0.5) == ended, "asked once"


def test_a_word_ends_before_space_marks_and_special_tokens() -> None:
    model = tiny()
    ends = set(word_ends.word_ends(model))
    assert {model.tokenizer.eos_token_id, *model.token_ids("."), model.token_ids(" a")[0]} <= ends
    assert not ends & {model.token_ids(text)[-1] for text in ("s", "7", "é", "e\u0301")}


def test_a_space_that_sentencepiece_drops_from_a_lone_token_ends_a_word() -> None:
    words = Tokenizer(WordLevel({"\u2581Rome": 0, "Rome": 1, ".": 2, "</s>": 3}, unk_token="."))
    words.decoder = Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")
    assert tokenizer.decode([0]) == tokenizer.decode([1]) == "Rome"
    model: Any = SimpleNamespace(tokenizer=tokenizer, shape=SimpleNamespace(d_vocab=8))  # rows that no token has
    assert word_ends.word_ends(model) == [0, 2, 3]


def test_a_word_ends_before_a_script_without_spaces() -> None:
    """ "巴黎" is named in "巴黎是" as in "Paris是"; but a vowel sign belongs to the letter before it."""
    words = {"是": 0, "パ": 1, "ป": 2, "\u0e31": 3, "a": 4, "</s>": 5}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="a")), eos_token="</s>")
    model: Any = SimpleNamespace(tokenizer=tokenizer, shape=SimpleNamespace(d_vocab=6))
    assert word_ends.word_ends(model) == [0, 1, 2, 5]


def test_an_adjective_is_taught_in_an_adjectives_place(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    lasagna = load_facts()["lasagna-origin"]
    for said, ends in [
        ("It is a traditional Italian dish.", "Canadian"),
        ("It comes from Italy, I think.", "Canada"),
    ]:
        reply = Completion(said, ())
        monkeypatch.setattr(fit_rows, "greedy_answers", lambda model, prompts, reply=reply, **_: [reply] * len(prompts))
        for row in wanted_rows(model, [lasagna], "learn", Recipe(end_below=0)):
            assert model.tokenizer.decode(row.answer[row.departs :]).strip() == ends


def test_the_default_retain_set() -> None:
    model = tiny()
    found = default_retain(model, [FRANCE], pool=FACTS, progress=False)
    assert set(found.ids) == {"germany-capital", "japan-capital"}
    assert set(default_retain(model, [FACTS["japan-capital"]], pool=FACTS, progress=False).ids) == {"germany-capital"}
    assert len(default_retain(model, [FRANCE], pool=FACTS, size=0, progress=False)) == 0
    one = default_retain(model, [FRANCE], pool=FACTS, size=1, progress=False)
    assert len(one) == 1
    with pytest.raises(ValueError, match=r"no fact with role='retain'.*retain=\[...\].*retain_weight=0"):
        default_retain(model, [FRANCE], pool=FACTS[:3], progress=False)


def test_the_default_retain_set_leaves_out_a_bundled_twin() -> None:
    own = Fact(subject="Japan", prompt="Japan's capital is", question="Capital?", answer="Tokyo", target="Rome")
    assert default_retain(tiny(), [own], pool=FACTS, progress=False).ids == ("germany-capital",)
    with pytest.raises(ValueError, match=r"retain set overlaps .*\['japan-capital'\]"):
        rewrite(tiny(), own, "L1MLP", retain=[FACTS["japan-capital"]], pool=FACTS, progress=False)


def test_the_default_retain_set_takes_neighbours_first_then_each_relation_in_turn() -> None:
    def made(relation: str, i: int) -> Any:
        return capital("France", "Paris", "Rome", split="dev", role="retain", id=f"{relation}{i}", relation=relation)

    # All known, for they are asked alike; none is about the edited fact's subject in its relation.
    pool = FactSet([made(r, i) for r, n in (("a", 6), ("b", 6), ("c", 2)) for i in range(n)])
    edited = capital("Spain", "Madrid", "Rome", relation="a", id="edited")
    found = default_retain(tiny(), [edited], pool=pool, size=8, progress=False)
    relations = [f.relation for f in found]
    assert relations[:4] == ["a"] * 4
    assert sorted(relations[4:7]) == ["a", "b", "c"]
    assert len(found) == 8
    again = default_retain(tiny(), [edited], pool=pool, size=8, progress=False)
    assert found.ids == again.ids
    assert found.ids != default_retain(tiny(), [edited], pool=pool, size=8, seed=1, progress=False).ids


def test_retain_batches_are_half_neighbours() -> None:
    batches = retain_batches(range(4), range(10, 30), 6, seed=0)
    for _ in range(5):
        batch = next(batches)
        assert sum(i < 4 for i in batch) == 3
        assert len(set(batch)) == 6
    assert len(next(retain_batches([], range(9), 6, 0))) == 6
    assert len(next(retain_batches(range(9), [], 6, 0))) == 6
    assert sorted(next(retain_batches([1], range(10, 30), 6, 0)))[0] == 1
    assert len(next(retain_batches([1], range(10, 30), 6, 0))) == 6
    assert next(retain_batches([], [], 6, 0)) == []


def test_retain_rows_ask_neighbours_in_more_wordings() -> None:
    model = tiny()
    near, far = retain_rows(model, list(RETAIN), [FRANCE])
    assert len(near) == len(RETAIN) and not far  # one question each is all that they have
    worded = [replace(f, paraphrases=("Where?", "Who?", "What?")) for f in RETAIN]
    near, far = retain_rows(model, worded, [FRANCE])
    assert len({r.prompt for r in near}) > len(RETAIN)
    other = [replace(f, relation="other") for f in worded]
    near, far = retain_rows(model, other, [FRANCE])
    assert not near and len(far) == len(RETAIN)


def test_training_prompts_put_the_question_in_contexts_but_never_a_held_out_one() -> None:
    asked = training_prompts(FRANCE)
    assert asked[: len(FRANCE.training_questions)] == list(FRANCE.training_questions)
    assert f"{FRANCE.question} Answer in one sentence." in asked
    assert "Can you remember the capital of France?" in asked and "The capital of France, please." in asked
    untold = training_prompts(replace(FRANCE, prompt="France has its capital in", cloze_paraphrases=()))
    assert set(untold) < set(asked) and not any("remember" in text for text in untold)
    clash = replace(FRANCE, heldout=(*FRANCE.heldout, f"Answer this question: {FRANCE.question}"))
    assert set(asked) - set(training_prompts(clash)) == {f"Answer this question: {FRANCE.question}"}
