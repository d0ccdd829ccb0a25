"""The self-check of a model: the workbench's numbers beside those of plain forward passes, on a short random text.

Each check is made once for a model, when the first function that rests on it is called (``require``), or all of them
for ``model.support``; what it found lies in ``model.cache`` and is made again when a weight or the attention changes. A
check takes a few forward passes over seven tokens. Tested families are checked as well, by the same checks: a
configuration can have what no test has. What fails raises a ``ValueError`` where it is used, with both numbers.

The text is of random token ids, so that no fact and no template is needed: what is compared must agree on any text.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from workbench.facts.known import pool_or_bundled
from workbench.models.deltas import Mounted, fold
from workbench.models.engine import HookSite, Resumable, pooled_engine
from workbench.models.layerwise import Layerwise
from workbench.models.load import LoadedModel
from workbench.models.views import shared_view
from workbench.tracing.corruption import noised
from workbench.tracing.dla import allowed_miss, taken_apart
from workbench.tracing.plain_passes import At, Change, PlainPasses
from workbench.tracing.restoration import Restoration
from workbench.tracing.restore import effects
from workbench.tracing.setup import SetupOptions
from workbench.types import GateDelta, Site, TracedPrompt
from workbench.types.support import CheckName, Support, SupportCheck
from workbench.types.torch_settings import own_torch_settings

TOKENS, SUBJECT = 7, (2, 3)
"""The length of the text, and the positions of what stands for its subject."""
NOISE_SHARE = 0.05
"""How far noise may be from what is asked."""
DRAWS = 20_000
"""Entries of noise that are drawn at least, so that their deviation is right to half a percent."""
_SITES: tuple[HookSite, ...] = ("resid", "attn", "mlp")
_Cell = tuple[HookSite, int | None, int]
"""A site, a head or None for the whole state, and a position."""
_HEAD_SITES: tuple[HookSite, ...] = ("z", "q", "k", "v")
_BROKEN = (ValueError, RuntimeError, TypeError, AttributeError, LookupError, NotImplementedError)
"""What a model raises that is not built as it is taken to be."""


class SelfCheckError(ValueError):
    """A function would give wrong numbers for a model: the self-check found it."""


def self_check(model: LoadedModel) -> Support:
    """Make all checks of a model that have not been made yet.

    Args:
        model: A base or edited model; the base is checked.

    Returns:
        What each found. Nothing is raised for what fails: that is for the functions that rest on it.
    """
    base = model.base
    return Support(
        model=base.name,
        family=base.architecture.family.name,
        tested=not base.architecture.untested,
        checks=tuple(_check(base, name) for name in _CHECKS),
    )


def require(model: LoadedModel, *names: CheckName) -> None:
    """Raise a SelfCheckError, which is a ValueError, unless some checks of a model pass; each is made once.

    Args:
        model: A base or edited model; the base is checked.
        names: What the caller rests on.
    """
    base = model.base
    for name in names:
        check = _check(base, name)
        if not check.passed:
            kind = "untested" if base.architecture.untested else "tested"
            raise SelfCheckError(
                f"{base.name!r} ({type(base.hf).__name__}, {kind}) is not computed as the workbench takes it to be: "
                f"{check.words}. So {check.used_by} would give wrong numbers for it. model.support says what else was "
                "checked."
            )


def _check(base: LoadedModel, name: CheckName) -> SupportCheck:
    return base.cache.checks.get_or_compute(name, lambda: _made(base, name))


def _made(base: LoadedModel, name: CheckName) -> SupportCheck:
    what, used_by, measure = _CHECKS[name]
    try:
        with own_torch_settings():
            found, expected, allowed = measure(base)
    except _BROKEN as error:
        nothing = float("nan")
        return SupportCheck(
            name=name,
            what=what,
            used_by=used_by,
            found=nothing,
            expected=nothing,
            allowed=0.0,
            problem=f"{type(error).__name__}: {error}",
        )
    return SupportCheck(name=name, what=what, used_by=used_by, found=found, expected=expected, allowed=allowed)


Numbers = tuple[float, float, float]
"""What was found, what was expected, and how far apart they may be."""


def _text(base: LoadedModel) -> TracedPrompt:
    """Random tokens without the special ones."""
    special = set(getattr(base.tokenizer, "all_special_ids", ()))
    order = torch.randperm(base.shape.d_vocab, generator=torch.Generator().manual_seed(0), device="cpu").tolist()
    answer, other, *ids = [token for token in order if token not in special][: TOKENS + 2]
    return TracedPrompt(
        fact_id="self-check",
        form="cloze",
        text="random tokens",
        prefix="",
        token_ids=tuple(ids),
        tokens=tuple(str(token) for token in ids),
        subject=SUBJECT,
        answer_id=answer,
        answer_token=str(answer),
        other_id=other,
        other_token=str(other),
    )


def _ids(base: LoadedModel) -> Tensor:
    return torch.tensor([_text(base).token_ids], device=base.device)


def _plain_logits(base: LoadedModel) -> Tensor:
    """Of the text, [1, d_vocab]."""
    with pooled_engine(PlainPasses, base) as plain:
        return plain.own_logits(base, _ids(base))


def _worst(base: LoadedModel, found: Tensor, expected: Tensor) -> Numbers:
    """The two numbers where vectors are furthest apart; rounding may be a share of the expected one and of their
    spread."""
    found, expected = found.float().flatten(), expected.float().flatten()
    at = int((found - expected).abs().argmax())
    spread = float(expected.std()) if len(expected) > 1 else abs(float(expected))
    return float(found[at]), float(expected[at]), _allowed(base) * (spread + abs(float(expected[at]))) + 1e-6


def _allowed(base: LoadedModel) -> float:
    """The share of what is compared that may be rounding: in half precision much."""
    return 2 * allowed_miss(base.dtype)


def _noise_options(base: LoadedModel, samples: int) -> SetupOptions:
    return SetupOptions(
        corruption="noise",
        metric="logit_diff",
        form="cloze",
        token="answer",
        samples=samples,
        noise=3.0,
        seed=0,
        partner=None,
        pool=pool_or_bundled(None),
    )


def _noise(base: LoadedModel) -> Numbers:
    """The deviation of the noise in deviations of what enters layer 0 in a plain pass."""
    prompt, ids = _text(base), _ids(base)
    samples = 1 + DRAWS // (len(SUBJECT) * base.shape.d_model)
    with torch.no_grad(), pooled_engine(Resumable, base) as engine:
        setup = noised(base, engine, prompt, _noise_options(base, samples))
    with pooled_engine(PlainPasses, base) as plain:
        states, _ = plain.states(ids, {"in": plain.place("resid", 0)}, {})
    entered = states["in"][0, list(SUBJECT)].float()
    # Added and taken away again in the states' own precision.
    added = setup.corrupted[:, : len(SUBJECT)].float() - entered
    asked = 3.0
    return float(added.std() / entered.std()), asked, NOISE_SHARE * asked


def _direct(base: LoadedModel) -> Numbers:
    prompt = _text(base)
    found = taken_apart(base, prompt)
    expected = found.total
    if not found.capped:
        logits = _plain_logits(base)[0]
        expected = float(logits[prompt.answer_id] - logits[prompt.other_id or 0])
    return found.sum, expected, allowed_miss(base.dtype) * found.size + 1e-6


def _trace(base: LoadedModel) -> Numbers:
    """Cells of each site by the fast path, and by a plain pass: in the middle layer, at the subject and at the end."""
    return _cells(base, [(site, None) for site in _SITES])


def _heads(base: LoadedModel) -> Numbers:
    """The same of the last head or group."""
    last = {"z": base.shape.n_heads - 1, "q": base.shape.n_heads - 1}
    return _cells(base, [(site, last.get(site, base.shape.n_kv_heads - 1)) for site in _HEAD_SITES])


def _cells(base: LoadedModel, states: list[tuple[HookSite, int | None]]) -> Numbers:
    """Cells of some sites, of a head each or of whole states: where they are furthest apart, or where all agree the
    largest."""
    layer = base.shape.n_layers // 2
    places: list[_Cell] = [(site, head, at) for site, head in states for at in (SUBJECT[-1], TOKENS - 1)]
    direction = torch.randn(base.shape.d_vocab, generator=torch.Generator().manual_seed(1), device="cpu")
    direction = ((direction - direction.mean()) / direction.norm()).to(base.device)

    def measure(logits: Tensor) -> Tensor:
        return logits.float() @ direction

    with torch.no_grad(), pooled_engine(Layerwise, base) as engine:
        setup = noised(base, engine, _text(base), _noise_options(base, 1))
        clean, prefix = engine.record_from(setup.start, setup.clean, tuple(site for site, _ in states))
        cells = [Restoration(site, range(layer, layer + 1), at - setup.start, head) for site, head, at in places]
        fast = torch.zeros(len(cells))
        for part in effects(engine, clean, setup.corrupted, prefix, cells, measure):
            fast[part.cells] = part.effects[:, 0].float().cpu()
    corrupted = torch.cat([setup.clean[:, : setup.start], setup.corrupted], 1)
    slow, spread = _slow_cells(base, places, layer, torch.cat([setup.clean, corrupted]), measure)
    apart = (fast - slow).abs()
    # An effect is a small difference of logits, and rounding is a share of both.
    rounding = max(1e-4, 16 * torch.finfo(base.dtype).eps)
    allowed = _allowed(base) * float(slow.abs().max()) + rounding * spread + 1e-6
    # Where all agree, which cell rounding has moved most says nothing: the largest effect is shown.
    shown = int((apart if float(apart.nan_to_num(nan=torch.inf).max()) > allowed else slow.abs()).argmax())
    return float(fast[shown]), float(slow[shown]), allowed


def _slow_cells(
    base: LoadedModel,
    cells: list[_Cell],
    layer: int,
    entering: Tensor,
    measure: Callable[[Tensor], Tensor],
) -> tuple[Tensor, float]:
    """What restoring sites of a layer (or a head of theirs) at positions changes, from the clean and the corrupted
    states that enter layer 0 [2, tokens, d_model], and the spread of the logits. A row of the pass is a cell."""
    ids = _ids(base)
    with pooled_engine(PlainPasses, base) as plain:
        start: At = plain.place("resid", 0)
        places: dict[HookSite, At] = {site: _place(base, plain, site, layer) for site, _, _ in cells}
        at_places = {place: place for place in places.values()}  # of fused projections one for several sites
        states, logits = plain.states(ids.repeat(2, 1), at_places, {start: lambda _: entering})
        changes: dict[At, Change] = {start: lambda _: entering[1:].repeat(len(cells), 1, 1)}
        for row, (site, head, at) in enumerate(cells):
            place, part = places[site], slice(None) if head is None else _entries(base, site, head)
            changes[place] = _restoring(row, at, states[place][0, at], part, changes.get(place))
        restored = plain.logits(ids.repeat(len(cells), 1), changes)
    return (measure(restored) - measure(logits[1:])).cpu(), float(logits[0].std())


def _place(base: LoadedModel, plain: PlainPasses, site: HookSite, layer: int) -> At:
    if site in ("resid", "attn", "mlp"):
        return plain.place(site, layer)
    module = base.architecture.gate_module(layer, site)
    return module.module, module.on_input


def _entries(base: LoadedModel, site: HookSite, head: int) -> Tensor:
    """Where a head's entries are in the states of its module."""
    assert site not in ("resid", "attn", "mlp")
    width = base.shape.d_head
    return base.architecture.gate_module(0, site).places(range(head * width, (head + 1) * width))


