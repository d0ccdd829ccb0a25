"""The published target vector of ROME and MEMIT: its texts, its loss and its optimisation.

The passes are given: ``WholePasses`` are those of the authors' programs, ``cut_passes.CutPasses`` compute no more than
what the vector changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from workbench.editing.training.loop import NonFiniteLoss
from workbench.language.padding import pad, pad_token
from workbench.language.tokens import begun_ids, check_ids, following_ids, subject_runs
from workbench.models.engine import Change, output_hook
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.types import Fact

Factors = dict[int, tuple[Tensor, Tensor]]
"""By layer, U [d_out, n] and V [n, d_in] in float64: what is added to the weight of its MLP's output projection."""


@dataclass(frozen=True, kw_only=True)
class PublishedTarget:
    """The published settings of the target vector's optimisation.

    Args:
        learning_rate: Adam's.
        steps: Passes; the last makes no update.
        weight_decay: Weight of ||delta|| / ||start||^2 (the norm itself is not squared).
        kl_weight: Weight of the KL at "{subject} is a".
        clamp: After each update ||delta|| is at most this times ||start||.
        stop_below: The optimisation ends once the whole loss is below this.
    """

    learning_rate: float = 0.5
    steps: int = 20
    weight_decay: float = 0.5
    kl_weight: float = 0.0625
    clamp: float = 4.0
    stop_below: float = 0.05


ROME_TARGET = PublishedTarget()
"""ROME's (hparams/ROME/gpt2-xl.json)."""
MEMIT_TARGET = replace(ROME_TARGET, clamp=0.75)
"""MEMIT's (hparams/MEMIT/gpt2-xl.json)."""


@dataclass(frozen=True)
class Texts:
    """Texts about one subject.

    Args:
        rows: Their token ids.
        subject: Position of the subject's last token, of each.
        targets: Of each, the tokens of the target and the positions that predict them; none where there is no target.
    """

    rows: tuple[tuple[int, ...], ...]
    subject: tuple[int, ...]
    targets: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    def padded(self, model: LoadedModel) -> Tensor:
        """Ids on the model's device, padded on the right, [rows, longest].

        They need no mask: a token sees none after it. With one, a narrow window of attention may hold padding alone,
        and Gemma 2 then gives NaN.
        """
        return pad(self.rows, pad_token(model), "right")[0].to(model.device)


def texts_of(model: LoadedModel, fact: Fact, contexts: Sequence[str], *, target: bool, kl: bool) -> Texts:
    """A fact's cloze in each context, as the model reads it.

    Args:
        model: The model.
        fact: The fact; its ``prompt`` is the rewriting prompt.
        contexts: Texts that hold ``{}`` in the place of the prompt.
        target: Whether the target follows, all but its last token.
        kl: Whether "{subject} is a" is the last row.

    Raises:
        ValueError: A context without a place for the prompt, or a text that is longer than the model can read.
    """
    rows: list[tuple[int, ...]] = []
    ends: list[int] = []
    targets: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def add(text: str, wanted: Sequence[int]) -> None:
        prompt = begun_ids(model, text)
        ids = (*prompt, *wanted[:-1])
        check_ids(model, ids, f"The text {text!r} with the target of {fact.id!r}")
        rows.append(ids)
        ends.append(subject_runs(model, prompt, fact.subject)[-1][-1])
        targets.append((tuple(wanted), tuple(range(len(prompt) - 1, len(ids))) if wanted else ()))

    for context in contexts:
        if context.count("{}") != 1:
            raise ValueError(f"A context must hold '{{}}' once, where the prompt stands, got {context!r}.")
        text = context.replace("{}", fact.prompt)
        add(text, following_ids(model, text, f" {fact.target}") if target else [])
    if kl:
        add(f"{fact.subject} is a", [])
    return Texts(tuple(rows), tuple(ends), tuple(targets))


class VectorPasses(Protocol):
    """Passes with a vector added at the subject's last token of every text."""

    @property
    def start(self) -> Tensor:
        """The state of the first text that the vector is added to, [d_model]; known after a pass."""
        ...

    def likely(self, vector: Tensor) -> tuple[list[Tensor], Tensor]:
        """Log-probabilities: of each text with a target those that predict it, [tokens, d_vocab], and those at the
        last text's subject, [d_vocab]."""
        ...


