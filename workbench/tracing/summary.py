"""Effect maps in a sentence: a pure function on maps, which computes nothing of a model.

The sentence is written by one rule, so that two people read the same map alike:

* **Where.** A token *holds* the answer at a layer where restoring its state there brings back at least half of what the
  corruption took away, and no other token brings back more. Layers in a row with the same token are a stretch. Row l of
  a trace is the state that enters layer l: "until L23" says that layer 23 still finds the answer there.
* **Who.** The strongest head (or MLP) and its share: its effect divided by clean minus corrupted. Beside it stands the
  control, the share of the median head of the same map. Shares of different heads need not add up to 1.
* Where no token holds the answer, or no head has a tenth of it, the sentence says that instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from workbench.tracing.ranking import place_of
from workbench.types import Component, EffectMap
from workbench.types.metric_words import hardly_differ
from workbench.types.torch_settings import own_torch_settings

HALF = 0.5
"""What a token must bring back to hold the answer, as recovery."""
CARRIES = 0.1
"""What one component must bring back to be named as a carrier, as recovery."""
_SPELLED_OUT = 4
"""So many stretches are named, the longest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Layers in a row at which one token holds the answer.

    Args:
        position: The token's position (or the role's, in a map of several facts).
        text: The token, or "the last token", in words.
        mention: Which of several tokens of this text it is, from 1; 0 where there is only one.
        first, last: Layers.
        recovery: The largest within, 1 for all that the corruption took away.
    """

    position: int
    text: str
    mention: int = 0
    first: int
    last: int
    recovery: float

    @property
    def place(self) -> str:
        """The token in words: "Japan", "the second Japan", "the last token of Mount Fuji (the second)"."""
        if not self.mention:
            return self.text
        which = f"the {_ordinal(self.mention)}"
        return f"{self.text} ({which})" if " " in self.text else f"{which} {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """The strongest component of a map, beside the median one.

    Args:
        component: Which.
        share: Its effect as recovery.
        median: That of the median component of the same map: the control.
        estimated: Whether the effects are first-order estimates.
    """

    component: Component
    share: float
    median: float
    estimated: bool


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Where an answer is read, from the maps of one fact.

    Args:
        stretches: Where it is held, from the lowest layer up.
        n_layers: Of the model.
        head, mlp: The strongest head and MLP; None where no map of them was given.
        clean, corrupted: The metric without and with the corruption.
        metric: Its name in a sentence.

    Example:
        >>> swap = {"corruption": "swap", "metric": "logit_diff", "pool": facts}
        >>> reading = wb.where_read(wb.causal_trace(model, fact, **swap), wb.attribute(model, fact, **swap))
        >>> [(stretch.place, stretch.first, stretch.last) for stretch in reading.stretches]
        [('France', 0, 0), ('the last token', 1, 1)]
    """

    stretches: tuple[Stretch, ...]
    n_layers: int
    head: Carrier | None
    mlp: Carrier | None
    clean: float
    corrupted: float
    metric: str

    @property
    def words(self) -> str:
        """The finding in a sentence, with the control beside each share."""
        if hardly_differ(self.clean, self.corrupted):
            return (
                f"The corruption hardly changes the {self.metric} ({self.clean:.3g} clean, {self.corrupted:.3g} "
                "corrupted): there is nothing to locate."
            )
        parts = [self._where()]
        parts += [_carried(one, name) for one, name in ((self.head, "head"), (self.mlp, "MLP")) if one is not None]
        return "; ".join(parts) + "."

    def _where(self) -> str:
        if not self.stretches:
            return "No single place carries half of the answer at any layer"
        runs = self._runs()
        longest = sorted(runs, key=lambda run: run[0].first - run[-1].last)[:_SPELLED_OUT]
        named = [run for run in runs if run in longest]
        said = "Read " + ", ".join(f"at {_places(run)} {self._layers(run[0].first, run[-1].last)}" for run in named)
        if len(named) < len(runs):
            said += f", and at {len(runs) - len(named)} more places in between"
        held = {layer for s in self.stretches for layer in range(s.first, s.last + 1)}
        gaps = [list(run) for free, run in groupby(range(self.n_layers), lambda at: at not in held) if free]
        if gaps:
            where = " and ".join(_span(gap[0], gap[-1]) for gap in gaps)
            said += f"; no single place carries half of it at {where}"
        return said

    def _runs(self) -> list[list[Stretch]]:
        """The stretches, with mentions of one text that follow each other together."""
        runs: list[list[Stretch]] = []
        for one in self.stretches:
            before = runs[-1][-1] if runs else None
            if before is not None and before.last + 1 == one.first and before.text == one.text:
                runs[-1].append(one)
            else:
                runs.append([one])
        return runs

    def _layers(self, first: int, last: int) -> str:
        top = self.n_layers - 1
        if first == 0:
            return "at every layer" if last == top else f"until L{last}"
        if last == top:
            return f"from L{first} on"
        return f"at L{first}" if first == last else f"from L{first} to L{last}"


def _places(run: Sequence[Stretch]) -> str:
    """Stretches of one text in words."""
    if len(run) == 1:
        return run[0].place
    return f"{run[0].text} ({', then '.join(f'the {_ordinal(one.mention)}' for one in run)})"


def _ordinal(n: int) -> str:
    return ("", "first", "second", "third", "fourth")[n] if n < 5 else f"{n}th"


def _span(first: int, last: int) -> str:
    return f"L{first}" if first == last else f"L{first} to L{last}"