def _restoring(row: int, at: int, clean: Tensor, part: slice | Tensor, before: Change | None) -> Change:
    def change(value: Tensor) -> Tensor:
        value = (value if before is None else before(value)).clone()
        value[row, at, part] = clean[part]
        return value

    return change


def _resume(base: LoadedModel) -> Numbers:
    """The logits of a pass that begins at a layer, and of one that begins after a prefix."""
    ids, layer, first = _ids(base), base.shape.n_layers // 2, SUBJECT[0]
    with torch.no_grad(), pooled_engine(Resumable, base) as engine:
        resid = engine.embed(ids)
        _, prefix = engine.record_from(first, resid, ())
        found = torch.cat(
            [engine.run(engine.entering(ids, layer), start=layer), engine.run(resid[:, first:], prefix=prefix)]
        )
    return _worst(base, found, _plain_logits(base).repeat(2, 1))


def _lens(base: LoadedModel) -> Numbers:
    """The lens after the last layer, and the model's own logits."""
    ids = _ids(base)
    with torch.no_grad(), pooled_engine(Resumable, base) as engine:
        found = engine.unembed(engine.stream(ids)[:, -1])
    return _worst(base, found, _plain_logits(base))


def _gate(base: LoadedModel) -> Numbers:
    """Gates on heads and neurons: as adapters and merged into the weights, and as a product in a plain pass."""
    layer, ids = base.shape.n_layers // 2, _ids(base)
    gates: dict[tuple[int, Site], Tensor] = {}
    sites: tuple[Site, ...] = ("z",) if base.shape.no_neurons else ("z", "post")
    for seed, site in enumerate(sites):
        noise = torch.randn(
            base.shape.site_size(site), generator=torch.Generator().manual_seed(seed), device="cpu", dtype=torch.float32
        )
        gates[layer, site] = 1 + 0.5 * noise
    delta = GateDelta(gates)
    adapted, merged = shared_view(base.hf), shared_view(base.hf)
    Mounted(adapted, base.architecture, delta)
    fold(merged, base.architecture, delta)
    found = torch.cat([PlainPasses(base, view).logits(ids) for view in (adapted, merged)])
    places: dict[At, Change] = {
        (base.architecture.gate_module(at, site).module, True): _multiplied(gate.to(base.device))
        for (at, site), gate in gates.items()
    }
    with pooled_engine(PlainPasses, base) as plain:
        return _worst(base, found, plain.logits(ids, places).repeat(2, 1))


