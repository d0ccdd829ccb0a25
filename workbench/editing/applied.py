"""Putting an edit on a model for a while: an edited model that shares the base's weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from workbench.models.cache import EnginePool
from workbench.models.deltas import Mounted, gate_sites
from workbench.models.load import AppliedEdit, LoadedModel
from workbench.models.views import shared_view
from workbench.tracing.self_check import require
from workbench.types import Delta, EarlierEdit, Edit
from workbench.types.earlier import fingerprint_with
from workbench.types.torch_settings import own_torch_settings


def check_base(model: LoadedModel, edit: Edit) -> None:
    """Raise a ValueError that names both fingerprints when an edit was fitted on another base: neither on the model as
    it is, with the edits that it carries, nor on its base; a TypeError for what is no edit."""
    given: object = edit
    if not isinstance(given, Edit):
        raise TypeError(f"An edit is an Edit, got {given!r:.80}. Of a saved one: wb.load_edit(path).")
    if edit.base_fingerprint in (model.fingerprint, model.base.fingerprint):
        return
    if edit.earlier and edit.root_fingerprint == model.base.fingerprint:
        raise ValueError(_not_under(model, edit))
    raise ValueError(
        f"This edit was fitted on {edit.base_name!r} with the fingerprint {edit.base_fingerprint[:16]}, but the "
        f"model is {model.base.name!r} with the fingerprint {model.base.fingerprint[:16]}. It means nothing "
        "there: load that base, or fit the edit again."
    )


def check_under(model: LoadedModel, edit: Edit, what: str) -> None:
    """Raise a ValueError where a model is not the one under an edit: its base, or the base with just the edits that it
    carried when this one was made.

    Args:
        model: The model.
        edit: The edit.
        what: What asks, for the message.
    """
    if model.applied and edit.base_fingerprint == model.base.fingerprint:
        raise ValueError(
            f"{what} puts the edit on what it was made for by itself: pass the base model (model.base) and the edit. "
            "(What it does on top of others: put it on with wb.applied(..., stack=True), or make it there.)"
        )
    check_base(model, edit)


def carried(model: LoadedModel) -> tuple[EarlierEdit, ...]:
    """The edits that a model carries, as an edit that is made on it has them."""
    out: list[EarlierEdit] = []
    for i, one in enumerate(model.applied):
        under = fingerprint_with(model.base.fingerprint, (e.key for e in out)) if i else model.base.fingerprint
        ids = tuple(fact.id for fact in one.edit.facts)
        out.append(EarlierEdit(id=one.edit.id, facts=ids, stage=one.stage, strength=one.strength, under=under))
    return tuple(out)


def _not_under(model: LoadedModel, edit: Edit) -> str:
    """Why an edit that was made on top of others does not fit a model over the right base, and what is missing."""
    here = carried(model)
    keys = [one.key for one in here]
    missing = [one for one in edit.earlier if one.key not in keys]
    extra = [one for one in here if one.key not in [e.key for e in edit.earlier]]
    states = [
        f"it lacks {'; '.join(one.words for one in missing)}" if missing else "",
        f"it carries besides {'; '.join(one.words for one in extra)}" if extra else "",
        "" if missing or extra else "it carries them in another order",
    ]
    return (
        f"This edit was made on {edit.base_name!r} with {len(edit.earlier)} edit(s) under it, with the fingerprint "
        f"{edit.base_fingerprint[:16]}, but the model has the fingerprint {model.fingerprint[:16]}: "
        f"{', and '.join(filter(None, states))}. Put the same edits on first, in their order: "
        "wb.applied(model, [earlier, ..., edit])."
    )


def chosen_stages(edit: Edit, stages: Sequence[str] | str | None) -> tuple[str, ...]:
    """Some of an edit's stages, in its order; None for all, and ``"base"`` is let pass.

    Raises:
        ValueError: An unknown stage, or none; the message lists what there is.
    """
    if isinstance(stages, str):
        stages = (stages,)
    given = edit.stage_names if stages is None else tuple(s for s in stages if s != "base")
    unknown = [s for s in given if s not in edit.stage_names]
    if unknown or not given:
        raise ValueError(f"stages must be some of {list(edit.stage_names)} of this edit, got {list(given)}.")
    return tuple(s for s in edit.stage_names if s in given)


def mounted_view(base: LoadedModel, delta: Delta) -> tuple[Any, Mounted]:
    """A view of a base with a delta on it, and what writes other numbers of it there.

    Raises:
        ValueError: A delta of another model, or the model's self-check found that its gates would be wrong.
    """
    view = shared_view(base.hf)
    require(base, "gate", *(("groups",) if {"k", "v"} & {site for _, site in gate_sites(delta)} else ()))
    return view, Mounted(view, base.architecture, delta)


class Dial:
    """An edited model whose strength can be turned: its numbers are changed in place, where ``applied`` makes a model
    anew.

    Args:
        model: The edit's base, or an edited model over it to stack on.
        edit: The edit.
        stage: Its stages up to this one; None for all.

    Raises:
        ValueError: Another base, an unknown stage, or the model's self-check found that its gates would be wrong.
    """

    @own_torch_settings()
    def __init__(self, model: LoadedModel, edit: Edit, stage: str | None = None) -> None:
        check_base(model, edit)
        if not edit.stages:
            raise ValueError("The edit has no stages, so there is nothing to apply.")
        self._model, self._edit, self._stage = model, edit, stage or edit.stage_names[-1]
        self._view, self._mounted = mounted_view(model.base, model.delta.then(edit.delta(stage)))
        self._engines = EnginePool()

    @own_torch_settings()
    def at(self, strength: float) -> LoadedModel:
        """The model at a strength (as for ``applied``).

        There is one model to turn: those given before are turned to it as well, while what they say of themselves
        (``applied``, ``delta``, ``fingerprint``) and a bridge that they have built stay. Use the one given last.

        Raises:
            ValueError: A strength that is not finite.
        """
        model = self._model
        delta = model.delta.then(self._edit.delta(self._stage, strength))
        self._mounted.write(delta)
        self._engines.writes += 1  # what the models given before have in their caches is of another strength
        return LoadedModel(
            self._view,
            model.tokenizer,
            name=model.name,
            architecture=model.architecture,
            base=model.base,
            applied=(*model.applied, AppliedEdit(self._edit, self._stage, strength)),
            delta=delta,
            engines=self._engines,
        )


@contextmanager
def applied(
    model: LoadedModel,
    edit: Edit | Sequence[Edit],
    stage: str | None = None,
    strength: float = 1.0,
    *,
    stack: bool = False,
) -> Iterator[LoadedModel]:
    """Give the edited model for the length of a ``with`` block. The given model is not changed, so nested and repeated
    use is safe, and both can be used side by side.

    Args:
        model: The edit's base (or, with ``stack``, an edited model over it).
        edit: The edit, or several that follow each other: each made for the base, or on top of those before it.
        stage: The last edit's stages up to this one; None for all.
        strength: Of the last edit: from 0, which equals the model without it to the bit, to 1, the whole edit. Gates go
            from 1, what is added from 0, whole tensors from the base's.
        stack: Allow a model that carries edits already; the new one comes after them.

    Yields:
        The edited model, a view that shares the given model's weights.

    Raises:
        ValueError: Another base (for an edit that was made on top of others: the message names those that are missing),
            an unknown stage, a strength that is not finite, an edited model without ``stack``, or the model's
            self-check (``model.support``) found that its gates would be wrong.

    Example:
        >>> with wb.applied(model, edit) as edited:
        ...     print(wb.ask(model, fact.question), "->", wb.ask(edited, fact.question))
        Paris -> Rome
        >>> with wb.applied(model, edit, strength=0.0) as edited:
        ...     print(wb.ask(edited, fact.question))
        Paris
    """
    if model.applied and not stack:
        raise ValueError(
            f"{model.name!r} carries {len(model.applied)} edit(s) already. Pass stack=True to put this one on top, or "
            "use model.base."
        )
    edits = [edit] if isinstance(edit, Edit) else list(edit)
    if not edits:
        raise ValueError("applied needs at least one edit, got none. The base itself is the model without any.")
    *earlier, last = edits
    for before in earlier:
        model = Dial(model, before).at(1.0)
    yield Dial(model, last, stage).at(strength)
