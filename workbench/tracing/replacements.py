"""What takes the place of ablated outputs: zeros, means over reference texts, or what a swapped subject's run has.

An output is replaced where the component's own work ends: a head's at the input of the attention output projection, a
neuron's at the input of the MLP's, a whole MLP's and a whole attention layer's where they are added to the residual
stream, keys and values at the outputs of their projections, before positions are rotated in. In an edited model heads
and neurons are replaced before their gates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from workbench.language.prompts import prompt_ids
from workbench.models.engine import Change, HookSite, Resumable
from workbench.models.load import LoadedModel
from workbench.tracing.bridge_runs import BridgeRuns
from workbench.tracing.setup import Setup
from workbench.types import Component, Fact, FactSet, Form, Selection
from workbench.types.traced_prompt import FIRST_STATES

Place = tuple[HookSite, int]
Entries = Mapping[Place, tuple[int, ...] | None]
"""By site and layer, which entries are replaced; None for all of them."""
Filling = Callable[[tuple[int, ...]], Mapping[Place, Tensor]]
"""From the tokens that were added to the text to the states that stand in, each [..., width] as its site has them."""
_WHOLE: dict[str, HookSite] = {"MLP": "mlp", "ATTN": "attn"}
_PARTS = ("H", "N", "Q", "K", "V", "KV")


def entries_of(model: LoadedModel, selection: Selection) -> dict[Place, tuple[int, ...] | None]:
    """Where the outputs of some components are.

    Raises:
        ValueError: The model has no such component, or it has no output of its own (gate and up).
    """
    found: dict[Place, set[int] | None] = {}
    for component in selection:
        component.check(model.shape)
        if component.kind in _WHOLE:
            found[_WHOLE[component.kind], component.layer] = None
        elif component.kind in _PARTS:
            for place, entries in _parts(model, component):
                kept = found.setdefault(place, set())
                assert kept is not None  # whole outputs have sites of their own
                kept.update(entries)
        else:
            raise ValueError(
                f"{component} cannot be ablated: choose heads (L23H4), MLPs (L13MLP), neurons (L13N207), attention "
                "layers (L9ATTN), queries (L9Q4) or key-value groups (L9KV1, L9K1, L9V1)."
            )
    return {place: None if entries is None else tuple(sorted(entries)) for place, entries in found.items()}


def _parts(model: LoadedModel, component: Component) -> Iterable[tuple[Place, list[int]]]:
    """The entries of a component at each of its sites, counted in the whole of a fused projection."""
    for site, span in component.slices(model.shape).items():
        place = model.architecture.gate_module(component.layer, site)
        yield (site, component.layer), place.places(span).tolist()


def replacing(entries: Entries, states: Mapping[Place, Tensor]) -> dict[tuple[HookSite, int], Change]:
    """Changes of a forward pass that put other states into some entries at every position."""
    return {place: _putting(states[place], indices) for place, indices in entries.items()}


def _putting(state: Tensor, indices: tuple[int, ...] | None) -> Change:
    def put(value: Tensor) -> Tensor:
        new = state.to(value).expand_as(value)
        if indices is None:
            return new.clone()
        value = value.clone()
        value[..., indices] = new[..., indices]
        return value

    return put


def zeros(places: Iterable[Place]) -> Filling:
    """Zero everywhere."""
    states = {place: torch.zeros(()) for place in places}
    return lambda _: states


class Pass(Protocol):
    """One forward pass of texts [rows, tokens], which gives the last position's logits [rows, d_vocab]."""

    def __call__(
        self,
        ids: Tensor,
        *,
        changes: Mapping[Place, Change] | None = None,
        keep: Sequence[Place] = (),
        kept: dict[Place, Tensor] | None = None,
    ) -> Tensor:
        """With these changes; states of the places of ``keep`` are written to ``kept``."""
        ...


def fast_pass(engine: Resumable) -> Pass:
    """Passes of the model's own modules."""

    def run(
        ids: Tensor,
        *,
        changes: Mapping[Place, Change] | None = None,
        keep: Sequence[Place] = (),
        kept: dict[Place, Tensor] | None = None,
    ) -> Tensor:
        with engine.keeping(keep) as states:
            logits = engine.run(engine.embed(ids), changes=changes)
        if kept is not None:
            kept.update(states)
        return logits

    return run


def states_pass(passes: Pass, states: Sequence[Tensor]) -> Pass:
    """Passes of runs that were given as states: where ``FIRST_STATES`` or
    ``SECOND_STATES`` stand for the token ids, the states of that run, [tokens, d_model], enter layer 0.

    Args:
        passes: Passes of texts.
        states: Of the first run, and of the second where there is one.
    """

    def run(
        ids: Tensor,
        *,
        changes: Mapping[Place, Change] | None = None,
        keep: Sequence[Place] = (),
        kept: dict[Place, Tensor] | None = None,
    ) -> Tensor:
        if int(ids.min()) >= 0:
            return passes(ids, changes=changes, keep=keep, kept=kept)
        given = states[FIRST_STATES - int(ids[0, 0])]

        def entering(value: Tensor) -> Tensor:
            value = value.clone()
            value[:, : len(given)] = given.to(value)
            return value

        return passes(ids.clamp(min=0), changes={("resid", 0): entering, **(changes or {})}, keep=keep, kept=kept)

    return run


