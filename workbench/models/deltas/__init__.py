"""Deltas on a model: the one place that asks which kind a delta is. A file a kind, each with the same functions.

``put_on`` a view, and ``write`` other numbers there in place; ``fold`` into a view's weights; ``put_under_gates``,
where new gates come on top; ``weights`` and ``gate_sites`` that it changes; ``check`` against a model; ``export`` for
PEFT; and whether it is ``not_in_weights`` that a merged model could have.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from workbench.models.deltas import sequence
from workbench.models.deltas.adapter import Adapter, Base, Kind
from workbench.models.families import Architecture
from workbench.types import Delta, EditModules, Site
from workbench.types.delta import DeltaKind

__all__ = [
    "Adapter",
    "Base",
    "Mounted",
    "changed_weights",
    "check",
    "export",
    "fold",
    "gate_sites",
    "not_in_weights",
    "put_under_gates",
]

_KINDS: Mapping[DeltaKind, Kind] = {**sequence.PARTS, "sequence": sequence}


class Mounted:
    """A delta on a view: its numbers can be changed in place, for a strength that is turned.

    Args:
        view: A structure copy of the base; it is changed.
        architecture: The model's.
        delta: The delta.

    Raises:
        ValueError: A delta for another model.
    """

    def __init__(self, view: nn.Module, architecture: Architecture, delta: Delta) -> None:
        check(view, architecture, delta)
        self._architecture, self._kind = architecture, _KINDS[delta.kind]
        self._state = self._kind.put_on(view, architecture, delta)

    def write(self, delta: Delta) -> None:
        """Give it the numbers of the same delta at another strength."""
        self._kind.write(self._state, self._architecture, delta)


def check(view: nn.Module, architecture: Architecture, delta: Delta) -> None:
    """Raise a ValueError for a delta that was made for another architecture, or for another shape."""
    _KINDS[delta.kind].check(view, architecture, delta)


def fold(view: nn.Module, architecture: Architecture, delta: Delta, base: Mapping[str, Tensor] | None = None) -> None:
    """Give a view weights of its own that do what the delta does. They are rounded to the weights' dtype once a part.
    What no weights do (``not_in_weights``) is put beside them, so that the view as it is does it too.

    Args:
        view: A structure copy of the base.
        architecture: The model's.
        delta: The delta.
        base: The base's tensors by name, where the view has changed ones already; None: the view's.

    Raises:
        ValueError: A delta for another model, or weights that are not plain numbers (quantised).
    """
    check(view, architecture, delta)
    base = base or {name: p.detach() for name, p in view.named_parameters()}
    _KINDS[delta.kind].fold(view, architecture, delta, base)


def put_under_gates(view: nn.Module, architecture: Architecture, delta: Delta) -> None:
    """Put a delta on a view on which new gates are trained next: PEFT's IA3 layers go on top of gates, and on plain
    modules."""
    check(view, architecture, delta)
    _KINDS[delta.kind].put_under_gates(view, architecture, delta)


def changed_weights(architecture: Architecture, delta: Delta) -> list[str]:
    """Names of the weight matrices that a delta changes."""
    return _KINDS[delta.kind].weights(architecture, delta)


def gate_sites(delta: Delta) -> list[tuple[int, Site]]:
    """The gate sites that a delta multiplies."""
    return _KINDS[delta.kind].gate_sites(delta)


def not_in_weights(delta: Delta) -> str:
    """Why no weights can do what a delta does, and what can be done instead; empty where they can."""
    return _KINDS[delta.kind].not_in_weights(delta)


def export(delta: Delta, modules: EditModules, base: Base | None = None) -> Adapter:
    """A delta as one PEFT adapter.

    Args:
        delta: The delta.
        modules: The base's module names.
        base: The base, for a sequence of several kinds.

    Raises:
        ValueError: It cannot be written as an adapter exactly; the message says why and what can be done.
    """
    return _KINDS[delta.kind].export(delta, modules, base)
