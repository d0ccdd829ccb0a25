"""Chat templates and what of a reply counts: options, thoughts, ends of turns, base models, a model's positions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny import CHAT_TEMPLATE, loaded, tiny_gpt2, tiny_llama, tiny_tokenizer
from tests.helpers.tiny_facts import MAKERS, capitals, teach
from tests.helpers.tiny_tokenizers import (
    ALWAYS_THINKING,
    INSTRUCT,
    PLAIN_TURNS,
    THINKING,
    beginning_with,
    sentencepiece,
    with_template,
)
from workbench.editing.rewrite import rewrite
from workbench.evaluation.answering import Answering, Ask
from workbench.evaluation.ask import ask
from workbench.evaluation.evaluate import evaluate
from workbench.facts.known import known_facts
from workbench.language.generation import Completion, generate, greedy_answers, stop_tokens, stops_of
from workbench.language.prompts import prompt_ids, traced_prompt
from workbench.language.replies import UnfinishedThoughtWarning, counted_part, counted_text
from workbench.language.scoring import continuation_nll, continuation_probabilities
from workbench.language.template import Turn, chat_text, opens_thought, turn
from workbench.models.load import LoadedModel, load_model
from workbench.models.provenance import provenance
from workbench.tracing.causal import causal_trace
from workbench.widgets.shared.code import start_code

FRANCE = capitals()[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def model_of(tokenizer: Any, **options: Any) -> LoadedModel:
    return load_model(tiny_llama(), tokenizer=tokenizer, name="tiny", **options)


def saying(tokenizer: Any, *answers: str, question: str = FRANCE.question, form: Any = "chat") -> LoadedModel:
    """A tiny model that answers a question so, token by token (the tokenizer's ids of the texts, one after the other).
    After the last it says the first of its tokens for ever."""
    hf = MAKERS["llama"]()
    model = load_model(hf, tokenizer=tokenizer, name="tiny")
    ids, places = prompt_ids(model, question, form), []
    for token in [t for text in answers for t in model.token_ids(text)]:
        places.append((list(ids), token))
        ids.append(token)
    teach(hf, model, places)
    return model


# Options of a template


def test_thoughts_are_off_where_the_template_knows_them() -> None:
    assert chat_text(model_of(with_template(THINKING)), "What?").endswith("<|im_start|>assistant\n")
    model = model_of(with_template(THINKING), template={"enable_thinking": True})
    assert chat_text(model, "What?").endswith("<think>\n") and opens_thought(model)
    assert not opens_thought(model_of(with_template(THINKING)))
    assert provenance(model)["template"] == {"enable_thinking": True}
    assert provenance(model_of(with_template(THINKING)))["template"] == {"enable_thinking": False}
    assert "template" not in provenance(loaded(tiny_llama()))


def test_a_system_prompt_is_the_models_own_or_given() -> None:
    model = model_of(tiny_tokenizer(), template={"system": "Be brief."})
    assert "<|im_start|>system\nBe brief.<|im_end|>" in chat_text(model, "What?")
    assert "Be long." in chat_text(model, "What?", "Be long.")
    plain = model_of(tiny_tokenizer(chat=False), template={"system": "Be brief."})
    assert chat_text(plain, "What?") == "Be brief.\n\nQuestion: What?\nAnswer:"


def test_any_keyword_that_the_template_looks_at() -> None:
    aware = with_template(CHAT_TEMPLATE.replace("assistant\n", "assistant{{ ' on ' ~ date if date else '' }}\n"))
    assert chat_text(model_of(aware, template={"date": "May"}), "What?").endswith("assistant on May\n")
    with pytest.raises(ValueError, match=r"the option 'data'.*does not look at it. Allowed are 'system' and the names"):
        model_of(aware, template={"data": "May"})
    with pytest.raises(ValueError, match=r"the option 'date'.*has no chat template"):
        model_of(tiny_tokenizer(chat=False), template={"date": "May"})
    with pytest.raises(TypeError, match=r"template\['system'\] must be a text, got int"):
        model_of(aware, template={"system": 3})
    assert model_of(aware, template={"enable_thinking": False}).template == {}  # it does not think


def test_a_template_that_refuses_says_so() -> None:
    model = model_of(sentencepiece(template=INSTRUCT), template={"system": "Be brief."})
    with pytest.raises(ValueError, match=r"refuses a conversation of system, user: Only user and assistant roles"):
        prompt_ids(model, "What?", "chat")
    deaf = CHAT_TEMPLATE.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
    model = model_of(with_template(deaf), template={"system": "Be brief."})
    with pytest.raises(ValueError, match=r"leaves out the system prompt 'Be brief.'"):
        prompt_ids(model, "What?", "chat")


def test_an_edited_model_has_the_options_of_its_base() -> None:
    model = model_of(with_template(THINKING), template={"enable_thinking": True})
    view = LoadedModel(model.hf, model.tokenizer, name="view", base=model)
    assert view.template == model.template


# Thoughts


def test_a_prompt_that_opens_a_thought_is_said_and_not_counted() -> None:
    """All that a reply says before the thought ends is a thought."""
    model = saying(with_template(ALWAYS_THINKING), "Paris", " or", " Rome")
    with pytest.warns(
        UnfinishedThoughtWarning, match=r"\d+ of 2 replies of 'tiny' end inside a thought.*max_new_tokens"
    ):
        assert known_facts(model, [FRANCE], progress=False).ids == ()
    with pytest.warns(UnfinishedThoughtWarning):  # on record
        assert known_facts(model, [FRANCE], progress=False).ids == ()
    with pytest.warns(UnfinishedThoughtWarning):
        assert ask(model, FRANCE.question).startswith("Paris or Rome")
    with pytest.raises(ValueError, match=r"opens a thought before each reply .*<think>.*Turn thoughts off"):
        rewrite(model, FRANCE, "L0MLP", progress=False)
    with pytest.raises(ValueError, match="it thinks, and comes to no answer"):
        traced_prompt(model, FRANCE, form="chat")
    report = evaluate(model, [FRANCE], pool=capitals(), controls=[], progress=False)
    assert not [row for row in report.rows if row.form == "chat"] and [
        row for row in report.rows if row.form == "cloze"
    ]
    assert any("end inside a thought" in words for words in report.missing)


@pytest.mark.parametrize(("opening", "closing"), [("<think>", "</think>"), ("[THINK]", "[/THINK]")])
def test_what_follows_a_thought_counts(opening: str, closing: str) -> None:
    model = loaded(tiny_llama())
    text = f"{opening}\nIs it Rome?\n{closing}\n\nIt is Paris."
    assert counted_text(model, text, "chat") == "It is Paris."
    assert counted_text(model, f"{opening}\nIs it Rome?", "chat") is None
    assert counted_text(model, "It is Paris.", "chat") == "It is Paris."
    said = Completion(text, tuple(model.token_ids(text)))
    part = counted_part(model, said, "chat")
    assert part is not None and model.tokenizer.decode(part.token_ids).strip() == part.text == "It is Paris."
    assert counted_part(model, Completion(opening, tuple(model.token_ids(opening))), "chat") is None
    thinking = model_of(with_template(ALWAYS_THINKING))
    assert counted_text(thinking, "Is it Rome?\n</think>\nParis", "chat") == "Paris"
    assert counted_text(thinking, "Paris. It is", "cloze") == "Paris."  # no template, no thought


def test_a_thought_in_special_tokens_is_seen() -> None:
    """They are dropped from the text of a reply; those of a thought are not."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.add_special_tokens(["<think>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>"]})
    hf = tiny_llama(tied=False, bias=True)
    hf.resize_token_embeddings(len(tokenizer))
    model = load_model(hf, tokenizer=tokenizer)
    ids = prompt_ids(model, FRANCE.question, "chat")
    thought = tokenizer.convert_tokens_to_ids("<think>")
    paris = model.token_ids("Paris")[0]
    teach(hf, model, [(ids, thought), ([*ids, thought], paris), ([*ids, thought, paris], 4)])
    (reply,) = generate(model, [ids])
    assert reply.token_ids == (thought, paris, 4)
    assert counted_text(model, reply.text, "chat") is None


def test_a_thought_is_traced_after_its_end() -> None:
    model = saying(with_template(ALWAYS_THINKING), "Paris</think>", "It is Paris", "<|im_end|>")
    assert ask(model, FRANCE.question) == "It is Paris"
    prompt = traced_prompt(model, FRANCE, form="chat", needs_subject=False)
    assert (prompt.prefix, prompt.answer_token) == ("Paris</think>It is", " Paris")
    (reply,) = Answering(model).replies(model, [Ask("chat", FRANCE.question)])
    assert reply.counted == "It is Paris"
    before = [*prompt.token_ids[: -len(model.token_ids("It is"))]]
    assert reply.nll == pytest.approx(continuation_nll(model, [before], [model.token_ids("It is Paris")])[0], abs=1e-5)


# The end of a turn


def test_the_turn_ends_as_the_template_writes_it() -> None:
    assert turn(loaded(tiny_llama())) == Turn("", "<|im_end|>\n<|im_start|>user\n")
    assert turn(model_of(sentencepiece(template=INSTRUCT))) == Turn(" ", "</s>[INST] ")
    assert turn(model_of(with_template(PLAIN_TURNS))) == Turn("", "\nuser: ")
    assert turn(loaded(tiny_llama(), chat=False)) == Turn(" ", "\n")
    assert turn(model_of(with_template(THINKING))).end == "<|im_end|>\n<|im_start|>user\n"


CHANNELS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}{% if m['role'] == 'assistant' %} final{% endif %}:"
    "{{ m['content'] }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
