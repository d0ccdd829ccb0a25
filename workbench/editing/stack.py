"""EditStack: many edits on one base as layers, which are turned on and off, moved, scaled and removed exactly."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import SupportsIndex, cast

from workbench.editing.applied import check_base, chosen_stages, mounted_view
from workbench.editing.stack_answers import answers_of
from workbench.editing.stack_order import fingerprint_of, misplaced, on_another_model
from workbench.editing.stack_overlaps import overlaps_of
from workbench.files.stacks import load_stack_layers, save_stack
from workbench.models.load import AppliedEdit, LoadedModel
from workbench.types import NO_DELTA, Delta, Edit, Fact, FactSet
from workbench.types.cancelling import CancelFlag
from workbench.types.delta.base import finite
from workbench.types.fact import as_facts
from workbench.types.plain import shortened
from workbench.types.stack import StackAnswers, StackLayer, StackOverlaps
from workbench.types.torch_settings import own_torch_settings


class EditStack:
    """Many edits of one base, in the order in which they act. Operations change the stack and return it, so that they
    can be chained; ``model`` is made anew after each, and models given before stay as they are.

    The base is never changed: a stack whose edits are all off, or removed, is the base to the bit, and so is every
    other state equal to a stack that was made that way. An edit that was made on top of others (sequential editing) may
    not be moved below them. Where they are off, scaled or removed it stays, and ``notes`` says that it acts on another
    model than the one that it was made on.

    Args:
        model: The base model; it is not changed.
        edits: The edits, first to last: each made for the base, or on top of just those before it.

    Raises:
        ValueError: An edited model, an edit of another base, or one that was made on top of others than those before
            it; the message names both fingerprints, and which edits are missing.

    Example:
        >>> recipe = wb.Recipe(steps=(8, 24), contexts=False)
        >>> stack = wb.EditStack(model, [edit])
        >>> second = wb.rewrite(stack.model, facts["japan-capital"], "L1MLP L2MLP", recipe=recipe, pool=facts)
        >>> stack.add(second)
        EditStack('tiny': france-capital, japan-capital)
        >>> stack.toggle(0)
        EditStack('tiny': france-capital (off), japan-capital)
        >>> stack.notes
        ('japan-capital was made on top of france-capital, and acts without it here: ...',)
        >>> wb.ask(stack.toggle(0).remove(1).model, fact.question)
        'Rome'
    """

    def __init__(self, model: LoadedModel, edits: Edit | Sequence[Edit] = ()) -> None:
        if model.edited:
            raise ValueError(f"{model.name!r} is an edited model. A stack is made on its base: EditStack(model.base).")
        self._base = model
        self._layers: tuple[StackLayer, ...] = ()
        self._made: LoadedModel | None = None
        given: object = [edits] if isinstance(edits, Edit) else edits
        if not isinstance(given, Iterable) or isinstance(given, str):
            raise TypeError(f"A stack is made of edits, got {shortened(edits)}.")
        for edit in cast(Iterable[Edit], given):
            self.add(edit)

    # What it is

    @property
    def base(self) -> LoadedModel:
        """The base model."""
        return self._base

    @property
    def layers(self) -> tuple[StackLayer, ...]:
        """The edits with their switch, strength and stage, first to last."""
        return self._layers

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits, first to last, whether they are on or off."""
        return tuple(layer.edit for layer in self._layers)

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The edited facts, each once."""
        return tuple({fact.id: fact for edit in self.edits for fact in edit.facts}.values())

    @property
    def delta(self) -> Delta:
        """What the edits that are on add to the base together."""
        return _joined(self._layers)

    @property
    def model(self) -> LoadedModel:
        """The base with the edits that are on; the base itself where none is."""
        if self._made is None:
            self._made = self._with(self._layers)
        return self._made

    @property
    def fingerprint(self) -> str:
        """Fingerprint of ``model``: the base of an edit that is made on it."""
        return fingerprint_of(self._base, self._layers)

    @property
    def notes(self) -> tuple[str, ...]:
        """In words, which edits act on another model than the one that they were made on, and why."""
        problems = on_another_model(self._base, self._layers)
        return tuple(problem for i, problem in problems.items() if self._layers[i].acts)

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Edit]:
        return iter(self.edits)

    def __enter__(self) -> LoadedModel:
        """The model with the edits that are on, as they are now."""
        return self.model

    def __exit__(self, *_: object) -> None:
        """Nothing is to be undone: the base was never changed."""

    def __repr__(self) -> str:
        return f"EditStack({self._base.name!r}: {', '.join(map(_words, self._layers)) or 'no edits'})"

    def _repr_html_(self) -> str:
        items = "".join(
            f"<li>{html.escape(_words(x))}: {html.escape(x.edit.delta().words())}</li>" for x in self._layers
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<p>{html.escape(repr(self))}</p><ol start='0'>{items}</ol>{notes}"

    # What changes it

    def add(self, edit: Edit, *, on: bool = True, strength: float = 1.0, stage: str | None = None) -> EditStack:
        """Put an edit on top.

        Args:
            edit: An edit for the base, or one that was made on top of the stack as it is now.
            on: Whether it acts.
            strength: From 0 (the model without it, to the bit) to 1.
            stage: Its stages up to this one; None for all.

        Raises:
            ValueError: Another base, an unknown stage, a strength that is not finite, or ``on`` that is no bool.
        """
        if on not in (True, False):
            raise ValueError(f"on must be True or False, got {on!r}.")
        one: object = edit
        if not isinstance(one, Edit):
            raise TypeError(f"A stack is made of edits, got {shortened(one)}; Edit.load(folder) reads one.")
        if edit.base_fingerprint not in (self._base.fingerprint, self.fingerprint):
            check_base(self.model, edit)  # raises, and says why
        if stage is not None and not (isinstance(stage, str) and chosen_stages(edit, stage)):
            raise ValueError(f"stage must be one of {list(edit.stage_names)} or None, got {stage!r}.")
        layer = StackLayer(edit=edit, on=bool(on), strength=float(finite(strength)), stage=stage)
        return self._change((*self._layers, layer))

    def toggle(self, i: int, on: bool | None = None) -> EditStack:
        """Turn an edit on or off.

        Args:
            i: Its place, from 0; negative ones count from the top.
            on: Which; None for the other of both.

        Raises:
            IndexError: There is no such place.
            ValueError: ``on`` is something else.
        """
        i = self._place(i)
        if on not in (None, True, False):
            raise ValueError(f"on must be True, False or None (switch it), got {on!r}.")
        return self._replace(i, replace(self._layers[i], on=not self._layers[i].on if on is None else bool(on)))

    def scale(self, i: int, strength: float) -> EditStack:
        """Give an edit a strength.

        Args:
            i: Its place.
            strength: From 0 (the model without it, to the bit) to 1, the whole edit; other numbers go on.

        Raises:
            IndexError: There is no such place.
            ValueError: A strength that is not finite.
        """
        i = self._place(i)
        return self._replace(i, replace(self._layers[i], strength=float(finite(strength))))

    def move(self, i: int, j: int) -> EditStack:
        """Move an edit to another place; those between close up.

        Args:
            i: Its place.
            j: The place that it has afterwards.

        Raises:
            IndexError: There is no such place.
            ValueError: An edit was made on top of others, and would not be there any more; nothing was moved.
        """
        i, j = self._place(i), self._place(j)
        layers = list(self._layers)
        layers.insert(j, layers.pop(i))
        before = misplaced(self._layers)
        if new := [words for key, words in misplaced(layers).items() if key not in before]:
            raise ValueError(f"{self._layers[i].name} cannot be moved to place {j}: {'; '.join(new)}.")
        return self._change(layers)

    def remove(self, i: int) -> EditStack:
        """Take an edit out of the stack.

        Args:
            i: Its place.

        Raises:
            IndexError: There is no such place.
        """
        i = self._place(i)
        return self._change((*self._layers[:i], *self._layers[i + 1 :]))

    def copy(self) -> EditStack:
        """Another stack of the same edits, which can be changed by itself."""
        other = EditStack(self._base)
        return other._change(self._layers)

    # What it shows

    @own_torch_settings()
    def overlaps(self) -> StackOverlaps:
        """Compare every two edits that are on, at their strength: the directions of inputs that low-rank updates read,
        the gates that both move, the weights that both change; and measure how far the weights are from the base's
        after each edit.

        Returns:
            The comparison, with ``words``, ``to_frame()`` and ``plot()``.

        Raises:
            ValueError: Weights that are not plain numbers (quantised).

        Example:
            >>> stack = wb.EditStack(model, [edit, edit])
            >>> print(stack.overlaps().words)
            france-capital and france-capital share 56 of 56 gates at L1 post (cosine 1.00).
            After france-capital: the changed weights are ...
            After france-capital: the changed weights are ...
        """
        deltas = {i: _joined([layer]) for i, layer in enumerate(self._layers) if layer.acts}
        return overlaps_of(self._base, [layer.name for layer in self._layers], deltas)

    @own_torch_settings()
    def broken(
        self, *facts: Fact | FactSet | Sequence[Fact], progress: bool = False, cancel: CancelFlag | None = None
    ) -> StackAnswers:
        """Ask each fact's question of the base and after each edit that is on, and find which edit broke which fact.

        An edited fact is broken where the model said its target with its own edit and no longer does (where that edit
        made it say no answer: where the old one is back); any other fact where it no longer says its own answer.

        Args:
            facts: Facts to ask besides those of the stack's edits.
            progress: Show a progress bar.
            cancel: Looked at between batches.

        Returns:
            Every answer with its class, with ``broken``, ``words``, ``to_frame()`` and ``plot()``.

        Raises:
            ValueError: Neither the stack has an edit nor are facts given.
            Cancelled: ``cancel`` was set.

        Example:
            >>> print(wb.EditStack(model, [edit]).broken().words)
            No edit broke one of the 1 facts.
        """
        asked = {fact.id: fact for given in (self.facts, *facts) for fact in as_facts(given)}
        if not asked:
            raise ValueError("The stack has no edits and no facts were given, so there is nothing to ask.")
        on = [layer for layer in self._layers if layer.on]

        def model_of(after: int) -> LoadedModel:
            return self.model if after == len(on) else self._with(on[:after])

        options = {"progress": progress, "cancel": cancel}
        return answers_of(self._base, self._layers, list(asked.values()), model_of, **options)

    def save(self, path: str | Path) -> Path:
        """Write the stack to a folder: ``stack.json``, and every edit in ``edits/``. Returns the folder.

        Raises:
            FileExistsError: There is something else of that name.
            OSError: It cannot be written; what was there is as it was.

        Example:
            >>> folder = wb.EditStack(model, [edit]).scale(0, 0.5).save("stack")
            >>> wb.EditStack.load(model, folder)
            EditStack('tiny': france-capital (strength 0.5))
        """
        return save_stack(self._layers, self._base.fingerprint, self._base.name, path)

    @classmethod
    def load(cls, model: LoadedModel, path: str | Path) -> EditStack:
        """Read a stack that ``save`` wrote.

        Args:
            model: Its base.
            path: The folder.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: It is not a stack, damaged, or of another base; the message says which.
        """
        layers, fingerprint, name = load_stack_layers(path)
        stack = cls(model)
        if fingerprint != model.fingerprint:
            raise ValueError(
                f"This stack is of {name!r} with the fingerprint {fingerprint[:16]}, but the model is {model.name!r} "
                f"with the fingerprint {model.fingerprint[:16]}. Load that base."
            )
        for layer in layers:
            if layer.edit.root_fingerprint not in (model.fingerprint, model.base.fingerprint):
                raise ValueError(
                    f"The stack's edit {layer.name!r} in {str(path)!r} is of {layer.edit.base_name!r} with the "
                    f"fingerprint {layer.edit.root_fingerprint[:16]}, but the stack is of {model.name!r} with the "
                    f"fingerprint {model.fingerprint[:16]}: its files were replaced. Save the stack again."
                )
        return stack._change(layers)

    def _place(self, i: object) -> int:
        """A place from 0."""
        n = len(self._layers)
        if not isinstance(i, SupportsIndex) or not -n <= i.__index__() < n:
            raise IndexError(f"The stack has {n} edits, at the places 0 to {n - 1}; got {i!r}." if n else "No edits.")
        return i.__index__() % n

    def _replace(self, i: int, layer: StackLayer) -> EditStack:
        return self._change((*self._layers[:i], layer, *self._layers[i + 1 :]))

    def _change(self, layers: Sequence[StackLayer]) -> EditStack:
        self._layers, self._made = tuple(layers), None
        return self

    @own_torch_settings()
    def _with(self, layers: Sequence[StackLayer]) -> LoadedModel:
        """The base with those of some edits that act: one at strength 0 is no part of it, so that sums come out as
        without it."""
        base, acting = self._base, [layer for layer in layers if layer.acts]
        if not acting:
            return base
        delta = _joined(acting)
        view, _ = mounted_view(base, delta)
        return LoadedModel(
            view,
            base.tokenizer,
            name=base.name,
            architecture=base.architecture,
            base=base,
            applied=tuple(AppliedEdit(x.edit, x.last_stage, x.strength) for x in acting),
            delta=delta,
        )


def _joined(layers: Sequence[StackLayer]) -> Delta:
    """What those of some edits that act add together."""
    delta: Delta = NO_DELTA
    for layer in layers:
        if layer.acts:
            delta = delta.then(layer.edit.delta(layer.stage, layer.strength))
    return delta


def _words(layer: StackLayer) -> str:
    """A layer's name, and what of it is not as usual."""
    marks: list[str] = []
    if not layer.on:
        marks.append("off")
    if layer.strength != 1:
        marks.append(f"strength {layer.strength:g}")
    if layer.stage is not None and layer.stage != layer.edit.stage_names[-1]:
        marks.append(layer.stage)
    return layer.name + (f" ({', '.join(marks)})" if marks else "")
