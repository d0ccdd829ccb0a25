"""Edits: what to add to a base model to rewrite facts, exactly removable, whatever the method."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.types.delta import NO_DELTA, Delta
from workbench.types.earlier import EarlierEdit, fingerprint_with
from workbench.types.fact import Fact
from workbench.types.history import Step
from workbench.types.recipe import BaseRecipe
from workbench.types.selection import Selection, Site
from workbench.types.write import Write

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class EditStage:
    """One stage of an edit.

    Args:
        name: Its name: ``"unlearn"`` or ``"learn"``, or another of the recipe's.
        delta: What it adds, without the stages before it.
    """

    name: str
    delta: Delta


@dataclass(frozen=True)
class SiteModule:
    """The module that holds a gate site.

    Args:
        layer, site: The gate site.
        module: The module's full name.
        start: Where the site begins in the module's IA3 vector (modules may fuse several sites).
        size: That vector's length.
        on_input: Whether it multiplies the module's input, else its output.
        groups: The vector is so many equal blocks, and each has its share of the site (GPT-NeoX interleaves q, k and v
            by head); 1 where the site is one run.
    """

    layer: int
    site: Site
    module: str
    start: int
    size: int
    on_input: bool
    groups: int = 1


@dataclass(frozen=True)
class EditModules:
    """The names by which an edit is exported without its model at hand.

    Args:
        layers: The path of the layer list: ``"model.layers"``.
        fan_in_fan_out: Whether linear modules store their weight transposed (GPT-2's Conv1D).
        sites: The modules of the gate sites that the edit may touch.
    """

    layers: str
    fan_in_fan_out: bool
    sites: tuple[SiteModule, ...] = ()

    def joined(self, other: EditModules) -> EditModules:
        """The names of both."""
        sites = {(s.layer, s.site): s for s in (*self.sites, *other.sites)}
        return replace(self, sites=tuple(sites.values()))


_ID_FIELDS = ("retain_ids", "selection_ids", "fisher_ids", "closed_relations")


@dataclass(frozen=True, kw_only=True)
class OtherFit:
    """The fit that was not returned, where ``rewrite`` made two.

    Args:
        neurons: How many could move.
        steps: Its recipe's ``steps``.
        learned: As ``Edit.learned``.
        seconds_to_select, seconds_to_fit: How long it took.
        error: Why there is no such fit, if it broke off.
    """

    neurons: int = 0
    steps: int | tuple[int, ...] | None = None
    learned: float | None = None
    seconds_to_select: float = 0.0
    seconds_to_fit: float = 0.0
    error: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Edit:
    """An edit holds what is added to a base model to rewrite facts, in stages that can be removed exactly.

    Args:
        stages: In the order they apply.
        selection: The components that were allowed to move; empty where all were.
        selector: How the selection came about: ``"given"`` (with what was left out of it, or measured), ``"all"``, the
            default selector's name, or how the method chose.
        recipe: The settings. Their type says which method made the edit.
        facts: The edited facts.
        retain_ids: Ids of the facts in the KL retain term.
        history: One ``Step`` per optimiser step, and one at the end of each stage; empty for a method without steps.
        base_fingerprint, base_name: The model that it was made for, and the only one that it fits: a base, or a base
            that carries the ``earlier`` edits.
        modules: Module names, to export the edit; None where they are not known.
        learned: The probability that three quarters of the training prompts give what the last stage teaches (geometric
            mean per token), before the edit was drawn back; None where it was not looked at. Of a closed form it is
            measured on what was written, not with the target vector.
        reached: The same of every stage that ran to its end, by its name, as ``learned`` of the last one: of
            ``unlearn`` the probability of its refusal, or how sure it is that the old answer is not said. Empty for a
            method without steps, and for edits of older versions.
        strength: That to which the edit was drawn back in the end, 1 where it was not. The stages have it in them.
        first_fit: The fit before this one, which taught less, if ``rewrite`` made two.
        second_fit: The fit after this one, if it taught less or broke off.
        selection_ids: Ids of the facts, other than the edited ones, whose answers chose the selection.
        fisher_ids: Ids of the facts whose answers the Fisher information or a covariance was measured on.
        writes: What a closed form wrote into each module, stage by stage; empty for trained edits.
        closed_relations: Relations for which the method was told to leave the edited subjects alone, from questions
            about them. Their rates are apart in a report.
        earlier: The edits that the model carried when this one was made on it, first to last; none for a base.
        provenance: Versions, seconds, time of creation, notes. Nothing is decided by it.

    Example:
        >>> edit
        Edit(france-capital: unlearn then learn, 4 components, 368 gates moved, base 'tiny' ...)
        >>> edit.stage_names, edit.recipe.steps, edit.used_ids
        (('unlearn', 'learn'), (8, 24), ('germany-capital', 'japan-capital'))
        >>> with wb.applied(model, edit) as edited:
        ...     print(wb.ask(model, fact.question), "->", wb.ask(edited, fact.question))
        Paris -> Rome
    """

    stages: tuple[EditStage, ...]
    selection: Selection
    selector: str
    recipe: BaseRecipe
    facts: tuple[Fact, ...]
    retain_ids: tuple[str, ...]
    history: tuple[Step, ...]
    base_fingerprint: str
    base_name: str
    modules: EditModules | None = None
    learned: float | None = None
    reached: dict[str, float] = field(default_factory=dict[str, float])
    strength: float = 1.0
    first_fit: OtherFit | None = None
    second_fit: OtherFit | None = None
    selection_ids: tuple[str, ...] = ()
    fisher_ids: tuple[str, ...] = ()
    writes: tuple[Write, ...] = ()
    closed_relations: tuple[str, ...] = ()
    earlier: tuple[EarlierEdit, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        ids = ", ".join(f.id for f in self.facts)
        return (
            f"Edit({ids}: {' then '.join(s.name for s in self.stages)}, {self.scope}, "
            f"{self.delta().words()}, {'' if self.shortfall is None else 'not fully learned, '}"
            f"base {self.base_name!r} {self.base_fingerprint[:12]})"
        )

    @property
    def scope(self) -> str:
        """What was allowed to move, in words: ``"3 components"``, or ``"whole model"``."""
        return f"{len(self.selection)} components" if len(self.selection) else "whole model"

    @property
    def picked(self) -> bool:
        """Whether its components were given, all that it moves or some of them; False of a choice of the method."""
        return self.selector.startswith("given")

    @property
    def method(self) -> str:
        """The name of the method that made it."""
        return self.recipe.method

    @property
    def used_ids(self) -> tuple[str, ...]:
        """Ids of all other facts whose answers were used: for selection, Fisher information and the KL term. Of edits
        that were joined, a fact that one held in place and another one edited is an edited one."""
        edited = {fact.id for fact in self.facts}
        used = dict.fromkeys((*self.retain_ids, *self.selection_ids, *self.fisher_ids))
        return tuple(id for id in used if id not in edited)

    @property
    def asked_recipe(self) -> BaseRecipe:
        """The recipe that ``rewrite`` was given: ``recipe``, but for the steps of a second fit."""
        if self.first_fit is None:
            return self.recipe
        changes: dict[str, Any] = {"steps": self.first_fit.steps}
        return replace(self.recipe, **changes)

    @property
    def shortfall(self) -> str | None:
        """In words, that what the last stage teaches was not learned in training itself: three quarters of the training
        prompts do not give it ``recipe.least_learned``. None where they do, and where it was not looked at (that is
        None, a fit that ``stop`` ended, an edit of an older version)."""
        wanted = self.recipe.least_learned
        if self.learned is None or wanted is None or self.learned >= wanted:
            return None
        return (
            f"not fully learned: three quarters of the training prompts give what is taught P = {self.learned:.2g} per "
            f"token, {wanted:g} is wanted"
        )

    @property
    def shortfalls(self) -> dict[str, str]:
        """In words, by stage, what ``reached`` falls short of: ``shortfall`` of the last one, and of one before it the
        probability from which on its prompts push no further (``recipe.hinge``). The first stage of the default is
        there as a rule: it takes the old answer away, which is what the second one begins from, and ends before its
        refusal is learned.

        Example:
            >>> list(edit.shortfalls)
            ['unlearn']
        """
        wanted = getattr(self.recipe, "hinge", None)
        found = {
            stage: f"ended early: three quarters of the training prompts give what it teaches P = {p:.2g} per token, "
            f"and push on up to {wanted:g}"
            for stage, p in self.reached.items()
            if wanted is not None and stage != self.stage_names[-1] and p < wanted
        }
        return found | ({} if self.shortfall is None else {self.stage_names[-1]: self.shortfall})

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages, in order."""
        return tuple(s.name for s in self.stages)

    @cached_property
    def id(self) -> str:
        """Fingerprint of what the edit does: the base, and every number of every stage, with the kind of delta."""
        hashed = hashlib.sha256(self.base_fingerprint.encode())
        for stage in self.stages:
            hashed.update(stage.name.encode())
            stage.delta.hash_into(hashed)
        return hashed.hexdigest()

    @property
    def root_fingerprint(self) -> str:
        """Fingerprint of the model without any edit: that under the first of the ``earlier`` ones."""
        return self.earlier[0].under if self.earlier else self.base_fingerprint

    @property
    def fingerprint_on_top(self) -> str:
        """Fingerprint of the model on which the edit was made with the whole edit on it: the base of the next one."""
        carried = [one.key for one in self.earlier]
        return fingerprint_with(self.root_fingerprint, [*carried, (self.id, self.stage_names[-1], 1.0)])

    def delta(self, stage: str | None = None, strength: float = 1.0) -> Delta:
        """Join what the stages up to ``stage`` (None: all) do, from no edit (strength 0) to all of it (1).

        Raises:
            ValueError: The edit has no such stage, or the strength is not a finite number.

        Example:
            >>> edit.delta().words(), edit.delta(strength=0.0).words()
            ('368 gates moved', '0 gates moved')
            >>> half, whole = edit.delta("unlearn", 0.5), edit.delta("unlearn")
            >>> round(half.largest_move() / whole.largest_move(), 3)
            0.5
        """
        if stage is not None and stage not in self.stage_names:
            raise ValueError(
                f"This edit has no stage {stage!r}; the recipe {self.recipe.name!r} made {list(self.stage_names)}."
            )
        return stages_delta(self.stages[: None if stage is None else self.stage_names.index(stage) + 1]).scaled(
            strength
        )

    def then(self, other: Edit) -> Edit:
        """Join both edits to one, this one first. It does what ``applied(stack=True)`` does, and can be saved, exported
        or merged.

        The stages of the other get a number where this edit has one of the same name. Its recipe and its selection are
        the other's; ``facts`` and the facts whose answers were used are those of both.

        Raises:
            ValueError: They are for different bases (the other was made neither for this one's base nor on top of this
                one, whole), or of different shapes at one place.

        Example:
            >>> lora = wb.recipes.LoRA(steps=2, retain_weight=0)
            >>> second = wb.rewrite(model, facts["japan-capital"], "L1H2", recipe=lora)
            >>> both = edit.then(second)
            >>> both.stage_names, both.delta().words()
            (('unlearn', 'learn', 'learn 2'), '368 gates moved, then rank 1 added to 1 module')
        """
        if other.base_fingerprint not in (self.base_fingerprint, self.fingerprint_on_top):
            under = f" It was made on top of {', then '.join(e.words for e in other.earlier)}." if other.earlier else ""
            raise ValueError(
                f"One edit is for {self.base_name!r} ({self.base_fingerprint[:16]}), the other for "
                f"{other.base_name!r} ({other.base_fingerprint[:16]}).{under} Only edits of one base, or one made on "
                "top of the other, follow each other; of several on top of each other join the last two first."
            )
        self.delta().then(other.delta())  # whether their shapes fit
        names, stages = list(self.stage_names), list(self.stages)
        for stage in other.stages:
            numbers = (f"{stage.name} {n}" for n in count(2))
            name = stage.name if stage.name not in names else next(n for n in numbers if n not in names)
            names.append(name)
            stages.append(EditStage(name, stage.delta))
        ids = {n: tuple(dict.fromkeys((*getattr(self, n), *getattr(other, n)))) for n in _ID_FIELDS}
        return replace(
            other,
            base_fingerprint=self.base_fingerprint,
            earlier=self.earlier,
            stages=tuple(stages),
            facts=tuple({f.id: f for f in (*self.facts, *other.facts)}.values()),
            history=(),
            modules=None if self.modules is None or other.modules is None else self.modules.joined(other.modules),
            learned=None,
            reached={},
            first_fit=None,
            second_fit=None,
            writes=(*self.writes, *other.writes),
            provenance={"edits": [self.id, other.id]},
            **ids,
        )

    def plot(self, **options: Any) -> go.Figure:
        """Draw loss, retain KL and answer probabilities by step (see ``workbench.plots.history_figure``).

        Example:
            >>> [line.name for line in edit.plot().data][:2]
            ['fact loss', 'KL to the base model']
        """
        from workbench.plots import history_figure

        return history_figure(self, **options)

    def save(self, path: str | Path) -> Path:
        """Write the edit to a folder (``edit.json`` and ``tensors.safetensors``), atomically. Returns the folder.

        Example:
            >>> folder = edit.save("france")
            >>> sorted(path.name for path in folder.iterdir())
            ['edit.json', 'tensors.safetensors']
        """
        from workbench.files.edits import save_edit

        return save_edit(self, path)

    def to_peft(self, path: str | Path, *, stage: str | None = None, model: Any = None) -> Path:
        """Write one plain PEFT adapter that does what the stages up to ``stage`` do together: IA3 for gates, LoRA for
        low-rank updates and, with the base ``model`` at hand, for both together where that is exact.

        ``peft.PeftModel.from_pretrained(base, path)`` loads it without this package. Returns the folder.

        Raises:
            ValueError: The edit has no such stage, does not say the module names of its base, or cannot be written as
                an adapter exactly; the message says why and what can be done.
            FileExistsError: There is something else of that name already.

        Example:
            >>> folder = edit.to_peft("adapter")
            >>> sorted(path.name for path in folder.iterdir())
            ['README.md', 'adapter_config.json', 'adapter_model.safetensors']
        """
        from workbench.editing.export import save_peft

        return save_peft(self, path, stage=stage, model=model)


def stages_delta(stages: Iterable[EditStage]) -> Delta:
    """What some stages do together."""
    total: Delta = NO_DELTA
    for stage in stages:
        total = total.then(stage.delta)
    return total
