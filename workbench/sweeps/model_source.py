"""Where a worker gets a sweep's model from: loaded by what it is, or, of a model in memory, from a folder.

It is written once, and read by every worker.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from workbench.editing.applied import Dial
from workbench.editing.export import export_base
from workbench.files.paths import whole_path
from workbench.models.load import AppliedEdit, LoadedModel, load_model
from workbench.models.quiet import no_loading_bars

CACHE_LINE = 64
"""Bytes."""
SHIPPED = "model"
"""The folder in a sweep's folder that holds a model that was in memory, while the sweep runs."""


@dataclass(frozen=True)
class ModelSource:
    """What a model is loaded from.

    Args:
        source: As ``load_model`` takes it: None for the bundled one, a folder, a file, or a hub id.
        options: Of ``load_model``.
        edits: Put on after it is loaded, in order.
        places: Where each weight of a model in memory lies, by name: its address modulo ``CACHE_LINE``.
    """

    source: str | None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    edits: tuple[AppliedEdit, ...] = ()
    places: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def words(self) -> str:
        """What it is, in a sentence."""
        return "the bundled model" if self.source is None else f"the model {self.source}"

    def load(self) -> LoadedModel:
        """Load it, and put its edits on.

        Raises:
            FileNotFoundError, OSError, ValueError: As ``load_model``.
        """
        model = load_model(self.source, **self.options)
        _place(model, self.places)
        for one in self.edits:
            model = Dial(model, one.edit, one.stage).at(one.strength)
        return model


def given_source(model: str | Path | None) -> ModelSource:
    """The source that a user names.

    Raises:
        TypeError: It is none.
    """
    if model is not None and not isinstance(model, (str, Path)):
        raise TypeError(
            f"model must be None, a folder, a file, a hub id, or a model of wb.load_model, got {type(model).__name__}."
        )
    return ModelSource(whole_path(model))


def source_of(model: LoadedModel, folder: Path) -> ModelSource:
    """The source of a model in memory. One that `load_model` loaded from a file is loaded in the same way; another is
    written to a folder first.

    Args:
        model: Base or edited.
        folder: The sweep's.

    Raises:
        OSError: It cannot be written.
        ValueError: It is a changed view of another model without edits that say how, so that no worker can make it.
    """
    base = model.base
    if model is not base and not model.applied:
        raise ValueError(
            f"{model.name!r} is a changed view of another model that no edit describes, so no worker can make it. "
            "Sweep without an executor, or over the base with an edit."
        )
    if base.origin is not None and base.origin.version == base.version:
        return ModelSource(base.origin.source, base.origin.options, model.applied)
    with no_loading_bars():
        written = export_base(folder / SHIPPED, base)
    options: dict[str, Any] = {"name": base.name, "dtype": str(base.dtype).removeprefix("torch.")}
    options |= {"template": dict(base.template), "untested": base.architecture.untested}
    if base.device.type != "cpu":
        options["device"] = base.device.type
    places = {name: p.data_ptr() % CACHE_LINE for name, p in base.hf.named_parameters() if p.device.type == "cpu"}
    return ModelSource(str(written.resolve()), options, model.applied, places)


def _place(model: LoadedModel, places: Mapping[str, int]) -> None:
    """Move weights that were just loaded to where they lie in the process that runs the sweep, modulo a cache line.

    A matrix product takes another path through a matrix that does not begin with a cache line, which rounds the last
    digit otherwise: weights in memory begin with one, weights in a file anywhere. So results are the same to the bit.
    """
    for name, parameter in model.hf.named_parameters():
        if name not in places or parameter.data_ptr() % CACHE_LINE == places[name]:
            continue
        size = parameter.numel() * parameter.element_size()
        room = torch.empty(size + CACHE_LINE, dtype=torch.uint8)
        start = (places[name] - room.data_ptr()) % CACHE_LINE
        placed = room[start : start + size].view(parameter.dtype).view(parameter.shape)
        parameter.data = placed.copy_(parameter.data)


def remove_shipped(folder: Path) -> None:
    """Remove what ``source_of`` wrote; it is written anew by the next run."""
    shutil.rmtree(folder / SHIPPED, ignore_errors=True)
