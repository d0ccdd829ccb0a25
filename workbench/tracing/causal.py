"""Causal traces: restore one clean state in a corrupted run and see how much of the answer comes back.

Method: Meng et al. 2022 (arXiv 2202.05262), section 2; logit difference and swaps after Zhang and Nanda 2023
(arXiv 2309.16042). Deviations: every occurrence of the subject is corrupted, the model's own answer prefix included;
the noise is scaled by the states of this text's own subject, the paper's by the embeddings of many subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, Unpack, get_args, overload

import torch
from torch import Tensor

from workbench.facts.known import pool_or_bundled
from workbench.models.engine import pooled_engine
from workbench.models.layerwise import Layerwise
from workbench.models.load import LoadedModel
from workbench.models.provenance import provenance
from workbench.tracing.bridge_runs import FwdHook, TraceEngine, bridge_runs
from workbench.tracing.corruption import Setup, SetupOptions, SharedKeywords, one_form, set_up
from workbench.tracing.metric import METRICS, Metric
from workbench.tracing.restoration import Restoration
from workbench.tracing.roles import by_role, mean_and_error
from workbench.tracing.runs import FastRuns, Runs
from workbench.tracing.self_check import require
from workbench.types import EffectMap, Fact, FactSet, Form
from workbench.types.effect import Corruption
from workbench.types.fact import as_facts
from workbench.types.roles import roles_of
from workbench.types.torch_settings import own_torch_settings

TraceSite = Literal["resid", "mlp", "attn"]
OnLayer = Callable[[TraceSite, int, Tensor], None]
"""Is told the site, the layer, and the layer's finished values by position."""


class TraceKeywords(SharedKeywords, total=False):
    """All keywords of ``causal_trace``, for its overloads."""

    window: int | None
    positions: Sequence[int] | None
    on_layer: OnLayer | None
    engine: TraceEngine
    fwd_hooks: Sequence[FwdHook]


def default_window(n_layers: int) -> int:
    """Layers restored together for MLP and attention sites: 10 of 48 in the paper, scaled with depth."""
    return max(1, round(n_layers * 10 / 48))


@overload
def causal_trace(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    site: TraceSite = "resid",
    **options: Unpack[TraceKeywords],
) -> EffectMap: ...


@overload
def causal_trace(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    site: Sequence[TraceSite],
    **options: Unpack[TraceKeywords],
) -> dict[TraceSite, EffectMap]: ...


