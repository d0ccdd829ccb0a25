"""Texts as a model's tokenizer reads them: BOS, the tokens of a subject, and the tokens of an answer after a prompt."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import Any

import pytest

from tests.helpers.tiny import BOS, CHAT_TEMPLATE, loaded, tiny_gpt2, tiny_llama, tiny_tokenizer
from tests.helpers.tiny_facts import capital, capitals
from tests.helpers.tiny_tokenizers import INSTRUCT, beginning_with, joining, normalising, sentencepiece
from workbench.editing.training.rows import around_old, named_row
from workbench.language.answer_tokens import answer_ids, check_first_tokens, first_token
from workbench.language.prompts import prompt_ids, question_span, split_prompt, swapped_ids
from workbench.language.tokens import (
    SubjectNotNamed,
    beginning,
    decoded,
    following_ids,
    space_between,
    spans,
    subject_runs,
    token_texts,
)
from workbench.models.load import LoadedModel, load_model
from workbench.types import Fact


def model_of(tokenizer: Any, **options: Any) -> LoadedModel:
    return load_model(tiny_llama(), tokenizer=tokenizer, name="tiny", **options)


def names(model: LoadedModel, ids: list[int]) -> list[str]:
    return model.tokenizer.convert_ids_to_tokens(ids)


# BOS


@pytest.mark.parametrize("eos", [False, True])
def test_plain_text_begins_as_the_tokenizer_begins_it(eos: bool) -> None:
    model = model_of(beginning_with(BOS, eos=eos))
    own = list(model.tokenizer("The capital")["input_ids"])
    assert prompt_ids(model, "The capital", "cloze") == own[: len(own) - eos]
    assert names(model, prompt_ids(model, "What?", "chat"))[0] == BOS  # a plain-text stand-in for a template
    assert model.token_ids("The capital") == own[1 : len(own) - eos]


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, INSTRUCT, "{{ bos_token }}" + CHAT_TEMPLATE])
def test_a_template_has_bos_once(template: str) -> None:
    """Whether it writes it or the tokenizer does."""
    model = model_of(beginning_with(BOS, template=template))
    ids = names(model, prompt_ids(model, "What?", "chat"))
    assert (ids[0], ids.count(BOS)) == (BOS, 1)


def test_a_text_that_begins_with_bos_is_given_none() -> None:
    model = model_of(beginning_with(BOS))
    assert names(model, prompt_ids(model, f"{BOS}The", "cloze")) == [BOS, "The"]


def test_a_tokenizer_may_begin_with_several_tokens_or_none() -> None:
    assert beginning(model_of(beginning_with("<|im_start|>", BOS))) == (3, 1)
    assert beginning(loaded(tiny_llama())) == ()
    assert names(loaded(tiny_llama()), prompt_ids(loaded(tiny_llama()), "The", "cloze")) == ["The"]


def test_bos_is_a_token_and_no_part_of_a_subject() -> None:
    fact = Fact(subject="s", prompt="The letter s is", question="Is it s?", answer="Paris", target="Rome")
    model = model_of(beginning_with(BOS))
    tokens, subject = split_prompt(model, fact, "cloze")
    assert (tokens[0], [tokens[i] for i in subject]) == (BOS, [" s"])
    ids = prompt_ids(model, fact.prompt, "cloze")
    partner = capital("w", "Rome", "Paris", prompt="The letter w is")
    assert [a == b for a, b in zip(swapped_ids(model, fact, ids, partner), ids, strict=True)].count(False) == 1


# The tokens of a subject

WRITTEN = ("Łódź", "東京", "मुंबई", "🇫🇷", "👩‍🔬", "Sa\u0303o Tome\u0301", "กรุงเทพ", "서울", "القاهرة", "Zürich")


@pytest.mark.parametrize("subject", WRITTEN)
@pytest.mark.parametrize(
    "tokenizer", [tiny_tokenizer, sentencepiece, lambda: sentencepiece("never"), lambda: sentencepiece("first")]
)
def test_a_subject_has_the_tokens_of_the_tokenizers_own_offsets(subject: str, tokenizer: Any) -> None:
    model = model_of(tokenizer())
    text = f"The city of {subject} is in"
    encoded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    start = text.index(subject)
    true = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < start + len(subject) and b > start]
    assert [i for run in subject_runs(model, encoded["input_ids"], subject) for i in run] == true
    assert len(true) > 1


@pytest.mark.parametrize("subject", WRITTEN)
def test_every_byte_of_a_letter_stands_for_the_letter(subject: str) -> None:
    """With as many tokens as bytes, and with any of them missing at the end of the text."""
    model = loaded(tiny_llama())
    ids = model.token_ids(subject)
    places = spans(model, ids)
    assert places[0][0] == 0 and places[-1][1] == len(decoded(model, ids)) == len(subject)
    assert all(a < b and a <= c <= b for (a, b), (c, _) in pairwise(places))
    for cut in range(1, len(ids)):
        assert len(spans(model, ids[:cut])) == cut
        assert spans(model, ids, cut) == places[cut:]


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
@pytest.mark.parametrize("tokenizer", [tiny_tokenizer, normalising])
def test_a_subject_is_found_in_either_form(written: Any, asked: Any, tokenizer: Any) -> None:
    model = model_of(tokenizer())
    text, subject = (unicodedata.normalize(f, t) for f, t in ((written, "The São Tomé is"), (asked, "São Tomé")))
    ids = model.token_ids(text)
    (run,) = subject_runs(model, ids, subject)
    assert decoded(model, ids[run.start : run.stop]).strip() == decoded(model, ids[1:-1]).strip()


def test_a_language_without_spaces() -> None:
    model = loaded(tiny_llama())
    fact = Fact(subject="法国", prompt="法国的首都是", question="法国的首都是哪里？", answer="巴黎", target="罗马")
    ids = prompt_ids(model, fact.prompt, "cloze")
    assert [list(run) for run in subject_runs(model, ids, fact.subject)] == [list(range(6))]
    assert decoded(model, answer_ids(model, fact.answer, "cloze")) == "巴黎"
    assert decoded(model, answer_ids(model, fact.answer, "cloze", before=fact.prompt)) == "巴黎"
    assert around_old("我不知道。", fact) == ("法国的首都是", "巴黎", "")
    assert around_old("法国的首都是巴黎。", fact) == ("法国的首都是", "巴黎", "。")
    prompt = prompt_ids(model, fact.question, "chat")
    row = named_row(model, prompt, "法国的首都是", "罗马")
    assert decoded(model, row.answer) == "法国的首都是罗马" and decoded(model, row.counted) == "罗马"


def test_an_article_that_begins_a_sentence_is_the_subjects_own() -> None:
    model = loaded(tiny_llama())
    ids = model.token_ids("Where are the Philippines? The Philippines are in")
    for subject in ("the Philippines", "The Philippines"):
        runs = subject_runs(model, ids, subject)
        found = [decoded(model, ids[run.start : run.stop]).strip() for run in runs]
        assert found == ["the Philippines", "The Philippines"], subject
    with pytest.raises(SubjectNotNamed, match="is not in the text"):
        subject_runs(model, ids, "France")


def test_a_swap_puts_the_name_where_the_subject_is_named() -> None:
    """Whatever it is written like, and with what else its tokens hold."""
    model = loaded(tiny_llama())
    ids = model.token_ids("**(ZÜRICH)** is")
    partner = capital("Münich", "Rome", "Paris")
    fact = Fact(subject="Zürich", prompt="Zürich is", question="Zürich?", answer="Bern", target="Rome")
    assert decoded(model, swapped_ids(model, fact, ids, partner)) == "**(Münich)** is"


def test_the_question_is_found_in_its_prompt() -> None:
    for tokenizer in (tiny_tokenizer(), normalising(), sentencepiece(template=INSTRUCT)):
        model = model_of(tokenizer)
        question = "What is Sa\u0303o Tome\u0301?"
        span = question_span(model, question)
        ids = prompt_ids(model, question, "chat")
        assert 0 < span.start < span.stop < len(ids)
        assert unicodedata.normalize("NFC", decoded(model, ids[span.start : span.stop])).strip() == "What is São Tomé?"


# The tokens of an answer

AFTER = (
    ("The capital of France is", " Paris", ["▁Paris"]),
    ("The capital of France is (", "Paris", ["P", "Paris"]),
    ('The capital of France is "', "Paris", ["P", "Paris"]),
    ("The capital of France is\n", "Paris", ["P", "Paris"]),
)


@pytest.mark.parametrize("scheme", ["normalizer", "first", "always", "never"])
def test_an_answer_has_one_space_before_it(scheme: str) -> None:
    """Tokenised alone, " Paris" is "▁" and "▁Paris": a text with two spaces."""
    model = model_of(sentencepiece(scheme))
    for before, text, allowed in AFTER:
        whole = model.token_ids(f"{before}{text}")
        own = model.token_ids(before)
        assert following_ids(model, before, text) == whole[len(own) :]
        assert names(model, following_ids(model, before, text))[0] in allowed
    assert names(model, answer_ids(model, "Paris", "cloze")) == ["▁Paris"]
    assert names(model, [first_token(model, "Paris"), first_token(model, "Paris", space=False)]) == ["▁Paris", "Paris"]
    tokens = token_texts(model, prompt_ids(model, "The capital of France is", "cloze"))
    assert tokens[2:] == (" capital", " of", " France", " is")


def test_an_answer_after_a_template_that_writes_a_space() -> None:
    """What the template itself writes between its prompt and a reply."""
    model = model_of(sentencepiece(template=INSTRUCT))
    assert names(model, answer_ids(model, "Paris", "chat")) == ["▁Paris"]
    model = model_of(sentencepiece(template=CHAT_TEMPLATE))
    assert names(model, answer_ids(model, "Paris", "chat")) == ["Paris"]
    model = model_of(sentencepiece())
    assert names(model, answer_ids(model, "Paris", "chat")) == ["▁Paris"]  # "Answer: Paris"


@pytest.mark.parametrize("before", ["The city(", 'The city\n"'])
def test_a_token_across_the_cut_is_not_taken(before: str) -> None:
    """The prompt is given with its last sign as a token of its own; so the answer begins with a token of its own."""
    model = model_of(joining())
    sign = before[-1]
    assert f"{sign}P" in names(model, model.token_ids(f"{before}P"))
    assert names(model, following_ids(model, before, "Paris")) == list("Paris")


@pytest.mark.parametrize(
    ("before", "text", "space"),
    [
        ("The capital is", "Paris", " "),
        ("", "Paris", ""),
        ("The capital is ", "Paris", ""),
        ("The capital is\n", "Paris", ""),
        ("The capital (", "Paris", ""),
        ("The capital is “", "Paris", ""),
        ('The capital is "', "Paris", ""),
        ('It is called "Paris"', "Paris", " "),
        ("The capital is **", "Paris", ""),
        ("The capital is **Paris**", "Paris", " "),
        ("Answer:", "Paris", " "),
        ("法国的首都是", "巴黎", ""),
        ("法国的首都是：", "巴黎", ""),
        ("フランスの首都は「", "パリ", ""),
        ("เมืองหลวงคือ", "ปารีส", ""),
        ("프랑스의 수도는", "파리", " "),
        ("The capital of 日本 is", "東京", " "),
        ("It costs $", "5", ""),
    ],
)
def test_what_is_written_between_a_prompt_and_an_answer(before: str, text: str, space: str) -> None:
    assert space_between(before, text) == space


# The same texts as ever


def test_other_tokenizers_read_as_they_always_did() -> None:
    """A tokenizer without BOS whose words begin with their spaces: what is given alone is what is given in place."""
    model = loaded(tiny_gpt2(), chat=False)
    for fact in capitals():
        assert prompt_ids(model, fact.prompt, "cloze") == model.token_ids(fact.prompt)
        assert prompt_ids(model, fact.question, "chat") == model.token_ids(f"Question: {fact.question}\nAnswer:")
        assert answer_ids(model, fact.answer, "cloze") == model.token_ids(f" {fact.answer}")
        check_first_tokens(model, fact)
        ids = prompt_ids(model, fact.prompt, "cloze")
        assert token_texts(model, ids) == tuple(model.tokenizer.decode([i]) for i in ids)


BUNDLED = {
    "france-capital": ("504 3575 282 4649 314", "1780 314 260 3575 282 4649 47"),
    "gold-symbol": ("504 2819 3573 327 4231 314", "1780 314 260 2819 3573 327 4231 47"),
    "hamlet-author": ("504 1919 282 24630 314", "10576 4150 24630 47"),
    "japan-currency": ("504 9850 282 3085 314 260", "1780 314 260 9850 282 3085 47"),
    "mitsubishi-country": (
        "504 1478 1798 282 260 2727 44126 611 29740 314",
        "14413 1798 314 260 2727 44126 611 29740 429 47",
    ),
}


@pytest.mark.model
def test_the_bundled_models_prompts(model: LoadedModel) -> None:
    """To the token, as every stored number of the package was measured."""
    from workbench.facts.known import load_facts

    system = "1 9690 198 2683 359 253 5356 5646 11173 3365 3511 308 34519 28 7018 411 407 19712 8182"
    facts = load_facts()
    for name, (cloze, question) in BUNDLED.items():
        assert prompt_ids(model, facts[name].prompt, "cloze") == [*map(int, cloze.split())]
        chat = f"{system} 2 198 1 4093 198 {question} 2 198 1 520 9531 198"
        assert prompt_ids(model, facts[name].question, "chat") == [*map(int, chat.split())]
