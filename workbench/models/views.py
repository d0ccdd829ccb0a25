"""Structure copies of a model that share its weights: everything runs on them, so the loaded model stays as it is."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.families import Architecture

_OF_ITS_MODEL = ("to", "cuda", "npu", "xpu", "mlu", "musa", "sdaa", "hf_device_map")
"""What accelerate puts on a model that it spreads over devices, and what would act on that model from a copy too. Its
hooks, which move what a module is given to where the module is, are copied with the modules."""
PASS_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def shared_view(model: nn.Module) -> Any:
    """A structure copy in eval mode that shares every tensor with ``model`` but none of its flags or modules.

    It takes some milliseconds and no memory. Injecting adapters, wrapping modules or setting flags on the view leaves
    the original as it is.
    """
    memo: dict[int, Any] = {id(p): nn.Parameter(tracked(p.detach()), requires_grad=False) for p in model.parameters()}
    memo |= {id(b): tracked(b) for b in model.buffers()}
    for module in model.modules():
        # Most of what there is to copy are tables of hooks, nearly all of them empty; what watches passes stays behind.
        tables = {name: table for name, table in vars(module).items() if "_hooks" in name}
        memo |= {id(t): type(t)() for name, t in tables.items() if not t or name.startswith(PASS_HOOKS)}
    view = copy.deepcopy(model, memo)
    for name in _OF_ITS_MODEL:
        vars(view).pop(name, None)
    return view.eval()


def warn_of_hooks(model: nn.Module) -> None:
    """Warn where hooks stand on a model: a view leaves them behind, and so does everything that is computed on it.
    Those of transformers, which collect states, and of accelerate, which move tensors, change nothing."""
    for name, module in model.named_modules():
        for table in ("_forward_hooks", "_forward_pre_hooks"):
            own = [hook for hook in vars(module)[table].values() if not _from_libraries(hook)]
            if own:
                warnings.warn(
                    f"A forward hook stands on {name or 'the model'!r} ({getattr(own[0], '__qualname__', own[0])}): it "
                    "is left out of every result. A change of what the module gives belongs into the model's own code "
                    "or weights; a hook that only watches can stay.",
                    stacklevel=3,
                )
                return


def _from_libraries(hook: Any) -> bool:
    inner = getattr(hook, "func", hook)
    return str(getattr(inner, "__module__", "")).split(".")[0] in ("transformers", "accelerate", "torch")


def tracked(tensor: Tensor) -> Tensor:
    """A tensor as it is; one that was made in inference mode, which no gradient can pass, as another tensor over the
    same storage."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return alias.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def own_layer_weights(view: nn.Module, architecture: Architecture, layers: Iterable[int]) -> dict[str, nn.Parameter]:
    """Give these layers of a view weights of their own, copies of the shared ones, and return them by name."""
    out: dict[str, nn.Parameter] = {}
    for layer in sorted(set(layers)):
        path = f"{architecture.family.layers}.{layer}"
        for name, shared in list(view.get_submodule(path).named_parameters()):
            # A new Parameter: new data in the view's would go on counting writes for the base's weight too.
            own = nn.Parameter(shared.detach().clone(), requires_grad=shared.requires_grad)
            module, _, leaf = f"{path}.{name}".rpartition(".")
            setattr(view.get_submodule(module), leaf, own)
            out[f"{path}.{name}"] = own
    return out
