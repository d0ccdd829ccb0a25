"""Attribution of one answer to every head, key-value group, MLP, neuron or attention layer.

* ``attribution``: attribution patching (Nanda 2023; Syed et al. 2310.10348): two forwards, one backward, first order.
* ``ig``: the same with a mean gradient (integrated gradients; Sundararajan et al. 1703.01365), over runs between the
  corrupted and the clean inputs (Hanna et al. 2403.17806): ``steps`` more backward passes; or over corrupted runs with
  a layer's activations between theirs and the clean ones (Marks et al. 2403.19647): ``steps`` more a layer and unit.
* ``patching``: each component's clean activation put into the corrupted run, one at a time: exact, slow.
* ``dla``: direct logit attribution: what a component writes, through the final norm, onto the answer direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Unpack, get_args, overload

from workbench.facts.known import pool_or_bundled
from workbench.models.engine import pooled_engine
from workbench.models.layerwise import Layerwise
from workbench.models.load import LoadedModel
from workbench.models.provenance import provenance
from workbench.tracing.attribution_maps import attribution_maps
from workbench.tracing.bridge_runs import FwdHook, TraceEngine, bridge_runs
from workbench.tracing.component_effects import component_effects
from workbench.tracing.component_units import (
    Along,
    AttributionUnit,
    How,
    Measured,
    Method,
    OnLayerOfUnit,
    check_components,
)
from workbench.tracing.corruption import one_form, set_up
from workbench.tracing.metric import Metric, metric_name, rule_of
from workbench.tracing.runs import FastRuns
from workbench.tracing.self_check import require
from workbench.tracing.setup import SetupOptions, SharedKeywords
from workbench.types import Contrast, EffectMap, Fact, FactSet, Form, Selection
from workbench.types.contrast import Traced, as_traced
from workbench.types.effect import CONTRASTED, Corruption
from workbench.types.metric_words import LOGIT_DIFF_BEFORE_CAP
from workbench.types.plain import check_count
from workbench.types.torch_settings import own_torch_settings


class AttributionKeywords(SharedKeywords, total=False):
    """All keywords of ``attribute``, for its overloads."""

    method: Method
    steps: int
    along: Along
    per_position: bool
    components: Selection | str | None
    contrast: Sequence[Fact] | Sequence[Contrast] | None
    on_layer: OnLayerOfUnit | None
    engine: TraceEngine
    fwd_hooks: Sequence[FwdHook]


@overload
def attribute(
    model: LoadedModel,
    fact: Traced,
    unit: AttributionUnit = "head",
    **options: Unpack[AttributionKeywords],
) -> EffectMap: ...


@overload
def attribute(
    model: LoadedModel,
    fact: Traced,
    unit: Sequence[AttributionUnit],
    **options: Unpack[AttributionKeywords],
) -> dict[AttributionUnit, EffectMap]: ...


@own_torch_settings()
def attribute(
    model: LoadedModel,
    fact: Traced,
    unit: AttributionUnit | Sequence[AttributionUnit] = "head",
    *,
    method: Method = "attribution",
    steps: int = 5,
    along: Along = "inputs",
    per_position: bool = False,
    components: Selection | str | None = None,
    contrast: Sequence[Fact] | Sequence[Contrast] | None = None,
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
    """Measure how much each head, key-value group, MLP, neuron or attention layer supports the answer, summed over
    positions.

    ``attribution`` and ``patching`` measure the same quantity: the metric's change when the component's clean
    activation replaces the corrupted one at all positions. ``agreement`` compares the two by rank.

    Args:
        model: A base or edited model; it is not changed. Activations are those before an edited model's gates, and
            their effects include the gates.
        fact: One fact or contrast, or several (cells are means over them).
        unit: ``"head"`` (query heads), ``"kv"`` (key-value groups, keys and values together), ``"mlp"``, ``"neuron"``
            or ``"attn"`` (whole attention layers). Several share one backward pass (or one sweep).
        method: See the module's docstring. ``"patching"`` of all neurons is refused: it takes a forward for each.
        steps: Of ``"ig"``: runs at shares 1/steps to 1 of what is clean.
        along: Of ``"ig"``: between the ``"inputs"``, which credits what matters only where other components are partly
            clean; or between the ``"activations"`` of one unit in one layer, all of them together, which with many
            steps adds up to what patching them together gives (and of whole MLPs and attention layers is that).
        per_position: Tell positions apart instead of summing over them: an axis more, as in ``causal_trace``. Not for
            ``"dla"``, which reads the last position.
        components: Patch these alone (``"patching"``): a selection, or its text. Other cells are NaN.
        contrast: Control facts (or contrasts): the mean of their maps is subtracted. What is left is specific to the
            fact, and its standard error is that of the difference.
        corruption, form, token, partner, pool, noise, seed, max_rows, progress: As in ``causal_trace``.
        metric: ``"logit_diff"`` by default, which is linear in the last residual; ``"probability"`` saturates. Not for
            ``"dla"``, which takes the logit difference apart (before a cap on logits, where a model has one; the map's
            words say so).
        normalise: As in ``causal_trace``: each fact's effects (each control's too) as shares of its own clean minus
            corrupted metric, before any mean. Not for ``"dla"``, which corrupts nothing.
        samples: Noise samples; the effects are means over them.
        on_layer: Called with ``(unit, layer, values)`` as soon as all of a layer's components are patched, ``values``
            [heads] or a scalar (with positions [..., position]) on the CPU; for ``"patching"`` one fact without
            ``contrast``.
        engine, fwd_hooks: As in ``causal_trace``.

    Returns:
        ``values`` [layer, head], [layer, group], [layer] or [layer, neuron], where asked for with [..., position] (of
        several facts [..., role]), in units of the metric (or recovery). For several units a map each, by unit.

    Raises:
        ValueError: An unknown unit or method, ``steps`` below 1, ``on_layer`` with another method or several facts,
            ``components`` with another method or of another unit, positions, ``normalise``, another metric or key-value
            groups with ``"dla"``, a metric without a gradient where one is needed, direct effects that do not add up,
            or as ``causal_trace``.

    Example:
        >>> heads = wb.attribute(model, fact, "head")
        >>> heads.top(2), tuple(heads.values.shape)
        (Selection('L0H4 L1H3'), (3, 6))
        >>> neurons = wb.attribute(model, fact, "neuron", contrast=facts.filter(role="retain"))
        >>> neurons.method, tuple(neurons.values.shape)
        ('attribution - controls', (3, 56))
        >>> best = wb.attribute(model, fact, "neuron").top(3)
        >>> exact = wb.attribute(model, fact, "neuron", method="patching", components=best)
        >>> exact.top(3) == best, int(exact.values.isfinite().sum())
        (True, 3)
        >>> wb.attribute(model, fact, "head", per_position=True).read_at(role="last token").top(1)
        Selection('L0H4')
    """
    how = _how(model, unit, method, steps, along, per_position, components)
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
    facts = as_traced(fact, "attribute")
    controls: list[Any] = [] if contrast is None or not len(contrast) else [*as_traced(contrast, "attribute")]
    _check(facts, controls, method, options, on_layer)
    every = as_traced([*facts, *controls], "attribute")
    if method == "dla" and (fwd_hooks or engine != "auto"):
        raise ValueError(
            "engine= and fwd_hooks= are for runs that are compared; method='dla' reads one run. Use another method."
        )
    options = options.of(every)
    if method != "dla":  # whose sum is checked on each text
        noisy = options.corruption == "noise"
        require(model, "trace" if method == "patching" else "resume", *(("noise",) if noisy else ()))

    from tqdm.auto import tqdm

    measured: list[Measured] = []
    words = rule_of(metric).words
    name = f"Attributing to {', '.join(f'{at}s' for at in how.units)}"
    bar = tqdm(total=len(every), desc=name, disable=not progress or len(every) == 1)
    options = replace(options, form=one_form(model, every, options.form, token))
    bridged = bridge_runs(model, engine, fwd_hooks)
    with bar, pooled_engine(Layerwise, model) as fast:
        runs = FastRuns(fast, max_rows) if bridged is None else bridged
        for attributed in every:
            setup = set_up(model, fast, attributed, options, sequences=True)
            words = setup.words
            measured.append(component_effects(model, runs, setup, how, on_layer))
            bar.update()
    words = LOGIT_DIFF_BEFORE_CAP if any(one.before_cap for one in measured) else words
    maps = attribution_maps(
        measured,
        len(facts),
        how,
        {
            "metric": words.name,
            "words": words,
            "method": how.method_words + (CONTRASTED if controls else ""),
            "corruption": None if method == "dla" else options.corruption,
            "normalised": normalise,
            "base_fingerprint": model.fingerprint,
        },
    )
    settings = {
        **options.settings,
        **how.settings,
        "facts": [f.id for f in facts],
        "contrast": [f.id for f in controls],
        **({} if bridged is None else bridged.settings),
    }
    by_unit: dict[AttributionUnit, EffectMap] = {
        at: replace(m, provenance=provenance(model, unit=at, **settings)) for at, m in maps.items()
    }
    return by_unit[how.units[0]] if isinstance(unit, str) else by_unit


def _how(
    model: LoadedModel,
    unit: AttributionUnit | Sequence[AttributionUnit],
    method: Method,
    steps: int,
    along: Along,
    per_position: bool,
    components: Selection | str | None,
) -> How:
    """What is asked for, if it goes together; each unit once."""
    units: tuple[AttributionUnit, ...] = (unit,) if isinstance(unit, str) else tuple(dict.fromkeys(unit))
    if not units or not set(units) <= set(get_args(AttributionUnit)):
        raise ValueError(f"unit must be one of {get_args(AttributionUnit)}, got {unit!r}. Or give several.")
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {get_args(Method)}, got {method!r}.")
    check_count("steps", steps)
    if along not in get_args(Along):
        raise ValueError(f"along must be one of {get_args(Along)}, got {along!r}.")
    if along != "inputs" and method != "ig":
        raise ValueError(f"along={along!r} is for method='ig', got method={method!r}. Leave it out.")
    if method == "dla" and per_position:
        raise ValueError("method='dla' reads the last position alone. Leave out per_position=, or use another method.")
    if "neuron" in units and model.shape.no_neurons:
        raise ValueError(f"There are no neurons to attribute to: {model.shape.no_neurons}")
    chosen = None if components is None else Selection.read(components, "components")
    if chosen is not None and method != "patching":
        raise ValueError(f"components= is for method='patching', got method={method!r}, which measures all in one go.")
    if chosen is not None:
        check_components(chosen, units, model.shape)
    elif method == "patching" and "neuron" in units:
        n = model.shape.n_layers * model.shape.d_mlp
        raise ValueError(
            f"Patching each of {n} neurons takes {n} forward passes; use method='attribution', or name some: "
            "components='L13N207 L9N3'."
        )
    return How(units=units, method=method, steps=steps, along=along, per_position=per_position, components=chosen)


def _check(
    facts: Sequence[Fact] | Sequence[Contrast],
    controls: Sequence[Fact] | Sequence[Contrast],
    method: str,
    options: SetupOptions,
    on_layer: OnLayerOfUnit | None,
) -> None:
    """Raise a ValueError for options that these facts or contrasts do not allow."""
    if on_layer is not None and (method != "patching" or len(facts) + len(controls) > 1):
        raise ValueError("on_layer= is for method='patching' and one fact without contrast. Leave it out.")
    if method in ("attribution", "ig") and not rule_of(options.metric).gradient:
        raise ValueError(
            f"metric={options.metric!r} has no gradient, which method={method!r} needs. Use method='patching', or "
            "'log_prob' or 'logit_diff'."
        )
    if method == "dla" and options.metric != "logit_diff":
        raise ValueError(
            f"method='dla' takes the logit difference apart, which is a sum of what components write; "
            f"metric={metric_name(options.metric)!r} is none. Use metric='logit_diff', or another method."
        )
    if method == "dla" and options.normalise:
        raise ValueError(
            "method='dla' has no corrupted run, so nothing says what a recovery of 0 is. Use normalise=False, or "
            "method='attribution' or 'patching'."
        )
    own: list[Any] = [f.id if isinstance(f, Fact) else f for f in facts]
    overlap = sorted(f.id for f in controls if (f.id if isinstance(f, Fact) else f) in own)
    if overlap:
        raise ValueError(f"contrast must not hold the attributed facts themselves, got {overlap}.")
    if options.partner is not None and len(facts) + len(controls) > 1:
        raise ValueError("partner= is for one fact without contrast; leave it out for several.")
