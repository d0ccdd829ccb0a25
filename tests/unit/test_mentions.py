"""The matcher of names: hand-labelled texts in many scripts, exact spans, and what must hold for any text."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.language.answers import classify, find_old, first_sentence
from workbench.types import ANSWER_CLASSES, Fact
from workbench.types.flat_text import flatten
from workbench.types.mentions import find_mentions, find_subject

ROOT = Path(__file__).parents[2]
DATA = json.loads((ROOT / "tests/data/mentions.json").read_text("utf-8"))
FACTS = {name: Fact.from_dict(fact) for name, fact in DATA["facts"].items()}
TEXTS = [(FACTS[row["fact"]], row["text"], row["label"]) for row in DATA["texts"]]
NOT_READ = {"新德里在印度尼西亚。", "パリジャン", "Wiens Altstadt", "w Paryżu"}
"""Labelled texts that the page on answer classes names as weak spots."""
Form = Literal["NFC", "NFD"]
FORMS: tuple[Form, ...] = get_args(Form)
DOC = ROOT / "docs/concepts/answer-classes.md"


def found(text: str, *names: str, case_sensitive: bool = False) -> list[str]:
    """What of a text mentions one of the names."""
    return [text[start:end] for start, end in find_mentions(text, names, case_sensitive=case_sensitive)]


def as_markdown(counts: Counter[tuple[str, str]]) -> str:
    """The confusion table as it stands in the docs."""
    classes = [c for c in ANSWER_CLASSES if any(c in pair for pair in counts)]
    lines = ["| by hand \\ classifier | " + " | ".join(classes) + " | n |", "|---" * (len(classes) + 2) + "|"]
    for label in classes:
        row = [counts[label, c] for c in classes]
        lines.append("| " + " | ".join(map(str, [label, *row, sum(row)])) + " |")
    return "\n".join(lines)


def test_the_labelled_texts_are_what_the_page_says() -> None:
    assert DATA["licence"] == "CC0-1.0"
    assert len(TEXTS) >= 120 and len({(fact.id, text) for fact, text, _ in TEXTS}) == len(TEXTS)
    page = DOC.read_text("utf-8")
    assert f"{len(TEXTS)} texts about {len(FACTS)} facts" in page
    assert all(f"`{text}`" in page for text in NOT_READ)


def test_each_labelled_text_gets_its_class_but_for_the_named_weak_spots() -> None:
    wrong = {text for fact, text, label in TEXTS if classify(text, fact) != label}
    assert wrong == NOT_READ


def test_the_page_has_the_confusion_table_of_the_data() -> None:
    table = as_markdown(Counter((label, classify(text, fact)) for fact, text, label in TEXTS))
    assert table in DOC.read_text("utf-8"), f"docs/concepts/answer-classes.md is stale; put in:\n{table}"


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_unicode_change_no_class(form: Form) -> None:
    for fact, text, _ in TEXTS:
        assert classify(unicodedata.normalize(form, text), fact) == classify(text, fact), text


@pytest.mark.parametrize("wrap", ["**{}**", "“{}”", "({})", "\u2068{}\u2069", "A: {}"])
def test_what_stands_around_a_text_changes_no_class(wrap: str) -> None:
    for fact, text, _ in TEXTS:
        assert classify(wrap.format(text), fact) == classify(text, fact), text


def test_what_is_classified_as_named_is_also_found() -> None:
    for fact, text, _ in TEXTS:
        named = classify(text, fact)
        places = find_old(text, fact)
        assert places if named in ("old", "both") else not (named == "new" and places), text


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        # one spelling for another
        ("São Paulo", "Sao Paulo", ["São Paulo"]),
        ("Sa\u0303o Paulo", "São Paulo", ["Sa\u0303o Paulo"]),
        ("Łódź, Ærø", "Lodz", ["Łódź"]),
        ("Łódź, Ærø", "Aero", ["Ærø"]),
        ("Pa\u200bri\u00ads!", "Paris", ["Pa\u200bri\u00ads"]),
        ("ＰＡＲＩＳ", "Paris", ["ＰＡＲＩＳ"]),
        ("ﬁnland", "Finland", ["ﬁnland"]),
        ("O’Hara", "O'Hara", ["O’Hara"]),
        ("Jean\u2011Paul", "Jean Paul", ["Jean\u2011Paul"]),
        ("Austria–Hungary", "Austria-Hungary", ["Austria–Hungary"]),
        # markdown
        ("**New** **York**", "New York", ["New** **York"]),
        ("Pa**ris** is", "Paris", ["Pa**ris"]),
        ("a_Paris_b", "Paris", ["Paris"]),
        # case
        ("STRASSE", "Straße", ["STRASSE"]),
        ("Groß", "Gros", []),
        ("İSTANBUL ısparta", "Istanbul", ["İSTANBUL"]),
        ("İSTANBUL ısparta", "Isparta", ["ısparta"]),
        ("ΟΔΟΣ", "οδός", ["ΟΔΟΣ"]),
        # whole words, whole numbers
        ("Parisian", "Paris", []),
        ("football", "foot", []),
        ("1,000 and 1.5 and 11", "1", []),
        ("1 000, 1\u00a0000, 1’000 and 1 at 100", "1", ["1"]),
        ("300 000, not 000", "000", ["000"]),
        ("in 1889 300 men came", "1889", ["1889"]),
        ("-5 °C, **-5** and \u22125, pages 3-5", "5", ["5"]),
        ("It is \u22125 °C, 5 °C or 3-5 °C", "-5 °C", ["\u22125 °C"]),
        ("1889年", "1889", ["1889"]),
        ("١٨٨٩", "1889", ["١٨٨٩"]),
        ("दिल्ली", "दिल", []),
        ("दिल्ली में", "दिल्ली", ["दिल्ली"]),
        # scripts without spaces
        ("巴黎Paris是", "Paris", ["Paris"]),
        ("巴黎Paris是", "巴黎", ["巴黎"]),
        ("東京です", "東京", ["東京"]),
        ("ﾊﾟﾘ", "パリ", ["ﾊﾟﾘ"]),
        ("ウィリアムシェイクスピア", "ウィリアム・シェイクスピア", ["ウィリアムシェイクスピア"]),
        ("ไปปารีสกัน", "ปารีส", ["ปารีส"]),
        ("ปารีส", "ปาร", []),
        ("เกา", "กา", []),
        ("キャ", "キ", []),
        ("十三", "三", []),
        # Korean
        ("파리에서는", "파리", ["파리"]),
        ("Paris는", "Paris", ["Paris"]),
        ("프랑스어", "프랑스", []),
        ("1889년에", "1889", ["1889"]),
        # case endings
        ("в Париже", "Париж", ["Париже"]),
        ("из Нижнего Новгорода", "Нижний Новгород", ["Нижнего Новгорода"]),
        ("от Москвы", "Москва", ["Москвы"]),
        ("Королев", "Королёв", ["Королев"]),
        ("парижский", "Париж", []),
        ("της Αθήνας", "Αθήνα", ["Αθήνας"]),
        ("პარიზში", "პარიზი", ["პარიზში"]),
        ("Փարիզում", "Փարիզ", ["Փարիզում"]),
        ("ঢাকায় এবং প্যারিসের", "ঢাকা", ["ঢাকায়"]),
        ("ঢাকায় এবং প্যারিসের", "প্যারিস", ["প্যারিসের"]),
        ("பாரிஸில்", "பாரிஸ்", ["பாரிஸில்"]),
        ("Хельсинки, Баку", "Хельсинки", ["Хельсинки"]),
        # clitics
        ("والقاهرة", "القاهرة", ["القاهرة"]),
        ("للقاهرة", "القاهرة", ["لقاهرة"]),
        ("وباريس", "باريس", ["باريس"]),
        ("قاهرة", "القاهرة", []),
        ("שבפריז", "פריז", ["פריז"]),
        # apostrophes
        ("Paris'te", "Paris", ["Paris"]),
        ("Paris’s", "Paris", ["Paris"]),
    ],
)
def test_spans_of_the_text_as_it_was_given(text: str, name: str, expected: list[str]) -> None:
    assert found(text, name) == expected


def test_overlapping_mentions_are_one_and_the_order_is_that_of_the_text() -> None:
    assert found("Meta-AI, then Meta", "Meta", "Meta AI") == ["Meta-AI", "Meta"]
    assert find_mentions("Rome, Paris", ["Paris", "Rome"]) == [(0, 4), (6, 11)]
    assert find_mentions("Paris", "Paris") == [(0, 5)]


def test_nothing_is_mentioned_by_an_empty_name() -> None:
    assert find_mentions("Paris", ["", " ", "\u200b"]) == find_mentions("", ["Paris"]) == []


def test_ignored_phrases() -> None:
    assert find_mentions("Mexico City is in Mexico.", ["Mexico"], ignore=["Mexico City"]) == [(18, 24)]
    assert find_mentions("Paris", ["Paris"], ignore=["paris"]) == [(0, 5)]  # a name itself cannot be left out


def test_symbols_count_as_they_are_written_and_where_they_are_symbols() -> None:
    assert found("K or k", "K", case_sensitive=True) == ["K"]
    assert found("Tell us", "US") == [] and found("in the US", "US") == ["US"]
    assert found("He left", "He", case_sensitive=True) == []
    assert find_subject("He is the symbol of", "He") == [(0, 2)]  # a subject is no pronoun
    assert found("Москвы", "Москва", case_sensitive=True) == []


@settings(deadline=None)
@given(st.text())
def test_a_flat_text_keeps_the_way_back(text: str) -> None:
    flat = flatten(text)
    assert len(flat.text) == len(flat.folded)
    spans = [flat.given((i, i + 1)) for i in range(len(flat.text))]
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert spans == sorted(spans)


@settings(deadline=None)
@given(st.text(), st.text(max_size=4), st.text(max_size=8))
def test_spans_are_sorted_apart_and_name_the_name(text: str, name: str, after: str) -> None:
    whole = f"{text} {name} {after}"
    spans = find_mentions(whole, [name])
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert all(0 <= start < end <= len(whole) for start, end in spans)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["São Paulo", "서울", "दिल्ली", "القاهرة", "Αθήνα", "東京", "Київ", "Đà Nẵng"])
def test_both_forms_of_a_name_are_found_in_both_forms_of_a_text(name: str, form: Form) -> None:
    text = unicodedata.normalize(form, f"x {name}, y")
    for other in FORMS:
        assert found(text, unicodedata.normalize(other, name)) == [text[2:-3]]


def test_a_text_that_runs_on_to_a_next_question_is_judged_up_to_there() -> None:
    fact = FACTS["en"]
    on = "Paris\nQuestion: What is the capital of Italy?\nAnswer: Rome"
    assert classify(on, fact) == "old" and find_old(on, fact) == [(0, 5)]
    assert classify("Question: What is the capital of Italy?\nAnswer: Rome", fact) == "new"  # nothing stands before it


@pytest.mark.parametrize(
    ("text", "first"),
    [("巴黎。罗马在意大利。", "巴黎。"), ("パリ！ローマ", "パリ！"), ("باريس؟ روما", "باريس؟"), ("पेरिस। रोम", "पेरिस।")],
)
def test_first_sentences_of_other_scripts(text: str, first: str) -> None:
    assert first_sentence(text) == first


def test_an_untouched_fact_is_judged_by_what_was_taught() -> None:
    control = Fact(subject="Spain", prompt="The capital of Spain is", question="?", answer="Madrid", target="Berlin")
    edited = FACTS["en"]
    assert classify("Madrid, not Berlin", control) == "both"
    assert classify("Madrid, not Berlin", control, taught=[edited]) == "old"
    assert classify("Madrid or Rome", control, taught=[edited]) == "both"
    assert (
        classify("Rome", control, taught=[edited]) == "new" and classify("Berlin", control, taught=[edited]) == "other"
    )
    italy = Fact(subject="Italy", prompt="The capital of Italy is", question="?", answer="Rome", target="Oslo")
    assert classify("Rome", italy, taught=[edited]) == "old"  # its own answer is what another fact was taught


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("M*A*S*H", "The series M*A*S*H ran for years"),
        ("torch_geometric", "The package torch_geometric is for graphs"),
        ("torch_geometric", "**torch_geometric** is for graphs"),
        ("Rome", "It is R**om**e"),
    ],
)
def test_names_with_signs_of_emphasis_in_them(name: str, text: str) -> None:
    assert len(find_mentions(text, [name])) == len(find_subject(text, name)) == 1
