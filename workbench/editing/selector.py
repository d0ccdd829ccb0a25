"""The default selector: neurons by contrast."""

from __future__ import annotations

import random
from collections.abc import Sequence

from workbench.facts import known_facts, load_facts
from workbench.models import LoadedModel
from workbench.prompts import traced_prompt
from workbench.tracing.attribution import attribute
from workbench.types import Fact, FactSet, Form, Selection

NEURONS = 2000
CONTROLS = 12
LOWEST_LAYER = 0.27
"""Share of the depth below which no neuron is taken (layer 8 of 30)."""
SELECTOR = "neurons-by-contrast"


def default_selection(
    model: LoadedModel,
    fact: Fact | Sequence[Fact],
    *,
    pool: FactSet | None = None,
    k: int = NEURONS,
    seed: int = 0,
    progress: bool = True,
) -> Selection:
    """Neurons by contrast: the k MLP neurons whose attribution for the fact exceeds most their mean attribution for
    control facts (retain-role facts of the pool that the model knows), in the upper 73% of the layers.

    Starting evidence on the bundled model: neurons by contrast reach the new fact sooner and more surely than random
    neurons at like control retention; whole heads and MLPs barely beat random ones. See ``benchmarks/``.

    Args:
        model: The base model.
        fact: One fact or several.
        pool: Where control facts come from; the bundled facts by default.
        k: How many neurons.
        seed: Of the choice of controls and the noise.
        progress: Show a progress bar.

    Raises:
        ValueError: The model does not say a fact's answer, or k is out of range.
    """
    facts = [fact] if isinstance(fact, Fact) else list(fact)
    pool = load_facts() if pool is None else pool
    usable = contrast_facts(model, facts, pool=pool, seed=seed, progress=progress)
    effect = attribute(model, facts, unit="neuron", contrast=usable, seed=seed, pool=pool, progress=progress)
    lowest = round(model.shape.n_layers * LOWEST_LAYER)
    return effect.top(k, layers=range(lowest, model.shape.n_layers))


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
    """Control facts whose mean attribution the default selector subtracts: retain-role facts of the pool that the
    model knows and that can be traced, in an order drawn by seed. Arguments as in ``default_selection``; at most n.

    With ``form``, only facts that can be traced in that form.
    """
    ids = {f.id for f in ([fact] if isinstance(fact, Fact) else fact)}
    pool = load_facts() if pool is None else pool
    candidates = pool.filter(lambda f: f.role == "retain" and f.id not in ids)
    controls = list(known_facts(model, candidates, progress=progress)) if len(candidates) else []
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
