"""What the kinds of delta share when they meet PEFT and weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from workbench.models.families import Architecture
from workbench.types import EditModules, Site


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


class Kind(Protocol):
    """What the file of a kind of delta has: these functions, of its own class of delta.

    What ``put_on`` returns is for ``write`` alone: what of the view has the delta's numbers.
    """

    def put_on(self, view: nn.Module, architecture: Architecture, delta: Any, /) -> Any:
        """Put a delta on a view."""
        ...

    def write(self, mounted: Any, architecture: Architecture, delta: Any, /) -> None:
        """Give what ``put_on`` returned the numbers of the same delta at another strength, in place."""
        ...

    def fold(self, view: nn.Module, architecture: Architecture, delta: Any, base: Mapping[str, Tensor], /) -> None:
        """Give a view weights of its own that do what the delta does."""
        ...

    def put_under_gates(self, view: nn.Module, architecture: Architecture, delta: Any, /) -> None:
        """Put a delta on a view, for new gates to come on top."""
        ...

    def weights(self, architecture: Architecture, delta: Any, /) -> list[str]:
        """Names of the weight matrices that it changes."""
        ...

    def gate_sites(self, delta: Any, /) -> list[tuple[int, Site]]:
        """The gate sites that it multiplies."""
        ...

    def check(self, view: nn.Module, architecture: Architecture, delta: Any, /) -> None:
        """Raise a ValueError for a delta that does not fit a model."""
        ...

    def not_in_weights(self, delta: Any, /) -> str:
        """Why no weights can do what it does; empty where they can."""
        ...

    def export(self, delta: Any, modules: EditModules, base: Base | None, /) -> Adapter:
        """A delta as a PEFT adapter."""
        ...


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
