"""Ordinary prose before and after an edit: the negative log-likelihood per token, sentence by sentence.

An edit that reaches its fact by breaking the language shows here, though no question asks for it. The text is the
project's own (``workbench/evaluation/data/text``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

from workbench.language.prompt_text import in_context
from workbench.language.scoring import continuation_nll
from workbench.language.tokens import beginning, begun_ids, following_ids
from workbench.models.load import LoadedModel
from workbench.types import TextRow


@lru_cache(maxsize=1)
def ordinary_passages() -> tuple[tuple[str, ...], ...]:
    """The bundled passages, each as its sentences."""
    text = files("workbench").joinpath("evaluation/data/text/ordinary.txt").read_text(encoding="utf-8")
    return tuple(tuple(passage.strip().splitlines()) for passage in text.split("\n\n") if passage.strip())


def text_rows(model: LoadedModel, stage: str, passages: Sequence[Sequence[str]] | None = None) -> list[TextRow]:
    """How likely each sentence is to the model, after those before it in its passage (and after its context, where an
    edit has one).

    Args:
        model: A base or edited model.
        stage: What the rows say about it.
        passages: Lists of sentences; the bundled ones by default.

    Returns:
        One row a sentence, in order. Where the tokenizer puts no BOS before a text, a passage's very first token
        follows nothing, so that it is not scored, and a first sentence of one token has no row.
    """
    sentences: list[str] = []
    before: list[list[int]] = []
    tokens: list[list[int]] = []
    for passage in ordinary_passages() if passages is None else passages:
        text = in_context(model.context, "")
        ids = begun_ids(model, text) if text else list(beginning(model))
        for i, sentence in enumerate(passage):
            new = following_ids(model, text, f" {sentence}" if i else sentence)
            text += f" {sentence}" if i else sentence
            start = 0 if i or beginning(model) else 1
            sentences.append(sentence)
            before.append([*ids, *new[:start]])
            tokens.append(new[start:])
            ids += new
    scores = continuation_nll(model, before, tokens)
    scored = zip(sentences, tokens, scores, strict=True)
    return [TextRow(stage=stage, sentence=s, n_tokens=len(t), nll=nll) for s, t, nll in scored if t]
