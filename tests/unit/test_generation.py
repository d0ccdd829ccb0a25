"""Generation in batches that share their first tokens, and probabilities of answers, equal the plain model's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.tiny import N_VOCAB, tiny_gpt2, tiny_llama, tiny_tokenizer
from tests.helpers.tiny_facts import FAMILIES, capitals, edit_of, knowing, some_gates, tiny
from tests.unit.test_resume import windowed
from workbench.editing.applied import Dial
from workbench.language.generation import generate
from workbench.language.padding import pad_token, shared_tokens
from workbench.language.prompts import prompt_ids
from workbench.language.scoring import continuation_logprobs, continuation_probabilities
from workbench.models.engine import Resumable
from workbench.models.load import LoadedModel, load_model


def plainly(model: LoadedModel, prompt: list[int]) -> tuple[int, ...]:
    """What the HF model generates after one prompt, up to its stop token."""
    with torch.no_grad():
        row = model.hf.generate(
            torch.tensor([prompt]), max_new_tokens=7, do_sample=False, pad_token_id=0, eos_token_id=4
        )[0, len(prompt) :].tolist()
    return tuple(row[: row.index(4) + 1] if 4 in row else row)


def tokens_read(model: LoadedModel, prompts: list[list[int]], **options: Any) -> tuple[list[Any], int]:
    """Completions, and how many tokens (padding included) the model was given for them."""
    seen: list[int] = []
    handle = model.runner.get_input_embeddings().register_forward_hook(
        lambda module, args, out: seen.append(args[0].numel())
    )
    try:
        found = generate(model, prompts, max_new_tokens=7, **options)
    finally:
        handle.remove()
    return found, sum(seen)


@FAMILIES
def test_a_batch_with_a_shared_prefix_is_the_plain_model(family: str) -> None:
    model = tiny(family)
    asked = ("What is the capital of Spain?", "Who?", "Where is Rome in Italy?", "What is the language of Japan?", "I")
    prompts = [prompt_ids(model, question, "chat") for question in asked]
    found, read = tokens_read(model, prompts)
    assert [c.token_ids for c in found] == [plainly(model, prompt) for prompt in prompts]
    shared = shared_tokens(model, [tuple(p) for p in prompts], 7)
    assert shared >= 2
    longest, decoded = max(map(len, prompts)), max(len(c.token_ids) for c in found) - 1
    assert read == shared + len(prompts) * (longest - shared + decoded)


@FAMILIES
def test_guesses_change_nothing_but_the_work(family: str) -> None:
    """Right, wrong from some token on, empty, too long, going on after the stop token: the completions are the same."""
    model = tiny(family)
    asked = ("What is the capital of Spain?", "Who?", "Where is Rome in Italy?", "What is the language of Japan?", "I")
    prompts = [prompt_ids(model, question, "chat") for question in asked]
    said = [plainly(model, prompt) for prompt in prompts]
    ends = [min(n, len(tokens) - 1) for n, tokens in enumerate(said)]
    wrong = [(*tokens[:end], (tokens[end] + 1) % 40) for tokens, end in zip(said, ends, strict=True)]
    for expected in (said, wrong, [()] * 5, [(*tokens, 5, 6, 7, 8) for tokens in said], [*said[:2], (), *wrong[3:]]):
        found = generate(model, prompts, max_new_tokens=7, batch_size=3, expected=expected)
        assert [c.token_ids for c in found] == said
    found, read = tokens_read(model, prompts, expected=said)
    assert [c.text for c in found] == [c.text for c in generate(model, prompts, max_new_tokens=7)]
    assert read == 0  # nothing was generated token by token


SETTINGS: dict[str, Any] = {
    "suppress_tokens": list(range(N_VOCAB // 2)),
    "min_length": 200,
    "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1,
    "repetition_penalty": 9.0,
    "forced_eos_token_id": 9,
    "max_time": 1e-9,
    "num_beams": 3,
    "stop_strings": ["Paris"],
    "return_dict_in_generate": True,
    "prompt_lookup_num_tokens": 3,
    "token_healing": True,
    "do_sample": True,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_models_own_generation_settings_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    prompts = [prompt_ids(model, question, "chat") for question in ("Who?", "Where is Rome?")]
    said = [plainly(model, prompt) for prompt in prompts]
    monkeypatch.setattr(model.runner.generation_config, name, SETTINGS[name])
    for expected in (None, said):
        assert [c.token_ids for c in generate(model, prompts, max_new_tokens=7, expected=expected)] == said


def test_a_text_that_goes_on_over_stop_tokens() -> None:
    model = knowing(tiny_llama(tied=False), capitals())
    asked = [prompt_ids(model, f.question, "chat") for f in capitals()]
    ended, going_on = generate(model, asked, max_new_tokens=9), generate(model, asked, max_new_tokens=9, stop=False)
    assert {len(c.token_ids) for c in going_on} == {9} and min(len(c.token_ids) for c in ended) < 9
    assert all(b.token_ids[: len(a.token_ids)] == a.token_ids for a, b in zip(ended, going_on, strict=True))
    with pytest.raises(ValueError, match="leave it out with stop=False"):
        generate(model, asked, stop=False, expected=[() for _ in asked])


def test_guesses_of_what_the_base_says_serve_an_edited_model() -> None:
    """More rows than are read at once; some answers differ, some are the base's."""
    model = knowing(tiny_llama(tied=False), capitals())
    turned = Dial(model, edit_of(model, some_gates(model, (1, "post")))).at(1.0)
    asked = [prompt_ids(model, f"What is the {word}?", "chat") for word in "abcdefghijklmnopqrs"]
    asked += [prompt_ids(model, f"Where is {name}?", "chat") for name in ("Rome", "Paris")]
    base, plain = (generate(one, asked, max_new_tokens=6) for one in (model, turned))
    bar = SimpleNamespace(n=0, update=lambda n: setattr(bar, "n", bar.n + n))
    found = generate(turned, asked, max_new_tokens=6, expected=[c.token_ids for c in base], progress=bar)
    assert found == plain and bar.n == len(asked) == 21
    assert sum(a != b for a, b in zip(base, plain, strict=True)) > 0
    with pytest.raises(ValueError, match="a guess for each prompt, got 1 for 21"):
        generate(turned, asked, expected=[()])


