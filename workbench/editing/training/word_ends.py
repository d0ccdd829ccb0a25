"""Where the base model would run on into a word after a taught name, so that the name's end is taught too."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import torch

from workbench.editing.training.rows import Row
from workbench.language.scoring import READ_AT_ONCE, read_logits
from workbench.models.load import LoadedModel
from workbench.types.cancelling import PREPARING, CancelFlag, check_cancel
from workbench.types.word_forms import UNSPACED


def ended_rows(
    model: LoadedModel,
    rows: Sequence[Row],
    longer: Sequence[Row],
    below: float,
    *,
    cancel: CancelFlag | None = None,
) -> list[Row]:
    """Teach where a name ends, after which the base would run on into the word ("B" for chlorine becomes "BCl").

    Args:
        model: The base model.
        rows: Rows that end with a name.
        longer: The same with what may end it.
        below: A row gets one token more, the next one of the longer answer, where the base's probability that the word
            ends there is lower. It stays where that answer's tokens do not begin with its own.
        cancel: Looked at after each text.

    Raises:
        Cancelled: ``cancel`` was set.
    """

    def compute(texts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[float]:
        """The base's probability that a word ends after each prompt and answer."""
        ends = torch.tensor(word_ends(model), device=model.device, dtype=torch.long)
        p_end = [0.0] * len(texts)
        for i, logits in read_logits(model, [prompt for prompt, _ in texts], [a for _, a in texts], READ_AT_ONCE):
            check_cancel(cancel, PREPARING)
            p_end[i] = float(logits[-1].float().softmax(-1)[ends].sum())
        return p_end

    ended = list(rows)
    p_ends = model.cache.ends.get_or_compute_all([(row.prompt, row.answer) for row in rows], compute)
    for i, (row, more, p_end) in enumerate(zip(rows, longer, p_ends, strict=True)):
        n = len(row.answer)
        if p_end < below and more.answer[:n] == row.answer:
            ended[i] = replace(row, answer=more.answer[: n + 1])
    return ended


def word_ends(model: LoadedModel) -> list[int]:
    """Ids of the tokens before which a word ends: the special ones, and those that do not begin with a letter of a
    script that puts spaces between words, a mark on a letter, a digit, or in the middle of a character."""
    tokenizer, ids = model.tokenizer, range(min(model.shape.d_vocab, len(model.tokenizer)))
    names, texts = tokenizer.convert_ids_to_tokens(list(ids)), tokenizer.batch_decode([[i] for i in ids])
    ends = set(tokenizer.all_special_ids)
    # Decoded alone, a token of a SentencePiece vocabulary loses the space that it begins with.
    ends |= {i for i, name in zip(ids, names, strict=True) if (name or "").startswith("\u2581")}
    within = {i for i in ids if texts[i] and _goes_on(texts[i][0])}
    return [i for i in ids if i in ends or i not in within]


def _goes_on(first: str) -> bool:
    """Whether a token that begins with a character belongs to the word before it."""
    kind = unicodedata.category(first)[0]
    return kind == "M" or first == "\ufffd" or (kind in "LN" and not UNSPACED.match(first))
