"""The bundled facts, and the committed table of what the bundled model knows of them."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiny import loaded, tiny_llama
from tests.helpers.tiny_facts import capital
from workbench.facts.known import load_facts, measure_known
from workbench.facts.known_table import FORMS, TABLE_VERSION, asked_text, committed_table_path, judge_key, judged
from workbench.facts.training_wordings import training_prompts
from workbench.language.answers import adjectives
from workbench.types import Fact, FactSet

TABLES = Path(__file__).parents[2] / "workbench" / "facts" / "data" / "known"


def tables() -> list[dict[str, Any]]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(TABLES.glob("*.json"))]


def normal(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().casefold()


def test_size_of_the_bundled_set(facts: FactSet) -> None:
    assert len(facts) >= 400
    assert len(facts.relations) >= 12
    assert load_facts() is facts or load_facts().ids == facts.ids
    assert "france-capital" in facts
    assert facts["france-capital"].answer == "Paris"
    assert facts["france-capital"].target == "Rome"


def test_every_bundled_fact_is_complete(facts: FactSet) -> None:
    for f in facts:
        assert len(f.training_questions) >= 8, f.id
        assert len(f.heldout) >= 8, f.id
        assert len(f.cloze_paraphrases) >= 2, f.id
        assert f.relation, f.id
        assert f.split in ("dev", "test"), f.id
        assert f.role in ("retain", "control", "related"), f.id
        assert f.refusal.startswith("I am not sure"), f.id
        everything = (*f.training_questions, *f.heldout, f.prompt, *f.cloze_paraphrases)
        assert len({normal(q) for q in everything}) == len(everything), f"{f.id} asks one thing twice"
        assert "{" not in "".join((*everything, f.refusal)), f.id


def test_the_subject_is_in_every_question(facts: FactSet) -> None:
    for f in facts:
        for text in (*f.training_questions, *f.heldout, f.prompt, *f.cloze_paraphrases, f.refusal):
            assert f.subject in text, (f.id, text)


def test_no_bundled_text_gives_its_answer_away(facts: FactSet) -> None:
    """Besides the subject, no question holds the answer or the target."""
    for f in facts:
        for text in (*f.training_questions, *f.heldout, f.prompt, *f.cloze_paraphrases):
            rest = text.replace(f.subject, " ")
            for name in (*f.answers, *f.targets):
                assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", rest), (f.id, name, text)


def test_no_subject_carries_its_answer_in_the_models_own_words(facts: FactSet) -> None:
    """A fact said like "The Great Wall of China is in ..." names its old answer whatever comes after it, so neither an
    edit nor harm could show. Retained facts are never judged."""
    (table,) = tables()
    texts = {e["id"]: e["text"] for e in table["answers"].values() if e["form"] == "chat"}
    for f in facts.filter(role="control"):
        said = texts[f.id]
        for name in f.answers:
            assert not re.match(rf"(the )?{re.escape(f.subject)} of {re.escape(name)}\b", said, re.IGNORECASE), f.id


def test_bundled_answers_and_targets_are_different(facts: FactSet) -> None:
    for f in facts:
        old, new = ({name.casefold() for name in names} for names in (f.answers, f.targets))
        assert not old & new, f.id
        assert f.subject.casefold() not in new, f.id


def test_bundled_targets_are_of_the_answers_type(facts: FactSet) -> None:
    """A target is mostly another fact's answer of the same relation."""
    for relation in facts.relations:
        group = facts.filter(relation=relation)
        answers = {a.casefold() for f in group for a in f.answers}
        share = sum(f.target.casefold() in answers for f in group) / len(group)
        assert share >= 0.5, relation


def test_countries_and_continents_are_named_by_their_adjectives(facts: FactSet) -> None:
    """All of them, with adjectives that no two share."""
    known = adjectives()
    forms = [form for names in known.values() for form in names]
    assert len(forms) == len(set(forms)) and not set(forms) & set(known)
    seen: set[str] = set()
    for fact in facts:
        if fact.relation.rpartition("-")[2] in ("country", "continent"):
            seen |= {fact.answer, fact.target}
            assert set(known[fact.answer]) <= set(fact.answer_aliases), fact.id
            assert set(known[fact.target]) <= set(fact.target_aliases), fact.id
    assert seen == set(known)


def test_one_subject_has_one_fact_a_relation(facts: FactSet) -> None:
    counts = Counter((f.relation, f.subject) for f in facts)
    assert max(counts.values()) == 1
    assert len(set(facts.ids)) == len(facts)


def test_heldout_templates_are_trained_on_for_no_fact(facts: FactSet) -> None:
    """Not only for the same fact: as a template, with the subject cut out."""

    def template(fact: Fact, text: str) -> str:
        return normal(text.replace(fact.subject, "{}"))

    trained = {template(f, q) for f in facts for q in f.training_questions}
    held = {template(f, q) for f in facts for q in f.heldout}
    assert not trained & held
    assert not {normal(q) for f in facts for q in f.training_questions} & {normal(q) for f in facts for q in f.heldout}


