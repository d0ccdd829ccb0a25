"""Causal traces: restore one clean state in a corrupted run and see how much of the answer comes back.

Method: Meng et al. 2022 (arXiv 2202.05262), section 2; logit difference and swaps after Zhang and Nanda 2023
(arXiv 2309.16042). Deviations: every occurrence of the subject is corrupted, the model's own answer prefix included;
the noise is scaled by the states of this text's own subject, the paper's by the embeddings of many subjects.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from workbench.tracing.cell_effects import WINDOWED, Cells, OnLayer, TraceSite, cell_effects, sum_of_steps
from workbench.tracing.corruption import one_form, set_up
from workbench.tracing.mean_maps import mean_map
from workbench.tracing.metric import Metric
from workbench.tracing.restoration import SEVERED, Severed
from workbench.tracing.runs import FastRuns, Runs
from workbench.tracing.self_check import require
from workbench.tracing.setup import Setup, SetupOptions, SharedKeywords
from workbench.tracing.where import Where
from workbench.types import Contrast, EffectMap, Fact, FactSet, Form
from workbench.types.cell_intervals import mean_and_error
from workbench.types.contrast import Traced, as_traced
from workbench.types.effect import Corruption
from workbench.types.plain import check_count, is_whole
from workbench.types.torch_settings import own_torch_settings
from workbench.types.units import UNITS, labelled


class TraceKeywords(SharedKeywords, total=False):
    """All keywords of ``causal_trace``, for its overloads."""

    window: int | None
    layers: Sequence[int] | None
    positions: Sequence[int | str] | None
    noise_positions: Sequence[int] | None
    severed: Severed | None
    on_layer: OnLayer | None
    engine: TraceEngine
    fwd_hooks: Sequence[FwdHook]


def default_window(n_layers: int) -> int:
    """Layers restored together for MLP and attention sites: 10 of 48 in the paper, scaled with depth."""
    return max(1, round(n_layers * 10 / 48))


@overload
def causal_trace(
    model: LoadedModel,
    fact: Traced,
    site: TraceSite = "resid",
    **options: Unpack[TraceKeywords],
) -> EffectMap: ...


@overload
def causal_trace(
    model: LoadedModel,
    fact: Traced,
    site: Sequence[TraceSite],
    **options: Unpack[TraceKeywords],
) -> dict[TraceSite, EffectMap]: ...


@own_torch_settings()
def causal_trace(
    model: LoadedModel,
    fact: Traced,
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
    layers: Sequence[int] | None = None,
    positions: Sequence[int | str] | None = None,
    noise_positions: Sequence[int] | None = None,
    severed: Severed | None = None,
    seed: int = 0,
    max_rows: int | None = None,
    on_layer: OnLayer | None = None,
    engine: TraceEngine = "auto",
    fwd_hooks: Sequence[FwdHook] = (),
    progress: bool = True,
) -> EffectMap | dict[TraceSite, EffectMap]:
    """Measure the indirect effect of every (layer, position), or (layer, head, position): the metric with one clean
    state restored, minus the corrupted one.

    Args:
        model: A base or edited model; it is not changed.
        fact: One fact or contrast, or several. Then cells are means over them, and positions are roles: of facts "last
            subject token" is that of the prompt, and "last subject token of the reply" that in the model's own words
            before the answer; of contrasts the names of their positions, and where others stand to what changes. A
            contrast brings its corruption, noise, answers and form.
        site: ``"resid"`` the residual stream entering a layer (TransformerLens' ``resid_pre``; row 0 is the
            embeddings), ``"mlp"`` or ``"attn"`` what the layers of a window add to it; of each query head ``"z"``, what
            it puts out (before an edited model's gates), or ``"q"``, its queries; of each key-value group ``"k"`` or
            ``"v"``, its keys or values (all three before norms and positions). Several sites share one sweep.
        corruption: ``"noise"`` adds Gaussian noise to the subject's embeddings, ``"swap"`` puts another subject of as
            many tokens in its place.
        metric: ``"probability"`` of the traced token, or ``"logit_diff"``: its logit minus the target's (noise) or the
            partner's answer's (swap; of a contrast the wrong answer's). ``"log_prob"``; ``"rank"``, how many tokens are
            likelier; ``"kl"``, the divergence of the next-token distribution from the clean run's, in nats. Of the last
            two, less is closer to the clean run. Or a function from the last position's logits [batch, d_vocab], in
            float32, to [batch], each row by itself. Of answers of more than one token ``"log_prob"`` is that of the
            whole answer and ``"logit_diff"`` a difference of two such; effects are sums over the tokens.
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
            (Gemma, Granite, BLOOM) count, and so do learned positions (GPT-2, OPT). With ``noise_positions`` it is as
            large.
        window: Layers restored around the cell's (``mlp`` and ``attn``; default 10/48 of the depth).
        layers: Restore in these layers only (the middle ones of a window); other cells are NaN.
        positions: Restore at these positions only: indices (negative from the end), or names of roles, which alone are
            for several texts.
        noise_positions: Put a fact's noise on these positions instead of the subject's: a control.
        severed: ``"mlp"`` or ``"attn"``: what the restored token's MLPs, or attention layers, put out from the restored
            layer on is that of the corrupted run, so that the effect is that of the paths without them. A module that
            the restored state lies in is not severed.
        seed: Of the noise.
        max_rows: Most tokens computed at once, which bounds memory; by default what is fast and fits into a quarter of
            the free memory. The values do not depend on it beyond rounding.
        on_layer: Called with ``(site, layer, values)`` as soon as a layer is finished, ``values`` by position (of heads
            [head, position]) on the CPU, from the lowest layer up; of one fact only, for several are averaged at the
            end. Samples that do not fit into ``max_rows`` together are taken in groups, and layers are finished with
            the last one.
        engine: ``"auto"`` computes only what a cell can change; ``"transformerlens"`` runs TransformerLens' hooks, one
            forward pass a cell: the readable reference, equal within rounding.
        fwd_hooks: Hooks of your own, as TransformerLens has them, ``[("blocks.9.attn.hook_z", fn), ...]`` with
            ``fn(value, hook)``; they are part of every run, clean and corrupted, which then go through TransformerLens
            (with ``"auto"`` a warning says so).
        progress: Show a progress bar.

    Returns:
        ``values`` [layer, position] (or [layer, role]; of heads [layer, head, position], which ``EffectMap.read_at``
        reads at one token) in units of the metric (or recovery), with the clean and corrupted baselines, the standard
        error over samples (or facts), and the traced texts. For several sites a map each, by site.

    Raises:
        ValueError: The base model does not say the answer (of several facts: in no one form), no swap partner fits
            (``NoSwapPartner``), a contrast does not fit the model (``prepare``), a layer or position is none, a metric
            function returns another shape or a number that is not finite, an option is out of range, with
            ``normalise`` clean and corrupted hardly differ (without, contrasts warn), or the model's self-check
            (``model.support``) found that its traces or its noise would be wrong (the messages have both numbers).

    Source: Meng et al. 2022, section 2.1; default noise 3 sigma and 10 samples as there; severed traces after section
    2.2 (the published ``trace_with_repatch``). Deviation: sigma is that of this text's subject where the noise is
    added, not of the embeddings of many subjects.

    Example:
        >>> trace = wb.causal_trace(model, fact, form="cloze", samples=3)
        >>> trace.axes, trace.labels["position"]
        (('layer', 'position'), ('The', ' capital', ' of', ' France', ' is'))
        >>> trace.top(1, role="last subject token")  # the state that enters layer 0: what reads it first
        Selection('L0ATTN L0MLP')
        >>> both = wb.causal_trace(model, fact, ("mlp", "attn"), corruption="swap", pool=facts)
        >>> {site: tuple(effects.values.shape) for site, effects in both.items()}
        {'mlp': (3, 18), 'attn': (3, 18)}
        >>> queries = wb.causal_trace(model, fact, "q", form="cloze", samples=3)
        >>> queries.axes, queries.read_at(role="last token").top(1)
        (('layer', 'head', 'position'), Selection('L2Q3'))
        >>> without_mlps = wb.causal_trace(model, fact, form="cloze", samples=3, severed="mlp")
        >>> without_mlps.title
        'residual stream (noise, MLPs severed)'
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
        noise_positions=noise_positions,
    )
    widths = _widths(sites, window, model.shape.n_layers)
    if severed not in (None, *SEVERED):
        raise ValueError(f"severed must be one of {SEVERED}, or None for a whole run, got {severed!r}.")
    if max_rows is not None:
        check_count("max_rows", max_rows)
    traced = _traced(fact, options, on_layer)
    options = options.of(traced)
    cells = Cells(widths, Where.of(layers, positions, model.shape.n_layers, len(traced)), model.shape, severed)
    heads = ("heads", "groups") if any(UNITS[at].axis for at in sites) else ()
    require(model, "trace", *heads, *(("noise",) if options.corruption == "noise" else ()))

    from tqdm.auto import tqdm

    maps: list[dict[TraceSite, EffectMap]] = []
    total = len(cells.where.layers) * len(sites) * len(traced)
    bar = tqdm(total=total, desc=f"Tracing {', '.join(sites)}", disable=not progress)

    def finished(at: TraceSite, layer: int, values: Tensor) -> None:
        bar.update()
        if on_layer is not None:
            on_layer(at, layer, values)

    bridged = bridge_runs(model, engine, fwd_hooks)
    with torch.no_grad(), bar, pooled_engine(Layerwise, model) as fast:
        options = replace(options, form=one_form(model, traced, options.form, options.token))
        runs = FastRuns(fast, max_rows) if bridged is None else bridged
        for one in traced:
            setup = set_up(model, fast, one, options, sequences=True)
            maps.append(_trace_one(model, runs, setup, cells, finished, options))
    by_site: dict[TraceSite, EffectMap] = {
        at: maps[0][at] if len(maps) == 1 else mean_map([m[at] for m in maps]) for at in sites
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
    if not set(sites) & set(WINDOWED) and window not in (None, 1):
        raise ValueError(f"window= is for the sites {WINDOWED}; the others restore one state, got {window!r}.")
    width = default_window(n_layers) if window is None else window
    if not is_whole(width) or not 1 <= width <= n_layers:
        raise ValueError(f"window must be from 1 to the model's {n_layers} layers, got {window!r}.")
    return {site: width if site in WINDOWED else 1 for site in sites}


def _traced(fact: Traced, options: SetupOptions, on_layer: OnLayer | None) -> list[Fact] | list[Contrast]:
    """The facts or contrasts to trace; several allow fewer options."""
    traced = as_traced(fact, "causal_trace")
    if len(traced) > 1 and (options.partner is not None or options.noise_positions is not None):
        raise ValueError("partner= and noise_positions= are for one fact; leave them out for several.")
    if len(traced) > 1 and on_layer is not None:
        raise ValueError("on_layer= is for one fact: maps of several are means over roles. Leave it out for several.")
    return traced


def _trace_one(
    model: LoadedModel,
    runs: Runs,
    setup: Setup,
    cells: Cells,
    finished: OnLayer,
    options: SetupOptions,
) -> dict[TraceSite, EffectMap]:
    """The maps of one fact, by site."""
    where, chosen = cells.where, cells.where.positions_in(setup.prompt)
    if setup.steps:
        values, at_best, worst = sum_of_steps(runs, setup, cells, chosen)
    else:
        values, at_best, worst = cell_effects(runs, setup, cells, chosen, finished)
    setup.warn_if_alike(at_best, worst)
    for of_site in values.values():
        where.leave_out(of_site, chosen)
    if setup.steps:
        divisor = setup.divisor(at_best, worst)
        for layer in where.layers:
            for site, of_site in values.items():
                finished(site, layer, (of_site[:, layer] / divisor).mean(0))
    settings = {**options.settings, **where.settings, "noise_positions": options.noise_positions, **runs.settings}
    if cells.severed is not None:
        settings["severed"] = cells.severed
    return {
        site: _map(model, setup, site, values[site], at_best, worst, {"site": site, "window": width, **settings})
        for site, width in cells.widths.items()
    }


def _map(
    model: LoadedModel,
    setup: Setup,
    site: TraceSite,
    effects_by_sample: Tensor,
    clean: float,
    corrupted: float,
    settings: dict[str, Any],
) -> EffectMap:
    """A site's effects [samples, layers, ..., positions] as a result."""
    effects_by_sample = effects_by_sample / setup.divisor(clean, corrupted)
    mean, error = mean_and_error(effects_by_sample)
    samples, severed = len(effects_by_sample), settings.get("severed")
    axes, labels = labelled(site, mean.shape)
    return EffectMap(
        values=mean,
        axes=(*axes, "position"),
        labels={**labels, "position": setup.prompt.tokens},
        unit=site,
        metric=setup.rule.words.name,
        words=setup.words,
        method=settings["corruption"] + (f", {SEVERED[severed]} severed" if severed else ""),
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
