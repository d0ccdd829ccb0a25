"""Keys: what an output projection reads at the subject's last tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.editing.solved.places import Context
from workbench.editing.solved.spots import Place, Spot, SpotEngine, engine_of, key_spot
from workbench.editing.training.batching import Prepared, PreparedRow
from workbench.editing.training.rows import Row, end_of_answer
from workbench.language.padding import common_beginning
from workbench.models.engine import KeysValues
from workbench.models.load import LoadedModel
from workbench.types.cancelling import PREPARING, CancelFlag, check_cancel

Addition = Callable[[Tensor, Tensor], Tensor]
"""From states [rows, tokens, width] and where the subject is [rows, tokens] to other states."""


class Group:
    """Contexts that begin alike, with everything below a layer computed.

    Args:
        engine: Runs the model, or an edited view of it.
        contexts: The contexts; ``order`` are their places among all.
        start: The first layer that may change.
        cancel: As in ``rewrite``.
    """

    def __init__(
        self,
        engine: SpotEngine,
        contexts: Sequence[Context],
        order: Sequence[int],
        start: int,
        cancel: CancelFlag | None = None,
    ) -> None:
        self.contexts, self.order, self.start = list(contexts), list(order), start
        # The whole answer counts: what stands before the point of departure is held in place.
        rows = [Row(c.row.prompt, c.row.answer) for c in contexts]
        first = min(min(c.subject) for c in contexts)
        shared = min(common_beginning([row.prompt for row in rows]), first)
        self.prepared = Prepared(engine, rows, start, shared, cancel=cancel)
        self.rows: list[PreparedRow] = self.prepared.rows

    def prefix(self, engine: SpotEngine) -> KeysValues | None:
        """Keys and values of what they begin with, as the engine's view computes them."""
        beginning = self.prepared.beginning
        return None if beginning is None else engine.resumed_keys_values(beginning, self.start)

    def parts(self, places: Sequence[int] | None = None) -> list[list[int]]:
        """Places within the group, few enough to be computed at once."""
        chosen = list(range(len(self.rows))) if places is None else list(places)
        return [[chosen[i] for i in part] for part in self.prepared.parts([self.rows[i] for i in chosen])]

    def where(self, places: Sequence[int], width: int, device: torch.device) -> Tensor:
        """True at the subject's last tokens of some contexts, [rows, width]."""
        mask = torch.zeros(len(places), width, dtype=torch.bool)
        for row, i in enumerate(places):
            mask[row, [at - self.prepared.shared for at in self.contexts[i].subject]] = True
        return mask.to(device)


class PreparedContexts:
    """Contexts made ready to be read from a layer on, grouped by what they begin with.

    Args:
        model: The base model.
        contexts: The contexts.
        start: The first layer that may change (the last one at most).
        view: An edited view of the model; None for the base. Below ``start`` it must be the base.
        cancel: As in ``rewrite``.
    """

    def __init__(
        self,
        model: LoadedModel,
        contexts: Sequence[Context],
        start: int,
        *,
        view: Any = None,
        cancel: CancelFlag | None = None,
    ) -> None:
        self.model, self.contexts = model, list(contexts)
        self.start = min(start, model.shape.n_layers - 1)
        engine = engine_of(model, view)
        forms = dict.fromkeys(c.form for c in self.contexts)
        by_form = [[i for i, c in enumerate(self.contexts) if c.form == form] for form in forms]
        with torch.no_grad():
            self.groups = [
                Group(engine, [self.contexts[i] for i in order], order, self.start, cancel) for order in by_form
            ]
        self._cancel = cancel

    @property
    def facts(self) -> Tensor:
        """Of each column (occurrence of a subject), which fact it is of, [n]."""
        return torch.tensor([c.fact for c in self.contexts for _ in c.subject])

    @property
    def context_of_column(self) -> Tensor:
        """Of each column, which context it stands in, [n]."""
        return torch.tensor([i for i, c in enumerate(self.contexts) for _ in c.subject])

    def read(self, spots: Sequence[Spot], *, view: Any = None) -> dict[Spot, Tensor]:
        """States of some spots at every occurrence of the subject, context by context: [n, width] float64, on the CPU.

        Args:
            spots: What is read, none below ``start``.
            view: The view that is run; None for the base.
        """
        engine = engine_of(self.model, view)
        by_context: dict[Spot, list[Tensor]] = {spot: [torch.empty(0)] * len(self.contexts) for spot in spots}
        with torch.no_grad():
            for group in self.groups:
                prefix = group.prefix(engine)
                for part in group.parts():
                    check_cancel(self._cancel, PREPARING)
                    batch = group.prepared.batch([group.rows[i] for i in part])
                    states = engine.read(batch.resid, spots, start=self.start, prefix=prefix)
                    mask = group.where(part, batch.resid.shape[1], batch.resid.device)
                    for spot, state in states.items():
                        for row, i in enumerate(part):
                            by_context[spot][group.order[i]] = state[row][mask[row]].to("cpu", torch.float64)
        return {spot: torch.cat(parts) for spot, parts in by_context.items()}


