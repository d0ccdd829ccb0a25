"""A causal trace as Meng et al. 2022 (arXiv 2202.05262) describe it: for every cell one forward pass of the whole text,
1 clean row and the noisy ones, with the clean row's state copied into the others by plain hooks. The yardstick."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workbench.tracing.causal import default_window


class MengLoop:
    """The loop over one prompt on the plain HF model; noise, metric and window are those of ``causal_trace``."""

    def __init__(self, model: Any, prompt: Any, *, samples: int, noise: float = 3.0, seed: int = 0) -> None:
        self.model, self.prompt = model, prompt
        table = model.hf.get_input_embeddings().weight
        where = list(prompt.subject)
        draw = torch.randn(samples, len(where), table.shape[1], generator=torch.Generator().manual_seed(seed))
        self.rows = table[torch.tensor([prompt.token_ids], device=table.device)].repeat(1 + samples, 1, 1)
        sigma = self.rows[0, where].float().std().item()  # a Llama's embeddings enter layer 0 as they are
        self.rows[1:, where] += (draw * noise * sigma).to(table)
        with torch.no_grad():
            self.baseline = self._measure(model.hf(inputs_embeds=self.rows).logits)

    def _measure(self, logits: Tensor) -> float:
        return float(logits[1:, -1].float().softmax(-1)[:, self.prompt.answer_id].mean())

    def cell(self, site: str, layer: int, position: int) -> float:
        """The mean indirect effect of one cell."""
        n, family = self.model.shape.n_layers, self.model.architecture.family
        below = default_window(n) // 2
        above = -(-default_window(n) // 2)
        layers = [layer] if site == "resid" else range(max(0, layer - below), min(n, layer + above))
        handles = []
        for at in layers:
            module = self.model.hf.get_submodule(f"{family.layers}.{at}")
            if site == "resid":
                handles.append(
                    module.register_forward_pre_hook(lambda m, args: (self._copy(args[0], position), *args[1:]))
                )
                continue
            inner = module.get_submodule(family.attention if site == "attn" else family.mlp)
            handles.append(inner.register_forward_hook(lambda m, args, out: self._output(out, position)))
        try:
            with torch.no_grad():
                return self._measure(self.model.hf(inputs_embeds=self.rows).logits) - self.baseline
        finally:
            for handle in handles:
                handle.remove()

    def _output(self, out: Any, position: int) -> Any:
        return (self._copy(out[0], position), *out[1:]) if isinstance(out, tuple) else self._copy(out, position)

    def _copy(self, value: Tensor, position: int) -> Tensor:
        value = value.clone()
        value[1:, position] = value[0, position]
        return value
