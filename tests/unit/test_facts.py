"""Facts, sets of facts, the bundled set, and the committed table of what the bundled model knows."""

from __future__ import annotations

import hashlib
import json
import random
import re
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.mistyped import mistyped
from tests.helpers.tiny import loaded, tiny_llama, tiny_tokenizer
from tests.helpers.tiny_facts import capital, capitals, knowing
from workbench.facts.known import known_facts, load_facts, measure_known
from workbench.facts.known_table import (
    FORMS,
    TABLE_VERSION,
    answer_keys,
    asked_text,
    committed_table_path,
    judge_key,
    judged,
    known_on_record,
    known_table,
)
from workbench.facts.training_wordings import training_prompts
from workbench.language.answers import adjectives, first_sentence
from workbench.models.load import LoadedModel, load_model
from workbench.types import Fact, FactSet, slug
from workbench.types.fact import as_facts
from workbench.types.mentions import find_subject

FRANCE: dict[str, Any] = {
    "subject": "France",
    "prompt": "The capital of France is",
    "question": "What is the capital of France?",
    "answer": "Paris",
    "target": "Rome",
}
TABLES = Path(__file__).parents[2] / "workbench" / "facts" / "data" / "known"


def test_five_fields_are_enough() -> None:
    fact = Fact(**FRANCE)
    assert fact.id == "france"
    assert fact.training_questions == ("What is the capital of France?",)
    assert fact.answers == ("Paris",)
    assert fact.targets == ("Rome",)
    assert fact.refusal
    assert fact.split is fact.role is None
    assert Fact.from_dict(fact.to_dict()) == fact
    assert json.loads(json.dumps(fact.to_dict())) == fact.to_dict()


def test_topics() -> None:
    fact = Fact(**FRANCE)
    assert fact.topic == "the capital of France"
    clozes = {
        "the currency of Japan is the": "the currency of Japan",
        "The author of Hamlet was": "the author of Hamlet",
    }
    for cloze, topic in clozes.items():
        assert Fact.from_dict(fact.to_dict() | {"subject": cloze.split()[-2], "prompt": cloze}).topic == topic
    told = Fact.from_dict(fact.to_dict() | {"prompt": "France has its capital in"})
    assert told.topic is None
    assert Fact.from_dict(told.to_dict() | {"cloze_paraphrases": ("The main city of France is",)}).topic == (
        "the main city of France"
    )


def test_ids_come_from_subject_and_relation() -> None:
    assert Fact(**FRANCE, relation="country-capital").id == "france-country-capital"
    assert slug("The Eiffel Tower!") == "the-eiffel-tower"
    assert slug("São Paulo") == slug("Sa\u0303o  Paulo") == "são-paulo"


def test_facts_of_any_script_have_ids_of_their_own() -> None:
    names = [
        "東京",
        "大阪",
        "की",
        "का",
        "القاهرة",
        "الرباط",
        "Łódź",
        "Lodz",
        "♠",
        "♥",
        "🇫🇷 flag",
        "🇩🇪 flag",
        "Київ",
        "Киев",
    ]
    asked: dict[str, Any] = {"question": "?", "answer": "1", "target": "2"}
    facts = FactSet(Fact(subject=name, prompt=f"{name} :", **asked) for name in names)
    assert len(set(facts.ids)) == len(names) and facts.ids[0] == "東京"


def test_ids_of_ascii_texts_are_what_they_were() -> None:
    for text in ("The Louvre", "C++", "AC/DC", "  x  ", "1,000", "!!!", "", "O'Brien"):
        assert slug(text) == (re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "fact")
    assert hashlib.sha256("\n".join(load_facts().core.ids).encode()).hexdigest()[:12] == "7d5f5884fa3f"


