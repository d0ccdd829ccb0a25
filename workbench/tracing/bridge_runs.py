"""Runs through TransformerLens' hooks, one forward pass a run: the readable reference of the fast path, and the way for
a researcher's own hooks.

Every state that this package reads or replaces has a TransformerLens name (``HOOKS``). A change here is one hook that
is called with a value and returns another; nothing is resumed, skipped or packed.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from workbench.models.engine import Change, HookSite, Recording
from workbench.models.family import PARTS
from workbench.models.load import LoadedModel
from workbench.tracing.restoration import Restoration, changes_of, severed_by
from workbench.tracing.restore import Finished
from workbench.tracing.setup import Setup
from workbench.types.traced_prompt import TracedPrompt, require_text

TraceEngine = Literal["auto", "transformerlens"]
FwdHook = tuple[str, Callable[..., Any]]
"""A hook's name and a function ``fn(value, hook)`` that returns a new value, or None to change nothing."""
Place = tuple[HookSite, int]
HOOKS: dict[HookSite, str] = {
    "resid": "hook_resid_pre",
    "attn": "hook_attn_out",
    "mlp": "hook_mlp_out",
    "z": "attn.hook_z",
    "post": "mlp.hook_post",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
}
"""TransformerLens' name of each site within a block."""


def hook_of(site: HookSite, layer: int) -> str:
    """TransformerLens' name of a site's states in a layer."""
    return f"blocks.{layer}.{HOOKS[site]}"


def bridge_runs(model: LoadedModel, engine: TraceEngine, fwd_hooks: Sequence[FwdHook]) -> BridgeRuns | None:
    """Runs through TransformerLens where they are asked for, or where hooks need them; else None.

    Raises:
        ValueError: An unknown engine or hook, or TransformerLens has no bridge for the model.
    """
    if engine not in get_args(TraceEngine):
        raise ValueError(f"engine must be one of {get_args(TraceEngine)}, got {engine!r}.")
    if engine == "auto" and not fwd_hooks:
        return None
    runs = BridgeRuns(model, fwd_hooks)
    if engine == "auto":
        warnings.warn(
            "fwd_hooks= run through TransformerLens, one forward pass a cell, which is slower than without them. "
            "engine='transformerlens' says the same and does not warn.",
            stacklevel=3,
        )
    return runs


def run_of(prompt: TracedPrompt, states: Tensor | None) -> tuple[Tensor, list[FwdHook]]:
    """The token ids [1, tokens] of a run and the hooks that it needs: of one that was given as states, any tokens with
    the states in their place.

    Args:
        prompt: What is read.
        states: What enters layer 0, [tokens, d_model]; None for the prompt's own tokens.
    """
    if states is None:
        return torch.tensor([prompt.token_ids]), []
    given = states[None]
    return torch.zeros(given.shape[:2], dtype=torch.long), [(hook_of("resid", 0), lambda value, hook: given.to(value))]


