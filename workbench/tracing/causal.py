"""Causal traces: restore one clean state in a corrupted run and see how much of the answer comes back.

Method: Meng et al. 2022 (arXiv 2202.05262), section 2; logit difference and swaps after Zhang and Nanda 2023
(arXiv 2309.16042). Deviations: every occurrence of the subject is corrupted, the model's own answer prefix included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from workbench.facts import load_facts
from workbench.models import LoadedModel
from workbench.provenance import provenance
from workbench.resume import Change, HookSite, Recording, Resumable
from workbench.tracing.corruption import Corruption, Metric, Setup, check_choices, set_up
from workbench.tracing.roles import ROLES, by_role, mean_and_error
from workbench.types import EffectMap, Fact, FactSet, Form

TraceSite = Literal["resid", "mlp", "attn"]
TOKENS_A_BATCH = 2048


def default_window(n_layers: int) -> int:
    """Layers restored together for MLP and attention sites: 10 of 48 in the paper, scaled with depth."""
    return max(1, round(n_layers * 10 / 48))


def causal_trace(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact],
    site: TraceSite = "resid",
    *,
    corruption: Corruption = "noise",
    metric: Metric = "probability",
    form: Form | None = None,
    token: Literal["answer", "target"] = "answer",
    partner: Fact | None = None,
    pool: FactSet | None = None,
    samples: int = 10,
    noise: float = 3.0,
    window: int | None = None,
    positions: Sequence[int] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> EffectMap:
    """Indirect effect of every (layer, position): the metric with one clean state restored, minus the corrupted one.

    Args:
        model: A base or edited model; it is not changed.
        fact: One fact, or several (then positions are roles such as "last subject token", and cells are means).
        site: ``"resid"`` the residual stream entering a layer (TransformerLens' ``resid_pre``; row 0 is the
            embeddings), ``"mlp"`` or ``"attn"`` what the layers of a window add to it.
        corruption: ``"noise"`` adds Gaussian noise to the subject's embeddings, ``"swap"`` puts another subject of as
            many tokens in its place.
        metric: ``"probability"`` of the traced token, or ``"logit_diff"``: minus the target's logit (noise) or the
            partner's answer's (swap).
        form: ``"chat"``, ``"cloze"`` or None for the first in which the base model says the answer.
        token: Trace the first token of the ``"answer"`` or of the ``"target"``.
        partner: The fact to swap in; by default a neighbour from the pool.
        pool: Where partners come from; the bundled facts by default.
        samples: Noise samples.
        noise: Standard deviation of the noise, in standard deviations of the token embeddings.
        window: Layers restored around the cell's (``mlp`` and ``attn``; default 10/48 of the depth).
        positions: Put the noise on these positions instead of the subject's: a control.
        seed: Of the noise.
        progress: Show a progress bar.

    Returns:
        ``values`` [layer, position] (or [layer, role]) in units of the metric, with the clean and corrupted baselines,
        the standard error over samples (or facts), and the traced texts.

    Raises:
        ValueError: The base model does not say the answer, no swap partner fits, or an option is out of range.

    Source: Meng et al. 2022, section 2.1; default noise 3 sigma and 10 samples as there.
    """
    if site not in get_args(TraceSite):
        raise ValueError(f"site must be one of {get_args(TraceSite)}, got {site!r}.")
    check_choices(corruption, metric)
    n_layers = model.shape.n_layers
    if site == "resid" and window not in (None, 1):
        raise ValueError(f"window= is for the sites 'mlp' and 'attn'; a residual state is one state, got {window!r}.")
    width = 1 if site == "resid" else default_window(n_layers) if window is None else window
    if not 1 <= width <= n_layers:
        raise ValueError(f"window must be from 1 to the model's {n_layers} layers, got {window!r}.")
    facts = [fact] if isinstance(fact, Fact) else list(fact)
    if not facts:
        raise ValueError("causal_trace needs at least one fact, got none.")
    if len(facts) > 1 and (partner is not None or positions is not None):
        raise ValueError("partner= and positions= are for one fact; leave them out for several.")

    from tqdm.auto import tqdm

    engine = Resumable(model)
    options: dict[str, Any] = {
        "corruption": corruption,
        "metric": metric,
        "form": form,
        "token": token,
        "samples": samples,
        "noise": noise,
        "positions": positions,
        "seed": seed,
    }
    pool = load_facts() if pool is None else pool
    maps: list[EffectMap] = []
    with torch.no_grad(), tqdm(total=n_layers * len(facts), desc=f"Tracing {site}", disable=not progress) as bar:
        for one in facts:
            setup = set_up(model, engine, one, partner=partner, pool=pool, **options)
            maps.append(_trace_one(model, engine, setup, site, width, bar, {"site": site, "window": width, **options}))
    return maps[0] if len(maps) == 1 else _over_facts(maps)


def _trace_one(
    model: LoadedModel, engine: Resumable, setup: Setup, site: TraceSite, width: int, bar: Any, settings: dict[str, Any]
) -> EffectMap:
    prompt, n_layers = setup.prompt, engine.n_layers
    keep: tuple[HookSite, ...] = tuple(dict.fromkeys(("resid", site)))  # type: ignore[arg-type]
    clean = engine.record(setup.clean, keep, prefix=setup.prefix)
    corrupted = engine.record(setup.corrupted, keep, prefix=setup.prefix)
    clean_metric, baseline = setup.measure(clean.logits), setup.measure(corrupted.logits)
    samples, tokens = setup.corrupted.shape[:2]
    effects = torch.zeros(samples, n_layers, len(prompt.token_ids))
    for layer in range(n_layers):
        layers = range(max(0, layer - width // 2), min(n_layers, layer - (-width // 2)))
        for at, row in _batches(tokens, samples):
            restored = _restore(engine, setup, clean, corrupted, site, layers, at, row)
            difference = setup.measure(restored) - baseline[row]
            effects[row.cpu(), layer, at.cpu() + setup.start] = difference.float().cpu()
        bar.update()
    mean, error = mean_and_error(effects)
    return EffectMap(
        values=mean,
        axes=("layer", "position"),
        labels={"layer": tuple(f"L{i}" for i in range(n_layers)), "position": prompt.tokens},
        unit=site,
        metric=setup.metric,
        method=settings["corruption"],
        clean=float(clean_metric),
        corrupted=float(baseline.mean()),
        stderr=error,
        n=samples,
        per_fact=effects if samples > 1 else None,
        prompts=(prompt,),
        provenance=provenance(model, **settings),
    )


def _batches(tokens: int, samples: int) -> list[tuple[Tensor, Tensor]]:
    """Pairs of (position, sample) indices in batches of at most ``TOKENS_A_BATCH`` tokens."""
    at, row = torch.meshgrid(torch.arange(tokens), torch.arange(samples), indexing="ij")
    size = max(1, TOKENS_A_BATCH // tokens)
    return list(zip(at.flatten().split(size), row.flatten().split(size), strict=True))


def _restore(
    engine: Resumable,
    setup: Setup,
    clean: Recording,
    corrupted: Recording,
    site: TraceSite,
    layers: range,
    at: Tensor,
    row: Tensor,
) -> Tensor:
    """Last-position logits [rows, d_vocab] of corrupted runs ``row``, each with the clean state at position ``at``."""
    rows = torch.arange(len(at))

    def restoring(layer: int) -> Change:
        source = clean.states[site, layer][0, at]

        def restore(value: Tensor) -> Tensor:
            value = value.clone()
            value[rows, at] = source
            return value

        return restore

    start = corrupted.states["resid", layers.start][row]
    if site == "resid":
        return engine.run(restoring(layers.start)(start), start=layers.start, prefix=setup.prefix)
    changes = {(site, layer): restoring(layer) for layer in layers}
    return engine.run(start, start=layers.start, prefix=setup.prefix, changes=changes)  # type: ignore[arg-type]


def _over_facts(maps: list[EffectMap]) -> EffectMap:
    """Mean over facts, with positions as roles."""
    values = torch.stack([by_role(m.values, m.prompts[0]) for m in maps])
    mean, error = mean_and_error(values)
    first = maps[0]
    return EffectMap(
        values=mean,
        axes=first.axes,
        labels={"layer": first.labels["layer"], "position": ROLES},
        unit=first.unit,
        metric=first.metric,
        method=first.method,
        clean=sum(m.clean for m in maps) / len(maps),
        corrupted=sum(m.corrupted or 0.0 for m in maps) / len(maps),
        stderr=error,
        n=len(maps),
        per_fact=values,
        prompts=tuple(m.prompts[0] for m in maps),
        provenance=first.provenance | {"facts": [m.prompts[0].fact_id for m in maps]},
    )
