"""The default selector, gain over Fisher information; the paper's modules; the control facts that attribution maps
subtract."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.editing.retain import default_retain
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.sensitivity import damped, gate_gradients
from workbench.facts.known import pool_or_bundled
from workbench.facts.retained import retain_pool, retainable
from workbench.language.prompts import traced_prompt
from workbench.models.load import LoadedModel
from workbench.tracing.attribution import attribute
from workbench.types import Component, Fact, FactSet, Form, Selection, Site, TrainedRecipe
from workbench.types.cancelling import CancelFlag
from workbench.types.fact import as_facts
from workbench.types.torch_settings import own_torch_settings

NEURONS = 2000
MORE_NEURONS = 8000
"""For facts that the default's number does not teach."""
CONTROLS = 12
RETAINED = 80
SELECTOR = "gain-over-fisher"
"""What edits call the default selector. It says what is cheap to move, not where a fact is."""
PAPER_MLPS, PAPER_ATTENTIONS = 3, 2


@own_torch_settings()
def default_selection(
    model: LoadedModel,
    fact: Fact | Sequence[Fact],
    *,
    pool: FactSet | None = None,
    k: int | None = None,
    seed: int = 0,
    rows: FitRows | None = None,
    progress: bool = True,
) -> Selection:
    """Choose the k MLP neurons whose gates move the fact's new answer most for what they cost other answers: gain over
    Fisher information. This is **not a localisation**: it says what is cheap to move, not where the fact is.

    A neuron's score is |d log P(new answer) / d gate|, averaged over the fact's training prompts, divided by the
    square root of the gate's Fisher information on what the model says to retain-role facts of the pool, neighbours
    and others counting equally (plus 0.1 of its mean): to first order, the gain per square root of a nat of KL that
    moving this gate alone costs them. Several facts: the root mean square of the first part over facts. Built from
    the natural gradient (Amari 1998) and Fisher information as importance (Kirkpatrick et al. 2017, 1612.00796);
    ``benchmarks/selectors.py`` compares it with other scores.

    Args:
        model: The base model.
        fact: One fact or several.
        pool: Where the retain-role facts come from; the bundled facts by default. With none that the model knows,
            only the first part counts.
        k: How many neurons; by default ``NEURONS`` (2,000), or all of a model that has fewer.
        seed: Of the choice of retained facts and of the answers drawn for the Fisher information.
        rows: The rows of a fit of these facts, which the fit then shares. Their retained facts and their seed count,
            not ``pool`` and ``seed``.
        progress: Show a progress bar.

    Returns:
        k neurons, the highest scores.

    Raises:
        ValueError: k is out of range, the model is a mixture of experts, or ``rows`` are of another model or of other
            facts.

    Example:
        >>> selection = wb.default_selection(model, fact, pool=facts, k=3)
        >>> len(selection), {component.kind for component in selection}
        (3, {'N'})
    """
    if k is None:
        k = min(NEURONS, model.shape.n_layers * model.shape.d_mlp)
    check_number(model, k)
    scores = gate_scores(model, fact, pool=pool, seed=seed, rows=rows, progress=progress)
    best = scores.flatten().argsort(descending=True, stable=True)[:k]
    d_mlp = model.shape.d_mlp
    return Selection([Component(i // d_mlp, "N", i % d_mlp) for i in best.tolist()])


def check_number(model: LoadedModel, k: int) -> None:
    """Raise a ValueError for what is no number of neurons of a model, or a mixture of experts, which has none."""
    if model.shape.no_neurons:
        raise ValueError(f"No neurons can be chosen in {model.name!r}: {model.shape.no_neurons}")
    n = model.shape.n_layers * model.shape.d_mlp
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= n:
        raise ValueError(f"A number of neurons must be a whole number from 1 to {n}, all of this model, got {k!r}.")


@own_torch_settings()
def paper_selection(model: LoadedModel, fact: Fact, *, pool: FactSet | None = None, progress: bool = True) -> Selection:
    """Locate the kinds of modules that the paper trains, for a fact. Of the three MLPs with the largest attribution it
    takes the gate, up and down projections (the latter alone where a model has no gate), of the two layers whose heads
    have the largest sum the attention.

    Args:
        model: The base model.
        fact: A fact that can be traced.
        pool: As in ``attribute``: where a swap's partner comes from.
        progress: Show a progress bar.

    Returns:
        ``L13MLP L13GATEUP L9ATTN ...``; all layers where a model has fewer.

    Raises:
        ValueError: The base does not say the fact's answer in either form, so that nothing can be attributed.

    Source: arXiv 2508.07075. Known deviation: it located them by causal tracing on Phi-3-mini; here it is gradient
    attribution, on any model.

    Example:
        >>> wb.paper_selection(model, fact, pool=facts)
        Selection('L0MLP L0GATEUP L1MLP L1GATEUP L2MLP L2GATEUP L0ATTN L2ATTN')
    """
    maps = attribute(model, fact, unit=("head", "mlp"), pool=pool, progress=progress)
    mlps = maps["mlp"].values.argsort(descending=True)[:PAPER_MLPS].tolist()
    attention = maps["head"].values.sum(1).argsort(descending=True)[:PAPER_ATTENTIONS].tolist()
    gated = any("gate" in sites for sites in model.architecture.family.modules.values())
    names = [f"L{layer}{kind}" for layer in sorted(mlps) for kind in ("MLP", *(["GATEUP"] if gated else []))]
    return Selection([*names, *(f"L{layer}ATTN" for layer in sorted(attention))])


def gate_scores(
    model: LoadedModel,
    fact: Fact | Sequence[Fact],
    *,
    pool: FactSet | None = None,
    seed: int = 0,
    rows: FitRows | None = None,
    progress: bool = True,
) -> Tensor:
    """The scores of ``default_selection``, [n_layers, d_mlp]: ``GateMeasures.scores``. Arguments as there."""
    return gate_measures(model, fact, pool=pool, seed=seed, rows=rows, progress=progress).scores


@dataclass(frozen=True)
class GateMeasures:
    """What moving each MLP neuron's gate does to first order.

    Args:
        gain: |gradient| of the new answers' log-likelihood, nats, [n_layers, d_mlp].
        cost: Root of the gate's Fisher information on retained answers, damped, [n_layers, d_mlp]; 1 where nothing is
            retained.
    """

    gain: Tensor
    cost: Tensor

    @property
    def scores(self) -> Tensor:
        """What a gate gains for each square root of a nat that it costs, [n_layers, d_mlp]."""
        return self.gain / self.cost


def gate_measures(
    model: LoadedModel,
    fact: Fact | Sequence[Fact],
    *,
    pool: FactSet | None = None,
    seed: int = 0,
    rows: FitRows | None = None,
    progress: bool = True,
) -> GateMeasures:
    """Measure what the scores of ``default_selection`` are made of. Arguments as there."""
    facts = as_facts(fact)
    if not facts:
        raise ValueError("default_selection needs at least one fact, got none.")
    if rows is None:
        spared = selection_facts(model, facts, pool=pool, seed=seed, progress=progress)
        rows = FitRows(model, facts, TrainedRecipe(seed=seed), selection_facts=spared)
    elif rows.model is not model or rows.facts != facts:
        raise ValueError(
            f"rows are of {[f.id for f in rows.facts]} on {rows.model.name!r}, not of {[f.id for f in facts]} on "
            f"{model.name!r}. Give those of the same fit, or leave rows out."
        )
    d_mlp, n_layers = model.shape.d_mlp, model.shape.n_layers
    neurons: dict[tuple[int, Site], range] = {(layer, "post"): range(d_mlp) for layer in range(n_layers)}
    squares = [
        gate_gradients(model, of_fact, neurons, cancel=rows.cancel).mean(0).square()
        for of_fact in rows.selection_wanted
    ]
    gain = torch.stack(squares).mean(0).sqrt()
    fisher = rows.selection_fisher(neurons)
    cost = torch.ones_like(gain) if fisher is None else damped(fisher.of(neurons)).sqrt()
    return GateMeasures(gain.view(-1, d_mlp), cost.view(-1, d_mlp))


def selection_facts(
    model: LoadedModel,
    facts: Sequence[Fact],
    *,
    pool: FactSet | None = None,
    seed: int = 0,
    progress: bool = True,
    cancel: CancelFlag | None = None,
) -> FactSet:
    """The facts whose answers ``default_selection`` spares; none where the pool has none that the model knows.
    Arguments as there, and ``cancel`` as in ``known_facts``."""
    pool = retain_pool(pool_or_bundled(pool))
    if not len(retainable(model, facts, pool, progress=progress, cancel=cancel)):
        return FactSet(name="nothing to spare")
    return default_retain(model, facts, pool=pool, size=RETAINED, seed=seed, progress=progress)


@own_torch_settings()
def contrast_facts(
    model: LoadedModel,
    fact: Fact | Sequence[Fact],
    *,
    pool: FactSet | None = None,
    n: int = CONTROLS,
    form: Form | None = None,
    seed: int = 0,
    progress: bool = True,
) -> FactSet:
    """Choose control facts for ``attribute(..., contrast=)``. They are retain-role facts of the pool that the model
    knows and that can be traced, at most n, in an order drawn by seed.

    Args:
        model: The base model.
        fact: One fact or several; what overlaps them (``Fact.overlaps``) is left out.
        pool: Where to choose from; the bundled facts by default, and where the pool has no fact of that role.
        n: At most so many.
        form: Only facts that can be traced in this form; None: in any.
        seed: Of the order.
        progress: Show a progress bar if knowledge has to be measured.

    Returns:
        The facts, in the order drawn.

    Example:
        >>> wb.contrast_facts(model, fact, pool=facts).ids
        ('germany-capital', 'japan-capital')
    """
    pool = retain_pool(pool_or_bundled(pool))
    controls = list(retainable(model, [fact] if isinstance(fact, Fact) else fact, pool, progress=progress))
    random.Random(seed).shuffle(controls)
    return FactSet(traceable(model, controls, n, form), name="contrast facts")


def traceable(model: LoadedModel, facts: Sequence[Fact], n: int, form: Form | None = None) -> list[Fact]:
    """The first n facts that can be traced in this form (the base's own answer contains the fact's)."""
    out: list[Fact] = []
    for fact in facts:
        if len(out) == n:
            break
        try:
            traced_prompt(model, fact, form=form)
        except ValueError:  # known with an alias that cannot be located, say: the next one will do
            continue
        out.append(fact)
    return out
