"""What a component writes, read off by the output embeddings: direct logit attribution to all tokens.

The output is taken at the traced position, put through what the model does with it on its way (a norm after the
sublayer, a factor, the final norm: norms at the scale that they have there) and the output embeddings. So the values
are exactly what the component adds to the logits itself, before any cap on them; what later layers make of its output
is not in them. The sum over all components, with the embeddings and the norms' biases, is the model's logits, and where
it is not, a ``ValueError`` says so.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from workbench.language.contrasts import text_of
from workbench.language.tokens import token_text
from workbench.models.direct import DirectPath, Part, Passed, Place
from workbench.models.engine import pooled_engine
from workbench.models.load import LoadedModel
from workbench.tracing.dla import allowed_miss, check_sum
from workbench.tracing.next_tokens import check_k
from workbench.tracing.self_check import require
from workbench.types import Component, Contrast, Fact, Form, TokenLogit, TracedPrompt, Writes
from workbench.types.torch_settings import own_torch_settings

_PARTS: dict[str, Part] = {"H": "attn", "N": "mlp", "MLP": "mlp", "ATTN": "attn"}


@own_torch_settings()
def writes(
    model: LoadedModel,
    component: Component | str,
    *,
    fact: Fact | Contrast | None = None,
    form: Form | None = None,
    k: int = 10,
) -> Writes:
    """Find the tokens whose logits a component's output raises and lowers most, by itself.

    Args:
        model: A base or edited model; it is not changed.
        component: A query head, a neuron, an MLP or an attention layer.
        fact: With a fact or a contrast, the output is that at the last position of its traced text (the clean run), and
            values are logits. Without, a neuron's output weight is read for an activation of 1, without the scales of
            norms: only ranks and proportions of these values mean something, and a negative activation turns them
            round.
        form: As in ``causal_trace``; only with a fact.
        k: How many tokens of each side.

    Returns:
        The tokens with what is added to their logits, minus the mean over all tokens, which changes no probability.

    Raises:
        ValueError: No fact for a component other than a neuron (what it writes depends on the text), a key-value group
            or another component without an output of its own, parts that do not add up to the model's logits, or as
            ``causal_trace``.

    Example:
        >>> writes = wb.writes(model, "L0H4", fact=fact, k=3)
        >>> writes.component, writes.raised[0].token, round(writes.raised[0].value, 1)
        (L0H4, 'Paris', 1.1)
    """
    chosen = Component.parse(component)
    if chosen.kind in ("K", "V", "KV"):
        chosen.require_head(model.shape)
    chosen.check(model.shape)
    if chosen.kind not in _PARTS:
        raise ValueError(f"{chosen} has no output of its own: choose a head (L23H4), a neuron, an MLP or L9ATTN.")
    check_k(model, k)
    if fact is None:
        if chosen.kind != "N":
            raise ValueError(
                f"What {chosen} writes depends on the text: give a fact=. Only a neuron (L13N207) writes one direction."
            )
        if form is not None:
            raise ValueError("form= is the form of a fact's text; give fact= too, or leave it out.")
        require(model, "direct")  # of a text it is seen whether all parts add up
        return _read(chosen, model, _of_weight(model, chosen), k)
    prompt = text_of(model, fact, form, "Writes", sequences=True)
    logits, activation = _on_text(model, chosen, prompt)
    return _read(chosen, model, logits, k, prompt, activation)


def _of_weight(model: LoadedModel, neuron: Component) -> Tensor:
    """What a neuron's output weight adds to the logits [d_vocab], with all norms at a scale of 1."""
    with torch.no_grad(), pooled_engine(DirectPath, model) as path:
        some_token = torch.tensor([[model.shape.d_vocab // 2]])  # its states are not used
        passed = path.read(some_token).at_any_scale()
        place: Place = "mlp", neuron.layer
        single = torch.zeros_like(passed.inputs[place])
        single[neuron.index or 0] = 1
        alone = _written(path, place, single)
        nothing = torch.zeros_like(alone)
        with_it, without = _logits(path, passed, place, torch.stack([alone, nothing]), torch.zeros_like)
        return with_it - without


def _on_text(model: LoadedModel, component: Component, prompt: TracedPrompt) -> tuple[Tensor, float | None]:
    """What a component adds to the logits [d_vocab] at the last position, and a neuron's activation."""
    place: Place = _PARTS[component.kind], component.layer
    activation: float | None = None
    with torch.no_grad(), pooled_engine(DirectPath, model) as path:
        passed = path.read(torch.tensor([prompt.token_ids]))
        alone = passed.outputs[place]
        if component.kind in ("H", "N"):
            whole = passed.inputs[place]
            width = len(whole) // model.shape.n_heads if component.kind == "H" else 1
            first = (component.index or 0) * width
            entries = slice(first, first + width)
            if component.kind == "N":
                activation = float(whole[entries])
            single = torch.zeros_like(whole)
            single[entries] = whole[entries]
            alone = _written(path, place, single)
        # The component alone, nothing, and all the rest: the first minus the second is what it adds, and with the third
        # it makes the model's own logits.
        rows = torch.stack([alone, torch.zeros_like(alone), passed.outputs[place] - alone])
        with_it, without, rest = _logits(path, passed, place, rows, lambda state: state)
        added, total = with_it - without, passed.raw.float() * passed.factor
        missed = added + rest - total
        if not missed.norm() <= allowed_miss(model.dtype) * total.norm():
            worst = int(missed.abs().argmax())
            check_sum(model, float((added + rest)[worst]), float(total[worst]), 0.0)
    return added, activation


def _written(path: DirectPath, place: Place, state: Tensor) -> Tensor:
    """What an output projection makes of a state [width], but for its bias, [d_model]."""
    writer = path.writer(*place)
    with_it, without = writer(torch.stack([state, torch.zeros_like(state)]))
    return with_it - without


def _logits(path: DirectPath, passed: Passed, place: Place, rows: Tensor, others: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits [rows, d_vocab] of outputs [rows, d_model] of one sublayer, where the last row has those of the others
    (and the embeddings) too, as ``others`` gives them."""

    def given(at: Place, state: Tensor) -> Tensor:
        return rows if at == place else last(others(passed.outputs[at]))

    def last(state: Tensor) -> Tensor:
        return torch.cat([state.new_zeros(len(rows) - 1, len(state)), state[None]])

    return path.logits(passed, last(others(passed.embedded)), None, given).float()


def _read(
    component: Component,
    model: LoadedModel,
    logits: Tensor,
    k: int,
    prompt: TracedPrompt | None = None,
    activation: float | None = None,
) -> Writes:
    """The tokens whose logits are raised and lowered most, from what is added to each [d_vocab]."""
    logits = logits - logits.mean()
    size = min(k, logits.shape[-1])
    up, down = logits.topk(size), logits.topk(size, largest=False)

    def tokens(ids: Tensor, values: Tensor) -> tuple[TokenLogit, ...]:
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        return tuple(TokenLogit(token_text(model, token), token, value) for token, value in pairs)

    return Writes(
        component=component,
        raised=tokens(up.indices, up.values),
        lowered=tokens(down.indices, down.values),
        prompt=prompt,
        activation=activation,
    )
