"""Dry runs: what an edit would write, and how far it would reach, before it is made."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from workbench.editing.applied import check_under
from workbench.editing.methods.keyed import Keyed
from workbench.editing.methods.table import METHODS
from workbench.editing.rewrite import checked, rewrite, task_of
from workbench.editing.solved.keyed_rows import fixed_rows
from workbench.editing.solved.keys import keys_at
from workbench.editing.solved.places import Context, question_contexts
from workbench.editing.solved.spots import SITES, Place, module_name, name_within, weight_of
from workbench.editing.task import Movable, Task, retain_set
from workbench.facts.graph import same_subject
from workbench.facts.known import known_facts, pool_or_bundled
from workbench.models.load import LoadedModel
from workbench.types import (
    BaseRecipe,
    Delta,
    Deltas,
    Edit,
    Fact,
    FactSet,
    GateDelta,
    LowRankDelta,
    Selection,
    TrainedRecipe,
)
from workbench.types.cancelling import CancelFlag
from workbench.types.covariance import OutputModule
from workbench.types.dry_run import DryRun, Reach, ReachGroup
from workbench.types.mentions import find_subject
from workbench.types.plain import is_whole
from workbench.types.torch_settings import own_torch_settings

Sizes = Mapping[Place, Callable[[Tensor], Tensor]]
"""By module, from keys [n, d_in] to the size of the change that they see, [n]."""
MOST = 20
_MODULES: dict[str, OutputModule] = {site: module for module, site in SITES.items()}


@own_torch_settings()
def dry_run(
    model: LoadedModel,
    fact: Fact | FactSet | Sequence[Fact] | Edit,
    selection: Selection | str | int | None = None,
    *,
    recipe: BaseRecipe | str | None = None,
    retain: FactSet | Sequence[Fact] | None = None,
    pool: FactSet | None = None,
    most: int = MOST,
    seed: int = 0,
    progress: bool = True,
    cancel: CancelFlag | None = None,
) -> DryRun:
    """Tell what an edit would write and how far it would reach, without an edited model.

    What takes no training is made as ``rewrite`` would: a closed form, also where trained steps follow it
    (``wb.recipes.EditThenConsolidate``), UltraEdit and a context. Of a keyed update the rows that decide where it opens
    are solved for; of other methods only what may move is known before. How far it reaches another fact is read off the
    keys: what the written modules read at that fact's subject, in its own question and in the base's reply to it. Keys
    are the base's; what lower written layers do to the keys of higher ones is left out.

    Args:
        model: The base model; it is not changed.
        fact: One fact, or several that are rewritten together; or an edit that was made already, whose reach is told.
        selection, recipe, retain, pool: As in ``rewrite``; of an edit that was made, ``pool`` only.
        most: At most so many facts of each group: other facts about the subject, neighbours and controls (known facts
            of the pool's test split), drawn by ``seed``.
        seed: Of the draw.
        progress: Show a progress bar.
        cancel: Looked at between batches.

    Returns:
        For each fact that was looked at, the predicted change; for a closed form what it would write; warnings in
        words; and a note where steps after the closed form change what it wrote.

    Raises:
        ValueError: What ``rewrite`` refuses before it trains; ``most`` below 0; an edit of another base, or on a model
            with others on it than those that it was made on, or with a selection or recipe beside it.
        Cancelled: ``cancel`` was set.

    Source: denominators and norms as signs of edits that harm: Gupta et al. 2024 (2403.07175); that a key that opens to
        others breaks them: the association view of Meng et al. 2022 (2202.05262).

    Example:
        >>> recipe = wb.recipes.MEMIT(layers=(0, 1), steps=3, covariance="identity")
        >>> plan = wb.dry_run(model, fact, recipe=recipe, pool=facts)
        >>> [write.layer for write in plan.writes], plan.of("neighbour")[0].opening < 1.5
        ([0, 1], True)
    """
    if not (is_whole(most) and most >= 0):
        raise ValueError(f"most must be a whole number, 0 or more, got {most!r}.")
    notes: list[str] = []
    looking: dict[str, Any] = {"most": most, "seed": seed, "progress": progress, "cancel": cancel}
    if isinstance(fact, Edit):
        if selection is not None or recipe is not None or retain is not None:
            raise ValueError(
                "An edit that was made has its selection and recipe. Leave selection=, recipe=, retain= out."
            )
        check_under(model, fact, "dry_run")
        return _of_edit(model, fact, pool_or_bundled(pool), notes, **looking)
    facts, chosen, settings = checked(model, fact, selection, recipe)
    if retain is not None and isinstance(settings, TrainedRecipe):
        retain_set(model, facts, retain, settings, pool, progress, cancel)
    solved = settings if not settings.stage_steps else settings.closed_form
    if solved is not None:
        options: dict[str, Any] = {"recipe": solved, "retain": retain, "pool": pool}
        edit = rewrite(model, facts, chosen, **options, progress=progress, cancel=cancel)
        if solved != settings:
            notes.append(
                f"This is {METHODS[edit.method].title}, which comes first. The {sum(settings.stage_steps)} steps after "
                "it change how much is written in its directions, which is not known before."
            )
        plan = _of_edit(model, edit, pool_or_bundled(pool), notes, **looking)
        return replace(plan, method=METHODS[settings.method].title)
    task = task_of(model, facts, chosen, settings, retain=retain, pool=pool, cancel=cancel, progress=progress)
    if isinstance(settings, Keyed):
        return _of_keyed(model, task, settings, notes, **looking)
    return _of_trained(model, task, notes, **looking)


def _of_edit(model: LoadedModel, edit: Edit, pool: FactSet, notes: list[str], **looking: Any) -> DryRun:
    """What an edit writes and how far it reaches."""
    sizes = _known(model, edit.delta(), notes)
    return DryRun(
        facts=tuple(f.id for f in edit.facts),
        method=METHODS[edit.method].title,
        selection=edit.selection,
        selector=edit.selector,
        moves=edit.delta().words(),
        reach=_reach(model, list(edit.facts), pool, sizes, edit.used_ids, notes, **looking),
        writes=edit.writes,
        closed_relations=edit.closed_relations,
        notes=tuple(notes),
    )


def _of_keyed(model: LoadedModel, task: Task, recipe: Keyed, notes: list[str], **looking: Any) -> DryRun:
    """What a keyed update's rows, which are fixed before it is trained, open to at subjects."""
    fixed = fixed_rows(task, recipe)
    at_subject, at_answer = fixed.openings[: fixed.n_subject], fixed.openings[fixed.n_subject :]
    if at_answer:
        layers = sorted({opening.place.layer for opening in at_answer})
        notes.append(
            f"At the answer's place it opens too (L{layers[0]} to L{layers[-1]}), in replies: how far that reaches is "
            "seen by wb.evaluate only."
        )
    sizes: dict[Place, Callable[[Tensor], Tensor]] = {}
    for opening in at_subject:
        scaled = opening.rows.T * opening.size  # U is trained in units of the residual stream after the layer
        sizes[opening.place] = lambda keys, scaled=scaled: (keys @ scaled).norm(dim=1)
    width = sum(len(opening.rows) for opening in fixed.openings)
    return DryRun(
        facts=tuple(f.id for f in task.facts),
        method=METHODS[recipe.method].title,
        selection=fixed.selection,
        selector=fixed.selector,
        moves=f"{width} rows of {len({o.place for o in fixed.openings})} modules are fixed, what they write is trained",
        writes=fixed.writes(model, recipe.stages[-1]),
        reach=_reach(model, task.facts, pool_or_bundled(task.pool), sizes, None, notes, **looking),
        known=False,
        closed_relations=fixed.closing.relations,
        notes=tuple(notes),
    )


def _of_trained(model: LoadedModel, task: Task, notes: list[str], **looking: Any) -> DryRun:
    """What an edit that is trained may move, and how far that reaches."""
    method = METHODS[task.recipe.method]
    if method.plan is None:
        raise ValueError(
            f"{method.title} does not say what it would move, so there is no dry run of it. Give its row in the table "
            "of methods a plan."
        )
    moved = method.plan(task)
    if moved.unknown:
        notes.append(
            f"{method.title} {moved.unknown}, so nothing is known before: how far it reaches is seen by wb.evaluate "
            "only."
        )
    sizes = _movable(model, moved, notes)
    return DryRun(
        facts=tuple(f.id for f in task.facts),
        method=method.title,
        selection=moved.selection,
        selector=moved.selector,
        moves=moved.words,
        reach=_reach(model, task.facts, pool_or_bundled(task.pool), sizes, None, notes, **looking),
        known=False,
        notes=tuple(notes),
    )


def _known(model: LoadedModel, delta: Delta, notes: list[str]) -> Sizes:
    """The size of what a delta adds to the outputs of output projections: |dW k|."""
    architecture = model.architecture
    changes: dict[Place, list[Callable[[Tensor], Tensor]]] = {}
    for part in delta.parts if isinstance(delta, Deltas) else (delta,):
        if isinstance(part, LowRankDelta):
            for (layer, name), (u, v) in part.factors.items():
                place = next((p for p in _places(layer) if name_within(architecture, p) == name), None)
                if place is None:
                    notes.append(f"L{layer} {name}: not an output projection, so its reach is not told.")
                    continue
                changes.setdefault(place, []).append(lambda keys, u=u, v=v: keys @ v.double().T @ u.double().T)
        elif isinstance(part, GateDelta):
            for (layer, site), gate in part.gates.items():
                if site not in _MODULES:
                    notes.append(_no_reach(layer, site))
                    continue
                place = Place(layer, _MODULES[site])
                moved = weight_of(model.hf, module_name(architecture, place)) * (gate.double() - 1)
                changes.setdefault(place, []).append(lambda keys, moved=moved: keys @ moved.T)
        else:
            notes.append(f"{part.words()}: its reach is not told.")

    def size_of(of: Sequence[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
        return lambda keys: torch.stack([change(keys) for change in of]).sum(0).norm(dim=1)

    return {place: size_of(of) for place, of in changes.items()}


def _places(layer: int) -> tuple[Place, Place]:
    return Place(layer, "mlp"), Place(layer, "attn")


def _no_reach(layer: int, site: str) -> str:
    return f"L{layer} {site}: not an input of an output projection, so its reach is not told."


def _movable(model: LoadedModel, moved: Movable, notes: list[str]) -> Sizes:
    """The size of a change of random directions on what may move."""
    sizes: dict[Place, Callable[[Tensor], Tensor]] = {}
    for (layer, site), entries in moved.entries.items():
        if site not in _MODULES:
            notes.append(_no_reach(layer, site))
            continue
        place = Place(layer, _MODULES[site])
        index = torch.tensor(list(entries))
        weight = weight_of(model.hf, module_name(model.architecture, place))[:, index]
        scale = weight.norm(dim=0) if moved.gates else torch.ones(len(index), dtype=torch.float64)
        sizes[place] = lambda keys, index=index, scale=scale: (keys[:, index] * scale).norm(dim=1)
    return sizes


def _others(
    model: LoadedModel,
    facts: Sequence[Fact],
    pool: FactSet,
    used: Collection[str],
    most: int,
    seed: int,
    progress: bool,
    cancel: CancelFlag | None,
) -> dict[ReachGroup, list[Fact]]:
    """Facts that the edit should leave alone, which the model knows, by group; no fact is in two. Those whose answers
    an edit may use, and those that it used, say nothing of others, as in ``evaluate``."""
    spared = [f for f in pool if f.role == "retain" or f.id in used]
    free = pool.without([*facts, *spared])
    near: dict[ReachGroup, list[Fact]] = {
        "same subject": list({f.id: f for edited in facts for f in same_subject(free, edited)}.values()),
        "neighbour": list({f.id: f for edited in facts for f in free.neighbours(edited)}.values()),
        "control": list(free.core.filter(split="test")),
    }
    draw, taken = random.Random(seed), set[str]()
    out: dict[ReachGroup, list[Fact]] = {}
    for group, members in near.items():
        fresh = [f for f in members if f.id not in taken]
        known = known_facts(model, fresh, progress=progress, cancel=cancel) if fresh else ()
        chosen = list(known)
        if len(chosen) > most:
            chosen = [chosen[i] for i in sorted(draw.sample(range(len(chosen)), most))]
        taken |= {f.id for f in chosen}
        if chosen:
            out[group] = chosen
    return out


def _reach(
    model: LoadedModel,
    edited_facts: Sequence[Fact],
    pool: FactSet,
    sizes: Sizes,
    used: Collection[str] | None,
    notes: list[str],
    *,
    most: int,
    seed: int,
    progress: bool,
    cancel: CancelFlag | None,
) -> tuple[Reach, ...]:
    """How far each fact is reached, as means over its subject's places; nothing where no size is known, or no place of
    an edited fact's subject. The opening is of all modules together, each by what it writes: they add to one stream,
    and a wide opening in a module that writes next to nothing reaches nobody.

    Args:
        used: Ids of the facts whose answers made the update; None where it is not known yet.
    """
    if not sizes:
        return ()
    groups: dict[ReachGroup, Sequence[Fact]] = {"edited": edited_facts}
    groups |= _others(model, edited_facts, pool, used or (), most, seed, progress, cancel)
    facts: list[tuple[ReachGroup, Fact]] = [(group, fact) for group, members in groups.items() for fact in members]
    contexts = _contexts(model, [fact for _, fact in facts], notes, cancel)
    keys = keys_at(model, contexts, list(sizes), cancel=cancel)
    whose = torch.tensor([c.fact for c in contexts for _ in c.subject])
    edited = torch.tensor([group == "edited" for group, _ in facts])[whose]
    if not bool(edited.any()):
        return ()
    change = torch.zeros(len(facts), dtype=torch.float64)
    written, at_edited = torch.zeros(len(facts), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for place, size_of in sizes.items():
        moved = size_of(keys[place])
        out = (keys[place] @ weight_of(model.hf, module_name(model.architecture, place)).T).norm(dim=1)
        change = torch.maximum(change, _means(moved / out, whose, len(facts)))
        written += _means(moved, whose, len(facts))
        at_edited += moved[edited].mean()
    seen = set(whose.tolist())
    return tuple(
        Reach(
            fact_id=fact.id,
            group=group,
            change=float("nan") if used is None else float(change[i]),
            opening=float(written[i] / at_edited),
        )
        for i, (group, fact) in enumerate(facts)
        if i in seen
    )


def _contexts(model: LoadedModel, facts: Sequence[Fact], notes: list[str], cancel: CancelFlag | None) -> list[Context]:
    """Of each fact the first question that names its subject, with the base's reply; facts without one are left out."""
    asked = [next((q for q in fact.training_questions if find_subject(q, fact.subject)), None) for fact in facts]
    named = [i for i, question in enumerate(asked) if question is not None]
    if len(named) < len(facts):
        lost = ", ".join(fact.id for fact, question in zip(facts, asked, strict=True) if question is None)
        notes.append(f"Left out, since no question of theirs names the subject: {lost}.")
    found = question_contexts(model, [facts[i] for i in named], [(asked[i] or "",) for i in named], cancel=cancel)
    return [Context(c.row, c.subject, c.form, named[c.fact]) for c in found]


def _means(values: Tensor, whose: Tensor, n: int) -> Tensor:
    """Means over the places of each fact, [n]; 0 where it has none."""
    sums = torch.zeros(n, dtype=torch.float64).index_add_(0, whose, values)
    return sums / whose.bincount(minlength=n).clamp(min=1)