def _multiplied(gate: Tensor) -> Change:
    return lambda value: (value * gate).to(value.dtype)


def _groups(base: LoadedModel) -> Numbers:
    """The last key-value group without its values: the heads that read it put out nothing, and the others what they did
    before."""
    layer, ids, shape = base.shape.n_layers // 2, _ids(base), base.shape
    gate = torch.ones(shape.site_size("v"), device="cpu", dtype=torch.float32)
    gate[-shape.d_head :] = 0
    adapted = shared_view(base.hf)
    Mounted(adapted, base.architecture, GateDelta({(layer, "v"): gate}))
    at: At = (base.architecture.gate_module(layer, "z").module, True)
    found, _ = PlainPasses(base, adapted).states(ids, {"z": at}, {})
    with pooled_engine(PlainPasses, base) as plain:
        states, _ = plain.states(ids, {"z": at}, {})
    expected = states["z"].clone()
    expected[..., -shape.n_heads // shape.n_kv_heads * shape.d_head :] = 0
    return _worst(base, found["z"], expected)


_CHECKS: dict[CheckName, tuple[str, str, Callable[[LoadedModel], Numbers]]] = {
    "noise": ("the noise, in deviations of the states that it is added to,", "corruption='noise'", _noise),
    "direct": ("the sum of all direct effects", "attribute(method='dla') and writes", _direct),
    "trace": ("a patched cell of the fast trace", "causal_trace and attribute(method='patching')", _trace),
    "heads": ("a patched head of the fast trace", "causal_trace of z, q, k and v", _heads),
    "resume": (
        "a pass that is resumed at a layer or after a prefix",
        "attribute, ablate, patchscope and rewrite",
        _resume,
    ),
    "lens": ("the last row of the lens", "lens and lens_grid", _lens),
    "gate": ("a gate, as an adapter and merged,", "rewrite and applied", _gate),
    "groups": ("a gate on one key-value group's values", "edits of key-value groups", _groups),
}
"""By name: what is measured, what rests on it, and how."""
