"""HeadTips: where the head under the pointer attends, in the tooltip of a graph."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from workbench.models.load import LoadedModel
from workbench.plots.style import short_number, visible
from workbench.tracing.attention import attention_patterns
from workbench.types import Component, Contrast, Fact, Form
from workbench.widgets.graph.view import GraphView
from workbench.widgets.picker.attention import Attention
from workbench.widgets.picker.picker import CircuitPicker
from workbench.widgets.shared.job import Job
from workbench.widgets.shared.voice import person


class HeadTips:
    """Fills the tooltips of heads. Weights are made when somebody first points at a head, or are those of a picker that
    shows the same text.

    Args:
        model: The model.
        view: The graph.
        text: Gives the fact or contrast, and a fact's form; None where there are several.
        picker: A picker of the same model, if there is one.
    """

    def __init__(
        self,
        model: LoadedModel,
        view: GraphView,
        text: Callable[[], tuple[Fact | Contrast, Form | None] | None],
        picker: CircuitPicker | None,
    ) -> None:
        self._model, self._view, self._text, self._picker = model, view, text, picker
        self._lock = threading.RLock()
        self.job: Job[Any] | None = None
        self._attention: Attention | None = None
        view.observe(lambda change: self._pointed(change["new"]), names="hover")
        if picker is not None:
            picker.on_attention(lambda: self._pointed(view.hover))

    def __repr__(self) -> str:
        return f"HeadTips({'there' if self._attention is not None else 'not computed'})"

    def forget(self) -> None:
        """Another text is shown."""
        with self._lock:
            if self.job is not None:
                self.job.cancel()
            self.job = self._attention = None

    def _pointed(self, name: str | None) -> None:
        head = _head(name)
        text = self._text()
        if name is None or head is None or text is None:
            return
        with self._lock:
            attention = self._there(*text)
            if attention is not None:
                self._view.show_tip(name, tip_text(attention, head))
            elif self.job is None and not self._shown_by_picker(*text):
                item, form = text
                self.job = Job(lambda _: attention_patterns(self._model, item, form=form), on_done=self._came)

    def _there(self, item: Fact | Contrast, form: Form | None) -> Attention | None:
        """The weights, if they are there; a picker of the same text makes its own."""
        if self._picker is None or not self._shown_by_picker(item, form):
            return self._attention
        if self._picker.attention is None:
            self._picker.compute_attention()
        return self._picker.attention

    def _shown_by_picker(self, item: Fact | Contrast, form: Form | None) -> bool:
        picker = self._picker
        return picker is not None and picker.fact == item and (isinstance(item, Contrast) or picker.form == form)

    def _came(self, job: Job[Any]) -> None:
        with self._lock:
            if job is not self.job:
                return
            if job.result is not None:
                weights, prompt = job.result
                self._attention = Attention(weights, prompt)
                self._pointed(self._view.hover)
            elif job.error is not None and _head(self._view.hover) is not None:
                self._view.show_tip(self._view.hover, person(job.error))


def tip_text(attention: Attention, head: Component) -> str:
    """Where the last token attends most, in the prompt's order."""
    weights = attention.of(head)[-1]
    lines = [
        f"{visible(attention.tokens[i])}  {short_number(float(weights[i]), share=True)}"
        for i in sorted(attention.most(head))
    ]
    return "\n".join(["Where the last token attends:", *lines])


def _head(name: str | None) -> Component | None:
    """The head that a node stands for."""
    if name is None or "->" in name or name in ("embedding", "logits"):
        return None
    component = Component.parse(name)
    return component if component.kind == "H" else None
