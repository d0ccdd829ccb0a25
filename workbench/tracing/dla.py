"""Direct logit attribution: what each component writes into the residual stream, onto the answer direction.

Every norm between a component and the logits (the final one, and one after a sublayer where a family has it) is held at
the scale that it has on the text, so that the parts add up: embeddings, attention layers (heads), MLPs (neurons) and
biases give the logits. Factors on embeddings, on what is added and on the logits count. Where a model bends its logits
by a cap (Gemma 2), the parts are those of the logits before it.

It is checked on every text: where the parts miss the model's own logits, a ``ValueError`` says so with both numbers.

Source: Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits); nostalgebraist 2020 for the final norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from workbench.models.direct import DirectPath, Passed, Place
from workbench.models.engine import pooled_engine
from workbench.models.load import LoadedModel
from workbench.types import TracedPrompt
from workbench.types.torch_settings import own_torch_settings

DirectUnit = Literal["head", "mlp", "neuron", "attn"]
MISSED = 1e-3
"""The share of the parts' size by which their sum may miss the logits; in half precision, eight times its rounding."""


@dataclass(frozen=True)
class Decomposition:
    """The logit difference of a text (the answer's logit, minus the other token's if any), taken apart; all in logits.

    Attributes:
        values: What each component writes, by unit: [layer, head], [layer, neuron], or [layer].
        embedding: What the embeddings write.
        sublayers: What each attention layer and each MLP writes, but for the bias of its projection, [2 x layers].
        constant: What biases of norms and projections add, whatever the text.
        total: The model's own logit difference, before any cap.
        capped: Whether the model bends its logits by a cap.
    """

    values: dict[DirectUnit, Tensor]
    embedding: float
    sublayers: Tensor
    constant: float
    total: float
    capped: bool

    @property
    def sum(self) -> float:
        """All parts together."""
        return self.embedding + float(self.sublayers.sum()) + self.constant

    @property
    def size(self) -> float:
        """What a rounding error is to be compared with: the parts' sizes, and the total's."""
        return abs(self.total) + float(
            torch.cat([self.sublayers, torch.tensor([self.embedding, self.constant])]).norm()
        )


def direct_effects(model: LoadedModel, prompt: TracedPrompt, unit: DirectUnit) -> tuple[Tensor, float]:
    """Direct effects of one unit [layer, ...] in logits, and the whole logit difference; see ``decomposed``."""
    found = decomposed(model, prompt, unit)
    return found.values[unit], found.total


def decomposed(model: LoadedModel, prompt: TracedPrompt, *units: DirectUnit) -> Decomposition:
    """Take the logit difference at the last position of a text apart, by one pass over it and one over its direct path.

    Args:
        model: A base or edited model; it is not changed. An edited one's gates and updates count.
        prompt: The text.
        units: What to take it apart into.

    Raises:
        ValueError: The parts do not add up to the model's logit difference (with both numbers), or neurons of a mixture
            of experts are asked for.
    """
    found = taken_apart(model, prompt, *units)
    check_sum(model, found.sum, found.total, found.size)
    return found


def taken_apart(model: LoadedModel, prompt: TracedPrompt, *units: DirectUnit) -> Decomposition:
    """``decomposed`` without the check that the parts add up."""
    with own_torch_settings(), pooled_engine(DirectPath, model) as path:
        with torch.no_grad():
            passed = path.read(torch.tensor([prompt.token_ids]))
        return _by_gradients(model, path, prompt, passed, units)


