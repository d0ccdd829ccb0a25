"""What a decoder family is: where its parts are, and how it computes with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from workbench.types import Site

PARTS: dict[Site, str] = {
    **dict.fromkeys(("z", "q", "k", "v"), "attention"),
    **dict.fromkeys(("post", "gate", "up"), "MLP"),
}
"""The sublayer that each gate site belongs to."""


@dataclass(frozen=True)
class Traits:
    """How a model computes, as far as its numbers depend on it. Read from its configuration.

    Args:
        parallel: Attention and MLP of a layer read the same residual stream.
        post_norms: What a sublayer puts out is normalised before it is added.
        embedding_scale: What token embeddings are multiplied by before they enter layer 0.
        residual_scale: What a sublayer's output is multiplied by when it is added.
        logit_scale: What the output embeddings' products are multiplied by.
        logit_cap: c, where logits become c tanh(logits / c); None where they are not capped.
        experts: The layers whose MLP is a mixture of experts.
        window: How many tokens the layers with the narrowest attention see; None where all layers see the whole text.
    """

    parallel: bool = False
    post_norms: bool = False
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    logit_cap: float | None = None
    experts: tuple[int, ...] = ()
    window: int | None = None


def _never(config: Any) -> bool:
    return False


def _kv_heads(config: Any) -> int | None:
    return getattr(config, "num_key_value_heads", None)


def _no_problem(config: Any) -> str:
    return ""


@dataclass(frozen=True)
class Family:
    """A decoder family: the names of its modules relative to a layer, and what is unlike Llama in its code.

    Args:
        name: As the docs call it.
        classes: The names of its classes in transformers.
        layers: Path of the layer list.
        modules: For each module with gates, the sites in the order in which they are laid out in its vector.
        attention, mlp: The modules whose outputs are added to the residual stream: where a norm follows a sublayer,
            that norm; where a sublayer's module adds by itself, its output projection.
        norm: Path of the final norm, between the residual stream and the output embeddings.
        experts: The module within a layer that marks its MLP as a mixture of experts; empty for dense families.
        interleaved: In fused q, k and v each key-value group has its queries, its key and its value side by side, and
            the groups follow each other.
        parallel: Whether attention and MLP read the same residual stream, from the configuration.
        post_norms: A norm follows each sublayer.
        scaled_embeddings: Embeddings are multiplied by the square root of the model's width.
        kv_heads: The number of key-value groups, where the configuration does not say ``num_key_value_heads``.
        own_attention: Layers attend by code of their own, not through transformers' table of implementations.
        tuples: Layers return a tuple that begins with the residual stream.
        adds_in_place: A layer adds to what its sublayers put out, in place.
        flat_mlp: The MLP is given all rows' tokens in one dimension.
        problem: Why a model with this configuration is refused after all, or an empty text.
    """

    name: str
    classes: tuple[str, ...]
    layers: str
    modules: Mapping[str, tuple[Site, ...]]
    attention: str
    mlp: str
    norm: str = "model.norm"
    experts: str = ""
    interleaved: bool = False
    parallel: Callable[[Any], bool] = _never
    post_norms: bool = False
    scaled_embeddings: bool = False
    kv_heads: Callable[[Any], int | None] = _kv_heads
    own_attention: bool = False
    tuples: bool = False
    adds_in_place: bool = False
    flat_mlp: bool = False
    problem: Callable[[Any], str] = _no_problem

    def traits(self, config: Any, experts: tuple[int, ...] = ()) -> Traits:
        """How a model of this family computes.

        Args:
            config: Its (text) configuration.
            experts: The layers that are mixtures of experts.
        """
        scale = config.hidden_size**0.5 if self.scaled_embeddings else getattr(config, "embedding_multiplier", 1.0)
        logits = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1.0)
        return Traits(
            parallel=self.parallel(config),
            post_norms=self.post_norms,
            embedding_scale=float(scale),
            residual_scale=float(getattr(config, "residual_multiplier", None) or 1.0),
            logit_scale=float(logits),
            logit_cap=getattr(config, "final_logit_softcapping", None),
            experts=experts,
            window=getattr(config, "sliding_window", None) or getattr(config, "window_size", None),
        )


def stores_transposed(module: nn.Module) -> bool:
    """Whether a linear module stores its weight [d_in, d_out], as GPT-2's Conv1D does. Its class says so: the shape of
    a square one does not."""
    from transformers.pytorch_utils import Conv1D

    plain: Any = getattr(module, "base_layer", module)  # within an adapter's layer
    return isinstance(plain, Conv1D)


def sizes(module: nn.Module) -> tuple[int, int]:
    """Outputs and inputs of a linear module, however it stores its weight."""
    plain: Any = getattr(module, "base_layer", module)
    first, second = plain.weight.shape
    return (second, first) if stores_transposed(plain) else (first, second)
