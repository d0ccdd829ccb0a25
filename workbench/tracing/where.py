"""Which cells of a trace are computed: some layers, and some positions of each text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from workbench.types import TracedPrompt
from workbench.types.plain import is_whole, whole_numbers
from workbench.types.roles import role_of


@dataclass(frozen=True)
class Where:
    """Layers and positions at which states are restored.

    Args:
        layers: The layers, from the lowest up.
        positions: Indices of tokens or names of roles; None for all.
        whole: All layers are chosen.
    """

    layers: tuple[int, ...]
    positions: tuple[int | str, ...] | None
    whole: bool

    @staticmethod
    def of(layers: Sequence[int] | None, positions: Sequence[int | str] | None, n_layers: int, texts: int) -> Where:
        """Check what is asked for.

        Args:
            layers, positions: As in ``causal_trace``.
            n_layers: The model's layers.
            texts: How many texts are traced.

        Raises:
            ValueError: A layer that the model does not have, none at all, or indices of tokens for several texts.
        """
        given = whole_numbers(range(n_layers) if layers is None else layers)
        if not given or not all(0 <= layer < n_layers for layer in given):
            raise ValueError(f"layers must be some of 0 to {n_layers - 1}, got {layers!r}.")
        chosen = tuple(sorted(set(given)))
        if positions is None:
            return Where(chosen, None, len(chosen) == n_layers)
        asked = (positions,) if isinstance(positions, str) else tuple(positions)
        if not asked:
            raise ValueError("positions= is empty, so nothing would be restored. Leave it out for all positions.")
        if texts > 1 and not all(isinstance(one, str) for one in asked):
            raise ValueError(
                f"positions={positions!r}: indices are for one text. For several give names of roles, such as "
                "'last token'."
            )
        return Where(chosen, asked, len(chosen) == n_layers)

    def positions_in(self, prompt: TracedPrompt) -> frozenset[int]:
        """The positions that are restored in a text.

        Raises:
            ValueError: A position or role that the text does not have.
        """
        length = len(prompt.tokens)
        if self.positions is None:
            return frozenset(range(length))
        roles = [role_of(prompt, i) for i in range(length)]
        found: set[int] = set()
        for one in self.positions:
            if isinstance(one, str):
                at = {i for i, role in enumerate(roles) if role == one}
            else:
                at = {one % length} if is_whole(one) and -length <= one < length else set[int]()
            if not at:
                raise ValueError(
                    f"positions must be from 0 to {length - 1}, or roles of the text, {list(dict.fromkeys(roles))}, "
                    f"got {one!r}."
                )
            found |= at
        return frozenset(found)

    def leave_out(self, values: Tensor, chosen: frozenset[int]) -> None:
        """Set the cells [samples, layer, ..., position] that were not computed to NaN, in place."""
        if not self.whole:
            values[:, [i for i in range(values.shape[1]) if i not in self.layers]] = float("nan")
        if self.positions is not None:
            values[..., [i for i in range(values.shape[-1]) if i not in chosen]] = float("nan")

    @property
    def settings(self) -> dict[str, Any]:
        """What a result's provenance keeps, where it is not all."""
        layers = {} if self.whole else {"layers": list(self.layers)}
        return layers | ({} if self.positions is None else {"positions": list(self.positions)})
