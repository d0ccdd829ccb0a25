"""GRACE: a codebook beside one module puts a trained value in the place of its output near the fact's own states."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from workbench.editing.memories.codebook import KeyBook, Label
from workbench.editing.memories.place import MemoryPlace, median_distance, memory_place
from workbench.editing.solved.keys import keys_at
from workbench.editing.solved.places import Context, SubjectMissing, context_of
from workbench.editing.solved.spots import Place
from workbench.editing.task import Movable, Task, retain_set
from workbench.editing.training.fit_rows import FitRows
from workbench.editing.training.rows import Row
from workbench.editing.training.weights import fit_weights
from workbench.facts.known import pool_or_bundled
from workbench.facts.retained import retain_pool
from workbench.language.prompts import prompt_ids
from workbench.models import LoadedModel
from workbench.models.deltas.routing import nearest_key
from workbench.models.views import shared_view
from workbench.types import Codebook, Delta, Edit, Fact, FactSet, MemoryDelta, Selection, StageName, TrainedRecipe
from workbench.types.cancelling import CancelFlag
from workbench.types.plain import is_whole
from workbench.types.recipe import Check
from workbench.types.setting import SEED, Setting

ValueStart = Literal["warm", "cold"]
KeysFrom = Literal["question", "questions"]


@dataclass(frozen=True, kw_only=True)
class GRACE(TrainedRecipe):
    """The settings of a GRACE edit: keys at the subject's last token, with values that are trained.

    Beside the output projection of one MLP (or, with a selection, of one attention layer) stands a codebook. Its keys
    are what that module reads at the subject's last token; where a token's state is within the radius of its nearest
    key, the value takes the place of the module's output. Only the values are trained. Everything farther from the keys
    than their radii is as in the base, to the bit.

    Radii are measured in the model's own units: ``radius`` times the median distance between the subjects' states of
    ``unrelated`` questions about other facts (their answers are not used). How keys are added, grow and are split is in
    ``workbench.editing.memories.codebook``.

    On a model that carries a codebook at that module already (a sequential edit) the new one is another codebook: its
    keys neither widen nor split the earlier one's balls, and where both are in reach the later value is put out. The
    public code goes on with one codebook; rewrite the facts together for that. Where a codebook is in reach, whatever
    changes that module's weights, before or after it, changes nothing.

    Args:
        layer: The layer; None: a quarter of the way up, or the selection's.
        radius: Of a new key, as a share of that median distance. Larger radii reach more wordings, and other facts.
        keys: Whose states are keys: those of the fact's own ``"question"`` alone, as published, or of all training
            ``"questions"`` (with ``contexts`` in contexts too).
        grow: A key covers a further text of the same fact by a wider radius, as published; False: that text gets a key.
        start: A value starts as what the module puts out there (``"warm"``) or as random numbers (``"cold"``).
        unrelated: How many questions the radius is measured on.
        learning_rate: AdamW's, in root mean squares of the module's output there.
        stages: By default ``"learn"`` alone; a later stage's values take the place of an earlier one's.

    Raises:
        ValueError: A value out of range; the message names it and what is allowed.

    Source: Hartvigsen et al. 2022 (2211.11031), and its public code. Deviations: the key is at the subject's last
    token, at each of its occurrences before the answer, and not at the last token of the prompt, which is the chat
    template's own and alike in all questions; hence a layer a quarter of the way up, for later ones to read the value.
    Every token is looked up by its own state, where the published code looks at one position and once a text. The
    radius is relative.

    Example:
        >>> recipe = wb.recipes.GRACE(steps=3, contexts=False)
        >>> edit = wb.rewrite(model, fact, recipe=recipe, pool=facts, progress=False)
        >>> edit.delta().kind, edit.stage_names
        ('memory', ('learn',))
    """

    method: ClassVar[str] = "grace"
    without_selection: ClassVar[str] = "A codebook beside one MLP"
    trains: ClassVar[str] = "values of a memory"
    one_module: ClassVar[bool] = True
    panel_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="radius", tip="How far from its key a state may be, as a share of usual distances", low=0, high=2),
        SEED,
    )

    name: str = "grace"
    layer: int | None = None
    radius: float = 0.2
    keys: KeysFrom = "questions"
    grow: bool = False
    start: ValueStart = "warm"
    unrelated: int = 40
    stages: tuple[StageName, ...] = ("learn",)
    steps: int | tuple[int, ...] | None = 30
    learning_rate: float = 0.2
    retain_weight: float = 0.0
    retain_size: int = 0
    early_stop: float | None = 0.8

    def _checks(self) -> Iterator[Check]:
        yield from super()._checks()
        yield "layer", self.layer is None or (is_whole(self.layer) and self.layer >= 0), "None or a layer from 0"
        yield "radius", 0 < self.radius < float("inf"), "a positive number"
        yield "keys", self.keys in get_args(KeysFrom), f"one of {get_args(KeysFrom)}"
        yield "start", self.start in get_args(ValueStart), f"one of {get_args(ValueStart)}"
        yield "unrelated", is_whole(self.unrelated) and self.unrelated >= 2, "a whole number from 2"
        yield "retain_weight", self.retain_weight == 0, "0: what is out of reach of the keys cannot move"


DEPTH = 0.23
"""Of the default layer, as a share of the model's."""


