"""What is refused before it could give wrong numbers: models that are not plain weights in memory, and folders that
hold no whole model. A sentence each, with what to do instead."""

from __future__ import annotations

import json
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_QUANTISERS = frozenset(
    {"aqlm", "auto_gptq", "awq", "bitsandbytes", "compressed_tensors", "eetq", "fouroversix", "gptqmodel", "hqq"}
    | {"optimum", "quark", "torchao", "vptq"}
)
"""Packages whose modules hold weights that are no plain numbers."""


class ModelRefused(ValueError, TypeError):
    """A model that the workbench cannot look into, with the reason and what to load instead.

    It is a ``ValueError``, as every refusal of a model, and a ``TypeError`` where the object is of a wrong kind.
    """


def check_in_memory(hf: nn.Module) -> None:
    """Raise ``ModelRefused`` unless a module is a plain HF causal language model with its weights in memory.

    Args:
        hf: The module; it is only looked at.
    """
    _check_kind(hf)
    _check_adapter(hf)
    _check_quantised(hf)
    _check_weights(hf)
    _check_forwards(hf)


def _check_kind(hf: nn.Module) -> None:
    if _is_compiled(hf):
        raise ModelRefused(
            f"The model is compiled ({type(hf).__name__}): hooks do not run within compiled code. Pass the model as it "
            "was before torch.compile (model._orig_mod), or load it again."
        )
    if not hasattr(hf, "generate") or type(hf).__module__.startswith(("transformer_lens", "peft")):
        inside = (
            " Take it out of its wrapper: model.module." if isinstance(getattr(hf, "module", None), nn.Module) else ""
        )
        raise ModelRefused(
            f"Expected a plain HF causal language model, got {type(hf).__name__} from {type(hf).__module__}. Pass the "
            f"HF model itself: bridges are made from it, and adapters must be merged first.{inside}"
        )


def _is_compiled(module: nn.Module) -> bool:
    """Whether a module was wrapped by ``torch.compile``, or compiled in place by ``module.compile()``."""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def _check_adapter(hf: Any) -> None:
    tuners = [name for name, module in hf.named_modules() if type(module).__module__.startswith("peft.")]
    if getattr(hf, "_hf_peft_config_loaded", False) or tuners:
        where = f" (at {tuners[0]!r})" if tuners else ""
        raise ModelRefused(
            f"The model carries a PEFT adapter{where}: what it computes is not its own weights, and saving it would "
            "write the adapter alone. Load the base without it, or merge it with peft (merge_and_unload) and save that."
        )


def _check_quantised(hf: Any) -> None:
    settings = getattr(hf.config, "quantization_config", None)
    if settings is not None or getattr(hf, "is_quantized", False) or getattr(hf, "hf_quantizer", None) is not None:
        raise ModelRefused(quantised_words("The model", method_of(settings)))
    for name, module in hf.named_modules():
        package = type(module).__module__
        if package.split(".")[0] in _QUANTISERS or package.startswith("torch.ao."):
            raise ModelRefused(quantised_words(f"The model's {name!r} ({type(module).__name__})", None))
    for name, parameter in hf.named_parameters():
        plain = type(parameter) is nn.Parameter and type(parameter.data) is Tensor
        if not plain or not parameter.is_floating_point() or parameter.element_size() < 2:
            kind = type(parameter).__name__ if not plain else str(parameter.dtype).removeprefix("torch.")
            raise ModelRefused(quantised_words(f"The model's {name!r} ({kind})", None))


def method_of(settings: Any) -> str | None:
    """The name of a quantisation, as its settings give it; None where they do not."""
    method = settings.get("quant_method") if isinstance(settings, dict) else getattr(settings, "quant_method", None)
    return None if method is None else str(getattr(method, "value", method))


def quantised_words(what: str, method: str | None) -> str:
    """The sentence that refuses quantised weights."""
    how = "" if method is None else f" ({method})"
    return (
        f"{what} is quantised{how}: its weights are no plain numbers that could be traced, edited and saved. Load it "
        'unquantised, in half precision where memory is short: load_model(..., dtype="bfloat16").'
    )


