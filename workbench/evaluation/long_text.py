"""Long stretches of ordinary text: what a base wrote by itself, or documents of one's own, in windows of many tokens.

The bundled sentences (``ordinary_text``) are few. An edit that costs a hundredth of a nat, or only far into a context,
shows in tens of thousands of tokens alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.facts.ordinary_texts import prose
from workbench.files.atomic import write_bytes
from workbench.files.user_cache import cache_folder, warn_not_written
from workbench.language.generation import stop_tokens
from workbench.language.prompt_text import in_context
from workbench.language.sampling import sample
from workbench.language.scoring import continuation_nll
from workbench.language.tokens import beginning, begun_ids, decoded, longest_text
from workbench.models.load import LoadedModel
from workbench.types import TextRow
from workbench.types.plain import check_count, is_whole
from workbench.types.report import TextSource

CONTEXT = 512
"""Tokens of a stretch."""
LEAST = 32
"""The last window of a document is left out where it is shorter."""
OPENING = 8
"""Tokens of a paragraph from which the model goes on."""
ROUND = 32
"""Texts that are written at once."""
MOST_ROUNDS = 1000
READ_TOKENS = 2048
"""Tokens that are read in one pass: the logits of all of them are held."""
_VERSION = 1


@dataclass(frozen=True)
class Stretches:
    """Stretches of text as token ids of a base.

    Args:
        source: Where they come from.
        rows: What stands before each stretch and does not count, and the stretch.
    """

    source: TextSource
    rows: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    @property
    def n_tokens(self) -> int:
        """Tokens that count, in all."""
        return sum(len(tokens) for _, tokens in self.rows)


def stretches_of(
    model: LoadedModel, tokens: int | None, prose: Sequence[str] | None, *, context: int = CONTEXT
) -> Stretches | None:
    """The stretches that an evaluation reads: of documents where there are some, whole stretches up to the one that
    reaches so many tokens; else so many of the base's own, the same ones in every evaluation; none where neither is
    asked for.

    Raises:
        ValueError: Fewer than one token, or a context of fewer than one.
    """
    for name, value in (("text_tokens", tokens), ("text_context", context)):
        if value is not None:
            check_count(name, value)
    if prose is None:
        return own_text(model, tokens, context=context) if tokens else None
    whole = given_text(model, prose, context=context)
    if tokens is None:
        return whole
    kept, reached = 0, 0
    while kept < len(whole.rows) and reached < tokens:
        reached += len(whole.rows[kept][1])
        kept += 1
    return Stretches(whole.source, whole.rows[:kept])


def own_text(model: LoadedModel, tokens: int, *, context: int = CONTEXT, seed: int = 0) -> Stretches:
    """Let a base write ordinary text: samples at temperature 1 that go on from the beginnings of the package's own
    paragraphs, each up to where the model ends it.

    They are written once a model and setting, into the user's cache. A base finds its own text likely, so that what
    an edit changes shows sharply; of the text that there is in the world it is a part.

    Args:
        model: A base model.
        tokens: How many at least.
        context: Tokens of each stretch at most, and at most as many as the model can read.
        seed: Of the samples. Evaluations leave it, so that they all read one text.

    Raises:
        ValueError: An edited model, fewer than one token, or a model that ends every text at once.

    Example:
        >>> from workbench.evaluation.long_text import own_text
        >>> own_text(model, 64, context=40).n_tokens >= 64
        True
    """
    if model.edited:
        raise ValueError("Ordinary text is the base's own: pass the base model (model.base).")
    if tokens < 1 or context < 1:
        raise ValueError(f"tokens and context must be 1 or more, got {tokens!r} and {context!r}.")
    openings = [begun_ids(model, paragraph)[:OPENING] for paragraph in prose()]
    width = _width(model, context, OPENING)
    path = cache_folder() / "own_text" / f"{model.fingerprint[:16]}-{width}-{seed}.json"
    written = _read(path, model.fingerprint)
    before = len(written)
    stops = set(stop_tokens(model))
    for part in range(len(written) // ROUND, MOST_ROUNDS):
        if sum(len(rest) for _, rest in written) >= tokens:
            break
        begun = [openings[i % len(openings)] for i in range(part * ROUND, (part + 1) * ROUND)]
        said = sample(model, begun, 1, max_new_tokens=width, batch_size=ROUND, seed=seed + part)
        texts = [tuple(t for t in one.token_ids if t not in stops) for (one,) in said]
        if not any(texts):
            break
        written += [(tuple(opening), text) for opening, text in zip(begun, texts, strict=True)]
    if sum(len(rest) for _, rest in written) < tokens:
        raise ValueError(f"{model.name!r} ends its texts at once, so it wrote no {tokens} tokens. Give prose=[...].")
    if len(written) > before:
        _write(path, model.fingerprint, written)
    kept, reached = 0, 0
    while reached < tokens:
        reached += len(written[kept][1])
        kept += 1
    return Stretches("own generations", tuple(row for row in written[:kept] if row[1]))


def given_text(model: LoadedModel, documents: Sequence[str], *, context: int = CONTEXT) -> Stretches:
    """Cut documents of one's own into windows, such as a book whose copyright has ended.

    Args:
        model: The model whose tokens are counted.
        documents: Texts; a window is of one document.
        context: Tokens of each window at most, and at most as many as the model can read.

    Raises:
        ValueError: One text instead of several, or none that is long enough.

    Example:
        >>> from workbench.evaluation.long_text import given_text
        >>> stretches = given_text(model, ["The capital of France is Paris. " * 8], context=40)
        >>> stretches.source, len(stretches.rows)
        ('given', 1)
    """
    if isinstance(documents, str):
        raise ValueError("prose= is a list of documents; write [text].")
    start = beginning(model)
    width = max(_width(model, context, len(start)), 1 if start else 2)
    skipped = 0 if start else 1  # where nothing stands before a text, its first token follows nothing
    least = max(min(LEAST, width), skipped + 1)
    rows: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for document in documents:
        ids = tuple(begun_ids(model, document)[len(start) :])
        windows = (ids[i : i + width] for i in range(0, len(ids), width))
        rows += [((*start, *w[:skipped]), w[skipped:]) for w in windows if len(w) >= least]
    if not rows:
        raise ValueError(f"prose= holds no document of at least {least} tokens, so nothing can be read.")
    return Stretches("given", tuple(rows))


def long_text_rows(model: LoadedModel, stage: str, stretches: Stretches) -> list[TextRow]:
    """How likely each stretch is to a model, after what stands before it (and after its context, where an edit has
    one).

    Args:
        model: A base or edited model.
        stage: What the rows say about it.
        stretches: The stretches.
    """
    text = in_context(model.context, "")
    context = begun_ids(model, text) if text else []
    begun = beginning(model) if context else ()  # BOS stands before the context, once
    before = [
        [*context, *opening[len(begun) if opening[: len(begun)] == begun else 0 :]] for opening, _ in stretches.rows
    ]
    after = [list(tokens) for _, tokens in stretches.rows]
    longest = max(map(len, after), default=1)
    nll = continuation_nll(model, before, after, batch_size=max(1, READ_TOKENS // longest))
    return [
        TextRow(stage=stage, sentence=decoded(model, tokens), n_tokens=len(tokens), nll=value, source=stretches.source)
        for tokens, value in zip(after, nll, strict=True)
    ]


def _width(model: LoadedModel, context: int, before: int) -> int:
    """Tokens of a stretch for which the model has room."""
    room = longest_text(model)
    return context if room is None else max(min(context, room - before), 1)


def _write(path: Path, fingerprint: str, written: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
    """Keep what was written, or warn that it cannot be kept."""
    document = {"version": _VERSION, "fingerprint": fingerprint, "rows": written}
    try:
        write_bytes(path, json.dumps(document).encode())
    except OSError as error:
        warn_not_written(error)


def _read(path: Path, fingerprint: str) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What was written before; nothing where there is no such file, or another one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(data, dict) or (data.get("version"), data.get("fingerprint")) != (_VERSION, fingerprint):
        return []
    rows = data.get("rows")
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
        return []
    return [(tuple(opening), tuple(rest)) for opening, rest in rows]


def _is_row(row: object) -> bool:
    """Whether a row is two lists of token ids."""
    return (
        isinstance(row, list)
        and len(row) == 2
        and all(isinstance(part, list) and all(is_whole(t) and t >= 0 for t in part) for part in row)
    )