def plan_grace(task: Task) -> Movable:
    """Where the codebook would stand."""
    recipe = task.recipe
    assert isinstance(recipe, GRACE)
    place = memory_place(task.model, task.selection, recipe.layer, DEPTH)
    return Movable(
        selection=task.selection if isinstance(task.selection, Selection) else place.selection,
        selector=place.selector(task.selection),
        words=f"a codebook beside L{place.layer} {place.module} may get values",
        unknown="moves tokens within a radius of its keys only",
    )


def make_grace(task: Task) -> Edit:
    """Train a codebook for a task."""
    recipe, model = task.recipe, task.model
    assert isinstance(recipe, GRACE)
    began = time.perf_counter()
    place = memory_place(model, task.selection, recipe.layer, DEPTH)
    rows = FitRows(model, task.facts, recipe, cancel=task.cancel)
    unrelated = unrelated_questions(model, task.facts, task.retain, task.pool, recipe)
    median = median_distance(place.read(_states(model, place, unrelated, task.cancel)))
    book, states = _keys(model, place, rows, recipe, recipe.radius * median, task.cancel)
    values = _Values(model, place, book, states, recipe)
    inner = replace(task, selection=place.selection if task.selection is None else task.selection, retain=FactSet())
    edit = fit_weights(
        inner,
        place.layer,
        values.view,
        {"values": values.parameter},
        values.read,
        _nothing,
        rows=rows,
        about=lambda: {"selector": place.selector(task.selection)},
        began=began,
    )
    measured = {"keys": len(book.keys), "median_distance": round(median, 4), "radii": [round(r, 4) for r in book.radii]}
    return replace(edit, provenance={**edit.provenance, "codebook": measured})


def unrelated_questions(
    model: LoadedModel,
    facts: Sequence[Fact],
    retain: FactSet | Sequence[Fact] | None,
    pool: FactSet | None,
    recipe: GRACE,
) -> list[Context]:
    """Questions about other facts, to measure how far states of different subjects are apart.

    Raises:
        ValueError: There are fewer than two.
    """
    given = () if retain is None else retain_set(model, facts, retain, recipe, pool, False)
    others = list(given) or list(retain_pool(pool_or_bundled(pool)).filter(role="retain"))
    random.Random(recipe.seed).shuffle(others)
    chosen = [fact for fact in others if not any(fact.overlaps(edited) for edited in facts)]
    found: list[Context] = []
    for fact in chosen:
        prompt = prompt_ids(model, fact.question, "chat")
        try:
            found.append(context_of(model, Row(tuple(prompt), tuple(prompt[-1:])), fact.subject))
        except SubjectMissing:
            continue
        if len(found) == recipe.unrelated:
            break
    if len(found) < 2:
        raise ValueError(
            f"The radius is measured on questions about other facts, and {len(found)} of the pool name their subject; "
            "2 are the least. Give retain=[...] or a larger pool=."
        )
    return found


