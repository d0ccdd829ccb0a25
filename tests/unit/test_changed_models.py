"""A model that is changed after it was loaded: what is computed is of what it is now, or refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import workbench as wb
from tests.helpers.tiny import random_edit, tiny_llama, tiny_tokenizer
from tests.helpers.tiny_facts import capitals, knowing

PAIR = wb.Contrast(
    clean="The capital of France is", corrupted="The capital of Italy is", answer=" Paris", wrong=" Rome"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def loaded(hf: Any) -> wb.LoadedModel:
    return wb.load_model(hf, tokenizer=tiny_tokenizer(), name="tiny")


def clean(model: wb.LoadedModel) -> float:
    return wb.causal_trace(model, PAIR, metric="logit_diff", progress=False).clean


def twice(hf: Any) -> None:
    hf.lm_head.weight = nn.Parameter(hf.lm_head.weight.detach() * 2, requires_grad=False)


def another_head(hf: Any) -> None:
    hf.lm_head = nn.Linear(hf.lm_head.in_features, hf.lm_head.out_features, bias=False)


def assigned(hf: Any) -> None:
    hf.load_state_dict({name: tensor * 1.5 for name, tensor in hf.state_dict().items()}, assign=True)


def halved(hf: Any) -> None:
    hf.bfloat16()


@pytest.mark.parametrize("change", [twice, another_head, assigned, halved])
def test_other_weights_are_computed_with(change: Callable[[Any], None]) -> None:
    hf = tiny_llama(tied=False)
    model = loaded(hf)
    before = clean(model)
    bridge = model.bridge
    change(hf)
    again = loaded(hf)
    assert model.fingerprint == again.fingerprint and clean(model) == clean(again) != before
    assert model.bridge is not bridge


def test_what_was_known_is_not_known_of_other_weights() -> None:
    facts = capitals()
    hf = tiny_llama(tied=False, bias=True)
    model = knowing(hf, facts)
    assert wb.known_facts(model, facts, progress=False)
    hf.lm_head.weight = nn.Parameter(torch.roll(hf.lm_head.weight.detach(), 7, 0), requires_grad=False)
    assert not wb.known_facts(model, facts, progress=False)
    with wb.applied(model, random_edit(model), strength=0.0) as edited:
        seen = [wb.next_tokens(one, str(PAIR.clean), form="cloze", k=1).top for one in (model, edited)]
    assert seen[0] == seen[1]


def test_an_edited_model_follows_no_replaced_weight() -> None:
    hf = tiny_llama(tied=False)
    model = loaded(hf)
    with wb.applied(model, random_edit(model)) as edited:
        twice(hf)
        with pytest.raises(ValueError, match="were replaced after this edit was applied to it: apply it again"):
            wb.next_tokens(edited, str(PAIR.clean), form="cloze", k=1)


def fewer(hf: Any) -> None:
    hf.model.layers = hf.model.layers[:2]


def turned(hf: Any) -> None:
    hf.model.layers = nn.ModuleList([*hf.model.layers][::-1])


def scaled(hf: Any) -> None:
    hf.model.layers[0].self_attn.scaling *= 3


def capped(hf: Any) -> None:
    hf.config.final_logit_softcapping = 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (fewer, "model.layers.2 is gone"),
        (turned, "model.layers.0.self_attn.layer_idx is 2, and was 0"),
        (scaled, "model.layers.0.self_attn.scaling is 1.06"),
        (capped, "config.final_logit_softcapping is new"),
    ],
)
def test_another_model_is_refused(change: Callable[[Any], None], words: str) -> None:
    hf = tiny_llama(tied=False)
    model = loaded(hf)
    clean(model)
    change(hf)
    with pytest.raises(ValueError, match=f"was changed after it was loaded: {words}.*Load what it is now"):
        clean(model)


def test_flags_change_nothing() -> None:
    hf = tiny_llama(tied=False)
    model = loaded(hf)
    before = clean(model), model.fingerprint
    hf.train().requires_grad_(True)
    hf.config.pad_token_id = 3
    hf.config.use_cache = False
    assert (clean(model), model.fingerprint) == before


def zeros(module: nn.Module, given: Any, out: Any) -> Any:
    return torch.zeros_like(out) if isinstance(out, torch.Tensor) else (torch.zeros_like(out[0]), *out[1:])


def test_hooks_are_left_out_with_a_warning() -> None:
    hf = tiny_llama(tied=False)
    model = loaded(hf)
    hf.model.layers[1].register_forward_hook(zeros)
    with pytest.warns(UserWarning, match=r"A forward hook stands on 'model.layers.1' \(zeros\)"):
        clean(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hooked = tiny_llama(tied=False)
        hooked(torch.tensor([[1, 2]]), output_hidden_states=True)
        clean(loaded(hooked))
