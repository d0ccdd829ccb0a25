"""What was found out about a model, kept for as long as the model is there and its weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from workbench.models.load import LoadedModel

T = TypeVar("T")


class Remembered(Generic[T]):
    """A notebook of its own for each model; one that is changed in place gets a new one.

    Args:
        make: Makes an empty notebook.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._kept: WeakKeyDictionary[LoadedModel, tuple[str, T]] = WeakKeyDictionary()

    def of(self, model: LoadedModel) -> T:
        """The model's notebook. A change through a tensor's ``.data`` is not noticed, as by ``fingerprint``."""
        known = self._kept.get(model)
        if known is None or known[0] != model.fingerprint:
            known = self._kept[model] = (model.fingerprint, self._make())
        return known[1]

    def clear(self) -> None:
        """Forget all models."""
        self._kept.clear()
