"""MapMaker: the maps of a CircuitPicker, computed in the background and shown as they come.

Heads, MLPs and attention layers come as gradient estimates first; when all else is done, each is patched, and the exact
effects take the place of the estimates. The attention patterns of the heads' tooltip are made before anybody points at
a head. Where no subject can be swapped in, noise stands in for the swap, of all maps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch

from workbench.language.contrasts import prepare
from workbench.language.prompts import NoSwapPartner, swapped, traced_prompt
from workbench.tracing.attention import attention_patterns
from workbench.types import Contrast, EffectMap, Fact, TracedPrompt
from workbench.widgets.picker.attention import Attention
from workbench.widgets.picker.linked_maps import SITES, LinkedMaps
from workbench.widgets.picker.map_queue import Item, Look, MapQueue
from workbench.widgets.picker.maps import EXACT, MAPS, TITLES, MapName, Sources
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.markup import Progress
from workbench.widgets.shared.voice import person

FIRST: tuple[MapName, ...] = ("heads", "mlps", "resid", "neurons")
PATTERNS = "attention patterns"
EXACTLY: dict[MapName, str] = {name: f"{TITLES[name].lower()}, one by one" for name in EXACT}
"""What the queue calls the maps that take the place of estimates."""
ESTIMATES: dict[str, MapName] = {exactly: name for name, exactly in EXACTLY.items()}


@dataclass(frozen=True)
class Failure:
    """Why some maps are missing.

    Args:
        names: The maps.
        error: What their computation raised; the same words for all of them.
    """

    names: tuple[str, ...]
    error: Exception

    @property
    def words(self) -> str:
        """The maps and the reason."""
        titles = (TITLES.get(cast(MapName, name), name.capitalize()) for name in self.names)
        return f"{', '.join(titles)}: {person(self.error)}"


class MapMaker:
    """The maps, and what they are made of.

    Args:
        sources: What they are made of; settable, which does not drop what is shown.
        linked: Where they are drawn.
        lock: Held while a result is taken over.
        on_map: Called with the name of a map that is there now, or ``PATTERNS``, and whether it takes the place of an
            estimate.
        on_change: Called whenever ``waiting`` or ``failures`` has changed.
        on_layer: Called whenever a layer of a map was drawn, and every second while something is computed.
    """

    def __init__(
        self,
        sources: Sources,
        linked: LinkedMaps,
        lock: threading.RLock,
        on_map: Callable[[str, bool], object],
        on_change: Callable[[], object],
        on_layer: Callable[[], object],
    ) -> None:
        self.sources = sources
        self.maps: dict[str, EffectMap] = {}
        self.cancelled = False
        """Whether the last maps that were asked for were cancelled."""
        self._linked, self._lock, self._on_map, self._on_layer = linked, lock, on_map, on_layer
        self._layers = self._positions = 0  # finished layers of the map that is being computed, and tokens of each
        self._takers: dict[str, Callable[[Any], object]] = {}
        self._fell_back: dict[tuple[Fact | Contrast, ...], str] = {}
        self._queue = MapQueue(lock, self._computed, on_change, on_layer)

    @property
    def job(self) -> Job[None] | None:
        """The job that computes."""
        return self._queue.job

    @property
    def waiting(self) -> tuple[str, ...]:
        """What is asked for; the first one is being computed."""
        return self._queue.waiting

    @property
    def progress(self) -> Progress | None:
        """Which map of how many, how far it is and for how long; None when nothing is computed."""
        waiting, n_layers = self.waiting, self.sources.model.shape.n_layers
        if not waiting:
            return None
        done, total = self._queue.finished, self._queue.finished + len(waiting)
        words = f"Computing: {TITLES.get(cast(MapName, waiting[0]), waiting[0]).lower()}"
        if 0 < self._layers < n_layers:
            left = self._queue.seconds_of_first / self._layers * (n_layers - self._layers)
            at = f" at {self._positions} positions" if self._positions else ""
            words += f", {self._layers} of {n_layers} layers{at}, about {left:.0f} s left"
        words += f" · map {done + 1} of {total} · {self._queue.seconds:.0f} s"
        return Progress(words, done * n_layers + self._layers, total * n_layers)

    @property
    def failures(self) -> list[Failure]:
        """Why maps are missing: those that miss for the same reason together."""
        alike: dict[str, list[str]] = {}
        for name, error in self._queue.failed.items():
            alike.setdefault(f"{error}", []).append(name)
        return [Failure(tuple(names), self._queue.failed[names[0]]) for names in alike.values()]

    @property
    def failed(self) -> set[str]:
        """The maps that could not be made."""
        return set(self._queue.failed)

    @property
    def asked(self) -> tuple[MapName, ...]:
        """The maps that are there, were asked for, or failed."""
        return tuple(n for n in MAPS if n in self.maps or n in self.waiting or n in self.failed)

    @property
    def first(self) -> tuple[MapName, ...]:
        """The maps that are shown first: ``FIRST``, without neurons where the model has none (mixtures of experts)."""
        return tuple(n for n in FIRST if n != "neurons" or not self.sources.model.shape.no_neurons)

    @property
    def missing(self) -> tuple[MapName, ...]:
        """The first maps that are neither there nor asked for, and have not failed."""
        return tuple(n for n in self.first if n not in self.asked)

    def compute(self, names: Iterable[MapName]) -> Job[None]:
        """Ask for maps; see ``CircuitPicker.compute``."""
        items: list[Item] = []
        for name in names:
            items.append((name, partial(self._make, name)))
            if name == "heads":
                items += self._pattern_items()
        for name in self.sources.refined(names):
            items.append((EXACTLY[name], partial(self._make, name, exact=True)))
        self.cancelled = False
        return self._queue.add(items)

    def cancel(self) -> None:
        """Stop; the maps that are there stay."""
        with self._lock:
            if self.waiting:
                self.cancelled = True
                self._queue.cancel()

    def compute_patterns(self) -> None:
        """The attention patterns, where they are not there: of maps that were computed elsewhere."""
        if items := self._pattern_items():
            self._queue.add(items)

    def ask(self, name: str, make: Callable[[], Any], take: Callable[[Any], object]) -> None:
        """Compute something beside the maps, before those that wait: one thread at a time uses the model's hooks.

        Args:
            name: In words.
            make: Computes it.
            take: Called with the result, with the lock, unless another fact is shown by then.
        """
        with self._lock:
            self._takers[name] = take
            self._queue.add([(name, lambda look: make())], soon=True)

    def show(self, sources: Sources, maps: dict[str, EffectMap]) -> None:
        """Go on with maps that were computed elsewhere; what was asked for before is dropped."""
        self._queue.clear()
        self.cancelled = False
        self.maps, self.sources = maps, sources
        for effect in maps.values():
            self.sources = self.sources.with_partner_of(effect)

    def fell_back(self, traced: tuple[Fact | Contrast, ...]) -> str:
        """Why noise stood in for the swap when maps of these facts were made; empty where it did not."""
        return self._fell_back.get(traced, "")

    def settle(self) -> None:
        """Show the estimates again whose exact effects could not be computed to the end."""
        for name in ESTIMATES.keys() - set(self.waiting):
            self._linked.settle(ESTIMATES[name])

    def _pattern_items(self) -> list[Item]:
        sources = self.sources
        if len(sources.traced) != 1 or self._linked.attention is not None or PATTERNS in self.failed:
            return []
        return [(PATTERNS, lambda look: attention_patterns(sources.model, sources.traced[0], form=sources.text_form))]

    def _make(self, name: MapName, look: Look, *, exact: bool = False) -> EffectMap | None:
        """With the settings of now: when they change, what waits is dropped. None: there is no estimate to replace."""
        if exact and name not in self.maps:
            return None
        sources = self.sources
        try:
            return self._make_of(sources, name, look, exact)
        except ValueError as error:
            if not (why := _no_swap(sources, error)):
                raise
            with self._lock:
                look()
                self.sources = replace(self.sources, instead=why, partner=None)
                self._fell_back[sources.traced] = self.sources.instead
            return self._make_of(self.sources, name, look, exact)

    def _make_of(self, sources: Sources, name: MapName, look: Look, exact: bool) -> EffectMap:
        first, *more = sources.traced
        self._layers = self._positions = 0
        if more or not (exact or name in SITES.values()):
            return sources.compute(name)
        prompt = None if exact else _text(sources, first)

        def draw(site: str, layer: int, values: torch.Tensor) -> None:
            with self._lock:
                look()
                self._layers += 1
                if prompt is None:
                    self._linked.refine(name, layer, values)
                else:
                    self._positions = values.numel()
                    self._linked.draw(name, layer, values, prompt)
                self._on_layer()

        return sources.compute(name, exact=exact, on_layer=draw)

    def _computed(self, name: str, result: Any) -> None:
        self._layers = 0
        if name in self._takers:
            self._takers.pop(name)(result)
        elif name == PATTERNS:
            weights, prompt = result
            self._linked.set_attention(Attention(weights, prompt))
            self._on_map(PATTERNS, False)
        elif result is not None:
            known = ESTIMATES.get(name, cast(MapName, name))
            self.maps[known] = result
            self.sources = self.sources.with_partner_of(result)
            self._linked.show(known, result)
            self._on_map(known, name in ESTIMATES)


def _text(sources: Sources, one: Fact | Contrast) -> TracedPrompt:
    """The text whose tokens label a trace; of a contrast, which may be states, its clean run."""
    if isinstance(one, Fact):
        return traced_prompt(sources.model, one, form=sources.form)
    return prepare(sources.model, one, sequences=True).prompt


def _no_swap(sources: Sources, error: ValueError) -> str:
    """Why there can be no swap, to a person; empty where a map could not be made for another reason."""
    if sources.corruption != "swap" or sources.contrasts:
        return ""
    if not isinstance(error, NoSwapPartner):
        fact, *more = sources.facts
        if sources.partner is None or more:
            return ""
        try:
            prompt = traced_prompt(sources.model, fact, form=sources.form)
        except ValueError:
            return ""
        try:
            swapped(sources.model, fact, prompt, sources.partner)
        except ValueError:
            answers = f"{sources.partner.answer!r} begins as {fact.answer!r} does"
            return f"{sources.partner.subject!r} cannot be swapped in: its answer {answers}: noise instead."
        return ""
    if error.text is not None:
        return f"{error.text!r} has not as many tokens as the text of {error.fact.subject!r}: noise instead."
    if error.partner is not None:
        return f"{error.partner.subject!r} has not as many tokens as {error.fact.subject!r}: noise instead."
    return (
        f"No subject of as many tokens as {error.fact.subject!r} to swap in: noise instead. "
        "Give a swap subject in tab 1."
    )