def bridge_pass(model: LoadedModel, runs: BridgeRuns) -> Pass:
    """The same through TransformerLens' hooks. A projection that a model fuses with others stands alone there: states
    and changes are those of the whole of it, as in ``fast_pass``."""

    def spread(place: Place, state: Tensor) -> Tensor:
        """A projection's states within those of the whole."""
        whole = fused_entries(model, place)
        if whole is None:
            return state
        index, size = whole
        return state.new_zeros(*state.shape[:-1], size).index_copy(-1, index.to(state.device), state)

    def alone(place: Place, change: Change) -> Change:
        whole = fused_entries(model, place)
        if whole is None:
            return change
        return lambda state: change(spread(place, state))[..., whole[0]]

    def run(
        ids: Tensor,
        *,
        changes: Mapping[Place, Change] | None = None,
        keep: Sequence[Place] = (),
        kept: dict[Place, Tensor] | None = None,
    ) -> Tensor:
        states: dict[Place, Tensor] = {}
        changed = {place: alone(place, change) for place, change in (changes or {}).items()}
        logits = runs.logits(ids, changes=changed, keep=keep, kept=states)
        if kept is not None:
            kept.update({place: spread(place, state) for place, state in states.items()})
        return logits

    return run


def fused_entries(model: LoadedModel, place: Place) -> tuple[Tensor, int] | None:
    """Of a projection that is fused with others: where its entries are in the whole, and how many that has."""
    site, layer = place
    if site in ("resid", "attn", "mlp") or not model.architecture.is_fused(site):
        return None
    (module,) = model.architecture.describe([(layer, site)]).sites
    return model.architecture.gate_module(layer, site).index, module.size


def corrupted_logits(runs: Resumable | BridgeRuns, setup: Setup) -> Tensor:
    """Logits of the last position of a fact's corrupted runs, [samples, d_vocab]."""
    if isinstance(runs, BridgeRuns):
        return runs.corrupted(setup)
    return runs.run(setup.whole)


def of_swapped(passes: Pass, swapped: Sequence[int], places: Iterable[Place]) -> Filling:
    """The states of a run on the text with another subject, followed by the same added tokens."""
    wanted, known = tuple(places), dict[tuple[int, ...], dict[Place, Tensor]]()

    def states(added: tuple[int, ...]) -> dict[Place, Tensor]:
        if added not in known:
            kept: dict[Place, Tensor] = {}
            passes(torch.tensor([[*swapped, *added]]), keep=wanted, kept=kept)
            known[added] = kept
        return known[added]

    return states


def means(model: LoadedModel, engine: Resumable, texts: Sequence[tuple[int, ...]], places: Iterable[Place]) -> Filling:
    """The mean states over all positions of some texts but the first of each, where models park attention and states
    are unlike all others. ``model.cache`` holds them."""
    wanted = tuple(places)
    sites: dict[HookSite, None] = {site: None for site, _ in wanted}
    keys: list[tuple[str, tuple[tuple[int, ...], ...]]] = [(site, tuple(texts)) for site in sites]

    def compute(missing: list[tuple[str, tuple[tuple[int, ...], ...]]]) -> list[Tensor]:
        left: list[HookSite] = [site for site, key in zip(sites, keys, strict=True) if key in missing]
        return [of.cpu() for of in _mean_states(engine, texts, left)]

    found = dict(zip(sites, model.cache.means.get_or_compute_all(keys, compute), strict=True))
    states: dict[Place, Tensor] = {(site, layer): found[site][layer] for site, layer in wanted}
    return lambda _: states


def _mean_states(engine: Resumable, texts: Sequence[tuple[int, ...]], sites: Sequence[HookSite]) -> list[Tensor]:
    """Of each site, [layers, width]. What the texts begin with is computed once (a chat template's system prompt)."""
    places: list[Place] = [(site, layer) for site in sites for layer in range(engine.n_layers)]
    shared = _shared(texts)
    sums: dict[Place, Tensor] = {}
    first, prefix = engine.embed(torch.tensor([texts[0]])), None
    for i, text in enumerate(texts):
        resid = engine.embed(torch.tensor([text])) if i else first
        with engine.keeping(places) as states:
            if i == 0:
                _, prefix = engine.record_from(shared, resid, ())
            else:
                engine.run(resid[:, shared:], prefix=prefix)
        for place in places:
            state = states[place][0].double()
            if i == 0:  # the positions that all share count for each of them
                sums[place] = len(texts) * state[1:shared].sum(0) + state[max(1, shared) :].sum(0)
            else:
                sums[place] = sums[place] + state[int(not shared) :].sum(0)
    total = sum(len(text) - 1 for text in texts)
    return [torch.stack([sums[site, layer] / total for layer in range(engine.n_layers)]).float() for site in sites]


def _shared(texts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all texts begin with, at most all but the last of the shortest."""
    most = min(map(len, texts)) - 1
    return next((i for i in range(most) if len({text[i] for text in texts}) > 1), most)


def reference_texts(model: LoadedModel, fact: Fact | None, form: Form, pool: FactSet, n: int) -> list[tuple[int, ...]]:
    """The questions (or clozes) of ``n`` facts about other subjects (all without a fact), spread evenly over the pool;
    fewer if it has fewer. Texts of a single token are left out.

    Raises:
        ValueError: The pool has none.
    """
    subject = None if fact is None else fact.subject
    others = [other for other in pool if other.subject != subject]
    chosen = [others[i * len(others) // n] for i in range(n)] if len(others) > n else others
    texts = [prompt_ids(model, other.question if form == "chat" else other.prompt, form) for other in chosen]
    found = [tuple(ids) for ids in dict.fromkeys(map(tuple, texts)) if len(ids) > 1]
    if not found:
        raise ValueError(
            f"The pool has no text about another subject than {subject!r} to take a mean over. Give another "
            "pool=, or use ablation='zero'."
        )
    return found
