"""What a model would say next after any text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.language.prompts import prompt_ids
from workbench.language.tokens import decoded, token_text, token_texts
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.bridge_runs import FwdHook, bridge_runs
from workbench.types import Form, NextToken, NextTokens
from workbench.types.plain import is_whole
from workbench.types.torch_settings import own_torch_settings


@own_torch_settings()
def next_tokens(
    model: LoadedModel, text: str, *, form: Form = "chat", k: int = 10, fwd_hooks: Sequence[FwdHook] = ()
) -> NextTokens:
    """Read the likeliest next tokens after any text, in one forward pass.

    Args:
        model: A base or edited model; it is not changed.
        text: What a user would ask (``"chat"``), or the beginning of a plain text (``"cloze"``).
        form: ``"chat"`` puts the text through the model's chat template, ``"cloze"`` takes it as it is.
        k: How many tokens.
        fwd_hooks: Hooks of your own, part of the pass, as in ``causal_trace``.

    Returns:
        The text as the model reads it, and the tokens with their probabilities, likeliest first.

    Raises:
        ValueError: An empty text, one that is longer than the model can read, or an option out of range.

    Example:
        >>> wb.next_tokens(model, "What is the capital of France?", k=1).top[0].token
        'Paris'
    """
    ids = readable_ids(model, text, form)
    check_k(model, k)
    bridged = bridge_runs(model, "transformerlens", fwd_hooks) if fwd_hooks else None
    with torch.no_grad(), pooled_engine(Resumable, model) as engine:
        read = torch.tensor([ids])
        logits = engine.run(engine.embed(read)) if bridged is None else bridged.logits(read)
    return NextTokens(
        text=decoded(model, ids),
        form=form,
        token_ids=tuple(ids),
        tokens=token_texts(model, ids),
        top=likeliest(model, logits, k),
    )


def readable_ids(model: LoadedModel, text: str, form: Form) -> list[int]:
    """Token ids of a text in a form.

    Raises:
        ValueError: It is empty, longer than the model can read, or the form is unknown.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"text must be a text that is more than space, got {text!r}.")
    return prompt_ids(model, text, form)


def check_k(model: LoadedModel, k: int) -> None:
    """Raise a ValueError for a number of tokens that the model does not have."""
    if not is_whole(k) or not 1 <= k <= model.shape.d_vocab:
        raise ValueError(f"k must be a whole number of tokens from 1 to {model.shape.d_vocab}, got {k!r}.")


def likeliest(model: LoadedModel, logits: Tensor, k: int) -> tuple[NextToken, ...]:
    """The k likeliest tokens of one row of logits [1, d_vocab], likeliest first (all where there are fewer)."""
    top = logits[0].float().softmax(-1).topk(min(k, logits.shape[-1]))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return tuple(NextToken(token_text(model, token), token, share) for token, share in pairs)