def test_texts_are_kept_in_the_composed_form() -> None:
    parts: dict[str, Any] = {
        "prompt": "Sa\u0303o Paulo is",
        "question": "Sa\u0303o Paulo?",
        "answer": "Jose\u0301",
        "target": "Zoe\u0308",
    }
    fact = Fact(subject="São Paulo", **parts, answer_aliases=("Jose\u0301 I",))
    assert fact.prompt == "São Paulo is" and fact.answer == "José" and fact.answer_aliases == ("José I",)
    assert Fact.from_dict(fact.to_dict()) == fact
    assert Fact(subject="Sa\u0303o Paulo", **parts, answer_aliases=("José I",)) == fact


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": "Spain"}, "subject 'Spain' is not in the prompt 'The capital of France is'"),
        ({"subject": "france"}, "not in the prompt.*same case"),
        ({"answer": " Paris"}, "Fact.answer is ' Paris': a space at either end.*Write 'Paris'"),
        ({"answer": "Paris "}, "Fact.answer is 'Paris '"),
        ({"answer": "\nParis"}, "Fact.answer"),
        ({"answer": ""}, "Fact.answer is empty"),
        ({"answer": "  "}, "Fact.answer is empty"),
        ({"target": ""}, "Fact.target is empty"),
        ({"target": " Rome"}, "Fact.target is ' Rome'"),
        ({"prompt": "The capital of France is "}, "Fact.prompt is .*space"),
        ({"question": " "}, "Fact.question is empty"),
        ({"subject": ""}, "Fact.subject is empty"),
        ({"refusal": ""}, "Fact.refusal is empty"),
        ({"target": "Paris"}, "Answer and target are both 'Paris'"),
        ({"target": "paris"}, "Answer and target are both"),
        ({"target": "Pàris"}, "Answer and target are one answer to whoever reads them"),
        ({"answer": "\u200b"}, "Fact.answer is empty"),
        ({"subject": "Franc"}, r"only inside a longer word \('France'\).*Write the whole word"),
        ({"subject": "foot", "prompt": "The word for football is"}, r"only inside a longer word \('football'\)"),
        ({"subject": "Paris", "prompt": "The Parisian metro is"}, "only inside a longer word"),
        ({"subject": "1", "prompt": "The number 1,000 is"}, "only inside a longer word"),
        ({"subject": "프랑", "prompt": "프랑스의 수도는"}, "only inside a longer word"),
        ({"split": "train"}, r"Fact.split must be one of \('dev', 'test', 'sealed'\) or None, got 'train'"),
        ({"role": "neighbour"}, "Fact.role must be one of"),
        ({"heldout": (FRANCE["question"],)}, "Held-out questions must not be training questions.*What is the capital"),
        ({"heldout": ("Q?",), "paraphrases": ("Q?",)}, r"these are both: \['Q\?'\]"),
    ],
)
def test_bad_facts(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fact(**{**FRANCE, **change})


@pytest.mark.parametrize(
    "given", [None, "france-capital", 3, ["france-capital"], [capital("France", "Paris", "Rome"), None]]
)
def test_where_facts_are_taken_something_else_is_named(given: Any) -> None:
    with pytest.raises(TypeError, match=r"takes a Fact, or several, got (None|'france-capital'|3); an id is looked up"):
        as_facts(given)


@pytest.mark.parametrize(
    ("subject", "prompt"),
    [
        ("法国", "法国的首都是"),
        ("프랑스", "프랑스의 수도는"),
        ("He", "He is the symbol of"),
        ("foot", "The football and the foot are"),
        ("Yahoo!", "Yahoo!'s founder is"),
        ("ปารีส", "เมืองปารีสอยู่ใน"),
        ("Queen", "The band (Queen) is from"),
    ],
)
def test_subjects_that_stand_alone(subject: str, prompt: str) -> None:
    """What a fact takes as its subject is what a trace finds."""
    fact = Fact(subject=subject, prompt=prompt, question="?", answer="1", target="2")
    assert find_subject(fact.prompt, fact.subject)


def test_values_of_a_wrong_type() -> None:
    with pytest.raises(TypeError, match=r"Fact.answer must be a string, got 3"):
        Fact(**{**FRANCE, "answer": 3})
    with pytest.raises(TypeError, match=r"Fact.heldout must be a list of strings, got the string 'Q\?'"):
        Fact(**FRANCE, heldout=mistyped("Q?"))


def test_from_dict_names_missing_and_unknown_fields() -> None:
    with pytest.raises(ValueError, match=r"missing: \['answer', 'target'\]"):
        Fact.from_dict({k: FRANCE[k] for k in ("subject", "prompt", "question")})
    with pytest.raises(ValueError, match=r"Unknown field\(s\) \['anwser'\] in a fact; allowed are"):
        Fact.from_dict({**FRANCE, "anwser": "Paris"})


def test_lookups() -> None:
    facts = capitals()
    assert facts["spain-capital"].answer == "Madrid"
    assert facts[0] is facts["france-capital"]
    assert facts[-1].subject == "Japan"
    assert facts[1:3].ids == ("italy-capital", "spain-capital")
    assert isinstance(facts[1:3], FactSet)
    assert "spain-capital" in facts
    assert facts[2] in facts
    assert "spain" not in facts
    assert facts.relations == ("capital",)
    assert list(facts.to_frame().id) == list(facts.ids)


def test_an_unknown_id_shows_near_matches() -> None:
    with pytest.raises(KeyError, match=r"No fact with the id 'frence-capital' among the 5.*'france-capital'"):
        capitals()["frence-capital"]
    with pytest.raises(KeyError) as caught:
        capitals()["zzzzzzzz"]
    assert "Did you mean" not in str(caught.value)
    with pytest.raises(KeyError, match=r"Did you mean 'france-capital'"):
        capitals().filter(ids=["france-capitl"])


def test_ids_are_unique() -> None:
    fact = capitals()[0]
    with pytest.raises(ValueError, match=r"more than once: \['france-capital'\]"):
        FactSet([fact, fact])


def test_filter() -> None:
    facts = capitals()
    assert facts.filter(split="test", role="retain").ids == ("germany-capital", "japan-capital")
    assert facts.filter(lambda f: "a" in f.answer, exclude=["france-capital"]).ids == ("spain-capital",)
    assert facts.filter(ids=["japan-capital", "italy-capital"]).ids == ("italy-capital", "japan-capital")
    assert facts.filter(relation="capital").ids == facts.ids
    with pytest.raises(ValueError, match=r"No relation 'author' in 'capitals'; there are \['capital'\]"):
        facts.filter(relation="author")


def test_adding_sets_keeps_each_fact_once() -> None:
    facts = capitals()
    assert (facts[:2] + facts[1:4]).ids == facts.ids[:4]


def test_neighbours_leave_out_those_whose_answer_is_the_target() -> None:
    facts = capitals()
    france = facts["france-capital"]  # its target is Rome, Italy's answer
    assert facts.neighbours(france).ids == ("spain-capital", "germany-capital", "japan-capital")


def test_neighbours_know_aliases_subjects_and_relations() -> None:
    france = capital("France", "Paris", "Rome", target_aliases=("Roma",))
    roma = capital("Italy", "ROMA", "Madrid")
    again = capital("France", "Paris", "Berlin", id="france-again")
    other = capital("Japan", "Tokyo", "Paris", relation="city")
    assert FactSet([france, roma, again, other]).neighbours(france).ids == ()
    lone = Fact(**FRANCE)
    assert FactSet([lone, Fact(**FRANCE, id="b")]).neighbours(lone).ids == ()


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"id": "france-capital", "subject": "Gaul", "prompt": "Gaul's capital is"}, True),
        ({"relation": "", "subject": "france", "prompt": "la capitale de la france :"}, True),  # a fact of one's own
        ({"relation": "", "answer": "Lutetia", "answer_aliases": ("PARIS",)}, True),
        ({"relation": "", "answer": "Lyon"}, False),  # another fact about France
        ({"answer": "Lyon"}, True),  # a relation has one answer
        ({"relation": "largest-city"}, False),
        ({"relation": "largest-city", "question": "Where is the capital of France?"}, True),  # held out there
        ({"subject": "Spain", "prompt": "Spain's capital is"}, False),
    ],
)
def test_facts_that_overlap(changes: dict[str, Any], same: bool) -> None:
    france = capital("France", "Paris", "Rome")
    texts = {"question": "What city governs it?", "paraphrases": (), "heldout": ()}
    other = Fact(**{**capital("France", "Paris", "Berlin", id="other", **texts).to_dict(), **changes})
    assert france.overlaps(other) is other.overlaps(france) is same
    pool = FactSet([other, capital("Italy", "Rome", "Madrid")])
    assert pool.without([france]).ids == (("italy-capital",) if same else (other.id, "italy-capital"))