@own_torch_settings()
def causal_trace(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    site: TraceSite | Sequence[TraceSite] = "resid",
    *,
    corruption: Corruption = "noise",
    metric: Metric = "probability",
    normalise: bool = False,
    form: Form | None = None,
    token: Literal["answer", "target"] = "answer",
    partner: Fact | None = None,
    pool: FactSet | None = None,
    samples: int = 10,
    noise: float = 3.0,
    window: int | None = None,
    positions: Sequence[int] | None = None,
    seed: int = 0,
    max_rows: int | None = None,
    on_layer: OnLayer | None = None,
    engine: TraceEngine = "auto",
    fwd_hooks: Sequence[FwdHook] = (),
    progress: bool = True,
) -> EffectMap | dict[TraceSite, EffectMap]:
    """Measure the indirect effect of every (layer, position): the metric with one clean state restored, minus the
    corrupted one.

    Args:
        model: A base or edited model; it is not changed.
        fact: One fact, or several. Then cells are means over facts, and positions are roles: "last subject token" is
            that of the prompt, and "last subject token of the reply" that in the model's own words before the answer.
        site: ``"resid"`` the residual stream entering a layer (TransformerLens' ``resid_pre``; row 0 is the
            embeddings), ``"mlp"`` or ``"attn"`` what the layers of a window add to it. Several sites share one sweep.
        corruption: ``"noise"`` adds Gaussian noise to the subject's embeddings, ``"swap"`` puts another subject of as
            many tokens in its place.
        metric: ``"probability"`` of the traced token, or ``"logit_diff"``: minus the target's logit (noise) or the
            partner's answer's (swap).
        normalise: Divide each fact's effects by its clean minus its corrupted metric, before any mean: a cell is then
            the recovery, 0 as corrupted and 1 as clean. The baselines stay in units of the metric.
        form: ``"chat"``, ``"cloze"`` or None for the first in which the base model says the answer (of several facts:
            every answer; both forms are never averaged).
        token: Trace the first token of the ``"answer"`` or of the ``"target"``.
        partner: The fact to swap in: the corrupted text is its own prompt, as it is written, of as many tokens. By
            default a neighbour from the pool that differs in the subject alone. ``EffectMap.notes`` says where the
            model does not know it.
        pool: Where partners come from; the bundled facts by default.
        samples: Noise samples.
        noise: Standard deviation of the noise, in standard deviations of what it is added to: all entries of the
            states of the subject's tokens that enter layer 0 of the base model. Multipliers and norms of the embeddings
            (Gemma, Granite, BLOOM) count, and so do learned positions (GPT-2, OPT). With ``positions`` it is as large.
        window: Layers restored around the cell's (``mlp`` and ``attn``; default 10/48 of the depth).
        positions: Put the noise on these positions instead of the subject's: a control.
        seed: Of the noise.
        max_rows: Most tokens computed at once, which bounds memory; by default what is fast and fits into a quarter of
            the free memory. The values do not depend on it beyond rounding.
        on_layer: Called with ``(site, layer, values)`` as soon as a layer is finished, ``values`` by position on the
            CPU, from the lowest layer up; of one fact only, for several are averaged at the end. Samples that do not
            fit into ``max_rows`` together are taken in groups, and layers are finished with the last one.
        engine: ``"auto"`` computes only what a cell can change; ``"transformerlens"`` runs TransformerLens' hooks, one
            forward pass a cell: the readable reference, equal within rounding.
        fwd_hooks: Hooks of your own, as TransformerLens has them, ``[("blocks.9.attn.hook_z", fn), ...]`` with
            ``fn(value, hook)``; they are part of every run, clean and corrupted, which then go through TransformerLens
            (with ``"auto"`` a warning says so).
        progress: Show a progress bar.

    Returns:
        ``values`` [layer, position] (or [layer, role]) in units of the metric (or recovery), with the clean and
        corrupted baselines, the standard error over samples (or facts), and the traced texts. For several sites a map
        each, by site.

    Raises:
        ValueError: The base model does not say the answer (of several facts: in no one form), no swap partner fits
            (``NoSwapPartner``), an option is out of range, with ``normalise`` clean and corrupted hardly differ, or the
            model's self-check (``model.support``) found that its traces or its noise would be wrong (the messages have
            both numbers).

    Source: Meng et al. 2022, section 2.1; default noise 3 sigma and 10 samples as there. Deviation: sigma is that of
    this text's subject where the noise is added, not of the embeddings of many subjects.

    Example:
        >>> trace = wb.causal_trace(model, fact, form="cloze", samples=3)
        >>> trace.axes, trace.labels["position"]
        (('layer', 'position'), ('The', ' capital', ' of', ' France', ' is'))
        >>> trace.top(1, role="last subject token")  # the state that enters layer 0: what reads it first
        Selection('L0ATTN L0MLP')
        >>> both = wb.causal_trace(model, fact, ("mlp", "attn"), corruption="swap", pool=facts)
        >>> {site: tuple(effects.values.shape) for site, effects in both.items()}
        {'mlp': (3, 18), 'attn': (3, 18)}
    """
    sites = _sites(site)
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
        positions=positions,
    )
    widths = _widths(sites, window, model.shape.n_layers)
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"max_rows must be at least 1, got {max_rows!r}.")
    facts = _facts(fact, options, on_layer)
    require(model, "trace", *(("noise",) if corruption == "noise" else ()))

    from tqdm.auto import tqdm

    maps: list[dict[TraceSite, EffectMap]] = []
    total = model.shape.n_layers * len(sites) * len(facts)
    bar = tqdm(total=total, desc=f"Tracing {', '.join(sites)}", disable=not progress)

    def finished(at: TraceSite, layer: int, values: Tensor) -> None:
        bar.update()
        if on_layer is not None:
            on_layer(at, layer, values)

    bridged = bridge_runs(model, engine, fwd_hooks)
    with torch.no_grad(), bar, pooled_engine(Layerwise, model) as fast:
        options = replace(options, form=one_form(model, facts, options.form, options.token))
        runs = FastRuns(fast, max_rows) if bridged is None else bridged
        for traced in facts:
            setup = set_up(model, fast, traced, options)
            maps.append(_trace_one(model, runs, setup, widths, finished, options))
    by_site: dict[TraceSite, EffectMap] = {
        at: maps[0][at] if len(maps) == 1 else _over_facts([m[at] for m in maps]) for at in sites
    }
    return by_site[sites[0]] if isinstance(site, str) else by_site


def _sites(site: TraceSite | Sequence[TraceSite]) -> tuple[TraceSite, ...]:
    """The sites that are asked for, each once."""
    sites: tuple[TraceSite, ...] = (site,) if isinstance(site, str) else tuple(dict.fromkeys(site))
    if not sites or not set(sites) <= set(get_args(TraceSite)):
        raise ValueError(f"site must be one of {get_args(TraceSite)}, got {site!r}. Or give several.")
    return sites


def _widths(sites: Sequence[TraceSite], window: int | None, n_layers: int) -> dict[TraceSite, int]:
    """How many layers are restored together, by site."""
    if tuple(sites) == ("resid",) and window not in (None, 1):
        raise ValueError(f"window= is for the sites 'mlp' and 'attn'; a residual state is one state, got {window!r}.")
    width = default_window(n_layers) if window is None else window
    if not 1 <= width <= n_layers:
        raise ValueError(f"window must be from 1 to the model's {n_layers} layers, got {window!r}.")
    return {site: 1 if site == "resid" else width for site in sites}


