"""The covariance of keys: which tokens count, against plain passes of single texts; what is remembered and refused."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.tiny_facts import FAMILIES, MAKERS, capitals, knowing
from tests.helpers.traces import hooked
from workbench.editing.covariance import TooFewTokens
from workbench.evaluation.ordinary_text import ordinary_passages
from workbench.facts.ordinary_texts import default_texts, prose
from workbench.language.prompts import prompt_ids
from workbench.models.load import LoadedModel
from workbench.types.cancelling import Cancelled
from workbench.types.covariance import OutputModule

FACTS = capitals()
TEXTS = ["The capital of France is Paris.", "What is the capital of Spain?", "Rome"] * 20


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def plain_keys(model: LoadedModel, ids: list[int], layer: int, module: OutputModule) -> Tensor:
    """What the output projection reads at every token of a text, by a plain hook, [tokens, d_in]."""
    name = model.architecture.gate_module(layer, "post" if module == "mlp" else "z").module
    caught: list[Tensor] = []

    def catch(state: Tensor) -> Tensor:
        caught.append(state)
        return state

    with hooked(model.hf, {name: (True, catch)}), torch.no_grad():
        model.hf(torch.tensor([ids]))
    return caught[0].reshape(len(ids), -1).double()


@FAMILIES
@pytest.mark.parametrize("module", ["mlp", "attn"])
def test_it_is_the_mean_over_tokens_of_single_texts(family: str, module: OutputModule) -> None:
    """Texts of unlike length are padded in batches: padding does not count, nor do first tokens, alike or not."""
    model = knowing(MAKERS[family]())
    found = wb.covariance(model, 1, module, texts=TEXTS)
    ids = [list(model.tokenizer(text)["input_ids"]) for text in TEXTS]
    keys = torch.cat([plain_keys(model, text, 1, module)[1:] for text in ids])  # a text's first token never counts
    assert found.tokens == len(keys)
    torch.testing.assert_close(found.values, keys.T @ keys / len(keys), atol=1e-6, rtol=1e-5)
    assert found.values.dtype == torch.float64
    assert found.rank == int(torch.linalg.matrix_rank(found.values, hermitian=True)) < found.d_in
    assert found.condition == float("inf")


def test_what_all_prompts_begin_with_does_not_count() -> None:
    model = knowing(MAKERS["llama"]())
    groups = default_texts(model, FACTS, 10_000)
    chat = groups[0]
    assert chat.shared > 0
    prompts = [tuple(prompt_ids(model, q, "chat")) for fact in FACTS[3:] for q in fact.training_questions]
    assert sorted(text[: len(p)] for p in prompts for text in chat.texts if text[: len(p)] == p) == sorted(prompts)
    assert len({text[: chat.shared] for text in chat.texts}) == 1
    found = wb.covariance(model, 0, pool=FACTS, max_tokens=10_000)
    keys = [plain_keys(model, list(text), 0, "mlp")[group.shared :] for group in groups for text in group.texts]
    every = torch.cat(keys)
    assert found.tokens == len(every)
    torch.testing.assert_close(found.values, every.T @ every / len(every), atol=1e-6, rtol=1e-5)


def test_the_default_texts_are_not_those_of_evaluations() -> None:
    model = knowing(MAKERS["llama"]())
    measured = {sentence for passage in ordinary_passages() for sentence in passage}
    assert not any(sentence in text for sentence in measured for text in prose())
    asked = {q for fact in FACTS if fact.role != "retain" for q in fact.training_questions}
    texts = [model.tokenizer.decode(text) for group in default_texts(model, FACTS, 10_000) for text in group.texts]
    assert not any(question in text for question in asked for text in texts)


def test_at_most_so_many_tokens() -> None:
    model = knowing(MAKERS["llama"]())
    assert wb.covariance(model, 0, texts=TEXTS, max_tokens=71).tokens == 71
    assert sum(group.counted for group in default_texts(model, FACTS, 100)) <= 100


def test_one_pass_gives_all_modules() -> None:
    model = knowing(MAKERS["llama"]())
    every = wb.covariances(model, [(2, "mlp"), (0, "attn"), (1, "mlp")], texts=TEXTS)
    assert list(every) == [(2, "mlp"), (0, "attn"), (1, "mlp")]
    for place, found in every.items():
        alone = wb.covariance(knowing(MAKERS["llama"]()), *place, texts=TEXTS, max_tokens=29_999)
        torch.testing.assert_close(found.values, alone.values)
        assert (found.layer, found.module) == place


def test_it_is_remembered_in_the_model_and_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    model = knowing(MAKERS["llama"]())
    first = wb.covariance(model, 1, texts=TEXTS)
    assert wb.covariance(model, 1, texts=TEXTS) is first
    assert wb.covariance(model, 1, texts=TEXTS[:-3]) is not first

    def never(*_: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr("workbench.editing.covariance._measure", never)
    again = wb.covariance(knowing(MAKERS["llama"]()), 1, texts=TEXTS)
    assert torch.equal(again.values, first.values)
    assert (again.tokens, again.rank, again.fingerprint) == (first.tokens, first.rank, model.fingerprint)
    with pytest.raises(AssertionError, match="measured again"):
        wb.covariance(knowing(MAKERS["gpt2"]()), 1, texts=TEXTS)


def test_an_edited_model_has_its_base_s() -> None:
    model = knowing(MAKERS["llama"]())
    recipe = wb.recipes.ROME(layers=(0,), steps=1, covariance="identity", contexts=False)
    edit = wb.rewrite(model, FACTS[0], recipe=recipe, pool=FACTS, progress=False)
    with wb.applied(model, edit) as edited:
        assert wb.covariance(edited, 1, texts=TEXTS) is wb.covariance(model, 1, texts=TEXTS)


def test_what_is_refused() -> None:
    model = knowing(MAKERS["llama"]())
    with pytest.raises(TooFewTokens, match=r"have 15 tokens.*layer 1 has 56 inputs.*fewer than 56.*min_tokens"):
        wb.covariance(model, 1, texts=TEXTS[:2])
    assert wb.covariance(model, 1, texts=TEXTS[:2], min_tokens=10).rank <= 15
    with pytest.raises(TooFewTokens, match="have 0 tokens"):
        wb.covariance(model, 1, texts=[], min_tokens=1)
    with pytest.raises(ValueError, match=r"Layer 3 does not exist: the model has 3 layers"):
        wb.covariance(model, 3, texts=TEXTS)
    with pytest.raises(ValueError, match="module must be 'mlp' or 'attn', got 'z'"):
        wb.covariance(model, 1, mistyped("z"), texts=TEXTS)
    with pytest.raises(ValueError, match=r"texts must be several texts.*Write \[text\]"):
        wb.covariance(model, 1, texts="The capital of France is Paris.")
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        wb.covariance(model, 1, texts=TEXTS, cancel=cancel)
    assert len(model.cache.covariances) == 1


def test_texts_and_least_tokens_are_checked() -> None:
    model = knowing(MAKERS["llama"]())
    for texts, said in (([5, 6], "one is 5"), ([[99999] * 9] * 30, "from 0 to .*, got 99999"), ([None], "one is None")):
        given: Any = texts
        with pytest.raises(ValueError, match=said):
            wb.covariance(model, 1, texts=given)
    for wrong in ("a", 0, -5):
        least: Any = wrong
        with pytest.raises(ValueError, match="min_tokens must be a whole number of at least 1"):
            wb.covariance(model, 1, texts=TEXTS, min_tokens=least)