def _carried(carrier: Carrier, name: str) -> str:
    how = ", by a first-order estimate" if carrier.estimated else ""
    control = f"(the median {name} {_percent(carrier.median)}{how})"
    if carrier.share < CARRIES:
        return (
            f"no {name} alone carries a tenth: the strongest, {carrier.component}, {_percent(carrier.share)} {control}"
        )
    return f"{carrier.component} carries {_percent(carrier.share)} {control}"


def _percent(share: float) -> str:
    if 0 < abs(share) < 0.005:
        return "<1%" if share > 0 else "0%"
    return f"{100 * share:.0f}%"


@own_torch_settings()
def where_read(trace: EffectMap, heads: EffectMap | None = None, mlps: EffectMap | None = None) -> Reading:
    """Say where an answer is read, by the rule of the module's docstring.

    Args:
        trace: A causal trace of the residual stream, ``("layer", "position")``, with a corruption.
        heads: Effects of heads, ``("layer", "head")``, by the same metric and corruption.
        mlps: Effects of MLPs, ``("layer",)``, likewise.

    Returns:
        The finding; ``.words`` is the sentence.

    Raises:
        ValueError: A map of other places, without a corruption, or by another metric or corruption than the trace.

    Example:
        >>> swap = {"corruption": "swap", "metric": "logit_diff", "pool": facts}
        >>> exact = wb.attribute(model, fact, method="patching", **swap)
        >>> print(wb.where_read(wb.causal_trace(model, fact, **swap), exact).words)
        Read at France until L0, at the last token at L1; no single place carries half of it at L2; L0H5 carries 51%
        (the median head 1%).
    """
    _check_trace(trace)
    for effects, unit, axes in ((heads, "head", ("layer", "head")), (mlps, "mlp", ("layer",))):
        if effects is not None:
            _check_beside(trace, effects, unit, axes)
    assert trace.corrupted is not None
    recovered = _recovery(trace).nan_to_num(nan=float("-inf"))
    best = recovered.max(1)
    holds = [
        int(position) if float(value) >= HALF else None
        for value, position in zip(best.values, best.indices, strict=True)
    ]
    stretches: list[Stretch] = []
    layer = 0
    for position, run in groupby(holds):
        first, layer = layer, layer + len(list(run))
        if position is not None:
            most = float(recovered[first:layer, position].max())
            text, mention = _token(trace, position)
            stretches.append(
                Stretch(position=position, text=text, mention=mention, first=first, last=layer - 1, recovery=most)
            )
    nothing = hardly_differ(trace.clean, trace.corrupted)
    return Reading(
        stretches=() if nothing else tuple(stretches),
        n_layers=len(holds),
        head=None if heads is None or nothing else _carrier(heads),
        mlp=None if mlps is None or nothing else _carrier(mlps),
        clean=trace.clean,
        corrupted=trace.corrupted,
        metric=trace.metric_words.title,
    )


def _check_trace(trace: EffectMap) -> None:
    if trace.axes != ("layer", "position") or trace.unit != "resid" or trace.corrupted is None:
        raise ValueError(
            "where_read needs a causal trace of the residual stream (wb.causal_trace(model, fact)), got a map of the "
            f"{trace.title} with the axes {trace.axes}."
        )


def _check_beside(trace: EffectMap, effects: EffectMap, unit: str, axes: tuple[str, ...]) -> None:
    if effects.unit != unit or effects.axes != axes or effects.corrupted is None:
        raise ValueError(
            f"{unit}s= needs effects of {unit}s with a corruption (wb.attribute(model, fact, {unit!r})), got a map of "
            f"the {effects.title} with the axes {effects.axes}."
        )
    for name in ("metric", "corruption"):
        mine, theirs = getattr(trace, name), getattr(effects, name)
        if mine != theirs:
            raise ValueError(
                f"The trace and the map of {unit}s differ in {name} ({mine!r} and {theirs!r}), so one sentence cannot "
                "speak of both. Compute both with the same options."
            )


def _recovery(effects: EffectMap) -> torch.Tensor:
    """A map's values as recovery."""
    assert effects.corrupted is not None
    return effects.values if effects.normalised else effects.values / (effects.clean - effects.corrupted)


def _carrier(effects: EffectMap) -> Carrier | None:
    """The strongest component; None for a map without a number."""
    shares = _recovery(effects)
    finite = shares[torch.isfinite(shares)]
    if not len(finite):
        return None
    flat = int(shares.nan_to_num(nan=float("-inf")).flatten().argmax())
    (component,) = effects.components(place_of(effects, flat))
    return Carrier(
        component=component,
        share=float(shares.flatten()[flat]),
        median=float(finite.quantile(0.5)),
        estimated=effects.method.startswith("attribution"),
    )


def _token(trace: EffectMap, position: int) -> tuple[str, int]:
    """A position in words, the last token, a token of the subject, or the token itself; and which mention of it."""
    label = trace.labels["position"][position]
    if len(trace.prompts) != 1:
        return f"the {label}", 0
    prompt = trace.prompts[0]
    if position == prompt.position:
        return "the last token", 0
    run = [position] if position in prompt.subject else []
    while run and run[0] - 1 in prompt.subject:
        run.insert(0, run[0] - 1)
    while run and run[-1] + 1 in prompt.subject:
        run.append(run[-1] + 1)
    within = prompt.subject if run else range(len(prompt.tokens))
    alike = [i for i in within if prompt.tokens[i].strip() == label.strip()]
    mention = alike.index(position) + 1 if len(alike) > 1 else 0
    if len(run) > 1:
        which = "last" if position == run[-1] else _ordinal(run.index(position) + 1)
        return f"the {which} token of {''.join(prompt.tokens[i] for i in run).strip()}", mention
    return label.strip() or repr(label), mention
