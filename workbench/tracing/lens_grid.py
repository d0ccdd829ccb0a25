"""A lens at every layer and every token, in one forward pass.

The residual stream at each place is put through the final norm and the output embeddings, as if the later layers did
nothing, or through the map of its layer first. Logits of a vocabulary are large: they are made for a few hundred places
at a time, and of each only what the grid shows is kept.

Source: nostalgebraist 2020 (logit lens), Belrose et al. 2023 (tuned lens).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workbench.language.contrasts import text_of
from workbench.language.prompts import answer_ids, traced_prompt
from workbench.language.tokens import decoded, token_text, token_texts
from workbench.models.engine import Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.bridge_runs import FwdHook, bridge_runs
from workbench.tracing.next_tokens import check_k, readable_ids
from workbench.tracing.self_check import require
from workbench.tracing.tuned_lens import lens_of
from workbench.types import Contrast, Fact, Form, LensGrid, LensKind, NextToken, TunedLens
from workbench.types.torch_settings import own_torch_settings

LOGITS_AT_ONCE = 2**23
"""Entries of the logits that are held at a time: 32 MiB."""


@own_torch_settings()
def lens_grid(
    model: LoadedModel,
    fact: Fact | Contrast | str,
    *,
    form: Form | None = None,
    answer: str | None = None,
    k: int = 1,
    kind: LensKind | TunedLens = "logit",
    fwd_hooks: Sequence[FwdHook] = (),
) -> LensGrid:
    """Read a lens at every layer and every token of a fact's traced text, or of any text.

    Args:
        model: A base or edited model; it is not changed. A fact's text is the base model's own.
        fact: A fact, a contrast (its clean run), or a text.
        form: Of a fact as in ``causal_trace``; of a text ``"chat"`` (the default: through the chat template) or
            ``"cloze"`` (as it is).
        answer: Of a text, what it would go on with: its first token is followed. By default the model's own likeliest
            next token. A fact's is its answer's.
        k: How many of the likeliest tokens are kept in each cell.
        kind, fwd_hooks: As in ``lens``.

    Returns:
        The likeliest tokens of every cell, and probability and rank of the followed token.

    Raises:
        ValueError: An empty text, one that is longer than the model can read, an option out of range, or as
            ``traced_prompt``.

    Example:
        >>> grid = wb.lens_grid(model, "The capital of Spain is", form="cloze", k=2)
        >>> grid.answer_token, grid.settles, len(grid.top[0][0])
        (' Madrid', 'L1', 2)
    """
    check_k(model, k)
    require(model, "lens")
    through = lens_of(model, kind)
    subject: tuple[int, ...] = ()
    followed: int | None = None
    if isinstance(fact, str):
        shape: Form = "chat" if form is None else form
        ids = readable_ids(model.base, fact, shape)
        if answer is not None:
            followed = _first(model, answer, shape, decoded(model, ids))
    else:
        if answer is not None:
            raise ValueError("answer= is for a text; of a fact or contrast its own is followed. Leave it out.")
        if isinstance(fact, Fact):
            prompt = traced_prompt(model, fact, form=form, needs_subject=False)
        else:
            prompt = text_of(model, fact, form, "Lenses")
        ids, shape, subject, followed = list(prompt.token_ids), prompt.form, prompt.subject, prompt.answer_id
    top: list[tuple[NextToken, ...]] = []
    shares: list[torch.Tensor] = []
    ranks: list[torch.Tensor] = []
    bridged = bridge_runs(model, "transformerlens", fwd_hooks) if fwd_hooks else None
    with torch.no_grad(), pooled_engine(Resumable, model) as engine:
        text = torch.tensor([ids])
        # [layers + 1, tokens, d_model]
        stream = engine.whole_stream(text)[0] if bridged is None else bridged.stream(text)
        if followed is None:
            followed = int(engine.unembed(stream[-1, -1:]).argmax())
        stream = stream if through is None else through.translated(stream)
        for part in stream.flatten(0, 1).split(max(1, LOGITS_AT_ONCE // model.shape.d_vocab)):
            logits = engine.unembed(part).float()
            own = logits[:, followed, None]
            ranks.append((logits > own).sum(-1).cpu())
            total = logits.logsumexp(-1, keepdim=True)
            shares.append((own - total).exp()[:, 0].cpu())
            best = logits.topk(k)
            for tokens, values in zip(best.indices.tolist(), (best.values - total).exp().tolist(), strict=True):
                top.append(tuple(NextToken(token_text(model, t), t, p) for t, p in zip(tokens, values, strict=True)))
    n = len(ids)
    return LensGrid(
        text=decoded(model, ids),
        form=shape,
        token_ids=tuple(ids),
        tokens=token_texts(model, ids),
        subject=subject,
        stage=model.applied[-1].stage if model.applied else "base",
        answer_id=followed,
        answer_token=token_text(model, followed),
        top=tuple(tuple(top[row * n : (row + 1) * n]) for row in range(len(top) // n)),
        probabilities=torch.cat(shares).view(-1, n),
        ranks=torch.cat(ranks).view(-1, n),
        kind="logit" if through is None else "tuned",
    )


def _first(model: LoadedModel, answer: str, form: Form, before: str) -> int:
    """The first token of what a text in a form would go on with."""
    if not isinstance(answer, str) or not answer.strip():
        raise ValueError(f"answer must be a text that is more than space, got {answer!r}.")
    for token in answer_ids(model.base, answer.strip(), form, before=before):
        if token_text(model, token).strip():
            return token
    raise ValueError(f"The answer {answer!r} has no token besides spaces; give it a text.")
