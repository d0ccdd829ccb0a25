"""Panel: a box of controls that has a picture for where no widget is drawn."""

from __future__ import annotations

from typing import Any

from IPython.display import Image
from ipywidgets import VBox

from workbench.widgets.grid.png import with_picture


class Panel(VBox):
    """What all panels share: a PNG beside the widget, in the notebook file and on demand."""

    def _picture(self) -> bytes:
        """What the panel shows, as a PNG."""
        raise NotImplementedError

    def snapshot(self) -> Image:
        """The panel's picture as it is now: shown in a cell, it stays in the notebook without a kernel, on GitHub too.

        Returns:
            The PNG that is stored beside the panel wherever it is displayed: its map where it has one, else a card
            that names the fact.
        """
        return Image(data=self._picture(), format="png")

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return with_picture(super()._repr_mimebundle_(**kwargs), repr(self), self._picture())
