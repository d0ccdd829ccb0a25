"""The sealed split: complete, known enough, and sharing no template, wording, frame or control with dev or test."""

from __future__ import annotations

import json
import random
import re
from itertools import chain
from typing import Any

import pytest

import workbench as wb
from tests.helpers.tiny import tiny_llama
from tests.helpers.tiny_facts import capital, capitals, knowing
from workbench.editing.retain import default_retain
from workbench.evaluation.related import related_questions
from workbench.facts import closing, training_wordings
from workbench.facts.known_table import FORMS, asked_text, committed_table_paths, judge_key
from workbench.facts.sealed_wordings import asked_sealed, sealed_questions, sealed_wordings, with_sealed_heldout
from workbench.facts.training_wordings import training_prompts
from workbench.types import Fact, FactSet

SEALED = wb.load_facts(split="sealed")
BUNDLED = wb.load_facts()
TRAINING = (*training_wordings.QUESTION_CONTEXTS, *training_wordings.TOPIC_CONTEXTS, *training_wordings.UNSEEN_CONTEXTS)


def texts(fact: Fact) -> tuple[str, ...]:
    return (*fact.training_questions, *fact.heldout, fact.prompt, *fact.cloze_paraphrases, fact.refusal)


def normal(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().casefold()


def template(fact: Fact, text: str) -> str:
    return normal(text.replace(fact.subject, " xx "))


def fours(text: str) -> set[tuple[str, ...]]:
    """Any four words in a row, not over a gap."""
    parts = (normal(part).split() for part in re.split(r"\{\w+\}", text))
    return {tuple(words[i : i + 4]) for words in parts for i in range(len(words) - 3)}


def open_templates() -> dict[str, set[str]]:
    """All templates of dev and test facts, with ``{subject}``, by relation."""
    found: dict[str, set[str]] = {}
    for fact in BUNDLED:
        found.setdefault(fact.relation, set()).update(t.replace(fact.subject, "{subject}") for t in texts(fact))
    return found


def committed() -> dict[str, Any]:
    (path,) = [p for p in committed_table_paths("x" * 16)[1].parent.glob("*.json")]
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_is_loaded_by_its_name_alone() -> None:
    assert SEALED.name == "sealed facts" and {fact.split for fact in SEALED} == {"sealed"}
    assert len(SEALED.relations) >= 6 and len(SEALED) >= 100
    assert not {*SEALED.ids} & {*BUNDLED.ids} and not {*SEALED.relations} & {*BUNDLED.relations}
    assert not [fact for fact in BUNDLED if fact.split not in ("dev", "test")]
    assert wb.load_facts(split="test").ids == BUNDLED.filter(split="test").ids
    with pytest.raises(ValueError, match=r"holds no sealed facts.*load_facts\(split='sealed'\)"):
        BUNDLED.filter(split="sealed")
    with pytest.raises(ValueError, match=r"split must be one of .* or None, got 'secret'"):
        wb.load_facts(split="secret")  # pyright: ignore[reportArgumentType]


def test_every_sealed_fact_is_complete() -> None:
    for fact in SEALED:
        assert len(fact.training_questions) >= 8 and len(fact.heldout) >= 8 and len(fact.cloze_paraphrases) >= 2
        assert fact.refusal.startswith("I am not sure") and fact.role == "control"
        assert len({normal(text) for text in texts(fact)}) == len(texts(fact)), f"{fact.id} asks one thing twice"
        assert all(fact.subject in text and "{" not in text for text in texts(fact)), fact.id
        assert not {a.casefold() for a in fact.answers} & {t.casefold() for t in fact.targets}, fact.id
        assert not set(training_prompts(Fact.from_dict(fact.to_dict() | {"heldout": ()}))) & set(fact.heldout)
    trained = {template(f, q) for f in SEALED for q in f.training_questions}
    assert not trained & {template(f, q) for f in SEALED for q in f.heldout}


def test_no_sealed_text_gives_its_answer_away() -> None:
    given: list[tuple[str, str, str]] = []
    for fact in (*SEALED, *map(asked_sealed, BUNDLED)):
        for text in (fact.question, *fact.paraphrases, *fact.heldout, *(texts(fact) if fact in SEALED else ())):
            rest = text.replace(fact.subject, " ")
            names = (*fact.answers, *fact.targets)
            given += [(fact.id, n, text) for n in names if re.search(rf"(?<!\w){re.escape(n)}(?!\w)", rest)]
    assert not given


def test_it_shares_no_template_with_dev_or_test() -> None:
    theirs = {normal(t.replace("{subject}", " xx ")) for t in chain.from_iterable(open_templates().values())}
    ours = {template(f, text): text for f in SEALED for text in texts(f)}
    ours |= {normal(t.replace("{subject}", " xx ")): t for of in sealed_wordings().of_relation.values() for t in of}
    assert not {ours[t] for t in ours.keys() & theirs}


def test_its_questions_frames_and_controls_share_no_four_words_with_what_is_tuned_on() -> None:
    """Templates that differ by a word are one wording; four words in a row are the measure."""
    tuned: dict[tuple[str, ...], str] = {}
    for text in (*chain.from_iterable(open_templates().values()), *TRAINING, *closing.GENERAL):
        tuned |= dict.fromkeys(fours(text), text)
    asked = [q.replace(f.subject, "{subject}") for f in SEALED for q in f.heldout]
    asked += [*sealed_wordings().frames, *chain.from_iterable(sealed_wordings().of_relation.values())]
    shared = {text: tuned[four] for text in asked for four in fours(text) if four in tuned}
    assert not shared
    assert fours("Which city is the capital of {subject}?") & tuned.keys(), "the measure finds what is shared"


def test_what_is_asked_of_a_subject_shares_no_four_words_with_what_is_trained_of_it() -> None:
    """Filled in and framed, of every fact; the subject is one word. A trained question in a frame is still trained."""

    def rows(fact: Fact, text: str) -> set[tuple[str, ...]]:
        words = template(fact, text).split()
        return {tuple(words[i : i + 4]) for i in range(len(words) - 3)}

    shared: dict[str, set[tuple[str, ...]]] = {}
    for fact in (*BUNDLED, *SEALED):
        general = (text.format(subject=fact.subject) for text in closing.GENERAL)
        trained = (*training_prompts(fact), fact.prompt, *fact.cloze_paraphrases, fact.refusal, *general)
        known = set().union(*(rows(fact, text) for text in trained))
        for question in sealed_questions(fact):
            assert not any(normal(q) in normal(question) for q in fact.training_questions)
            if both := rows(fact, question) & known:
                shared[question] = both
    assert not shared


def test_frames_stand_around_untrained_questions_only() -> None:
    frames = len(sealed_wordings().frames)
    own = capital("Peru", "Lima", "Rome", heldout=("Where is Lima?", "Which city is it?"))
    asked = sealed_questions(own)
    assert len(asked) == frames and all(any(q in text for q in own.heldout) for text in asked)
    assert asked[0].endswith(own.heldout[0]) and asked[1].startswith(own.heldout[1]), "in turn"
    bare = capital("Peru", "Lima", "Rome", heldout=())
    assert (sealed_questions(bare), with_sealed_heldout(bare).heldout, asked_sealed(bare)) == ((), (), bare)
    italy = BUNDLED["italy-capital"]
    written = [text.replace("{subject}", "Italy") for text in sealed_wordings().of_relation[italy.relation]]
    assert sealed_questions(italy)[:2] == tuple(written) and len(sealed_questions(italy)) == 2 + frames


def test_a_relation_that_was_closed_is_asked_in_no_wording_it_was_closed_in() -> None:
    """The groups of the same subject and the same answer, asked in sealed wordings."""
    pool = list(BUNDLED)
    france = BUNDLED["france-capital"]
    closed = closing.closed_relations(pool, france, leave_out=0)
    closers = {q.question for q in closing.closing_questions(pool, france, closed, wordings=99)}
    missing: list[str] = []
    free = BUNDLED.filter(lambda fact: not fact.overlaps(france))
    asked = related_questions(lambda facts: facts, free, [france], missing, closed=closed, reword=asked_sealed)
    of_closed = [q for q in asked if q.fact.relation in closed]
    assert {q.group for q in asked} == {"same subject"} or of_closed
    for question in of_closed:
        trained = {*closers, *BUNDLED[question.fact.id].training_questions}
        assert not any(normal(text) in normal(question.ask.prompt) for text in trained), question.ask.prompt
    bare = [capital("France", "Euro", "Yen", id="money", relation="country-cash", heldout=(), role="related")]
    more = FactSet(bare)
    assert not related_questions(lambda f: f, more, [france], [], closed=["country-cash"], reword=asked_sealed)
    assert related_questions(lambda f: f, more, [france], [], reword=asked_sealed), (
        "it is asked where it was not closed"
    )


def test_every_relation_has_sealed_wordings_of_its_own() -> None:
    wordings = sealed_wordings()
    assert set(wordings.of_relation) == set(BUNDLED.relations)
    assert all(len(set(of)) >= 2 and all("{subject}" in text for text in of) for of in wordings.of_relation.values())
    assert len(wordings.frames) >= 6 and all("{question}" in frame for frame in wordings.frames)


def test_forty_are_known_to_the_bundled_model() -> None:
    table = committed()
    entries = {(e["id"], e["form"]): e for e in table["answers"].values()}
    assert len(entries) == len(table["answers"]) == len(FORMS) * len(SEALED)
    for fact in SEALED:
        for form in FORMS:
            entry = entries[fact.id, form]
            assert (entry["asked"], entry["judge"]) == (asked_text(fact, form), judge_key(fact))
    known = [fact for fact in SEALED if entries[fact.id, "chat"]["known"]]
    assert len(known) >= 40 and len({fact.relation for fact in known}) >= 6


def test_a_pool_with_sealed_facts_draws_none_of_them() -> None:
    pool = BUNDLED + SEALED
    assert len(pool) == len(BUNDLED) + len(SEALED)
    assert pool.core.ids == BUNDLED.core.ids and pool.filter(split="test").ids == BUNDLED.filter(split="test").ids
    for fact in random.Random(0).sample(list(BUNDLED), 30):
        assert pool.neighbours(fact).ids == BUNDLED.neighbours(fact).ids
    assert SEALED.core.ids == SEALED.ids, "alone they are all there is"


def test_no_retain_set_holds_sealed_facts() -> None:
    model = knowing(tiny_llama(tied=False), capitals())
    secret = [capital("Peru", "Lima", "Rome", "sealed", "control"), capital("Chile", "Lima", "Rome", "sealed")]
    drawn = default_retain(model, capitals()[:1], pool=capitals() + secret, progress=False)
    assert drawn.ids == default_retain(model, capitals()[:1], pool=capitals(), progress=False).ids


def test_a_fact_is_asked_in_one_sealed_wording_of_its_relation() -> None:
    fact = BUNDLED["italy-capital"]
    reworded = asked_sealed(fact)
    written = sealed_wordings().of_relation["country-capital"]
    assert reworded.question in [text.replace("{subject}", "Italy") for text in written]
    assert (reworded.answer, reworded.id, reworded.split) == (fact.answer, fact.id, fact.split)
    other = asked_sealed(BUNDLED["spain-capital"])
    assert other.question.replace("Spain", "Italy") == reworded.question, "one wording a relation"
    assert {asked_sealed(fact, seed=s).question for s in range(20)} > {reworded.question}, "drawn by seed"
    assert reworded.question not in reworded.heldout
    assert not {reworded.question, *reworded.heldout} & {*fact.training_questions, *fact.heldout}


def test_an_edited_fact_keeps_its_training_questions() -> None:
    for fact in (SEALED[0], BUNDLED["italy-capital"], capital("Peru", "Lima", "Rome")):
        tested = with_sealed_heldout(fact)
        assert tested.training_questions == fact.training_questions
        assert not set(tested.heldout) & set(training_prompts(fact))
        assert len(tested.heldout) >= 8
    assert set(SEALED[0].heldout) < set(sealed_questions(SEALED[0]))