class WholePasses:
    """Each pass is one forward of the whole model over all texts.

    Args:
        model: The model.
        texts: The texts.
        layer: Where the vector is added.
        residual: To the residual stream after the layer, or to the output of its MLP's output projection.
    """

    def __init__(self, model: LoadedModel, texts: Texts, layer: int, *, residual: bool) -> None:
        self._model, self._texts, self._layer, self._residual = model, texts, layer, residual
        self._view = shared_view(model.runner)
        self._ids = texts.padded(model)
        self._start: Tensor | None = None

    @property
    def start(self) -> Tensor:
        """See ``VectorPasses``."""
        assert self._start is not None
        return self._start

    def likely(self, vector: Tensor) -> tuple[list[Tensor], Tensor]:
        """See ``VectorPasses``."""
        rows, subject = torch.arange(len(self._ids)), torch.tensor(self._texts.subject)

        def add(state: Tensor) -> Tensor:
            whole = state.view(*self._ids.shape, -1)
            if self._start is None:
                self._start = whole[0, subject[0]].detach().clone()
            changed = whole.clone()
            changed[rows, subject] = changed[rows, subject] + vector
            return changed.view(state.shape)

        with changing(self._model, self._view, self._layer, add, residual=self._residual):
            logits = self._view(input_ids=self._ids, use_cache=False).logits
        likely = torch.log_softmax(logits, dim=-1)
        wanted = [likely[i, list(at)] for i, (_, at) in enumerate(self._texts.targets) if at]
        return wanted, likely[-1, subject[-1]]


@contextmanager
def changing(model: LoadedModel, view: Any, layer: int, change: Change, *, residual: bool) -> Iterator[None]:
    """Change the residual stream after a layer of a view, or what its MLP's output projection puts out."""
    name = f"{model.architecture.family.layers}.{layer}" if residual else projection(model, layer)
    own = model.architecture.family.adds_in_place
    handle = view.get_submodule(name).register_forward_hook(output_hook(change, own=own))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def adding(model: LoadedModel, view: Any, factors: Factors) -> Iterator[None]:
    """Add U V x to what output projections of a view put out."""
    with ExitStack() as stack:
        for layer, (u, v) in factors.items():
            up, down = u.to(model.device, model.dtype), v.to(model.device, model.dtype)

            def add(module: Any, args: tuple[Any, ...], out: Tensor, up: Tensor = up, down: Tensor = down) -> Tensor:
                return out + args[0] @ down.T @ up.T

            stack.callback(view.get_submodule(projection(model, layer)).register_forward_hook(add).remove)
        yield


def projection(model: LoadedModel, layer: int) -> str:
    """The full name of the MLP's output projection."""
    return model.architecture.gate_module(layer, "post").module


def target_vector(
    model: LoadedModel,
    texts: Texts,
    passes: VectorPasses,
    settings: PublishedTarget,
    before_step: Callable[[int, float, float], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Optimise the vector that makes the model give the target.

    Args:
        model: The model.
        texts: ``texts_of`` the fact, with its target and the KL prompt.
        passes: How the model is run.
        settings: The settings.
        before_step: Called with each pass's number, its negative log-likelihood and its KL (both in nats); what it
            raises ends the optimisation.

    Returns:
        The state at the bare prompt's subject, and what to add to it, both [d_model] in the model's dtype.

    Raises:
        NonFiniteLoss: The loss is not a finite number.

    Source: Meng et al. 2022 (2202.05262), 3.1; kmeng01/rome rome/compute_v.py; Meng et al. 2023 (2210.07229), 4.1;
    kmeng01/memit memit/compute_z.py.
    """
    wanted = [torch.tensor(tokens, device=model.device) for tokens, _ in texts.targets if tokens]
    vector = torch.zeros(model.shape.d_model, device=model.device, dtype=model.dtype, requires_grad=True)
    optimiser = torch.optim.Adam([vector], lr=settings.learning_rate)
    base: Tensor | None = None
    for step in range(settings.steps):
        with torch.enable_grad():
            found, here = passes.likely(vector)
            nll = torch.stack([-x.gather(1, y[:, None]).mean() for x, y in zip(found, wanted, strict=True)]).mean()
            base = here.detach().clone() if base is None else base
            kl = (here.exp() * (here - base)).sum()  # KL of the new distribution from the base's
            norm = vector.norm() / passes.start.norm() ** 2
            loss = nll + settings.kl_weight * kl + settings.weight_decay * norm
        value = float(loss.detach())
        if not torch.isfinite(loss):
            raise NonFiniteLoss(
                f"The loss of the target vector is {value} at step {step}. Lower the learning rate "
                f"({settings.learning_rate:g}) or the clamp ({settings.clamp:g}); the model is as it was."
            )
        if before_step is not None:
            before_step(step, float(nll.detach()), float(kl.detach()))
        if value < settings.stop_below or step == settings.steps - 1:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            most = settings.clamp * passes.start.norm()
            if vector.norm() > most:
                vector.mul_(most / vector.norm())
    return passes.start, vector.detach()
