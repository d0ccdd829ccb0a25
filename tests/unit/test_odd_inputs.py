"""Inputs of a wrong kind: a sentence that names the value and what is allowed, before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.tiny import tiny_gpt2, tiny_llama, tiny_tokenizer
from tests.helpers.tiny_facts import capitals, knowing


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@pytest.fixture
def model() -> wb.LoadedModel:
    return knowing(tiny_llama(tied=False, bias=True), capitals())


# Loading


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    hf = tiny_llama(tied=False)
    with torch.no_grad():
        hf.model.layers[1].mlp.down_proj.weight[3, 4] = value
    words = r"1 weight of the model holds NaN or infinite numbers \(model\.layers\.1\.mlp\.down_proj\.weight\)"
    with pytest.raises(ValueError, match=words):
        wb.load_model(hf, tokenizer=tiny_tokenizer())
    hf.save_pretrained(tmp_path / "saved")
    tiny_tokenizer().save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match=words):
        wb.load_model(tmp_path / "saved")


def test_large_weights_whose_sum_overflows_are_taken() -> None:
    hf = tiny_llama(tied=False)
    with torch.no_grad():
        hf.model.layers[0].mlp.down_proj.weight[:2, :2] = torch.finfo(torch.float32).max / 1.5
    assert wb.load_model(hf, tokenizer=tiny_tokenizer()).fingerprint


def test_a_tokenizer_by_its_folder_for_a_model_in_memory(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    for given in (tmp_path / "tokenizer", str(tmp_path / "tokenizer")):
        model = wb.load_model(tiny_llama(), tokenizer=given)
        assert model.token_ids("Paris") == tiny_tokenizer()("Paris", add_special_tokens=False)["input_ids"]
    with pytest.raises(ValueError, match=r"Cannot load a tokenizer from .*nowhere"):
        wb.load_model(tiny_llama(), tokenizer=tmp_path / "nowhere")
    for odd in (3, ["a"], tiny_llama()):
        with pytest.raises(ValueError, match=rf"tokenizer must be an HF tokenizer, or.*got {type(odd).__name__}"):
            wb.load_model(tiny_llama(), tokenizer=mistyped(odd))


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("meta", "The device meta holds no weights"),
        ("cudax", "Cannot put a model on the device 'cudax'"),
        (3.5, "device must be a string or a torch.device, got 3.5"),
    ],
)
def test_devices_that_hold_no_model(device: Any, words: str, tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf'{words}.*Give "cpu"'):
        wb.load_model(tmp_path, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"on the device 'cuda'.*torch sees no GPU here"):
        wb.load_model(tmp_path, device="cuda")


def test_layers_that_are_one_module() -> None:
    hf = tiny_llama()
    hf.model.layers = nn.ModuleList([hf.model.layers[0], hf.model.layers[1], hf.model.layers[0]])
    with pytest.raises(ValueError, match=r"The layers 0 and 2 of this LlamaForCausalLM are one module"):
        wb.load_model(hf, tokenizer=tiny_tokenizer())


def test_names_sources_and_templates_of_a_wrong_kind() -> None:
    with pytest.raises(TypeError, match="name must be a string, got 3"):
        wb.load_model(tiny_gpt2(), tokenizer=tiny_tokenizer(), name=mistyped(3))
    with pytest.raises(ValueError, match="source is an empty text"):
        wb.load_model(" ")
    with pytest.raises(TypeError, match=r"template must be a dict of options such as \{'system'"):
        wb.load_model(tiny_gpt2(), tokenizer=tiny_tokenizer(), template=mistyped("x"))


def test_a_broken_chat_template_is_not_called_a_refusal() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}"
    model = wb.load_model(tiny_llama(), tokenizer=tokenizer, name="tiny")
    with pytest.raises(ValueError, match=r"The chat template of 'tiny' is broken \(line 1: "):
        wb.ask(model, "Which?")


# Texts


@pytest.mark.parametrize("question", [None, ["Which?"], 3])
def test_a_question_that_is_no_text(question: Any, model: wb.LoadedModel) -> None:
    with pytest.raises(TypeError, match="What is asked must be a string, got "):
        wb.ask(model, question)


def test_half_a_character(model: wb.LoadedModel) -> None:
    words = r"holds half of a character \('\\ud83d' at index 2, a lone surrogate\)"
    with pytest.raises(ValueError, match=f"What is asked {words}"):
        wb.ask(model, "A \ud83d?")
    with pytest.raises(ValueError, match=f"Contrast.clean {words}"):
        wb.Contrast(clean="A \ud83d", corrupted="B", answer="a", wrong="b")
    record = capitals()[0].to_dict()
    with pytest.raises(ValueError, match=rf"Fact.heldout\[0\] {words}"):
        wb.Fact.from_dict(record | {"heldout": ["A \ud83d"]})


@pytest.mark.parametrize("answer", [1.0, None, [2.5]])
def test_answers_of_a_contrast(answer: Any) -> None:
    with pytest.raises(ValueError, match=r"Contrast.answer must be a token as text"):
        wb.Contrast(clean="A", corrupted="B", answer=answer)


# Sets and selections


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (pd.DataFrame([{"subject": "France"}]), r"FactSet takes items of Fact, got str 'subject'"),
        ([capitals()[0].to_dict()], r"FactSet takes items of Fact, got dict .*; Fact.from_dict makes one"),
        ("france-capital", r"FactSet takes several of Fact, got str 'france-capital'"),
        (capitals()[0], r"FactSet takes several of Fact, got Fact "),
        (None, r"FactSet takes several of Fact, got NoneType None"),
    ],
)
def test_sets_of_other_things(given: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        wb.FactSet(given)


def test_facts_are_not_read_from_a_frame_or_an_address() -> None:
    with pytest.raises(TypeError, match=r"path must be the path of a file, got DataFrame. Write a table first"):
        wb.load_facts(mistyped(pd.DataFrame([{"subject": "France"}])))
    with pytest.raises(ValueError, match=r"'https://example.org/facts.json' is an address: download the file"):
        wb.load_facts("https://example.org/facts.json")


@pytest.mark.parametrize("given", ["L1H3 L2MLP", ["L1H3", "L2MLP"], ("L1H3", wb.Component(2, "MLP"))])
def test_selections_as_functions_take_them(given: Any, model: wb.LoadedModel) -> None:
    facts, wanted = capitals(), wb.Selection("L1H3 L2MLP")
    assert wb.Selection.read(given) == wanted
    assert wb.ablate(model, facts[0], given, pool=facts).selection == wanted
    recipe = wb.Recipe(steps=1, early_stop=None, retain_size=2)
    assert wb.rewrite(model, facts[0], given, recipe=recipe, pool=facts, progress=False).selection == wanted


@pytest.mark.parametrize("given", [None, 3.5, object()])
def test_what_is_no_selection(given: Any, model: wb.LoadedModel) -> None:
    facts = capitals()
    with pytest.raises(ValueError, match=r"selection must be a Selection, its text such as 'L23H4 L13MLP', or a list"):
        wb.ablate(model, facts[0], given, pool=facts)
    if given is not None:
        with pytest.raises(ValueError, match=r"selection must be a Selection, its text such as"):
            wb.rewrite(model, facts[0], given, pool=facts)
        with pytest.raises(ValueError, match=r"components must be a Selection, its text such as"):
            wb.attribute(model, facts[0], method="patching", components=given, pool=facts)


@pytest.mark.parametrize("node", [None, 3, " "])
def test_what_is_no_node_of_a_path(node: Any, model: wb.LoadedModel) -> None:
    facts = capitals()
    with pytest.raises(ValueError, match=r"A node is a component, 'embedding' or 'logits', got "):
        wb.path_patch(model, facts[0], "L0H1", node, pool=facts)
