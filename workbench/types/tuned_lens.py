"""A tuned lens: what each layer's residual stream would be at the end, by an affine map of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from workbench.types.lens import row_labels

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedLens:
    """An affine map for each layer, from the residual stream there to the one after the last layer.

    A state x of row l becomes x + x A_l + b_l, and then goes through the model's own last norm and head. The last row
    stays as it is, so that a lens ends in the model's own prediction.

    Args:
        weights: A by row, [layers, d_model, d_model] float16, on the CPU.
        biases: b by row, [layers, d_model] float32, on the CPU.
        kl: By row, the divergence KL(the model's prediction || the lens) in nats, a mean over held-out tokens, of texts
            that the maps were not fitted on; 0 in the last row.
        logit_kl: The same of the logit lens.
        tokens: How many tokens the maps were fitted on.
        held_out: How many tokens ``kl`` is a mean over, of other texts.
        fingerprint: Of the unedited model.
        texts: Hash of the texts.

    Example:
        >>> texts = [f"The capital of {a} is {b}." for a in ("France", "Japan") for b in ("Paris", "Rome", "Tokyo")]
        >>> tuned = wb.tuned_lens(model, texts=texts * 10, progress=False)
        >>> tuple(tuned.weights.shape), tuned.labels, tuned.kl[-1]
        ((3, 42, 42), ('in', 'L0', 'L1', 'L2'), 0.0)
        >>> tuned.better
        True
    """

    weights: Tensor
    biases: Tensor
    kl: tuple[float, ...]
    logit_kl: tuple[float, ...]
    tokens: int
    held_out: int
    fingerprint: str = ""
    texts: str = ""

    def __repr__(self) -> str:
        return (
            f"TunedLens({self.n_layers} layers, {self.tokens:,} tokens; held-out KL {self.mean_kl:.2f} nats, of the "
            f"logit lens {self.mean_logit_kl:.2f})"
        )

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return len(self.weights)

    @property
    def labels(self) -> tuple[str, ...]:
        """A label per row: ``"in"``, then the layer that was last."""
        return row_labels(self.n_layers)

    @property
    def mean_kl(self) -> float:
        """Mean of ``kl`` over all rows but the last."""
        return sum(self.kl[:-1]) / self.n_layers

    @property
    def mean_logit_kl(self) -> float:
        """Mean of ``logit_kl`` over all rows but the last."""
        return sum(self.logit_kl[:-1]) / self.n_layers

    @property
    def better(self) -> bool:
        """Whether it is closer to what the model says than the logit lens, on held-out tokens."""
        return self.mean_kl < self.mean_logit_kl

    def translated(self, states: Tensor) -> Tensor:
        """States of every row [layers + 1, ..., d_model] as the last norm may read them, in their dtype.

        Raises:
            ValueError: States of another number of layers, or of another width.
        """
        expected = (self.n_layers + 1, self.weights.shape[-1])
        if (len(states), states.shape[-1]) != expected:
            raise ValueError(
                f"This tuned lens is of a model of {self.n_layers} layers and width {expected[1]}, and the states are "
                f"of {len(states) - 1} layers and width {states.shape[-1]}. Fit one for it: wb.tuned_lens(model)."
            )
        out = states.clone()
        for row, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            state = states[row].float()
            out[row] = (state + state @ weight.to(state) + bias.to(state)).to(states.dtype)
        return out

    def to_frame(self) -> pd.DataFrame:
        """One line a row: ``layer``, ``kl``, ``logit_kl`` in nats."""
        import pandas as pd

        return pd.DataFrame({"layer": self.labels, "kl": self.kl, "logit_kl": self.logit_kl})
