"""The gradient of a measure at the input of every reader, from one backward pass.

The pass is the model's own, with grouped heads, and gives the gradients at the outputs of the query, key and value
projections and at the MLPs' inputs. What is left is linear algebra: a reader's gradient goes through its own slice of
the projection's weight, and through the norm in front of it, whose scale depends on its input. So it is exactly what a
model with a residual stream of its own for every reader would have.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.circuits.wiring import Part, Place, Wired
from workbench.models.engine import KeysValues

Measure = Callable[[Tensor], Tensor]
"""From the last position's logits [rows, d_vocab] to a number a row, [rows]."""


@dataclass
class _Caught:
    """What a pass with gradients left: nodes of the graph, by module."""

    outputs: dict[str, Tensor]
    entered: dict[str, Tensor]
    inputs: dict[Place, Tensor]
    final: list[Tensor]


def reader_gradients(
    wired: Wired, resid: Tensor, measure: Measure, *, prefix: KeysValues | None = None
) -> tuple[Tensor, Tensor]:
    """The mean over rows of the measure's gradient at every reader's input.

    Args:
        wired: The model.
        resid: The residual stream entering layer 0, [rows, tokens, d_model].
        measure: What is measured.
        prefix: Keys and values of the tokens before.

    Returns:
        Gradients [receivers, tokens, d_model] in float32, and the measure [rows].

    Raises:
        ValueError: The measure is not finite, or has no gradient.
    """
    with torch.enable_grad():
        caught, measured = _run(wired, resid.detach().requires_grad_(), measure, prefix)
        keys = [("out", name) for name in caught.outputs] + [("in", name) for name in caught.entered]
        nodes = [*caught.outputs.values(), *caught.entered.values(), caught.final[-1]]
        if not bool(torch.isfinite(measured).all()):
            raise ValueError(f"The metric is not finite on this run ({measured.tolist()}), so it has no gradient.")
        if not measured.requires_grad:
            raise ValueError("The metric has no gradient (a rank, or a function that leaves torch): use another one.")
        found = torch.autograd.grad(measured.sum(), nodes)
    gradients = dict(zip(keys, found, strict=False))
    rows: list[Tensor] = []
    for layer in range(wired.n_layers):
        rows.append(_of_attention(wired, layer, caught, gradients))
        rows.append(_of_mlp(wired, layer, caught, gradients))
    rows.append(found[-1].float().mean(0, keepdim=True))
    return torch.cat([row.to(resid.device) for row in rows]), measured.detach()


def _run(wired: Wired, start: Tensor, measure: Measure, prefix: KeysValues | None) -> tuple[_Caught, Tensor]:
    """A pass whose nodes are kept."""
    caught = _Caught({}, {}, {}, [])

    def put_out(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            caught.outputs[name] = output
            return output.clone()  # some models clamp it in place

        return hook

    def put_in(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            caught.entered[name] = args[0].view_as(args[0])  # a node of its own: attention may read the same tensor
            return (caught.entered[name], *args[1:])

        return hook

    def last(state: Tensor) -> Tensor:
        caught.final.append(state)
        return state

    with ExitStack() as stack:
        stack.enter_context(wired.on_inputs(caught.inputs.__setitem__, start.shape))
        stack.enter_context(wired.on_final(last))
        for layer in range(wired.n_layers):
            for name, module in wired.consumers("attn", layer).items():
                stack.callback(module.register_forward_hook(put_out(name)).remove)
            for name, module in wired.consumers("mlp", layer).items():
                stack.callback(module.register_forward_pre_hook(put_in(name)).remove)
        logits = wired.run(start, prefix=prefix)
    return caught, measure(logits.float())


def _of_attention(wired: Wired, layer: int, caught: _Caught, gradients: dict[tuple[str, str], Tensor]) -> Tensor:
    """[queries, keys and values, tokens, d_model]."""
    at_norm: list[Tensor] = []
    for site, of in wired.projections(layer).items():
        name = wired.site_module(layer, site)
        arrived = of.entries(gradients["out", name])
        at_norm.append(torch.einsum("btrk,rdk->rbtd", arrived, of.weight.to(arrived.dtype)))
    return _through_norm(wired, ("attn", layer), caught, torch.cat(at_norm))


def _of_mlp(wired: Wired, layer: int, caught: _Caught, gradients: dict[tuple[str, str], Tensor]) -> Tensor:
    """[1, tokens, d_model]."""
    parts = [gradients["in", name] for name in wired.consumers("mlp", layer)]
    x = caught.inputs["mlp", layer]
    at_norm = torch.stack([part.reshape(x.shape) for part in parts]).sum(0)[None]
    return _through_norm(wired, ("mlp", layer), caught, at_norm)


def _through_norm(wired: Wired, place: tuple[Part, int], caught: _Caught, at_norm: Tensor) -> Tensor:
    """The gradients of readers at the residual stream from those at the norm's output [readers, rows, tokens, d_model],
    mean over rows."""
    norm = wired.norm_before(*place)
    if norm is None:
        return at_norm.float().mean(1)
    with torch.enable_grad():
        x = caught.inputs[place].detach().expand_as(at_norm).requires_grad_()  # no memory: the readers share it
        (found,) = torch.autograd.grad(norm(x), x, at_norm)
    return found.float().mean(1)