def _facts(fact: Fact | FactSet | Sequence[Fact], options: SetupOptions, on_layer: OnLayer | None) -> list[Fact]:
    """The facts to trace; several allow fewer options."""
    facts = as_facts(fact)
    if not facts:
        raise ValueError("causal_trace needs at least one fact, got none.")
    if len(facts) > 1 and (options.partner is not None or options.positions is not None):
        raise ValueError("partner= and positions= are for one fact; leave them out for several.")
    if len(facts) > 1 and on_layer is not None:
        raise ValueError("on_layer= is for one fact: maps of several are means over roles. Leave it out for several.")
    return facts


def _trace_one(
    model: LoadedModel,
    runs: Runs,
    setup: Setup,
    widths: dict[TraceSite, int],
    finished: OnLayer,
    options: SetupOptions,
) -> dict[TraceSite, EffectMap]:
    """The maps of one fact, by site."""
    prompt, n_layers = setup.prompt, model.shape.n_layers
    clean = runs.record(setup, tuple(widths))
    samples, tokens = setup.corrupted.shape[:2]
    places: list[tuple[TraceSite, int, int]] = [
        (site, layer, at) for layer in range(n_layers) for site in widths for at in range(tokens)
    ]
    restorations = [Restoration(site, window_of(layer, widths[site], n_layers), at) for site, layer, at in places]
    values = {site: torch.zeros(samples, n_layers, len(prompt.token_ids)) for site in widths}
    missing = {(site, layer): samples * tokens for site in widths for layer in range(n_layers)}
    baseline, at_best = torch.zeros(samples), float(setup.measure(clean.logits))
    for part in runs.effects(setup, clean, restorations):
        baseline[part.samples] = part.baseline.float().cpu()
        for i, effect in zip(part.cells, part.effects.float().cpu(), strict=True):
            site, layer, at = places[i]
            values[site][part.samples, layer, at + setup.start] = effect
            missing[site, layer] -= len(effect)
            if not missing[site, layer]:
                finished(site, layer, (values[site][:, layer] / setup.divisor(at_best, float(baseline.mean()))).mean(0))
    return {
        site: _map(
            model,
            setup,
            site,
            values[site],
            at_best,
            float(baseline.mean()),
            {"site": site, "window": width, **options.settings, "positions": options.positions, **runs.settings},
        )
        for site, width in widths.items()
    }


def window_of(layer: int, width: int, n_layers: int) -> range:
    """The layers restored together for one layer's cell; an even width reaches one layer further down."""
    return range(max(0, layer - width // 2), min(n_layers, layer - (-width // 2)))


def _map(
    model: LoadedModel,
    setup: Setup,
    site: TraceSite,
    effects_by_sample: Tensor,
    clean: float,
    corrupted: float,
    settings: dict[str, Any],
) -> EffectMap:
    """A site's effects [samples, layers, positions] as a result."""
    effects_by_sample = effects_by_sample / setup.divisor(clean, corrupted)
    mean, error = mean_and_error(effects_by_sample)
    samples, n_layers = effects_by_sample.shape[:2]
    return EffectMap(
        values=mean,
        axes=("layer", "position"),
        labels={"layer": tuple(f"L{i}" for i in range(n_layers)), "position": setup.prompt.tokens},
        unit=site,
        metric=setup.metric,
        words=METRICS[setup.metric].words,
        method=settings["corruption"],
        clean=clean,
        corrupted=corrupted,
        stderr=error,
        n=samples,
        per_fact=effects_by_sample if samples > 1 else None,
        prompts=(setup.prompt,),
        corruption=settings["corruption"],
        normalised=setup.normalise,
        base_fingerprint=model.fingerprint,
        provenance=provenance(model, **settings),
    )


def _over_facts(maps: list[EffectMap]) -> EffectMap:
    """Mean over facts, with positions as roles; those that some facts lack are over the others."""
    roles = roles_of(m.prompts[0] for m in maps)
    values = torch.stack([by_role(m.values, m.prompts[0], roles) for m in maps])
    mean, error = mean_and_error(values)
    first = maps[0]
    return EffectMap(
        values=mean,
        axes=first.axes,
        labels={"layer": first.labels["layer"], "position": roles},
        unit=first.unit,
        metric=first.metric,
        words=first.words,
        method=first.method,
        clean=sum(m.clean for m in maps) / len(maps),
        corrupted=sum(m.corrupted or 0.0 for m in maps) / len(maps),
        stderr=error,
        n=len(maps),
        per_fact=values,
        prompts=tuple(m.prompts[0] for m in maps),
        corruption=first.corruption,
        normalised=first.normalised,
        base_fingerprint=first.base_fingerprint,
        provenance=first.provenance | {"facts": [m.prompts[0].fact_id for m in maps]},
    )