@FAMILIES
def test_scores_of_given_answers_are_the_plain_models(family: str) -> None:
    model = tiny(family)
    rows = [
        (prompt_ids(model, q, "chat"), [5, 6 + i, 9][: i % 3 + 1]) for i, q in enumerate(("Who?", "I", "Where is I?"))
    ]
    prompts, answers = [[7], *(p for p, _ in rows)], [[], *(a for _, a in rows)]  # nothing of the first is scored
    found = {i: logprobs for i, logprobs in continuation_logprobs(model, prompts, answers)}
    assert sorted(found) == [1, 2, 3]
    for i, logprobs in found.items():
        with torch.no_grad():
            logits = model.hf(torch.tensor([[*prompts[i], *answers[i]]])).logits[0, len(prompts[i]) - 1 : -1]
        torch.testing.assert_close(logprobs, logits.log_softmax(-1), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="A prompt has no tokens"):
        list(continuation_logprobs(model, [[], [1]], [[2], [3]]))


tokens = st.lists(st.integers(5, N_VOCAB - 1), max_size=6)


@settings(max_examples=20)
@given(
    rows=st.lists(st.tuples(tokens.filter(bool), tokens), min_size=1, max_size=6),
    shared=tokens,
    edited=st.booleans(),
    at_once=st.integers(1, 4),
)
def test_rows_of_any_lengths_are_the_plain_models(rows: Any, shared: list[int], edited: bool, at_once: int) -> None:
    """Padding, common beginnings, texts within texts: no row's scores depend on the rows beside it."""
    model = Dial(tiny(), edit_of(tiny(), some_gates(tiny(), (1, "post")))).at(1.0) if edited else tiny()
    rows = [([*shared, *prompt], continuation) for prompt, continuation in rows]
    expected = []
    for prompt, continuation in rows:
        with torch.no_grad():
            logits = model.runner(input_ids=torch.tensor([[*prompt, *continuation]])).logits[0, len(prompt) - 1 : -1]
        expected.append(logits.log_softmax(-1))
    found = dict(continuation_logprobs(model, *zip(*rows, strict=True), batch_size=at_once))
    assert sorted(found) == [i for i, (_, continuation) in enumerate(rows) if continuation]
    for i, logprobs in found.items():
        torch.testing.assert_close(logprobs, expected[i], atol=1e-4, rtol=0)
    whole = [
        float(x.gather(1, torch.tensor(c, dtype=torch.long)[:, None]).sum().exp())
        for x, (_, c) in zip(expected, rows, strict=True)
    ]
    assert continuation_probabilities(model, rows) == pytest.approx(whole, rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("rows", [2, 3])
def test_a_window_within_the_texts_is_kept(rows: int) -> None:
    """Layers that see two tokens only: no prefix is shared, for padding would stand within the window."""
    model, _ = windowed()
    prompts = [[7, 8, 9, 10 + i, *range(20, 20 + 2 * i)] for i in range(rows)]
    assert shared_tokens(model, [tuple(p) for p in prompts], 7) == 0
    said = [plainly(model, p) for p in prompts]
    for expected in (None, said, [tokens[:2] for tokens in said]):
        assert [c.token_ids for c in generate(model, prompts, max_new_tokens=7, expected=expected)] == said


def test_the_tokens_that_prompts_share() -> None:
    model = tiny()
    assert shared_tokens(model, [(1, 2, 3, 4), (1, 2, 5), (1, 2, 3, 9)], 5) == 2
    assert shared_tokens(model, [(1, 2), (1, 2, 5)], 5) == 1  # each keeps a token of its own
    assert shared_tokens(model, [(1, 2, 3), (1, 2, 3)], 5) == 2
    assert shared_tokens(model, [(3,), (1, 2, 3)], 5) == 0
    assert shared_tokens(model, [(1, 2, 3)], 5) == 0


def test_probabilities_of_nothing() -> None:
    assert continuation_probabilities(tiny(), []) == []
    assert continuation_probabilities(tiny(), [([7], []), ([8, 9], [])]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="A prompt has no tokens"):
        continuation_probabilities(tiny(), [([7], [8]), ([], [5, 6])])


def probabilities(model: LoadedModel, rows: list[tuple[list[int], list[int]]]) -> list[float]:
    """By one plain pass a row."""
    found = []
    for prompt, continuation in rows:
        with torch.no_grad():
            logits = model.runner(input_ids=torch.tensor([[*prompt, *continuation]])).logits[0, len(prompt) - 1 : -1]
        chosen = logits.float().log_softmax(-1).gather(1, torch.tensor(continuation)[:, None])
        found.append(float(chosen.sum().exp()))
    return found


@pytest.mark.parametrize("continuations", [(" Paris", " Rome Madrid", " I am not sure."), (" Paris",), (" a", " a")])
def test_probabilities_with_a_shared_question_equal_those_without(continuations: tuple[str, ...]) -> None:
    model = tiny()
    question = model.token_ids("What is the capital of France?")
    rows = [
        (question + model.token_ids(" The capital of") * (i % 2), model.token_ids(c))
        for i, c in enumerate(continuations)
    ]
    rows.append((model.token_ids("Where"), model.token_ids(" is the city")))
    for part in (rows, rows[:-1]):
        assert continuation_probabilities(model, part) == pytest.approx(probabilities(model, part), rel=1e-4)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passes that engines make, by name."""
    made: list[str] = []
    for name in ("entering", "resumed_keys_values", "logits_at"):
        plain = getattr(Resumable, name)
        monkeypatch.setattr(Resumable, name, lambda *a, _n=name, _p=plain, **k: (made.append(_n), _p(*a, **k))[1])
    return made


def test_answers_of_one_token_and_a_refusal_take_one_pass(passes: list[str]) -> None:
    """After one text, as the strength slider asks: every weight is fetched once."""
    model = tiny()
    question = model.token_ids("What is the capital of Spain?")
    rows = [(question, model.token_ids(text)) for text in (" Paris", " I am not sure.", " Rome")]
    assert continuation_probabilities(model, rows) == pytest.approx(probabilities(model, rows), rel=1e-4)
    assert passes == ["entering", "logits_at"]
    continuation_probabilities(model, [*rows, (question, model.token_ids(" Rome Madrid"))])
    assert passes[2:] == ["entering", "resumed_keys_values", "logits_at"]  # texts that part: their beginning before


def test_a_turned_strength_computes_only_what_it_changes(passes: list[str]) -> None:
    model = knowing(tiny_llama(tied=False), capitals())
    one = edit_of(model, some_gates(model, (1, "post")))
    question = model.token_ids("Where does the queen of France live?")
    rows = [(question, model.token_ids(text)) for text in (" Paris", " Rome Madrid")]
    dial = Dial(model, one)
    for strength in (1.0, 0.5, 0.0):
        turned = dial.at(strength)
        assert continuation_probabilities(turned, rows) == pytest.approx(probabilities(turned, rows), rel=1e-4)
    assert passes.count("entering") == 1 and passes.count("logits_at") == 3

    with torch.no_grad():  # the base's weights are others now, so what was kept of them is not used
        weight = next(p for name, p in model.hf.named_parameters() if "embed" in name)
        weight += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    turned = dial.at(0.5)
    assert continuation_probabilities(turned, rows) == pytest.approx(probabilities(turned, rows), rel=1e-4)
    assert passes.count("entering") == 2


@pytest.mark.parametrize("chat", [True, False])
def test_a_pad_token_beyond_the_embedding_is_not_used(chat: bool) -> None:
    """Tutorials add one to the tokenizer alone; a batch is then padded with what the model can embed."""
    tokenizer = tiny_tokenizer(chat=chat)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    model = load_model(tiny_gpt2(), tokenizer=tokenizer)
    assert tokenizer.pad_token_id >= model.shape.d_vocab
    rows = [model.token_ids(text) for text in ("The", "The capital of France")]
    together = generate(model, rows, max_new_tokens=3)
    assert together == [generate(model, [row], max_new_tokens=3)[0] for row in rows]
    assert pad_token(model) == tokenizer.eos_token_id
    tokenizer.eos_token = "[ALSO BEYOND]"
    assert pad_token(model) == 0