class BridgeRuns:
    """Forward passes of a model's TransformerLens bridge.

    Args:
        model: A base or edited model; its deltas are part of the bridge.
        fwd_hooks: Hooks of one's own, added to every run, before those of this class.

    Raises:
        ValueError: A hook that the bridge does not have, or no bridge for this model.
    """

    def __init__(self, model: LoadedModel, fwd_hooks: Sequence[FwdHook] = ()) -> None:
        self.model = model
        self._bridge = bridge_of(model)
        self._own = checked_hooks(self._bridge, fwd_hooks)

    @property
    def settings(self) -> dict[str, Any]:
        """What a result's provenance keeps of them."""
        hooks = [name for name, _ in self._own]
        return {"engine": "transformerlens", **({"fwd_hooks": hooks} if hooks else {})}

    def logits(
        self,
        ids: Tensor,
        *,
        added: Tensor | None = None,
        changes: Mapping[Place, Change] | None = None,
        keep: Iterable[Place] = (),
        kept: dict[Place, Tensor] | None = None,
    ) -> Tensor:
        """One forward pass.

        Args:
            ids: Token ids, [rows, tokens].
            added: What is added to the states that enter layer 0, [rows, tokens, d_model].
            changes: Functions that replace states [rows, tokens, width] on the way, by (site, layer).
            keep: Places whose states are written to ``kept``, after all changes, [rows, tokens, width].
            kept: Where they are written.

        Returns:
            Logits of the last position, [rows, d_vocab].
        """
        shape = ids.shape
        hooks: list[FwdHook] = list(self._own)
        if added is not None:
            hooks.append((hook_of("resid", 0), lambda value, hook: value + added.to(value)))
        for (site, layer), change in (changes or {}).items():
            hooks.append((hook_of(site, layer), _changing(change, shape)))
        for place in keep:
            assert kept is not None
            hooks.append((hook_of(*place), _keeping(place, kept)))
        logits = self._bridge.run_with_hooks(ids.to(self.model.device), fwd_hooks=hooks)
        for place in keep:
            assert kept is not None
            kept[place] = kept[place].reshape(*shape, -1)
        return logits[:, -1]

    def record(self, setup: Setup, sites: Sequence[HookSite]) -> Recording:
        """The clean run, with the states of the sites at every layer from the first corrupted token on."""
        states: dict[Place, Tensor] = {}
        logits = self.logits(_text(setup), keep=self._places(sites), kept=states)
        return Recording(logits, {place: state[:, setup.start :] for place, state in states.items()})

    def corrupted(self, setup: Setup) -> Tensor:
        """Logits of the last position of the corrupted runs, [samples, d_vocab]."""
        ids, added = self._corrupted(setup)
        return self.logits(ids, added=added)

    def effects(self, setup: Setup, clean: Recording, cells: Sequence[Restoration]) -> Iterator[Finished]:
        """What every cell changes about the measure of the corrupted runs, one pass a cell."""
        ids, added = self._corrupted(setup)
        frozen: dict[Place, Tensor] = {}
        logits = self.logits(ids, added=added, keep=self._places(severed_by(cells)), kept=frozen)
        frozen = {place: state[:, setup.start :] for place, state in frozen.items()}
        baseline = setup.measure(logits)
        for i, cell in enumerate(cells):
            changes = changes_of(cell, clean.states, frozen, self._entries, self.model.shape.n_layers)
            changes = {place: _from(setup.start, change) for place, change in changes.items()}
            measured = setup.measure(self.logits(ids, added=added, changes=changes))
            yield Finished([i], slice(0, len(ids)), (measured - baseline)[None], baseline)

    def _entries(self, site: HookSite, part: int) -> Tensor | None:
        """The entries of a head, a group or a neuron: every projection stands alone here."""
        if site in ("resid", "attn", "mlp"):
            return None
        width = self.model.shape.d_head if PARTS[site] == "attention" else 1
        return torch.arange(part * width, (part + 1) * width, device=self.model.device)

    def gradients(self, setup: Setup, sites: Sequence[HookSite]) -> tuple[Recording, dict[Place, Tensor]]:
        """The corrupted runs with the states of the sites, and the measure's gradients there, by one backward pass."""
        ids, added = self._corrupted(setup)
        width = setup.clean.shape[-1]
        start = torch.zeros(*ids.shape, width, dtype=setup.clean.dtype, device=self.model.device)
        start = (start if added is None else added.detach().clone()).requires_grad_(True)
        raw: dict[Place, Tensor] = {}
        hooks = [*self._own, (hook_of("resid", 0), lambda value, hook: value + start.to(value))]
        hooks += [(hook_of(*place), _keeping(place, raw)) for place in self._places(sites)]
        with torch.enable_grad():
            logits = self._bridge.run_with_hooks(ids.to(self.model.device), fwd_hooks=hooks)[:, -1]
            found = torch.autograd.grad(setup.measure(logits).sum(), list(raw.values()))

        def later(value: Tensor) -> Tensor:
            return value.reshape(*ids.shape, -1)[:, setup.start :]

        states = {place: later(value.detach()) for place, value in raw.items()}
        return Recording(logits.detach(), states), {p: later(g) for p, g in zip(raw, found, strict=True)}

    def gradients_at(self, setup: Setup, states: Mapping[Place, Tensor]) -> dict[Place, Tensor]:
        """The measure's gradients at states that take the place of the corrupted runs', by one backward pass."""
        ids, added = self._corrupted(setup)
        leaves = {place: state.detach().clone().requires_grad_(True) for place, state in states.items()}
        changes = {place: _from(setup.start, lambda _, leaf=leaf: leaf) for place, leaf in leaves.items()}
        with torch.enable_grad():
            measured = setup.measure(self.logits(ids, added=added, changes=changes))
            found = torch.autograd.grad(measured.sum(), list(leaves.values()))
        return dict(zip(leaves, found, strict=True))

    def stream(self, ids: Tensor) -> Tensor:
        """The residual stream of one text [1, tokens] entering every layer and after the last one,
        [layers + 1, tokens, d_model]."""
        last = f"blocks.{self.model.shape.n_layers - 1}.hook_resid_post"
        after: list[Tensor] = []
        states: dict[Place, Tensor] = {}
        hooks: list[FwdHook] = [*self._own, (last, lambda value, hook: after.append(value))]
        hooks += [(hook_of(*place), _keeping(place, states)) for place in self._places(("resid",))]
        self._bridge.run_with_hooks(ids.to(self.model.device), fwd_hooks=hooks)
        return torch.stack([*(state[0] for state in states.values()), after[-1][0]])

    def _places(self, sites: Sequence[HookSite]) -> list[Place]:
        return [(site, layer) for site in sites for layer in range(self.model.shape.n_layers)]

    def _corrupted(self, setup: Setup) -> tuple[Tensor, Tensor | None]:
        """The corrupted texts [samples, tokens], and what noise adds to the states that enter layer 0."""
        samples = len(setup.corrupted)
        if setup.corrupted_ids is not None:
            return torch.tensor([setup.corrupted_ids] * samples), None
        noise = setup.corrupted - setup.clean[:, setup.start :]
        before = torch.zeros(samples, setup.start, noise.shape[-1]).to(noise)
        return _text(setup).repeat(samples, 1), torch.cat([before, noise], 1)