def _check_weights(hf: nn.Module) -> None:
    away = [name for name, tensor in _tensors(hf) if tensor.is_meta]
    if away:
        raise ModelRefused(
            f"{count(len(away), 'weight')} of the model {'is' if len(away) == 1 else 'are'} not in memory (on the "
            f"device meta: {first_names(away)}), because the disk or the CPU holds them until they are needed. Load "
            'the whole model: without offloading, with a device_map that fits, or smaller by dtype="bfloat16".'
        )
    odd = [name for name, weight in hf.named_parameters() if not _is_finite(weight.detach())]
    if odd:
        raise ModelRefused(
            f"{count(len(odd), 'weight')} of the model {'holds' if len(odd) == 1 else 'hold'} NaN or infinite numbers "
            f"({first_names(odd)}), so that nothing it computes means anything. The checkpoint is damaged, training "
            "diverged, or float16 was too narrow for it: get it again, or load it as float32."
        )


def _tensors(hf: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from hf.named_parameters()
    yield from hf.named_buffers()


def _is_finite(weight: Tensor) -> bool:
    """Whether no number of a weight is NaN or infinite. The sum tells it without a copy, but where it overflows."""
    total = weight.sum(dtype=torch.float64 if weight.dtype == torch.float64 else torch.float32)
    return bool(total.isfinite()) or bool(weight.isfinite().all())


def _check_forwards(hf: nn.Module) -> None:
    """A forward that was put on an instance belongs to that instance: a copy of the module would still run this one.
    accelerate's own, which only move tensors between devices, are copied with their module."""
    for name, module in hf.named_modules():
        where = repr(name) if name else "its top"
        if _is_compiled(module):
            raise ModelRefused(
                f"The model is compiled in part (at {where}): hooks do not run within compiled code. Load it again, "
                "and do not compile it."
            )
        hook = getattr(module, "_hf_hook", None)
        if hook is not None:
            for part in getattr(hook, "hooks", (hook,)):
                if type(part).__name__ != "AlignDevicesHook" or part.offload:
                    raise ModelRefused(
                        f"accelerate's {type(part).__name__} (at {where}) moves the model's weights while it runs. "
                        "Load the whole model, without offloading."
                    )
        elif "forward" in vars(module) and not isinstance(vars(module)["forward"], types.MethodType):
            raise ModelRefused(
                f"The model's forward (at {where}) was replaced by a function, by torch.compile for example: copies "
                "that share the weights would go on calling this model's. Load the model again, and leave it as it is."
            )


# Folders


def check_folder(path: Path) -> None:
    """Raise a ValueError where a folder is an adapter or an edit, or holds a quantised model: what transformers would
    say of these is about something else.

    Args:
        path: The folder.
    """
    has_config = (path / "config.json").is_file()
    if (path / "edit.json").is_file() and not has_config:
        raise ModelRefused(
            f"{path} is a saved edit, not a model. Load its base, model = load_model(...), and the edit by "
            "wb.load_edit(folder); then applied(model, edit)."
        )
    if (path / "adapter_config.json").is_file():
        base = _json(path / "adapter_config.json").get("base_model_name_or_path")
        for_base = f" for {base!r}" if base else ""
        beside = "has a PEFT adapter beside its model" if has_config else f"is a PEFT adapter{for_base}, not a model"
        raise ModelRefused(
            f"{path} {beside}. Load the base alone, model = load_model(...): an edit of the workbench is then read "
            "from the folder that Edit.save wrote, by wb.load_edit(folder); another adapter is merged with peft first "
            "(merge_and_unload)."
        )
    config = _json(path / "config.json") if has_config else {}
    for part in (config, config.get("text_config") or {}):
        if isinstance(part, dict) and part.get("quantization_config"):
            raise ModelRefused(quantised_words(str(path), method_of(part["quantization_config"])))


def _json(path: Path) -> dict[str, Any]:
    """A file's fields; none where it cannot be read as such: transformers then says what is wrong with it."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


# Words


def first_names(names: Iterable[str], at_most: int = 3) -> str:
    """The first few names, in order, and that there are more."""
    given = list(names)
    return ", ".join(given[:at_most]) + (", ..." if len(given) > at_most else "")


def count(n: int, noun: str) -> str:
    """ "1 weight", "2 weights"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, which is no fault of what was to be loaded."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError))