EMPTY_THOUGHT = CHANNELS.replace(" final", "{% if enable_thinking is defined %}{% endif %}<think></think>")


def test_a_header_that_a_template_leaves_to_the_model_is_written_before_a_reply() -> None:
    """As GPT-OSS' channels: without it a reply would begin with a channel's name."""
    model = model_of(with_template(CHANNELS))
    assert turn(model) == Turn("", "<|im_end|><|im_start|>user:", header=" final:")
    assert chat_text(model, "What?").endswith("<|im_start|>assistant final:")
    assert chat_text(model_of(with_template(EMPTY_THOUGHT)), "What?").endswith("<think></think>:")
    wanted = model_of(with_template(EMPTY_THOUGHT), template={"enable_thinking": True})
    assert chat_text(wanted, "What?").endswith("<|im_start|>assistant")


def test_the_templates_own_end_stops_a_reply_though_nobody_lists_it() -> None:
    tokenizer = with_template(CHAT_TEMPLATE)
    tokenizer.eos_token = "</s>"
    model = saying(tokenizer, "Paris", "<|im_end|>", "\n", "user")
    model.hf.generation_config.eos_token_id = 2
    assert stop_tokens(model) == [2, 4]
    (reply,) = greedy_answers(model, [prompt_ids(model, FRANCE.question, "chat")])
    assert (reply.text, reply.token_ids) == ("Paris", (*model.token_ids("Paris"), 4))


