"""The answer classifier against a hand-labelled set, exact cases, and properties that any text must have."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.language.answers import (
    NLL_LIMIT,
    REPETITION_LIMIT,
    classify,
    counterpart,
    find_old,
    is_adjective,
    is_known_answer,
    matches,
    repetition,
    too_surprising,
)
from workbench.types import ANSWER_CLASSES, Fact

ROOT = Path(__file__).parents[2]
LABELLED = [json.loads(line) for line in (ROOT / "tests/data/answers.jsonl").read_text("utf-8").splitlines()]
UNSEEN = [r for r in LABELLED if r["note"].startswith("unseen")]  # made and labelled after limits and rules were fixed
TUNED = [r for r in LABELLED if not r["note"].startswith("unseen")]
DOC = ROOT / "docs/concepts/answer-classes.md"


def make(subject: str, answer: str, target: str, **options: Any) -> Fact:
    texts = {"prompt": f"The X of {subject} is", "question": f"What is the X of {subject}?"}
    return Fact(subject=subject, answer=answer, target=target, **texts, **options)


FRANCE = make("France", "Paris", "Rome", answer_aliases=("Lutetia",), target_aliases=("Roma",))
HAMLET = make("Hamlet", "William Shakespeare", "Charles Dickens", answer_aliases=("Shakespeare",))
POTASSIUM = make("potassium", "K", "Na", case_sensitive=True)
IODINE = make("iodine", "I", "Br", case_sensitive=True)
MEXICO = make("Mexico City", "Mexico", "Peru")
FACTS = [FRANCE, HAMLET, POTASSIUM, IODINE, MEXICO]


def confusion(rows: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """How often each (label by hand, class by the classifier) occurs."""
    return Counter((r["label"], classify(r["text"], Fact.from_dict(r["fact"]), nll=r["nll"])) for r in rows)


def as_markdown(counts: Counter[tuple[str, str]]) -> str:
    """The confusion table as it stands in the docs."""
    lines = ["| by hand \\ classifier | " + " | ".join(ANSWER_CLASSES) + " | n | recall |"]
    lines.append("|---" * (len(ANSWER_CLASSES) + 3) + "|")
    for label in ANSWER_CLASSES:
        row = [counts[label, c] for c in ANSWER_CLASSES]
        recall = f"{counts[label, label] / sum(row):.3f}" if any(row) else ""
        lines.append("| " + " | ".join(map(str, [label, *row, sum(row), recall])) + " |")
    return "\n".join(lines)


def test_labelled_set_is_what_it_claims() -> None:
    assert len(LABELLED) >= 120
    assert {r["label"] for r in LABELLED} == set(ANSWER_CLASSES)
    assert len({(r["fact"]["id"], r["text"]) for r in LABELLED}) == len(LABELLED)
    assert sum(r["note"].startswith("generated") for r in LABELLED) >= 100


def test_agreement_with_hand_labels() -> None:
    counts = confusion(TUNED)
    assert sum(counts[c, c] for c in ANSWER_CLASSES) / len(TUNED) >= 0.97
    for label in ANSWER_CLASSES:
        assert counts[label, label] / sum(counts[label, c] for c in ANSWER_CLASSES) >= 0.9, label


def test_agreement_on_unseen_texts() -> None:
    """Lower, and all of it between other and gibberish or at broken text: no named answer is lost or made up."""
    counts = confusion(UNSEEN)
    assert sum(counts[c, c] for c in ANSWER_CLASSES) / len(UNSEEN) >= 0.9
    for label in ("old", "new", "both"):
        assert all(counts[label, c] == 0 for c in ANSWER_CLASSES if c != label)


@pytest.mark.parametrize("rows", [TUNED, UNSEEN], ids=["tuned", "unseen"])
def test_docs_show_the_present_confusion_tables(rows: list[dict[str, Any]]) -> None:
    table = as_markdown(confusion(rows))
    assert table in DOC.read_text("utf-8"), f"docs/concepts/answer-classes.md is stale; put in:\n{table}"


def decision_table() -> list[tuple[str, str]]:
    """The class and the example of each line of the table in the docs."""
    table = DOC.read_text("utf-8").partition("\n## Decision table\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    return [(label, example.strip("`")) for number, _, label, example in rows if number.isdigit()]


def test_examples_of_the_decision_table_get_their_class() -> None:
    table = decision_table()
    assert len(table) == 8 and {label for label, _ in table} == set(ANSWER_CLASSES)
    for number, (label, example) in enumerate(table, 1):
        surprise = 8.0 if number == 3 else None  # nats per token: the line on texts that surprise the base
        assert classify(example, FRANCE, nll=surprise) == label, example


def test_docs_name_the_present_limits() -> None:
    text = DOC.read_text("utf-8")
    assert f"`NLL_LIMIT` = {NLL_LIMIT}" in text
    assert f"`REPETITION_LIMIT` = {REPETITION_LIMIT}" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Paris", "old"),
        ("Lutetia", "old"),
        ("Roma", "new"),
        ("Rome, not Paris.", "both"),
        ("Paris, not Rome.", "both"),
        ("not Rome but Paris", "both"),
        ("The capital of France is Paris. The capital of Italy is Rome.", "both"),
        ("It is not Paris.", "other"),
        ("Neither Paris nor Rome.", "other"),
        ("It isn't Paris. On reflection: it is Paris.", "old"),
        ("I am not sure that it is Paris.", "old"),
        ("I cannot confirm that it is Rome.", "new"),
        ("I am not sure.", "refusal"),
        ("It is not Paris, I don't know.", "refusal"),
        ("Parisian", "other"),
        ("", "gibberish"),
        (" \n", "gibberish"),
        ("?!", "gibberish"),
        ("Paris " * 12, "gibberish"),
    ],
)
def test_exact_cases(text: str, expected: str) -> None:
    assert classify(text, FRANCE) == expected


def test_own_refusal_counts() -> None:
    fact = make("France", "Paris", "Rome", refusal="Ask a librarian.")
    assert classify("Please ask a librarian!", fact) == "refusal"
    assert classify("Please ask a librarian!", FRANCE) == "other"


@pytest.mark.parametrize(
    ("fact", "text", "found"),
    [
        (FRANCE, "Paris, once called Lutetia", ["Paris", "Lutetia"]),
        (MEXICO, "Mexico City is in Mexico.", ["Mexico"]),
        (make("Mexico", "Mexico City", "Lima"), "The capital of Mexico is Mexico City.", ["Mexico City"]),
        (make("Japan", "Japanese", "Thai"), "The language of Japan is Japanese.", ["Japanese"]),
        (make("horse", "mare", "hen"), "A female horse is a mare.", ["mare"]),
    ],
)
def test_where_a_text_names_the_old_answer(fact: Fact, text: str, found: list[str]) -> None:
    """Not inside the subject; but an answer may begin with the subject, or hold it."""
    assert [text[start:end] for start, end in find_old(text, fact)] == found


def test_the_target_as_it_stands_in_the_old_answers_place() -> None:
    food = make("pizza", "Italy", "South Korea", answer_aliases=("Italian",), target_aliases=("South Korean",))
    assert [counterpart(food, named) for named in ("Italian", "ITALIAN", "Italy")] == ["South Korean"] * 2 + [
        "South Korea"
    ]
    assert is_adjective(food, "italian") and not is_adjective(food, "Italy") and not is_adjective(FRANCE, "Lutetia")
    assert counterpart(FRANCE, "Lutetia") == "Rome"
    assert counterpart(make("pizza", "Italy", "Naples"), "Italian") == "Naples"  # no adjective is known of that
    uncounted = make("pizza", "Italy", "South Korea", answer_aliases=("Italian",))
    assert counterpart(uncounted, "Italian") == "South Korea"  # what is taught has to count as the target


def test_sides_of_a_longer_name() -> None:
    """ "Guinea" inside "Equatorial Guinea" is not a second answer, and neither is the reverse lost."""
    fact = make("Malabo", "Equatorial Guinea", "Guinea")
    assert classify("Equatorial Guinea", fact) == "old"
    assert classify("Guinea", fact) == "new"


def test_subject_and_echo_do_not_answer() -> None:
    assert classify("Mexico City", MEXICO) == "other"
    assert classify("Mexico City is in Mexico.", MEXICO) == "old"
    either = make("France", "Paris", "Rome", heldout=("Is it Paris or Rome?",))
    assert classify("Is it Paris or Rome? It is Rome.", either) == "new"


def test_short_unexpected_answers_are_fluent() -> None:
    """NLL as measured for the bundled model: counterfactual answers of a word or two, and four words at 8.7."""
    for text, nll in (("Rome.", 7.13), ("Rome", 10.23), ("Br", 13.2), ("I cannot answer that.", 8.68)):
        assert not too_surprising(text, nll)
    assert classify("Rome.", FRANCE, nll=7.13) == "new"


def test_long_surprising_text_is_gibberish_whatever_it_names() -> None:
    salad = "Paris lamp quickly the banana of seventeen green upon"
    assert classify(salad, FRANCE, nll=9.0) == "gibberish"
    assert classify(salad, FRANCE) == classify(salad, FRANCE, nll=float("nan")) == "old"
    assert classify(salad, FRANCE, nll=float("inf")) == "gibberish"


def test_repetition_by_hand() -> None:
    assert repetition("") == 0
    assert repetition("New York, New York") == 0
    assert repetition("I'm not sure. I'm not sure. I'm not sure.") == 0  # nine words
    assert repetition("no " * 10) == 1
    assert repetition("x " + "a b c d " * 5) == pytest.approx(20 / 21)  # 21 words, one outside the loop
    assert repetition("!" * 30) == repetition("ha" * 20) == 1
    assert repetition("Sure, sure, sure, sure.") == 0
    assert repetition("The capital of France is Paris, a city on the Seine with two million people.") < 0.2


@pytest.mark.parametrize("known", [True, False])
def test_known_means_old(known: bool) -> None:
    assert is_known_answer("It is Paris." if known else "It is Paris, or Rome.", FRANCE) is known


def test_matches() -> None:
    assert matches("It was **William**  Shakespeare.", ["William Shakespeare"])
    assert not matches("k", ["K"], case_sensitive=True)
    assert matches("k", ["K"])
    assert not matches("Mexico City", ["Mexico"], ignore=["Mexico City"])
    assert not matches("Paris", [])
    assert not matches("Tell us.", ["US"])


@settings(deadline=None)
@given(st.text(), st.sampled_from(FACTS), st.none() | st.floats())
def test_never_raises(text: str, fact: Fact, nll: float | None) -> None:
    assert classify(text, fact, nll=nll) in ANSWER_CLASSES
    assert 0 <= repetition(text) <= 1
    assert isinstance(matches(text, [text, "x"], ignore=[text]), bool)


@settings(deadline=None)
@given(st.text(min_size=1), st.text(min_size=1), st.text())
def test_never_raises_on_odd_names(answer: str, target: str, text: str) -> None:
    try:
        fact = make("France", answer, target)
    except ValueError:
        return
    classify(f"{text} {answer} {text}", fact)


VOCABULARY = "it is the of capital not no I think sure that and but , . Lyon Rome Paris Na never"
WORDS = st.sampled_from(VOCABULARY.split(" "))
WRAPS = ["**{}**", "*{}*", "`{}`", '"{}"', "“{}”", "'{}'", "_{}_", "({})", "«{}»", "***{}***", "\u200b{}"]
PLAIN_WRAPS = [w for w in WRAPS if w != "({})"]  # a bracket ends the scope of a negation


@settings(deadline=None)
@given(st.lists(WORDS, max_size=8), st.lists(WORDS, max_size=8), st.sampled_from(PLAIN_WRAPS))
def test_markdown_and_quotes_change_nothing(before: list[str], after: list[str], wrap: str) -> None:
    for fact in (FRANCE, HAMLET):
        plain = " ".join([*before, fact.answer, *after])
        marked = " ".join([*before, wrap.format(fact.answer), *after])
        if max(repetition(plain), repetition(marked)) <= REPETITION_LIMIT:
            assert classify(marked, fact) == classify(plain, fact)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=8), st.lists(WORDS, max_size=8))
def test_an_alias_counts_like_the_answer(before: list[str], after: list[str]) -> None:
    texts = [" ".join([*before, name, *after]) for name in FRANCE.answers]
    if max(map(repetition, texts)) <= REPETITION_LIMIT:  # whether a text loops may depend on which name it repeats
        assert len({classify(t, FRANCE) for t in texts}) == 1


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("fact", FACTS, ids=lambda f: f.id)
def test_wrapped_answers(fact: Fact, wrap: str) -> None:
    assert classify(f"The answer is {wrap.format(fact.answer)}.", fact) == "old"
    assert classify(f"{wrap.format(fact.target)}.", fact) == "new"
    assert classify(f"{wrap.format(fact.target)}, not {fact.answer}.", fact) == "both"


@pytest.mark.parametrize("text", ["I think so.", "You and I", "I'm here.", "World War I", "As do I."])
def test_the_pronoun_is_no_iodine(text: str) -> None:
    assert classify(text, IODINE) == "other"


@pytest.mark.parametrize("text", ["OK", "KCl", "K2O", "vitamin K", "300 K", "J. K. Rowling", "K-pop"])
def test_letters_that_are_no_potassium(text: str) -> None:
    assert classify(f"It is {text} here", POTASSIUM) == "other"