def _text(setup: Setup) -> Tensor:
    """The clean text, [1, tokens].

    Raises:
        ValueError: The runs were given as states.
    """
    require_text(setup.prompt, "TransformerLens' runs (engine=, fwd_hooks=)")
    return torch.tensor([setup.prompt.token_ids])


def bridge_of(model: LoadedModel) -> Any:
    """A model's bridge.

    Raises:
        ValueError: TransformerLens has none for it.
    """
    try:
        return model.bridge
    except Exception as error:  # of many types, by family
        reason = str(error).split("Available architectures")[0].strip()
        raise ValueError(
            f"TransformerLens has no bridge for {type(model.hf).__name__} that can be used ({reason:.200}), so "
            "engine='transformerlens', fwd_hooks= and cache are not there for this model. Leave them out: the default "
            "engine needs no bridge."
        ) from error


def checked_hooks(bridge: Any, fwd_hooks: Sequence[FwdHook]) -> list[FwdHook]:
    """The hooks, if the bridge has them all.

    Raises:
        ValueError: One is no pair of a name and a function, or the bridge does not have it (with near names).
    """
    known = bridge.hook_dict
    for hook in fwd_hooks:
        if not (isinstance(hook, tuple) and len(hook) == 2 and isinstance(hook[0], str) and callable(hook[1])):
            raise ValueError(f"fwd_hooks= is a list of (hook name, function), got {hook!r}.")
        check_name(known, hook[0])
    return list(fwd_hooks)


def check_name(known: Mapping[str, Any], name: str) -> None:
    """Raise a ValueError for a hook that is not among these."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        raise ValueError(
            f"The model has no hook {name!r}. Names are TransformerLens': "
            f"{', '.join(near or ['blocks.0.hook_resid_pre', 'blocks.0.attn.hook_z', 'blocks.0.hook_mlp_out'])}."
        )


def _keeping(place: Place, kept: dict[Place, Tensor]) -> Callable[..., Tensor]:
    def keep(value: Tensor, hook: Any) -> Tensor:
        kept[place] = value
        return value  # so that what follows reads this very tensor, and a gradient reaches it

    return keep


def _changing(change: Change, shape: torch.Size) -> Callable[..., Tensor]:
    """A hook that changes states as [rows, tokens, width], whatever shape TransformerLens has them in."""

    def hook(value: Tensor, hook: Any) -> Tensor:
        return change(value.reshape(*shape, -1)).reshape(value.shape)

    return hook


def _from(start: int, change: Change) -> Change:
    """A change of the tokens from ``start`` on."""
    return lambda value: torch.cat([value[:, :start], change(value[:, start:])], 1)