@pytest.mark.parametrize("drafted", [False, True])
def test_a_turn_without_a_token_of_its_own_is_cut_at_its_text(drafted: bool) -> None:
    model = saying(with_template(PLAIN_TURNS), "Paris", "\n", "user", ": What is")
    assert stops_of(model)[-1] == "\nuser:"
    ids = prompt_ids(model, FRANCE.question, "chat")
    paris = tuple(model.token_ids("Paris"))
    (reply,) = generate(model, [ids], expected=[paris] if drafted else None)
    assert (reply.text, reply.token_ids) == ("Paris", paris)


@pytest.mark.parametrize("drafted", [False, True])
def test_a_base_models_reply_ends_with_its_line(drafted: bool) -> None:
    """It would go on with questions and answers of its own, and all of them would be judged."""
    model = saying(tiny_tokenizer(chat=False), "\n", " Paris", "\n", "Question: Rome")
    ids = prompt_ids(model, FRANCE.question, "chat")
    paris = tuple(model.token_ids("\n Paris"))
    for prompts in ([ids], [ids, prompt_ids(model, "Who?", "chat")]):
        reply = generate(model, prompts, expected=[paris] * len(prompts) if drafted else None)[0]
        assert (reply.text, reply.token_ids) == ("Paris", paris)
    long = generate(model, [ids], stop=False)[0]
    assert len(long.token_ids) == 24 and "Question: Rome" in long.text
    assert counted_text(model, "Paris\nQuestion: What is the capital of Italy?\nAnswer: Rome", "chat") == "Paris"
    assert known_facts(model, [FRANCE], progress=False).ids == (FRANCE.id,)