def _states(model: LoadedModel, place: MemoryPlace, contexts: Sequence[Context], cancel: CancelFlag | None) -> Tensor:
    """What the module is given at the subjects' last tokens, [n, d_in] float32."""
    at = Place(place.layer, "mlp" if place.site == "post" else "attn")
    return keys_at(model, contexts, [at], cancel=cancel)[at].float()


def _keys(
    model: LoadedModel,
    place: MemoryPlace,
    rows: FitRows,
    recipe: GRACE,
    radius: float,
    cancel: CancelFlag | None,
) -> tuple[KeyBook, Tensor]:
    """The codebook's keys, one fact after the other, as if each text were an edit of its own; and the whole states that
    they are read from, [n, d_in].

    Raises:
        SubjectMissing: No text of a fact names its subject.
    """
    book = KeyBook(radius, grow=recipe.grow)
    whole: list[Tensor] = []
    for fact, wanted in zip(rows.facts, rows.wanted(recipe.stages[-1]), strict=True):
        if recipe.keys == "question":
            own = tuple(prompt_ids(model, fact.question, "chat"))
            wanted = [row for row in wanted if row.prompt == own] or wanted[:1]
        contexts = _with_subject(model, wanted, fact)
        taught = fact.target if recipe.stages[-1] == "learn" else fact.refusal
        label: Label = tuple(model.token_ids(f" {taught}"))
        for state in _states(model, place, contexts, cancel):
            book.add(place.read(state), label)
            whole += [state] * (len(book.keys) - len(whole))
    return book, torch.stack(whole)


def _with_subject(model: LoadedModel, rows: Sequence[Row], fact: Fact) -> list[Context]:
    """Those rows that name their subject; the error of the last where none does."""
    found: list[Context] = []
    missing: SubjectMissing | None = None
    for row in rows:
        try:
            found.append(context_of(model, row, fact.subject))
        except SubjectMissing as error:
            missing = error
    if not found and missing is not None:
        raise missing
    return found


class _Values:
    """The values of a codebook in training, on a view of their own.

    Args:
        model: The model.
        place: The module that they are beside.
        book: Their keys.
        recipe: How they start.
    """

    def __init__(self, model: LoadedModel, place: MemoryPlace, book: KeyBook, states: Tensor, recipe: GRACE) -> None:
        self._place, self._labels = place, tuple(book.labels)
        self.view = shared_view(model.runner)
        module: Any = self.view.get_submodule(place.name)
        weight: Tensor = module.weight
        self._keys = torch.stack(book.keys).to(weight.device)
        self._radii = torch.tensor(book.radii, device=weight.device)
        with torch.no_grad():
            warm = module(states.to(weight)).float()
        self._unit = warm.square().mean(-1, keepdim=True).sqrt()
        cold = torch.rand(warm.shape, generator=torch.Generator().manual_seed(recipe.seed)).to(warm) * self._unit
        self._begin = warm if recipe.start == "warm" else cold
        self.parameter = nn.Parameter(torch.zeros_like(warm), requires_grad=False)
        module.register_forward_hook(self._look_up)

    def _values(self) -> Tensor:
        return self._begin + self._unit * self.parameter

    def _look_up(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """What the codebook on the model will do, as a function of the values."""
        states = args[0].reshape(-1, args[0].shape[-1])
        key, fires = nearest_key(self._place.read(states), self._keys, self._radii)
        flat = output.reshape(-1, output.shape[-1])
        looked_up = torch.where(fires[:, None], self._values()[key].to(flat.dtype), flat)
        # A text that no key reaches depends on the values too, if only by 0, so that it can go backward.
        return (looked_up + 0 * self.parameter.sum().to(flat.dtype)).view(output.shape)

    def read(self, before: Delta | None) -> Delta:
        """The codebook with the values as they are now."""
        columns = None if self._place.columns is None else torch.tensor(self._place.columns)
        book = Codebook(self._keys, self._values(), self._radii, self._labels, columns)
        return MemoryDelta({(self._place.layer, self._place.module): (book,)})


def _nothing() -> None:
    """No gradient is unwanted."""
