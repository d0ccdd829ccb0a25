"""A context on a model: its network stays the base's, and the prompt layer (``workbench.language.prompts``) puts the
text where it belongs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from workbench.models.deltas.adapter import Adapter, Base
from workbench.models.families import Architecture
from workbench.types import ContextDelta, EditModules, Site


def put_on(view: nn.Module, architecture: Architecture, delta: ContextDelta) -> None:
    """Nothing: the view is the base's."""


def write(mounted: None, architecture: Architecture, delta: ContextDelta) -> None:
    """Nothing: it has no numbers."""


def fold(
    view: nn.Module, architecture: Architecture, delta: ContextDelta, base: Mapping[str, Tensor] | None = None
) -> None:
    """Nothing: it changes no weight."""


def put_under_gates(view: nn.Module, architecture: Architecture, delta: ContextDelta) -> None:
    """Nothing: gates come on the plain modules."""


def weights(architecture: Architecture, delta: ContextDelta) -> list[str]:
    """None."""
    return []


def gate_sites(delta: ContextDelta) -> list[tuple[int, Site]]:
    """None."""
    return []


def check(view: nn.Module, architecture: Architecture, delta: ContextDelta) -> None:
    """A text fits every model; whether it is too long shows where it is read."""


def not_in_weights(delta: ContextDelta) -> str:
    """Why no weights can do what it does; empty where it has no text."""
    return NO_WEIGHTS if delta.context else ""


def export(delta: ContextDelta, modules: EditModules, base: Base | None = None) -> Adapter:
    """Refused: an adapter has no text.

    Raises:
        ValueError: Always.
    """
    raise ValueError(NO_WEIGHTS)


NO_WEIGHTS = (
    "This edit puts a text into the prompt, and neither an adapter nor merged weights can hold one: give the text "
    "itself (edit.delta().context) to whoever asks the model."
)
"""Why a context is neither exported nor merged."""