def _by_gradients(
    model: LoadedModel, path: DirectPath, prompt: TracedPrompt, passed: Passed, units: tuple[DirectUnit, ...]
) -> Decomposition:
    """The parts by the gradients of the direct path: it is linear, so that a state times its gradient is its part."""
    inputs: dict[Place, Tensor] = {}
    outputs: dict[Place, Tensor] = {}

    def given(place: Place, state: Tensor) -> Tensor:
        inputs[place] = _and_nothing(passed.inputs[place]).requires_grad_()
        return inputs[place]

    def seen(place: Place, state: Tensor) -> Tensor:
        if place not in passed.inputs:  # of experts there is only the output
            state = _and_nothing(passed.outputs[place]).requires_grad_()
        outputs[place] = state
        return state

    with torch.enable_grad():
        embedded = _and_nothing(passed.embedded).requires_grad_()
        difference = _difference(path.logits(passed, embedded, given, seen), prompt)  # of the text, and of nothing
        leaves = [embedded, *inputs.values(), *outputs.values()]
        gradients = [g[0].float() for g in torch.autograd.grad(difference[0], leaves)]
    of_inputs = dict(zip(inputs, gradients[1:], strict=False))
    of_outputs = dict(zip(outputs, gradients[1 + len(inputs) :], strict=True))
    entries = {place: passed.inputs[place].float() * g for place, g in of_inputs.items()}
    written = {place: passed.outputs[place].float() @ g for place, g in of_outputs.items()}
    return Decomposition(
        values={unit: _of_unit(model, unit, entries, written).cpu() for unit in units},
        embedding=float(passed.embedded.float() @ gradients[0]),
        sublayers=torch.stack([entries[at].sum() if at in entries else written[at] for at in outputs]).cpu(),
        constant=float(difference[1].detach()),
        total=passed.factor * float(_difference(passed.raw[None].double(), prompt)),
        capped=passed.capped,
    )


def _and_nothing(state: Tensor) -> Tensor:
    return torch.stack([state, torch.zeros_like(state)])


def _difference(logits: Tensor, prompt: TracedPrompt) -> Tensor:
    """The answer's logit, minus the other token's if there is one, of each row."""
    own = logits[:, prompt.answer_id]
    return own if prompt.other_id is None else own - logits[:, prompt.other_id]


def _of_unit(
    model: LoadedModel, unit: DirectUnit, entries: dict[Place, Tensor], written: dict[Place, Tensor]
) -> Tensor:
    layers = range(model.shape.n_layers)
    if unit == "attn" or unit == "mlp":
        return torch.stack([written[unit, layer] for layer in layers])
    if unit == "head":
        return torch.stack([entries["attn", layer].view(model.shape.n_heads, -1).sum(-1) for layer in layers])
    model.architecture.gate_module(0, "post")  # experts have no neurons, and this says so
    return torch.stack([entries["mlp", layer] for layer in layers])


def check_sum(model: LoadedModel, parts: float, total: float, size: float) -> None:
    """Raise a ValueError where parts miss the model's own logit difference by more than rounding.

    Args:
        model: Whose they are.
        parts, total: The sum of the parts, and what they should give.
        size: What the parts are like: the miss is compared with it.
    """
    if not abs(parts - total) <= allowed_miss(model.dtype) * size:
        raise ValueError(
            f"Direct effects do not add up in {model.name!r} ({type(model.base.hf).__name__}): embeddings, attention, "
            f"MLPs and biases write {parts:.4g} logits together, and the model's own logits give {total:.4g}. "
            "Something else reaches them, so what single components write would mislead. Use method='attribution' or "
            "'patching'."
        )


def allowed_miss(dtype: torch.dtype) -> float:
    """The share of the parts' size that is rounding."""
    return max(MISSED, 8 * torch.finfo(dtype).eps)


def head_outputs(model: LoadedModel, prompt: TracedPrompt, layer: int) -> tuple[Tensor, Tensor]:
    """What each head of a layer writes at each position, and what the layer's output projection puts out.

    The sum over heads (plus the projection's bias, if any) equals the projection's output, of an edited model with its
    gates and updates; before a norm or factor that follows in some families.

    Returns:
        ([position, head, d_model], [position, d_model])
    """
    with own_torch_settings(), torch.no_grad(), pooled_engine(DirectPath, model) as path:
        writer = path.writer("attn", layer)
        z, whole = path.written("attn", layer, torch.tensor([prompt.token_ids]))
        heads = model.shape.n_heads
        alone = torch.zeros(len(z), heads, *z.shape[1:]).to(z)
        for head, entries in enumerate(torch.arange(z.shape[-1]).view(heads, -1)):
            alone[:, head, entries] = z[:, entries]
        return writer(alone) - writer(torch.zeros_like(alone)), whole
