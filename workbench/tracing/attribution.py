"""Attribution of one answer to every head, MLP, neuron or attention layer.

* ``attribution``: attribution patching (Nanda 2023; Syed et al. 2310.10348): two forwards, one backward, first order.
* ``patching``: each component's clean activation put into the corrupted run, one at a time: exact, slow.
* ``dla``: direct logit attribution: what a component writes, through the final norm, onto the answer direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Unpack, get_args, overload

import torch
from torch import Tensor

from workbench.facts.known import pool_or_bundled
from workbench.models.engine import HookSite, pooled_engine
from workbench.models.layerwise import Layerwise
from workbench.models.load import LoadedModel
from workbench.models.provenance import provenance
from workbench.tracing.bridge_runs import FwdHook, TraceEngine, bridge_runs
from workbench.tracing.corruption import Setup, SetupOptions, SharedKeywords, one_form, set_up
from workbench.tracing.dla import decomposed
from workbench.tracing.metric import METRICS, Metric
from workbench.tracing.restoration import Restoration
from workbench.tracing.roles import mean_and_error
from workbench.tracing.runs import FastRuns, Runs
from workbench.tracing.self_check import require
from workbench.types import EffectMap, Fact, FactSet, Form, TracedPrompt
from workbench.types.effect import CONTRASTED, Corruption
from workbench.types.fact import as_facts
from workbench.types.metric_words import LOGIT_DIFF_BEFORE_CAP
from workbench.types.torch_settings import own_torch_settings

AttributionUnit = Literal["head", "mlp", "neuron", "attn"]
Method = Literal["attribution", "patching", "dla"]
OnLayerOfUnit = Callable[[AttributionUnit, int, Tensor], Any]
"""Is told the unit, the layer and its effects, [heads] or a scalar."""


class AttributionKeywords(SharedKeywords, total=False):
    """All keywords of ``attribute``, for its overloads."""

    method: Method
    contrast: FactSet | Sequence[Fact] | None
    on_layer: OnLayerOfUnit | None
    engine: TraceEngine
    fwd_hooks: Sequence[FwdHook]


UNIT_SITE: dict[str, HookSite] = {"head": "z", "mlp": "mlp", "neuron": "post", "attn": "attn"}


@overload
def attribute(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    unit: AttributionUnit = "head",
    **options: Unpack[AttributionKeywords],
) -> EffectMap: ...


@overload
def attribute(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    unit: Sequence[AttributionUnit],
    **options: Unpack[AttributionKeywords],
) -> dict[AttributionUnit, EffectMap]: ...


@own_torch_settings()
def attribute(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    unit: AttributionUnit | Sequence[AttributionUnit] = "head",
    *,
    method: Method = "attribution",
    contrast: FactSet | Sequence[Fact] | None = None,
    corruption: Corruption = "noise",
    metric: Metric = "logit_diff",
    normalise: bool = False,
    form: Form | None = None,
    token: Literal["answer", "target"] = "answer",
    partner: Fact | None = None,
    pool: FactSet | None = None,
    samples: int = 4,
    noise: float = 3.0,
    seed: int = 0,
    max_rows: int | None = None,
    on_layer: OnLayerOfUnit | None = None,
    engine: TraceEngine = "auto",
    fwd_hooks: Sequence[FwdHook] = (),
    progress: bool = True,
) -> EffectMap | dict[AttributionUnit, EffectMap]:
    """Measure how much each head, MLP, neuron or attention layer supports the answer, summed over positions.

    ``attribution`` and ``patching`` estimate the same quantity: the metric's change when the component's clean
    activation replaces the corrupted one at all positions. ``agreement`` compares the two by rank.

    Args:
        model: A base or edited model; it is not changed. Activations are those before an edited model's gates, and
            their effects include the gates.
        fact: One fact, or several (cells are means over facts).
        unit: ``"head"`` (query heads), ``"mlp"``, ``"neuron"`` or ``"attn"`` (whole attention layers). Several share
            one backward pass (or one sweep).
        method: See the module's docstring. ``"patching"`` of all neurons is refused: it takes a forward for each.
        contrast: Control facts: the mean of their maps is subtracted. What is left is specific to the fact, and its
            standard error is that of the difference.
        corruption, form, token, partner, pool, noise, seed, max_rows, progress: As in ``causal_trace``.
        metric: ``"logit_diff"`` by default, which is linear in the last residual; ``"probability"`` saturates. Not for
            ``"dla"``, which takes the logit difference apart (before a cap on logits, where a model has one; the map's
            words say so).
        normalise: As in ``causal_trace``: each fact's effects (each control's too) as shares of its own clean minus
            corrupted metric, before any mean. Not for ``"dla"``, which corrupts nothing.
        samples: Noise samples; the effects are means over them.
        on_layer: Called with ``(unit, layer, values)`` as soon as all of a layer's components are patched, ``values``
            [heads] or a scalar on the CPU; for ``"patching"`` one fact without ``contrast``.
        engine, fwd_hooks: As in ``causal_trace``.

    Returns:
        ``values`` [layer, head], [layer] or [layer, neuron], in units of the metric (or recovery). For several
        units a map each, by unit.

    Raises:
        ValueError: An unknown unit or method, ``on_layer`` with another method or several facts, ``normalise`` or
            another metric with ``"dla"``, direct effects that do not add up, or as ``causal_trace``.

    Example:
        >>> heads = wb.attribute(model, fact, "head")
        >>> heads.top(2), tuple(heads.values.shape)
        (Selection('L0H4 L1H3'), (3, 6))
        >>> neurons = wb.attribute(model, fact, "neuron", contrast=facts.filter(role="retain"))
        >>> neurons.method, tuple(neurons.values.shape)
        ('attribution - controls', (3, 56))
    """
    units = _units(model, unit, method)
    options = SetupOptions(
        corruption=corruption,
        metric=metric,
        normalise=normalise,
        form=form,
        token=token,
        samples=samples,
        noise=noise,
        seed=seed,
        partner=partner,
        pool=pool_or_bundled(pool),
    )
    facts, controls = as_facts(fact), list(contrast or ())
    _check(facts, controls, method, options, on_layer)
    if method != "dla":  # whose sum is checked on each text
        require(model, "trace" if method == "patching" else "resume", *(("noise",) if corruption == "noise" else ()))

    from tqdm.auto import tqdm

    measured: list[_Measured] = []
    name = f"Attributing to {', '.join(f'{at}s' for at in units)}"
    n_maps = len(facts) + len(controls)
    bar = tqdm(total=n_maps, desc=name, disable=not progress or n_maps == 1)
    options = replace(options, form=one_form(model, [*facts, *controls], form, token))
    if method == "dla" and (fwd_hooks or engine != "auto"):
        raise ValueError(
            "engine= and fwd_hooks= are for runs that are compared; method='dla' reads one run. Use another method."
        )
    bridged = bridge_runs(model, engine, fwd_hooks)
    with bar, pooled_engine(Layerwise, model) as fast:
        runs = FastRuns(fast, max_rows) if bridged is None else bridged
        for attributed in [*facts, *controls]:
            setup = set_up(model, fast, attributed, options)
            if method == "attribution":
                measured.append(_by_gradient(model, runs, setup, units))
            elif method == "patching":
                measured.append(_by_patching(model, runs, setup, units, on_layer))
            else:
                measured.append(_directly(model, setup, units))
            bar.update()
    words = LOGIT_DIFF_BEFORE_CAP if any(one.before_cap for one in measured) else METRICS[metric].words
    maps = _maps(
        measured,
        len(facts),
        units,
        {
            "metric": metric,
            "words": words,
            "method": method + (CONTRASTED if controls else ""),
            "corruption": None if method == "dla" else corruption,
            "normalised": normalise,
            "base_fingerprint": model.fingerprint,
        },
    )
    settings = {
        **options.settings,
        "method": method,
        "facts": [f.id for f in facts],
        "contrast": [f.id for f in controls],
        **({} if bridged is None else bridged.settings),
    }
    by_unit: dict[AttributionUnit, EffectMap] = {
        at: replace(m, provenance=provenance(model, unit=at, **settings)) for at, m in maps.items()
    }
    return by_unit[units[0]] if isinstance(unit, str) else by_unit


@dataclass(frozen=True)
class _Measured:
    """What was measured of one fact.

    Args:
        prompt: The traced text.
        effects: By unit, [layer, ...].
        corrupted, clean: The metric with and without the corruption; None where none was used.
        before_cap: Whether it is the metric before a cap that the model puts on its logits.
    """

    prompt: TracedPrompt
    effects: dict[AttributionUnit, Tensor]
    corrupted: float | None
    clean: float
    before_cap: bool = False


def _units(
    model: LoadedModel, unit: AttributionUnit | Sequence[AttributionUnit], method: str
) -> tuple[AttributionUnit, ...]:
    """The units that are asked for, each once."""
    units: tuple[AttributionUnit, ...] = (unit,) if isinstance(unit, str) else tuple(dict.fromkeys(unit))
    if not units or not set(units) <= set(get_args(AttributionUnit)):
        raise ValueError(f"unit must be one of {get_args(AttributionUnit)}, got {unit!r}. Or give several.")
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {get_args(Method)}, got {method!r}.")
    if "neuron" in units and model.shape.no_neurons:
        raise ValueError(f"There are no neurons to attribute to: {model.shape.no_neurons}")
    if method == "patching" and "neuron" in units:
        n = model.shape.n_layers * model.shape.d_mlp
        raise ValueError(f"Patching each of {n} neurons takes {n} forward passes; use method='attribution'.")
    return units


def _check(
    facts: Sequence[Fact],
    controls: Sequence[Fact],
    method: str,
    options: SetupOptions,
    on_layer: OnLayerOfUnit | None,
) -> None:
    """Raise a ValueError for no facts, or for options that these facts do not allow."""
    if not facts:
        raise ValueError("attribute needs at least one fact, got none.")
    if on_layer is not None and (method != "patching" or len(facts) + len(controls) > 1):
        raise ValueError("on_layer= is for method='patching' and one fact without contrast. Leave it out.")
    if method == "dla" and options.metric != "logit_diff":
        raise ValueError(
            f"method='dla' takes the logit difference apart, which is a sum of what components write; "
            f"metric={options.metric!r} is none. Use metric='logit_diff', or method='attribution' or 'patching'."
        )
    if method == "dla" and options.normalise:
        raise ValueError(
            "method='dla' has no corrupted run, so nothing says what a recovery of 0 is. Use normalise=False, or "
            "method='attribution' or 'patching'."
        )
    overlap = {f.id for f in facts} & {f.id for f in controls}
    if overlap:
        raise ValueError(f"contrast must not hold the attributed facts themselves, got {sorted(overlap)}.")
    if options.partner is not None and len(facts) + len(controls) > 1:
        raise ValueError("partner= is for one fact without contrast; leave it out for several.")


def _maps(
    measured: Sequence[_Measured], n: int, units: Sequence[AttributionUnit], common: dict[str, Any]
) -> dict[AttributionUnit, EffectMap]:
    """A map by unit: of the first n facts, minus the controls after them."""
    of_facts = measured[:n]
    corrupted = [m.corrupted for m in of_facts if m.corrupted is not None]
    common = {
        **common,
        "clean": sum(m.clean for m in of_facts) / n,
        "corrupted": sum(corrupted) / n if corrupted else None,
        "prompts": tuple(m.prompt for m in of_facts),
    }
    return {unit: _map(unit, [m.effects[unit] for m in measured], n, common) for unit in units}


def _map(unit: AttributionUnit, values: list[Tensor], n: int, common: dict[str, Any]) -> EffectMap:
    """The mean of the first n facts' effects, minus that of the controls after them. The controls were drawn as the
    facts were, so the error of the difference has the spread of both."""
    of_facts = torch.stack(values[:n])
    mean, error = mean_and_error(of_facts)
    if len(values) > n:
        less, error_of_controls = mean_and_error(torch.stack(values[n:]))
        mean, of_facts = mean - less, of_facts - less
        error = None if error is None or error_of_controls is None else torch.hypot(error, error_of_controls)
    labels = {"layer": tuple(f"L{i}" for i in range(len(mean)))}
    if mean.ndim > 1:
        labels[unit] = tuple(f"{'H' if unit == 'head' else 'N'}{i}" for i in range(mean.shape[1]))
    return EffectMap(
        values=mean,
        axes=tuple(labels),
        labels=labels,
        unit=unit,
        stderr=error,
        n=n,
        per_fact=of_facts if n > 1 else None,
        **common,
    )


@own_torch_settings()
def _by_gradient(model: LoadedModel, runs: Runs, setup: Setup, units: Sequence[AttributionUnit]) -> _Measured:
    """First-order effects by one backward pass for all units."""
    sites = _hook_sites(units)
    with torch.no_grad():
        clean = runs.record(setup, sites)
    run, gradients = runs.gradients(setup, sites)
    by_unit: dict[AttributionUnit, Tensor] = {}
    for unit in units:
        rows = []
        for layer in range(model.shape.n_layers):
            place = UNIT_SITE[unit], layer
            product = (clean.states[place] - run.states[place]) * gradients[place]
            rows.append(_per_unit(product.float().sum(1).mean(0), model, unit))
        by_unit[unit] = torch.stack(rows).cpu()
    at_best, at_worst = float(setup.measure(clean.logits)), float(setup.measure(run.logits).mean())
    divisor = setup.divisor(at_best, at_worst)
    return _Measured(setup.prompt, {unit: of / divisor for unit, of in by_unit.items()}, at_worst, at_best)


def _hook_sites(units: Sequence[AttributionUnit]) -> tuple[HookSite, ...]:
    return tuple(UNIT_SITE[unit] for unit in units)


def _per_unit(vector: Tensor, model: LoadedModel, unit: AttributionUnit) -> Tensor:
    """Sum a site's vector over each unit's entries."""
    if unit == "head":
        return vector.view(model.shape.n_heads, -1).sum(-1)
    return vector if unit == "neuron" else vector.sum()


def _by_patching(
    model: LoadedModel,
    runs: Runs,
    setup: Setup,
    units: Sequence[AttributionUnit],
    on_layer: OnLayerOfUnit | None,
) -> _Measured:
    """Exact effects, one restoration for each component."""
    n_layers = model.shape.n_layers
    heads = {"head": range(model.shape.n_heads), "mlp": (None,), "attn": (None,)}
    places: list[tuple[AttributionUnit, int, int | None]] = [
        (unit, layer, head) for unit in units for layer in range(n_layers) for head in heads[unit]
    ]
    restorations = [Restoration(UNIT_SITE[unit], range(layer, layer + 1), head=head) for unit, layer, head in places]
    samples = len(setup.corrupted)
    values: dict[AttributionUnit, Tensor] = {unit: torch.zeros(samples, n_layers, len(heads[unit])) for unit in units}
    missing = {(unit, layer): samples * len(heads[unit]) for unit, layer, _ in places}
    baseline = torch.zeros(samples)
    with torch.no_grad():
        clean = runs.record(setup, _hook_sites(units))
        at_best = float(setup.measure(clean.logits))
        for part in runs.effects(setup, clean, restorations):
            baseline[part.samples] = part.baseline.float().cpu()
            for i, effect in zip(part.cells, part.effects.float().cpu(), strict=True):
                unit, layer, head = places[i]
                values[unit][part.samples, layer, head or 0] = effect
                missing[unit, layer] -= len(effect)
                if on_layer is not None and not missing[unit, layer]:
                    divisor = setup.divisor(at_best, float(baseline.mean()))
                    on_layer(unit, layer, _per_layer(values[unit] / divisor, unit)[layer])
    divisor = setup.divisor(at_best, float(baseline.mean()))
    by_unit: dict[AttributionUnit, Tensor] = {unit: _per_layer(of / divisor, unit) for unit, of in values.items()}
    return _Measured(setup.prompt, by_unit, float(baseline.mean()), at_best)


def _directly(model: LoadedModel, setup: Setup, units: Sequence[AttributionUnit]) -> _Measured:
    """Direct effects, and no corruption."""
    found = decomposed(model, setup.prompt, *units)
    by_unit: dict[AttributionUnit, Tensor] = {unit: found.values[unit] for unit in units}
    return _Measured(setup.prompt, by_unit, None, found.total, found.capped)


def _per_layer(values: Tensor, unit: AttributionUnit) -> Tensor:
    """The mean over samples, [layer, head] or [layer]."""
    mean = values.mean(0)
    return mean if unit == "head" else mean[:, 0]
