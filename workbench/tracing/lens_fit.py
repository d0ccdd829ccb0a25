"""How a tuned lens is fitted: least squares to the last states first, then a few steps on the divergence itself.

Least squares needs one pass over the texts and no gradient: sums of x^T x and x^T (y - x) for each layer, where x is
the state there and y the one after the last layer. The steps that follow see the sampled tokens only, whose states of
all layers fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.facts.ordinary_texts import TextGroup
from workbench.language.padding import length_batches, pad, pad_token
from workbench.models.engine import Resumable
from workbench.models.load import LoadedModel

RIDGE = 1e-3
"""Of the mean variance of a layer's entries: what least squares adds to each variance. It draws a map towards none."""
STEPS, BATCH = 20, 64
"""Steps on the divergence, and tokens a step."""
HELD_OUT = 128
"""Tokens of held-out texts on which the lenses are judged, at most."""
EVERY = 8
"""Of so many texts one is held out."""
RATE = 0.05
"""How far a first step moves a predicted state at most, in its own standard deviations; it falls to 0 in a line."""
STREAM_BYTES = 2**27
"""Of the states of all layers that one batch of texts may have."""
SUMS_BYTES = 2**30
"""Of the sums that one pass over the texts may hold: more layers take more passes."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The maps and how good they are (see ``TunedLens``)."""

    weights: Tensor
    biases: Tensor
    kl: tuple[float, ...]
    logit_kl: tuple[float, ...]
    tokens: int
    held_out: int


