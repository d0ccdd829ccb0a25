"""The logit lens at every layer and every token, against the plain model one place at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.plain_hooks import FRANCE, single
from tests.helpers.tiny_facts import FAMILIES, edit_of, some_gates
from workbench.editing.applied import Dial
from workbench.language.prompts import traced_prompt
from workbench.language.template import chat_text
from workbench.models.engine import Resumable
from workbench.models.load import LoadedModel
from workbench.plots.lens_grid import NAMED_IN_CELLS
from workbench.plots.style import escape, visible
from workbench.tracing import lens_grid as module
from workbench.tracing.lens import lens
from workbench.tracing.lens_grid import lens_grid


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def plain_grid(model: LoadedModel, ids: Any) -> Tensor:
    """Logits [layers + 1, tokens, d_vocab]: what enters each layer of a plain model, through its norm and head."""
    hf = model.hf
    layers = hf.get_submodule(model.architecture.family.layers)
    norm = hf.get_submodule(model.architecture.family.norm)
    kept: list[Tensor] = []
    handles = [m.register_forward_pre_hook(lambda m, args: kept.append(args[0][0])) for m in (*layers, norm)]
    with torch.no_grad():
        hf(torch.tensor([list(ids)]))
        for handle in handles:
            handle.remove()
        return torch.stack([hf.get_output_embeddings()(norm(state)) for state in kept])


def agrees(model: LoadedModel, found: Any, k: int) -> None:
    expected = plain_grid(model, found.token_ids)
    shares = expected.softmax(-1)
    rows, tokens = expected.shape[:2]
    assert (len(found.top), {len(row) for row in found.top}) == (rows, {tokens})
    torch.testing.assert_close(found.probabilities, shares[..., found.answer_id], atol=1e-5, rtol=1e-3)
    own = expected[..., found.answer_id, None]
    off = (found.ranks - (expected > own).sum(-1)).abs()
    assert int(off.max()) <= 1, "near ties"
    for row in range(rows):
        for at in range(tokens):
            best = shares[row, at].topk(k).values.tolist()
            assert [t.probability for t in found.top[row][at]] == pytest.approx(best, abs=1e-5)
            assert [float(shares[row, at, t.id]) for t in found.top[row][at]] == pytest.approx(best, abs=1e-5)


@FAMILIES
@pytest.mark.parametrize("form", ["cloze", "chat"])
def test_every_place_equals_the_plain_model(family: str, form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = single(family)
    prompt = traced_prompt(model, FRANCE, form=form)
    found = lens_grid(model, FRANCE, form=form, k=3)
    assert (found.token_ids, found.subject, found.answer_id) == (prompt.token_ids, prompt.subject, prompt.answer_id)
    assert found.form == form and found.tokens == prompt.tokens and found.stage == "base"
    agrees(model, found, 3)
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 1)  # a place at a time
    one = lens_grid(model, FRANCE, form=form, k=3)
    torch.testing.assert_close(one.probabilities, found.probabilities, atol=1e-6, rtol=1e-4)


def test_the_last_column_is_the_lens_of_a_fact() -> None:
    model = single()
    grid, column = lens_grid(model, FRANCE, form="cloze"), lens(model, FRANCE, form="cloze")
    assert grid.probabilities[:, -1].tolist() == pytest.approx(column.probabilities["old"], abs=1e-5)
    assert tuple(cells[-1][0].token for cells in grid.top) == column.top and grid.labels == column.labels
    assert tuple(grid.ranks[:, -1].tolist()) == column.ranks["old"]


def test_it_takes_one_pass_and_bounded_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = single()
    lens_grid(model, FRANCE)  # the base's answer is known now
    sizes: list[int] = []
    passes: list[int] = []
    unembed, stream = Resumable.unembed, Resumable.whole_stream
    monkeypatch.setattr(Resumable, "unembed", lambda self, part: sizes.append(len(part)) or unembed(self, part))
    monkeypatch.setattr(Resumable, "whole_stream", lambda self, ids: passes.append(1) or stream(self, ids))
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 7 * model.shape.d_vocab)
    found = lens_grid(model, FRANCE)
    assert passes == [1] and max(sizes) == 7 and sum(sizes) == 4 * len(found.tokens)


def test_any_text_follows_its_own_next_token_or_a_given_one() -> None:
    model = single()
    found = lens_grid(model, "The capital of Spain is", form="cloze")
    assert found.answer_token == " Madrid" == found.top[-1][-1][0].token and found.subject == ()
    agrees(model, found, 1)
    chat = lens_grid(model, "What is the capital of Spain?")
    assert (chat.form, chat.answer_token) == ("chat", "Madrid")
    assert chat.text == chat_text(model, "What is the capital of Spain?")
    given = lens_grid(model, "The capital of Spain is", form="cloze", answer="Rome")
    assert given.answer_token == " Rome" and given.settles is None
    assert given.finding.startswith("not the likeliest token after ' is' at the end (rank ")
    agrees(model, given, 1)


def test_settling_is_read_from_the_end() -> None:
    found = lens_grid(single(), FRANCE, form="cloze")
    ranks = torch.ones_like(found.ranks)
    for zeros, expected in (((3,), "L2"), ((2, 3), "L1"), ((0, 1, 2, 3), "in"), ((1, 3), "L2"), ((1, 2), None)):
        ranks[:, -1] = 1
        ranks[list(zeros), -1] = 0
        assert replace(found, ranks=ranks.clone()).settles == expected


def test_an_edited_model_is_read_on_the_base_models_text() -> None:
    base = single()
    model = Dial(base, edit_of(base, some_gates(base, (1, "z"), (1, "post")))).at(1.0)
    found, before = lens_grid(model, FRANCE, form="cloze"), lens_grid(base, FRANCE, form="cloze")
    assert found.token_ids == before.token_ids and found.stage == "learn"
    torch.testing.assert_close(found.probabilities[:2], before.probabilities[:2], atol=1e-5, rtol=1e-3)
    assert (found.probabilities[2:] - before.probabilities[2:]).abs().max() > 1e-3


def test_table() -> None:
    found = lens_grid(single(), FRANCE, form="cloze")
    frame = found.to_frame()
    assert len(frame) == 4 * 5 and frame["layer"].tolist()[:6] == ["in"] * 5 + ["L0"]
    last = frame.iloc[-1]
    assert (last["token"], last["top"], last["rank_answer"]) == (" is", " Paris", 0)


@pytest.mark.parametrize("form", ["cloze", "chat"])
def test_figure(form: Any) -> None:
    """Short texts have the likeliest token in each cell; every cell has it on hover."""
    found = lens_grid(single(), FRANCE, form=form, k=2)
    figure = found.plot()
    (heat,) = figure.data
    assert torch.allclose(torch.tensor(heat.z), found.probabilities, atol=1e-6)
    assert figure.layout.meta["alt"].startswith(f"Logit lens: 4 rows by {len(found.tokens)} tokens; “")
    named = len(found.tokens) <= NAMED_IN_CELLS
    assert (heat.text is not None) == named == (form == "cloze")
    top = found.top[3][-1]
    assert escape(visible(top[0].token, 24)) in heat.customdata[3][-1][2] and heat.customdata[3][-1][3] == "0"
    hostile = replace(found, answer_token="<b>x", tokens=("<img src=x>", *found.tokens[1:]))
    assert "<img" not in (hostile.plot().to_json() or "") and "<b>x" not in (hostile.plot().to_json() or "")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "text must be a text that is more than space, got ''"),
        ("a", {"form": "plain"}, "form must be 'chat' or 'cloze', got 'plain'"),
        ("a", {"k": 0}, "k must be a whole number of tokens from 1 to"),
        ("a", {"answer": " "}, "answer must be a text that is more than space, got ' '"),
        (FRANCE, {"answer": "Rome"}, "answer= is for a text"),
        ("a " * 5000, {"form": "cloze"}, "the model reads at most"),
    ],
)
def test_texts_without_a_grid(text: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lens_grid(single(), text, **options)
