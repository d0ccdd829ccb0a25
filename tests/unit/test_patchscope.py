"""Patchscopes: equal to plain hooks that put a state into another text, and what they refuse."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from tests.helpers.mistyped import mistyped
from tests.helpers.tiny_facts import FAMILIES, MAKERS, capitals, edit_of, knowing, some_gates
from tests.helpers.traces import hooked
from workbench.language.prompts import traced_prompt
from workbench.language.tokens import begun_ids
from workbench.models.load import LoadedModel
from workbench.tracing.patchscope import TARGETS

FACTS = capitals()
FRANCE = FACTS["france-capital"]
TARGET = "Spain France Italy Rome"


def by_hand(
    model: LoadedModel, ids: list[int], at: int, layer: int, into: int, put_at: int, steps: int
) -> list[Tensor]:
    """Logits of every greedy step, with one plain pass a step and a plain hook."""
    path = model.architecture.family.layers
    with torch.no_grad():
        hidden = model.hf(torch.tensor([ids]), output_hidden_states=True).hidden_states
        state = hidden[layer][0, at]

        def put(value: Tensor) -> Tensor:
            value = value.clone()
            value[0, put_at] = state
            return value

        said = list(begun_ids(model, TARGET))
        out: list[Tensor] = []
        for _ in range(steps):
            with hooked(model.hf, {f"{path}.{into}": (True, put)}):
                logits = model.hf(torch.tensor([said])).logits[0, -1]
            out.append(logits)
            said.append(int(logits.argmax()))
    return out


@FAMILIES
@pytest.mark.parametrize(("into", "put_at"), [(None, -1), (1, -2), (0, 0)])
def test_it_equals_plain_hooks(family: str, into: int | None, put_at: int) -> None:
    model = knowing(MAKERS[family]())
    prompt = traced_prompt(model, FRANCE, form="cloze")
    options: dict[str, Any] = {"target": TARGET, "target_position": put_at, "k": 3, "max_new_tokens": 3}
    found = wb.patchscope(model, FRANCE, form="cloze", position="subject", target_layer=into, **options)
    n = len(begun_ids(model, TARGET))
    assert (found.layers, found.target_position) == ((0, 1, 2), put_at % n)
    for row, layer in enumerate(found.layers):
        target = layer if into is None else into
        assert found.target_layers[row] == target
        steps = by_hand(model, list(prompt.token_ids), prompt.subject[-1], layer, target, put_at % n, 3)
        share, ids = steps[0].softmax(-1).topk(3)
        assert [t.id for t in found.top[row]] == ids.tolist()
        assert [t.probability for t in found.top[row]] == pytest.approx(share.tolist(), rel=1e-3, abs=1e-7)
        said = [int(logits.argmax()) for logits in steps]
        eos = model.tokenizer.eos_token_id
        said = said[: said.index(eos) + 1] if eos in said else said
        assert found.texts[row] == model.tokenizer.decode(said, skip_special_tokens=True).strip()


def test_its_own_state_changes_nothing() -> None:
    """The state of the target's own last token, in its own layer, is what is there already."""
    model = knowing(MAKERS["llama"]())
    found = wb.patchscope(model, TARGET, form="cloze", target=TARGET, max_new_tokens=2)
    plain = wb.next_tokens(model, TARGET, form="cloze", k=1).top[0]
    assert set(found.texts) == {found.unpatched}
    assert all(top[0].id == plain.id for top in found.top)
    assert all(top[0].probability == pytest.approx(plain.probability, abs=1e-5) for top in found.top)


def test_the_end_of_the_last_layer_and_of_an_edited_model() -> None:
    model = knowing(MAKERS["llama"]())
    edit = edit_of(model, some_gates(model, (0, "z"), (1, "post")))
    with wb.applied(model, edit) as edited:
        options: dict[str, Any] = {"form": "cloze", "layers": 3, "target_layer": 0, "target": TARGET}
        across = wb.patchscope(edited, FRANCE, into=model, **options)
        own, base = wb.patchscope(edited, FRANCE, **options), wb.patchscope(model, FRANCE, **options)
    assert (across.stage, base.stage) == ("learn", "base")
    shares = [scope.top[0][0].probability for scope in (across, own, base)]
    assert len({round(share, 6) for share in shares}) == 3, "who reads the source and who the target both count"
    assert across.unpatched == base.unpatched


def test_hooks_of_ones_own_are_part_of_the_source_s_pass() -> None:
    model = knowing(MAKERS["llama"]())
    hook = ("blocks.0.hook_resid_pre", lambda value, hook: torch.zeros_like(value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options: dict[str, Any] = {"form": "cloze", "layers": 0, "target": TARGET}
        hooked_state = wb.patchscope(model, FRANCE, fwd_hooks=[hook], **options)
    prompt = begun_ids(model, TARGET)
    with torch.no_grad():

        def put(value: Tensor) -> Tensor:
            value = value.clone()
            value[0, -1] = 0
            return value

        with hooked(model.hf, {"model.layers.0": (True, put)}):
            logits = model.hf(torch.tensor([prompt])).logits[0, -1]
    assert hooked_state.top[0][0].id == int(logits.argmax())
    assert hooked_state.top[0][0].probability == pytest.approx(float(logits.softmax(-1).max()), rel=1e-3)


def test_the_papers_prompts_end_with_what_the_state_stands_for() -> None:
    model = knowing(MAKERS["llama"]())
    assert TARGETS["identity"].endswith("?") and TARGETS["description"].endswith(" x")
    found = wb.patchscope(model, FRANCE, layers=[2, 0], max_new_tokens=1)
    assert found.layers == (2, 0) and found.target_position == len(found.target_tokens) - 1
    frame = found.to_frame()
    assert frame.layer.tolist() == [2, 0] and frame.text.tolist() == list(found.texts)
    contrast = wb.Contrast(
        clean="The capital of France is", corrupted="The capital of Italy is", answer=" Paris", wrong=" Rome"
    )
    assert wb.patchscope(model, contrast, layers=0, max_new_tokens=1).tokens[-1] == " is"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 3}, r"layers must be some of 0 to 2; with target_layer= also 3, .* got \[3\]"),
        ({"layers": [0, -1]}, r"got \[-1\]"),
        ({"layers": []}, r"got \[\]"),
        ({"layers": [0], "target_layer": 3}, "target_layer must be from 0 to 2, got 3"),
        ({"position": 40}, "position must be one of the 5 tokens of the source, got 40"),
        ({"position": "first"}, "position must be one of the 5 tokens"),
        ({"target_position": 4, "target": TARGET}, "target_position must be one of the 4 tokens of the target, got 4"),
        ({"target": " "}, r"target must be one of \['identity', 'description'\] or a text"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number of at least 1"),
        ({"k": 0}, "k must be"),
    ],
)
def test_what_is_not_there_is_refused(options: dict[str, Any], words: str) -> None:
    model = knowing(MAKERS["llama"]())
    with pytest.raises(ValueError, match=words):
        wb.patchscope(model, FRANCE, form="cloze", **options)


def test_a_text_has_no_subject_and_another_model_cannot_read_it() -> None:
    model = knowing(MAKERS["llama"]())
    with pytest.raises(ValueError, match="position='subject' is for a fact"):
        wb.patchscope(model, "The capital", position="subject")
    with pytest.raises(ValueError, match="into= must be an edit of the same base"):
        wb.patchscope(model, FRANCE, into=knowing(MAKERS["gpt2"]()))
    with pytest.raises(ValueError, match="source must be"):
        wb.patchscope(model, mistyped(3))
