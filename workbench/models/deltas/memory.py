"""Memories on a model: linear modules of a view that look up what they remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from workbench.models.deltas.adapter import Adapter, Base
from workbench.models.families import Architecture
from workbench.models.family import sizes
from workbench.types import EditModules, MemoryDelta, Site

if TYPE_CHECKING:
    from workbench.models.deltas.remembering import Remembering

Mounted = dict[tuple[int, str], "Remembering"]
"""The modules with memories, by place."""


def put_on(view: nn.Module, architecture: Architecture, delta: MemoryDelta) -> Mounted:
    """Put memories beside modules of a view, whose weights stay shared. Returns those modules by place."""
    from workbench.models.deltas.remembering import remember

    return {
        key: remember(view.get_submodule(architecture.module_name(*key)), memories)
        for key, memories in delta.memories.items()
    }


def write(mounted: Mounted, architecture: Architecture, delta: MemoryDelta) -> None:
    """Give memories (of modules as ``put_on`` returns them) a delta's strengths, in place."""
    from workbench.models.deltas.remembering import write_strengths

    for key, module in mounted.items():
        write_strengths(module, delta.memories[key])


def fold(
    view: nn.Module, architecture: Architecture, delta: MemoryDelta, base: Mapping[str, Tensor] | None = None
) -> None:
    """Put memories beside modules of a view: no weights do what a router does."""
    put_on(view, architecture, delta)


def put_under_gates(view: nn.Module, architecture: Architecture, delta: MemoryDelta) -> None:
    """Put memories on a view, for gates to come on top, which gate what the weights read and not the memories."""
    put_on(view, architecture, delta)


def weights(architecture: Architecture, delta: MemoryDelta) -> list[str]:
    """None."""
    return []


def gate_sites(delta: MemoryDelta) -> list[tuple[int, Site]]:
    """None."""
    return []


def check(view: nn.Module, architecture: Architecture, delta: MemoryDelta) -> None:
    """Raise a ValueError for memories that do not fit a model's modules."""
    for (layer, module), memories in delta.memories.items():
        name = architecture.module_name(layer, module)
        outputs, inputs = sizes(view.get_submodule(name))
        for memory in memories:
            if not memory.fits(outputs, inputs):
                raise ValueError(
                    f"The delta has {memory.words()} with {memory.outputs} outputs at {name}, and the model's module "
                    f"has {outputs} outputs and {inputs} inputs: the delta was made for another model."
                )


def not_in_weights(delta: MemoryDelta) -> str:
    """Why no weights can do what it does."""
    return (
        f"This edit is {delta.words()}: its router decides token by token, and neither an adapter nor merged weights "
        "can do that. Save it with edit.save(folder) and use it by wb.applied(model, edit), or edit by another method."
    )


def export(delta: MemoryDelta, modules: EditModules, base: Base | None = None) -> Adapter:
    """Refused: PEFT has no adapter with a router.

    Raises:
        ValueError: Always.
    """
    raise ValueError(not_in_weights(delta))