class Sums:
    """Sums over tokens of a layer's states x and of what is missing to the last ones, y - x.

    Args:
        width: d_model.
        centre: A state near the mean, [d_model]: it is taken away first, so that little is lost to rounding.
    """

    def __init__(self, width: int, centre: Tensor) -> None:
        self.n = 0
        self.centre = centre
        self.x, self.r = torch.zeros(2, width, dtype=torch.float64)
        self.xx, self.xr = torch.zeros(2, width, width, dtype=torch.float64)

    def add(self, x: Tensor, r: Tensor) -> None:
        """More tokens: x and y - x, [tokens, d_model] each."""
        x = x - self.centre
        self.n += len(x)
        self.x += x.sum(0, dtype=torch.float64)
        self.r += r.sum(0, dtype=torch.float64)
        self.xx += (x.T @ x).double()
        self.xr += (x.T @ r).double()

    def solved(self, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
        """A [d_model, d_model] and b [d_model] of least squares, in float32."""
        mean, missing = self.x / self.n, self.r / self.n
        spread = self.xx / self.n - torch.outer(mean, mean)
        joint = self.xr / self.n - torch.outer(mean, missing)
        spread.diagonal().add_(ridge * spread.diagonal().mean().clamp_min(1e-12))
        weight = torch.linalg.solve(spread, joint)
        return weight.float(), (missing - (mean + self.centre.double()) @ weight).float()


class LensFit:
    """One fit of a lens, judged on texts that it has not seen.

    Args:
        model: The base model.
        engine: Runs it.
        bar: Updated by 1 for each batch of texts and each layer of the steps; what it raises ends the fit.
    """

    def __init__(self, model: LoadedModel, engine: Resumable, bar: Any) -> None:
        self.model, self.engine, self.bar = model, engine, bar

    def fitted(self, groups: Sequence[TextGroup], *, steps: int, seed: int) -> Fitted:
        """Fit on some of the texts and judge on the others.

        Args:
            groups: The texts.
            steps: Steps on the divergence.
            seed: Of the tokens that are sampled.
        """
        fit, held = split(groups)
        rng = torch.Generator().manual_seed(seed)
        n = sum(group.counted for group in fit)
        chosen = torch.zeros(n, dtype=torch.bool)
        chosen[torch.randperm(n, generator=rng)[: max(steps, 1) * BATCH]] = True
        aside = torch.cat(list(self._states(held)), 1).cpu()
        aside = aside[:, torch.randperm(aside.shape[1], generator=rng)[:HELD_OUT]]
        maps, sampled = self._least_squares(fit, chosen)
        sampled = sampled[:, torch.randperm(sampled.shape[1], generator=rng)]
        maps = [self._stepped(sampled[row], sampled[-1], *one, steps) for row, one in enumerate(maps)]
        weights = torch.stack([weight for weight, _ in maps]).half()
        biases = torch.stack([bias for _, bias in maps])
        kl, logit_kl = self._judged(aside, weights, biases)
        return Fitted(weights=weights, biases=biases, kl=kl, logit_kl=logit_kl, tokens=n, held_out=aside.shape[1])

    def _states(self, groups: Sequence[TextGroup]) -> Iterator[Tensor]:
        """States of the tokens that count, [layers + 1, tokens, d_model] float32 for each batch."""
        for texts, shared in batches_of(self.model, groups):
            ids, mask = pad(texts, pad_token(self.model), "right")  # what stands behind a token does not reach it
            mask[:, :shared] = 0
            with torch.no_grad():
                stream = self.engine.whole_stream(ids).transpose(0, 1).float()  # [layers + 1, rows, tokens, d_model]
            yield stream[:, mask.bool().to(stream.device)]
            self.bar.update(1)

    def _least_squares(self, groups: Sequence[TextGroup], chosen: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """The map of every layer, and the states of the chosen tokens at every row."""
        maps: list[tuple[Tensor, Tensor]] = []
        sampled: list[Tensor] = []
        for turn, rows in enumerate(passes_of(self.model)):
            sums: dict[int, Sums] = {}
            at = 0
            for states in self._states(groups):
                last = states[-1].cpu()
                for row in rows:
                    x = states[row].cpu()
                    if row not in sums:
                        sums[row] = Sums(x.shape[1], x.mean(0))
                    sums[row].add(x, last - x)
                if turn == 0:
                    sampled.append(states[:, chosen[at : at + len(last)].to(states.device)].cpu())
                at += len(last)
            maps += [one.solved() for one in sums.values()]
        return maps, torch.cat(sampled, 1)

    def _stepped(self, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """A layer's map after some steps of Adam on KL(the model || the lens). Entries of states and of what is missing
        are measured in their own standard deviations, so that one rate fits all layers and models.

        Args:
            x, y: States of the layer and the last ones, [tokens, d_model].
            weight, bias: The map to begin with.
            steps: How many.
        """
        into, out = x.std(0).clamp_min(1e-6), (y - x).std(0).clamp_min(1e-6)
        moved = [torch.zeros_like(weight).requires_grad_(), torch.zeros_like(bias).requires_grad_()]
        optimiser = torch.optim.Adam(moved, lr=RATE / len(bias))

        def current() -> tuple[Tensor, Tensor]:
            more = moved[0] / into[:, None] * out
            return weight + more, bias + moved[1] * out - x.mean(0) @ more

        for step in range(steps):
            part = torch.arange(step * BATCH, (step + 1) * BATCH) % len(x)
            optimiser.param_groups[0]["lr"] = RATE / len(bias) * (1 - step / steps)
            with torch.no_grad():
                wanted = self._logprobs(y[part])
            with torch.enable_grad():
                a, b = current()
                loss = divergence(wanted, self._logprobs(x[part] + x[part] @ a + b)).mean()
                optimiser.zero_grad()
                loss.backward(inputs=moved)
            optimiser.step()
        self.bar.update(1)
        a, b = current()
        return a.detach(), b.detach()

    def _judged(self, states: Tensor, weights: Tensor, biases: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The divergence of the fitted lens and of the logit lens from the model by row, in nats."""
        kl: list[float] = []
        logit_kl: list[float] = []
        with torch.no_grad():
            wanted = self._logprobs(states[-1])
            for x, weight, bias in zip(states[:-1], weights.float(), biases, strict=True):
                logit_kl.append(float(divergence(wanted, self._logprobs(x)).mean()))
                kl.append(float(divergence(wanted, self._logprobs(x + x @ weight + bias)).mean()))
        return (*kl, 0.0), (*logit_kl, 0.0)

    def _logprobs(self, states: Tensor) -> Tensor:
        """Log-probabilities [tokens, d_vocab] of states [tokens, d_model] by the last norm and head, on the CPU."""
        logits = self.engine.unembed(states.to(self.engine.device, self.model.dtype))
        return logits.float().log_softmax(-1).cpu()


def batches_of(model: LoadedModel, groups: Sequence[TextGroup]) -> list[tuple[list[tuple[int, ...]], int]]:
    """Texts of similar length that are read at once, and how many first tokens of each do not count."""
    state = (model.shape.n_layers + 1) * model.shape.d_model * 4
    out: list[tuple[list[tuple[int, ...]], int]] = []
    for group in groups:
        lengths = [len(text) for text in group.texts]
        rows = max(1, STREAM_BYTES // (state * max(lengths)))
        out += [([group.texts[i] for i in part], group.shared) for part in length_batches(lengths, rows)]
    return out


def passes_of(model: LoadedModel) -> list[range]:
    """The layers whose sums are held in each pass over the texts."""
    at_once = max(1, SUMS_BYTES // (16 * model.shape.d_model**2))
    layers = model.shape.n_layers
    return [range(start, min(start + at_once, layers)) for start in range(0, layers, at_once)]


def work_of(model: LoadedModel, groups: Sequence[TextGroup]) -> int:
    """How often a fit updates its bar."""
    fit, held = split(groups)
    passes = len(passes_of(model)) * len(batches_of(model, fit))
    return passes + len(batches_of(model, held)) + model.shape.n_layers


def split(groups: Sequence[TextGroup]) -> tuple[list[TextGroup], list[TextGroup]]:
    """Texts to fit on, and texts that are held out: one in so many of each group, and of a smaller group the last. A
    text counts in the first group that has it, and what is held out is fitted on in none.

    Raises:
        ValueError: All texts are one, so that none can be held out.
    """
    distinct: list[list[tuple[int, ...]]] = []
    seen: set[tuple[int, ...]] = set()
    for group in groups:
        distinct.append([text for text in dict.fromkeys(group.texts) if text not in seen])
        seen.update(group.texts)
    if len(seen) < 2:
        raise ValueError(
            f"A lens is judged on texts that it was not fitted on, and texts has {len(seen) or 'no'} distinct text. "
            "Give at least two; some hundred for a lens that is to be trusted."
        )
    held = [texts[EVERY - 1 :: EVERY] or texts[1:][-1:] for texts in distinct]
    if not any(held):  # a text in each group
        held[max(i for i, texts in enumerate(distinct) if texts)] = next(t[-1:] for t in reversed(distinct) if t)
    out = {text for texts in held for text in texts}
    fit = [tuple(text for text in group.texts if text not in out) for group in groups]
    return _grouped(fit, groups), _grouped(held, groups)


def _grouped(parts: Sequence[Sequence[tuple[int, ...]]], groups: Sequence[TextGroup]) -> list[TextGroup]:
    """A part of each group's texts, without empty groups."""
    return [TextGroup(tuple(part), group.shared) for part, group in zip(parts, groups, strict=True) if part]


def divergence(wanted: Tensor, got: Tensor) -> Tensor:
    """KL(wanted || got) by token, in nats, [tokens]."""
    return (wanted.exp() * (wanted - got)).sum(-1)
