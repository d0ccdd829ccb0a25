"""Hand-made states of widgets, as a notebook keeps them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np


def record(name: str, version: str = "2.0.0", **fields: Any) -> dict[str, Any]:
    """One widget: its model's name without ``Model``, and its traits."""
    return {
        "model_name": f"{name}Model",
        "model_module": "@jupyter-widgets/controls",
        "model_module_version": version,
        "state": fields,
    }


def anywidget(name: str, buffers: dict[str, bytes] | None = None, **fields: Any) -> dict[str, Any]:
    """An anywidget of a class of this name, with its binary traits."""
    encoded = [
        {"encoding": "base64", "path": [key], "data": base64.b64encode(data).decode()}
        for key, data in (buffers or {}).items()
    ]
    state = {"_anywidget_id": f"some.module.{name}", "_esm": "export default {}", **fields}
    return {"model_name": "AnyModel", "model_module": "anywidget", "state": state, "buffers": encoded}


def heat_grid(values: Any, **fields: Any) -> dict[str, Any]:
    """A map of these values."""
    array = np.asarray(values, dtype="<f4")
    n_rows, n_cols = array.shape
    given = {
        "shape": [n_rows, n_cols],
        "rows": [f"L{r}" for r in range(n_rows)],
        "cols": [f"H{c}" for c in range(n_cols)],
        "limit": 2.0,
        **fields,
    }
    return anywidget("HeatGrid", {"data": array.tobytes()}, **given)


def ref(name: str) -> str:
    """How a box names a child."""
    return f"IPY_MODEL_{name}"


def state(**records: Any) -> dict[str, Any]:
    """What lies under ``application/vnd.jupyter.widget-state+json``."""
    return {"version_major": 2, "version_minor": 0, "state": records}