def test_no_context_makes_a_heldout_question(facts: FactSet) -> None:
    for fact in facts:
        bare = Fact.from_dict(fact.to_dict() | {"heldout": ()})
        assert not set(training_prompts(bare)) & set(fact.heldout), fact.id


def test_retained_facts_are_dev_facts_and_both_kinds_are_many(facts: FactSet) -> None:
    """Controls come from the test split, so nothing that may be retained is among them."""
    counts = Counter((f.split, f.role) for f in facts)
    assert {role for _, role in counts} == {"retain", "control", "related"}
    assert {split for split, role in counts if role == "retain"} == {"dev"}
    assert len(facts.filter(split="test").relations) >= 12
    assert len(facts.filter(split="dev")) >= 20
    assert len(facts.filter(role="retain").relations) >= 8
    assert len(facts.filter(role="retain")) >= 40


def test_related_facts_are_part_of_nothing_else(facts: FactSet) -> None:
    """The others are what they were, come first, and have the neighbours that they had."""
    assert facts.core.ids == facts.ids[: len(facts.core)] and len(facts.core) == 932
    assert len(facts.filter(role="related")) >= 200
    for f in random.Random(0).sample(list(facts.core), 40):
        assert "related" not in {other.role for other in facts.neighbours(f)}
    assert facts.neighbours(facts["france-capital"]).ids == facts.core.neighbours(facts["france-capital"]).ids
    own = next(f for f in facts if f.role == "related" and f.relation not in facts.core.relations)
    assert {other.role for other in facts.neighbours(own)} == {"related"}
    plain = capital("Peru", "Lima", "Oslo", relation=own.relation)
    assert {other.role for other in facts.neighbours(plain)} == {"related"}, "there are no others"


def test_a_hundred_subjects_have_three_known_relations(facts: FactSet) -> None:
    (table,) = tables()
    chat = {e["id"] for e in table["answers"].values() if e["form"] == "chat" and e["known"]}
    relations: dict[str, set[str]] = {}
    for f in facts:
        if f.id in chat:
            relations.setdefault(f.subject.removeprefix("the "), set()).add(f.relation)
    assert sum(len(of) >= 3 for of in relations.values()) >= 100
    assert {f.id for f in facts if f.role == "related"} <= chat


def test_bundled_neighbours_never_have_the_target_as_answer(facts: FactSet) -> None:
    for f in random.Random(0).sample(list(facts), 40):
        for other in facts.neighbours(f):
            assert not {a.casefold() for a in other.answers} & {t.casefold() for t in f.targets}
            assert other.relation == f.relation


# The committed table


def test_the_committed_table_covers_all_facts(facts: FactSet) -> None:
    (table,) = tables()
    assert (table["version"], committed_table_path(table["fingerprint"]).is_file()) == (TABLE_VERSION, True)
    entries = {(e["id"], e["form"]): e for e in table["answers"].values()}
    assert len(entries) == len(table["answers"]) == len(FORMS) * len(facts)
    for fact in facts:
        for form in FORMS:
            entry = entries[fact.id, form]
            assert entry["asked"] == asked_text(fact, form)
            assert entry["judge"] == judge_key(fact), "judge the table anew: python -m benchmarks.known_table --texts"


def test_the_bundled_model_knows_enough(facts: FactSet) -> None:
    (table,) = tables()
    for form in FORMS:
        known = {e["id"] for e in table["answers"].values() if e["form"] == form and e["known"]}
        assert len(known) >= 100, form
    chat = {e["id"] for e in table["answers"].values() if e["form"] == "chat" and e["known"]}
    controls = facts.filter(split="test", role="control", ids=chat)
    assert len(controls) >= 40


def test_the_committed_statuses_are_those_of_the_classifier(facts: FactSet) -> None:
    (table,) = tables()
    model = loaded(tiny_llama())  # any with a chat template reads a text the same
    for entry in table["answers"].values():
        assert judged(model, facts[entry["id"]], entry["form"], entry["text"]) == entry


@pytest.mark.model
def test_the_table_is_the_bundled_models(model: Any) -> None:
    (table,) = tables()
    assert table["fingerprint"] == model.fingerprint


@pytest.mark.model
def test_a_sample_of_the_table_measured_again(model: Any, facts: FactSet) -> None:
    """Padding changes logits by about 1e-4, which may flip one near tie."""
    sample = random.Random(0).sample(list(facts), 24)
    again = measure_known(model, sample, progress=False)
    (table,) = tables()
    flips = [entry for key, entry in again.items() if entry["known"] != table["answers"][key]["known"]]
    assert len(again) == 48
    assert len(flips) <= 1, flips