def test_facts_without_those_of_an_id_and_what_overlaps_them() -> None:
    twin = Fact(id="twin", subject="Spain", prompt="Spain's capital is", question="?", answer="Madrid", target="Rome")
    pool = FactSet([*capitals(), twin])
    assert pool.without([], ["spain-capital", "nobody"]).ids == tuple(i for i in capitals().ids if i != "spain-capital")


# The bundled set


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


# What a model knows


def tables() -> list[dict[str, Any]]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(TABLES.glob("*.json"))]


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


def test_the_judge_changes_with_everything_that_an_answer_is_judged_by(monkeypatch: pytest.MonkeyPatch) -> None:
    base: dict[str, Any] = {"answer": "Paris", "target": "Rome"}
    keys = {judge_key(capital("France", **base))}
    for change in (
        {"answer": "Lyon"},
        {"answer_aliases": ("Lutetia",)},
        {"target": "Milan"},
        {"case_sensitive": True},
        {"heldout": ("Which city?",)},
        {"refusal": "Nobody knows."},
    ):
        keys.add(judge_key(capital("France", **base | change)))
    monkeypatch.setattr("workbench.facts.known_table.CLASSIFIER_VERSION", 99)
    keys.add(judge_key(capital("France", **base)))
    assert len(keys) == 8


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        (" Paris. It is large.", "Paris."),
        ("Paris\nRome", "Paris"),
        ("Paris! Or so", "Paris!"),
        ("Paris; Rome", "Paris;"),
        ("St. Petersburg. It is large.", "St. Petersburg."),
        ("J.R.R. Tolkien, F. Scott Fitzgerald? Or both", "J.R.R. Tolkien, F. Scott Fitzgerald?"),
        ("Lansing, of the U.S. state of Michigan. It is", "Lansing, of the U.S. state of Michigan."),
        ("the FBI. It is", "the FBI."),
        ("Paris", "Paris"),
        ("", ""),
    ],
)
def test_what_counts_of_a_cloze(text: str, counted: str) -> None:
    assert first_sentence(text) == counted


