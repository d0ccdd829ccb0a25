"""Targets: the vector that, added where a module gives out the subject's states, makes the model say the new answer.

One vector a fact is added at every occurrence of the subject's last token, in the question and in the reply's own "The
capital of ..."; the model is frozen. The loss of a step is

    NLL of the counted tokens beyond the probability ``hinge`` + kl_weight * KL on the base's own beginning of the reply
    + about_weight * KL on other questions about the subject + size_weight * |d|^2 / |h|^2.

Source: v* of ROME (2202.05262) and z of MEMIT (2210.07229). Deviations: the contexts are those in which the model
answers; every occurrence is a place; the hinge; the KL on the reply's beginning.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.editing.solved.keys import Group, PreparedContexts
from workbench.editing.solved.places import Context
from workbench.editing.solved.spots import Place, Spot, SpotEngine, engine_of, module_name
from workbench.editing.training.batching import Shuffled
from workbench.editing.training.loop import NonFiniteLoss
from workbench.models.engine import Change, KeysValues
from workbench.models.family import sizes
from workbench.models.load import LoadedModel
from workbench.types import Step
from workbench.types.cancelling import CancelFlag, Cancelled, check_cancel


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """How targets are optimised.

    Args:
        steps: Adam steps.
        rate: Of Adam, in units of |h| / sqrt(d), where h is the state that is added to; it falls in even steps.
        last_rate: What it falls to, as a share.
        batch: Contexts of the fact a step.
        others: Other questions about the subject a step.
        hinge: The probability above which a context adds nothing to the loss; None: all count always.
        kl_weight, about_weight, size_weight: See the module.
        largest: |d| is at most this share of |h|, after each step.
    """

    steps: int
    rate: float
    last_rate: float
    batch: int
    others: int
    hinge: float | None
    kl_weight: float
    about_weight: float
    size_weight: float
    largest: float


@dataclass(frozen=True, eq=False)
class Target:
    """What was found.

    Args:
        vectors: By spot, what is to be added there, [width] float64.
        sizes: By spot, |h|: the mean norm of the residual stream after its layer, or of the module's output where that
            is larger.
        history: The steps.
    """

    vectors: Mapping[Spot, Tensor]
    sizes: Mapping[Spot, float]
    history: tuple[Step, ...] = ()


def start_of(spots: Sequence[Spot]) -> int:
    """The first layer that a vector at some spots changes."""
    return min(spot.layer + (spot.kind == "resid") for spot in spots)


def find_target(
    model: LoadedModel,
    contexts: Sequence[Context],
    others: Sequence[Context],
    spots: Sequence[Spot],
    settings: TargetSettings,
    *,
    stage: str = "edit",
    view: Any = None,
    seed: int = 0,
    earlier: Sequence[Step] = (),
    on_step: Callable[[Step], Any] | None = None,
    cancel: CancelFlag | None = None,
    began: float | None = None,
) -> Target:
    """Optimise the vectors of one fact.

    Args:
        model: The base model.
        contexts: What is taught (``training_contexts``), of one fact.
        others: Other questions about its subject (``about_contexts``).
        spots: Where a vector is added, one each; several are optimised together.
        settings: How.
        stage: For the steps that are recorded.
        view: An edited view on which the vectors are to act; None for the base. The KL is to the base in any case.
        seed: Of the batches.
        earlier: Steps recorded before, whose count goes on.
        on_step, cancel: As in ``rewrite``.
        began: When the fit began, for the steps' seconds.

    Raises:
        Cancelled: ``cancel`` was set or ``on_step`` returned False; nothing was changed.
        NonFiniteLoss: The loss or the vector is not finite.

    Warns:
        UserWarning: No vector moved though something was wanting: nothing that is added there reaches the answer.
    """
    search = _Search(model, contexts, others, spots, settings, view, cancel)
    steps: list[Step] = []
    began = time.perf_counter() if began is None else began
    first = sum(step.stage == stage for step in earlier)
    with torch.enable_grad():
        optimiser = torch.optim.Adam([*search.vectors.values()], lr=1.0)
        of_fact = iter(Shuffled(range(len(search.contexts.contexts)), settings.batch, seed))
        n_others = 0 if search.others is None else len(search.others.contexts)
        of_others = iter(Shuffled(range(n_others), settings.others, seed + 1))
        for step in range(settings.steps):
            check_cancel(cancel, f"in stage {stage!r} at step {step} of the target vector")
            optimiser.zero_grad()
            nll, kl = search.backward(next(of_fact), next(of_others))
            _finite(nll + kl, search.vectors, step)
            record = Step(stage, first + step, nll, kl, seconds=time.perf_counter() - began)
            steps.append(record)
            if on_step is not None and on_step(record) is False:
                raise Cancelled(f"Cancelled by on_step in stage {stage!r} at step {step}; the model is as it was.")
            search.update(optimiser, step)
    _finite(0.0, search.vectors, settings.steps)
    _moved(search, spots)
    vectors = {spot: v.detach().to("cpu", torch.float64) for spot, v in search.vectors.items()}
    return Target(vectors, search.sizes, tuple(steps))


def _finite(loss: float, vectors: Mapping[Spot, Tensor], step: int) -> None:
    if not math.isfinite(loss) or not all(bool(v.detach().isfinite().all()) for v in vectors.values()):
        raise NonFiniteLoss(
            f"The target vector is not finite at step {step} (loss {loss!r}). Lower the recipe's rate; the model is as "
            "it was."
        )


def _moved(search: _Search, spots: Sequence[Spot]) -> None:
    """Say so where something was wanting, and no vector moved."""
    if search.wanting and not any(bool(v.detach().any()) for v in search.vectors.values()):
        warnings.warn(
            f"The target vector did not move: what is added at the subject after layer {max(s.layer for s in spots)} "
            "does not reach the answer, so the edit writes nothing. No later layer reads the subject at the answer's "
            "place: the layer is too high, or their attention windows are too short. Choose a lower layer.",
            UserWarning,
            stacklevel=2,
        )


class _Search:
    """The vectors of one fact, and the passes that measure them."""

    def __init__(
        self,
        model: LoadedModel,
        contexts: Sequence[Context],
        others: Sequence[Context],
        spots: Sequence[Spot],
        settings: TargetSettings,
        view: Any,
        cancel: CancelFlag | None,
    ) -> None:
        self.settings, self._cancel, self._spots = settings, cancel, list(spots)
        start = start_of(spots)
        self.engine = engine_of(model, view)
        self.contexts = PreparedContexts(model, contexts, start, view=view, cancel=cancel)
        self.others = PreparedContexts(model, others, start, view=view, cancel=cancel) if others else None
        base = [self.contexts, self.others]
        if view is not None:
            base = [PreparedContexts(model, c, start, cancel=cancel) if c else None for c in (contexts, others)]
        self.wanting = False  # whether any context fell short of what is taught
        self._prefixes: dict[int, KeysValues | None] = {}
        base_engine = self.engine if view is None else engine_of(model)
        self._reference = {
            id(mine): _logprobs(base_engine, of_base)
            for mine, of_base in zip((self.contexts, self.others), base, strict=True)
            if mine is not None and of_base is not None
        }
        self.sizes = self._sizes(view)
        device = model.device
        self.vectors = {
            spot: nn.Parameter(torch.zeros(_width(model, spot), dtype=torch.float32, device=device)) for spot in spots
        }
        with torch.no_grad():  # they do not change: the subject comes after what all contexts begin with
            for prepared in filter(None, (self.contexts, self.others)):
                for group in prepared.groups:
                    self._prefixes[id(group)] = group.prefix(self.engine)

    def _sizes(self, view: Any) -> dict[Spot, float]:
        """|h| by spot. A module's own output may be far smaller than the stream that it is added to; where a norm
        follows the module, far larger: the larger of both counts."""
        streams = {spot: Spot("resid", spot.layer) for spot in self._spots}
        start = self.contexts.start
        entering = [s for s in self._spots if s.kind == "resid" and s.layer < start < self.engine.n_layers - 1]
        out: dict[Spot, float] = {}
        if below := [spot for spot in self._spots if spot not in entering]:
            norms = self.contexts.read([*dict.fromkeys([*below, *(streams[s] for s in below)])], view=view)
            means = {spot: float(states.norm(dim=-1).mean()) for spot, states in norms.items()}
            out = {spot: max(means[spot], means[streams[spot]]) for spot in below}
        for spot in entering:  # the residual stream that enters the first layer is at hand
            rows = [
                group.rows[i].resid[[at - group.prepared.shared for at in c.subject]]
                for group in self.contexts.groups
                for i, c in enumerate(group.contexts)
            ]
            out[spot] = float(torch.cat(rows).double().norm(dim=-1).mean())
        return out

    def backward(self, of_fact: Sequence[int], of_others: Sequence[int]) -> tuple[float, float]:
        """One step's gradients; returns the mean NLL (nats per token) and the KL of both kinds, weighted."""
        settings = self.settings
        nll, kl = 0.0, 0.0
        for group, part in _grouped(self.contexts, of_fact):
            found = self._logits(group, part)
            total = torch.zeros((), device=self.engine.device)
            for i, logits in zip(part, found, strict=True):
                row, departs = group.rows[i].row, group.contexts[i].row.departs
                wanted = torch.tensor(row.answer[departs:], device=logits.device)
                loss = nn.functional.cross_entropy(logits[departs:], wanted)
                nll += float(loss.detach()) / len(of_fact)
                short = loss if settings.hinge is None else (loss + math.log(settings.hinge)).relu()
                self.wanting |= bool(short.detach() > 0)
                total = total + short
                if departs and settings.kl_weight:
                    change = self._kl(self.contexts, group, i, logits[:departs])
                    kl += settings.kl_weight * float(change.detach()) / len(of_fact)
                    total = total + settings.kl_weight * change
            if total.requires_grad:
                (total / len(of_fact)).backward()
        if self.others is not None and settings.about_weight:
            for group, part in _grouped(self.others, of_others):
                changes = [
                    self._kl(self.others, group, i, logits)
                    for i, logits in zip(part, self._logits(group, part), strict=True)
                ]
                total = settings.about_weight * torch.stack(changes).sum() / len(of_others)
                kl += float(total.detach())
                total.backward()
        for spot, vector in self.vectors.items():
            (settings.size_weight * (vector / self.sizes[spot]).square().sum()).backward()
        return nll, kl

    def update(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        """One Adam step; each vector has the rate of its own size and width."""
        settings = self.settings
        fallen = 1 - (1 - settings.last_rate) * step / max(settings.steps - 1, 1)
        with torch.no_grad():
            before = {spot: vector.clone() for spot, vector in self.vectors.items()}
            optimiser.step()  # by 1: the rate is each vector's own
            for spot, vector in self.vectors.items():
                unit = self.sizes[spot] / math.sqrt(len(vector))
                vector.copy_(before[spot] + settings.rate * fallen * unit * (vector - before[spot]))
                longest = settings.largest * self.sizes[spot]
                length = float(vector.norm())
                if length > longest:
                    vector.mul_(longest / length)

    def _logits(self, group: Group, part: Sequence[int]) -> list[Tensor]:
        """Logits that predict each context's answer, with the vectors added: [tokens, d_vocab] float32 each."""
        batch = group.prepared.batch([group.rows[i] for i in part])
        at = group.where(part, batch.resid.shape[1], batch.resid.device)[..., None]
        changes = {spot: _adds(vector, at) for spot, vector in self.vectors.items()}
        resid = batch.resid
        # What is fed to the first layer is fed after its hooks, so it is changed before.
        entering = changes.pop(Spot("resid", group.start - 1), None)
        if entering is not None:
            resid = entering(resid)
        with self.engine.changing(changes):
            hidden = self.engine.hidden_at(
                resid, batch.row, batch.position, start=group.start, prefix=self._prefixes[id(group)]
            )
        return list(self.engine.logits_of(hidden).float().split(batch.count))

    def _kl(self, prepared: PreparedContexts, group: Group, i: int, logits: Tensor) -> Tensor:
        """Mean KL(base || edited) over the first of a context's answer tokens, nats."""
        reference = self._reference[id(prepared)][group.order[i]][: len(logits)]
        kl = nn.functional.kl_div(logits.log_softmax(-1), reference, reduction="none", log_target=True)
        return kl.sum(-1).mean()


def _adds(vector: Tensor, at: Tensor) -> Change:
    """Adds a vector where the subject is."""
    return lambda state: state + at * vector.to(state.dtype)


def _width(model: LoadedModel, spot: Spot) -> int:
    if spot.kind == "resid":
        return model.shape.d_model
    place = Place(spot.layer, "mlp" if spot.kind == "mlp" else "attn")
    return sizes(model.runner.get_submodule(module_name(model.architecture, place)))[0]


def _grouped(prepared: PreparedContexts, chosen: Sequence[int]) -> list[tuple[Group, list[int]]]:
    """Some contexts by group, as places within it, in parts that are computed at once."""
    out: list[tuple[Group, list[int]]] = []
    for group in prepared.groups:
        inside = [n for n, i in enumerate(group.order) if i in set(chosen)]
        out += [(group, part) for part in group.parts(inside)]
    return out


def _logprobs(engine: SpotEngine, prepared: PreparedContexts) -> list[Tensor]:
    """The base's log-probabilities at the beginning of each context's answer that is held in place: by context,
    [tokens, d_vocab]."""
    out: list[Tensor] = [torch.empty(0)] * len(prepared.contexts)
    with torch.no_grad():
        for group in prepared.groups:
            prefix = group.prefix(engine)
            for part in group.parts():
                batch = group.prepared.batch([group.rows[i] for i in part])
                logits = engine.logits_at(batch.resid, batch.row, batch.position, start=group.start, prefix=prefix)
                for i, x in zip(part, logits.float().split(batch.count), strict=True):
                    held = group.contexts[i].row.departs or len(x)
                    out[group.order[i]] = x[:held].log_softmax(-1)
    return out
