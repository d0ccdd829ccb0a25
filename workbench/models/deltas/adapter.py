"""What the kinds of delta share when they meet PEFT and weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from workbench.models.families import Architecture


@dataclass(frozen=True)
class Adapter:
    """A delta as a PEFT adapter.

    Args:
        kind: PEFT's name of the method.
        config: PEFT's configuration; who writes it adds the base's name.
        tensors: What the adapter's file holds, by plain module names: any program can load it on the plain base.
        text: What it does, in a sentence.
    """

    kind: Literal["ia3", "lora"]
    config: Any
    tensors: Mapping[str, Tensor]
    text: str


@dataclass(frozen=True)
class Base:
    """The base model of a delta, where an export needs its weights.

    Args:
        network: The plain HF model.
        architecture: Its shape and module names.
    """

    network: nn.Module
    architecture: Architecture


def any_of(names: Iterable[str]) -> str:
    """A regular expression for exactly these modules (PEFT matches a list of names by suffix)."""
    return "|".join(map(re.escape, sorted(names)))


def base_key(module: str, name: str) -> str:
    """The name in an adapter's file of a tensor that belongs to a module of the base."""
    return f"base_model.model.{module}.{name}"


def float_weight(module: Any, name: str) -> Tensor:
    """A module's weight, if it can be computed with.

    Raises:
        ValueError: It is quantised.
    """
    if not module.weight.is_floating_point():
        raise ValueError(
            f"The weight of {name} is {module.weight.dtype}, so nothing can be folded into it. Load the model without "
            "quantisation."
        )
    return module.weight