def test_known_facts_of_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows what it was set up to know; the second call reads the cache."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    taught = capitals()
    model = knowing(tiny_llama(tied=False), taught[:3])
    known = known_facts(model, taught, progress=False)
    assert known.ids == taught.ids[:3]
    assert known.forms == {i: ("chat", "cloze") for i in taught.ids[:3]}
    assert len(known_table(model)) == 10

    def no_asking(*args: Any, **options: Any) -> None:
        raise AssertionError("the cache was not used")

    monkeypatch.setattr("workbench.facts.known.measure_known", no_asking)
    assert known_facts(model, taught, form="any", progress=False).ids == known.ids
    with pytest.raises(AssertionError):
        known_facts(model, taught, use_cache=False, progress=False)


def test_the_cache_belongs_to_one_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another template, another of its options, other stop tokens, another length: the model is asked again. What it
    said is judged anew for other answers to the same question, without asking."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    taught = capitals()
    hf = knowing(tiny_llama(tied=False), taught).hf
    asked: list[str] = []

    def counted(model: Any, facts: Any, **options: Any) -> Any:
        asked.append(model.name)
        return measure_known(model, facts, **options)

    monkeypatch.setattr("workbench.facts.known.measure_known", counted)

    def model(name: str, add: str = "", **options: Any) -> LoadedModel:
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n", f"assistant{add}\n")
        return load_model(hf, tokenizer=tokenizer, name=name, **options)

    def stopping_elsewhere() -> LoadedModel:
        other = model("stops")
        other.tokenizer.eos_token = "</s>"
        return other

    aware = "{{ ' (sure)' if sure else '' }}"
    for one in (
        model("first"),
        model("template", " now"),
        model("option off", aware),
        model("option on", aware, template={"sure": True}),
        model("system", template={"system": "Be brief."}),
        stopping_elsewhere(),
    ):
        for _ in range(2):
            known_facts(one, taught, progress=False)
    known_facts(model("longer"), taught, max_new_tokens=3, progress=False)
    # An option that is not given leaves the prompt as the first template writes it.
    assert asked == ["first", "template", "option on", "system", "stops", "longer"]
    renamed = FactSet([replace(f, answer="Nowhere", answer_aliases=(f.answer,)) for f in taught])
    assert known_facts(model("first"), renamed, progress=False).ids == taught.ids
    lost = FactSet([replace(f, answer="Nowhere") for f in taught])
    assert known_facts(model("first"), lost, progress=False).ids == ()
    assert len(asked) == 6


