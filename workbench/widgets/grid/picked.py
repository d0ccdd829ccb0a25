"""PickedWidget: what a browser picks from, and Python owns. The heat map and the bar list are such widgets.

The browser asks for a new selection with a numbered pick (``picked`` and ``seq``); Python checks it, sets ``selected``
and answers with ``ack``. Until then the browser shows the pick as pending, and after 1.5 s it says that the kernel is
busy or not connected: a click never looks accepted when nothing has reached Python. What is no selection (Ctrl+Z, a
pin) comes as a message of its own, after the answer to the picks before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import traitlets
from traitlets import TraitError

from workbench.widgets.grid.png import with_picture
from workbench.widgets.grid.state import short
from workbench.widgets.shared.module import SharedModule
from workbench.widgets.shared.snapshot import Snapshot
from workbench.widgets.shared.subshells import reach_widgets
from workbench.widgets.shared.sync import WholeMessages

FROM_BROWSER = frozenset({"picked", "selected", "seq", "cursor", "hover"})
MAX_SEQ = 2**53  # the largest number up to which JavaScript counts in ones

Callback = Callable[..., object]


class PickedWidget(WholeMessages, SharedModule):
    """The selection, its protocol and the callbacks; a subclass says in ``_item`` and ``_items`` what may be picked."""

    kind = traitlets.Unicode("cell", help="what is picked, in the singular").tag(sync=True)
    selectable = traitlets.Bool(True).tag(sync=True)
    disabled = traitlets.Bool(False, help="shown, but not to be picked from now").tag(sync=True)
    selected: Any = traitlets.Instance(object, help="what is selected, in order; assign a new list to change it").tag(
        sync=True
    )
    ack = traitlets.Int(0, help="the last pick that Python has answered").tag(sync=True)
    problem = traitlets.Unicode(help="why the last pick was refused or failed").tag(sync=True)
    cursor: Any = traitlets.Any(None, help="where the keyboard is, or None; both sides write it").tag(sync=True)
    pinnable = traitlets.Bool(False, help="whether somebody listens to pins").tag(sync=True)
    pinned: Any = traitlets.Instance(object, help="what is shown as pinned; Python sets it").tag(sync=True)
    # Written by the browser.
    hover: Any = traitlets.Any(None, help="what is under the pointer, or None").tag(sync=True, echo_update=False)
    picked = traitlets.List(help="the browser's pick; always empty in Python").tag(sync=True, echo_update=False)
    seq = traitlets.Int(0, help="the number of the browser's pick; always 0 in Python").tag(
        sync=True, echo_update=False
    )

    def __init__(self, **traits: Any) -> None:
        reach_widgets()
        self.error: Exception | None = None
        self._callbacks: dict[str, list[Callback]] = {"pick": [], "pin": [], "undo": [], "redo": []}
        super().__init__(**traits)
        self.on_msg(lambda _, content, __: self._heard(content))

    def to_png(self) -> bytes:
        """What it shows, as a PNG picture."""
        raise NotImplementedError

    def snapshot(self) -> Snapshot:
        """What it shows now, with real text: shown in a cell, it stays in the notebook without a kernel; ``save``
        writes it as HTML, SVG, PDF or PNG."""
        return Snapshot(self, self.to_png())

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return with_picture(data, repr(self), self.to_png()), metadata

    def on_pick(self, callback: Callable[[list[Any]], object]) -> None:
        """Call ``callback(selected)`` whenever the browser has changed the selection; never after a change from Python.

        An exception of the callback is shown in the widget and kept on ``.error``. So it is with the other callbacks.
        """
        self._callbacks["pick"].append(callback)

    def on_pin(self, callback: Callable[[Any], object]) -> None:
        """Call ``callback(item)`` whenever the browser pins something: a double click, the key P, or its name.

        Nothing is pinned by that alone: the callback decides, and sets ``pinned`` to what is marked. Until a callback
        is there, the browser offers no pins.
        """
        self._callbacks["pin"].append(callback)
        self.pinnable = True

    def on_undo(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` when Ctrl+Z (or Cmd+Z) is pressed here. Without a callback the key does nothing."""
        self._callbacks["undo"].append(callback)

    def on_redo(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` when Ctrl+Shift+Z or Ctrl+Y (or with Cmd) is pressed here."""
        self._callbacks["redo"].append(callback)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take a message from the browser. What is not valid changes nothing and is kept on ``.error``."""
        state = dict(sync_data)
        seq = state.pop("seq", None)
        sent = [state.pop(name) for name in ("picked", "selected") if name in state]
        if sent:
            self._take_pick(sent[0], seq)
            if "selected" in sync_data:  # a client that wrote Python's own trait hears what it is now
                self.send_state("selected")
        try:
            if foreign := sorted(set(state) - FROM_BROWSER):
                raise TraitError(
                    f"{', '.join(foreign)}: only Python sets this; the browser may set {set(FROM_BROWSER)}."
                )
            if "hover" in state and self._item(state["hover"]) != self.hover:
                self._leave()
            with self.hold_sync():
                super().set_state(state)
        except Exception as error:
            self._fail(error)
            self.send_state(sorted(set(sync_data) & set(self.keys) - {"picked", "selected", "seq"}))

    def _item(self, value: Any) -> Any:
        """One of what may be picked, or None, checked. Raises TraitError."""
        raise NotImplementedError

    def _items(self, value: Any) -> list[Any]:
        """Several of them, distinct and in order, checked. Raises TraitError."""
        raise NotImplementedError

    def _given(self, item: Any) -> Any:
        """One of them as callbacks get it."""
        return item

    def _leave(self) -> None:
        """The pointer left what it was on."""

    def _take_pick(self, items: Any, seq: Any) -> None:
        before = self.selected
        with self.hold_sync():  # one message: the selection and the answer
            try:
                if seq is not None and (type(seq) is not int or not 0 < seq <= MAX_SEQ):
                    seq, received = None, seq
                    raise TraitError(f"seq must be an integer from 1 to 2**53, not {short(received)}.")
                if self.disabled or not self.selectable:
                    raise TraitError("Nothing can be picked here now.")
                self.selected = items
                self.error, self.problem = None, ""
            except Exception as error:  # refused, or an observer of `selected` failed
                self._fail(error)
            if seq is not None:
                self.ack = seq
        if self.selected != before:
            self._call("pick", [self._given(item) for item in self.selected])

    def _heard(self, content: Any) -> None:
        """A message of the browser that is no selection: ``{"event": "undo" | "redo" | "pin", "item": ...}``."""
        event = content.get("event") if isinstance(content, dict) else None
        if event in ("undo", "redo"):
            self._call(event)
        elif event == "pin":
            try:
                item = self._item(content.get("item"))
                if item is None:
                    raise TraitError("A pin needs an item.")
            except TraitError as error:
                return self._fail(error)
            self._call("pin", self._given(item))

    def _call(self, event: str, *arguments: Any) -> None:
        for callback in self._callbacks[event]:
            try:
                callback(*arguments)
            except Exception as error:  # would vanish in the log console
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.error, self.problem = error, f"{type(error).__name__}: {error}"

    @traitlets.default("selected")
    def _nothing_selected(self) -> list[Any]:
        return []

    @traitlets.default("pinned")
    def _nothing_pinned(self) -> list[Any]:
        return []

    @traitlets.validate("selected", "pinned")
    def _valid_items(self, proposal: Any) -> list[Any]:
        return self._items(proposal["value"])

    @traitlets.validate("cursor", "hover")
    def _valid_item(self, proposal: Any) -> Any:
        return self._item(proposal["value"])
