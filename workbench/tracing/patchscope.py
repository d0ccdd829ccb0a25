"""Patchscopes: read a hidden state by putting it into another prompt, and let the model say what it is.

Method: Ghandeharioun et al. 2024 (arXiv 2401.06102). The state that enters a layer at a position of a source text
replaces the one that enters a layer at a position of a target prompt; everything after it is computed as always. The
two target prompts are the paper's. All states of a call run side by side, and what stands before the replaced position
is computed once: both are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from workbench.language.contrasts import text_of
from workbench.language.generation import completion_of, stops_of
from workbench.language.tokens import begun_ids, check_ids, token_texts
from workbench.models.engine import Change, HookSite, KeysValues, Resumable, pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.bridge_runs import FwdHook, bridge_runs
from workbench.tracing.next_tokens import check_k, likeliest, readable_ids
from workbench.tracing.self_check import require
from workbench.types import Contrast, Fact, Form, NextToken, Patchscope
from workbench.types.plain import check_count, is_whole
from workbench.types.torch_settings import own_torch_settings

TARGETS = {
    "identity": "cat -> cat\n1135 -> 1135\nhello -> hello\n?",
    "description": (
        "Syria: Country in the Middle East, Leonardo DiCaprio: American actor, Samsung: South Korean multinational "
        "major appliance and consumer electronics corporation, x"
    ),
}
"""Target prompts of the paper by name. The state stands for their last token."""
SourcePosition = int | Literal["last", "subject"]


@own_torch_settings()
def patchscope(
    model: LoadedModel,
    source: Fact | Contrast | str,
    *,
    layers: int | Sequence[int] | None = None,
    position: SourcePosition = "last",
    target: str = "identity",
    target_layer: int | None = None,
    target_position: int = -1,
    into: LoadedModel | None = None,
    form: Form | None = None,
    max_new_tokens: int = 10,
    k: int = 5,
    fwd_hooks: Sequence[FwdHook] = (),
) -> Patchscope:
    """Read states of a text by putting each into another prompt.

    Args:
        model: The model that reads the source, base or edited; it is not changed.
        source: A fact, whose text is the base model's own up to the answer; a contrast, whose clean run is read; or a
            text.
        layers: Whose entering states are read, one by one (``"resid"`` of ``causal_trace``); 0 are the embeddings, and
            the number of layers is the end of the last one. None for all layers.
        position: Of the source: an index (negative ones from the end), ``"last"``, or of a fact ``"subject"``, the last
            token of its first mention.
        target: The prompt into which it is put: ``"identity"`` (which token comes next), ``"description"`` (what is
            it), or a text, which is read as it is.
        target_layer: Which layer it enters there; None for the one that it is from.
        target_position: Where: an index (negative ones from the end).
        into: The model that reads the target, by default the same: another edit of the same base.
        form: Of a fact as in ``causal_trace``; of a text ``"chat"`` (the default) or ``"cloze"``.
        max_new_tokens: Longest continuation.
        k: How many of the likeliest next tokens are kept.
        fwd_hooks: Hooks of your own, part of the pass over the source, as in ``causal_trace``.

    Returns:
        For each layer the likeliest next tokens after the target and the greedy continuation, and what the target goes
        on with when nothing is put into it.

    Raises:
        ValueError: A layer or position that is not there, a layer that has no counterpart in the target, models of
            different bases, an empty text, or as ``traced_prompt``.

    Source: Ghandeharioun et al. 2024 (2401.06102), sections 3 and 4, without mapping functions between models.

    Example:
        >>> scope = wb.patchscope(model, "The capital of France is", form="cloze", layers=1, target="Spain France",
        ...                       max_new_tokens=1)
        >>> scope.layers, scope.target_tokens, len(scope.texts)
        ((1,), ('Spain', ' France'), 1)
    """
    reader = model if into is None else into
    if reader.base is not model.base and reader.base.fingerprint != model.base.fingerprint:
        raise ValueError(f"into= must be an edit of the same base, got {reader.name!r} for {model.name!r}.")
    check_k(model, k)
    check_count("max_new_tokens", max_new_tokens)
    for one in (model, reader):
        require(one, "resume")
    ids, at = _source(model, source, position, form)
    target_ids = _target_ids(reader, target, max_new_tokens)
    put_at = _index(target_position, len(target_ids), "target_position", "the target")
    pairs = _layers(model.shape.n_layers, layers, target_layer)
    bridged = bridge_runs(model, "transformerlens", fwd_hooks) if fwd_hooks else None
    with torch.no_grad():
        with pooled_engine(Resumable, model) as engine:
            text = torch.tensor([ids])
            stream = engine.whole_stream(text)[0] if bridged is None else bridged.stream(text)
            states = stream[[layer for layer, _ in pairs], at]
        with pooled_engine(Resumable, reader) as engine:
            run = _Target(engine, target_ids, put_at, [layer for _, layer in pairs], states)
            top, said = _greedy(reader, run, k, max_new_tokens)
            plain = _Target(engine, target_ids, put_at, [], states[:0])
            _, unpatched = _greedy(reader, plain, k, max_new_tokens)
    return Patchscope(
        tokens=token_texts(model, ids),
        position=at,
        layers=tuple(layer for layer, _ in pairs),
        target_tokens=token_texts(reader, target_ids),
        target_position=put_at,
        target_layers=tuple(layer for _, layer in pairs),
        top=top,
        texts=said,
        unpatched=unpatched[0],
        stage=model.applied[-1].stage if model.applied else "base",
    )


@dataclass
class _Target:
    """The target prompt with states put into it, a row for each; without states one row as it is.

    Args:
        engine: Runs the model.
        ids: The prompt's token ids.
        at: Where the states are put.
        layers: Which layer each enters.
        states: The states, [rows, d_model].
    """

    engine: Resumable
    ids: Sequence[int]
    at: int
    layers: Sequence[int]
    states: Tensor

    def __post_init__(self) -> None:
        self.rows = max(1, len(self.layers))
        self.prefix: KeysValues | None = None
        if self.at:
            before = self.engine.embed(torch.tensor([self.ids]))[:, : self.at]
            self.prefix = self.engine.resumed_keys_values(before, 0)
        self.changes: dict[tuple[HookSite, int], Change] = {}
        for layer in dict.fromkeys(self.layers):
            self.changes["resid", layer] = self._putting([row for row, of in enumerate(self.layers) if of == layer])

    def _putting(self, rows: Sequence[int]) -> Change:
        def put(value: Tensor) -> Tensor:
            value = value.clone()
            value[list(rows), 0] = self.states[list(rows)].to(value)
            return value

        return put

    def logits(self, said: Tensor) -> Tensor:
        """Logits after the prompt and what each row has said, [rows, d_vocab].

        Args:
            said: Token ids, [rows, tokens].
        """
        whole = torch.cat([torch.tensor([self.ids] * self.rows), said], 1)
        resid = self.engine.embed(whole)[:, self.at :]
        return self.engine.run(resid, prefix=self.prefix, changes=self.changes).float().cpu()


def _greedy(
    model: LoadedModel, run: _Target, k: int, most: int
) -> tuple[tuple[tuple[NextToken, ...], ...], tuple[str, ...]]:
    """By row, the likeliest first tokens and the greedy continuation."""
    said = torch.zeros(run.rows, 0, dtype=torch.long)
    stops = stops_of(model)
    ends = torch.tensor([stop for stop in stops if isinstance(stop, int)], dtype=torch.long)
    top: tuple[tuple[NextToken, ...], ...] = ()
    for step in range(most):
        logits = run.logits(said)
        if step == 0:
            top = tuple(likeliest(model, row[None], k) for row in logits)
        said = torch.cat([said, logits.argmax(-1, keepdim=True)], 1)
        if torch.isin(said, ends).any(1).all():
            break
    return top, tuple(completion_of(model, row, stops).text for row in said.tolist())


def _source(
    model: LoadedModel, source: Fact | Contrast | str, position: SourcePosition, form: Form | None
) -> tuple[list[int], int]:
    """The source's token ids, and where its states are read."""
    subject: tuple[int, ...] = ()
    if isinstance(source, str):
        ids = readable_ids(model, source, "chat" if form is None else form)
    elif not isinstance(source, Fact | Contrast):
        raise ValueError(f"source must be a fact, a contrast or a text, got {source!r}.")
    else:
        prompt = text_of(model, source, form, "Patchscopes")
        ids, subject = list(prompt.token_ids), prompt.subject if isinstance(source, Fact) else ()
    if position == "last":
        return ids, len(ids) - 1
    if position == "subject":
        if not subject:
            raise ValueError("position='subject' is for a fact: give an index of this source's tokens.")
        after = [at for at in subject if at + 1 not in subject]
        return ids, after[0]
    return ids, _index(position, len(ids), "position", "the source")


