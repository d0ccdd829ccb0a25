"""PathView: the exact path between two nodes of a graph, patched in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ipywidgets import HTML

from workbench.plots.graph_layout import node_order
from workbench.types import PathEffect
from workbench.types.circuit import Edge, as_node
from workbench.types.shape import ModelShape
from workbench.widgets.shared import markup
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.voice import person


class PathView(HTML):
    """A line about one path. Of two that are asked for, the later one is shown.

    Args:
        patch: Patches the path from a sender to a receiver.
        shape: Of the model.
        changed: Called when another path is shown.
    """

    def __init__(
        self, patch: Callable[[str, str], PathEffect], shape: ModelShape, changed: Callable[[], object]
    ) -> None:
        super().__init__()
        self._patch, self._shape, self._changed = patch, shape, changed
        self._lock = threading.RLock()
        self.job: Job[PathEffect] | None = None
        self.result: PathEffect | None = None
        self.error: BaseException | None = None
        self.ends: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"PathView({' -> '.join(self.ends)})"

    def ask(self, first: str, second: str) -> Job[PathEffect] | None:
        """Patch the path between two nodes, from the lower to the upper one. None where there is no such path, which
        the line then says."""
        sender, receiver = sorted((first, second), key=lambda name: node_order(name, self._shape))
        with self._lock:
            self.result = self.error = None
            self.ends = (sender, receiver)
            try:
                Edge(as_node(sender), as_node(receiver))
            except ValueError as error:
                self.job = None
                self._fail(error)
                return None
            self._write(f"Patching {sender} -> {receiver} exactly ...")
            self.job = Job(lambda _: self._patch(sender, receiver), on_done=self._ended)
            job = self.job
        self._changed()
        return job

    def clear(self) -> None:
        """Show none."""
        with self._lock:
            self.job = self.result = self.error = None
            self.ends, self.value = (), ""
        self._changed()

    def _ended(self, job: Job[PathEffect]) -> None:
        with self._lock:
            if job is not self.job:
                return  # another path was asked for
            if job.error is not None:
                return self._fail(job.error)
            self.result = job.result
            if job.result is not None:
                self._write(f"The exact path {job.result.words}.")
        self._changed()

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self.value = markup.alert(person(error))
        self._changed()

    def _write(self, words: str) -> None:
        self.value = markup.block(f'<span role="status">{markup.text(words)}</span>')
