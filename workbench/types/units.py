"""What a cell of an effect map may stand for: its name in figures, its components, and the axis that counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.types.selection import Kind

Unit = Literal["resid", "mlp", "attn", "head", "kv", "neuron", "z", "q", "k", "v"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitWords:
    """A unit of effect maps.

    Args:
        title: What figures call it.
        kinds: The kinds of components that a cell stands for.
        axis: The axis that counts heads, groups or neurons of a layer; None where a layer has one.
        letter: What its labels begin with.
    """

    title: str
    kinds: tuple[Kind, ...]
    axis: Literal["head", "kv", "neuron"] | None = None
    letter: str = ""


UNITS: dict[Unit, UnitWords] = {
    "resid": UnitWords(title="residual stream", kinds=("ATTN", "MLP")),
    "mlp": UnitWords(title="MLP output", kinds=("MLP",)),
    "attn": UnitWords(title="attention output", kinds=("ATTN",)),
    "head": UnitWords(title="attention heads", kinds=("H",), axis="head", letter="H"),
    "kv": UnitWords(title="key-value groups", kinds=("KV",), axis="kv", letter="KV"),
    "neuron": UnitWords(title="MLP neurons", kinds=("N",), axis="neuron", letter="N"),
    "z": UnitWords(title="head outputs", kinds=("H",), axis="head", letter="H"),
    "q": UnitWords(title="queries of heads", kinds=("Q",), axis="head", letter="H"),
    "k": UnitWords(title="keys of groups", kinds=("K",), axis="kv", letter="KV"),
    "v": UnitWords(title="values of groups", kinds=("V",), axis="kv", letter="KV"),
}
"""By name. A residual state enters a layer and has no gates of its own: it stands for the two modules that first read
it."""


def labelled(unit: Unit, shape: Sequence[int]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Axes and labels of the layers, and of heads, groups or neurons, of a map.

    Args:
        unit: What a cell stands for.
        shape: Of the map, [layers, ...]; the second number is how many heads, groups or neurons there are.
    """
    words = UNITS[unit]
    labels = {"layer": tuple(f"L{i}" for i in range(shape[0]))}
    if words.axis is not None:
        labels[words.axis] = tuple(f"{words.letter}{i}" for i in range(shape[1]))
    return tuple(labels), labels