def _index(position: int, length: int, name: str, what: str) -> int:
    if not is_whole(position) or not -length <= position < length:
        raise ValueError(f"{name} must be one of the {length} tokens of {what}, got {position!r}.")
    return position % length


def _target_ids(model: LoadedModel, target: str, most: int) -> list[int]:
    """The target prompt's token ids."""
    if not isinstance(target, str) or not target.strip():
        raise ValueError(f"target must be one of {list(TARGETS)} or a text that is more than space, got {target!r}.")
    ids = begun_ids(model, TARGETS.get(target, target))
    check_ids(model, [*ids, *ids[-1:] * most], "The target with its continuation")
    return ids


def _layers(n: int, layers: int | Sequence[int] | None, target_layer: int | None) -> list[tuple[int, int]]:
    """Pairs of a source layer and a target layer."""
    given = range(n) if layers is None else [layers] if isinstance(layers, int) else list(layers)
    if target_layer is not None and (not is_whole(target_layer) or not 0 <= target_layer < n):
        raise ValueError(f"target_layer must be from 0 to {n - 1}, got {target_layer!r}.")
    most = n - 1 if target_layer is None else n
    wrong = [layer for layer in given if not is_whole(layer) or not 0 <= layer <= most]
    if wrong or not given:
        end = "" if target_layer is not None else f"; with target_layer= also {n}, the end of the last layer"
        raise ValueError(f"layers must be some of 0 to {most}{end}, got {wrong or list(given)!r}.")
    return [(layer, layer if target_layer is None else target_layer) for layer in given]