def test_what_is_on_record_is_told_without_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    taught = capitals()
    model = knowing(tiny_llama(tied=False), taught)
    assert known_on_record(model, taught) == dict.fromkeys(taught.ids)
    known_facts(model, taught[:2], progress=False)
    both = ("chat", "cloze")
    assert known_on_record(model, taught) == {**dict.fromkeys(taught.ids), **dict.fromkeys(taught.ids[:2], both)}


def test_the_committed_statuses_are_those_of_the_classifier(facts: FactSet) -> None:
    (table,) = tables()
    model = loaded(tiny_llama())  # any with a chat template reads a text the same
    for entry in table["answers"].values():
        assert judged(model, facts[entry["id"]], entry["form"], entry["text"]) == entry


def test_the_cache_belongs_to_one_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    taught = capitals()
    known_facts(knowing(tiny_llama(tied=False), taught), taught, progress=False)
    assert known_table(knowing(tiny_llama(seed=1, tied=False), taught)) == {}


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        '{"version": 1}',
        '{"version": 2, "fingerprint": "FINGERPRINT"}',
        '{"version": 2, "fingerprint": "FINGERPRINT", "answers": [1]}',
        '{"version": 2, "fingerprint": "FINGERPRINT", "answers": {"KEY": {"known": true}}}',
        '{"version": 2, "fingerprint": "FINGERPRINT", "answers": {"KEY": null}}',
        "[]",
        "null",
        "\xff",
    ],
)
def test_a_damaged_cache_is_measured_again(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    taught = capitals()
    model = knowing(tiny_llama(tied=False), taught)
    path = tmp_path / "known" / f"{model.fingerprint}.json"
    path.parent.mkdir()
    key = answer_keys(model, [("chat", taught[0].question)])[0]
    path.write_bytes(damage.replace("FINGERPRINT", model.fingerprint).replace("KEY", key).encode("latin-1"))
    assert known_facts(model, taught, progress=False).ids == taught.ids


@pytest.mark.parametrize("blocked", ["", "known"])
def test_a_cache_that_cannot_be_written_is_warned_of_once(
    blocked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is where the cache folder, or its folder of tables, should be."""
    folder = tmp_path / "cache"
    (folder / blocked).parent.mkdir(exist_ok=True)
    (folder / blocked).write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder))
    taught = capitals()
    model = knowing(tiny_llama(tied=False), taught)
    with pytest.warns(UserWarning, match=r"The cache folder .*cache cannot be written"):
        assert known_facts(model, taught, progress=False).ids == taught.ids
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert known_facts(model, taught, progress=False).ids == taught.ids


def test_known_facts_refuses_an_unknown_form() -> None:
    with pytest.raises(ValueError, match=r"form must be one of .*'chat', 'cloze', 'any'.*got 'plain'"):
        known_facts(mistyped(None), form=mistyped("plain"))


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