def test_lengths_are_the_callers() -> None:
    model = saying(tiny_tokenizer(), "I looked it up today: the city is said to be", " Paris", "<|im_end|>")
    assert len(model.token_ids("I looked it up today: the city is said to be")) + 1 > 24
    assert known_facts(model, [FRANCE], progress=False).ids == ()
    assert known_facts(model, [FRANCE], max_new_tokens=40, progress=False).ids == (FRANCE.id,)
    report = evaluate(model, [FRANCE], pool=capitals(), controls=[], max_new_tokens=40, progress=False)
    assert [row.label for row in report.rows if row.prompt == FRANCE.question] == ["old"]
    with pytest.raises(ValueError, match=r"max_new_tokens=40, but answering= gives answers of at most 24 tokens"):
        evaluate(model, [FRANCE], answering=Answering(model), max_new_tokens=40, progress=False)


# What a model can read


def short(make: Any) -> Any:
    """A tiny model with 128 positions."""
    return make(max_position_embeddings=128) if make is tiny_llama else make()


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_text_longer_than_the_models_positions_is_refused_before_the_pass(make: Any) -> None:
    model = loaded(short(make))
    text = "xyz" * 50
    for refused in (
        lambda: prompt_ids(model, text, "cloze"),
        lambda: ask(model, text),
        lambda: generate(model, [[5] * 129]),
        lambda: greedy_answers(model, [[5] * 129]),
        lambda: generate(model, [[5] * 129], expected=[(6, 7)]),
        lambda: continuation_nll(model, [[5] * 120], [[6] * 9]),
        lambda: continuation_probabilities(model, [([5] * 120, [6] * 10)]),
    ):
        with pytest.raises(ValueError, match=r"has 1\d\d tokens, and the model reads at most 128"):
            refused()


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_reply_ends_with_the_models_positions(make: Any) -> None:
    model = loaded(short(make))
    prompts = [[5] * 125, [6] * 3, [7] * 128]
    replies = generate(model, prompts, max_new_tokens=9, stop=False)
    assert [len(reply.token_ids) for reply in replies] == [3, 9, 1]
    alone = [generate(model, [prompt], max_new_tokens=9, stop=False)[0] for prompt in prompts]
    assert [reply.token_ids for reply in replies] == [reply.token_ids for reply in alone]
    stopping = [generate(model, [prompt], max_new_tokens=9)[0] for prompt in prompts]
    guesses = [reply.token_ids for reply in alone]
    assert [r.token_ids for r in generate(model, prompts, max_new_tokens=9, expected=guesses)] == [
        r.token_ids for r in stopping
    ]


def test_a_token_without_an_embedding_is_named() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    tokenizer.chat_template = "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}"
    with pytest.raises(ValueError, match=r"the token '<\|user\|>' with id \d+, and the model has embeddings for \d+"):
        prompt_ids(model_of(tokenizer), "What?", "chat")


def test_a_trace_of_a_model_with_bos_is_of_the_text_with_bos() -> None:
    """BOS is a position, is not corrupted, and the effects before the subject are exactly 0."""
    tokenizer = beginning_with("<s>")
    model = saying(tokenizer, " Paris", "</s>", form="cloze", question=FRANCE.prompt)
    trace = causal_trace(model, FRANCE, form="cloze", samples=2, progress=False)
    prompt = trace.prompts[0]
    assert prompt.tokens == ("<s>", "The", " capital", " of", " France", " is") and prompt.subject == (4,)
    assert torch.all(trace.values[:, :4] == 0) and torch.any(trace.values[:, 4] != 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        swap = causal_trace(model, FRANCE, form="cloze", corruption="swap", pool=capitals(), progress=False)
    assert swap.prompts[0].partner_text == "<s>The capital of Spain is"


def test_the_code_of_a_panel_loads_the_model_with_its_options() -> None:
    model = model_of(tiny_tokenizer(), template={"system": "Be brief."})
    assert start_code(model).endswith("model = wb.load_model('tiny', template={'system': 'Be brief.'})\n")
    assert start_code(loaded(tiny_llama())).endswith("model = wb.load_model('tiny')\n")