def keys_at(
    model: LoadedModel,
    contexts: Sequence[Context],
    places: Sequence[Place],
    *,
    view: Any = None,
    cancel: CancelFlag | None = None,
) -> dict[Place, Tensor]:
    """Keys of the subject at every occurrence in every context, by module, [n, d_in] float64.

    Args:
        model: The base model.
        contexts: The contexts; columns are in their order, and within one from left to right.
        places: The modules.
        view: An edited view of the model; None for the base.
        cancel: As in ``rewrite``.
    """
    lowest = min(place.layer for place in places)
    prepared = PreparedContexts(model, contexts, lowest, view=view, cancel=cancel)
    states = prepared.read([key_spot(place) for place in places], view=view)
    return {place: states[key_spot(place)] for place in places}


def mean_by_fact(columns: Tensor, facts: Tensor) -> Tensor:
    """Means over the columns of each fact: [facts, width] of [n, width]."""
    n = int(facts.max()) + 1
    sums = torch.zeros(n, columns.shape[1], dtype=columns.dtype).index_add_(0, facts, columns)
    return sums / facts.bincount(minlength=n)[:, None]


def token_keys(
    model: LoadedModel,
    texts: Sequence[Sequence[int]],
    places: Sequence[Place],
    take: Callable[[dict[Place, Tensor]], None],
    *,
    shared: int = 0,
    cancel: CancelFlag | None = None,
) -> None:
    """Give the keys of every token of texts, but for the shared ones, to a function: [tokens, d_in] by module, some
    texts at a time.

    Args:
        model: The base model.
        texts: Token ids; what all begin with and leave out is read once.
        places: The modules.
        take: Called with the keys of each part.
        shared: How many first tokens of each are left out.
        cancel: As in ``rewrite``.
    """
    engine = engine_of(model)
    ending = end_of_answer(model) or (0,)
    # A row's last token is not read: one is put behind each text.
    rows = [Row(tuple(text), ending[:1]) for text in texts]
    spots = [key_spot(place) for place in places]
    alike = min(common_beginning(texts), shared) if texts else 0
    own_shared = shared - alike
    prepared = Prepared(engine, rows, 0, alike, cancel=cancel)
    with torch.no_grad():
        prefix = None if prepared.beginning is None else engine.resumed_keys_values(prepared.beginning, 0)
        for part in prepared.parts(prepared.rows):
            check_cancel(cancel, PREPARING)
            own = [prepared.rows[i].resid for i in part]
            resid = torch.nn.utils.rnn.pad_sequence(own, batch_first=True)
            at, ends = torch.arange(resid.shape[1])[None], torch.tensor([len(x) for x in own])[:, None]
            real = (at >= own_shared) & (at < ends)
            states = engine.read(resid, spots, start=0, prefix=prefix)
            take({place: states[key_spot(place)][real.to(resid.device)] for place in places})
