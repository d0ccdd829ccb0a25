"""The state of widgets as a notebook keeps it: ``metadata.widgets`` of an ``.ipynb``, and ``ipywidgets.embed``.

Every widget is a record with its model's name, its fields and its binary parts; a box names its children by
``"IPY_MODEL_" + id``. A notebook is a file from anybody: whatever is not as it should be is left out, nothing is run.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

STATE = "application/vnd.jupyter.widget-state+json"
REFERENCE = "IPY_MODEL_"


@dataclass(frozen=True)
class SavedWidget:
    """One widget as it was saved.

    Args:
        id: Of its model.
        name: What it is: the model's name without ``Model``, such as ``"HBox"``; of an anywidget its class, such as
            ``"HeatGrid"``.
        fields: Its traits by name, bytes put back. JupyterLab leaves out those at their default.
    """

    id: str
    name: str
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A field as text; empty where it is none."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else ""

    def listed(self, name: str) -> list[Any]:
        """A field as a list; empty where it is none."""
        value = self.fields.get(name)
        return value if isinstance(value, list) else []

    def number(self, name: str, default: float = 0.0) -> float:
        """A field as a number; the default where it is none."""
        value = self.fields.get(name)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else default


class SavedWidgets:
    """All widgets of a notebook.

    Args:
        state: What lies under ``STATE``: ``{"version_major": 2, "state": {id: record}}``. Of another version, or none
            at all, there are no widgets.

    Example:
        >>> label = {"model_name": "LabelModel", "state": {"value": "Paris"}}
        >>> widgets = SavedWidgets({"version_major": 2, "state": {"a1": label}})
        >>> widgets.find("IPY_MODEL_a1").text("value")
        'Paris'
        >>> widgets.find("IPY_MODEL_b2") is None
        True
    """

    def __init__(self, state: Any) -> None:
        known = isinstance(state, dict) and state.get("version_major") == 2
        records = state.get("state") if known else None
        self._records: dict[str, Any] = records if isinstance(records, dict) else {}

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[SavedWidget]:
        return (widget for name in self._records if (widget := self.find(name)) is not None)

    def find(self, reference: Any) -> SavedWidget | None:
        """The widget of this id or ``IPY_MODEL_`` reference; None where the notebook has none."""
        if not isinstance(reference, str):
            return None
        name = reference.removeprefix(REFERENCE)
        record = self._records.get(name)
        if not isinstance(record, dict) or not isinstance(record.get("state"), dict):
            return None
        fields: dict[str, Any] = dict(record["state"])
        buffers = record.get("buffers")
        for buffer in buffers if isinstance(buffers, list) else ():
            _put_back(fields, buffer)
        return SavedWidget(name, _name(record.get("model_name"), fields), fields)


def of_notebook(metadata: Mapping[str, Any]) -> SavedWidgets:
    """The widgets in a notebook's metadata."""
    widgets = metadata.get("widgets")
    return SavedWidgets(widgets.get(STATE) if isinstance(widgets, dict) else None)


def _name(model_name: Any, fields: Mapping[str, Any]) -> str:
    """``"HBoxModel"`` is ``"HBox"``; all anywidgets are one model, which names their class."""
    called = fields.get("_anywidget_id")
    if isinstance(called, str):
        return called.rpartition(".")[2]
    name = model_name if isinstance(model_name, str) else str(fields.get("_model_name", ""))
    return name.removesuffix("Model")


def _put_back(fields: dict[str, Any], buffer: Any) -> None:
    """Bytes are saved beside the fields, as text."""
    if not isinstance(buffer, dict) or not isinstance(buffer.get("data"), str):
        return
    decoders = {"base64": base64.b64decode, "hex": bytes.fromhex}
    path, decode = buffer.get("path"), decoders.get(str(buffer.get("encoding")))
    if decode is None or not isinstance(path, list) or len(path) != 1 or not isinstance(path[0], str):
        return
    try:
        fields[path[0]] = decode(buffer["data"])
    except (binascii.Error, ValueError):
        fields.pop(path[0], None)
