"""The next tokens after any text, as the plain model has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.helpers.plain_hooks import FRANCE, single
from workbench.language.prompts import prompt_ids
from workbench.tracing.next_tokens import next_tokens


@pytest.mark.parametrize("form", ["cloze", "chat"])
def test_next_tokens_are_the_plain_models(form: Any) -> None:
    model = single()
    text = FRANCE.prompt if form == "cloze" else FRANCE.question
    found = next_tokens(model, text, form=form, k=4)
    ids = prompt_ids(model, text, form)
    with torch.no_grad():
        shares = model.hf(torch.tensor([ids])).logits[0, -1].softmax(-1).topk(4)
    assert [t.id for t in found.top] == shares.indices.tolist()
    assert [t.probability for t in found.top] == pytest.approx(shares.values.tolist(), abs=1e-5)
    assert [t.token for t in found.top] == [model.tokenizer.decode([i]) for i in shares.indices.tolist()]
    assert found.token_ids == tuple(ids) and found.text == model.tokenizer.decode(ids) and len(found.tokens) == len(ids)
    assert found.to_frame()["id"].tolist() == shares.indices.tolist()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("  ", {}, "text must be a text that is more than space, got '  '"),
        (None, {}, "text must be a text that is more than space, got None"),
        ("a", {"k": 0}, "k must be a whole number of tokens from 1 to"),
        ("a", {"form": "raw"}, "form must be 'chat' or 'cloze', got 'raw'"),
        ("a " * 5000, {"form": "cloze"}, r"The text has \d+ tokens, and the model reads at most \d+"),
    ],
)
def test_texts_without_next_tokens(text: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next_tokens(single(), text, **options)
